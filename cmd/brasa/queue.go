package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/spf13/cobra"
)

func newQueue(a *app) *cobra.Command {
	return newGroup("queue", "See and steer the async calls that wait", []string{"queues"},
		newQueueLs(a), newQueueShow(a), newQueuePause(a, true), newQueuePause(a, false), newQueueDrop(a))
}

func newQueueLs(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List how many async calls wait, function by function",
		Example: "  brasa queue ls\n  brasa queue ls --json | jq '.data.queues[] | select(.dead > 0)'",
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			queues, err := client.Queues(c.Context(), a.namespace)
			if err != nil {
				return cli.While(err, "list the queues of %q", a.namespace)
			}
			names, g := a.queueGrid(queues)
			return a.list(map[string]any{"queues": queues}, names, g, "nothing waits")
		},
	}
}

func (a *app) queueGrid(queues []api.Queue) (names []string, g *cli.Grid) {
	s, g := a.out.OutStyles(), cli.NewGrid("FUNCTION", "WAITING", "RUNNING", "DEAD", "STATE", "OLDEST")
	for _, q := range queues {
		state, dead, oldest := s.Good.Render("open"), strconv.Itoa(q.Dead), ""
		if q.Paused {
			state = s.Warn.Render("paused")
		}
		if q.Dead > 0 {
			dead = s.Bad.Render(dead)
		}
		if !q.Oldest.IsZero() {
			oldest = cli.Ago(q.Oldest, a.out.Now())
		}
		g.Row(q.Function, strconv.Itoa(q.Waiting), strconv.Itoa(q.Running), dead, state, oldest)
		names = append(names, q.Function)
	}
	return names, g
}

func newQueueShow(a *app) *cobra.Command {
	var stage string
	var page pageFlags
	c := &cobra.Command{
		Use:               "show [NAME] [flags]",
		Aliases:           []string{"get", "describe"},
		Short:             "List the async calls in the queue, oldest first",
		Example:           "  brasa queue show report\n  brasa queue show report --stage retrying\n  brasa queue show -o name | xargs brasa inv cancel",
		Args:              atMost(1),
		ValidArgsFunction: a.completeFunctions,
		RunE: func(c *cobra.Command, args []string) error {
			switch faas.Stage(stage) {
			case "", faas.StageQueued, faas.StageRunning, faas.StageRetrying:
			default:
				return cli.Usagef("--stage %s: use queued, running or retrying", stage)
			}
			return a.listCalls(c, &page, args, stage, "the calls that wait", "nothing waits", func(ctx context.Context, client *api.Client, namespace string, p api.Page) (callPage, error) {
				calls, err := client.Waiting(ctx, namespace, p)
				ids, g := a.waitingGrid(calls.Calls)
				return callPage{calls, ids, g, calls.Cursor}, err
			})
		},
	}
	c.Flags().StringVar(&stage, "stage", "", "`NAME` of a stage: queued, running, retrying")
	page.add(c)
	completeFlag(c, "stage", cobra.FixedCompletions([]string{"queued", "running", "retrying"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) waitingGrid(calls []api.WaitingCall) (ids []string, g *cli.Grid) {
	now, wide := a.out.Now(), a.out.Format == cli.Wide
	head := []string{"ID", "FUNCTION", "STAGE", "ATTEMPT", "QUEUED", "DUE", "ERROR"}
	if wide {
		head = append(head, "PRIORITY", "ORDER", "KEY", "SUBJECT")
	}
	g = cli.NewGrid(head...)
	for _, c := range calls {
		due := ""
		if c.Due.After(now) {
			due = "in " + span(c.Due.Sub(now).Round(time.Second))
		}
		row := []string{string(c.ID), c.Function, string(c.Stage), strconv.Itoa(c.Attempt), cli.Ago(c.Queued, now), due, cli.CleanLine(c.Error)}
		if wide {
			row = append(row, string(c.Priority), cli.CleanLine(c.Order), cli.CleanLine(c.Key), cli.CleanLine(c.Subject))
		}
		g.Row(row...)
		ids = append(ids, string(c.ID))
	}
	return ids, g
}

func newQueuePause(a *app, paused bool) *cobra.Command {
	verb, did, short := "resume", "resumed", "Begin the async calls of functions again"
	if paused {
		verb, did, short = "pause", "paused", "Begin none of the async calls of functions; new ones are accepted and wait"
	}
	return &cobra.Command{
		Use:               verb + " NAME...",
		Short:             short,
		Example:           "  brasa queue " + verb + " report",
		Args:              atLeast("NAME"),
		ValidArgsFunction: a.completeFunctions,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			return a.each(args, did, func(arg string) (string, error) {
				fn, err := a.function(arg)
				if err != nil {
					return "", err
				}
				_, err = client.PauseQueue(c.Context(), fn.Namespace, fn.Path(), paused)
				return fn.Path(), a.suggestFunction(c.Context(), client, fn, cli.While(err, "%s the queue of %q", verb, fn.Path()))
			})
		},
	}
}

func newQueueDrop(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "drop NAME",
		Aliases:           []string{"clear"},
		Short:             "Remove for good the async calls of a function that wait",
		Long:              "Remove for good the async calls of a function that wait. Those that run go on, and its dead\nletters stay.",
		Example:           "  brasa queue drop report\n  brasa queue drop report --yes",
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
			q, err := client.Queue(c.Context(), fn.Namespace, fn.Path())
			if err != nil {
				return a.suggestFunction(c.Context(), client, fn, cli.While(err, "look at the queue of %q", fn.Path()))
			}
			if q.Waiting > 0 {
				if err := a.confirm("remove %d calls that wait for %s?", q.Waiting, fn.Path()); err != nil {
					return err
				}
			}
			n, err := client.ClearQueue(c.Context(), fn.Namespace, fn.Path())
			if err != nil {
				return cli.While(err, "drop what waits for %q", fn.Path())
			}
			return a.count(n, "removed")
		},
	}
}

// count says of how many calls something was done.
func (a *app) count(n int, did string) error {
	return a.out.Data(map[string]any{"count": n}, func(w io.Writer) error {
		calls := "calls"
		if n == 1 {
			calls = "call"
		}
		_, err := fmt.Fprintf(w, "%s %d %s\n", did, n, calls)
		return err
	})
}

// completeWaiting completes the ids of calls in the queue.
func (a *app) completeWaiting(c *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.complete(c, func(ctx context.Context, client *api.Client) (ids []cobra.Completion) {
		page, _ := client.Waiting(ctx, a.namespace, api.Page{Limit: 20})
		for _, call := range page.Calls {
			ids = append(ids, cobra.CompletionWithDesc(string(call.ID), call.Function+" "+string(call.Stage)))
		}
		return ids
	})
}
