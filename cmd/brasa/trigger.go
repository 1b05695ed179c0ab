package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/spf13/cobra"
)

func newTrigger(a *app) *cobra.Command {
	return newGroup("trigger", "Have functions called by schedules, web hooks and messages", []string{"triggers"},
		newTriggerCreate(a), newTriggerUpdate(a), newTriggerLs(a), newTriggerShow(a), newTriggerFire(a), newTriggerLink(a), newTriggerUnlink(a),
		newTriggerPause(a, true), newTriggerPause(a, false), newTriggerRm(a), newTriggerPreview(a), newTriggerKinds(a))
}

// triggerFlags say what fires a trigger.
type triggerFlags struct {
	cron    string
	zone    string
	webhook string
	kind    string
	config  string
	set     []string
	secrets []string
	params  []string
}

func (f *triggerFlags) add(c *cobra.Command) {
	s := c.Flags()
	s.StringVar(&f.cron, "cron", "", "`SCHEDULE` that fires it: '0 8 * * MON-FRI', six fields with seconds, @hourly, '@every 90s'")
	s.StringVar(&f.zone, "zone", "", "time `ZONE` of the schedule, such as Europe/Berlin (default UTC)")
	s.StringVar(&f.webhook, "webhook", "", "`SCHEME` by which requests to its URL are signed: github, stripe, slack, hmac, or none")
	s.StringVar(&f.kind, "kind", "", "`KIND` of another source: brasa trigger kinds")
	s.StringVar(&f.config, "config", "", "the source's settings, as JSON or @FILE")
	s.StringArrayVar(&f.set, "set", nil, "`KEY=VALUE` of the source's settings; repeatable")
	s.StringArrayVar(&f.secrets, "secret", nil, "`NAME` of a secret that the source may open; of a web hook, the one that signs; repeatable")
	s.StringArrayVarP(&f.params, "param", "p", nil, "`KEY=VALUE` put beneath the fields of each event; repeatable")
}

// spec makes of the flags what the server is told.
func (f *triggerFlags) spec() (api.TriggerSpec, error) {
	spec := api.TriggerSpec{Kind: f.kind, Secrets: f.secrets}
	given := 0
	for _, s := range []string{f.cron, f.webhook, f.kind} {
		if s != "" {
			given++
		}
	}
	if given > 1 {
		return spec, cli.Usagef("a trigger has one source: --cron, --webhook or --kind")
	}
	if f.zone != "" && f.cron == "" {
		return spec, cli.Usagef("--zone is of a schedule").WithFix("--cron '0 8 * * *' --zone %s", f.zone)
	}
	if given == 0 && (f.config != "" || len(f.set) > 0 || len(f.secrets) > 0) {
		return spec, cli.Usagef("the settings are of no source").WithFix("name it with --kind: brasa trigger kinds")
	}
	config := map[string]any{}
	if f.config != "" {
		text := f.config
		if file, ok := strings.CutPrefix(text, "@"); ok {
			b, err := os.ReadFile(file)
			if err != nil {
				return spec, cli.Usagef("--config @%v", strings.TrimPrefix(err.Error(), "open "))
			}
			text = string(b)
		}
		if err := json.Unmarshal([]byte(text), &config); err != nil {
			return spec, cli.Usagef("--config is not a JSON object: %v", err)
		}
	}
	if err := assign("--set", f.set, func(k string, v any) { config[k] = v }); err != nil {
		return spec, err
	}
	switch {
	case f.cron != "":
		spec.Kind, config["schedule"] = "cron", f.cron
		if f.zone != "" {
			config["zone"] = f.zone
		}
	case f.webhook != "":
		spec.Kind, config["scheme"] = "webhook", f.webhook
		if config["secret"] == nil && len(f.secrets) > 0 {
			config["secret"] = f.secrets[0]
		}
	}
	if config["secret"] == nil && len(f.secrets) == 1 && spec.Kind != "cron" && spec.Kind != "" {
		config["secret"] = f.secrets[0]
	}
	if len(config) > 0 {
		b, err := json.Marshal(config)
		if err != nil {
			return spec, err
		}
		spec.Config = b
	}
	return spec, assign("--param", f.params, func(k string, v any) {
		if spec.Params == nil {
			spec.Params = map[string]json.RawMessage{}
		}
		spec.Params[k], _ = json.Marshal(v) // it was read as JSON
	})
}

// assign reads KEY=VALUE, where what is JSON is taken as that, and all else as text.
func assign(flag string, list []string, set func(key string, value any)) error {
	for _, s := range list {
		k, v, ok := strings.Cut(s, "=")
		if !ok || k == "" {
			return cli.Usagef("%s %q is no assignment", flag, s).WithFix("%s KEY=VALUE", flag)
		}
		var value any
		if json.Unmarshal([]byte(v), &value) != nil {
			value = v
		}
		set(k, value)
	}
	return nil
}

