package dispatch

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/queue"
)

// firstBad is the first status with which a step's answer ends the sequence.
const firstBad = http.StatusBadRequest

// sequence is one run of a function that is made of others.
type sequence struct {
	d    *Dispatcher
	rev  *faas.Revision
	inv  *faas.Invocation
	look bool // steps may have been done by an attempt before this one
}

// runSequence calls the steps one after the other and returns the answer of the last, or of the first
// that does not go well. Each step leaves an activation of its own, whose cause is inv, and is listed in
// inv's report.
//
// What is known of a call whose caller does not wait outlives this process: a step that has succeeded is
// kept with its answer before the next one begins, and an attempt goes on after the last of these.
func (d *Dispatcher) runSequence(ctx context.Context, rev *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
	s := &sequence{d: d, rev: rev, inv: inv, look: inv.Wait != nil}
	for i, name := range rev.Sequence.Steps { // before anything is done that would have to be done again
		if rev.Sequence.Lenient {
			break
		}
		if _, _, err := d.cfg.Catalog.Resolve(faas.Ref{Name: name}); err != nil {
			return nil, s.missing(i, err)
		}
	}
	if !inv.Part { // sequences within it may have become longer, or lead back to it, since it was made
		steps, err := d.cfg.Catalog.Steps(rev.Name, rev.Sequence)
		if faas.CodeOf(err) == faas.Invalid {
			e := *faas.AsError(err)
			if rev.Sequence.Lenient {
				return failure(e.Message()), nil
			}
			e.Code = faas.Failed
			return nil, &e
		}
		if most := d.mostSteps(rev); err == nil && len(steps) > most {
			return nil, faas.Errorf(faas.Failed, "run sequence", "the sequence calls %d functions, those of sequences within it included, and may call %d", len(steps), most).
				WithLimit("sequence_steps").WithFix("have one of its functions call the rest")
		}
	}
	header, body, length := inv.Header, inv.Body, inv.Length
	for i, name := range rev.Sequence.Steps {
		if answer := s.kept(ctx, i); answer != nil {
			header, body, length = handedOn(answer.Header), faas.NewBytesBody(answer.Body), int64(len(answer.Body))
			if i == len(rev.Sequence.Steps)-1 {
				return &faas.Result{Status: answer.Status, Header: answer.Header, Body: faas.NewBytesBody(answer.Body)}, nil
			}
			continue
		}
		_, stepRev, err := d.cfg.Catalog.Resolve(faas.Ref{Name: name})
		if err != nil {
			if rev.Sequence.Lenient && faas.CodeOf(err) == faas.NotFound {
				s.stopped(i, "does not exist")
				return failure(faas.AsError(err).Message()), nil
			}
			return nil, s.missing(i, err)
		}
		if !d.cfg.Catalog.Open(rev.Name.Namespace, name) { // any more
			return nil, s.failed(i, faas.Errorf(faas.Failed, "call step", "it is of another namespace, which does not share it"))
		}
		step := s.step(i, header, body, length)
		if err := d.chains.follow(step, inv); err != nil {
			return nil, s.failed(i, err)
		}
		last := i == len(rev.Sequence.Steps)-1
		if !last {
			d.makeReady(ctx, rev.Sequence.Steps[i+1])
		}
		var act *faas.Activation
		res, err := d.run(ctx, stepRev, step, noPlace, func(a *faas.Activation) { act = a })
		if err != nil {
			s.note(i, step, act)
			return nil, s.failed(i, err)
		}
		inv.Report.Start = colder(inv.Report.Start, step.Report.Start)
		if res.Status == http.StatusSwitchingProtocols {
			_ = res.Body.Close()
			s.note(i, step, act)
			return nil, s.failed(i, faas.Errorf(faas.Failed, "read answer", "it wants to go on with another protocol, which a step of a sequence can't"))
		}
		if last || res.Status >= firstBad {
			if !last {
				s.stopped(i, fmt.Sprintf("answered with status %d", res.Status))
			}
			res.Body = s.answer(i, res.Body, func() { s.note(i, step, act) })
			return res, nil
		}
		b, err := s.read(i, res)
		_ = res.Body.Close() // completes the activation
		if err == nil && act.Outcome != faas.OK {
			err = &faas.Error{Code: act.Outcome, Err: errors.New(act.Error), Trace: act.Trace}
		}
		if err != nil {
			s.note(i, step, act)
			return nil, s.failed(i, err)
		}
		if rev.Sequence.ErrorField && hasError(b) {
			s.note(i, step, act)
			s.stopped(i, `answered with "error"`)
			res.Body = faas.NewBytesBody(b)
			return res, nil
		}
		s.keep(ctx, i, step, act, res, b)
		header, body, length = handedOn(res.Header), faas.NewBytesBody(b), int64(len(b))
	}
	return nil, faas.Errorf(faas.Internal, "run sequence", "sequence %q has no steps", rev.Name)
}

