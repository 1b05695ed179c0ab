package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/spf13/cobra"
)

func newInv(a *app) *cobra.Command {
	return newGroup("inv", "List and show the records of calls", []string{"activations", "activation", "invocations", "invocation"},
		newInvLs(a), newInvGet(a), newInvWait(a), newInvCancel(a))
}

func newInvLs(a *app) *cobra.Command {
	var function, outcome, since, until, cursor string
	var limit int
	c := &cobra.Command{
		Use:     "ls [NAME] [flags]",
		Aliases: []string{"list"},
		Short:   "List the records of calls, newest first",
		Example: `  brasa inv ls
  brasa inv ls hello --outcome error --since 1h
  brasa inv ls -o name | head -1 | xargs brasa trace`,
		Args:              atMost(1),
		ValidArgsFunction: a.completeFunctions,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				function = args[0]
			}
			fn := faas.Name{Namespace: a.namespace}
			q := api.Query{Outcome: outcome, Limit: limit, Cursor: cursor}
			var err error
			if function != "" {
				if fn, err = a.function(function); err != nil {
					return err
				}
				q.Function = fn.Path()
			}
			if err := checkOutcome(outcome); err != nil {
				return err
			}
			if q.Since, err = when("since", since, a.out.Now()); err != nil {
				return err
			}
			if q.Until, err = when("until", until, a.out.Now()); err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			page, err := client.Activations(c.Context(), fn.Namespace, q)
			if err == nil && len(page.Activations) == 0 && q.Function != "" {
				err = a.known(c.Context(), client, fn)
			}
			if err != nil {
				return cli.While(err, "list the records of calls")
			}
			return a.out.Data(page, func(w io.Writer) error { return a.listActivations(w, page) })
		},
	}
	s := c.Flags()
	s.StringVar(&function, "function", "", "`NAME` of the function")
	s.StringVar(&outcome, "outcome", "", "`NAME` of an outcome (ok, failed, crashed, timeout ...), or error for all but ok")
	s.StringVar(&since, "since", "", "`TIME` of the first call: 10m, 3d, 15:04, 2026-11-23T15:04:05Z")
	s.StringVar(&until, "until", "", "`TIME` of the last call")
	s.IntVar(&limit, "limit", 0, "`N` records at most")
	s.StringVar(&cursor, "cursor", "", "`CURSOR` of the page before, for the next page")
	completeFlag(c, "outcome", cobra.FixedCompletions(outcomes, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) listActivations(w io.Writer, page api.Activations) error {
	if a.out.Format == cli.Names {
		for _, act := range page.Activations {
			if _, err := fmt.Fprintln(w, act.ID); err != nil {
				return err
			}
		}
		return nil
	}
	if len(page.Activations) == 0 {
		a.out.Say("no calls")
		return nil
	}
	s, now := a.out.OutStyles(), a.out.Now()
	head := []string{"ID", "FUNCTION", "OUTCOME", "TIME", "WHEN", "START", "MEMORY"}
	wide := a.out.Format == cli.Wide
	if wide {
		head = append(head, "CPU", "KIND", "STATUS", "REVISION", "SUBJECT")
	}
	g := cli.NewGrid(head...)
	for _, act := range page.Activations {
		memory := ""
		if act.Memory > 0 { // else it was not measured
			memory = cli.Size(act.Memory)
		}
		row := []string{
			string(act.ID), functionOf(&act), s.Outcome(act.Outcome), cli.Took(act.Timing.Total),
			cli.Ago(act.Timing.Begin, now), string(act.Start), memory,
		}
		if wide {
			row = append(row, cli.Took(time.Duration(act.CPUMicros)*time.Microsecond), string(act.Kind),
				fmt.Sprint(act.Status), act.Revision.Short(), cli.CleanLine(act.Subject))
		}
		g.Row(row...)
	}
	if err := g.Write(w, s, a.out.TableWidth()); err != nil {
		return err
	}
	if page.Cursor != "" {
		a.out.Say("older ones: --cursor %s", page.Cursor)
	}
	return nil
}

// functionOf names what ran.
func functionOf(act *faas.Activation) string {
	if act.Function == "" {
		return "(run)"
	}
	return cli.CleanLine(act.Function)
}

func newInvGet(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "get ID",
		Aliases:           []string{"show"},
		Short:             "Show the record of a call, with its logs",
		Example:           "  brasa inv get 0192f3c1a2b34c5d8e6f708192a3b4c5\n  brasa inv get last\n  brasa inv get last --json | jq .data.timing",
		Args:              exactly("ID"),
		ValidArgsFunction: a.completeActivations,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			id, err := a.resolveID(c.Context(), client, a.namespace, "", args[0])
			if err != nil {
				return cli.While(err, "show call %s", args[0])
			}
			rec, err := a.record(c.Context(), client, a.namespace, id)
			if err != nil {
				return cli.While(err, "show call %s", args[0])
			}
			return a.out.Data(rec, func(w io.Writer) error {
				if a.out.Format == cli.Names {
					_, err := fmt.Fprintln(w, rec.ID)
					return err
				}
				if rec.Stage != "" {
					if err := a.describeStanding(w, rec); err != nil || rec.Activation == nil {
						return err
					}
				}
				return a.describeActivation(w, rec.Activation)
			})
		},
	}
}

