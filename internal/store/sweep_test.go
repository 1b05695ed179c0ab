package store_test

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/brasa-dev/brasa/internal/store"
)

// chunksOf returns how many messages with chunks there are.
func chunksOf(t *testing.T, e *store.Engine, bucket string) (n uint64) {
	t.Helper()
	s, err := e.JetStream().Stream(t.Context(), "OBJ_"+bucket)
	if err != nil {
		t.Fatal(err)
	}
	info, err := s.Info(t.Context(), jetstream.WithSubjectFilter("$O."+bucket+".C.>"))
	if err != nil {
		t.Fatal(err)
	}
	for _, some := range info.State.Subjects {
		n += some
	}
	return n
}

// What a process left that died while it put an object is removed by the first List, and nothing of
// what is put at the same time is.
func TestLeftoversGoAndWhatIsBeingPutStays(t *testing.T) {
	dir := t.TempDir()
	e := open(t, dir)
	o, err := e.Objects(t.Context(), "blobs")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Put(t.Context(), "there", bytes.NewReader(make([]byte, 3<<20))); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if _, err := e.JetStream().Publish(t.Context(), fmt.Sprint("$O.blobs.C.left", i), make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = open(t, dir)
	if o, err = e.Objects(t.Context(), "blobs"); err != nil {
		t.Fatal(err)
	}
	// A put that is under way for all of the sweep, and many that begin and end meanwhile.
	slow, in := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := o.Put(t.Context(), "slow", slow); err != nil {
			t.Error(err)
		}
	})
	if _, err := in.Write(make([]byte, 2<<20)); err != nil { // the first chunk has been read whole, and sent
		t.Fatal(err)
	}
	for w := range 4 {
		wg.Go(func() {
			for i := range 30 {
				if _, err := o.Put(t.Context(), fmt.Sprintf("quick-%d-%d", w, i), bytes.NewReader(make([]byte, 5000))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if _, err := o.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	all, err := o.List(t.Context())
	if err != nil || len(all) != 122 {
		t.Errorf("%d objects, %v; want 122", len(all), err)
	}
	for _, object := range all {
		r, err := o.Get(t.Context(), object.Name)
		if err != nil {
			t.Fatalf("%s: %v", object.Name, err)
		}
		if n, err := io.Copy(io.Discard, r); err != nil || n != object.Size {
			t.Errorf("%s has %d bytes of %d, %v", object.Name, n, object.Size, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := chunksOf(t, e, "blobs"); got != 3+2+120 {
		t.Errorf("%d chunks, want 125: what a crash left has not gone, or more has", got)
	}
}
