package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/spf13/cobra"
)

func newRm(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "rm NAME...",
		Aliases: []string{"delete", "remove"},
		Short:   "Delete functions with all their revisions",
		Long:    "Delete functions with all their revisions. The records of their calls stay.",
		Example: "  brasa rm hello\n  brasa rm hello bye",
		Args:    atLeast("NAME"), ValidArgsFunction: a.completeFunctions,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			var removed []string
			var failed []error
			for _, arg := range args {
				fn, err := a.function(arg)
				if err == nil {
					err = client.Delete(c.Context(), fn.Namespace, fn.Path())
					err = a.suggestFunction(c.Context(), client, fn, cli.While(err, "delete %q", fn.Path()))
				}
				if err != nil {
					failed = append(failed, err)
					continue
				}
				removed = append(removed, fn.Path())
			}
			if len(failed) > 0 {
				for _, name := range removed {
					a.out.Say("deleted %s", name)
				}
				for _, err := range failed[:len(failed)-1] {
					a.out.Warn("%v", err)
				}
				return errors.Join(failed[len(failed)-1])
			}
			return a.out.Data(map[string]any{"deleted": removed}, func(w io.Writer) error {
				for _, name := range removed {
					line := "deleted " + name
					if a.out.Format == cli.Names {
						line = name
					}
					if _, err := fmt.Fprintln(w, line); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}
