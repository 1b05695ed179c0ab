package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/spf13/cobra"
)

func newInvoke(a *app) *cobra.Command {
	var flags callFlags
	var async asyncFlags
	var revision string
	var timeout time.Duration
	c := &cobra.Command{
		Use:     "invoke NAME [flags]",
		Aliases: []string{"call", "test"},
		Short:   "Call a function",
		Long: `Call a function and write its answer to stdout as it comes, byte for byte. The id of the
call and what became of it go to stderr. The exit code tells the outcome: 0 for an answer,
1 when the function failed, 8 when it took too long; all of them: brasa help errors.

On a terminal the answer's control characters are shown, not obeyed; --raw lets them through.
With --json stdout holds one envelope with the answer, its timing and its logs.

With --async the server keeps the call safe, runs it when it is its turn, and tries it again if
it fails; stdout gets its id. What became of it: brasa inv show ID, brasa inv wait ID. What waits:
brasa queue ls; what was given up: brasa dlq ls.`,
		Example: `  brasa invoke hello
  brasa invoke hello -d '{"name":"Ada"}'
  brasa invoke resize -d @photo.jpg > small.jpg
  tar c . | brasa invoke count -d - -H 'Content-Type: application/x-tar'
  brasa invoke hello --trace
  brasa invoke hello --json | jq .data.result
  brasa invoke report -d @order.json --async --idempotency-key order-17
  brasa invoke report --async --delay 10m --on-failure alarm`,
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeFunctions,
		RunE: func(c *cobra.Command, args []string) error {
			fn, err := a.function(args[0])
			if err != nil {
				return err
			}
			if err := checkRevision("revision", revision, args[0]+a.namespaceFlag()); err != nil {
				return err
			}
			wait, err := async.read(a, c)
			if err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			in, opts, closeInput, err := flags.open(a, c)
			if err != nil {
				return err
			}
			defer closeInput()
			opts.Revision, opts.Timeout = revision, timeout
			if async.async {
				err = a.enqueue(c.Context(), client, fn, flags, async, opts, wait, in)
				return a.suggestFunction(c.Context(), client, fn, err)
			}
			call := call{
				task: fmt.Sprintf("invoke %q", fn.Path()), doing: "calling " + fn.Path(),
				whole: func(ctx context.Context) (*api.Reply, error) {
					return client.Invoke(ctx, fn.Namespace, fn.Path(), opts, in)
				},
				stream: func(ctx context.Context) (*api.Stream, error) {
					return client.InvokeRaw(ctx, fn.Namespace, fn.Path(), opts, in)
				},
			}
			err = a.call(c.Context(), client, fn.Namespace, flags, call)
			return a.suggestFunction(c.Context(), client, fn, err)
		},
	}
	flags.add(c)
	async.add(c)
	c.Flags().StringVar(&revision, "revision", "", "`ID` of the revision to call instead of the active one, or its first digits")
	completeFlag(c, "revision", a.completeRevisions)
	c.Flags().DurationVar(&timeout, "timeout", 0, "`TIME` to give up after, if the function's own limit is longer")
	positive(c.Flags(), "timeout")
	return c
}

// call is a call that is about to be made, in both of its forms.
type call struct {
	task   string // for errors
	doing  string // for who waits
	whole  func(context.Context) (*api.Reply, error)
	stream func(context.Context) (*api.Stream, error)
}

// call makes the call and prints what comes of it.
func (a *app) call(ctx context.Context, client *api.Client, namespace string, flags callFlags, call call) error {
	// A person at the keyboard is shown that something goes on, unless it is he who is waited for.
	done := func() {}
	if flags.input != "-" {
		done = a.out.Wait(call.doing)
	}
	if a.out.Structured() {
		reply, err := call.whole(ctx)
		done()
		if err != nil {
			return cli.While(err, "%s", call.task)
		}
		// The logs are in the record, which is written behind the answer; without it the answer
		// is still the answer.
		if act, err := a.activation(ctx, client, namespace, string(reply.ID)); err == nil {
			reply.Logs, reply.LogTruncated = act.Logs, act.LogTruncated
		}
		return a.out.Data(reply, nil)
	}
	begin := time.Now()
	answer, err := call.stream(ctx)
	done()
	if err != nil {
		a.afterFailure(ctx, client, namespace, flags, err)
		return cli.While(err, "%s", call.task)
	}
	if flags.include {
		a.showHead(answer)
	}
	err = a.copyAnswer(answer, flags.raw)
	if closed := answer.Close(); err == nil {
		err = closed
	}
	if err != nil {
		a.afterFailure(ctx, client, namespace, flags, err)
		return cli.While(err, "%s", call.task)
	}
	s := a.out.ErrStyles()
	a.out.Say("%s %s %s %s", s.Faint.Render(string(answer.ID)), s.Good.Render("ok"), answer.Start, cli.Took(time.Since(begin)))
	if flags.trace {
		a.showTrace(ctx, client, namespace, string(answer.ID))
	}
	return nil
}

