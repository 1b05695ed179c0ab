package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/spf13/cobra"
)

func newTriggerFire(a *app) *cobra.Command {
	var flags callFlags
	var id, kind, subject string
	c := &cobra.Command{
		Use:     "fire NAME [flags]",
		Aliases: []string{"publish"},
		Short:   "Tell a trigger's functions of an event",
		Example: "  brasa trigger fire signup -d '{\"user\":\"ada\"}'\n  brasa trigger fire signup -d @event.json --id order-17",
		Args:    exactly("NAME"), ValidArgsFunction: a.completeTriggers,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			in, opts, closeInput, err := flags.open(a, c)
			if err != nil {
				return err
			}
			defer closeInput()
			if opts.Header == nil {
				opts.Header = http.Header{}
			}
			for k, v := range map[string]string{"Ce-Id": id, "Ce-Type": kind, "Ce-Subject": subject} {
				if v != "" {
					opts.Header.Set(k, v)
				}
			}
			fired, err := client.FireTrigger(c.Context(), a.namespace, args[0], opts.ContentType, opts.Header, in)
			if err != nil {
				return cli.While(err, "fire trigger %q", args[0])
			}
			return a.out.Data(fired, func(w io.Writer) error {
				for _, call := range fired.Calls {
					if call.Error != "" {
						a.out.Warn("%s was not called: %s", call.Function, call.Error)
						continue
					}
					text := string(call.ID)
					if a.out.Format != cli.Names {
						text += "  " + call.Function
					}
					if _, err := fmt.Fprintln(w, text); err != nil {
						return err
					}
				}
				if len(fired.Calls) == 0 {
					a.out.Say("it calls nothing; link it to a function: brasa trigger link %s FUNCTION%s", args[0], a.namespaceFlag())
				}
				return nil
			})
		},
	}
	c.Flags().StringVarP(&flags.input, "input", "d", "", "`DATA` of the event: the text itself, @FILE, or - for stdin")
	c.Flags().StringArrayVarP(&flags.headers, "header", "H", nil, "`'K: V'` that goes along; repeatable")
	c.Flags().StringVar(&id, "id", "", "the event's `ID`: the same event fired again within a day makes no second call")
	c.Flags().StringVar(&kind, "type", "", "what `KIND` of event it is")
	c.Flags().StringVar(&subject, "subject", "", "`WHAT` it is about")
	return c
}

func newTriggerLink(a *app) *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:               "link TRIGGER FUNCTION",
		Short:             "Have a trigger call a function",
		Example:           "  brasa trigger link signup welcome",
		Args:              exactly("TRIGGER", "FUNCTION"),
		ValidArgsFunction: a.completeTriggers,
		RunE: func(c *cobra.Command, args []string) error {
			fn, err := a.function(args[1])
			if err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			if name == "" {
				name = ruleName(args[0], fn.Path())
			}
			r, err := client.PutRule(c.Context(), a.namespace, name, api.RuleSpec{Trigger: args[0], Function: fn.Path()})
			if err != nil {
				return cli.While(err, "link trigger %q to %q", args[0], fn.Path())
			}
			return a.done(r, fmt.Sprintf("%s calls %s by the rule %s", r.Trigger, r.Function, r.Name))
		},
	}
	c.Flags().StringVar(&name, "name", "", "`NAME` of the rule (default TRIGGER-FUNCTION)")
	return c
}

func newTriggerUnlink(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "unlink RULE",
		Short:   "Have a trigger call a function no more",
		Example: "  brasa trigger unlink signup-welcome",
		Args:    exactly("RULE"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			if err := client.DeleteRule(c.Context(), a.namespace, args[0]); err != nil {
				return cli.While(err, "take the rule %q away", args[0])
			}
			return a.done(map[string]string{"rule": args[0]}, "took "+args[0]+" away")
		},
	}
}

