package store_test

import (
	"testing"

	"github.com/brasa-dev/brasa/internal/store"
	"github.com/brasa-dev/brasa/internal/store/storetest"
)

func open(t *testing.T, dir string) *store.Engine {
	t.Helper()
	e, err := store.Open(store.Config{Dir: dir, MaxBytes: 4 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return store.Memory() })
}

func TestMemoryObjects(t *testing.T) {
	storetest.RunObjects(t, func(*testing.T) store.Objects { return store.MemoryObjects() })
}

func TestBucket(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		b, err := open(t, t.TempDir()).Bucket(t.Context(), "catalog", 10)
		if err != nil {
			t.Fatal(err)
		}
		return b
	})
}

func TestObjects(t *testing.T) {
	storetest.RunObjects(t, func(t *testing.T) store.Objects {
		o, err := open(t, t.TempDir()).Objects(t.Context(), "blobs")
		if err != nil {
			t.Fatal(err)
		}
		return o
	})
}
