package main

import (
	"fmt"
	"io"

	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/spf13/cobra"
)

func newNamespace(a *app) *cobra.Command {
	return newGroup("namespace", "Make and delete namespaces: who owns functions, secrets and keys", []string{"ns", "namespaces"},
		newNamespaceCreate(a), newNamespaceLs(a), newNamespaceRm(a))
}

func newNamespaceCreate(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "create NAME",
		Aliases: []string{"add"},
		Short:   "Make a namespace",
		Example: "  brasa namespace create shop",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			ns, err := client.CreateNamespace(c.Context(), args[0])
			if err != nil {
				return cli.While(err, "make namespace %q", args[0])
			}
			return a.out.Data(ns, func(w io.Writer) error {
				if a.out.Format == cli.Names {
					_, err := fmt.Fprintln(w, ns.Name)
					return err
				}
				_, err := fmt.Fprintln(w, "made", ns.Name)
				a.out.Say("use it with: -n %s, or BRASA_NAMESPACE=%s; a key for it: brasa key create -n %s", ns.Name, ns.Name, ns.Name)
				return err
			})
		},
	}
}

func newNamespaceLs(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the namespaces that your key may see",
		Example: "  brasa namespace ls",
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			all, err := client.Namespaces(c.Context())
			if err != nil {
				return cli.While(err, "list the namespaces")
			}
			names := make([]string, len(all))
			g := cli.NewGrid("NAME", "CREATED")
			for i, ns := range all {
				names[i] = ns.Name
				g.Row(ns.Name, cli.Ago(ns.Created, a.out.Now()))
			}
			return a.list(map[string]any{"namespaces": all}, names, g, "no namespaces")
		},
	}
}

func newNamespaceRm(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "rm NAME",
		Aliases: []string{"delete", "remove"},
		Short:   "Delete a namespace that has no functions",
		Long:    "Delete a namespace with its secrets and keys. Its functions must be deleted before. It asks\nfirst, unless --yes is said.",
		Example: "  brasa namespace rm shop --yes",
		Args:    exactly("NAME"), ValidArgsFunction: a.completeNamespace,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			if err := a.confirm("delete namespace %q with its secrets and keys?", args[0]); err != nil {
				return err
			}
			if err := client.DeleteNamespace(c.Context(), args[0]); err != nil {
				return cli.While(err, "delete namespace %q", args[0])
			}
			return a.deleted(args[0])
		},
	}
}