// step makes the call of a step. The first gets what the sequence was called with, as it came; the
// others get what the one before has answered.
func (s *sequence) step(i int, header map[string][]string, body io.Reader, length int64) *faas.Invocation {
	inv := &faas.Invocation{
		ID: s.id(i), Function: faas.Ref{Name: s.rev.Sequence.Steps[i]}, Subject: s.inv.Subject, Cause: s.inv.ID,
		Kind: faas.KindInvoke, Method: http.MethodPost, Path: "/", Header: header, Body: body, Length: length,
		Deadline: s.inv.Deadline, Attempt: s.inv.Attempt, Owner: s.inv.Owner, Keep: s.inv.Keep, Part: true,
	}
	if i == 0 {
		inv.Method, inv.Path, inv.Query = s.inv.Method, s.inv.Path, s.inv.Query
	}
	if i == len(s.rev.Sequence.Steps)-1 {
		inv.Kind = s.inv.Kind // which decides how the answer looks
	}
	if length == 0 {
		inv.Body = nil
	}
	if id := s.inv.Header[requestHeader]; len(id) > 0 {
		setHeader(inv, requestHeader, id[0]) // answers, which the others' headers are of, don't name the request
	}
	inv.Timing.Begin = time.Now()
	setHeader(inv, idHeader, string(inv.ID))
	if s.inv.Wait != nil {
		inv.Wait = &faas.Wait{} // nobody waits for it either
		setHeader(inv, attemptHeader, strconv.Itoa(inv.Attempt))
	}
	return inv
}

// id returns the ID of a step's call: the same in each attempt, as long as the steps up to it are the
// same.
func (s *sequence) id(i int) faas.ID {
	way := &faas.Sequence{Steps: s.rev.Sequence.Steps[:i+1]}
	return derived(s.inv.ID, "step "+strconv.Itoa(i+1)+", "+way.String())
}

// mostSteps is how many functions a sequence, or all that a conductor leads to, may call.
func (d *Dispatcher) mostSteps(rev *faas.Revision) int {
	return cmp.Or(d.cfg.Steps[rev.Contract], faas.MaxSteps)
}

// requestHeader names the request that all steps belong to.
const requestHeader = "X-Request-Id"

// handedOn are the headers that go from an answer to the next step.
func handedOn(answer map[string][]string) map[string][]string {
	h := map[string][]string{}
	for k, v := range answer {
		if strings.EqualFold(k, "Content-Type") {
			h["Content-Type"] = v
		}
	}
	return h
}

