package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/spf13/cobra"
)

func newRollback(a *app) *cobra.Command {
	var to string
	c := &cobra.Command{
		Use:     "rollback NAME [flags]",
		Aliases: []string{"activate"},
		Short:   "Make an earlier revision the active one",
		Long: `Make an earlier revision the active one: the one before the active one, or the one of --to.
Calls that are running end where they began; the next ones run the other revision.`,
		Example:           "  brasa rollback hello\n  brasa rollback hello --to 9f2c1a",
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeFunctions,
		RunE: func(c *cobra.Command, args []string) error {
			fn, err := a.function(args[0])
			if err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			f, from, err := a.rollback(c.Context(), client, fn, to)
			if err != nil {
				return a.suggestFunction(c.Context(), client, fn, cli.While(err, "roll %q back", fn.Path()))
			}
			return a.out.Data(f, func(w io.Writer) error {
				if a.out.Format == cli.Names {
					_, err := fmt.Fprintln(w, f.Name)
					return err
				}
				_, err := fmt.Fprintf(w, "%s runs revision %s now\n", fn.Path(), f.Revision.Short())
				a.out.Say("undo: brasa rollback %s%s --to %s", fn.Path(), a.namespaceFlag(), from.Short())
				return err
			})
		},
	}
	c.Flags().StringVar(&to, "to", "", "`ID` of the revision, or its first digits")
	completeFlag(c, "to", a.completeRevisions)
	return c
}

func (a *app) rollback(ctx context.Context, client *api.Client, fn faas.Name, to string) (f api.Function, from faas.RevisionID, err error) {
	revisions, err := client.Revisions(ctx, fn.Namespace, fn.Path())
	if err != nil {
		return f, "", err
	}
	var before faas.RevisionID
	for i, r := range revisions {
		if r.Active {
			from = r.ID
			if i+1 < len(revisions) {
				before = revisions[i+1].ID
			}
		}
	}
	if to == "" {
		if before == "" {
			return f, from, faas.Errorf(faas.Conflict, "", "no revision is older than the active one, %s", from.Short()).
				WithFix("see what there is: brasa versions %s%s", fn.Path(), a.namespaceFlag())
		}
		to = string(before)
	}
	if err := checkRevision("to", to, fn.Path()+a.namespaceFlag()); err != nil {
		return f, from, err
	}
	f, err = client.Activate(ctx, fn.Namespace, fn.Path(), strings.ToLower(to))
	return f, from, err
}

// fewestDigits is how many digits of a revision the server wants to know it by.
const fewestDigits = 4

// checkRevision says of a flag's value whether it can name a revision.
func checkRevision(flag, id, function string) error {
	rest := strings.TrimLeft(strings.ToLower(id), "0123456789abcdef")
	if id == "" || rest == "" && len(id) >= fewestDigits {
		return nil
	}
	return cli.Usagef("--%s %s is no revision: give at least its first %d digits", flag, id, fewestDigits).
		WithFix("see what there is: brasa versions %s", function)
}
