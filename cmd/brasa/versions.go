package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/spf13/cobra"
)

func newVersions(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "versions NAME",
		Aliases:           []string{"revisions"},
		Short:             "List a function's revisions, newest first",
		Example:           "  brasa versions hello\n  brasa rollback hello --to 9f2c1a",
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
			revisions, err := client.Revisions(c.Context(), fn.Namespace, fn.Path())
			if err != nil {
				return a.suggestFunction(c.Context(), client, fn, cli.While(err, "list the revisions of %q", fn.Path()))
			}
			return a.out.Data(map[string]any{"revisions": revisions}, func(w io.Writer) error {
				if a.out.Format == cli.Names {
					for _, r := range revisions {
						if _, err := fmt.Fprintln(w, r.ID); err != nil {
							return err
						}
					}
					return nil
				}
				g := cli.NewGrid("REVISION", "STATUS", "RUNTIME", "ENTRY", "CODE", "LAYERS", "MEMORY", "DEPLOYED")
				for _, r := range revisions {
					id, status, entry := r.ID.Short(), "kept", r.Entry
					if a.out.Format == cli.Wide {
						id = string(r.ID)
					}
					if r.Active {
						status = a.out.OutStyles().Good.Render("active")
					}
					if len(r.Command) > 0 {
						entry = strings.Join(r.Command, " ")
					}
					g.Row(id, status, strings.TrimSpace(r.Runtime+" "+r.Version), cli.CleanLine(entry), cli.Size(r.CodeBytes), layersOf(r.Layers),
						r.Limits.Memory.String(), cli.Ago(r.Created, a.out.Now()))
				}
				return g.Write(w, a.out.OutStyles(), a.out.TableWidth())
			})
		},
	}
}

// layersOf says how large layers are together; empty: there are none.
func layersOf(layers []faas.Layer) string {
	if len(layers) == 0 {
		return ""
	}
	sum := faas.Bytes(0)
	for _, l := range layers {
		sum += l.Bytes
	}
	return cli.Size(sum)
}
