package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/spf13/cobra"
)

func newNodes(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "nodes",
		Aliases: []string{"node", "top"},
		Short:   "See which processes stand ready, for which function or for any",
		Long: `See what each node holds: the instances, which have a function's code loaded, and the stems, which
are booted and confined and wait for whatever function comes. KEPT says why an instance stays while
nobody calls. It needs an administrator's key.`,
		Example: "  brasa nodes\n  brasa nodes --json | jq '.data.nodes[].stems'",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			nodes, err := client.Nodes(c.Context())
			if err != nil {
				return cli.While(err, "list the nodes")
			}
			var names []string
			g := cli.NewGrid("NODE", "KIND", "WHAT", "READY", "BUSY", "CALLS", "MEMORY", "IDLE", "KEPT")
			for _, n := range nodes {
				names = append(names, n.Name)
				slices.SortFunc(n.Stems, func(a, b api.Stem) int {
					return cmp.Or(cmp.Compare(a.Class, b.Class), cmp.Compare(a.Network, b.Network))
				})
				slices.SortFunc(n.Instances, func(a, b api.Instance) int {
					return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Function, b.Function), cmp.Compare(a.ID, b.ID))
				})
				for _, s := range n.Stems {
					what := s.Class
					if s.Network != "" && s.Network != "none" {
						what += ", with network"
					}
					g.Row(n.Name, "stem", what, fmt.Sprint(s.Ready), "", "", cli.Size(s.Memory), "", "")
				}
				for _, in := range n.Instances {
					idle := ""
					if in.Active == 0 {
						idle = cli.Took(time.Duration(in.IdleMS) * time.Millisecond)
					}
					what := in.Function
					if what == "-" {
						what = "(run)"
					}
					g.Row(n.Name, "instance", in.Namespace+"/"+what, "", fmt.Sprint(in.Active), fmt.Sprint(in.Calls), cli.Size(in.Memory), idle, cli.CleanLine(in.Kept))
				}
			}
			err = a.list(map[string]any{"nodes": nodes}, names, g, "no process stands ready")
			for _, n := range nodes {
				a.out.Say("%s: %s of %s are promised to functions; %d calls wait", n.Name, cli.Size(n.Reserved), cli.Size(n.Memory), n.Waiting)
			}
			return err
		},
	}
}
