package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/policy"
	"github.com/brasa-dev/brasa/internal/simulate"
)

// coldHere is what a cold start of Python takes here, as docs/benchmarks.md has it.
const coldHere = "2.1ms"

type simulateFlags struct {
	trace, meta  string
	policy       string
	keep, jitter time.Duration
	cold, idle   string
	price        float64
	seed         uint64
}

func newSimulate(a *app) *cobra.Command {
	f := &simulateFlags{}
	c := &cobra.Command{
		Use:   "simulate --trace FILE",
		Short: "See how many cold starts a policy would have had on a trace of calls",
		Long: `Replay a trace of calls against a policy that says for how long idle instances stay and when one is
made ahead. It says how many calls would have started cold, how long all callers would have waited for
that, and how much memory would have been held for nobody, for all and for each application.

Policies:
  oracle  holds an instance at the ages at which calls have come, if that is worth its memory
  fixed   keeps an idle instance for --keep
  none    keeps none

A trace is CSV. It has one line a call: function,begin_ms,duration_ms,memory_mb. Two forms of published
traces are read too: app,avg_mem_mb,…,1,2,… with the number of instances for each minute, and
func_name,invoke_time_ms with --meta. No server is needed.`,
		Example: "  brasa simulate --trace calls.csv\n" +
			"  brasa simulate --trace calls.csv --policy fixed --keep 10m --cold 500ms\n" +
			"  brasa simulate --trace calls.csv --json | jq .data.cold_wait_s",
		RunE: func(c *cobra.Command, _ []string) error { return a.simulate(f) },
	}
	fs := c.Flags()
	fs.StringVar(&f.trace, "trace", "", "`FILE` of calls; - is the standard input")
	fs.StringVar(&f.meta, "meta", "", "`FILE` that says how long each function's calls take, where the trace does not")
	fs.StringVar(&f.policy, "policy", "oracle", "`NAME` of the policy: oracle, fixed or none")
	fs.DurationVar(&f.keep, "keep", 10*time.Minute, "for --policy fixed: `TIME` that an idle instance stays")
	fs.StringVar(&f.cold, "cold", coldHere, "`TIME` that a cold start takes; \"trace\": what the trace says")
	fs.StringVar(&f.idle, "idle-memory", "trace", "`SIZE` that an idle instance holds; \"trace\": as much as one that works")
	fs.Float64Var(&f.price, "price", float64(policy.DefaultPrice), "for --policy oracle: `SECONDS` of waiting that a GiB held for an hour must save")
	fs.DurationVar(&f.jitter, "jitter", 0, "calls begin up to this `TIME` later, each by chance; for traces that know minutes alone")
	fs.Uint64Var(&f.seed, "seed", 1, "for --jitter: a `NUMBER`, with which chance is the same each time")
	return c
}

func (a *app) simulate(f *simulateFlags) error {
	cfg := simulate.Config{Price: policy.Price(f.price)}
	switch f.policy {
	case "oracle":
		cfg.Policy = func() simulate.Policy { return &policy.History{} }
	case "fixed":
		cfg.Policy = func() simulate.Policy { return simulate.Fixed(f.keep) }
	case "none":
		cfg.Policy = func() simulate.Policy { return simulate.Fixed(0) }
	default:
		return cli.Usagef("there is no policy %q", f.policy).WithFix("--policy oracle, fixed or none")
	}
	if f.price < 0 {
		return cli.Usagef("--price %v: memory can't be worth less than nothing", f.price).WithFix("--price 1")
	}
	var err error
	if f.cold != "trace" {
		if cfg.Cold, err = time.ParseDuration(f.cold); err != nil || cfg.Cold <= 0 {
			return cli.Usagef("--cold %q is no time", f.cold).WithFix("--cold 2.1ms, or --cold trace")
		}
	}
	if f.idle != "trace" {
		if cfg.Idle, err = faas.ParseBytes(f.idle); err != nil {
			return cli.Usagef("--idle-memory: %v", err)
		}
	}
	t, err := readTrace(f)
	if err != nil {
		return cli.While(err, "read the trace")
	}
	if f.jitter > 0 {
		t.Jitter(f.jitter, rand.New(rand.NewPCG(f.seed, 0)))
	}
	out, err := simulate.Run(t, cfg)
	if err != nil {
		return err
	}
	return a.out.Data(out, func(w io.Writer) error { return a.drawSimulation(w, out) })
}

func readTrace(f *simulateFlags) (*simulate.Trace, error) {
	if f.trace == "" {
		return nil, cli.Usagef("which trace?").WithFix("--trace FILE")
	}
	var in, meta io.Reader = os.Stdin, nil
	if f.trace != "-" {
		file, err := os.Open(f.trace)
		if err != nil {
			return nil, cli.Usagef("--trace: %v", err)
		}
		defer file.Close()
		in = file
	}
	if f.meta != "" {
		file, err := os.Open(f.meta)
		if err != nil {
			return nil, cli.Usagef("--meta: %v", err)
		}
		defer file.Close()
		meta = file
	}
	return simulate.Read(in, meta)
}

// drawSimulation shows the sums, and the applications whose callers would have waited longest.
func (a *app) drawSimulation(w io.Writer, out *simulate.Outcome) error {
	const most = 10
	worst := slices.Clone(out.Apps)
	slices.SortStableFunc(worst, func(x, y simulate.AppResult) int { return y.ColdStarts - x.ColdStarts })
	g := cli.NewGrid("APP", "CALLS", "COLD", "WAIT", "WASTED")
	row := func(name string, r simulate.Result) {
		g.Row(cli.CleanLine(name), fmt.Sprint(r.Calls), fmt.Sprint(r.ColdStarts), cli.Took(time.Duration(r.ColdWait*float64(time.Second))), fmt.Sprintf("%.1f%%", 100*r.Wasted))
	}
	row("(all)", out.Result)
	for _, r := range worst[:min(most, len(worst))] {
		row(r.App, r.Result)
	}
	if err := g.Write(w, a.out.OutStyles(), a.out.TableWidth()); err != nil {
		return err
	}
	if n := len(worst) - most; n > 0 {
		a.out.Say("and %d more with fewer cold starts; all of them: --json", n)
	}
	return nil
}