func newTriggerCreate(a *app) *cobra.Command {
	var f triggerFlags
	var to []string
	var paused bool
	c := &cobra.Command{
		Use:     "create NAME [flags]",
		Aliases: []string{"add", "new"},
		Short:   "Make a trigger, and link it to functions",
		Long: `Make a trigger: a named stream of events. A schedule, a web hook or a broker fires it, or
nothing does but brasa trigger fire. Each function it is linked to is called with each event,
at least once: the call waits in the queue, is tried again when it fails, and lies with the
dead letters when it is given up.

The function gets the event's data as its input, and its id, type, source and time as headers
Ce-Id, Ce-Type, Ce-Source and Ce-Time, as CloudEvents 1.0 names them.`,
		Example: `  brasa trigger create nightly --cron '0 3 * * *' --zone Europe/Berlin --to report
  brasa trigger create pushed --webhook github --secret GITHUB_KEY --to build
  brasa trigger create orders --kind jetstream --set url=nats://broker:4222 --set stream=ORDERS --to ship
  brasa trigger create signup --to welcome --to count`,
		Args: exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			spec, err := f.spec()
			if err != nil {
				return err
			}
			spec.Paused = paused
			client, err := a.client()
			if err != nil {
				return err
			}
			for _, name := range to { // before anything is made
				fn, err := a.function(name)
				if err != nil {
					return err
				}
				if _, err := client.Function(c.Context(), fn.Namespace, fn.Path()); err != nil {
					return a.suggestFunction(c.Context(), client, fn, cli.While(err, "link trigger %q", args[0]))
				}
			}
			t, err := client.PutTrigger(c.Context(), a.namespace, args[0], spec, false)
			if err != nil {
				return cli.While(err, "make trigger %q", args[0])
			}
			for _, name := range to {
				rule, err := client.PutRule(c.Context(), a.namespace, ruleName(args[0], name), api.RuleSpec{Trigger: args[0], Function: name})
				if err != nil {
					return cli.While(err, "link trigger %q to %q", args[0], name)
				}
				t.Rules = append(t.Rules, rule)
			}
			return a.out.Data(t, func(w io.Writer) error {
				if a.out.Format == cli.Names {
					_, err := fmt.Fprintln(w, t.Name)
					return err
				}
				if _, err := fmt.Fprintln(w, "made", t.Name); err != nil {
					return err
				}
				switch {
				case t.Hook != "":
					a.out.Say("its sender's requests go to: %s", t.Hook)
				case len(t.Next) > 0:
					a.out.Say("it fires next at %s", t.Next[0].Local().Format(time.RFC1123))
				case t.Kind == "":
					a.out.Say("fire it with: brasa trigger fire %s%s -d DATA", t.Name, a.namespaceFlag())
				}
				if len(t.Rules) == 0 {
					a.out.Say("link it to a function: brasa trigger link %s FUNCTION%s", t.Name, a.namespaceFlag())
				}
				return nil
			})
		},
	}
	f.add(c)
	c.Flags().StringArrayVar(&to, "to", nil, "`FUNCTION` that is called with each event; repeatable")
	completeFlag(c, "to", a.completeFunctions)
	c.Flags().BoolVar(&paused, "paused", false, "do not run its source yet")
	return c
}

// ruleName is what a link is called that nobody names.
func ruleName(trigger, function string) string {
	return trigger + "-" + strings.ReplaceAll(function, "/", "-")
}

func newTriggerUpdate(a *app) *cobra.Command {
	var f triggerFlags
	c := &cobra.Command{
		Use:               "update NAME [flags]",
		Aliases:           []string{"set"},
		Short:             "Give a trigger another source or other parameters",
		Long:              "Give a trigger another source, or other parameters. What is said replaces all that was said\nbefore; the links stay. A schedule begins anew: what was due before is not made up for.",
		Example:           "  brasa trigger update nightly --cron '0 4 * * *' --zone Europe/Berlin",
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeTriggers,
		RunE: func(c *cobra.Command, args []string) error {
			spec, err := f.spec()
			if err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			old, err := client.Trigger(c.Context(), a.namespace, args[0])
			if err != nil {
				return cli.While(err, "change trigger %q", args[0])
			}
			if spec.Kind == "" { // only its parameters
				spec.Kind, spec.Config, spec.Secrets = old.Kind, old.Config, old.Secrets
			}
			if spec.Params == nil {
				spec.Params = old.Params
			}
			spec.Paused = old.Paused
			t, err := client.PutTrigger(c.Context(), a.namespace, args[0], spec, true)
			if err != nil {
				return cli.While(err, "change trigger %q", args[0])
			}
			return a.done(t, "changed "+t.Name)
		},
	}
	f.add(c)
	return c
}

// done prints what was done, in a line, or v for programs.
func (a *app) done(v any, line string) error {
	return a.out.Data(v, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, line)
		return err
	})
}

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

// sourceLine tells of a source what people know it by.
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
