package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger"
)

// Trigger is a named stream of events.
type Trigger struct {
	Name    string                     `json:"name"`
	Kind    string                     `json:"kind,omitempty" doc:"Of the source that fires it; empty: only who calls it does"`
	Config  json.RawMessage            `json:"config,omitempty" doc:"Of the source"`
	Secrets []string                   `json:"secrets,omitempty" doc:"Names of those that the source may open"`
	Params  map[string]json.RawMessage `json:"params,omitempty" doc:"Put beneath the fields of each event"`
	Paused  bool                       `json:"paused,omitempty"`
	Hook    string                     `json:"hook,omitempty" doc:"Where the sender of a web hook sends its requests"`
	Status  *TriggerStatus             `json:"status,omitempty" doc:"How its source fares; absent if it has none or is paused"`
	Next    []time.Time                `json:"next,omitempty" doc:"When it fires next, if it knows"`
	Rules   []Rule                     `json:"rules" doc:"Which functions it calls"`
	Created time.Time                  `json:"created"`
	Updated time.Time                  `json:"updated"`
}

// TriggerStatus is how a source fares since the server was started.
type TriggerStatus struct {
	Running bool      `json:"running"`
	Error   string    `json:"error,omitempty" doc:"Why it does not run, or did not before the next event"`
	Since   time.Time `json:"since"`
	Events  int64     `json:"events"`
	Failed  int64     `json:"failed" doc:"Of these, not accepted"`
	Last    time.Time `json:"last,omitzero" doc:"The newest event"`

	Passed     int64     `json:"passed_over" doc:"Events that no function was called with and that are not told again, since they are too large, for example"`
	PassedWhy  string    `json:"passed_over_why,omitempty" doc:"Of the newest of these"`
	PassedLast time.Time `json:"passed_over_last,omitzero" doc:"When that was"`
}

// Triggers is a list of them.
type Triggers struct {
	Triggers []Trigger `json:"triggers"`
}

// TriggerSpec says what a trigger is to be.
type TriggerSpec struct {
	Kind    string                     `json:"kind,omitempty" doc:"Of the source: see the list of kinds; empty: only who calls it fires it"`
	Config  json.RawMessage            `json:"config,omitempty" doc:"What the kind asks for"`
	Secrets []string                   `json:"secrets,omitempty" maxItems:"20"`
	Params  map[string]json.RawMessage `json:"params,omitempty"`
	Paused  bool                       `json:"paused,omitempty"`
}

// Rule links a trigger to a function.
type Rule struct {
	Name     string `json:"name"`
	Trigger  string `json:"trigger"`
	Function string `json:"function"`
	Disabled bool   `json:"disabled,omitempty"`
}

// Rules is a list of them.
type Rules struct {
	Rules []Rule `json:"rules"`
}

// RuleSpec says what a rule is to link.
type RuleSpec struct {
	Trigger  string `json:"trigger"`
	Function string `json:"function"`
	Disabled bool   `json:"disabled,omitempty"`
}

// TriggerKind is a kind of source.
type TriggerKind struct {
	Name string `json:"name"`
	Doc  string `json:"doc"`
}

// TriggerKinds is a list of them.
type TriggerKinds struct {
	Kinds []TriggerKind `json:"kinds"`
}

// Fired is what came of an event.
type Fired struct {
	Event string      `json:"event,omitempty" doc:"Its ID"`
	Calls []FiredCall `json:"calls"`
}

// FiredCall is one rule's call.
type FiredCall struct {
	Rule     string  `json:"rule"`
	Function string  `json:"function"`
	ID       faas.ID `json:"id,omitempty" doc:"Of the call; absent if it was refused"`
	Error    string  `json:"error,omitempty" doc:"Why it was refused"`
}

// Times are moments in a row.
type Times struct {
	Times []time.Time `json:"times"`
}

// TriggerPath names a trigger, a rule below it names a rule.
type TriggerPath struct {
	NamespacePath
	Name string `path:"name"`
}

// mostNext is how many times to come are told at most.
const mostNext = 100

