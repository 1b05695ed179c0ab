package openwhisk

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger"
)

// headersArgument is the argument in which the actions of a trigger find the headers of the request that
// fired it.
const headersArgument = "__ow_headers"

// fireTrigger answers POST on a trigger.
func (s *Server) fireTrigger(c *call, p path) error {
	t, err := s.findTrigger(p)
	if err != nil {
		return err
	}
	payload, err := s.arguments(c)
	if err != nil {
		return err
	}
	if err := s.throttle.fire(p.namespace, s.limitsOf(p.namespace)); err != nil {
		return err
	}
	headers := map[string]string{}
	for name, values := range c.r.Header {
		if !strings.EqualFold(name, "Authorization") { // whoever may read arguments need not have the key
			headers[strings.ToLower(name)] = strings.Join(values, ", ")
		}
	}
	f := firing{who: c.who, trigger: t, payload: payload, transaction: c.transaction}
	if f.headers, err = json.Marshal(headers); err != nil {
		return err
	}
	id, err := s.fire(c.ctx, &f)
	if err != nil {
		return err
	}
	if id == "" {
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return accepted(c, id)
}

// firing is one event of a trigger.
type firing struct {
	who     auth.Subject
	trigger *trig
	payload map[string]json.RawMessage
	headers json.RawMessage // of the request; nil: there was none
	event   string          // names the event where it may be told again; empty: it is told once
	calls   []trigger.Call  // what came of it

	transaction string // the request's ID; empty: there was none
}

// outcome is what became of a rule, as the log of the trigger's record has it.
type outcome struct {
	StatusCode   int    `json:"statusCode"`
	Success      bool   `json:"success"`
	ActivationID string `json:"activationId,omitempty"`
	Error        string `json:"error,omitempty"`
	Rule         string `json:"rule"`
	Action       string `json:"action"`
}

// fire calls the actions of a trigger's rules and records it. It returns the ID of the record, or nothing
// if no rule is active. An error that may pass is returned for an event that may be told again, and else
// said in the record.
func (s *Server) fire(ctx context.Context, f *firing) (faas.ID, error) {
	t := f.trigger
	rules := s.cfg.Catalog.RulesOf(t.trigger.Namespace, t.trigger.Name)
	active := 0
	for _, rule := range rules {
		if !rule.Disabled {
			active++
		}
	}
	if active == 0 {
		return "", nil
	}
	begin := now()
	id := faas.NewID(begin)
	args := map[string]json.RawMessage{}
	for k, v := range t.record.Parameters.arguments() {
		args[k] = v
	}
	if f.headers != nil {
		args[headersArgument] = f.headers
	}
	for k, v := range f.payload {
		args[k] = v
	}
	act := &faas.Activation{
		ID: id, Namespace: t.trigger.Namespace, Function: t.trigger.Name, Runtime: entityTrigger, Kind: faas.KindInvoke, Subject: f.who.Name, Attempt: 1,
	}
	for _, rule := range rules {
		o, call, err := s.fireRule(ctx, f, rule, id, args)
		if err != nil {
			return "", err
		}
		if call != nil {
			f.calls = append(f.calls, *call)
		}
		text, err := json.Marshal(o)
		if err != nil {
			return "", err
		}
		act.Logs = append(act.Logs, faas.LogLine{Time: now(), Stream: "stdout", Text: string(text)})
	}
	return id, s.recordFire(act, f, begin)
}

// fireRule calls a rule's action.
func (s *Server) fireRule(ctx context.Context, f *firing, rule *faas.Rule, cause faas.ID, args map[string]json.RawMessage) (outcome, *trigger.Call, error) {
	r := s.ruleRecord(f.who.Namespace, rule)
	o := outcome{StatusCode: 1, Rule: f.who.Namespace + "/" + r.Name, Action: r.Action.Path + "/" + r.Action.Name}
	if rule.Disabled {
		o.Error = fmt.Sprintf("Rule '%s' is inactive, action '%s' was not activated.", o.Rule, o.Action)
		return o, nil, nil
	}
	call := &trigger.Call{Rule: rule.Name, Function: rule.Function}
	call.ID, call.Err = s.callOf(ctx, f, rule, o.Action, cause, args)
	switch code := faas.CodeOf(call.Err); {
	case call.Err == nil:
		o.StatusCode, o.Success, o.ActivationID = 0, true, string(call.ID)
	case f.event != "" && (code == faas.Overloaded || code == faas.Unavailable || code == faas.Canceled || code == faas.Timeout) && !isRejection(call.Err):
		return o, nil, call.Err
	default:
		o.Error = asRejection(call.Err).message
	}
	return o, call, nil
}

func isRejection(err error) bool {
	_, ok := errors.AsType[*rejection](err)
	return ok
}

// callOf enqueues the call of a rule's action.
func (s *Server) callOf(ctx context.Context, f *firing, rule *faas.Rule, action string, cause faas.ID, args map[string]json.RawMessage) (faas.ID, error) {
	p, ok := parsePath("/"+action, f.who.Namespace)
	if !ok {
		return "", errNotFound
	}
	t, err := s.resolve(f.who, p)
	if err == nil {
		err = s.mayCallSteps(f.who, t)
	}
	if err != nil {
		return "", err
	}
	inv := s.invocation(f.who, t, args)
	ofRequest(inv, f.transaction)
	inv.Cause, inv.Wait = cause, &faas.Wait{Once: true}
	if f.event != "" { // which is one call however often it is told
		sum := sha256.Sum256([]byte(f.trigger.trigger.UID + "\x00" + rule.UID + "\x00" + f.event))
		inv.Wait.Key = "event " + hex.EncodeToString(sum[:20])
	}
	// As it is a call like any other, it is refused beyond the namespace's limits. What a source holds until
	// it is taken is not lost by that; an alarm is not held, and its record tells of the refusal.
	held := f.event != "" && f.trigger.record.Alarm == nil
	accepted, err := s.throttle.accept(ctx, f.who.Namespace, s.limitsOf(f.who.Namespace), held)
	if err != nil {
		if held && isRejection(err) {
			return "", faas.Errorf(faas.Overloaded, "call action", "%s", err.Error()) // as one that may pass
		}
		return "", err
	}
	defer accepted()
	return s.cfg.Dispatcher.Enqueue(ctx, inv)
}

// recordFire keeps the record of a trigger that was fired.
func (s *Server) recordFire(act *faas.Activation, f *firing, begin time.Time) error {
	r := &f.trigger.record
	note, err := json.Marshal(note{Namespace: f.who.Namespace, Name: r.Name, Version: r.Version, Trigger: true})
	if err != nil {
		return err
	}
	if f.payload == nil {
		f.payload = map[string]json.RawMessage{}
	}
	body, err := json.Marshal(f.payload)
	if err != nil {
		return err
	}
	act.Note, act.Timing = note, faas.Timing{Begin: begin, Total: now().Sub(begin)}
	act.Answer = &faas.Answer{Status: http.StatusOK, Body: body, Bytes: faas.Bytes(len(body))}
	s.cfg.Journal.Record(act)
	return nil
}

// firedBySource has a trigger fired by what watches the outside for it.
func (s *Server) firedBySource(ctx context.Context, t *faas.Trigger, e faas.Event) ([]trigger.Call, error) {
	namespace := s.cfg.Subjects.NamespaceName(t.Namespace)
	f := firing{
		who: auth.Subject{Name: namespace, Namespace: namespace}, event: e.ID,
		trigger: &trig{t, s.triggerRecord(namespace, t)}, payload: map[string]json.RawMessage{},
	}
	if a := f.trigger.record.Alarm; a != nil {
		// An alarm fires as a request would. What is beyond the limit is made up for when there is room again.
		if err := s.throttle.fire(namespace, s.limitsOf(namespace)); err != nil {
			return nil, faas.Errorf(faas.Overloaded, "fire trigger", "%s", err)
		}
		f.payload = a.Payload
	} else if len(e.Data) > 0 && (json.Unmarshal(e.Data, &f.payload) != nil || f.payload == nil) {
		f.payload = map[string]json.RawMessage{"payload": quoted(string(e.Data))}
		if json.Valid(e.Data) {
			f.payload["payload"] = e.Data
		}
	}
	if _, err := s.fire(ctx, &f); err != nil {
		return f.calls, err
	}
	return f.calls, s.afterAlarm(ctx, f.trigger)
}
