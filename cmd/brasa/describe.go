package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/spf13/cobra"
)

func newDescribe(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "describe NAME",
		Aliases:           []string{"status", "get"},
		Short:             "Show all that decides how a function runs, and how it does",
		Example:           "  brasa describe hello\n  brasa describe hello -o yaml",
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
			f, err := client.Function(c.Context(), fn.Namespace, fn.Path())
			if err != nil {
				return a.suggestFunction(c.Context(), client, fn, cli.While(err, "describe %q", fn.Path()))
			}
			return a.out.Data(f, func(w io.Writer) error {
				if a.out.Format == cli.Names {
					_, err := fmt.Fprintln(w, f.Name)
					return err
				}
				_, err := io.WriteString(w, a.describeFunction(f))
				return err
			})
		},
	}
}

// layerLine says where a layer is seen and which it is.
func layerLine(l faas.Layer) string {
	return fmt.Sprintf("%s at %s, %.12s", cli.Size(l.Bytes), l.Target, l.Digest.Hex())
}

func (a *app) describeFunction(f api.Function) string {
	s, now, r := a.out.OutStyles(), a.out.Now(), f.Active
	var b strings.Builder
	line := func(label, value string) {
		if value != "" {
			b.WriteString(s.Faint.Render(fmt.Sprintf("%-13s", label)) + cli.CleanLine(value) + "\n")
		}
	}
	access := "private: a key is needed"
	if f.Public {
		access = "public: its URL needs no key"
	}
	line("function", f.Namespace+"/"+f.Name)
	line("url", f.URL)
	line("access", access)
	if q := r.Sequence; q != nil {
		line("steps", q.String())
		if q.ErrorField {
			line("ends", `where an answer is an object with "error"`)
		}
		line("revision", r.ID.Short()+", deployed "+cli.Ago(r.Created, now))
		line("timeout", r.Limits.Timeout.String())
		line("async", policyLine(r.Async))
		line("created", cli.Ago(f.Created, now))
		line("calls", callsLine(f.Figures))
		return b.String()
	}
	line("runtime", strings.TrimSpace(r.Runtime+" "+r.Version))
	line("entry", r.Entry)
	line("handler", r.Handler)
	line("command", strings.Join(r.Command, " "))
	line("revision", r.ID.Short()+", deployed "+cli.Ago(r.Created, now))
	if i := r.Image; i != nil {
		line("image", strings.TrimSpace(fmt.Sprintf("%s sha256:%s", i.Reference, i.Manifest.Hex())))
		line("root", fmt.Sprintf("%s, sha256:%.12s, started in %s", cli.Size(i.Bytes), i.Root.Hex(), i.Dir))
	}
	if r.Code != "" {
		line("code", cli.Size(r.CodeBytes))
	}
	for _, l := range r.Layers {
		line("layer", layerLine(l))
	}
	l := r.Limits
	line("memory", l.Memory.String()+", of that /tmp "+l.Tmp.String())
	line("cpu", fmt.Sprintf("cores: %g, processes: %d", float64(l.CPU)/1000, l.PIDs))
	line("timeout", l.Timeout.String())
	instances := "as many as fit"
	if l.MaxInstances > 0 {
		instances = fmt.Sprintf("at most %d", l.MaxInstances)
	}
	if l.MinInstances > 0 {
		instances = fmt.Sprintf("at least %d, ", l.MinInstances) + instances
	}
	line("instances", fmt.Sprintf("%s; calls at once in each: %d", instances, l.Concurrency))
	for _, w := range r.Warm {
		line("warm", fmt.Sprintf("%d from %q %s for %s", max(w.Instances, 1), w.At, cmp.Or(w.Zone, "UTC"), w.For))
	}
	line("network", string(r.Network))
	line("reuse", string(r.Reuse))
	line("state", string(r.State))
	line("async", policyLine(r.Async))
	line("environment", strings.Join(slices.Sorted(maps.Keys(r.Env)), ", "))
	line("secrets", strings.Join(r.Secrets, ", "))
	line("created", cli.Ago(f.Created, now))
	line("calls", callsLine(f.Figures))
	return b.String()
}

// callsLine says how the calls of the last hour went.
func callsLine(n api.Figures) string {
	if n.Calls == 0 {
		return "none in the last hour"
	}
	return fmt.Sprintf("%d in the last hour, %d failed, %d cold; half within %s, 95%% within %s", n.Calls, n.Errors, n.Cold,
		cli.Took(time.Duration(n.P50)*time.Microsecond), cli.Took(time.Duration(n.P95)*time.Microsecond))
}
