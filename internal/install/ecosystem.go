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
// of it.
type Ecosystem interface {
	// Name is what people call it, such as "npm".
	Name() string
	// Find looks for a manifest in the code and returns nil if there is none, or none that names
	// anything. It reads the files that decide what is installed and nothing else.
	Find(code fs.FS, plan *runtimes.Plan, opt Options) (*Manifest, error)
	// Plan says how what the manifest names is got. Its error is Unavailable and says what to
	// install where this machine has no tool for it.
	Plan(ctx context.Context, m *Manifest, opt Options) (*Job, error)
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
	Files     map[string][]byte // by path in the code; all that decides what is installed
	Lock      string            // the one of Files that pins versions; empty: none does
	Runtime   string            // version that the packages are for, such as "3.11"
	Verified  bool              // the lock has a hash of each package from a public registry, so what comes of it is the same for all
	Note      string            // why this manifest was taken and not another, for people; empty: there was one
}

// Job is how a layer is made. Its steps run one after the other, each in a sandbox of its own that
// sees the host's system and tools, the mounts named here, the manifest's files read-only at /src,
// and writes to Target alone.
type Job struct {
	Tool   string            // and its version: part of the layer's key
	Files  map[string][]byte // put at /src beside the manifest's files, such as a constraint or a configuration; never a credential
	Mounts []sandbox.Mount   // of the tool, where it is not part of the host's system
	Steps  []JobStep
	// Target is where the layer is seen, while it is made and when it is used. What a build step of
	// the code needs and a call does not, such as the source of Go modules, has BuildOnly set.
	Target    string
	BuildOnly bool
	Env       map[string]string // of a process that uses the layer
	// Packages lists what a finished layer holds, with sizes; dir is the layer.
	Packages func(dir string) ([]Package, error)
}

// JobStep is one program's run.
type JobStep struct {
	Args    []string
	Env     []string
	Network bool // it may reach the registries, and has the credentials for them
}

// Package is one installed package.
type Package struct {
	Name    string     `json:"name"`
	Version string     `json:"version"`
	Bytes   faas.Bytes `json:"bytes"`
}
