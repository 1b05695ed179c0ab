package install

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// A layer lies in the depot by its digest. What its key is, is said by a file of the name
// layers/SCOPE/KEY.json, which is written last, and by a rename: half of a layer is never found.

const (
	// sharedScope holds the layers that all namespaces may use.
	sharedScope = "shared"
	// unusedKeep is how long a layer is kept that no revision names: longer than people take to come
	// back to what they work on.
	unusedKeep = 24 * time.Hour
	// formatOfKeys changes when the same key would be made differently.
	formatOfKeys = 1
)

// keptLayer is what is known of a finished layer.
type keptLayer struct {
	Digest    faas.Digest `json:"digest,omitempty"` // empty: what was named came to nothing
	Bytes     faas.Bytes  `json:"bytes"`
	Packages  []Package   `json:"packages,omitempty"`
	Ecosystem string      `json:"ecosystem"`
	Tool      string      `json:"tool"`
	Made      time.Time   `json:"made"`
}

// keyOf digests all that decides what a layer holds.
func keyOf(m *Manifest, job *Job, opt Options) string {
	sums := func(files map[string][]byte) map[string]string {
		out := map[string]string{}
		for name, content := range files {
			sum := sha256.Sum256(content)
			out[name] = hex.EncodeToString(sum[:])
		}
		return out
	}
	with := slices.Clone(opt.With)
	slices.Sort(with)
	b, err := json.Marshal(struct {
		Format                             int
		Ecosystem, Runtime, Lock, Platform string
		Tool, Origin, Target               string
		Files, More                        map[string]string
		With                               []string
		Scripts, Strict                    bool
	}{
		formatOfKeys, m.Ecosystem, m.Runtime, m.Lock, runtime.GOOS + "/" + runtime.GOARCH,
		job.Tool, job.Origin, job.Target, sums(m.Files), sums(job.Files), with, opt.Scripts, opt.Strict,
	})
	if err != nil {
		panic(err) // no field can fail to marshal
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func (i *Installer) keyFile(scope, key string) string {
	return filepath.Join(i.layersDir(), scope, key+".json")
}

// kept looks a layer up, nil if there is none, and notes that it is used.
func (i *Installer) kept(scope, key string) (*keptLayer, error) {
	file := i.keyFile(scope, key)
	k, err := readKept(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		i.cfg.Logger.Warn("what is known of a layer cannot be read; it is installed again", "file", file, "error", err)
		return nil, i.forget(scope, key)
	}
	now := time.Now()
	if err := os.Chtimes(file, now, now); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return k, nil
}

func readKept(file string) (*keptLayer, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	k := &keptLayer{}
	if err := json.Unmarshal(b, k); err != nil {
		return nil, err
	}
	if _, err := faas.ParseDigest(string(k.Digest)); k.Digest != "" && err != nil {
		return nil, err
	}
	return k, nil
}

// keep says under which key a layer is found from now on.
func (i *Installer) keep(scope, key string, k *keptLayer) error {
	b, err := json.Marshal(k)
	if err != nil {
		return err
	}
	file := i.keyFile(scope, key)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(i.workDir(), "key-")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", file, err), os.RemoveAll(f.Name()))
	}
	return nil
}

func (i *Installer) forget(scope, key string) error {
	if err := os.Remove(i.keyFile(scope, key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Live calls f for each layer that was used lately, so that it is not collected as unused.
func (i *Installer) Live(f func(faas.Digest)) error {
	return i.eachKept(func(file string, used time.Time, k *keptLayer) error {
		if k.Digest != "" && time.Since(used) <= unusedKeep {
			f(k.Digest)
		}
		return nil
	})
}

// Collect forgets the layers that were not used lately and of which live is false, and those of
// namespaces that are no more. What the depot has of them is collected there.
func (i *Installer) Collect(live func(faas.Digest) bool, namespace func(uid string) bool) error {
	return i.eachKept(func(file string, used time.Time, k *keptLayer) error {
		scope := filepath.Base(filepath.Dir(file))
		if (scope == sharedScope || namespace(scope)) && (time.Since(used) <= unusedKeep || live(k.Digest)) {
			return nil
		}
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		_ = os.Remove(filepath.Dir(file)) // unless it is the last there is another in it
		return nil
	})
}

func (i *Installer) eachKept(f func(file string, used time.Time, k *keptLayer) error) error {
	var errs []error
	err := filepath.WalkDir(i.layersDir(), func(file string, e fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if e.IsDir() || !strings.HasSuffix(file, ".json") {
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return nil // removed meanwhile
		}
		k, err := readKept(file)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, os.Remove(file)) // of no use to anybody
			}
			return nil
		}
		errs = append(errs, f(file, info.ModTime(), k))
		return nil
	})
	return errors.Join(append(errs, err)...)
}
