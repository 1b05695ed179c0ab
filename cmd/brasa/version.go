package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/spf13/cobra"
)

// version is set by the linker: -X main.version=v1.2.3.
var version = "dev"

// commit returns the commit that the program was built from, as far as Go recorded it.
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	var id, dirty string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			id = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+changes"
		}
	}
	return id + dirty
}

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Say which version this is, and which the server is",
		Example: "  brasa version\n  brasa version --json",
		RunE: func(c *cobra.Command, _ []string) error {
			type program struct {
				Version string `json:"version"`
				Commit  string `json:"commit,omitempty"`
				Go      string `json:"go"`
			}
			data := struct {
				Client program  `json:"client"`
				Server *program `json:"server"`
				URL    string   `json:"server_url"`
			}{Client: program{version, commit(), runtime.Version()}, URL: a.server}
			client, err := a.client()
			if err != nil {
				return err
			}
			if v, err := client.Version(c.Context()); err == nil {
				data.Server = &program{v.Version, v.Commit, v.Go}
			}
			return a.out.Data(data, func(w io.Writer) error {
				server := "does not answer"
				if data.Server != nil {
					server = data.Server.Version + parenthesis(data.Server.Commit)
				}
				if a.out.Format == cli.Names {
					_, err := fmt.Fprintln(w, version)
					return err
				}
				_, err := fmt.Fprintf(w, "brasa   %s%s\nserver  %s  at %s\n", version, parenthesis(data.Client.Commit), server, a.server)
				return err
			})
		},
	}
}
