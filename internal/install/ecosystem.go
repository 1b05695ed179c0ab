package install

import (
	"context"
	"io/fs"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// Ecosystem is one way of naming and getting dependencies: pip's, npm's, Go's modules. It says what
// is to be run; the Installer runs it confined, once for all who want the same, and keeps what comes
// of it. Its methods may be called from several goroutines.
type Ecosystem interface {
	// Name is what people call it, such as "npm".
	Name() string
	// Find looks for a manifest in the code and returns nil if there is none, or none that names
	// anything. It reads the files that decide what is installed and nothing else.
	Find(code fs.FS, plan *runtimes.Plan, opt Options) (*Manifest, error)
	// Plan says how what the manifest names is got. Its error is Unavailable and says what to
	// install where this machine has no tool for it. It is asked for each deploy, also if the layer
	// is there already, so what it finds out about tools it remembers.
	Plan(ctx context.Context, m *Manifest, opt Options) (*Job, error)
}

// Explainer is an Ecosystem that can tell what went wrong from what its tool wrote.
type Explainer interface {
	// Explain returns nil where the output says nothing that it knows. Code Invalid is for what the
	// caller must mend; Op, Trace and where the log is are added to what it leaves empty.
	Explain(m *Manifest, output string) *faas.Error
}

// Reviewer is an Ecosystem that may refuse what its tool has installed, for what the tool wrote.
type Reviewer interface {
	// Review is asked after each step that succeeded. It returns nil where nothing is wrong, else an
	// error as Explain does.
	Review(m *Manifest, output string) *faas.Error
}

// Options are what a function asks of its dependencies' installation.
type Options struct {
	With    []string // packages that are named beside the code, as their ecosystem writes them
	Scripts bool     // code of packages may run while they are installed
	Strict  bool     // nothing is installed of which the lock has no hash
}

// Manifest is what names dependencies.
type Manifest struct {
	Ecosystem string
	Files     map[string][]byte // by path; all that decides what is installed. They may be the code's own, or what was taken out of these
	From      string            // the file that names them, for people; empty: the one of Files with the shortest name
	Lock      string            // the name of the lock that pins versions; empty: none does
	Runtime   string            // version that the packages are for, such as "3.11"
	Verified  bool              // the lock has a hash of each package from a public registry, so what comes of it is the same for all
	Program   bool              // the packages are for a program that finds them by its environment alone
	Note      string            // why this manifest was taken and not another, for people; empty: there was one
}

// Job is how a layer is made. Its steps run one after the other, each in a sandbox of its own that
// sees the host's system and tools, the mounts named here, and the manifest's files read-only at
// /src. It writes to Target, and to /scratch, which is HOME and TMPDIR, goes from step to step, and is
// thrown away at the end.
type Job struct {
	Tool   string            // and its version: part of the layer's key
	Origin string            // where packages come from if that is not the public registry, without credentials: part of the key
	Files  map[string][]byte // put at /src beside the manifest's files, such as a constraint or a configuration; never a credential
	Mounts []sandbox.Mount   // of the tool, where it is not part of the host's system
	Access Access            // for the steps with Network
	Steps  []JobStep
	// Target is where the layer is seen, while it is made and when it is used. What a build step of
	// the code needs and a call does not, such as the source of Go modules, has BuildOnly set.
	Target    string
	BuildOnly bool
	Env       map[string]string // of a process that uses the layer
	// Packages lists what a finished layer holds, with sizes; dir is the layer. nil: nothing is told.
	Packages func(dir string) ([]Package, error)
}

// JobStep is one program's run.
type JobStep struct {
	Name    string   // what it does, for people: "download", "compile"
	Args    []string // the program's absolute path first
	Env     []string // besides PATH, HOME, TMPDIR and LANG
	Dir     string   // where it starts; empty: /src
	Network bool     // it may reach the registries, and has Job.Access
	Open    bool     // it has a way out and nothing of Job.Access: for what code of packages does
	// Takes, if not nil, are all the files below /scratch that it finds of what the steps before have
	// written, there and in the target. A step with Network behind one that runs the function's or
	// packages' code has it, since what tools look for in their home and their target is code too.
	Takes []string
}

// Access is how a tool gets at its registries: addresses, credentials, what certificates are
// trusted. Steps without Network, the layer and the function see nothing of it, and it is no part of
// the layer's key.
type Access struct {
	Env    []string
	Files  map[string][]byte // at AccessDir, readable by the step
	Mounts []sandbox.Mount   // directories of the host that serve as a registry
}

// Places in the sandbox of a step.
const (
	SourceDir = "/src"     // the manifest's files, read-only
	WorkDir   = "/scratch" // scratch
	AccessDir = "/access"  // Access.Files
	ToolDir   = "/tools"   // programs that are not part of the host's system
)

// Package is one installed package.
type Package struct {
	Name    string     `json:"name"`
	Version string     `json:"version"`
	Bytes   faas.Bytes `json:"bytes"`
}