func newTriggerPause(a *app, pause bool) *cobra.Command {
	use, short, did := "pause NAME", "Stop a trigger's source for a while", "paused "
	if !pause {
		use, short, did = "resume NAME", "Run a trigger's source again", "resumed "
	}
	return &cobra.Command{
		Use: use, Short: short, Args: exactly("NAME"), ValidArgsFunction: a.completeTriggers,
		Example: "  brasa trigger " + strings.Replace(use, "NAME", "nightly", 1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			t, err := client.Trigger(c.Context(), a.namespace, args[0])
			if err == nil {
				t, err = client.PutTrigger(c.Context(), a.namespace, args[0], api.TriggerSpec{Kind: t.Kind, Config: t.Config, Secrets: t.Secrets, Params: t.Params, Paused: pause}, true)
			}
			if err != nil {
				return cli.While(err, "%s trigger %q", strings.Fields(use)[0], args[0])
			}
			return a.done(t, did+t.Name)
		},
	}
}

func newTriggerRm(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "rm NAME",
		Aliases: []string{"delete", "remove"},
		Short:   "Delete a trigger and its links",
		Long:    "Delete a trigger and its links. Calls that it has made go on.",
		Example: "  brasa trigger rm nightly", Args: exactly("NAME"), ValidArgsFunction: a.completeTriggers,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			if err := client.DeleteTrigger(c.Context(), a.namespace, args[0]); err != nil {
				return cli.While(err, "delete trigger %q", args[0])
			}
			return a.done(map[string]string{"trigger": args[0]}, "deleted "+args[0])
		},
	}
}

func newTriggerPreview(a *app) *cobra.Command {
	var zone string
	var count int
	c := &cobra.Command{
		Use:     "preview SCHEDULE",
		Aliases: []string{"next"},
		Short:   "Show when a schedule would fire",
		Example: "  brasa trigger preview '0 8 * * MON-FRI' --zone Europe/Berlin --count 10",
		Args:    exactly("SCHEDULE"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			f := triggerFlags{cron: args[0], zone: zone}
			spec, err := f.spec()
			if err != nil {
				return err
			}
			times, err := client.PreviewTrigger(c.Context(), spec, count)
			if err != nil {
				return cli.While(err, "read the schedule %q", args[0])
			}
			where := time.UTC
			if loc, err := time.LoadLocation(zone); err == nil {
				where = loc
			}
			return a.out.Data(times, func(w io.Writer) error {
				for _, t := range times.Times {
					if _, err := fmt.Fprintln(w, t.In(where).Format("Mon 2006-01-02 15:04:05 MST")); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	c.Flags().StringVar(&zone, "zone", "", "time `ZONE`, such as Europe/Berlin (default UTC)")
	c.Flags().IntVar(&count, "count", 5, "how `MANY` times to show, at most 100")
	return c
}

func newTriggerKinds(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "kinds",
		Short:   "List what can fire a trigger",
		Example: "  brasa trigger kinds",
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			kinds, err := client.TriggerKinds(c.Context())
			if err != nil {
				return cli.While(err, "list kinds of triggers")
			}
			names := make([]string, len(kinds))
			g := cli.NewGrid("KIND", "WHAT IT IS")
			for i, k := range kinds {
				names[i] = k.Name
				g.Row(k.Name, k.Doc)
			}
			slices.Sort(names)
			return a.list(map[string]any{"kinds": kinds}, names, g, "none")
		},
	}
}

func (a *app) completeTriggers(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	switch {
	case len(args) == 1 && c.Name() == "link":
		return a.completeFunctions(c, nil, "")
	case len(args) > 0:
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.complete(c, func(ctx context.Context, client *api.Client) (names []cobra.Completion) {
		triggers, _ := client.Triggers(ctx, a.namespace)
		for _, t := range triggers {
			names = append(names, cobra.CompletionWithDesc(t.Name, t.Kind))
		}
		return names
	})
}
