package worker

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
)

// The code of an action goes through the server's memory for each instance.
func TestTheCodeOfAnActionIsBounded(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string]int64{"a": int64(maxActionCode) / 2, "d/b": int64(maxActionCode)/2 + 1} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := actionCode(dir); faas.CodeOf(err) != faas.TooLarge {
		t.Errorf("got %v, want it refused as too large", err)
	}
	if err := os.Remove(filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	if send, err := actionCode(dir); err != nil || !send.Binary {
		t.Errorf("half of it: %v", err)
	}
}
