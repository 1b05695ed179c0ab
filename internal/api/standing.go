package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/brasa-dev/brasa/internal/faas"
)

// HeaderCut is on results of which only the beginning was kept: how many bytes the answer had.
const HeaderCut = "Brasa-Cut"

// longestWait bounds, in seconds, how long a request waits for a call to end.
const longestWait = 300

// Record is what is known of a call: its activation, and where it stands if its caller does not wait.
// Such a call has no activation before its first attempt has ended for good; between a redrive and
// its end it has that of the attempt before.
type Record struct {
	ID        faas.ID       `json:"id"`
	Namespace string        `json:"namespace"`
	Function  string        `json:"function" doc:"Empty for ad-hoc code"`
	Stage     faas.Stage    `json:"stage,omitempty" enum:"queued,running,retrying,succeeded,failed,dead,canceled" doc:"Where a call stands whose caller does not wait; the last four are final. Absent: its caller waited"`
	Attempt   int           `json:"attempt,omitempty" doc:"Attempts begun"`
	Queued    time.Time     `json:"queued,omitzero" doc:"When it was accepted"`
	Due       time.Time     `json:"due,omitzero" doc:"When it may next be handed out, if it waits"`
	Priority  faas.Priority `json:"priority,omitempty" enum:"high,normal,low"`
	Key       string        `json:"key,omitempty" doc:"Its idempotency key"`
	Order     string        `json:"order,omitempty" doc:"Calls with the same word go one after the other"`
	Last      string        `json:"last_error,omitempty" doc:"What became of the last attempt, if the call has not ended"`

	*faas.Activation
}

// TransformSchema says that all of the activation may be absent.
func (Record) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.Required = []string{"id", "namespace", "function"}
	s.PrecomputeMessages()
	return s
}

// final says whether nothing more comes of the call.
func (r *Record) final() bool {
	switch r.Stage {
	case faas.StageQueued, faas.StageRunning, faas.StageRetrying:
		return false
	}
	return true
}

// whole says whether the record tells all that a caller who had waited would know.
func (r *Record) whole() bool {
	a := r.Activation
	return a != nil && (a.Outcome != faas.OK || a.Answer != nil && !a.Answer.Cut)
}

// waited says whether the caller of a call waited for it. A call that was cancelled before its first
// attempt leaves the same traces as one whose caller went away before it had an instance.
func waited(a *faas.Activation) bool {
	return a.Attempt == 0 && !(a.Outcome == faas.Canceled && a.Instance == "")
}

// record finds what is known of a call.
func (s *Server) record(ctx context.Context, namespace string, id faas.ID) (*Record, error) {
	in := &activationPath{NamespacePath: NamespacePath{Namespace: namespace}, ID: string(id)}
	act, err := s.activation(ctx, in)
	if s.cfg.Queue == nil || act != nil && waited(act) || err != nil && faas.CodeOf(err) != faas.NotFound {
		if err != nil {
			return nil, err
		}
		return &Record{ID: act.ID, Namespace: act.Namespace, Function: act.Function, Activation: act}, nil
	}
	w, werr := s.cfg.Dispatcher.Standing(ctx, namespace, id)
	switch {
	case werr != nil && faas.CodeOf(werr) == faas.NotFound:
		return nil, cmp.Or(err, werr) // err says that there is none
	case werr != nil:
		return nil, werr
	}
	if since, err := s.ofThis(namespace, time.Time{}); err != nil || w.Queued.Before(since) {
		// It was left with an older namespace of the same name, which had other keepers.
		return nil, faas.Errorf(faas.NotFound, "look up activation", "there is no activation %q in namespace %q", id, namespace)
	}
	rec := &Record{
		ID: id, Namespace: namespace, Function: w.Function.Path(), Stage: w.Stage, Attempt: w.Attempt, Queued: w.Queued.UTC(),
		Priority: w.Priority, Key: w.Key, Order: w.Order, Activation: act,
	}
	if !rec.final() {
		rec.Last = w.Error
		if !w.Due.IsZero() {
			rec.Due = w.Due.UTC()
		}
		return rec, nil
	}
	if act == nil {
		// It ended between the two looks.
		if rec.Activation, err = s.activation(ctx, in); err != nil && faas.CodeOf(err) != faas.NotFound {
			return nil, err
		}
		rec.Last = w.Error
	}
	return rec, nil
}