// copyAnswer streams the answer to stdout. A terminal gets it made harmless, and a new line at
// its end if it has none.
func (a *app) copyAnswer(r io.Reader, raw bool) error {
	if !a.out.OutTTY {
		_, err := io.Copy(a.out.Out, r)
		return err
	}
	last := &lastByte{w: a.out.Out}
	w := io.WriteCloser(last)
	if !raw {
		w = &cli.Cleaner{W: last}
	}
	_, err := io.Copy(w, r)
	if closed := w.Close(); err == nil {
		err = closed
	}
	if last.b != 0 && last.b != '\n' {
		_, _ = io.WriteString(a.out.Out, "\n") // looks only
	}
	return err
}

// lastByte remembers the last byte that went through.
type lastByte struct {
	w io.Writer
	b byte
}

func (l *lastByte) Write(p []byte) (int, error) {
	if len(p) > 0 {
		l.b = p[len(p)-1]
	}
	return l.w.Write(p)
}

func (l *lastByte) Close() error { return nil }

func (a *app) showHead(answer *api.Stream) {
	a.out.Say("%d", answer.Status)
	keys := make([]string, 0, len(answer.Header))
	for k := range answer.Header {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		a.out.Say("%s: %s", cli.CleanLine(k), cli.CleanLine(strings.Join(answer.Header[k], ", ")))
	}
	a.out.Say("")
}

// showTrace draws where the time of a call went. The record is written behind the answer, so it
// is asked for again if it is not there yet.
func (a *app) showTrace(ctx context.Context, client *api.Client, namespace, id string) {
	act, err := a.activation(ctx, client, namespace, id)
	if err != nil {
		a.out.Warn("the trace is not to be had: %v", err)
		return
	}
	_ = a.drawTrace(a.out.Err, act, a.out.ErrStyles()) // talk; nobody is left to tell if stderr is gone
}

// afterFailure says, once the function was at fault, what it wrote and where to see more.
func (a *app) afterFailure(ctx context.Context, client *api.Client, namespace string, flags callFlags, err error) {
	remote, ok := errors.AsType[*api.Remote](err)
	if !ok || remote.ID == "" || faas.CodeOf(err).Fault() != "function" || a.out.Quiet {
		return
	}
	if flags.trace {
		a.showTrace(ctx, client, namespace, remote.ID)
	}
	logs, err := client.ActivationLogs(ctx, namespace, remote.ID)
	if err != nil {
		return
	}
	const most = 20
	lines := logs.Lines
	if len(lines) > most {
		a.out.Say("… %d lines before; all of them: brasa logs --id %s", len(lines)-most, remote.ID)
		lines = lines[len(lines)-most:]
	}
	for _, l := range lines {
		a.out.Say("%s %s", a.out.ErrStyles().Faint.Render(l.Stream+" |"), cli.CleanLine(l.Text))
	}
}

// known says that a function exists, or which one was meant. It is asked when a list about the
// function is empty.
func (a *app) known(ctx context.Context, client *api.Client, fn faas.Name) error {
	_, err := client.Function(ctx, fn.Namespace, fn.Path())
	if faas.CodeOf(err) != faas.NotFound {
		return nil
	}
	return a.suggestFunction(ctx, client, fn, err)
}

// suggestFunction adds to a not-found error the function that probably was meant.
func (a *app) suggestFunction(ctx context.Context, client *api.Client, fn faas.Name, err error) error {
	e, ok := errors.AsType[*faas.Error](err)
	if !ok || e.Code != faas.NotFound {
		return err
	}
	functions, listErr := client.Functions(ctx, fn.Namespace)
	if listErr != nil {
		return err
	}
	var names []string
	for _, f := range functions {
		names = append(names, f.Name)
	}
	switch meant := cli.Suggest(fn.Path(), names); {
	case meant != "" && meant != fn.Path():
		e.Fix = "did you mean " + meant + "?"
	case e.Fix == "":
		e.Fix = "see what there is: brasa ls" + a.namespaceFlag()
	}
	return err
}
