package artifact

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/store"
)

// A tree that was compared in this run of the machine is not read again, unless anything of it may
// be another.
func TestWhatWasComparedIsKnown(t *testing.T) {
	d := openDepot(t, t.TempDir(), &countingObjects{Objects: store.MemoryObjects()}, 0)
	digest := putTree(t, d, 1)
	lay := func() (path, file string) {
		t.Helper()
		path, release, err := d.Tree(t.Context(), digest)
		if err != nil {
			t.Fatal(err)
		}
		release()
		return path, filepath.Join(path, "main.py")
	}
	path, file := lay()
	size, ok := wasCompared(path)
	if !ok {
		t.Skip("the file system or the user has no trusted attributes; trees are compared after every start")
	}
	if used, err := diskUsage(path); err != nil || used != size {
		t.Errorf("it takes up %d, not %d (%v)", used, size, err)
	}
	boot := bootID
	bootID = func() string { return "another" }
	if _, ok := wasCompared(path); ok {
		t.Error("after a start of the machine it is not compared")
	}
	bootID = boot

	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	asBefore := func(err error) error { // of the same size, age and mode
		if err == nil {
			err = os.Chmod(file, info.Mode())
		}
		if err == nil {
			err = os.Chtimes(file, time.Time{}, info.ModTime())
		}
		return err
	}
	for name, change := range map[string]func() error{
		"content":  func() error { return asBefore(os.WriteFile(file, []byte("print(2)"), 0o600)) },
		"mode":     func() error { return os.Chmod(file, 0o755) },
		"another":  func() error { return os.Rename(filepath.Join(path, "lib/a/b.txt"), filepath.Join(path, "lib/a/c.txt")) },
		"one more": func() error { return os.WriteFile(filepath.Join(path, "more"), nil, 0o600) },
		"replaced": func() error {
			if err := os.WriteFile(file+"x", []byte("print(2)"), 0o600); err != nil {
				return err
			}
			return asBefore(os.Rename(file+"x", file))
		},
	} {
		noteCompared(path)
		if _, ok := wasCompared(path); !ok {
			t.Fatal("it is not known")
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if _, ok := wasCompared(path); ok {
			t.Errorf("after a change (%s) it is taken for what it was", name)
		}
	}
}