func (s *Server) standingRoutes() {
	manage(s, accessNamespace, operation("get-activation", http.MethodGet, inNamespace+"/activations/{id}", "Look up what happened, with its logs, or where a call stands that waits", "records"), func(ctx context.Context, in *struct {
		NamespacePath
		ID   string `path:"id"`
		Wait int    `query:"wait" minimum:"0" maximum:"300" doc:"Seconds to wait for the end of a call whose caller did not wait; then it is answered as it stands"`
	}) (Record, error) {
		id, err := faas.ParseID(in.ID)
		if err != nil {
			return Record{}, err
		}
		rec, err := s.await(ctx, in.Namespace, id, time.Duration(in.Wait)*time.Second)
		if err != nil {
			return Record{}, err
		}
		return *rec, nil
	})
	cancel := operation("cancel-activation", http.MethodDelete, inNamespace+"/activations/{id}", "Cancel a call whose caller does not wait, in the queue or while it runs", "records")
	manage(s, accessNamespace, cancel, func(ctx context.Context, in *activationPath) (Record, error) {
		id, err := faas.ParseID(in.ID)
		if err != nil {
			return Record{}, err
		}
		before, err := s.record(ctx, in.Namespace, id)
		if err != nil {
			return Record{}, err
		}
		if before.Stage == "" {
			return Record{}, faas.Errorf(faas.Conflict, "cancel call", "the call has ended: %s", before.Outcome)
		}
		if err := s.cfg.Dispatcher.Cancel(ctx, in.Namespace, id); err != nil {
			return Record{}, err
		}
		rec, err := s.await(ctx, in.Namespace, id, time.Second)
		if err != nil {
			return Record{}, err
		}
		return *rec, nil
	})
	op := operation("get-result", http.MethodGet, inNamespace+"/activations/{id}/result", "Read the answer of a call whose caller did not wait, as the function gave it", "records")
	op.Description = "The function's own status, headers and body, as if the caller had waited; what went wrong if it failed. Of a body over 256 KiB the beginning was kept, and the header " + HeaderCut + " says how long it was. Before the call has ended: 409."
	op.Parameters = []*huma.Param{query("wait", huma.TypeInteger, "Seconds to wait for its end, up to "+strconv.Itoa(longestWait))}
	op.Responses = map[string]*huma.Response{
		"200":     {Description: "The function's own answer; it may have another status", Content: map[string]*huma.MediaType{"*/*": {}}},
		"default": s.json(reflect.TypeFor[refusal](), "What went wrong, or the function's own answer"),
	}
	op.Responses["default"].Content["*/*"] = &huma.MediaType{}
	s.raw(accessNamespace, op, s.result)
}

// result answers with what a function answered when nobody waited.
func (s *Server) result(w http.ResponseWriter, r *http.Request, _ Caller) error {
	id, err := faas.ParseID(r.PathValue("id"))
	if err != nil {
		return err
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return faas.Errorf(faas.Invalid, "read query", "the query is not well formed")
	}
	seconds := 0
	if v, said := values["wait"]; said {
		if seconds, err = strconv.Atoi(v[0]); err != nil || seconds < 0 || seconds > longestWait || len(v) > 1 {
			return faas.Errorf(faas.Invalid, "read query", "wait is %.40q; it is a number of seconds from 0 to %d", v[0], longestWait)
		}
	}
	rec, err := s.await(r.Context(), r.PathValue("namespace"), id, time.Duration(seconds)*time.Second)
	if err != nil {
		return err
	}
	const op = "read result"
	switch {
	case rec.Stage == "":
		return faas.Errorf(faas.NotFound, op, "the caller of %s waited for its answer, which is not kept", id).
			WithFix("brasa inv get %s shows its record", id)
	case !rec.final():
		return faas.Errorf(faas.Conflict, op, "the call has not ended: it is %s", rec.Stage).WithFix("ask with ?wait=60, or: brasa inv wait %s", id)
	}
	return s.answerKept(w, r, rec)
}

// answerKept gives an answer back that was kept, or what went wrong instead.
func (s *Server) answerKept(w http.ResponseWriter, r *http.Request, rec *Record) error {
	const op = "read result"
	a := rec.Activation
	functionHeaders(w.Header(), rec.ID, faas.OK)
	fail := func(err *faas.Error) error {
		w.Header().Set(HeaderOutcome, err.Code.String())
		return err
	}
	switch {
	case a == nil || a.Outcome == faas.OK && a.Answer == nil:
		if rec.Stage == faas.StageDead {
			return fail(faas.Errorf(faas.Failed, op, "the call was given up: %s", rec.Last))
		}
		return fail(faas.Errorf(faas.NotFound, op, "the record of %s is not kept any more", rec.ID))
	case a.Answer == nil:
		return fail(failureOf(a))
	}
	w.Header().Set(HeaderOutcome, a.Outcome.String())
	w.Header().Set(HeaderStart, string(a.Start))
	w.Header().Set("Content-Security-Policy", "sandbox") // it is a stranger's page at our address
	if a.Answer.Cut {
		w.Header().Set(HeaderCut, strconv.FormatInt(int64(a.Answer.Bytes), 10))
	}
	return stream(w, r, resultOf(a))
}

// failureOf returns what went wrong as the caller would have been told.
func failureOf(a *faas.Activation) *faas.Error {
	return &faas.Error{Code: a.Outcome, Err: errors.New(a.Error), Trace: a.Trace}
}

// resultOf returns the answer that an activation keeps.
func resultOf(a *faas.Activation) *faas.Result {
	h := make(map[string][]string, len(a.Answer.Header))
	for k, v := range a.Answer.Header {
		if k != "Content-Length" { // of the whole; what is kept is counted
			h[k] = v
		}
	}
	return &faas.Result{Status: a.Answer.Status, Header: h, Body: faas.NewBytesBody(a.Answer.Body)}
}

// reply makes the envelope's content of an activation.
func (s *Server) replyKept(w http.ResponseWriter, a *faas.Activation, logs bool) error {
	if a.Outcome != faas.OK {
		return failureOf(a)
	}
	inv := &faas.Invocation{ID: a.ID, Timing: a.Timing, Report: faas.Report{
		Start: a.Start, Memory: a.Memory, CPU: time.Duration(a.CPUMicros) * time.Microsecond, Logs: a.Logs, LogTruncated: a.LogTruncated,
	}}
	return s.envelop(w, inv, resultOf(a), logs)
}
