package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/queue"
)

// maxComposition is how long all that a conductor leads to may take together. The timeout of its own
// function bounds each of its calls.
const maxComposition = time.Hour

// composition is what has been called in one run of a conductor, of those that it leads to as well.
type composition struct {
	most       int // functions that may be called
	parts      int // functions that conductors have named, without those that are conductors
	conductors int // calls of conductors
}

type compositionKey struct{}

// conductor is one run of a function that decides the next step.
type conductor struct {
	d    *Dispatcher
	rev  *faas.Revision
	inv  *faas.Invocation
	all  *composition
	body []byte // for the next call
}

// decision is what a conductor answers.
type decision struct {
	Action json.RawMessage `json:"action"`
	Params json.RawMessage `json:"params"`
	State  json.RawMessage `json:"state"`
}

// runConductor calls a function, then the one that its answer names with the parameters that its answer
// has, then the function again with that one's answer and its own state, until its answer names none.
// What it calls leaves activations of its own, whose cause is inv, and is listed in inv's report. An
// attempt that was interrupted begins anew.
//
// The protocol and its bounds are those of OpenWhisk's conductors: of n functions, and 2n+1 calls of
// conductors, where n is Config.Steps, counted over everything that the outermost one leads to.
func (d *Dispatcher) runConductor(ctx context.Context, rev *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
	c := &conductor{d: d, rev: rev, inv: inv}
	if c.all, _ = ctx.Value(compositionKey{}).(*composition); c.all == nil {
		c.all = &composition{most: d.mostSteps(rev)}
		ctx = context.WithValue(ctx, compositionKey{}, c.all)
	}
	if inv.Body != nil {
		var err error
		if c.body, err = io.ReadAll(inv.Body); err != nil {
			return nil, err
		}
	}
	// The same code without what makes it a conductor.
	plain := *rev
	plain.Conductor = false
	for {
		if c.all.conductors > 2*c.all.most {
			return failure(fmt.Sprintf("The composition has called conductors more than %d times.", 2*c.all.most+1)), nil
		}
		c.all.conductors++
		res, b, err := c.call(ctx, &plain, inv.Function.Name)
		if err != nil {
			return nil, err
		}
		var next decision
		if res.Status >= firstBad || hasError(b) || json.Unmarshal(b, &next) != nil || len(next.Action) == 0 || string(next.Action) == "null" {
			if res.Status < firstBad && !hasError(b) && len(next.Params) > 0 {
				b = boxed(next.Params, "value")
			}
			res.Body = faas.NewBytesBody(b)
			return res, nil
		}
		c.body = c.step(ctx, next.Action, next.Params)
		if c.body, err = joined(c.body, next.State); err != nil {
			return nil, err
		}
		if err := context.Cause(ctx); err != nil {
			return nil, faas.Errorf(faas.Timeout, "run composition", "the time of the whole composition was over, which is %s at the most; each of its calls has its own besides", maxComposition)
		}
	}
}

// step calls the function that a conductor has named and returns what the conductor is to hear of it: its
// answer, or an object with the field error.
func (c *conductor) step(ctx context.Context, named, params json.RawMessage) []byte {
	var action string
	if json.Unmarshal(named, &action) != nil {
		return object("error", fmt.Sprintf("The composition cannot call %.80s: that is no name", named))
	}
	name, rev, err := c.d.next(ctx, c.inv, c.rev, action)
	if err != nil {
		return object("error", fmt.Sprintf("The composition cannot call %q: %s", action, faas.AsError(err).Message()))
	}
	if c.all.parts >= c.all.most {
		return object("error", fmt.Sprintf("The composition has called as many functions as it may, %d.", c.all.most))
	}
	if !rev.Conductor { // the calls of those are counted by themselves
		c.all.parts++
	}
	c.body = []byte("{}")
	if len(params) > 0 {
		c.body = boxed(params, "value")
	}
	_, b, err := c.call(ctx, rev, name)
	switch {
	case err != nil:
		return object("error", faas.AsError(err).Message())
	case len(b) == 0:
		return []byte("{}")
	case !json.Valid(b):
		return object("value", string(b))
	}
	return boxed(b, "value")
}

