package api

import (
	"encoding/json"
	"time"

	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/faas"
)

// DefaultServer is where a server listens and a client looks unless told otherwise.
const DefaultServer = "http://127.0.0.1:8080"

// Headers of our own. None of them ever reaches a function from outside.
const (
	HeaderRequestID    = "Brasa-Request-Id"    // on every answer
	HeaderInvocationID = "Brasa-Invocation-Id" // on every answer of a call; the same id
	HeaderOutcome      = "Brasa-Outcome"       // on every answer of a call: a code's name
	HeaderStart        = "Brasa-Start"         // on the answers of raw calls: how the instance came to serve
	HeaderCause        = "Brasa-Cause"         // on a call: the id of the invocation that led to it
)

// Answer is the envelope of every answer that succeeded.
type Answer[T any] struct {
	OK   bool `json:"ok" enum:"true" doc:"Always true"`
	Data T    `json:"data"`
}

// Refusal is the envelope of every answer that did not succeed.
type Refusal struct {
	OK    bool   `json:"ok" enum:"false" doc:"Always false"`
	Fault *Fault `json:"error"`
}

// Fault says what went wrong and what to do about it.
type Fault struct {
	Code      string `json:"code" enum:"invalid,too_large,not_found,conflict,unauthenticated,denied,overloaded,canceled,failed,crashed,timeout,unavailable,internal" doc:"Who can mend it; decides the HTTP status"`
	Message   string `json:"message" doc:"What happened, for a person"`
	Hint      string `json:"hint,omitempty" doc:"What to do next, a command where there is one"`
	Limit     string `json:"limit,omitempty" doc:"The key of the limit that was broken"`
	Docs      string `json:"docs" doc:"The command that explains the code"`
	Trace     string `json:"trace,omitempty" doc:"The function's own stack trace"`
	RequestID string `json:"request_id" doc:"Of the request; of the invocation too, where there was one"`
}

// Done is the data of answers that have nothing to tell.
type Done struct{}

// Version says what the server is.
type Version struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go" doc:"The Go release it was built with"`
	API     string `json:"api" doc:"The version of this API"`
}

// Readiness is what load balancers ask for.
type Readiness struct {
	Ready bool   `json:"ready"`
	Why   string `json:"why,omitempty" doc:"What it is waiting for"`
}

// Whoami says who is asking.
type Whoami struct {
	KeyID      string   `json:"key_id"`
	Subject    string   `json:"subject"`
	Admin      bool     `json:"admin" doc:"May do everything in every namespace"`
	Namespaces []string `json:"namespaces" doc:"Those in which it may do everything; empty for an admin"`
}

// Namespace owns functions, secrets and keys.
type Namespace struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
}

// Namespaces is a list of them.
type Namespaces struct {
	Namespaces []Namespace `json:"namespaces"`
}

// NamespaceSpec asks for a namespace.
type NamespaceSpec struct {
	Name string `json:"name" doc:"Letters, digits, '_', '-' and '.', at most 63"`
}

// Key is an API key as it is kept. Its secret part is kept nowhere.
type Key struct {
	ID         string    `json:"id"`
	Subject    string    `json:"subject" doc:"Who it was made for"`
	Admin      bool      `json:"admin"`
	Namespaces []string  `json:"namespaces"`
	Created    time.Time `json:"created"`
}

// Keys is a list of them.
type Keys struct {
	Keys []Key `json:"keys"`
}

// KeySpec asks for a key.
type KeySpec struct {
	Subject string `json:"subject,omitempty" maxLength:"200" doc:"Who it is for; shown in lists and kept with each activation"`
}

// NewKey is a key at the one time its secret part is shown.
type NewKey struct {
	Key
	Secret string `json:"key" doc:"The whole key, shown this once; send it as: Authorization: Bearer KEY"`
}

// Runtime is a language that the server knows.
type Runtime struct {
	Name    string `json:"name" doc:"python, node, go, java, wasm, exec, lines, http"`
	Version string `json:"version,omitempty" doc:"As found on the server"`
	Ready   bool   `json:"ready" doc:"Functions of this language can run here"`
	Detail  string `json:"detail,omitempty" doc:"Where it was found, or why it is not ready"`
	Fix     string `json:"fix,omitempty" doc:"What to install"`
}

// Runtimes is a list of them.
type Runtimes struct {
	Runtimes []Runtime `json:"runtimes"`
}

// Check is one thing that the server needs or likes to have, and whether it has it.
type Check struct {
	Name     string `json:"name"`
	OK       bool   `json:"ok"`
	Required bool   `json:"required" doc:"Without it functions cannot run"`
	Detail   string `json:"detail,omitempty"`
	Lost     string `json:"lost,omitempty" doc:"What is lost without it"`
	Fix      string `json:"fix,omitempty"`
}