func (a *app) describeActivation(w io.Writer, act *faas.Activation) error {
	s := a.out.OutStyles()
	var b strings.Builder
	line := func(label, value string) {
		if value != "" {
			b.WriteString(s.Faint.Render(fmt.Sprintf("%-11s", label)) + value + "\n")
		}
	}
	outcome := s.Outcome(act.Outcome)
	if act.Fault != "" {
		outcome += ", to be mended by the " + cli.CleanLine(act.Fault)
	}
	line("id", string(act.ID))
	line("cause", string(act.Cause))
	line("function", functionOf(act)+"  "+act.Revision.Short()+"  "+act.Runtime)
	line("outcome", outcome)
	line("error", cli.CleanLine(act.Error))
	if act.Trace != "" {
		b.WriteString("           " + strings.ReplaceAll(strings.TrimRight(cli.Clean(act.Trace), "\n"), "\n", "\n           ") + "\n")
	}
	status := string(act.Kind)
	if act.Status > 0 {
		status += fmt.Sprintf(", status %d", act.Status)
	}
	line("kind", status)
	line("begin", act.Timing.Begin.Local().Format("2006-01-02 15:04:05.000 MST"))
	line("subject", cli.CleanLine(act.Subject))
	line("sizes", fmt.Sprintf("%s asked, %s answered", cli.Size(act.Request), cli.Size(act.Response)))
	line("instance", strings.TrimSpace(act.Instance+" "+act.Node))
	for i, step := range act.Steps {
		how := s.Outcome(step.Outcome) + ", " + cli.Took(time.Duration(step.US)*time.Microsecond)
		if step.Status >= http.StatusBadRequest {
			how = fmt.Sprintf("%s, status %d", how, step.Status)
		}
		if step.Kept {
			how += ", done by an attempt before"
		}
		line(fmt.Sprintf("step %d", i+1), fmt.Sprintf("%s  %s  %s", step.ID, cli.CleanLine(step.Function), how))
	}
	b.WriteString("\n")
	if _, err := io.WriteString(w, b.String()); err != nil {
		return err
	}
	if err := a.drawTrace(w, act, s); err != nil {
		return err
	}
	return a.drawLogs(w, act, s)
}

func (a *app) drawLogs(w io.Writer, act *faas.Activation, s cli.Styles) error {
	if len(act.Logs) == 0 {
		return nil
	}
	var b strings.Builder
	b.WriteString("\n")
	for _, l := range act.Logs {
		text := l.Text
		if a.out.OutTTY {
			text = cli.CleanLine(text)
		}
		b.WriteString(s.Faint.Render(l.Time.Local().Format("15:04:05.000")+" "+fmt.Sprintf("%-8s|", l.Stream)) + " " + text + "\n")
	}
	if act.LogTruncated {
		b.WriteString(s.Warn.Render("lines over the limit of the log were dropped") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// lookUp fetches the record that an argument names: an id, or last.
func (a *app) lookUp(ctx context.Context, client *api.Client, arg string) (*faas.Activation, error) {
	id, err := a.resolveID(ctx, client, a.namespace, "", arg)
	if err != nil {
		return nil, err
	}
	rec, err := a.record(ctx, client, a.namespace, id)
	if err == nil && rec.Activation == nil {
		err = faas.Errorf(faas.Conflict, "", "the call has not run to its end: it is %s", standing(rec, a.out.Now())).WithFix("brasa inv wait %s%s", id, a.namespaceFlag())
	}
	if err != nil {
		return nil, err
	}
	return rec.Activation, nil
}

// resolveID turns "last" into the id of the newest call.
func (a *app) resolveID(ctx context.Context, client *api.Client, namespace, function, arg string) (string, error) {
	if arg != "last" {
		id, err := faas.ParseID(arg)
		return string(id), err
	}
	page, err := client.Activations(ctx, namespace, api.Query{Function: function, Limit: lastOf})
	if err != nil {
		return "", err
	}
	if len(page.Activations) == 0 {
		return "", faas.Errorf(faas.NotFound, "", "there was no call yet in %q", namespace)
	}
	for _, act := range page.Activations {
		if act.Cause == "" { // a call of somebody's own, not one that it led to
			return string(act.ID), nil
		}
	}
	return string(page.Activations[0].ID), nil
}

// lastOf is among how many of the newest records the newest call is looked for that no other led to: a
// sequence may have 50 steps.
const lastOf = 100

// recordWait is how long a record that is not there yet is waited for: it is written behind the
// answer, usually within a few milliseconds.
const recordWait = 2 * time.Second

// activation fetches a record. The record of a call that has just ended may be on its way.
func (a *app) activation(ctx context.Context, client *api.Client, namespace, id string) (*faas.Activation, error) {
	parsed := faas.ID(id)
	for pause := 5 * time.Millisecond; ; pause *= 2 {
		act, err := client.Activation(ctx, namespace, id)
		young := a.out.Now().Sub(parsed.Time()) < time.Minute
		if err == nil || faas.CodeOf(err) != faas.NotFound || !young || pause > recordWait/2 {
			return act, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}
