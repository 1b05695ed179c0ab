package faas

import (
	"bytes"
	"encoding/json"
	"io"
	"time"
)

// Kind says through which door an invocation came, which decides how its answer is encoded and
// nothing else.
type Kind string

// Kinds.
const (
	KindInvoke Kind = "invoke" // by name, with an input
	KindHTTP   Kind = "http"   // a request to the function's own URL
	KindRun    Kind = "run"    // by the code itself; nothing is deployed
	KindProof  Kind = "proof"  // a deploy starts the revision once; no handler runs
	// KindDeliver tells a web hook of an outcome: Path is its URL, Cause the call, Function whose call it
	// was. No function runs.
	KindDeliver Kind = "deliver"
	// KindInstance marks lines that an instance wrote and that belong to no single call: between
	// calls, or while it served several. They are kept as a record of their own.
	KindInstance Kind = "instance"
)

// Invocation is one request to run a function, in flight.
type Invocation struct {
	ID       ID
	Function Ref
	Subject  string // who asked, as auth found out; empty for a public URL
	Cause    ID     // the invocation that led to this one; empty if none
	Kind     Kind
	Method   string              // for KindHTTP; else "POST"
	Path     string              // below the function's URL, with a leading slash
	Query    string              // raw, without the question mark
	Header   map[string][]string // canonical keys; the platform's own and hop-by-hop headers are already gone
	Body     io.Reader           // nil: none
	Length   int64               // of Body; -1: unknown
	Deadline time.Time           // of the whole call
	Attempt  int                 // 1 for the first
	Wait     *Wait               // how it waits, if its caller does not; nil: the caller waits
	Chain    *Chain              `json:"-"` // how it came about; nil: nothing led to it. Set by the dispatcher
	// Owner is the namespace whose record it is, where that is not the function's; empty: the function's.
	Owner string
	// Note is kept with the activation: what the dialect that made the call wants to find there again.
	Note json.RawMessage
	// Part says that it is a call of a sequence's or conductor's, its Cause.
	Part bool
	// Keep is how much of the answer's body the activation keeps although the caller waits; 0: nothing.
	Keep Bytes
	// Env is what the code finds in its environment during this call alone, where its contract has such a
	// thing. The dispatcher sets it when the call begins; it may hold secrets, and is kept nowhere.
	Env    map[string]string `json:"-"`
	Seed   string            `json:"-"` // fresh randomness for an instance that was rewound or handed on, 64 hex digits; empty: none; a secret
	Timing Timing
	Report Report // filled by whoever runs it; complete once the Result's body has ended or an error was returned
}

// Report is what the node that ran an invocation has to say about it, besides the answer.
type Report struct {
	Start        Start
	Node         string
	Instance     string
	Memory       Bytes         // peak of the instance during the call
	CPU          time.Duration // of the instance during the call
	Request      Bytes         // of the body that the function was sent
	Response     Bytes         // of the answer's body
	Logs         []LogLine
	Steps        []SequenceStep // of a sequence
	LogTruncated bool
}

// Result is a function's answer. Whoever gets it reads Body to its end or closes it; closing
// early tells the function that the caller went away.
type Result struct {
	Status int                 // of HTTP; 200 unless the function says otherwise
	Header map[string][]string // canonical keys
	// Body streams the answer. A Read that fails because the function failed in the middle of
	// its answer returns an *Error. With Status 101 it also implements io.Writer and is the
	// upgraded connection. It is never nil.
	Body io.ReadCloser
}

// BytesBody is a body that is complete in memory.
type BytesBody struct{ bytes.Reader }

// NewBytesBody returns a body of b, which it keeps.
func NewBytesBody(b []byte) *BytesBody {
	body := &BytesBody{}
	body.Reset(b)
	return body
}

// Close does nothing.
func (*BytesBody) Close() error { return nil }