// Doctor is the server's own examination.
type Doctor struct {
	OK     bool    `json:"ok" doc:"Nothing that is required is missing"`
	Checks []Check `json:"checks"`
}

// Figures sum up the calls of one function over the last hour.
type Figures struct {
	Calls  int   `json:"calls"`
	Errors int   `json:"errors" doc:"Calls with another outcome than ok"`
	P50    int64 `json:"p50_us" doc:"Median of the total time in microseconds"`
	P95    int64 `json:"p95_us" doc:"95th percentile of the total time in microseconds"`
	Cold   int   `json:"cold" doc:"Calls that waited for an instance to be made, or for one that stood ready to load the code"`
}

// Summary is a function as it stands in a list.
type Summary struct {
	Name      string          `json:"name"`
	Namespace string          `json:"namespace"`
	Runtime   string          `json:"runtime"`
	Version   string          `json:"version,omitempty" doc:"Of the runtime"`
	Revision  faas.RevisionID `json:"revision" doc:"The active one"`
	Steps     []string        `json:"steps,omitempty" doc:"Of a sequence: the functions that it calls"`
	Public    bool            `json:"public" doc:"Its own URL may be called without a key"`
	URL       string          `json:"url" doc:"Its own URL"`
	Created   time.Time       `json:"created"`
	Updated   time.Time       `json:"updated"`
	Figures   Figures         `json:"last_hour"`
}

// Functions is a list of them.
type Functions struct {
	Functions []Summary `json:"functions"`
}

// Function is a function with all that decides how it runs.
type Function struct {
	Summary
	UID    string        `json:"uid" doc:"Made at creation; a name deleted and made again has another"`
	Active faas.Revision `json:"active" doc:"The active revision"`
}

// RevisionInfo is a revision as it stands in a list.
type RevisionInfo struct {
	Active bool `json:"active"`
	faas.Revision
}

// Revisions is a list of them, newest first.
type Revisions struct {
	Revisions []RevisionInfo `json:"revisions"`
}

// ActivateSpec says which revision is to be active.
type ActivateSpec struct {
	Revision string `json:"revision" minLength:"4" maxLength:"64" doc:"Its id, or the first digits of it"`
}

// Spec says how code is to be run. What is left out is found out from the code, or is the
// platform's default.
type Spec struct {
	Language string            `json:"language,omitempty" doc:"python, node, go, java, wasm, exec, lines, http, openwhisk, openfaas, lambda; found out from the code when left out"`
	Entry    string            `json:"entry,omitempty" doc:"File in the code that is run or loaded"`
	Handler  string            `json:"handler,omitempty" doc:"Name in the entry that is called"`
	Command  []string          `json:"command,omitempty" doc:"For exec, lines and http: what is run instead of the entry"`
	Env      map[string]string `json:"env,omitempty" doc:"Environment; visible to whoever may see the function, so no place for secrets"`
	Secrets  []string          `json:"secrets,omitempty" doc:"Names of the namespace's secrets, each put into the environment under its name"`
	Limits   *faas.Limits      `json:"limits,omitempty"`
	Network  string            `json:"network,omitempty" enum:"none,egress" doc:"none: nothing but its own loopback; egress: the outside through a filter"`
	Reuse    string            `json:"reuse,omitempty" enum:"function,tenant,any,never" doc:"Whom the process serves after a call: the same function; also others of its namespace and runtime, or of any namespace where the server allows it, each time put back to its clean state; or nobody, it is killed"`
	State    string            `json:"state,omitempty" enum:"kept,pristine" doc:"pristine: each call sees the process as it was just after the code was loaded"`
	Async    *faas.Async       `json:"async,omitempty" doc:"How calls are tried again whose caller does not wait, and where their outcomes go; see docs/async.md"`
	Warm     []faas.WarmWindow `json:"warm,omitempty" doc:"When instances stand ready by the clock; see docs/scaling.md"`
	Public   *bool             `json:"public,omitempty" doc:"Its own URL may be called without a key; left out: as it was, no for a new function"`

	Image string `json:"image,omitempty" maxLength:"1000" doc:"Name of an image that is the function's root, such as ghcr.io/owner/name:tag; of one in the archive, if the part image brings several"`

	With           []string `json:"with,omitempty" maxItems:"100" doc:"Packages to install besides those that the code's own manifest names"`
	InstallScripts bool     `json:"install_scripts,omitempty" doc:"Code of packages may run while they are installed"`
	Strict         bool     `json:"strict,omitempty" doc:"Nothing is installed of which the lock has no hash"`
	Conductor      bool     `json:"conductor,omitempty" doc:"Its answer names the function that is called next; see docs/functions.md"`
	Prefetch       bool     `json:"prefetch,omitempty" doc:"The deploy ends when all is laid out on the node and an instance is ready; of no meaning for code that is run once"`
}

