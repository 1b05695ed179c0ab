package dispatch

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/brasa-dev/brasa/internal/faas"
)

// handOn is where an outcome goes.
type handOn struct {
	to   faas.Destination // empty: nowhere
	how  string           // "success", "failure" or "step"
	wait faas.Wait        // of the next call, if that is of a sequence
}

func (h handOn) isFunction() bool {
	return h.to != "" && !strings.Contains(string(h.to), "://")
}

// afterSuccess says where a good outcome goes: to the next step, if there is one, else to what the
// call asks for, else to what its function does.
func afterSuccess(w *faas.Wait, a *faas.Async) handOn {
	if len(w.Then) > 0 {
		return handOn{to: w.Then[0], how: "step", wait: faas.Wait{Then: w.Then[1:], OnSuccess: w.OnSuccess, OnFailure: w.OnFailure, Priority: w.Priority}}
	}
	h := handOn{to: w.OnSuccess, how: "success", wait: faas.Wait{Priority: w.Priority}}
	if a != nil {
		h.to = cmp.Or(h.to, a.OnSuccess)
	}
	return h
}

func afterFailure(w *faas.Wait, a *faas.Async) handOn {
	h := handOn{to: w.OnFailure, how: "failure", wait: faas.Wait{Priority: w.Priority}}
	if a != nil {
		h.to = cmp.Or(h.to, a.OnFailure)
	}
	return h
}

// CheckDestination says whether an outcome of a call in the namespace may go to a destination: a
// function that exists, or a web hook whose address, where it is written as one, may be called.
// Names are looked up when the hook is called. name is said in the error.
func (d *Dispatcher) CheckDestination(namespace, name string, to faas.Destination) error {
	if to == "" {
		return nil
	}
	if strings.Contains(string(to), "://") {
		return d.CheckHook(name, to)
	}
	target, err := to.Target(namespace)
	if err != nil {
		return err
	}
	if _, _, err := d.cfg.Catalog.Resolve(faas.Ref{Name: target}); err != nil {
		e := *faas.AsError(err)
		e.Code, e.Op, e.Err = faas.Invalid, "check "+name, fmt.Errorf("%s: %w", name, e.Err)
		return &e
	}
	return nil
}

// CheckHook is CheckDestination for web hooks alone, which need no catalog: for a deploy, whose
// destinations may be deployed after it.
func (d *Dispatcher) CheckHook(name string, to faas.Destination) error {
	u, ok := to.Hook()
	if !ok {
		return nil
	}
	host := u.Hostname()
	a, err := netip.ParseAddr(host)
	plain := strings.ToLower(strings.TrimSuffix(host, "."))
	local := plain == "localhost" || strings.HasSuffix(plain, ".localhost")
	if err == nil && !d.hooks.outside(a) || local {
		return faas.Errorf(faas.Invalid, "check "+name, "%s: the server does not call %q: it is this machine's, private, or of a link", name, host).
			WithFix("name a web hook in the outside, or have the administrator open its range with the key egress.allow")
	}
	return nil
}

// checkDestinations checks all that a call brings along.
func (d *Dispatcher) checkDestinations(namespace string, w *faas.Wait) error {
	for _, c := range []struct {
		name string
		to   faas.Destination
	}{{"on_success", w.OnSuccess}, {"on_failure", w.OnFailure}} {
		if err := d.CheckDestination(namespace, c.name, c.to); err != nil {
			return err
		}
	}
	for _, to := range w.Then {
		if strings.Contains(string(to), "://") || to == "" {
			return faas.Errorf(faas.Invalid, "check then", "then: a step is a function of the namespace, not %q", to).WithFix("name a web hook as on_success")
		}
		if err := d.CheckDestination(namespace, "then", to); err != nil {
			return err
		}
	}
	if len(w.Then) >= d.chains.cfg.Depth {
		return faas.Errorf(faas.Invalid, "check then", "%d steps are more than a chain may have", len(w.Then)).WithLimit("chain.depth")
	}
	return nil
}

