package trigger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/textproto"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Fired is what came of an event: one call for each rule.
type Fired struct {
	manager   *Manager
	namespace string
	Calls     []Call
}

// Call is a rule's call.
type Call struct {
	Rule     string
	Function string
	ID       faas.ID // of the call; empty if it was refused
	Err      error   // why it was refused, for a reason that telling the event again would not mend
}

const opFire = "fire trigger"

// Fire tells the functions of a trigger of an event. The calls are durable when it returns without
// an error. A rule whose call can't be made for a reason of its own (its function is gone, the
// event is too large for it) is said in its Call and holds up no other. An error that may pass
// (Overloaded, Unavailable) is returned, and the event is to be told again with the same ID.
func (m *Manager) Fire(ctx context.Context, namespace, name string, e faas.Event) (Fired, error) {
	fired := Fired{manager: m, namespace: namespace}
	t, err := m.cfg.Catalog.Trigger(namespace, name)
	if err != nil {
		return fired, err
	}
	if e.Time.IsZero() {
		e.Time = m.cfg.Now()
	}
	if e.ID == "" {
		e.ID = string(faas.NewID(e.Time))
	}
	if t.Origin != nil && m.dialects[t.Origin.Dialect] != nil {
		fired.Calls, err = m.dialects[t.Origin.Dialect](ctx, t, e)
		return fired, err
	}
	data, err := withParams(t, &e)
	if err != nil {
		return fired, err
	}
	header := headerOf(t, &e)
	for _, rule := range m.cfg.Catalog.RulesOf(namespace, name) {
		if rule.Disabled {
			continue
		}
		call := Call{Rule: rule.Name, Function: rule.Function}
		target, err := faas.ParseName(rule.Function, namespace)
		if err != nil {
			return fired, err
		}
		if target.Namespace != namespace { // only a dialect makes such a rule, and only it knows who may call what
			call.Err = faas.Errorf(faas.Denied, opFire, "rule %q leads to another namespace, and its trigger is not of the same platform", rule.Name)
			fired.Calls = append(fired.Calls, call)
			continue
		}
		inv := &faas.Invocation{
			Function: faas.Ref{Name: target}, Subject: "trigger:" + name, Cause: e.Cause, Kind: faas.KindInvoke, Method: "POST", Path: "/",
			Header: maps.Clone(header), Body: bytes.NewReader(data), Length: int64(len(data)),
			Wait: &faas.Wait{Key: keyOf(t.UID, rule.UID, e.ID), Order: word(e.Order)},
		}
		call.ID, err = m.cfg.Dispatcher.Enqueue(ctx, inv)
		switch faas.CodeOf(err) {
		case faas.OK:
		case faas.Overloaded, faas.Unavailable, faas.Canceled, faas.Internal, faas.Timeout:
			return fired, err
		default:
			call.Err = err
			m.cfg.Logger.Warn("rule not called", "trigger", namespace+"/"+name, "rule", rule.Name, "function", rule.Function, "cause", err)
		}
		fired.Calls = append(fired.Calls, call)
	}
	return fired, nil
}

// withParams returns the event's data with the trigger's parameters beneath, where both are objects.
func withParams(t *faas.Trigger, e *faas.Event) ([]byte, error) {
	if len(t.Params) == 0 {
		return e.Data, nil
	}
	fields := map[string]json.RawMessage{}
	if len(bytes.TrimSpace(e.Data)) > 0 {
		if err := json.Unmarshal(e.Data, &fields); err != nil || fields == nil {
			return e.Data, nil // it has no fields to put them beneath
		}
	}
	all := maps.Clone(t.Params)
	maps.Copy(all, fields)
	return json.Marshal(all)
}

// headerOf returns the event's attributes as headers, in the binary mode of CloudEvents' HTTP
// binding.
func headerOf(t *faas.Trigger, e *faas.Event) map[string][]string {
	h := map[string][]string{}
	for k, v := range e.Header {
		h[textproto.CanonicalMIMEHeaderKey(k)] = v
	}
	set := func(name, value string) {
		if value != "" {
			h["Ce-"+name] = []string{encodeHeader(value)}
		}
	}
	set("Specversion", "1.0")
	set("Id", e.ID)
	source := e.Source
	if source == "" {
		source = "/namespaces/" + t.Namespace + "/triggers/" + t.Name
	}
	set("Source", source)
	kind := e.Type
	if kind == "" {
		kind = "brasa.trigger.fired"
	}
	set("Type", kind)
	set("Subject", e.Subject)
	set("Time", e.Time.UTC().Format(time.RFC3339Nano))
	set("Brasatrigger", t.Name)
	if e.ContentType == "" {
		e.ContentType = "application/json"
	}
	if len(e.Data) > 0 || len(t.Params) > 0 {
		h["Content-Type"] = []string{e.ContentType}
	}
	return h
}

// encodeHeader writes what no header may hold as CloudEvents' HTTP binding asks: percent-encoded,
// byte by byte of its UTF-8.
func encodeHeader(s string) string {
	var b []byte
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '%' {
			b = append(b, '%')
			b = append(b, "0123456789ABCDEF"[c>>4], "0123456789ABCDEF"[c&15])
			continue
		}
		b = append(b, s[i])
	}
	return string(b)
}

// Settled waits until every call has come to its end: it succeeded, or was given up and lies with
// the dead letters, so that nobody need tell the event again. It returns the number of those that
// did not succeed.
func (f Fired) Settled(ctx context.Context) (failed int, err error) {
	for _, c := range f.Calls {
		if c.Err != nil {
			failed++
			continue
		}
		stage, err := f.manager.settled(ctx, f.namespace, c.ID)
		if err != nil {
			return failed, err
		}
		if stage != faas.StageSucceeded {
			failed++
		}
	}
	return failed, nil
}

// Waits between two looks at a call: short for what is over at once, and longer with time.
const (
	lookFirst = 2 * time.Millisecond
	lookMost  = 500 * time.Millisecond
)

func (m *Manager) settled(ctx context.Context, namespace string, id faas.ID) (faas.Stage, error) {
	for wait := lookFirst; ; wait = min(wait*3/2, lookMost) {
		w, err := m.cfg.Dispatcher.Standing(ctx, namespace, id)
		if err != nil {
			return "", err
		}
		switch w.Stage {
		case faas.StageSucceeded, faas.StageFailed, faas.StageDead, faas.StageCanceled:
			return w.Stage, nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return "", context.Cause(ctx)
		}
	}
}

// keyOf makes one call of an event that is told again. What the outside calls its events may be
// longer than a key and have any bytes.
func keyOf(trigger, rule, event string) string {
	sum := sha256.Sum256([]byte(trigger + "\x00" + rule + "\x00" + event))
	return "event " + hex.EncodeToString(sum[:20])
}

// word makes of what the outside orders its events by a word that a call can be ordered by.
func word(s string) string {
	if s == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(s))
	return "order " + hex.EncodeToString(sum[:20])
}
