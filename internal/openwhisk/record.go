package openwhisk

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// keyValue is a parameter or an annotation.
type keyValue struct {
	Key   string `json:"key"`
	Value any    `json:"value"`
}

// note is what a record of a call keeps of the action as it was, since the action may be another by
// the time somebody looks.
type note struct {
	Namespace string          `json:"namespace,omitempty"` // of the invoker, as OpenWhisk calls it
	Name      string          `json:"name"`
	Version   string          `json:"version"`
	Path      string          `json:"path,omitempty"` // ns/[pkg/]name of the action itself
	Kind      string          `json:"kind,omitempty"`
	Binding   string          `json:"binding,omitempty"` // ns/name
	Limits    json.RawMessage `json:"limits,omitempty"`
	Part      bool            `json:"part,omitempty"`      // of a sequence or a conductor
	Conductor bool            `json:"conductor,omitempty"` // its action is one
	Sequence  bool            `json:"sequence,omitempty"`  // its action is a sequence
	Trigger   bool            `json:"trigger,omitempty"`   // a trigger's
}

// unlogged says that the action's limit of logs is 0: nothing is kept of what it writes, nor said about
// that.
func (n *note) unlogged() bool {
	var limits struct {
		Logs *int64 `json:"logs"`
	}
	return !n.Trigger && json.Unmarshal(n.Limits, &limits) == nil && limits.Logs != nil && *limits.Logs == 0
}

// Words for how a call ended.
const (
	statusSuccess   = "success"
	statusAppError  = "application error"
	statusDevError  = "action developer error"
	statusSysError  = "whisk internal error"
	applicationCode = 502 // with which a function of OpenWhisk's contract answers that returned an error
)

// response is how a call ended, as a record has it.
type response struct {
	Status     string          `json:"status"`
	StatusCode int             `json:"-"` // lists have it, and nothing else
	Success    bool            `json:"success"`
	Result     json.RawMessage `json:"result"`
	Size       int             `json:"size,omitempty"`
}

// activation is a record. In lists it has no response and no logs, but a status code.
type activation struct {
	Namespace    string     `json:"namespace"`
	Name         string     `json:"name"`
	Version      string     `json:"version"`
	Subject      string     `json:"subject,omitempty"`
	ActivationID string     `json:"activationId"`
	Start        int64      `json:"start"`
	End          *int64     `json:"end,omitempty"`
	Duration     *int64     `json:"duration,omitempty"`
	Cause        string     `json:"cause,omitempty"`
	StatusCode   *int       `json:"statusCode,omitempty"`
	Response     *response  `json:"response,omitempty"`
	Logs         *[]string  `json:"logs,omitempty"`
	Annotations  []keyValue `json:"annotations"`
	Publish      bool       `json:"publish"`
}

// noteOf reads what was kept with a record; of a call that came another way it is made up from the
// record.
func noteOf(a *faas.Activation) note {
	var n note
	if len(a.Note) > 0 && json.Unmarshal(a.Note, &n) == nil && n.Name != "" {
		return n
	}
	n.Name = a.Function
	if i := strings.LastIndexByte(n.Name, '/'); i >= 0 {
		n.Name = n.Name[i+1:]
	}
	n.Version, n.Path, n.Kind = "0.0.1", a.Namespace+"/"+a.Function, a.Runtime
	if strings.HasPrefix(a.Function, "/") {
		n.Path = a.Function[1:]
	}
	n.Sequence = a.Runtime == faas.RuntimeSequence
	return n
}

// responseOf says how a call ended.
func responseOf(a *faas.Activation, most faas.Bytes) response {
	var body []byte
	if a.Answer != nil {
		body = a.Answer.Body
	}
	fail := func(status string, code int, message string) response {
		b, err := json.Marshal(map[string]string{"error": message})
		if err != nil { // not possible: it is a string
			b = []byte("{}")
		}
		return response{Status: status, StatusCode: code, Result: b}
	}
	switch {
	case a.Outcome == faas.OK || a.Outcome.Fault() == "function" && a.Answer != nil && a.Answer.Status == applicationCode:
		switch {
		case a.Answer == nil:
			return response{Status: statusSuccess, Success: true, Result: json.RawMessage("{}")}
		case a.Answer.Cut || a.Answer.Bytes > most:
			return overLong(int64(a.Answer.Bytes), int64(most), body)
		case !json.Valid(body):
			// A function of another contract: what it answered, as text.
			b, err := json.Marshal(map[string]string{"body": string(body)})
			if err != nil {
				b = []byte("{}")
			}
			return response{Status: statusSuccess, Success: true, Result: b, Size: len(b)}
		}
		r := response{Status: statusSuccess, Success: true, Result: body, Size: len(body)}
		if a.Answer.Status == applicationCode || errorField(body) != nil {
			r.Status, r.StatusCode, r.Success = statusAppError, 1, false
		}
		return r
	case a.Outcome == faas.TooLarge:
		return fail(statusAppError, 1, a.Error)
	case a.Outcome.Fault() == "function":
		return fail(statusDevError, 2, a.Error)
	case a.Outcome.Fault() == "caller" && a.Outcome != faas.Canceled: // no caller here ends a call: the operator did
		return fail(statusAppError, 1, a.Error)
	}
	return fail(statusSysError, 3, a.Error)
}

// overLong is the outcome of a call whose result is larger than results may be.
func overLong(actual, allowed int64, first []byte) response {
	const shown = 1000
	b, err := json.Marshal(map[string]string{"error": fmt.Sprintf(
		"The action produced a response that exceeded the allowed length: %d > %d bytes. The truncated response was: %s", actual, allowed, strings.ToValidUTF8(string(first[:min(len(first), shown)]), "�"),
	)})
	if err != nil {
		b = []byte("{}")
	}
	return response{Status: statusAppError, StatusCode: 1, Result: b}
}

