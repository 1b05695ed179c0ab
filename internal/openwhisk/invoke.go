package openwhisk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/faas"
)

// invokeAction answers POST on an action.
func (s *Server) invokeAction(c *call, p path) error {
	blocking, wait, onlyResult, err := s.waiting(c)
	if err != nil {
		return err
	}
	t, err := s.resolve(c.who, p)
	if err != nil {
		return err
	}
	if err := s.mayCallSteps(c.who, t); err != nil {
		return err
	}
	if kind := t.meta.Exec.Kind; !s.mayUse(c.who.Namespace, kind) {
		return reject(http.StatusForbidden, "Actions of kind %s are not allowed in this namespace.", kind)
	}
	args, err := s.arguments(c)
	if err != nil {
		return err
	}
	if err := s.mayOverride(t, args); err != nil {
		return err
	}
	inv := s.invocation(c.who, t, args)
	ofRequest(inv, c.transaction)
	if !blocking {
		done, err := s.throttle.accept(c.ctx, c.who.Namespace, s.limitsOf(c.who.Namespace), false)
		if err != nil {
			return err
		}
		defer done()
		if err := s.enqueue(c.ctx, inv); err != nil {
			return err
		}
		return accepted(c, inv.ID)
	}
	act, err := s.call(c.ctx, c.who.Namespace, inv, wait)
	if err != nil {
		return err
	}
	if act == nil {
		return accepted(c, inv.ID)
	}
	r := responseOf(act, s.cfg.Limits.Payload)
	c.w.Header().Set(activationHeader, string(inv.ID))
	status := http.StatusOK
	switch r.StatusCode {
	case 1, 2:
		status = http.StatusBadGateway
	case 3:
		status = http.StatusInternalServerError
	}
	if onlyResult || bytes.HasPrefix(bytes.TrimSpace(r.Result), []byte("[")) {
		writeJSON(c.w, status, r.Result)
		return nil
	}
	writeJSON(c.w, status, recordOf(act, r, false))
	return nil
}

const activationHeader = "X-Openwhisk-Activation-Id"

// accepted answers a call that goes on without its caller.
func accepted(c *call, id faas.ID) error {
	c.w.Header().Set(activationHeader, string(id))
	writeJSON(c.w, http.StatusAccepted, map[string]string{"activationId": string(id)})
	return nil
}

// waiting reads how long the caller waits, if at all.
func (s *Server) waiting(c *call) (blocking bool, wait time.Duration, onlyResult bool, err error) {
	if blocking, err = flag(c, "blocking"); err != nil {
		return
	}
	if onlyResult, err = flag(c, "result"); err != nil {
		return
	}
	wait = s.cfg.Limits.Blocking
	if v := c.query.Get("timeout"); v != "" {
		ms, e := strconv.ParseInt(v, 10, 64)
		if e != nil || ms < 1 || time.Duration(ms) > s.cfg.Limits.Blocking/time.Millisecond {
			return false, 0, false, reject(http.StatusBadRequest, "The timeout must be a number of milliseconds from 1 to %d.", s.cfg.Limits.Blocking.Milliseconds())
		}
		wait = time.Duration(ms) * time.Millisecond
	}
	return
}

// flag reads a parameter of the query that is true or false.
func flag(c *call, name string) (bool, error) {
	switch v := c.query.Get(name); {
	case v == "" && !c.query.Has(name), strings.EqualFold(v, "false"):
		return false, nil
	case v == "", strings.EqualFold(v, "true"):
		return true, nil
	default:
		return false, reject(http.StatusBadRequest, "The parameter %s is true or false, and not %.40q.", name, v)
	}
}

// arguments reads those of a request: a JSON object, or nothing.
func (s *Server) arguments(c *call) (map[string]json.RawMessage, error) {
	if n := c.r.ContentLength; n > int64(s.cfg.Limits.Payload) {
		return nil, tooLarge("The argument", n, int64(s.cfg.Limits.Payload))
	}
	b, err := c.body(s.cfg.Limits.Payload)
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return map[string]json.RawMessage{}, nil
	}
	var args map[string]json.RawMessage
	if err := json.Unmarshal(b, &args); err != nil || args == nil || !utf8.Valid(b) {
		return nil, errNotJSON
	}
	return args, nil
}

// mayOverride refuses arguments that name what the action has made final.
func (s *Server) mayOverride(t *target, args map[string]json.RawMessage) error {
	if !t.meta.truthy("final") {
		return nil
	}
	return s.overridesNothing(t, args)
}

func (s *Server) overridesNothing(t *target, args map[string]json.RawMessage) error {
	for _, p := range t.meta.Parameters {
		if _, named := args[p.Key]; named && string(p.Value) != "null" {
			return errFinal
		}
	}
	for k, v := range s.cfg.Catalog.Params(t.path.function(), t.rev) {
		if _, named := args[k]; named && string(v) != "null" {
			return errFinal
		}
	}
	return nil
}

var errFinal = reject(http.StatusBadRequest, "The request defines parameters that are not allowed (e.g., reserved properties).")

