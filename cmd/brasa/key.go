package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/spf13/cobra"
)

func newKey(a *app) *cobra.Command {
	return newGroup("key", "Make and revoke the API keys of a namespace", []string{"keys"},
		newKeyCreate(a), newKeyLs(a), newKeyRm(a))
}

func newKeyCreate(a *app) *cobra.Command {
	var subject, file string
	c := &cobra.Command{
		Use:     "create [flags]",
		Aliases: []string{"add"},
		Short:   "Make a key for the namespace",
		Long:    "Make a key that may do everything in the namespace and nothing elsewhere. It is shown this once.",
		Example: `  brasa key create -n shop --for ci
  brasa key create -n shop --to-file ~/.config/brasa/shop.key
  BRASA_KEY=$(brasa key create -n shop -o name) brasa ls -n shop`,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			var out *os.File
			if file != "" { // before the key is made, so that no key is made that gets lost
				if out, err = os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
					return cli.Usagef("--to-file: %v", err)
				}
				defer out.Close()
			}
			key, err := client.CreateKey(c.Context(), a.namespace, subject)
			if err != nil {
				if file != "" {
					_ = os.Remove(file) // empty, and ours
				}
				return cli.While(err, "make a key for %q", a.namespace)
			}
			if out != nil {
				if _, err := fmt.Fprintln(out, key.Secret); err != nil {
					return err
				}
				key.Secret = ""
			}
			return a.out.Data(key, func(w io.Writer) error {
				if out != nil {
					_, err := fmt.Fprintf(w, "key %s is in %s\n", key.ID, file)
					return err
				}
				a.out.Say("key %s for namespace %s; it is shown this once:", key.ID, a.namespace)
				_, err := fmt.Fprintln(w, key.Secret)
				return err
			})
		},
	}
	c.Flags().StringVar(&subject, "for", "", "`WHO` will use it; shown in lists and kept with each call")
	c.Flags().StringVar(&file, "to-file", "", "`FILE` that it is written to instead of stdout, readable by you alone; it must not exist")
	return c
}

func newKeyLs(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the keys of the namespace",
		Example: "  brasa key ls -n shop",
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			keys, err := client.Keys(c.Context(), a.namespace)
			if err != nil {
				return cli.While(err, "list the keys of %q", a.namespace)
			}
			ids := make([]string, len(keys))
			g := cli.NewGrid("ID", "FOR", "MAY", "CREATED")
			for i, k := range keys {
				ids[i] = k.ID
				may := strings.Join(k.Namespaces, ", ")
				if k.Admin {
					may = "everything"
				}
				g.Row(k.ID, cli.CleanLine(k.Subject), may, cli.Ago(k.Created, a.out.Now()))
			}
			return a.list(map[string]any{"keys": keys}, ids, g, "no keys")
		},
	}
}

func newKeyRm(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "rm ID",
		Aliases: []string{"delete", "revoke", "remove"},
		Short:   "Revoke a key at once",
		Example: "  brasa key rm 4f0c9a1b2c3d -n shop",
		Args:    exactly("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			if err := client.DeleteKey(c.Context(), a.namespace, args[0]); err != nil {
				return cli.While(err, "revoke key %q", args[0])
			}
			return a.deleted(args[0])
		},
	}
}
