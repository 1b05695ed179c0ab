package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/spf13/cobra"
)

func newTriggerLs(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List triggers and what they call",
		Example: "  brasa trigger ls",
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			all, err := client.Triggers(c.Context(), a.namespace)
			if err != nil {
				return cli.While(err, "list the triggers of %q", a.namespace)
			}
			names := make([]string, len(all))
			g := cli.NewGrid("NAME", "SOURCE", "CALLS", "STATE", "NEXT")
			for i, t := range all {
				names[i] = t.Name
				var calls []string
				for _, r := range t.Rules {
					calls = append(calls, r.Function)
				}
				next := "-"
				if len(t.Next) > 0 {
					next = t.Next[0].Local().Format("2006-01-02 15:04:05")
				}
				g.Row(t.Name, orDash(sourceLine(t)), orDash(strings.Join(calls, ", ")), triggerState(t), next)
			}
			return a.list(map[string]any{"triggers": all}, names, g, "no triggers yet; make one with: brasa trigger create NAME --cron '@hourly' --to FUNCTION"+a.namespaceFlag())
		},
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func sourceLine(t api.Trigger) string {
	var c struct {
		Schedule, Zone, Scheme, Subject, Stream, URL, Topic, Queue, Channel string
	}
	_ = json.Unmarshal(t.Config, &c) // what it does not hold is not said
	parts := []string{t.Kind}
	for _, s := range []string{c.Schedule, c.Zone, c.Scheme, c.Stream, c.Subject, c.Topic, c.Queue, c.Channel} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.TrimSpace(strings.Join(parts, " "))
}

func triggerState(t api.Trigger) string {
	switch {
	case t.Paused:
		return "paused"
	case t.Kind == "" || t.Status == nil:
		return "-"
	case t.Status.Running && t.Status.Error != "":
		return "running again"
	case t.Status.Running:
		return "running"
	}
	return "failing"
}

func newTriggerShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "show NAME",
		Aliases:           []string{"describe", "get"},
		Short:             "Show a trigger, how its source fares and when it fires next",
		Example:           "  brasa trigger show nightly",
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeTriggers,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			t, err := client.Trigger(c.Context(), a.namespace, args[0])
			if err != nil {
				return cli.While(err, "show trigger %q", args[0])
			}
			return a.out.Data(t, func(w io.Writer) error {
				_, err := io.WriteString(w, a.describeTrigger(t))
				return err
			})
		},
	}
}

func (a *app) describeTrigger(t api.Trigger) string {
	s, now := a.out.OutStyles(), a.out.Now()
	var b strings.Builder
	line := func(label, value string) {
		if value != "" {
			b.WriteString(s.Faint.Render(fmt.Sprintf("%-9s", label)) + cli.CleanLine(value) + "\n")
		}
	}
	line("trigger", a.namespace+"/"+t.Name)
	line("source", sourceLine(t))
	line("config", string(t.Config))
	line("secrets", strings.Join(t.Secrets, ", "))
	line("hook", t.Hook)
	if len(t.Params) > 0 {
		p, _ := json.Marshal(t.Params) // it came as JSON
		line("params", string(p))
	}
	line("state", triggerState(t))
	if st := t.Status; st != nil {
		events := fmt.Sprintf("%d since the server was started", st.Events)
		if st.Failed > 0 {
			events += fmt.Sprintf(", %d not accepted", st.Failed)
		}
		if !st.Last.IsZero() {
			events += ", the last " + cli.Ago(st.Last, now)
		}
		line("events", events)
		line("error", st.Error)
		if st.PassedWhy != "" {
			line("passed", fmt.Sprintf("%d over since the server was started, the last %s: %s", st.Passed, cli.Ago(st.PassedLast, now), st.PassedWhy))
		}
	}
	for _, r := range t.Rules {
		text := r.Function + " by the rule " + r.Name
		if r.Disabled {
			text += ", which is disabled"
		}
		line("calls", text)
	}
	for _, n := range t.Next {
		line("next", n.Local().Format("Mon 2006-01-02 15:04:05 MST"))
	}
	line("made", cli.Ago(t.Created, now))
	return b.String()
}
