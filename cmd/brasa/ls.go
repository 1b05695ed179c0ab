package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/spf13/cobra"
)

func newLs(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the functions",
		Long:    "List the functions of the namespace, with the figures of the last hour.",
		Example: `  brasa ls
  brasa ls -o wide
  brasa ls -o name | xargs -n1 brasa describe`,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			functions, err := client.Functions(c.Context(), a.namespace)
			if err != nil {
				return cli.While(err, "list the functions of %q", a.namespace)
			}
			data := map[string]any{"functions": functions}
			return a.out.Data(data, func(w io.Writer) error {
				if a.out.Format == cli.Names {
					for _, f := range functions {
						if _, err := fmt.Fprintln(w, f.Name); err != nil {
							return err
						}
					}
					return nil
				}
				if len(functions) == 0 {
					a.out.Say("no functions yet in %q; try: brasa init hello -l python && brasa deploy hello%s", a.namespace, a.namespaceFlag())
					return nil
				}
				wide := a.out.Format == cli.Wide
				head := []string{"NAME", "RUNTIME", "VERSION", "STATUS", "CALLS(1h)", "P95", "ERR%", "UPDATED"}
				if wide {
					head = append(head, "P50", "COLD", "CREATED", "URL")
				}
				now, g := a.out.Now(), cli.NewGrid(head...)
				for _, f := range functions {
					status := "private"
					if f.Public {
						status = "public"
					}
					row := []string{
						f.Name, strings.TrimSpace(f.Runtime + " " + f.Version), f.Revision.Short(), status,
						strconv.Itoa(f.Figures.Calls), "", "", cli.Ago(f.Updated, now),
					}
					if n := f.Figures.Calls; n > 0 {
						row[5] = cli.Took(time.Duration(f.Figures.P95) * time.Microsecond)
						row[6] = fmt.Sprintf("%.1f", 100*float64(f.Figures.Errors)/float64(n))
					}
					if wide {
						p50 := ""
						if f.Figures.Calls > 0 {
							p50 = cli.Took(time.Duration(f.Figures.P50) * time.Microsecond)
						}
						row = append(row, p50, strconv.Itoa(f.Figures.Cold), cli.Ago(f.Created, now), f.URL)
					}
					g.Row(row...)
				}
				return g.Write(w, a.out.OutStyles(), a.out.TableWidth())
			})
		},
	}
}