// invocation makes a call of an action for who asks.
func (s *Server) invocation(who auth.Subject, t *target, args map[string]json.RawMessage) *faas.Invocation {
	for i, p := range t.meta.Parameters { // which a running action never gets, whoever gives them
		if i == 0 {
			args = maps.Clone(args)
		}
		delete(args, p.Key)
	}
	body, err := json.Marshal(args)
	if err != nil { // not possible: each value was read from JSON
		body = []byte("{}")
	}
	begin := now()
	return &faas.Invocation{
		ID: faas.NewID(begin), Function: faas.Ref{Name: t.path.function()}, Subject: who.Name, Kind: faas.KindInvoke, Method: http.MethodPost, Path: "/",
		Header: map[string][]string{"Content-Type": {"application/json"}}, Body: bytes.NewReader(body), Length: int64(len(body)),
		Owner: faas.NativeName(who.Namespace), Note: s.noteFor(t, who.Namespace, false), Keep: s.cfg.Limits.Payload,
		Timing: faas.Timing{Begin: begin},
	}
}

// transactionHeader carries the ID of a request along with its call, and with what that calls in turn.
const transactionHeader = "X-Request-Id"

// ofRequest says which request a call is made for; "" is none.
func ofRequest(inv *faas.Invocation, transaction string) {
	if transaction != "" {
		inv.Header[transactionHeader] = []string{transaction}
	}
}

// noteFor is what the record of a call of t keeps.
func (s *Server) noteFor(t *target, namespace string, part bool) json.RawMessage {
	m := &t.meta
	n := note{
		Namespace: namespace, Name: m.Name, Version: m.Version, Path: m.Namespace + "/" + m.Name, Kind: m.Exec.Kind, Binding: t.binding, Limits: m.Limits,
		Part: part, Conductor: m.truthy("conductor"), Sequence: t.rev.Sequence != nil,
	}
	if n.Sequence {
		n.Limits = s.sequenceLimits(t.rev, m.Limits)
	}
	b, err := json.Marshal(n)
	if err != nil { // not possible
		return nil
	}
	return b
}

// sequenceLimits are those of a sequence as its records tell them: its memory is the most of its actions.
func (s *Server) sequenceLimits(rev *faas.Revision, limits json.RawMessage) json.RawMessage {
	steps, err := s.cfg.Catalog.Steps(rev.Name, rev.Sequence)
	if err != nil {
		return limits
	}
	var l map[string]any
	if json.Unmarshal(limits, &l) != nil || l == nil {
		l = map[string]any{}
	}
	var most int64
	for _, step := range steps {
		most = max(most, mib(step.Limits.Memory))
	}
	l["memory"] = most
	b, err := json.Marshal(l)
	if err != nil { // not possible
		return limits
	}
	return b
}

// Note is what the dispatcher keeps with calls that this dialect did not make itself: those of a
// sequence, of a rule, of a schedule, and of the native API.
func (s *Server) Note(rev *faas.Revision, inv *faas.Invocation) json.RawMessage {
	t := &target{rev: rev, meta: s.metaOf(rev)}
	called := inv.Function.Name
	if called.Package != "" && (called.Namespace != rev.Name.Namespace || called.Package != rev.Name.Package) {
		t.binding = called.Namespace + "/" + called.Package
		if pkg, err := s.cfg.Catalog.Package(called.Namespace, called.Package); err == nil && pkg.Origin != nil {
			var m meta
			if json.Unmarshal(pkg.Origin.Document, &m) == nil && m.Name != "" {
				t.binding = m.Namespace + "/" + m.Name
			}
		}
	}
	return s.noteFor(t, s.namespaceName(inv.Owner, rev), inv.Part)
}

// namespaceName is what OpenWhisk calls a namespace of the catalog.
func (s *Server) namespaceName(owner string, rev *faas.Revision) string {
	if owner == "" {
		owner = rev.Name.Namespace
	}
	return s.cfg.Subjects.NamespaceName(owner)
}

// call makes a call and waits for it for some time. It returns the activation, or nil if the call
// goes on without us. What was refused before there was anything to record is an error.
func (s *Server) call(ctx context.Context, namespace string, inv *faas.Invocation, wait time.Duration) (*faas.Activation, error) {
	release, err := s.throttle.enter(ctx, namespace, s.limitsOf(namespace))
	if err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() {
		defer release()
		// Whoever waits may go away: the call is made all the same, and its record is there.
		res, err := s.cfg.Dispatcher.Invoke(context.WithoutCancel(ctx), inv)
		if err == nil {
			_, _ = io.Copy(io.Discard, res.Body) // what goes wrong is in the record
			_ = res.Body.Close()
		}
		ended <- err
	}()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case err := <-ended:
		act, missing := s.cfg.Journal.Get(context.WithoutCancel(ctx), inv.Owner, inv.ID)
		if missing != nil {
			if err != nil {
				return nil, err
			}
			return nil, missing
		}
		if faas.CodeOf(err) == faas.Overloaded {
			return nil, err // it was refused, not run
		}
		return act, nil
	case <-timer.C:
		return nil, nil
	case <-ctx.Done():
		return nil, nil
	}
}

// enqueue makes a call that nobody waits for: it is durable when it returns. Whatever the action does
// with it is its outcome.
func (s *Server) enqueue(ctx context.Context, inv *faas.Invocation) error {
	if inv.Wait == nil {
		inv.Wait = &faas.Wait{}
	}
	inv.Wait.Once = true
	_, err := s.cfg.Dispatcher.Enqueue(ctx, inv)
	if e, ok := errors.AsType[*faas.Error](err); ok && e.Code == faas.NotFound {
		return errNotFound
	}
	return err
}
