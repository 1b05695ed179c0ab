// Package image takes OCI images in and makes roots of them: a directory that a process has as its
// whole file system.
//
// An image comes from a registry, as an archive or as a layout directory. Whatever it comes from,
// every byte is compared with the digest that names it; its layers are applied one after the other
// inside one directory that nothing can be written outside of, within limits; and what comes of it is
// stored by its own digest in the depot. The same image again is neither fetched nor unpacked.
//
// What an image says of users, groups, devices, capabilities and set-user-ID bits is dropped: a sandbox
// has one user, who may read everything of it and write nothing.
//
// How an image is run is decided by packages deploy and worker, what is pushed to this server is kept
// by package registry.
package image

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/faas"
)

// Config says what a Store is made of. Zero means the default.
type Config struct {
	Depot *artifact.Depot
	Dir   string // where it is kept which root belongs to which image; made if absent
	// Registries are those that need more than their name, and those that may have private addresses.
	Registries Registries
	Limits     Limits
	// Local has the images that were pushed to this server; nil: none were.
	Local  Local
	Logger *slog.Logger
}

// Limits bound what an image may become. Zero means the default.
type Limits struct {
	Bytes   faas.Bytes `koanf:"bytes"`        // of all layers' files together, also of those that later layers replace; key image_bytes. Default 2 GiB
	Packed  faas.Bytes `koanf:"packed_bytes"` // of what is fetched or sent; key image_packed_bytes. Default 2 GiB
	File    faas.Bytes `koanf:"file_bytes"`   // of one file; key image_file_bytes. Default 1 GiB
	Entries int        `koanf:"entries"`      // files, directories and links of all layers; key image_entries. Default 300,000
	Layers  int        `koanf:"layers"`       // key image_layers. Default 128
	Ratio   int        `koanf:"ratio"`        // of a layer's bytes to its packed ones, once they are over 8 MiB; key image_ratio. Default 100
}

func (l *Limits) applyDefaults() {
	l.Bytes = cmp.Or(l.Bytes, 2*faas.GiB)
	l.Packed = cmp.Or(l.Packed, 2*faas.GiB)
	l.File = cmp.Or(l.File, 1*faas.GiB)
	l.Entries = cmp.Or(l.Entries, 300_000)
	l.Layers = cmp.Or(l.Layers, 128)
	l.Ratio = cmp.Or(l.Ratio, 100)
}

// Options say for whom an image is taken in, and how.
type Options struct {
	Namespace string         // who deploys: images pushed to this server are found in it alone
	Host      string         // a name, with port, that the caller has for this server; may be empty
	Name      string         // which image of an archive that holds several; may be empty
	Progress  func(Progress) // called from one goroutine at a time; may be nil
}

// Progress says how far an image has come.
type Progress struct {
	Step   string     // fetch, unpack, store
	Layer  int        // counted from 1; 0: all of them
	Layers int        // how many there are
	Bytes  faas.Bytes // of the step, so far
	Total  faas.Bytes // 0: not known
}

func (o Options) progress(p Progress) {
	if o.Progress != nil {
		o.Progress(p)
	}
}

// Image is one that was taken in.
type Image struct {
	faas.Image

	Platform   string            `json:"platform"` // such as linux/amd64
	Entrypoint []string          `json:"entrypoint,omitempty"`
	Command    []string          `json:"command,omitempty"` // arguments of Entrypoint, or the command where that is empty
	User       string            `json:"user,omitempty"`    // as the image says it; a sandbox has a user of its own
	Labels     map[string]string `json:"labels,omitempty"`
	Ports      []int             `json:"ports,omitempty"` // all TCP ports that the image says it listens on, in order

	Bytes  faas.Bytes `json:"bytes"`           // of the root's files
	Packed faas.Bytes `json:"packed"`          // of the layers as they came
	Layers []Layer    `json:"layers"`          // the lowest first
	Notes  []string   `json:"notes,omitempty"` // what of the image was dropped, for people

	Cached bool `json:"-"` // the root was there already
}

// Layer says what one layer brought.
type Layer struct {
	Digest  faas.Digest `json:"digest"`            // of the layer as it came
	Packed  faas.Bytes  `json:"packed"`            // its size
	Bytes   faas.Bytes  `json:"bytes"`             // of its files
	Entries int         `json:"entries"`           // files, directories, links and whiteouts
	Created string      `json:"created,omitempty"` // the command that made it, if the image tells
}

// Heaviest returns the n layers with the most bytes, the heaviest first.
func (i *Image) Heaviest(n int) []Layer {
	out := slices.Clone(i.Layers)
	slices.SortStableFunc(out, func(a, b Layer) int { return cmp.Compare(b.Bytes, a.Bytes) })
	return out[:min(n, len(out))]
}

// Store takes images in. It is safe for concurrent use.
type Store struct {
	config Config
	client *client       // of registries
	turns  chan struct{} // unpackings at once: they have the processors and the disk to themselves

	mu      sync.Mutex
	flights map[faas.Digest]*flight // guarded by mu; by manifest
}

// New checks the configuration and makes the directory.
func New(config Config) (*Store, error) {
	config.Limits.applyDefaults()
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	client, err := newClient(config.Registries)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(config.Dir, "roots"), 0o755); err != nil {
		return nil, err
	}
	return &Store{config: config, client: client, turns: make(chan struct{}, max(2, runtime.GOMAXPROCS(0))), flights: map[faas.Digest]*flight{}}, nil
}

// Root lays the root of an image out on this machine, unless it is, and returns its path. It is
// read-only and stays until release is called. Its links are absolute as the image has them: read it
// through an os.Root, or make it the root directory of a mount namespace.
func (s *Store) Root(ctx context.Context, digest faas.Digest) (path string, release func(), err error) {
	return s.config.Depot.Root(ctx, digest)
}