// errorField returns the field "error" of a JSON object; nil if there is none.
func errorField(b []byte) json.RawMessage {
	var object map[string]json.RawMessage
	if json.Unmarshal(b, &object) != nil {
		return nil
	}
	return object["error"]
}

// times are those that a record tells, in milliseconds.
type times struct {
	start, end, duration, wait, init int64
	cold                             bool
}

func timesOf(a *faas.Activation) times {
	get := func(phases ...faas.Phase) (d time.Duration, any bool) {
		for _, p := range phases {
			took, seen := a.Timing.Get(p)
			d, any = d+took, any || seen
		}
		return d, any
	}
	wait, _ := get(faas.PhaseResolve, faas.PhaseQueue, faas.PhaseProvisioning)
	init, booted := get(faas.PhaseRuntimeLoad, faas.PhaseDependencies, faas.PhaseCodeLoad)
	run, _ := get(faas.PhaseExecution, faas.PhaseReturn)
	if run == 0 {
		run = max(a.Timing.Total-wait-init, 0)
	}
	t := times{start: a.Timing.Begin.Add(wait).UnixMilli(), wait: wait.Milliseconds(), cold: booted && a.Start != faas.StartWarm}
	if t.cold {
		t.init = max(init.Milliseconds(), 1)
	}
	t.duration = max((init + run).Milliseconds(), t.init)
	t.end = t.start + t.duration
	if len(a.Steps) > 0 { // of which some waited; the duration is the sum of theirs
		t.start = a.Timing.Begin.UnixMilli()
		t.end = t.start + max(a.Timing.Total.Milliseconds(), t.duration)
	}
	return t
}

// annotationsOf are those of a call's record.
func annotationsOf(a *faas.Activation, n *note, t times) []keyValue {
	if n.Trigger {
		return []keyValue{}
	}
	kind := n.Kind
	if n.Conductor && len(a.Steps) > 0 { // it is all that the conductor led to
		kind = kindSequence
	}
	all := []keyValue{{"path", n.Path}, {"kind", kind}}
	if len(n.Limits) > 0 {
		all = append(all, keyValue{"limits", n.Limits})
	}
	if n.Part {
		all = append(all, keyValue{"causedBy", "sequence"})
	}
	if n.Binding != "" {
		all = append(all, keyValue{"binding", n.Binding})
	}
	if n.Conductor {
		all = append(all, keyValue{"conductor", true})
	}
	if n.Sequence || n.Conductor && len(a.Steps) > 0 {
		all = append(all, keyValue{"topmost", !n.Part})
	} else {
		all = append(all, keyValue{"waitTime", t.wait})
		if t.cold {
			all = append(all, keyValue{"initTime", t.init})
		}
	}
	return append(all, keyValue{"timeout", a.Outcome == faas.Timeout})
}

// record is a call as clients see it.
func (s *Server) record(a *faas.Activation, withLogs bool) *activation {
	return recordOf(a, responseOf(a, s.cfg.Limits.Payload), withLogs)
}

// recordOf is a call that ended so as clients see it. withLogs is false for the answer to a blocking call, which
// has none, and for lists.
func recordOf(a *faas.Activation, r response, withLogs bool) *activation {
	n := noteOf(a)
	t := timesOf(a)
	logs := []string{}
	if withLogs {
		logs = logsOf(a, &n, r.StatusCode == 2)
	}
	out := &activation{
		Namespace: n.Namespace, Name: n.Name, Version: n.Version, Subject: a.Subject, ActivationID: string(a.ID), Start: t.start, Cause: string(a.Cause),
		Response: &r, Logs: &logs, Annotations: annotationsOf(a, &n, t),
	}
	if out.Namespace == "" {
		out.Namespace = a.Namespace
	}
	if !n.Trigger {
		out.End, out.Duration = &t.end, &t.duration
	}
	return out
}

// summary is a call as lists show it.
func (s *Server) summary(a *faas.Activation) *activation {
	full := s.record(a, false)
	full.StatusCode, full.Response, full.Logs, full.Subject = &full.Response.StatusCode, nil, nil, ""
	return full
}

// logTime is how lines of logs begin.
const logTime = "2006-01-02T15:04:05.000000000Z"

// logsOf are the lines of a record: of a sequence the IDs of its calls, of a trigger what became of its
// rules, else what the action wrote. mayMiss says that there may be more than was kept.
func logsOf(a *faas.Activation, n *note, mayMiss bool) []string {
	out := []string{}
	if len(a.Steps) > 0 {
		for _, step := range a.Steps {
			out = append(out, string(step.ID))
		}
		return out
	}
	if n.Sequence || n.unlogged() { // a sequence that called nothing
		return out
	}
	last := a.Timing.Begin
	for _, l := range a.Logs {
		if n.Trigger {
			out = append(out, l.Text)
			continue
		}
		stream := l.Stream
		if stream != "stdout" && stream != "stderr" {
			continue // the platform's own, which OpenWhisk's clients don't expect
		}
		out = append(out, fmt.Sprintf("%-30s %s: %s", l.Time.UTC().Format(logTime), stream, l.Text))
		last = l.Time
	}
	at := fmt.Sprintf("%-30s", last.UTC().Format(logTime))
	if a.LogTruncated {
		out = append(out, at+" stderr: Logs were truncated because the total bytes size exceeds the limit.")
	}
	if mayMiss && !n.Trigger {
		out = append(out, at+" stderr: The action did not initialize or run as expected. Log data might be missing.")
	}
	return out
}