func (s *Server) triggerRoutes() {
	const triggers, one, rules = inNamespace + "/triggers", inNamespace + "/triggers/{name}", inNamespace + "/rules"
	manage(s, accessKey, operation("list-trigger-kinds", http.MethodGet, "/v1/trigger-kinds", "List the kinds of sources that triggers can have", "triggers"), func(context.Context, *none) (TriggerKinds, error) {
		out := TriggerKinds{Kinds: []TriggerKind{}}
		for _, k := range s.cfg.Triggers.Kinds() {
			out.Kinds = append(out.Kinds, TriggerKind{Name: k.Name, Doc: k.Doc})
		}
		return out, nil
	})
	manage(s, accessKey, operation("preview-trigger", http.MethodPost, "/v1/trigger-preview", "Say when a trigger would fire, without making it", "triggers"), func(_ context.Context, in *struct {
		Count int `query:"count" minimum:"1" maximum:"100" default:"5"`
		Body  TriggerSpec
	}) (Times, error) {
		t := in.Body.trigger("", "preview")
		if err := s.cfg.Triggers.Check(t); err != nil {
			return Times{}, err
		}
		return Times{Times: list(s.cfg.Triggers.Next(t, time.Now(), min(in.Count, mostNext)))}, nil
	})
	manage(s, accessNamespace, operation("list-triggers", http.MethodGet, triggers, "List triggers", "triggers"), func(ctx context.Context, in *NamespacePath) (Triggers, error) {
		out := Triggers{Triggers: []Trigger{}}
		for _, t := range s.cfg.Catalog.Triggers(in.Namespace) {
			out.Triggers = append(out.Triggers, s.wireTrigger(ctx, t, 1))
		}
		return out, nil
	})
	manage(s, accessNamespace, operation("get-trigger", http.MethodGet, one, "Look a trigger up", "triggers"), func(ctx context.Context, in *TriggerPath) (Trigger, error) {
		t, err := s.cfg.Catalog.Trigger(in.Namespace, in.Name)
		if err != nil {
			return Trigger{}, err
		}
		return s.wireTrigger(ctx, t, 5), nil
	})
	manage(s, accessNamespace, created(operation("create-trigger", http.MethodPost, one, "Create a trigger", "triggers")), func(ctx context.Context, in *struct {
		TriggerPath
		Body TriggerSpec
	}) (Trigger, error) {
		return s.putTrigger(ctx, in.Namespace, in.Name, &in.Body, false)
	})
	manage(s, accessNamespace, operation("put-trigger", http.MethodPut, one, "Create a trigger or change it", "triggers"), func(ctx context.Context, in *struct {
		TriggerPath
		Body TriggerSpec
	}) (Trigger, error) {
		return s.putTrigger(ctx, in.Namespace, in.Name, &in.Body, true)
	})
	manage(s, accessNamespace, operation("delete-trigger", http.MethodDelete, one, "Delete a trigger and its rules", "triggers"), func(ctx context.Context, in *TriggerPath) (Done, error) {
		return Done{}, s.cfg.Catalog.DeleteTrigger(ctx, in.Namespace, in.Name)
	})
	manage(s, accessNamespace, operation("list-rules", http.MethodGet, rules, "List rules", "triggers"), func(_ context.Context, in *NamespacePath) (Rules, error) {
		return Rules{Rules: wireRules(s.cfg.Catalog.Rules(in.Namespace))}, nil
	})
	manage(s, accessNamespace, operation("put-rule", http.MethodPut, rules+"/{name}", "Link a trigger to a function, or change a link", "triggers"), func(ctx context.Context, in *struct {
		TriggerPath
		Body RuleSpec
	}) (Rule, error) {
		r := &faas.Rule{Namespace: in.Namespace, Name: in.Name, Trigger: in.Body.Trigger, Function: in.Body.Function, Disabled: in.Body.Disabled}
		if err := s.cfg.Catalog.PutRule(ctx, r, true); err != nil {
			return Rule{}, err
		}
		return wireRules([]*faas.Rule{r})[0], nil
	})
	manage(s, accessNamespace, operation("delete-rule", http.MethodDelete, rules+"/{name}", "Take a link away", "triggers"), func(ctx context.Context, in *TriggerPath) (Done, error) {
		return Done{}, s.cfg.Catalog.DeleteRule(ctx, in.Namespace, in.Name)
	})
	s.eventRoutes()
}

// eventRoutes are those by which events come.
func (s *Server) eventRoutes() {
	accepted := map[string]*huma.Response{"202": {Description: "The event is durable", Content: map[string]*huma.MediaType{jsonType: {}}}}
	body := &huma.RequestBody{Description: "The event's data, of any content type", Content: map[string]*huma.MediaType{"*/*": {}}}
	fire := operation("fire-trigger", http.MethodPost, inNamespace+"/triggers/{name}/fire", "Fire a trigger: tell its functions of an event", "triggers")
	fire.Responses, fire.RequestBody = accepted, body
	fire.Parameters = []*huma.Param{
		headerParam("Ce-Id", "The event's ID: the same event sent again makes no second call"), headerParam("Ce-Type", "What kind of event it is"),
		headerParam("Ce-Source", "Where it happened"), headerParam("Ce-Subject", "What it is about"),
	}
	s.raw(accessNamespace, fire, func(w http.ResponseWriter, r *http.Request, _ Caller) error {
		if s.cfg.Triggers == nil {
			return faas.Errorf(faas.Unavailable, "fire trigger", "this server runs no triggers")
		}
		data, err := eventBody(r)
		if err != nil {
			return err
		}
		e := faas.Event{
			ID: r.Header.Get("Ce-Id"), Type: r.Header.Get("Ce-Type"), Source: r.Header.Get("Ce-Source"), Subject: r.Header.Get("Ce-Subject"),
			ContentType: r.Header.Get("Content-Type"), Data: data,
		}
		if cause, err := faas.ParseID(r.Header.Get(HeaderCause)); err == nil {
			e.Cause = cause // functions and triggers that lead to each other are a chain, too
		}
		fired, err := s.cfg.Triggers.Fire(r.Context(), r.PathValue("namespace"), r.PathValue("name"), e)
		if err != nil {
			return err
		}
		out := Fired{Event: e.ID, Calls: []FiredCall{}}
		for _, c := range fired.Calls {
			said := FiredCall{Rule: c.Rule, Function: c.Function, ID: c.ID}
			if c.Err != nil {
				said.Error = faas.AsError(c.Err).Message()
			}
			out.Calls = append(out.Calls, said)
		}
		w.Header().Set("Content-Type", jsonType)
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusAccepted)
		_ = json.NewEncoder(w).Encode(Answer[Fired]{OK: true, Data: out}) // an error means that nobody is left to hear of it
		return nil
	})
	hook := operation("web-hook", http.MethodPost, "/v1/hooks/{namespace}/{name}", "Send an event to a trigger of kind webhook, signed as its source says", "triggers")
	hook.Responses, hook.RequestBody = accepted, body
	s.raw(accessOpen, hook, func(w http.ResponseWriter, r *http.Request, _ Caller) error {
		if s.cfg.Triggers == nil {
			return faas.Errorf(faas.NotFound, "take web hook", "there is no web hook here")
		}
		if err := s.cfg.Triggers.Listens(r.PathValue("namespace"), r.PathValue("name")); err != nil {
			return err
		}
		leave, err := s.hooks.take(r.Context(), r.PathValue("namespace"))
		if err != nil {
			return err
		}
		defer leave()
		data, err := eventBody(r)
		if err != nil {
			return err
		}
		return s.cfg.Triggers.Answer(w, r, r.PathValue("namespace"), r.PathValue("name"), data)
	})
}

