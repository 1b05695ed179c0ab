package dispatch

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// errDeadline is the cause of a context that ended because the call's time was up, which tells
// it from a caller that went away.
var errDeadline = errors.New("the call's deadline has passed")

func newActivation(rev *faas.Revision, inv *faas.Invocation) *faas.Activation {
	fn := rev.Name.Path()
	if inv.Kind == faas.KindRun {
		fn = ""
	}
	owner := rev.Name.Namespace
	if inv.Owner != "" && inv.Owner != owner {
		owner, fn = inv.Owner, "/"+rev.Name.String()
	}
	return &faas.Activation{
		ID: inv.ID, Cause: inv.Cause, Namespace: owner, Function: fn,
		Revision: rev.ID, Runtime: rev.Runtime, Kind: inv.Kind, Subject: inv.Subject, Note: inv.Note,
	}
}

// finish completes the activation and hands it to record. It returns err as the caller is to see it.
func finish(act *faas.Activation, inv *faas.Invocation, status int, err error, record func(*faas.Activation)) error {
	inv.Timing.Total = time.Since(inv.Timing.Begin)
	r := &inv.Report
	act.Timing, act.Status, act.Code = inv.Timing, status, inv.Timing.Trees()
	act.Start, act.Node, act.Instance = r.Start, r.Node, r.Instance
	act.Memory, act.CPUMicros = r.Memory, r.CPU.Microseconds()
	act.Request, act.Response = r.Request, r.Response
	act.Logs, act.LogTruncated, act.Steps = r.Logs, r.LogTruncated, r.Steps
	if err != nil {
		err = outcome(act, err)
	}
	record(act)
	return err
}

// outcome enters what went wrong.
func outcome(act *faas.Activation, err error) *faas.Error {
	e := faas.AsError(err)
	act.Outcome, act.Fault, act.Error, act.Trace = e.Code, e.Code.Fault(), e.Message(), e.Trace
	return e
}

// track returns body such that done is called exactly once, when it is closed: with nil if the
// answer was read to its end, with the failure that a Read met, or with Canceled if it was
// closed before.
func track(body io.ReadCloser, done func(error)) io.ReadCloser {
	t := &tracked{ReadCloser: body, done: done}
	if w, ok := body.(io.Writer); ok { // an upgraded connection
		return &trackedConn{tracked: t, Writer: w}
	}
	if b, ok := body.(wholeBody); ok {
		return &trackedBytes{tracked: t, whole: b}
	}
	return t
}

// wholeBody is a body that is complete in memory.
type wholeBody interface {
	io.ReadCloser
	io.WriterTo
	Len() int
}

// trackedBytes is an answer that is complete in memory, whose length is known.
type trackedBytes struct {
	*tracked
	whole wholeBody
}

// Len returns how many bytes are still to be read.
func (t *trackedBytes) Len() int { return t.whole.Len() }

type tracked struct {
	io.ReadCloser
	once  sync.Once
	done  func(error)
	ended bool  // by the reader alone
	err   error // by the reader alone
}

func (t *tracked) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	switch {
	case err == io.EOF:
		t.ended = true
	case err != nil && t.err == nil:
		t.err = err
	}
	return n, err
}

// WriteTo lets it go to the caller in one write.
func (t *trackedBytes) WriteTo(w io.Writer) (int64, error) {
	n, err := t.whole.WriteTo(w)
	if err == nil {
		t.ended = true
	}
	return n, err
}

func (t *tracked) Close() error {
	err := t.ReadCloser.Close()
	t.once.Do(func() {
		failure := t.err
		if failure == nil && !t.ended {
			failure = faas.Errorf(faas.Canceled, "return answer", "the caller went away before the answer was complete")
		} else if errors.Is(failure, context.Canceled) {
			failure = faas.Errorf(faas.Canceled, "return answer", "the caller went away")
		}
		t.done(failure)
	})
	return err
}

// trackedConn is an upgraded connection: whichever side ends it, it has ended well.
// It is read and closed at once by different goroutines.
type trackedConn struct {
	*tracked
	io.Writer
}

func (t *trackedConn) Read(p []byte) (int, error) { return t.ReadCloser.Read(p) }

func (t *trackedConn) Close() error {
	err := t.ReadCloser.Close()
	t.once.Do(func() { t.done(nil) })
	return err
}
