package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/spf13/cobra"
)

// logFlags say which lines are wanted.
type logFlags struct {
	follow                          bool
	since, until, outcome, id, grep string
	stream                          string
	limit                           int
	pattern                         *regexp.Regexp
	query                           api.Query
	function                        faas.Name
}

func newLogs(a *app) *cobra.Command {
	var f logFlags
	c := &cobra.Command{
		Use:     "logs [NAME] [flags]",
		Aliases: []string{"log", "tail"},
		Short:   "Show what functions wrote",
		Long: `Show what functions wrote to stdout and stderr, oldest line first. Lines on the stream
"platform" are ours. On a terminal control characters are shown, not obeyed; elsewhere the
text is as it was written. With --json and -f, each line is an envelope of its own.`,
		Example: `  brasa logs hello
  brasa logs hello -f
  brasa logs --since 10m --outcome error
  brasa logs hello --stream stderr --grep 'time ?out'
  brasa logs --id last`,
		Args:              atMost(1),
		ValidArgsFunction: a.completeFunctions,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			if err := f.read(a, args); err != nil {
				return err
			}
			switch {
			case f.id != "":
				err = a.logsOfCall(c.Context(), client, &f)
			case f.follow:
				err = a.followLogs(c.Context(), client, &f)
			default:
				err = a.logs(c.Context(), client, &f)
			}
			return cli.While(err, "read the logs")
		},
	}
	s := c.Flags()
	s.BoolVarP(&f.follow, "follow", "f", false, "go on with new lines until Ctrl-C")
	s.StringVar(&f.since, "since", "", "`TIME` of the first call: 10m, 3d, 15:04, 2026-11-23T15:04:05Z")
	s.StringVar(&f.until, "until", "", "`TIME` of the last call")
	s.StringVar(&f.outcome, "outcome", "", "`NAME` of an outcome (ok, failed, crashed, timeout ...), or error for all but ok")
	s.StringVar(&f.id, "id", "", "`ID` of one call, or last")
	s.StringVar(&f.stream, "stream", "", "`NAME` of a stream: stdout, stderr, platform")
	s.StringVar(&f.grep, "grep", "", "`PATTERN` (RE2) that a line must match")
	s.IntVar(&f.limit, "limit", 0, "`N` newest calls at most")
	completeFlag(c, "id", a.completeActivations)
	completeFlag(c, "outcome", cobra.FixedCompletions(outcomes, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (f *logFlags) read(a *app, args []string) (err error) {
	f.function = faas.Name{Namespace: a.namespace}
	if len(args) > 0 {
		if f.function, err = a.function(args[0]); err != nil {
			return err
		}
		f.query.Function = f.function.Path()
	}
	if f.stream != "" && !slices.Contains([]string{"stdout", "stderr", "platform"}, f.stream) {
		return cli.Usagef("--stream %s: use stdout, stderr or platform", f.stream)
	}
	if f.grep != "" {
		if f.pattern, err = regexp.Compile(f.grep); err != nil {
			return cli.Usagef("--grep: %v", err)
		}
	}
	if f.id != "" && f.follow {
		return cli.Usagef("--id names one call that is over; there is nothing to follow")
	}
	if err := checkOutcome(f.outcome); err != nil {
		return err
	}
	f.query.Outcome, f.query.Limit = f.outcome, f.limit
	if f.query.Since, err = when("since", f.since, a.out.Now()); err != nil {
		return err
	}
	f.query.Until, err = when("until", f.until, a.out.Now())
	return err
}

// outcomes are the names that --outcome takes.
var outcomes = []string{"ok", "error", "invalid", "too_large", "overloaded", "canceled", "failed", "crashed", "timeout", "unavailable", "internal"}

func checkOutcome(s string) error {
	if s == "" || slices.Contains(outcomes, s) {
		return nil
	}
	e := cli.Usagef("--outcome %s: no such outcome", s)
	if meant := cli.Suggest(s, outcomes); meant != "" {
		return e.WithFix("did you mean %s?", meant)
	}
	return e.WithFix("error means all but ok; the others: brasa help errors")
}

func (f *logFlags) wants(l api.LogEntry) bool {
	return (f.stream == "" || l.Stream == f.stream) && (f.pattern == nil || f.pattern.MatchString(l.Text))
}

func (a *app) logs(ctx context.Context, client *api.Client, f *logFlags) error {
	logs, err := client.Logs(ctx, f.function.Namespace, f.query)
	if err == nil && len(logs.Lines) == 0 && f.query.Function != "" {
		err = a.known(ctx, client, f.function)
	}
	if err != nil {
		return err
	}
	return a.printLogs(f, logs)
}

func (a *app) logsOfCall(ctx context.Context, client *api.Client, f *logFlags) error {
	id, err := a.resolveID(ctx, client, f.function.Namespace, f.query.Function, f.id)
	if err != nil {
		return err
	}
	logs, err := client.ActivationLogs(ctx, f.function.Namespace, id)
	if err != nil {
		return err
	}
	return a.printLogs(f, logs)
}

func (a *app) printLogs(f *logFlags, logs api.Logs) error {
	logs.Lines = slices.DeleteFunc(logs.Lines, func(l api.LogEntry) bool { return !f.wants(l) })
	return a.out.Data(logs, func(w io.Writer) error {
		if len(logs.Lines) == 0 {
			a.out.Say("no lines")
		}
		for _, l := range logs.Lines {
			if _, err := io.WriteString(w, a.logLine(f, l)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (a *app) followLogs(ctx context.Context, client *api.Client, f *logFlags) error {
	for l, err := range client.Follow(ctx, f.function.Namespace, f.query) {
		if err != nil {
			return err
		}
		if !f.wants(l) {
			continue
		}
		if a.out.Structured() {
			if err := a.out.Item(l); err != nil {
				return err
			}
			continue
		}
		if _, err := io.WriteString(a.out.Out, a.logLine(f, l)); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// logLine draws a line. The time, the function and the stream come first and are ours, so that
// nothing a function writes can pass for a line of the platform's or of another function's.
func (a *app) logLine(f *logFlags, l api.LogEntry) string {
	s := a.out.OutStyles()
	name := l.Function
	if name == "" {
		name = "(run)"
	}
	prefix := l.Time.Local().Format("2006-01-02 15:04:05.000")
	if a.out.OutTTY {
		prefix = l.Time.Local().Format("15:04:05.000")
	}
	prefix = s.Faint.Render(prefix)
	if f.query.Function == "" {
		prefix += " " + s.Accent.Render(name)
	}
	if a.out.Format == cli.Wide {
		prefix += " " + s.Faint.Render(string(l.Activation))
	}
	stream := fmt.Sprintf("%-8s|", l.Stream)
	switch l.Stream {
	case "stderr":
		stream = s.Warn.Render(stream)
	case "platform":
		stream = s.Accent.Render(stream)
	default:
		stream = s.Faint.Render(stream)
	}
	text := strings.ReplaceAll(l.Text, "\n", `\n`)
	if a.out.OutTTY {
		text = cli.CleanLine(text)
	}
	return prefix + " " + stream + " " + text + "\n"
}
