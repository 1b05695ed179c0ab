package main

import (
	"fmt"
	"io"

	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/daemon"
	"github.com/spf13/cobra"
)

func newConfig(a *app) *cobra.Command {
	return newGroup("config", "Show the server's configuration", nil, newConfigPrint(a))
}

func newConfigPrint(a *app) *cobra.Command {
	var flags serverFlags
	c := &cobra.Command{
		Use:     "print [flags]",
		Aliases: []string{"show"},
		Short:   "Print the configuration that brasa serve would start with",
		Long: `Print the configuration that brasa serve would start with: the defaults, then the file of
--config, then the environment, then the flags. Each key is also an environment variable:
BRASA_ and the key in capitals, with underscores for dots.`,
		Example: "  brasa config print\n  BRASA_LIMITS_MEMORY_BYTES=512MiB brasa config print --config /etc/brasa.yaml",
		RunE: func(c *cobra.Command, _ []string) error {
			config, err := flags.load(a, c)
			if err != nil {
				return err
			}
			values := config.Values()
			return a.out.Data(map[string]any{"config": values}, func(w io.Writer) error {
				if a.out.Format == cli.Names {
					for _, v := range values {
						if _, err := fmt.Fprintln(w, v.Key); err != nil {
							return err
						}
					}
					return nil
				}
				g := cli.NewGrid("KEY", "VALUE")
				for _, v := range values {
					if value := v.Value; value == "0" || value == "0B" || value == "0s" {
						g.Row(v.Key, "(default)") // what that is depends on the machine, or on other keys
					} else {
						g.Row(v.Key, value)
					}
				}
				return g.Write(w, a.out.OutStyles(), a.out.TableWidth())
			})
		},
	}
	flags.add(c)
	return c
}

// serverFlags are the flags of the configuration; serve, dev and config print share them.
type serverFlags struct {
	config, listen string
	set            map[string]string
}

func (f *serverFlags) add(c *cobra.Command) {
	s := c.Flags()
	s.StringVar(&f.config, "config", "", "`FILE` of configuration in YAML")
	s.StringVar(&f.listen, "listen", "", "`ADDRESS` to listen on (127.0.0.1:8080)")
	s.StringToStringVar(&f.set, "set", nil, "`KEY=VALUE` of any key of the configuration; repeatable")
	// The environment variable of a key is the daemon's to read, in its place between file and
	// flags.
	envIs(c, "listen", "BRASA_LISTEN")
	envIs(c, "config", "BRASA_CONFIG")
	envIs(c, "set", "")
}

// load puts the configuration together.
func (f *serverFlags) load(a *app, c *cobra.Command) (daemon.Config, error) {
	flags := map[string]any{}
	for k, v := range f.set {
		flags[k] = v
	}
	if c.Flags().Changed("listen") {
		flags["listen"] = f.listen
	}
	if c.InheritedFlags().Changed("data") {
		flags["data"] = a.data
	}
	config, err := daemon.Load(f.config, flags)
	if err != nil {
		return config, cli.Usagef("%v", err)
	}
	return config, nil
}
