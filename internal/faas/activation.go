package faas

import (
	"encoding/json"
	"time"
)

// Start says how an instance came to serve a call.
type Start string

// Starts.
const (
	StartCold      Start = "cold"      // a sandbox was made and the runtime booted for this call
	StartForked    Start = "forked"    // forked from a zygote or template
	StartPrewarmed Start = "prewarmed" // the sandbox was ready, the code was loaded for this call
	StartRestored  Start = "restored"  // rewound or restored from a snapshot
	StartWarm      Start = "warm"      // the instance was idle with the code loaded
)

// LogLine is one line that a function wrote.
type LogLine struct {
	Time   time.Time `json:"time"`
	Stream string    `json:"stream" enum:"stdout,stderr,platform" doc:"Where it was written; platform lines are ours"`
	Text   string    `json:"text" doc:"The line without its end"`
}

// Activation is the durable record of a finished invocation.
type Activation struct {
	ID           ID         `json:"id"`
	Cause        ID         `json:"cause,omitempty"`
	Namespace    string     `json:"namespace"`
	Function     string     `json:"function"` // package/function inside the namespace; "" for ad-hoc code
	Revision     RevisionID `json:"revision"`
	Runtime      string     `json:"runtime"`
	Kind         Kind       `json:"kind"`
	Subject      string     `json:"subject,omitempty"`
	Outcome      Code       `json:"outcome"`
	Fault        string     `json:"fault,omitempty"`  // who can mend it: caller, function, platform
	Error        string     `json:"error,omitempty"`  // the message, in one line or a few
	Trace        string     `json:"trace,omitempty"`  // the function's own stack trace
	Status       int        `json:"status,omitempty"` // of the answer, as HTTP counts
	Start        Start      `json:"start,omitempty"`
	Node         string     `json:"node,omitempty"`
	Instance     string     `json:"instance,omitempty"`
	Timing       Timing     `json:"timing"`
	Code         []Tree     `json:"code,omitempty"`    // what its instance was made with, if that was made for it
	Memory       Bytes      `json:"memory_peak_bytes"` // of the instance during the call, from its cgroup
	CPUMicros    int64      `json:"cpu_us"`            // of the instance during the call, from its cgroup
	Request      Bytes      `json:"request_bytes"`
	Response     Bytes      `json:"response_bytes"`
	Logs         []LogLine  `json:"logs,omitempty"`
	LogTruncated bool       `json:"log_truncated,omitempty"` // lines over the limit were dropped
	// Note is what the dialect that made the call wants to find again.
	Note  json.RawMessage `json:"note,omitempty"`
	Steps []SequenceStep  `json:"steps,omitempty"` // of a sequence: its calls, each of which has an activation of its own
	// Of a call whose caller does not wait. Its last attempt has the call's ID; those before have IDs of
	// their own, with the call as their Cause.
	Attempt int     `json:"attempt,omitempty"` // 1 for the first
	Interim bool    `json:"interim,omitempty"` // another attempt follows
	Answer  *Answer `json:"answer,omitempty"`
}

// MaxAnswer is how much of an answer's body is kept that nobody waited for.
const MaxAnswer = 256 * KiB

// Answer is what a function answered when nobody waited for it.
type Answer struct {
	Status int                 `json:"status"`
	Header map[string][]string `json:"header,omitempty"`
	Body   []byte              `json:"body,omitempty"` // its first MaxAnswer bytes; left out in lists if it is long
	Bytes  Bytes               `json:"bytes"`          // of the whole body, or of what was read of it if Cut
	Cut    bool                `json:"cut,omitempty"`  // Body is not all of it
}

// Cold says whether the call waited for an instance to be made for it, or for a process that stood
// ready to load the code, whatever that was made from. Start alone does not tell: an instance that was
// made ahead with the code loaded is prewarmed too.
func (a *Activation) Cold() bool {
	for _, p := range []Phase{PhaseSpawn, PhaseRuntimeLoad, PhaseCodeLoad} {
		if _, made := a.Timing.Get(p); made {
			return true
		}
	}
	return false
}