// next finds the function that a conductor has named.
func (d *Dispatcher) next(ctx context.Context, inv *faas.Invocation, conductor *faas.Revision, action string) (faas.Name, *faas.Revision, error) {
	var name faas.Name
	var err error
	if resolve := d.cfg.Next[conductor.Contract]; resolve != nil {
		name, err = resolve(ctx, inv, action)
	} else if name, err = faas.ParseName(action, conductor.Name.Namespace); err == nil && name.Namespace != conductor.Name.Namespace {
		err = faas.Errorf(faas.Denied, "find function", "%q is of another namespace", action)
	}
	if err != nil {
		return name, nil, err
	}
	_, rev, err := d.cfg.Catalog.Resolve(faas.Ref{Name: name})
	return name, rev, err
}

// call calls a function with what is due to it and reads its answer to the end.
func (c *conductor) call(ctx context.Context, rev *faas.Revision, name faas.Name) (*faas.Result, []byte, error) {
	inv := &faas.Invocation{
		ID: faas.NewID(time.Now()), Function: faas.Ref{Name: name}, Subject: c.inv.Subject, Cause: c.inv.ID, Kind: faas.KindInvoke, Method: http.MethodPost, Path: "/",
		Header: maps.Clone(c.inv.Header), Body: faas.NewBytesBody(c.body), Length: int64(len(c.body)), Deadline: c.inv.Deadline, Attempt: c.inv.Attempt,
		Owner: c.inv.Owner, Keep: c.inv.Keep, Part: true, Timing: faas.Timing{Begin: time.Now()},
	}
	setHeader(inv, idHeader, string(inv.ID))
	setHeader(inv, "Content-Type", "application/json")
	if c.inv.Wait != nil {
		inv.Wait = &faas.Wait{}
	}
	if err := c.d.chains.within(inv, c.inv); err != nil {
		return nil, nil, err
	}
	var act *faas.Activation
	note := func() {
		if act == nil {
			return
		}
		r, part := &c.inv.Report, &inv.Report
		r.Steps = append(r.Steps, faas.SequenceStep{ID: act.ID, Function: name.Path(), Outcome: act.Outcome, Status: act.Status, US: act.Timing.Total.Microseconds()})
		r.Start, r.Node, r.Memory, r.CPU, r.Response = colder(r.Start, part.Start), part.Node, max(r.Memory, part.Memory), r.CPU+part.CPU, part.Response
		c.inv.Timing.Merge(&inv.Timing)
		c.d.cfg.Recorder.Record(act)
	}
	res, err := c.d.run(ctx, rev, inv, noPlace, func(a *faas.Activation) { act = a })
	if err != nil {
		note()
		return nil, nil, err
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, int64(queue.MaxBody)+1))
	_ = res.Body.Close() // completes the activation
	if err == nil && len(b) > int(queue.MaxBody) {
		err = faas.Errorf(faas.TooLarge, "hand on answer", "the answer of %q has more than %s", name.Path(), queue.MaxBody).WithLimit("queue_body_bytes")
	}
	if err == nil && act.Outcome != faas.OK {
		err = &faas.Error{Code: act.Outcome, Err: errors.New(act.Error), Trace: act.Trace}
	}
	if err == nil && c.inv.Wait != nil && inv.Keep > 0 {
		act.Answer = &faas.Answer{Status: res.Status, Header: res.Header, Body: b[:min(len(b), int(inv.Keep))], Bytes: faas.Bytes(len(b)), Cut: len(b) > int(inv.Keep)}
	}
	note()
	return res, b, err
}

// boxed returns a JSON value that is an object; another becomes its field.
func boxed(v json.RawMessage, field string) json.RawMessage {
	var fields map[string]json.RawMessage
	if json.Unmarshal(v, &fields) == nil && fields != nil {
		return v
	}
	b, err := json.Marshal(map[string]json.RawMessage{field: v})
	if err != nil { // not possible: it was read from JSON
		return json.RawMessage("{}")
	}
	return b
}

// joined returns what a conductor is called with again: the answer that it waited for, with its state's
// fields over it.
func joined(answer, state json.RawMessage) ([]byte, error) {
	if len(state) == 0 {
		return answer, nil
	}
	var all, over map[string]json.RawMessage
	if err := json.Unmarshal(answer, &all); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(boxed(state, "state"), &over); err != nil {
		return nil, err
	}
	maps.Copy(all, over)
	return json.Marshal(all)
}

func object(field, value string) []byte {
	b, err := json.Marshal(map[string]string{field: value})
	if err != nil { // not possible: it is a string
		return []byte("{}")
	}
	return b
}

// failure is an answer that is an error of the application.
func failure(message string) *faas.Result {
	return &faas.Result{Status: http.StatusBadGateway, Header: map[string][]string{"Content-Type": {"application/json"}}, Body: faas.NewBytesBody(object("error", message))}
}