// read takes the answer that the next step is to get, which has no more than that takes and than a
// call which waits may have.
func (s *sequence) read(i int, res *faas.Result) ([]byte, error) {
	most, limit := queue.MaxBody, "queue_body_bytes"
	next := s.rev.Sequence.Steps[i+1]
	if _, rev, err := s.d.cfg.Catalog.Resolve(faas.Ref{Name: next}); err == nil && rev.Sequence == nil && rev.Limits.Request < most {
		most, limit = rev.Limits.Request, "request_bytes"
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, int64(most)+1))
	switch {
	case err != nil:
		return nil, err
	case faas.Bytes(len(b)) > most:
		return nil, faas.Errorf(faas.TooLarge, "hand on answer", "its answer has more than %s, so it can't be handed on to %q", most, next.Path()).WithLimit(limit)
	}
	return b, nil
}

// answer has done called when the last answer has ended, and names the step in what goes wrong until
// then.
func (s *sequence) answer(i int, body io.ReadCloser, done func()) io.ReadCloser {
	if whole, ok := body.(wholeBody); ok {
		return track(whole, func(error) { done() })
	}
	return track(&stepBody{ReadCloser: body, failed: func(err error) error { return s.failed(i, err) }}, func(error) { done() })
}

type stepBody struct {
	io.ReadCloser
	failed func(error) error
}

func (b *stepBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = b.failed(err)
	}
	return n, err
}

// keep records a step that went well. Where nobody waits, its answer is kept for good, so that it need
// not be called again.
func (s *sequence) keep(ctx context.Context, i int, step *faas.Invocation, act *faas.Activation, res *faas.Result, body []byte) {
	if s.inv.Wait != nil && len(body) <= int(faas.MaxAnswer) {
		act.Answer = &faas.Answer{Status: res.Status, Header: res.Header, Body: body, Bytes: faas.Bytes(len(body))}
	}
	s.note(i, step, act)
	if act.Answer == nil {
		return
	}
	if err := s.d.cfg.Journal.Flush(ctx); err != nil {
		s.d.cfg.Logger.Warn("answer of step not yet on disk", "invocation", act.ID, "sequence", s.inv.ID, "cause", err)
	}
	s.d.cfg.Step("sequence: step kept")
}

// kept returns the answer of a step that an attempt before this one has kept; nil if there is none.
func (s *sequence) kept(ctx context.Context, i int) *faas.Answer {
	if !s.look {
		return nil
	}
	owner := s.inv.Owner
	if owner == "" {
		_, rev, err := s.d.cfg.Catalog.Resolve(faas.Ref{Name: s.rev.Sequence.Steps[i]})
		if err != nil {
			s.look = false
			return nil
		}
		owner = rev.Name.Namespace
	}
	act, err := s.d.cfg.Journal.Get(ctx, owner, s.id(i))
	if err != nil || act.Cause != s.inv.ID || act.Outcome != faas.OK || act.Answer == nil || act.Answer.Cut {
		s.look = false // those after it were not called either
		return nil
	}
	s.inv.Report.Steps = append(s.inv.Report.Steps, faas.SequenceStep{
		ID: act.ID, Function: act.Function, Outcome: act.Outcome, Status: act.Status, US: act.Timing.Total.Microseconds(), Kept: true,
	})
	return act.Answer
}

// note records a step's activation and enters it in the report of the whole.
func (s *sequence) note(i int, step *faas.Invocation, act *faas.Activation) {
	if act == nil {
		return // it was refused before there was anything to record
	}
	if s.inv.Wait != nil {
		act.Attempt = s.inv.Attempt
		if act.Outcome != faas.OK {
			act.ID = faas.NewID(act.Timing.Begin) // another attempt may be the last
		}
	}
	r, part := &s.inv.Report, &step.Report
	r.Steps = append(r.Steps, faas.SequenceStep{ID: act.ID, Function: s.rev.Sequence.Steps[i].Path(), Outcome: act.Outcome, Status: act.Status, US: act.Timing.Total.Microseconds()})
	r.Start, r.Node, r.Memory, r.CPU, r.Response = colder(r.Start, part.Start), part.Node, max(r.Memory, part.Memory), r.CPU+part.CPU, part.Response
	s.inv.Timing.Merge(&step.Timing)
	s.d.cfg.Recorder.Record(act)
}

