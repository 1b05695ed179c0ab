package catalog

import (
	"encoding/json"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// full is a revision with something in every field.
func full(fn string) *faas.Revision {
	return &faas.Revision{
		Name: name(fn), Runtime: "exec", Version: "1.2", Entry: "a/b.sh", Handler: "h", Command: []string{"a", "b c"},
		Code: faas.Digest("sha256:" + fmt.Sprintf("%064x", 1)), Source: faas.Digest("sha256:" + fmt.Sprintf("%064x", 2)),
		Env: map[string]string{"A": `1"`, "Ä": ""}, Secrets: []string{"S"}, Limits: faas.DefaultLimits(), Network: faas.NetworkEgress,
		Reuse: faas.ReuseTenant, State: faas.StatePristine, CodeBytes: 12345, Created: time.Now().UTC(),
	}
}

// What is kept packed comes out as it went in, whatever the collector took in between, and after
// a start anew.
func TestPackedIsAsPublished(t *testing.T) {
	docs, secs := store.Memory(), store.Memory()
	c := openCatalog(t, docs, secs)
	odd := full("p/odd")
	odd.Code, odd.Source, odd.Created = "sha256:not-hex", "", time.Time{}
	for _, rev := range []*faas.Revision{full("f"), full("p/f"), odd} {
		fn, err := c.Publish(t.Context(), rev, PublishOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			gotFn, got, err := c.Resolve(faas.Ref{Name: rev.Name})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(rev, got); d != "" {
				t.Errorf("revision (-published +resolved):\n%s", d)
			}
			if d := cmp.Diff(fn, gotFn); d != "" {
				t.Errorf("function (-published +resolved):\n%s", d)
			}
			if digests := c.Digests(); !digests[rev.Code] || rev.Source != "" && !digests[rev.Source] {
				t.Errorf("Digests has %v, want %s and %q among them", digests, rev.Code, rev.Source)
			}
			runtime.GC()
			runtime.GC()
			c = openCatalog(t, docs, secs)
		}
	}
}

// Whoever holds a revision is answered with that very one: an instance must not see its revision
// unpacked again for each call.
func TestWhatIsInUseIsNotUnpackedAgain(t *testing.T) {
	c := open(t)
	publish(t, c, "f", 1)
	_, held, err := c.Resolve(faas.Ref{Name: name("f")})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		runtime.GC()
	}
	_, again, err := c.Resolve(faas.Ref{Name: name("f")})
	if err != nil || again != held {
		t.Errorf("another revision at %p, want %p, %v", again, held, err)
	}
	runtime.KeepAlive(held)
}

// Names that come and go leave nothing behind, and those that stay are found all the while.
func TestNamesThatAreGoneLeaveNothing(t *testing.T) {
	c := open(t)
	for i := range 300 {
		publish(t, c, fmt.Sprintf("stays-%d", i), i)
		publish(t, c, fmt.Sprintf("goes-%d", i), i)
		if err := c.Delete(t.Context(), name(fmt.Sprintf("goes-%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.collect(t.Context(), time.Now().Add(2*tombstoneAge)); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		if _, _, err := c.Resolve(faas.Ref{Name: name(fmt.Sprintf("stays-%d", i))}); err != nil {
			t.Error(err)
		}
		_, _, err := c.Resolve(faas.Ref{Name: name(fmt.Sprintf("goes-%d", i))})
		wantCode(t, err, faas.NotFound)
	}
	n := (*c.index.Load())[place{DefaultNamespace, ""}].names.Load()
	if got := len(n.old) + len(n.young); got > 300+300/4+20 {
		t.Errorf("%d names in memory for 300 functions", got)
	}
	if n := len(c.Functions(DefaultNamespace)); n != 300 {
		t.Errorf("%d functions listed, want 300", n)
	}
}

// A function whose document lists what is not there, or not in our form, is not half understood.
func TestDocumentsInAnotherFormAreRefused(t *testing.T) {
	c := open(t)
	fn := publish(t, c, "f", 1)
	good := c.packed(name("f")).function(name("f"))
	for what, change := range map[string]func(*faas.Function){
		"active":   func(f *faas.Function) { f.Active = faas.RevisionID(fmt.Sprintf("%064x", 9)) },
		"revision": func(f *faas.Function) { f.Revisions = append(f.Revisions, "xyz") },
		"uid":      func(f *faas.Function) { f.UID = "x" },
		"name":     func(f *faas.Function) { f.Name.Function = "other" },
	} {
		bad := *good
		change(&bad)
		b, err := json.Marshal(functionDocument{Function: bad})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.packed(fn.Name).withFunction(fn.Name, b, 99); err == nil {
			t.Errorf("a document with another %s was taken", what)
		}
	}
}

// BenchmarkIdle is a look-up of a function that nobody has used since the last collection.
func BenchmarkIdle(b *testing.B) {
	c := open(b)
	publish(b, c, "f", 1)
	e := c.entry(name("f"))
	b.ReportAllocs()
	for b.Loop() {
		e.shown.Store(nil)
		if _, _, err := c.Resolve(faas.Ref{Name: name("f")}); err != nil {
			b.Fatal(err)
		}
	}
}