// eventBody reads a request's body, which is to wait in the queue.
func eventBody(r *http.Request) ([]byte, error) {
	const op, most = "read event", trigger.MaxData
	tooLarge := faas.Errorf(faas.TooLarge, op, "an event's data may have %s", most).WithLimit("queue_body_bytes").WithFix("send a reference to the data")
	if r.ContentLength > int64(most) {
		return nil, tooLarge
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, int64(most)+1))
	if err != nil {
		return nil, faas.Errorf(faas.Canceled, op, "the request's body did not arrive: %w", err)
	}
	if len(b) > int(most) {
		return nil, tooLarge
	}
	return b, nil
}

func (t *TriggerSpec) trigger(namespace, name string) *faas.Trigger {
	out := &faas.Trigger{Namespace: namespace, Name: name, Params: t.Params, Paused: t.Paused}
	if t.Kind != "" || len(t.Config) > 0 {
		out.Source = &faas.Source{Kind: t.Kind, Config: t.Config, Secrets: t.Secrets}
	}
	return out
}

func (s *Server) putTrigger(ctx context.Context, namespace, name string, spec *TriggerSpec, replace bool) (Trigger, error) {
	t := spec.trigger(namespace, name)
	if err := s.cfg.Triggers.Check(t); err != nil {
		return Trigger{}, err
	}
	if t.Source != nil {
		known := map[string]bool{}
		for _, secret := range s.cfg.Catalog.Secrets(namespace) {
			known[secret.Name] = true
		}
		for _, name := range t.Source.Secrets {
			if !known[name] {
				return Trigger{}, faas.Errorf(faas.Invalid, "check trigger", "there is no secret %.80q in namespace %q", name, namespace).
					WithFix("set it with: brasa secret put %.80s", name)
			}
		}
	}
	if err := s.cfg.Catalog.PutTrigger(ctx, t, replace); err != nil {
		return Trigger{}, err
	}
	return s.wireTrigger(ctx, t, 5), nil
}

// wireTrigger tells of a trigger, with at most next of the times at which it fires.
func (s *Server) wireTrigger(ctx context.Context, t *faas.Trigger, next int) Trigger {
	out := Trigger{
		Name: t.Name, Params: t.Params, Paused: t.Paused, Created: t.Created, Updated: t.Updated,
		Rules: wireRules(s.cfg.Catalog.RulesOf(t.Namespace, t.Name)),
	}
	if t.Source == nil {
		return out
	}
	out.Kind, out.Config, out.Secrets = t.Source.Kind, t.Source.Config, t.Source.Secrets
	if t.Source.Kind == "webhook" {
		r, _ := ctx.Value(requestKey{}).(*http.Request)
		out.Hook = s.base(r) + "/v1/hooks/" + t.Namespace + "/" + t.Name
	}
	if !t.Paused {
		out.Next = s.cfg.Triggers.Next(t, time.Now(), next)
		if s.cfg.Triggers != nil {
			st := s.cfg.Triggers.Status(t.Namespace, t.Name)
			out.Status = &TriggerStatus{Running: st.Running, Error: st.Error, Since: st.Since, Events: st.Events, Failed: st.Failed, Last: st.Last,
				Passed: st.Passed.Events, PassedWhy: st.Passed.Why, PassedLast: st.Passed.Last}
		}
	}
	return out
}

func wireRules(rules []*faas.Rule) []Rule {
	out := []Rule{}
	for _, r := range rules {
		out = append(out, Rule{Name: r.Name, Trigger: r.Trigger, Function: r.Function, Disabled: r.Disabled})
	}
	return out
}
