package store_test

import (
	"fmt"
	"testing"

	"github.com/brasa-dev/brasa/internal/store"
)

// BenchmarkOpen is what the engine adds to the start of a server whose store is there already.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		e, err := store.Open(store.Config{Dir: dir, MaxBytes: 4 << 30})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := e.Bucket(b.Context(), "catalog", 10); err != nil {
			b.Fatal(err)
		}
		if _, err := e.Objects(b.Context(), "blobs"); err != nil {
			b.Fatal(err)
		}
		if err := e.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBucket(b *testing.B) {
	e, err := store.Open(store.Config{Dir: b.TempDir(), MaxBytes: 4 << 30})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	s, err := e.Bucket(b.Context(), "catalog", 10)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("put", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, err := s.Put(b.Context(), fmt.Sprint("k/", i%100), make([]byte, 1024), store.Any); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("get", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Get(b.Context(), "k/1"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
