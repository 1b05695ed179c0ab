package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// layoutVersion counts the changes of the data directory's form that an older program could not
// read.
const layoutVersion = 1

// layout is the file "version" of a data directory.
type layout struct {
	Layout   int   `json:"layout"`
	MaxBytes int64 `json:"max_bytes"` // chosen at the first start when none was configured
}

// openLayout checks that this program can read the directory, marks a new one, and returns how
// much may be written: what is configured, else what was chosen at the first start.
func openLayout(dir string, maxBytes int64) (int64, error) {
	path := filepath.Join(dir, "version")
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(filepath.Join(dir, "jetstream")); err == nil {
			return 0, fmt.Errorf("%q holds a store but its file %q is gone; restore the file from the backup, or start on an empty directory", dir, "version")
		}
	case err != nil:
		return 0, err
	}
	var l layout
	if b != nil {
		if err := json.Unmarshal(b, &l); err != nil || l.Layout < 1 {
			return 0, fmt.Errorf("read %q: it is not a version file: %q", path, b[:min(len(b), 80)])
		}
		if l.Layout > layoutVersion {
			return 0, fmt.Errorf("%q was written by a newer brasa (layout %d, this program reads up to %d); start that one, or restore a backup made before the upgrade", dir, l.Layout, layoutVersion)
		}
	}
	if maxBytes > 0 {
		l.MaxBytes = maxBytes
	}
	if l.MaxBytes <= 0 {
		free, err := freeBytes(dir)
		if err != nil {
			return 0, err
		}
		l.MaxBytes = max(free/5*4, 64<<20)
	}
	l.Layout = layoutVersion
	out, err := json.Marshal(l)
	if err != nil {
		return 0, err
	}
	if string(out)+"\n" == string(b) {
		return l.MaxBytes, nil
	}
	return l.MaxBytes, WriteFile(path, append(out, '\n'), 0o600)
}

// WriteFile replaces the file at path in one step: after a crash it has the old content or the
// new, never a part.
func WriteFile(path string, data []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	_ = f.Close() // its bytes are on the disk already
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
