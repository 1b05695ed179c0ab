package main

import (
	"io"
	"time"

	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/spf13/cobra"
)

func newBuilds(a *app) *cobra.Command {
	return newGroup("builds", "See what was written while functions were installed and built", []string{"build"}, newBuildsLs(a), newBuildsLog(a))
}

func newBuildsLs(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List what was installed and built in the last week, newest first",
		Example: "  brasa builds ls\n  brasa builds ls -o name | head -1 | xargs brasa builds log",
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			builds, err := client.Builds(c.Context(), a.namespace)
			if err != nil {
				return cli.While(err, "list the builds")
			}
			var names []string
			g := cli.NewGrid("BUILD", "FUNCTION", "OUTCOME", "BEGAN", "TOOK", "LOG", "MESSAGE")
			for _, b := range builds {
				names = append(names, string(b.ID))
				function := b.Function
				if function == "" {
					function = "(run)"
				}
				took := ""
				if b.Took > 0 {
					took = cli.Took(time.Duration(b.Took))
				}
				g.Row(string(b.ID), function, b.Outcome, cli.Ago(b.Began, a.out.Now()), took, cli.Size(b.Bytes), cli.CleanLine(b.Message))
			}
			return a.list(map[string]any{"builds": builds}, names, g, "nothing was installed or built in the last week")
		},
	}
}

func newBuildsLog(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "log ID",
		Aliases: []string{"logs", "get"},
		Short:   "Print all that was written during a build",
		Example: "  brasa builds log 0192f3c1a2b34c5d8e6f708192a3b4c5",
		Args:    exactly("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			log, err := client.BuildLog(c.Context(), a.namespace, args[0])
			if err != nil {
				return cli.While(err, "read the log of build %s", args[0])
			}
			defer log.Close()
			all, err := io.ReadAll(log)
			if err != nil {
				return cli.While(err, "read the log of build %s", args[0])
			}
			return a.out.Data(map[string]any{"id": args[0], "log": string(all)}, func(w io.Writer) error {
				text := string(all)
				if a.out.OutTTY { // tools write what moves the cursor, and their packages what they like
					text = cli.Clean(text)
				}
				_, err := io.WriteString(w, text)
				return err
			})
		},
	}
}