// stopped leaves a line in the log of the whole that says why not all steps were called.
func (s *sequence) stopped(i int, why string) {
	s.inv.Report.Logs = append(s.inv.Report.Logs, faas.LogLine{
		Time: time.Now(), Stream: "platform", Text: s.place(i) + " " + why + "; the steps after it are not called",
	})
}

func (s *sequence) place(i int) string {
	return fmt.Sprintf("step %d of %d, %q,", i+1, len(s.rev.Sequence.Steps), s.rev.Sequence.Steps[i].Path())
}

// failed says in an error which step it was, and whether the time of the whole was over.
func (s *sequence) failed(i int, err error) error {
	e := *faas.AsError(err)
	if e.Code == faas.Timeout && !time.Now().Before(s.inv.Deadline) {
		clock, limit := fmt.Sprintf("the sequence's timeout of %s", s.rev.Limits.Timeout), "timeout_ms"
		if begin := s.inv.Timing.Begin; s.inv.Deadline.Before(begin.Add(s.rev.Limits.Timeout.D())) {
			clock, limit = fmt.Sprintf("the time that the caller gave the sequence, %s of its timeout of %s,", s.inv.Deadline.Sub(begin).Round(time.Millisecond), s.rev.Limits.Timeout), ""
		}
		over := faas.Errorf(faas.Timeout, "run sequence", "%s was over in step %d of %d, %q", clock, i+1, len(s.rev.Sequence.Steps), s.rev.Sequence.Steps[i].Path()).WithLimit(limit)
		if limit != "" {
			over.Fix = "see which step takes long: brasa inv get ID; raise it with: brasa sequence create NAME --steps … --timeout 1m"
		}
		return over
	}
	if s.rev.Sequence.Lenient {
		return &e
	}
	e.Err = fmt.Errorf("%s: %w", strings.TrimSuffix(s.place(i), ","), orCode(&e))
	return &e
}

// missing says that a step is not there, which is for the sequence's owner to mend.
func (s *sequence) missing(i int, err error) error {
	e := *faas.AsError(err)
	if e.Code == faas.NotFound {
		e.Code = faas.Failed
	}
	return s.failed(i, &e)
}

// orCode returns an error's cause, or its code where it has none.
func orCode(e *faas.Error) error {
	if e.Err == nil {
		return errors.New(e.Code.String())
	}
	return e.Err
}

// hasError says whether an answer is a JSON object with the field "error".
func hasError(body []byte) bool {
	if b := bytes.TrimLeft(body, " \t\r\n"); len(b) == 0 || b[0] != '{' {
		return false
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(body, &object) != nil {
		return false
	}
	_, has := object["error"]
	return has
}

// starts are the ways in which instances come to serve, the slowest first.
var starts = []faas.Start{faas.StartCold, faas.StartForked, faas.StartPrewarmed, faas.StartRestored, faas.StartWarm}

// colder returns the slower one of two starts, of which either may be empty.
func colder(a, b faas.Start) faas.Start {
	for _, s := range starts {
		if a == s || b == s {
			return s
		}
	}
	return a
}

// noPlace is for calls that are part of one which has its place.
func noPlace(*faas.Revision, *faas.Invocation) (func(), error) { return func() {}, nil }

// canRun says whether the node has what a revision, or each step of a sequence, needs, and returns what
// gets the input first.
func (d *Dispatcher) canRun(rev *faas.Revision) (first *faas.Revision, err error) {
	steps := []*faas.Revision{rev}
	if rev.Sequence != nil {
		if steps, err = d.cfg.Catalog.Steps(rev.Name, rev.Sequence); err != nil {
			return nil, err
		}
	}
	if c, ok := d.cfg.Node.(checker); ok {
		for _, step := range steps {
			if d.builtin(step) != nil {
				continue
			}
			if err := c.Check(step); err != nil {
				return nil, err
			}
		}
	}
	return steps[0], nil
}
