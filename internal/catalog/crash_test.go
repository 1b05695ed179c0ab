package catalog

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/faulttest"
	"github.com/brasa-dev/brasa/internal/store"
)

// The crash tests run children that publish in a loop and say on their standard output what was
// acknowledged, have them killed, and look at what they left.
func TestMain(m *testing.M) { faulttest.Main(m, child) }

func child(c *faulttest.Child) {
	fault = c.Reach
	e, cat := openOn(c.Must, c.Dir)
	defer e.Close()
	ctx := context.Background()
	start := 0
	if fn, err := cat.Function(name("f")); err == nil {
		revs, err := cat.Revisions(fn.Name)
		c.Must(err)
		start, _ = strconv.Atoi(revs[0].Env["N"])
		fmt.Println("f", start) // the last child may have written it without the time to say so
	}
	c.Ready()
	for n := start + 1; ; n++ {
		_, err := cat.Publish(ctx, revision("f", n), PublishOptions{})
		c.Must(err)
		fmt.Println("f", n)
		_, err = cat.PutSecret(ctx, DefaultNamespace, "S", []byte(strconv.Itoa(n)))
		c.Must(err)
		fmt.Println("s", n)
		_, err = cat.Publish(ctx, revision("g", n), PublishOptions{})
		c.Must(err)
		fmt.Println("g", n)
		c.Must(cat.Delete(ctx, name("g")))
		fmt.Println("d", n)
	}
}

func openOn(fail func(error), dir string) (*store.Engine, *Catalog) {
	e, err := store.Open(store.Config{Dir: dir, MaxBytes: 1 << 30})
	fail(err)
	docs, err := e.Bucket(context.Background(), "catalog", 10)
	fail(err)
	secs, err := e.Bucket(context.Background(), "secrets", 1)
	fail(err)
	c, err := Open(context.Background(), Config{Store: docs, Secrets: secs, Key: testKey})
	fail(err)
	return e, c
}

// crash runs a child until it dies, by itself at the fault or killed after a random time, and
// returns the last number that it acknowledged of each kind.
func crash(t *testing.T, dir string, f faulttest.Fault) map[string]int {
	t.Helper()
	acked := map[string]int{}
	faulttest.Kill(t, dir, f, func(kind, n string) { acked[kind], _ = strconv.Atoi(n) })
	return acked
}

// look opens what a crash left: everything acknowledged is there, nothing is half there.
func look(t *testing.T, dir, when string, acked map[string]int) {
	t.Helper()
	e, c := openOn(func(err error) {
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
	}, dir)
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	number := func(fn string) int {
		t.Helper()
		f, rev, err := c.Resolve(faas.Ref{Name: name(fn)})
		if err != nil {
			if faas.CodeOf(err) != faas.NotFound {
				t.Errorf("%s: %s: %v", when, fn, err)
			}
			return 0
		}
		if revs, err := c.Revisions(name(fn)); err != nil || len(revs) != len(f.Revisions) {
			t.Errorf("%s: %s lists %d revisions and %d are there, %v", when, fn, len(f.Revisions), len(revs), err)
		}
		n, _ := strconv.Atoi(rev.Env["N"])
		return n
	}
	// One more than was acknowledged may be there: the crash came before the word of it got out.
	if got := number("f"); got < acked["f"] || got > acked["f"]+1 {
		t.Errorf("%s: f is at %d, %d was acknowledged", when, got, acked["f"])
	}
	if acked["s"] > 0 {
		v, _, err := c.OpenSecrets(t.Context(), DefaultNamespace, []string{"S"})
		if got, _ := strconv.Atoi(v["S"]); err != nil || got < acked["s"] || got > max(acked["s"]+1, acked["f"]) {
			t.Errorf("%s: the secret is at %d, %d was acknowledged, %v", when, got, acked["s"], err)
		}
	}
	g := number("g")
	switch {
	case acked["g"] > acked["d"] && g != 0 && g != acked["g"]:
		t.Errorf("%s: g is at %d, %d was acknowledged", when, g, acked["g"])
	case acked["d"] > 0 && acked["d"] == acked["g"] && g != 0 && g != acked["g"]+1:
		t.Errorf("%s: g is at %d, its deletion at %d was acknowledged", when, g, acked["d"])
	}
	if err := c.collect(t.Context(), time.Now().Add(24*time.Hour)); err != nil {
		t.Errorf("%s: collect: %v", when, err)
	}
	records, err := c.config.Store.List(t.Context(), kindRevision, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	for _, fn := range c.Functions(DefaultNamespace) {
		want += len(fn.Revisions)
	}
	if len(records) != want {
		t.Errorf("%s: %d revisions stored after the collector, %d are in use", when, len(records), want)
	}
}

func TestKillNine(t *testing.T) {
	if testing.Short() {
		t.Skip("runs children for seconds")
	}
	t.Run("at named points", func(t *testing.T) {
		for _, point := range []string{
			"publish: begun", "publish: revision written", "publish: pointer moved", "prune",
			"delete: begun", "delete: tombstone written", "secret: data key written", "secret: written",
		} {
			dir := filepath.Join(t.TempDir(), "data")
			for _, count := range []int{1, 2, 13} { // the first start, a young store, one with a full history
				at := fmt.Sprintf("%s@%d", point, count)
				look(t, dir, at, crash(t, dir, faulttest.Fault{At: at}))
			}
		}
	})
	t.Run("at random", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "data")
		last := map[string]int{}
		for i := range 12 {
			acked := crash(t, dir, faulttest.Fault{After: time.Duration(rand.IntN(150)) * time.Millisecond})
			for _, k := range []string{"f", "s"} {
				acked[k] = max(acked[k], last[k])
			}
			look(t, dir, fmt.Sprintf("crash %d", i), acked)
			last = acked
		}
		if last["f"] < 20 {
			t.Errorf("only %d publications in all crashes: too few to tell", last["f"])
		}
	})
}
