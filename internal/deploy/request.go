package deploy

import (
	"encoding/json"
	"io"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
)

// Request is what a person hands in to be run. Zero values mean: find out, or the default.
type Request struct {
	Name     faas.Name // for Stage only the namespace counts
	Code     io.Reader // an archive, one file of source, or an executable
	Filename string    // as the person named it: decides, with the content, what it is
	Language string    // python, node, go, java, wasm, exec, lines, http; empty: detect
	Entry    string
	Handler  string
	Command  []string
	Env      map[string]string
	Secrets  []string
	Limits   faas.Limits
	Network  faas.Network
	Reuse    faas.Reuse
	State    faas.State
	Async    *faas.Async       // of calls whose caller does not wait; nil: as the code says, or the defaults
	Warm     []faas.WarmWindow // when instances stand ready by the clock; nil: as the code says
	Public   *bool             // nil: leave as it is, false for a new function
	Install  install.Options
	Prefetch bool // lay all out on this machine and have an instance ready before the deploy ends
	// Contract is what the code expects of its caller: faas.ContractNative or another.
	Contract  string
	Params    map[string]json.RawMessage // put beneath the fields of each input
	Origin    *faas.Origin               // kept with the revision
	Conductor bool                       // its answer names the function that is called next
	// Unproved publishes the revision without starting it, and even if it can't be built: then each
	// call fails with what the build said. Platforms whose clients expect this need it.
	Unproved bool
	Image    *Source // its root is the function's, and Code may be nil; nil: the server's system is
}

// Step is one thing that a deploy did, with its time.
type Step struct {
	Name    string        `json:"name" doc:"unpack, image, detect, install, build, store, prove, prefetch, publish"`
	Took    time.Duration `json:"-"`
	US      int64         `json:"us" doc:"Time in microseconds"`
	Install *Install      `json:"install,omitempty" doc:"What the step install came to"`
	Image   *TakenImage   `json:"image,omitempty" doc:"What the step image came to"`
	Code    []faas.Tree   `json:"code,omitempty" doc:"What the step prefetch laid out, and where it was"`
}

// Install says what the dependencies of a function's code came to.
type Install struct {
	Manifest string            `json:"manifest" doc:"The file that names the packages"`
	Tool     string            `json:"tool" doc:"What installed them, with its version"`
	Cached   bool              `json:"cached" doc:"They were there already"`
	Bytes    faas.Bytes        `json:"bytes"`
	Count    int               `json:"count" doc:"How many packages there are"`
	Packages []install.Package `json:"packages,omitempty" doc:"The three heaviest"`
	Layer    faas.Digest       `json:"layer,omitempty" doc:"Digest of the tree they lie in; none if only the build needed it"`
	Note     string            `json:"note,omitempty"`
}

// Detected says what a deploy took the code to be, and why.
type Detected struct {
	Language string   `json:"language"`
	Version  string   `json:"version,omitempty"`
	Entry    string   `json:"entry,omitempty"`
	Handler  string   `json:"handler,omitempty"`
	Command  []string `json:"command,omitempty"`
	Why      string   `json:"why"`
	Lacks    string   `json:"lacks,omitempty" doc:"File that names dependencies which the code does not bring"`
}

// Outcome is what a deploy came to.
type Outcome struct {
	Function *faas.Function
	Revision *faas.Revision
	Created  bool // the function did not exist before
	Same     bool // the revision was the active one already
	Previous faas.RevisionID
	Detected Detected
	Sent     faas.Bytes // size of what was sent
	Proof    faas.Proof
	Steps    []Step
	Total    time.Duration

	prefetch bool // the code asks for it
}