// handOn queues what an outcome leads to. When it returns that is durable. The call it makes has an
// ID and a key made from those of the first, so that it is one call however often the outcome is
// handed on.
func (d *Dispatcher) handOn(ctx context.Context, inv *faas.Invocation, o *outcomeOf, h handOn) error {
	if h.to == "" {
		return nil
	}
	next := &faas.Invocation{
		ID: derived(inv.ID, h.how), Subject: inv.Subject, Cause: inv.ID, Kind: faas.KindInvoke, Method: "POST", Path: "/",
		Header: map[string][]string{"Content-Type": {"application/json"}},
	}
	wait := h.wait
	wait.Key, wait.Since = h.how+" of "+string(inv.ID), time.Now()
	var body []byte
	switch {
	case !h.isFunction():
		next.Kind, next.Path, next.Function = faas.KindDeliver, string(h.to), inv.Function
		next.Function.Revision = ""
		body = document(inv, o)
		wait.Priority = faas.PriorityHigh // it is short, and what it tells of is over
	case h.how == "failure":
		body = document(inv, o)
	default:
		body = o.body
		delete(next.Header, "Content-Type")
		for k, v := range o.act.Answer.Header {
			if strings.EqualFold(k, "Content-Type") {
				next.Header["Content-Type"] = v
			}
		}
	}
	next.Body, next.Length = bytes.NewReader(body), int64(len(body))
	if len(body) == 0 {
		next.Body = nil
	}
	if h.isFunction() {
		target, err := h.to.Target(inv.Function.Name.Namespace)
		if err != nil {
			return err // it was checked
		}
		next.Function.Name = target
		next.Header[idHeader] = []string{string(next.ID)}
		// A chain that goes too far is refused when it would run, and lies with the dead letters: the
		// call before it has ended well and is not to suffer for it.
		_ = d.chains.follow(next, inv)
		wait.Chain = next.Chain
	}
	next.Wait = &wait
	_, err := d.cfg.Queue.Push(ctx, next)
	return err
}

// derived returns the ID of what a call leads to: the same each time, of the same time.
func derived(id faas.ID, how string) faas.ID {
	sum := sha256.Sum256([]byte(how + " of " + string(id)))
	b, _ := hex.DecodeString(string(faas.NewID(id.Time()))) // the form of an ID, with its time
	const random = 6
	keep := [2]byte{b[random] & 0xf0, b[random+2] & 0xc0}
	copy(b[random:], sum[:])
	b[random] = b[random]&0x0f | keep[0]
	b[random+2] = b[random+2]&0x3f | keep[1]
	return faas.ID(hex.EncodeToString(b))
}

// outcomeDocument is what web hooks, and functions that are told of failures, get.
type outcomeDocument struct {
	ID        faas.ID           `json:"id"`
	Cause     faas.ID           `json:"cause,omitempty"`
	Namespace string            `json:"namespace"`
	Function  string            `json:"function"`
	Revision  faas.RevisionID   `json:"revision,omitempty"`
	Outcome   faas.Code         `json:"outcome"`
	Fault     string            `json:"fault,omitempty"`
	Error     string            `json:"error,omitempty"`
	Answer    *documentedAnswer `json:"answer,omitempty"`
	Attempt   int               `json:"attempt"`
	Queued    time.Time         `json:"queued"`
	Begun     time.Time         `json:"begun"` // the last attempt
	Ended     time.Time         `json:"ended"`
}

type documentedAnswer struct {
	Status int                 `json:"status"`
	Header map[string][]string `json:"headers,omitempty"`
	Body   any                 `json:"body,omitempty"`        // JSON as it is, text as text
	Base64 []byte              `json:"body_base64,omitempty"` // else
	Bytes  faas.Bytes          `json:"bytes"`
	Cut    bool                `json:"cut,omitempty"`
}

func document(inv *faas.Invocation, o *outcomeOf) []byte {
	act := o.act
	doc := outcomeDocument{
		ID: inv.ID, Cause: inv.Cause, Namespace: act.Namespace, Function: act.Function, Revision: act.Revision,
		Outcome: act.Outcome, Fault: act.Fault, Error: act.Error, Attempt: inv.Attempt,
		Queued: inv.Wait.Since.UTC(), Begun: act.Timing.Begin.UTC(), Ended: act.Timing.Begin.Add(act.Timing.Total).UTC(),
	}
	if a := act.Answer; a != nil {
		said := &documentedAnswer{Status: a.Status, Header: a.Header, Bytes: a.Bytes, Cut: a.Cut}
		switch {
		case !a.Cut && json.Valid(a.Body):
			said.Body = json.RawMessage(a.Body)
		case utf8.Valid(a.Body):
			said.Body = string(a.Body)
		default:
			said.Base64 = a.Body
		}
		doc.Answer = said
	}
	b, err := json.Marshal(doc)
	if err != nil {
		panic(err) // it has no value that cannot be written
	}
	return b
}
