package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

func newDev(a *app) *cobra.Command {
	var d dev
	c := &cobra.Command{
		Use:     "dev [DIR] [flags]",
		Aliases: []string{"watch"},
		Short:   "Deploy on save and show each call, while you write",
		Long: `Watch a directory, deploy what changes on save, and print a line for each call. A server is
started if none answers, and ends with this command; functions deployed to it are public, so
that curl needs no key.

A directory with a main, index or handler file (or brasa.json, package.json, go.mod) is one
function. Any other holds functions: each file of source, and each subdirectory with such a
file, is one.

If a function has an input.json beside its code, it is called with that after each save.
Code that does not load is reported with file and line; the revision before goes on serving.`,
		Example: `  brasa dev
  brasa dev ./shop --no-call
  brasa dev hello.py`,
		Args: atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			d.app, d.dir = a, "."
			if len(args) > 0 {
				d.dir = args[0]
			}
			err := d.run(c.Context())
			if c.Context().Err() != nil {
				return nil // Ctrl-C is how this command ends
			}
			return err
		},
	}
	c.Flags().BoolVar(&d.noCall, "no-call", false, "do not call a function with its input.json after each save")
	c.Flags().StringVar(&d.config, "config", "", "`FILE` of configuration for the server, if one is started")
	return c
}

// dev is one run of the command.
type dev struct {
	*app
	dir    string
	noCall bool
	config string

	client *api.Client
	ours   bool      // the server was started by us
	begin  time.Time // calls before it are not shown
}

func (d *dev) run(ctx context.Context) error {
	tree, err := newTree(d.dir)
	if err != nil {
		return err
	}
	defer tree.Close()
	group, ctx := errgroup.WithContext(ctx)
	server, err := d.findServer(ctx)
	if err != nil {
		return err
	}
	if server != nil {
		d.ours = true
		defer server.stop()
		group.Go(func() error { return server.wait(ctx) })
	}
	if d.client, err = d.app.client(); err != nil {
		return err
	}
	d.begin = time.Now()
	where := "deploying to " + d.server
	if d.ours {
		where = "a server runs at " + d.server + " while this does; its data is in " + d.data
	}
	d.out.Say("%s", where)
	d.out.Say("watching %s", filepath.Join(d.dir))
	if len(tree.functions()) == 0 {
		d.out.Say("no functions yet; in another terminal: brasa init hello -l python")
	}
	group.Go(func() error {
		return tree.watch(ctx, func(changed []candidate) {
			for _, f := range changed {
				d.deploy(ctx, f)
			}
		}, func(gone candidate) {
			d.out.Say("%s is gone; what was deployed of it stays until: brasa rm %s", gone.name, gone.name)
		})
	})
	group.Go(func() error { return d.showCalls(ctx) })
	return group.Wait()
}

// deploy deploys a function and reports how that went. It returns nothing: code that is wrong
// while it is being written is nothing to stop for.
func (d *dev) deploy(ctx context.Context, f candidate) {
	begin := time.Now()
	var step atomic.Value
	step.Store("sending")
	said := time.AfterFunc(longDeploy, func() {
		if !d.out.Structured() {
			d.print("%s %s: %s …", "deploying", f.name, step.Load())
		}
	})
	outcome, err := d.send(ctx, f, func(e api.DeployEvent) {
		if e.Begins != "" {
			step.Store(e.Begins)
		}
	})
	said.Stop()
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		d.reportFailure(f, "deploy", err)
		return
	}
	if d.out.Structured() {
		_ = d.out.Item(map[string]any{"event": "deployed", "function": f.name, "revision": outcome.Revision, "us": time.Since(begin).Microseconds()})
	} else if !outcome.Same || !f.seen {
		s := d.out.OutStyles()
		d.print("%s %s %s in %s  %s", s.Good.Render("deployed"), s.Strong.Render(f.name), outcome.Revision.Short(), cli.Took(time.Since(begin)), s.Accent.Render(outcome.URL))
	}
	if f.input != "" && !d.noCall && (!outcome.Same || !f.seen) {
		d.try(ctx, f)
	}
}

// longDeploy is how long a deploy may take before a line says what it is at: packages are installed, or
// a standard library is compiled.
const longDeploy = time.Second

