package main

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/charmbracelet/x/term"
	"github.com/spf13/cobra"
)

// mostSecret is the largest value a secret may have; the server holds the same limit.
const mostSecret = 64 << 10

func newSecret(a *app) *cobra.Command {
	return newGroup("secret", "Keep values that functions need and nobody may read", []string{"secrets"},
		newSecretPut(a), newSecretLs(a), newSecretRm(a))
}

func newSecretPut(a *app) *cobra.Command {
	var file string
	var newline bool
	c := &cobra.Command{
		Use:     "put NAME [flags]",
		Aliases: []string{"set", "create"},
		Short:   "Set a secret",
		Long: `Set a secret to what comes from stdin, from a file, or from what is typed. A value is never
taken from the command line, where ps and the shell's history would show it, and is never
shown again. A function gets it as an environment variable with deploy --secret NAME; its
instances that hold the older value are replaced.

A line end at the very end is left out unless --keep-newline is set.`,
		Example: `  brasa secret put DB_PASSWORD
  pass show db | brasa secret put DB_PASSWORD
  brasa secret put TLS_KEY --from-file server.key --keep-newline`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return cli.Usagef("a value does not belong on the command line: ps and the shell's history show it").
					WithFix("type it when asked, or: brasa secret put %s < FILE   (and change it, if this was the real one)", args[0])
			}
			return exactly("NAME")(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := faas.ValidateName("secret", args[0]); err != nil {
				return err
			}
			value, err := a.secretValue(args[0], file)
			if err != nil {
				return err
			}
			if !newline {
				value = bytes.TrimSuffix(bytes.TrimSuffix(value, []byte("\n")), []byte("\r"))
			}
			if len(value) == 0 {
				a.out.Warn("the value is empty")
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			s, err := client.PutSecret(c.Context(), a.namespace, args[0], string(value))
			if err != nil {
				return cli.While(err, "set secret %q", args[0])
			}
			return a.out.Data(s, func(w io.Writer) error {
				if a.out.Format == cli.Names {
					_, err := fmt.Fprintln(w, s.Name)
					return err
				}
				_, err := fmt.Fprintf(w, "set %s (%d bytes)\n", s.Name, len(value))
				a.out.Say("give it to a function: brasa deploy PATH --secret %s%s", s.Name, a.namespaceFlag())
				return err
			})
		},
	}
	c.Flags().StringVar(&file, "from-file", "", "`FILE` that holds the value")
	c.Flags().BoolVar(&newline, "keep-newline", false, "keep a line end at the end of the value")
	return c
}

// secretValue reads the value from where it comes.
func (a *app) secretValue(name, file string) ([]byte, error) {
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return nil, cli.Usagef("--from-file: %v", err)
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.Mode().Perm()&0o044 != 0 {
			a.out.Warn("%s can be read by others on this machine (mode %o); chmod 600 it", file, info.Mode().Perm())
		}
		return readSecret(f)
	}
	if !term.IsTerminal(os.Stdin.Fd()) {
		return readSecret(os.Stdin)
	}
	fmt.Fprintf(os.Stderr, "value of %s (it is not shown): ", name)
	value, err := term.ReadPassword(os.Stdin.Fd())
	fmt.Fprintln(os.Stderr)
	return value, err
}

func readSecret(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, mostSecret+1))
	if len(b) > mostSecret {
		return nil, faas.Errorf(faas.TooLarge, "read secret", "the value has more than %s", faas.Bytes(mostSecret))
	}
	return b, err
}

func newSecretLs(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the names of the secrets",
		Example: "  brasa secret ls",
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			secrets, err := client.Secrets(c.Context(), a.namespace)
			if err != nil {
				return cli.While(err, "list the secrets of %q", a.namespace)
			}
			names := make([]string, len(secrets))
			g := cli.NewGrid("NAME", "UPDATED")
			for i, s := range secrets {
				names[i] = s.Name
				g.Row(s.Name, cli.Ago(s.Updated, a.out.Now()))
			}
			return a.list(map[string]any{"secrets": secrets}, names, g, "no secrets yet; set one with: brasa secret put NAME"+a.namespaceFlag())
		},
	}
}

func newSecretRm(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "rm NAME",
		Aliases:           []string{"delete", "remove"},
		Short:             "Delete a secret",
		Long:              "Delete a secret. Functions that ask for it can't start new instances until it is set again.",
		Example:           "  brasa secret rm DB_PASSWORD",
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeSecrets,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			if err := client.DeleteSecret(c.Context(), a.namespace, args[0]); err != nil {
				return cli.While(err, "delete secret %q", args[0])
			}
			return a.deleted(args[0])
		},
	}
}

// list prints things that have names.
func (a *app) list(data any, names []string, g *cli.Grid, none string) error {
	return a.out.Data(data, func(w io.Writer) error {
		if a.out.Format == cli.Names {
			for _, n := range names {
				if _, err := fmt.Fprintln(w, n); err != nil {
					return err
				}
			}
			return nil
		}
		if len(names) == 0 {
			a.out.Say("%s", none)
			return nil
		}
		return g.Write(w, a.out.OutStyles(), a.out.TableWidth())
	})
}

// deleted says that a thing is gone.
func (a *app) deleted(name string) error {
	return a.out.Data(map[string]any{"deleted": []string{name}}, func(w io.Writer) error {
		if a.out.Format == cli.Names {
			_, err := fmt.Fprintln(w, name)
			return err
		}
		_, err := fmt.Fprintln(w, "deleted", name)
		return err
	})
}
