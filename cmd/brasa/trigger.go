package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
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

// sourceLine tells of a source what people know it by.