// SourceSpec is a Spec with the code itself, for a single file of source.
type SourceSpec struct {
	Spec
	Code     string `json:"code,omitempty" doc:"The text of the file; may be left out with an image"`
	Filename string `json:"filename,omitempty" maxLength:"255" doc:"Its name; decides the language when that is left out"`
}

// Detected says what the code was taken to be, and why.
type Detected struct {
	Language string   `json:"language"`
	Version  string   `json:"version,omitempty"`
	Entry    string   `json:"entry,omitempty"`
	Handler  string   `json:"handler,omitempty"`
	Command  []string `json:"command,omitempty"`
	Why      string   `json:"why"`
	Lacks    string   `json:"lacks,omitempty" doc:"File that names dependencies which the code does not bring"`
}

// Step is one thing that a deploy did, with its time.
type Step struct {
	Name    string             `json:"name"`
	US      int64              `json:"us" doc:"Time in microseconds"`
	Install *deploy.Install    `json:"install,omitempty" doc:"What the step install came to"`
	Image   *deploy.TakenImage `json:"image,omitempty" doc:"What the step image came to"`
	Code    []faas.Tree        `json:"code,omitempty" doc:"What the step prefetch laid out, and where it was"`
}

// Outcome is what a deploy came to.
type Outcome struct {
	Function Function        `json:"function"`
	Revision faas.RevisionID `json:"revision"`
	Previous faas.RevisionID `json:"previous,omitempty" doc:"The revision that was active before"`
	Created  bool            `json:"created" doc:"The function did not exist before"`
	Same     bool            `json:"same" doc:"The revision was the active one already"`
	Detected Detected        `json:"detected"`
	Sent     faas.Bytes      `json:"sent_bytes" doc:"Size of what was sent"`
	Code     faas.Bytes      `json:"code_bytes" doc:"Size of the unpacked code"`
	Proof    faas.Proof      `json:"proof" doc:"What starting it once showed"`
	URL      string          `json:"url" doc:"The function's own URL"`
	Steps    []Step          `json:"steps"`
	TotalUS  int64           `json:"total_us"`
}

// RunSpec is ad-hoc code with its input; nothing is deployed.
type RunSpec struct {
	SourceSpec
	Input json.RawMessage `json:"input,omitempty" doc:"What the code is called with; any JSON value"`
}

// Reply is a function's answer in the envelope.
type Reply struct {
	ID           faas.ID         `json:"id" doc:"Of the invocation, and of the activation that records it"`
	Outcome      string          `json:"outcome" doc:"ok; failures are answered with the error envelope"`
	Status       int             `json:"status" doc:"That the function set, as HTTP counts"`
	ContentType  string          `json:"content_type,omitempty"`
	Encoding     string          `json:"encoding,omitempty" enum:"base64" doc:"base64: the result is a string of that, because it is not UTF-8"`
	Result       json.RawMessage `json:"result" doc:"A JSON value as the function returned it, or a string"`
	Start        faas.Start      `json:"start,omitempty" enum:"cold,forked,prewarmed,restored,warm" doc:"How the instance came to serve"`
	Timing       faas.Timing     `json:"timing"`
	Memory       faas.Bytes      `json:"memory_peak_bytes" doc:"Of the instance during the call, read at most once in 10 ms"`
	CPUMicros    int64           `json:"cpu_us" doc:"Of the instance during the call"`
	Logs         []faas.LogLine  `json:"logs,omitempty" doc:"What the function wrote during the call"`
	LogTruncated bool            `json:"log_truncated,omitempty" doc:"Lines over the limit were dropped"`
}

// Activations is a page of them, newest first, without their logs.
type Activations struct {
	Activations []faas.Activation `json:"activations"`
	Cursor      string            `json:"cursor,omitempty" doc:"Send it as cursor for the next page; absent on the last"`
}

// LogEntry is a line with the call it belongs to.
type LogEntry struct {
	Activation faas.ID   `json:"activation"`
	Function   string    `json:"function,omitempty" doc:"Empty for ad-hoc code"`
	Time       time.Time `json:"time"`
	Stream     string    `json:"stream" enum:"stdout,stderr,platform" doc:"Where it was written; platform lines are ours"`
	Text       string    `json:"text"`
}

// Logs is a page of lines, oldest first.
type Logs struct {
	Lines  []LogEntry `json:"lines"`
	Cursor string     `json:"cursor,omitempty" doc:"Send it as cursor for the calls before these"`
}

// Secret is a secret's name. Its value is never shown.
type Secret struct {
	Name    string    `json:"name"`
	Updated time.Time `json:"updated"`
	Epoch   uint64    `json:"epoch" doc:"Grows with each change; instances with an older one are replaced"`
}

// Secrets is a list of them.
type Secrets struct {
	Secrets []Secret `json:"secrets"`
}

// SecretSpec sets a secret.
type SecretSpec struct {
	Value string `json:"value" writeOnly:"true" doc:"At most 64 KiB" maxLength:"65536"`
}
