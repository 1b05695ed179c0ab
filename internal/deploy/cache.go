package deploy

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/faas"
)

// maxBuildCache is what one namespace's build cache may have grown to when it is looked at. The
// compiled standard library takes about 150 MiB of it. What is over is thrown away whole: the next
// build is slow once, which is simpler than to know what it will need.
const maxBuildCache = 2 * faas.GiB

// CollectCaches removes the build caches of namespaces that are no more, and those that have grown
// too large.
func (d *Deployer) CollectCaches() error {
	return errors.Join(d.collectCache("gocache"), d.collectCache("cargocache"), d.collectCache("nodepacks"))
}

func (d *Deployer) collectCache(name string) error {
	root := filepath.Join(d.cfg.Dir, name)
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	live := map[string]bool{}
	for _, ns := range d.cfg.Catalog.Namespaces() {
		live[ns.UID] = true
	}
	var errs []error
	for _, e := range entries {
		dir := filepath.Join(root, e.Name())
		if live[e.Name()] && sizeOf(dir) <= maxBuildCache {
			continue
		}
		errs = append(errs, artifact.RemoveTree(dir))
	}
	return errors.Join(errs...)
}

// sizeOf returns the size of the files below dir; what can't be read, as a build may be writing
// there, counts for nothing.
func sizeOf(dir string) (sum faas.Bytes) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			sum += faas.Bytes(info.Size())
		}
		return nil
	})
	return sum
}
