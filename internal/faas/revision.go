package faas

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"
)

// Network says what an instance can reach.
type Network string

// Networks.
const (
	NetworkNone   Network = "none"   // its own loopback and nothing else
	NetworkEgress Network = "egress" // the outside through a filter, and of the host this server's API alone; never link-local addresses or other sandboxes
)

// Reuse says whom the process of an instance may serve after a call.
type Reuse string

// Reuses.
const (
	ReuseFunction Reuse = "function" // the calls of one revision, one after the other
	ReuseTenant   Reuse = "tenant"   // rewound, also other functions of the same runtime and namespace
	ReuseAny      Reuse = "any"      // rewound, also those of other namespaces, where an administrator allows it
	ReuseNever    Reuse = "never"    // nobody: the whole process tree is killed after each answer
)

// State says what a call finds of those before it.
type State string

// States.
const (
	StateKept     State = "kept"     // what they have left in the process, in /tmp and in what runs in the background
	StatePristine State = "pristine" // nothing: the process is as it was just after load
)

// AdHoc is what code that is run once is called where a name is needed. No function has it: their
// names don't begin with a dash.
const AdHoc = "-"

// Revision is one immutable, runnable version of a function. It holds no secret's value, only
// the names of those that are put into its environment.
type Revision struct {
	ID        RevisionID        `json:"id"`
	Name      Name              `json:"name"`
	Runtime   string            `json:"runtime"`           // python, node, go, java, wasm, exec, lines, http
	Version   string            `json:"version,omitempty"` // of the runtime, as found when it was deployed: "3.11.7"
	Entry     string            `json:"entry,omitempty"`   // file in the code, slash-separated
	Handler   string            `json:"handler,omitempty"` // name in the entry; empty: the contract's default names are tried
	Command   []string          `json:"command,omitempty"` // for exec, lines and http, instead of running Entry
	Code      Digest            `json:"code"`              // the unpacked tree that is mounted at /code
	Source    Digest            `json:"source,omitempty"`  // the archive as it was sent, if Code was built from it
	Env       map[string]string `json:"env,omitempty"`
	Secrets   []string          `json:"secrets,omitempty"` // names in the namespace, each an environment variable of that name
	Limits    Limits            `json:"limits"`
	Network   Network           `json:"network"`
	Reuse     Reuse             `json:"reuse,omitempty"` // empty: ReuseFunction
	State     State             `json:"state,omitempty"` // empty: StateKept
	CodeBytes Bytes             `json:"code_bytes"`
	Contract  string            `json:"contract,omitempty"` // what the code expects of its caller; empty: ContractNative
	// Params are put beneath the fields of an input that is a JSON object.
	Params map[string]json.RawMessage `json:"params,omitempty"`
	// Broken says why it can't be run, where it was published all the same: each call fails with that.
	Broken   string    `json:"broken,omitempty"`
	Origin   *Origin   `json:"origin,omitempty"`
	Layers   []Layer   `json:"layers,omitempty"`   // of dependencies, each mounted read-only
	Image    *Image    `json:"image,omitempty"`    // its root instead of the host's
	Sequence *Sequence `json:"sequence,omitempty"` // what it calls; it has no code then
	// Conductor has its answer name the function that is called next: {"action": NAME, "params": …,
	// "state": …}.
	Conductor bool         `json:"conductor,omitempty"`
	Async     *Async       `json:"async,omitempty"` // for calls whose caller does not wait; nil: the defaults
	Warm      []WarmWindow `json:"warm,omitempty"`  // when instances stand ready by the clock
	Created   time.Time    `json:"created"`
}

// WarmWindow is a time that comes again, in which instances of a function stand ready whether
// anybody calls or not.
type WarmWindow struct {
	At        string   `json:"at" doc:"When it begins, as cron writes it: 0 8 * * MON-FRI"`
	Zone      string   `json:"zone,omitempty" doc:"Time zone of At, such as Europe/Berlin; UTC when left out"`
	For       Duration `json:"for_ms" doc:"For how long, in milliseconds"`
	Instances int      `json:"instances,omitempty" doc:"How many; 1 when left out"`
}

// Layer is a directory that functions share, such as what a lock file names.
type Layer struct {
	Digest Digest `json:"digest"` // of the tree
	Target string `json:"target"` // absolute path where the process sees it
	Bytes  Bytes  `json:"bytes"`
}

// Image is what of an OCI image decides how it runs.
type Image struct {
	Reference string   `json:"reference,omitempty"` // as it was named; says where it came from and no more
	Manifest  Digest   `json:"manifest"`            // of the image's manifest for this platform
	Root      Digest   `json:"root"`                // of the unpacked tree
	Dir       string   `json:"dir,omitempty"`       // working directory; empty: /
	Env       []string `json:"env,omitempty"`       // as the image sets it, below that of the function
	Port      int      `json:"port,omitempty"`      // where its server listens, if it does
	Bytes     Bytes    `json:"bytes,omitempty"`     // of the unpacked tree
}

// Digest computes the ID: the SHA-256 of the revision's JSON without ID and Created, so that the
// same code deployed twice with the same settings is the same revision.
func (r *Revision) Digest() RevisionID {
	c := *r
	c.ID, c.Created = "", time.Time{}
	b, err := json.Marshal(c) // map keys are sorted by encoding/json
	if err != nil {
		panic(err) // no field can fail to marshal
	}
	sum := sha256.Sum256(b)
	return RevisionID(hex.EncodeToString(sum[:]))
}
