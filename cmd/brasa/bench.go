package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/brasa-dev/brasa/internal/bench"
	"github.com/brasa-dev/brasa/internal/cli"
)

type benchFlags struct {
	simulateFlags
	prefix    string
	speed     float64
	from, dur time.Duration
	keep      bool
}

func newBench(a *app) *cobra.Command {
	f := &benchFlags{}
	c := &cobra.Command{
		Use:   "bench --trace FILE",
		Short: "Replay a trace of calls against the server, with functions made for it",
		Long: `Replay a trace of calls in real time against the running server. A function is deployed for each
that the trace has, which waits as long as the trace says that a call took, and is removed in the end.
It says how much longer calls took than that, how many found no instance with the code loaded, and how
many failed.

With --speed 10 the calls come ten times faster, and take a tenth of the time. --from and --for choose a
piece of the trace. The forms of a trace are those of brasa simulate, which answers the same question
without a server and in less time, for policies that no server has.`,
		Example: "  brasa bench --trace calls.csv\n" +
			"  brasa bench --trace calls.csv --meta functions.csv --for 60s --speed 2\n" +
			"  brasa bench --trace calls.csv --json | jq .data.added_p99_ms",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.bench(c.Context(), f) },
	}
	fs := c.Flags()
	fs.StringVar(&f.trace, "trace", "", "`FILE` of calls; - is the standard input")
	fs.StringVar(&f.meta, "meta", "", "`FILE` that says how long each function's calls take, where the trace does not")
	fs.Float64Var(&f.speed, "speed", 1, "how many times faster than it was")
	fs.DurationVar(&f.from, "from", 0, "begin so far into the trace")
	fs.DurationVar(&f.dur, "for", 0, "replay so much of the trace; all of it when left out")
	fs.StringVar(&f.prefix, "prefix", "bench-", "`NAME` that the functions' names begin with")
	fs.BoolVar(&f.keep, "keep", false, "leave the functions there when it is over")
	return c
}

func (a *app) bench(ctx context.Context, f *benchFlags) error {
	if f.speed <= 0 || f.from < 0 || f.dur < 0 {
		return cli.Usagef("--speed, --from and --for can't be less than nothing").WithFix("--speed 1")
	}
	t, err := readTrace(&f.simulateFlags)
	if err != nil {
		return cli.While(err, "read the trace")
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	out, err := bench.Replay(ctx, bench.ReplayConfig{
		Client: client, Namespace: a.namespace, Prefix: f.prefix, Trace: t, From: f.from, For: f.dur, Speed: f.speed, Keep: f.keep,
	})
	if err != nil {
		return cli.While(err, "replay the trace")
	}
	return a.out.Data(out, func(w io.Writer) error { return a.drawReplay(w, out) })
}

// drawReplay shows the sums, and the functions that were called most.
func (a *app) drawReplay(w io.Writer, out *bench.Replayed) error {
	const most = 10
	took := func(ms float64) string { return cli.Took(time.Duration(ms * float64(time.Millisecond))) }
	g := cli.NewGrid("FUNCTION", "CALLS", "FAILED", "COLD", "ADDED P50", "ADDED P99")
	g.Row("(all)", fmt.Sprint(out.Calls), fmt.Sprint(out.Failed), fmt.Sprint(out.Cold), took(out.P50), took(out.P99))
	for _, r := range out.Apps[:min(most, len(out.Apps))] {
		g.Row(cli.CleanLine(r.App), fmt.Sprint(r.Calls), fmt.Sprint(r.Failed), fmt.Sprint(r.Cold), took(r.P50), took(r.P99))
	}
	if err := g.Write(w, a.out.OutStyles(), a.out.TableWidth()); err != nil {
		return err
	}
	a.out.Say("%.1f%% of the calls were cold, which took half of them %s longer; it took %.0f s", 100*out.ColdShare, took(out.ColdP50), out.Seconds)
	for code, n := range out.Failures {
		a.out.Say("%d failed: %s; see brasa help %s", n, code, code)
	}
	return nil
}
