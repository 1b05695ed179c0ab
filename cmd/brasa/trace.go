package main

import (
	"fmt"
	"io"
	"time"

	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/spf13/cobra"
)

func newTrace(a *app) *cobra.Command {
	var last bool
	c := &cobra.Command{
		Use:     "trace ID",
		Aliases: []string{"explain", "waterfall"},
		Short:   "Show where the time of a call went",
		Long: `Show where the time of a call went: phase by phase from the request to the last byte of the
answer, the parts of a phase below it, with the processor time where it was measured.
"last" stands for the newest call.`,
		Example: "  brasa trace last\n  brasa trace 0192f3c1a2b34c5d8e6f708192a3b4c5 --json",
		Args: func(c *cobra.Command, args []string) error {
			if last {
				return tooMany(c, args, 0)
			}
			return exactly("ID")(c, args)
		},
		ValidArgsFunction: a.completeActivations,
		RunE: func(c *cobra.Command, args []string) error {
			if last {
				args = []string{"last"}
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			act, err := a.lookUp(c.Context(), client, args[0])
			if err != nil {
				return cli.While(err, "trace call %s", args[0])
			}
			return a.out.Data(traceOf(act), func(w io.Writer) error {
				if a.out.Format == cli.Names {
					_, err := fmt.Fprintln(w, act.ID)
					return err
				}
				return a.drawTrace(w, act, a.out.OutStyles())
			})
		},
	}
	c.Flags().BoolVar(&last, "last", false, "trace the newest call")
	return c
}

// trace is what --json tells of a call's time.
type trace struct {
	ID       faas.ID     `json:"id"`
	Function string      `json:"function"`
	Outcome  faas.Code   `json:"outcome"`
	Start    faas.Start  `json:"start,omitempty"`
	Timing   faas.Timing `json:"timing"`
	Code     []faas.Tree `json:"code,omitempty"`
	CPU      int64       `json:"cpu_us"`
	Memory   faas.Bytes  `json:"memory_peak_bytes"`
	Logs     int         `json:"log_lines"`
}

func traceOf(act *faas.Activation) trace {
	return trace{
		ID: act.ID, Function: act.Function, Outcome: act.Outcome, Start: act.Start, Timing: act.Timing, Code: act.Code,
		CPU: act.CPUMicros, Memory: act.Memory, Logs: len(act.Logs),
	}
}

func (a *app) drawTrace(w io.Writer, act *faas.Activation, s cli.Styles) error {
	start := string(act.Start)
	if start == "" {
		start = "not started"
	}
	if _, err := fmt.Fprintf(w, "%s  %s  %s  %s  %s\n", s.Faint.Render(string(act.ID)), s.Strong.Render(functionOf(act)),
		s.Outcome(act.Outcome), start, cli.Took(act.Timing.Total)); err != nil {
		return err
	}
	if err := cli.Waterfall(w, act.Timing, s, a.out.Width); err != nil {
		return err
	}
	for _, t := range act.Code {
		if _, err := fmt.Fprintf(w, "made with %s\n", treeLine(t)); err != nil {
			return err
		}
	}
	cpu, memory, logs, where := "cpu not measured", "memory not measured", "no log", ""
	if act.CPUMicros > 0 {
		cpu = "cpu " + cli.Took(time.Duration(act.CPUMicros)*time.Microsecond)
	}
	if act.Memory > 0 {
		memory = "memory " + cli.Size(act.Memory) + " at its peak"
	}
	if n := len(act.Logs); n > 0 {
		logs = fmt.Sprintf("%d lines of log", n)
		if n == 1 {
			logs = "1 line of log"
		}
		where = fmt.Sprintf("brasa logs --id %s%s\n", act.ID, a.namespaceFlag())
	}
	_, err := fmt.Fprintf(w, "%s, %s, %s\n%s", cpu, memory, logs, where)
	return err
}

// treeLine says what an instance was made with, and where it was.
func treeLine(t faas.Tree) string {
	text := t.Target
	if t.Bytes > 0 {
		text += ", " + cli.Size(t.Bytes)
	}
	where := map[faas.From]string{
		faas.FromNode: "there already", faas.FromDisk: "there, and compared with its digest", faas.FromStore: "laid out from the store",
	}[t.From]
	if d := t.Digest.Hex(); len(d) > 12 {
		text += ", " + d[:12]
	}
	return fmt.Sprintf("%s, %s in %s", text, where, cli.Took(time.Duration(t.US)*time.Microsecond))
}