func (d *dev) send(ctx context.Context, f candidate, told func(api.DeployEvent)) (*api.Outcome, error) {
	src, err := openSource(f.path, "")
	if err != nil {
		return nil, err
	}
	defer src.close()
	spec := api.Spec{}
	if d.ours {
		public := true
		spec.Public = &public
	}
	return send(ctx, d.client, faas.Name{Namespace: d.namespace, Function: f.name}, spec, src, told)
}

// mostInline is how much of an answer fits on a line.
const mostInline = 300

// try calls a function with its own input and shows the answer. The line about the call comes
// from showCalls, as for any other.
func (d *dev) try(ctx context.Context, f candidate) {
	flags := callFlags{input: "@" + f.input}
	in, opts, done, err := flags.read(true)
	if err != nil {
		d.reportFailure(f, "call", err)
		return
	}
	defer done()
	answer, err := d.client.InvokeRaw(ctx, d.namespace, f.name, opts, in)
	if err != nil {
		return // its record tells
	}
	defer answer.Close()
	text, _ := io.ReadAll(io.LimitReader(answer, mostInline+1))
	line := cli.CleanLine(strings.TrimSpace(string(text)))
	if len(text) > mostInline {
		line += " …"
	}
	if !d.out.Structured() {
		d.print("  %s %s", d.out.OutStyles().Faint.Render(filepath.Base(f.input)+" →"), line)
	}
}

func (d *dev) reportFailure(f candidate, what string, err error) {
	failure := cli.Explain(err)
	if d.out.Structured() {
		_ = d.out.Item(map[string]any{"event": "failed", "function": f.name, "during": what, "error": failure.JSON()})
		return
	}
	s := d.out.OutStyles()
	where := locate(failure.Because+"\n"+failure.Trace, f)
	if where != "" {
		where = " at " + s.Strong.Render(where)
	}
	d.print("%s %s%s: %s", s.Bad.Render(what+" failed"), s.Strong.Render(f.name), where, strings.TrimLeft(indented(cli.Clean(localPaths(failure.Because, f))), " "))
	if failure.Trace != "" && !strings.Contains(failure.Because, failure.Trace) {
		d.print("%s", indented(cli.Clean(localPaths(failure.Trace, f))))
	}
	for _, fix := range failure.Fix {
		d.print("  fix: %s", cli.Clean(fix))
	}
}

func indented(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n    ")
}

func (d *dev) print(format string, args ...any) {
	_ = d.out.Line(fmt.Sprintf(format, args...)) // nobody is left to tell if stdout is gone
}

// pollCalls is how often new calls are looked for; a person sees no delay.
const pollCalls = 150 * time.Millisecond

// showCalls prints a line for each call that ends, until ctx does.
func (d *dev) showCalls(ctx context.Context) error {
	seen := map[faas.ID]bool{}
	silent := false
	tick := time.NewTicker(pollCalls)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		page, err := d.client.Activations(ctx, d.namespace, api.Query{Since: d.begin, Limit: 100})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if !silent {
				d.out.Warn("calls are not shown for now: %s", cli.Explain(explained(err)).Because)
			}
			silent = true
			continue
		}
		silent = false
		for i := len(page.Activations) - 1; i >= 0; i-- {
			if act := &page.Activations[i]; !seen[act.ID] {
				seen[act.ID] = true
				d.showCall(act)
			}
		}
	}
}

// stripWidth is the width of the bar of phases.
const stripWidth = 24

func (d *dev) showCall(act *faas.Activation) {
	if d.out.Structured() {
		_ = d.out.Item(map[string]any{"event": "call", "activation": act})
		return
	}
	s := d.out.OutStyles()
	d.print("%s %s %s %s %s %s", s.Faint.Render(act.Timing.Begin.Local().Format("15:04:05")), s.Strong.Render(fmt.Sprintf("%-16s", functionOf(act))),
		s.Outcome(act.Outcome), act.Start, cli.Took(act.Timing.Total), cli.Strip(act.Timing, s, stripWidth))
	if act.Outcome == faas.OK {
		return
	}
	f := candidate{name: act.Function, path: d.dir}
	where := locate(act.Error+"\n"+act.Trace, f)
	if where != "" {
		where += ": "
	}
	d.print("  %s%s  %s", where, cli.CleanLine(act.Error), s.Faint.Render("brasa inv get "+string(act.ID)))
}
