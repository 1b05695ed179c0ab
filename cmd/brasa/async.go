package main

import (
	"context"
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

// asyncFlags say that a call's caller does not wait for it, and how it waits.
type asyncFlags struct {
	async, wait          bool
	key, order, priority string
	delay                time.Duration
	at                   string
	then                 []string
	destinations         destinationFlags
}

// needAsync are the flags that mean nothing to a call whose caller waits.
var needAsync = []string{"wait", "idempotency-key", "priority", "order", "delay", "at", "then", "on-success", "on-failure"}

func (f *asyncFlags) add(c *cobra.Command) {
	s := c.Flags()
	s.BoolVar(&f.async, "async", false, "leave the call with the server, which keeps it safe, runs it when it is its turn and tries it again; print its id")
	s.BoolVar(&f.wait, "wait", false, "with --async: wait for the answer all the same; Ctrl-C ends the waiting and not the call")
	s.StringVar(&f.key, "idempotency-key", "", "with --async: a `WORD` that makes several requests of a day one call")
	s.StringVar(&f.priority, "priority", "", "with --async: high, normal or low, a `WORD` that says which of the function's calls go first")
	s.StringVar(&f.order, "order", "", "with --async: a `WORD`; the function's calls with the same one go one after the other")
	s.DurationVar(&f.delay, "delay", 0, "with --async: `TIME` to wait at least: 10m")
	s.StringVar(&f.at, "at", "", "with --async: `TIME` when it is due: 15:04, 2026-11-23T15:04:05Z")
	s.StringArrayVar(&f.then, "then", nil, "with --async: `FUNCTION` that is called with the answer; repeatable, one after the other")
	f.destinations.add(c, "the")
	completeFlag(c, "priority", cobra.FixedCompletions([]string{"high", "normal", "low"}, cobra.ShellCompDirectiveNoFileComp))
}

// read returns how the call waits.
func (f *asyncFlags) read(a *app, c *cobra.Command) (api.Wait, error) {
	w := api.Wait{
		Key: f.key, Order: f.order, Priority: faas.Priority(f.priority), Delay: f.delay,
		OnSuccess: faas.Destination(f.destinations.success), OnFailure: faas.Destination(f.destinations.failure),
	}
	if !f.async {
		for _, name := range needAsync {
			if c.Flags().Changed(name) {
				return w, cli.Usagef("--%s is for calls that nobody waits for", name).WithFix("add --async")
			}
		}
		return w, nil
	}
	for _, name := range []string{"raw", "trace", "include"} {
		if c.Flags().Changed(name) && !f.wait {
			return w, cli.Usagef("--%s is about an answer, and --async does not wait for it", name).WithFix("add --wait, or leave out --%s", name)
		}
	}
	if !slices.Contains([]string{"", "high", "normal", "low"}, f.priority) {
		return w, cli.Usagef("--priority %s: use high, normal or low", f.priority)
	}
	if f.delay < 0 {
		return w, cli.Usagef("--delay %s: it is a time span from now on, such as 10m", f.delay)
	}
	if f.at != "" {
		if f.delay > 0 {
			return w, cli.Usagef("--delay and --at both say when it is due").WithFix("give one of them")
		}
		var err error
		if w.NotBefore, err = due("at", f.at, a.out.Now()); err != nil {
			return w, err
		}
	}
	for _, t := range f.then {
		w.Then = append(w.Then, faas.Destination(t))
	}
	return w, nil
}

// due reads a moment that is to come. A time of day that is past is tomorrow's.
func due(flag, s string, now time.Time) (time.Time, error) {
	if _, err := time.ParseDuration(s); err == nil {
		return time.Time{}, cli.Usagef("--%s %s is a time span", flag, s).WithFix("--delay %s", s)
	}
	t, err := when(flag, s, now)
	if err != nil {
		return t, cli.Usagef("--%s %s is no time", flag, s).WithFix("write it as 15:04, 2026-11-23 15:04 or 2026-11-23T15:04:05Z")
	}
	if len(s) <= len("15:04:05") && t.Before(now) {
		t = t.AddDate(0, 0, 1)
	}
	return t, nil
}

// enqueue leaves a call with the server, and waits for its answer if that is asked for.
func (a *app) enqueue(ctx context.Context, client *api.Client, fn faas.Name, flags callFlags, async asyncFlags, opts api.CallOptions, wait api.Wait, in io.Reader) error {
	accepted, err := client.Enqueue(ctx, fn.Namespace, fn.Path(), opts, wait, in)
	if err != nil {
		return cli.While(err, "enqueue a call of %q", fn.Path())
	}
	id, s := string(accepted.ID), a.out.ErrStyles()
	said := "accepted"
	if accepted.Repeated {
		said = fmt.Sprintf("%s, by an earlier call with the same key", accepted.Stage)
	}
	if !accepted.Due.IsZero() {
		said += ", due " + accepted.Due.Local().Format("2006-01-02 15:04:05")
	}
	if async.wait {
		a.out.Say("%s %s", s.Faint.Render(id), said)
		return a.awaitCall(ctx, client, fn.Namespace, id, 0, flags)
	}
	return a.out.Data(accepted, func(w io.Writer) error {
		a.out.Say("%s; its answer: brasa inv wait %s%s", said, id, a.namespaceFlag())
		_, err := fmt.Fprintln(w, id)
		return err
	})
}

// longPoll is how long one request waits for a call to end.
const longPoll = time.Minute

// awaitCall waits for the end of a call and prints its answer as invoke does. most bounds it, if it is
// not 0.
func (a *app) awaitCall(ctx context.Context, client *api.Client, namespace, id string, most time.Duration, flags callFlags) error {
	say, done := a.out.Watch("waiting for " + id)
	rec, err := a.ended(ctx, client, namespace, id, most, say)
	done()
	if err != nil {
		return cli.While(err, "wait for call %s", id)
	}
	if a.out.Structured() {
		if rec.Stage != "" && (rec.Activation == nil || rec.Answer == nil) {
			stream, err := client.Result(ctx, namespace, id) // which fails as the call did
			if err != nil {
				return cli.While(err, "call %s", id)
			}
			_ = stream.Close()
		}
		return a.out.Data(rec, nil)
	}
	return a.call(ctx, client, namespace, flags, call{
		task: "call " + id, doing: "reading the answer of " + id,
		stream: func(ctx context.Context) (*api.Stream, error) { return client.Result(ctx, namespace, id) },
	})
}

// ended waits until a call has ended.
func (a *app) ended(ctx context.Context, client *api.Client, namespace, id string, most time.Duration, say func(string)) (*api.Record, error) {
	end := time.Now().Add(most)
	for wait := time.Duration(0); ; wait = longPoll {
		if left := time.Until(end); most > 0 {
			wait = min(wait, left)
		}
		rec, err := client.Record(ctx, namespace, id, wait)
		if err != nil || rec.Final() {
			return rec, err
		}
		if most > 0 && !time.Now().Before(end) {
			return nil, faas.Errorf(faas.Timeout, "", "it has not ended within %s: it is %s", most, rec.Stage).WithFix("brasa inv show %s%s", id, a.namespaceFlag())
		}
		say(fmt.Sprintf("waiting for %s, %s", id, standing(rec, a.out.Now())))
	}
}

// standing says in a few words where a call stands that nobody waits for.
func standing(rec *api.Record, now time.Time) string {
	text := string(rec.Stage)
	if rec.Attempt > 1 || rec.Attempt == 1 && rec.Stage == faas.StageRetrying {
		text += fmt.Sprintf(", attempt %d", rec.Attempt)
	}
	if rec.Due.After(now) {
		text += ", due in " + span(rec.Due.Sub(now).Round(time.Second))
	}
	return text
}

// record fetches what is known of a call. That of a call that has just ended may be on its way.
func (a *app) record(ctx context.Context, client *api.Client, namespace, id string) (*api.Record, error) {
	for pause := 5 * time.Millisecond; ; pause *= 2 {
		rec, err := client.Record(ctx, namespace, id, 0)
		young := a.out.Now().Sub(faas.ID(id).Time()) < time.Minute
		if err == nil || faas.CodeOf(err) != faas.NotFound || !young || pause > recordWait/2 {
			return rec, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// describeStanding writes what the record of a call has beyond its activation.
func (a *app) describeStanding(w io.Writer, rec *api.Record) error {
	s, now := a.out.OutStyles(), a.out.Now()
	var b strings.Builder
	line := func(label, value string) {
		if value != "" {
			b.WriteString(s.Faint.Render(fmt.Sprintf("%-11s", label)) + cli.CleanLine(value) + "\n")
		}
	}
	if rec.Activation == nil {
		line("id", string(rec.ID))
		line("function", rec.Function)
	}
	line("stage", standing(rec, now))
	line("queued", rec.Queued.Local().Format("2006-01-02 15:04:05.000 MST"))
	line("key", rec.Key)
	line("order", rec.Order)
	line("priority", string(rec.Priority))
	line("last error", rec.Last)
	_, err := io.WriteString(w, b.String())
	return err
}

func newInvWait(a *app) *cobra.Command {
	var flags callFlags
	var timeout time.Duration
	c := &cobra.Command{
		Use:     "wait ID [flags]",
		Aliases: []string{"result"},
		Short:   "Wait for the end of an async call, and write its answer",
		Long: `Wait for the end of a call that was made with --async, and write its answer to stdout as
invoke does, with the same exit codes. Of an answer over 256 KiB the beginning is kept.`,
		Example:           "  brasa inv wait 0192f3c1a2b34c5d8e6f708192a3b4c5\n  brasa inv wait $(brasa invoke report --async) --timeout 10m > report.pdf",
		Args:              exactly("ID"),
		ValidArgsFunction: a.completeWaiting,
		RunE: func(c *cobra.Command, args []string) error {
			if timeout < 0 {
				return cli.Usagef("--timeout %s: it is a time span from now on, such as 10m", timeout)
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			id, err := a.resolveID(c.Context(), client, a.namespace, "", args[0])
			if err != nil {
				return err
			}
			return a.awaitCall(c.Context(), client, a.namespace, id, timeout, flags)
		},
	}
	c.Flags().DurationVar(&timeout, "timeout", 0, "`TIME` to wait at most; the call goes on")
	c.Flags().BoolVarP(&flags.include, "include", "i", false, "show the answer's status and headers on stderr")
	c.Flags().BoolVar(&flags.raw, "raw", false, "on a terminal too, let the answer's control characters through")
	return c
}

func newInvCancel(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "cancel ID...",
		Short:             "Cancel async calls, in the queue or while they run",
		Long:              "Cancel calls that were made with --async. One that waits leaves the queue; of one that runs the\nfunction is told as when a caller goes away. It is not tried again.",
		Example:           "  brasa inv cancel 0192f3c1a2b34c5d8e6f708192a3b4c5",
		Args:              atLeast("ID"),
		ValidArgsFunction: a.completeWaiting,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			return a.each(args, "canceled", func(arg string) (string, error) {
				id, err := faas.ParseID(arg)
				if err != nil {
					return "", err
				}
				_, err = client.Cancel(c.Context(), a.namespace, string(id))
				return string(id), cli.While(err, "cancel call %s", arg)
			})
		},
	}
}

// each does something to each argument, says what was done, and returns the last error.
func (a *app) each(args []string, did string, do func(arg string) (string, error)) error {
	var out []string
	var failed error
	for _, arg := range args {
		name, err := do(arg)
		if err != nil {
			if failed != nil {
				a.out.Warn("%v", failed)
			}
			failed = err
			continue
		}
		out = append(out, name)
	}
	if failed != nil {
		for _, name := range out {
			a.out.Say("%s %s", did, name)
		}
		return failed
	}
	return a.out.Data(map[string]any{did: out}, func(w io.Writer) error {
		for _, name := range out {
			line := did + " " + name
			if a.out.Format == cli.Names {
				line = name
			}
			if _, err := fmt.Fprintln(w, line); err != nil {
				return err
			}
		}
		return nil
	})
}
