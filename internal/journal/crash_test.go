package journal

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/faulttest"
	"github.com/brasa-dev/brasa/internal/store"
)

func TestMain(m *testing.M) { faulttest.Main(m, child) }

// child records in a loop, over two days at once, and says what Flush has acknowledged.
func child(c *faulttest.Child) {
	fault = c.Reach
	ctx := context.Background()
	e, err := store.Open(store.Config{Dir: c.Dir, MaxBytes: 1 << 30})
	c.Must(err)
	j, err := Open(ctx, Config{Engine: e, Dir: filepath.Join(c.Dir, "index")})
	c.Must(err)
	c.Ready()
	for i := 0; ; i++ {
		a := call(time.Now().Add(-time.Duration(i%2)*24*time.Hour), "f", faas.OK, "line", strings.Repeat("x", logHead))
		b := call(time.Now(), "g", faas.Failed)
		j.Record(a)
		j.Record(b)
		c.Must(j.Flush(ctx))
		fmt.Println("kept", a.ID)
		fmt.Println("kept", b.ID)
		if i%50 == 49 {
			c.Must(j.Expire(ctx))
		}
	}
}

func TestKillNine(t *testing.T) {
	if testing.Short() {
		t.Skip("runs children for seconds")
	}
	dir := t.TempDir()
	kept := map[faas.ID]bool{}
	for _, at := range []string{"", "journal: begun@3", "journal: published@1", "journal: published@5", "journal: indexed@2", "", "", ""} {
		after := time.Duration(50+rand.IntN(200)) * time.Millisecond
		faulttest.Kill(t, dir, faulttest.Fault{At: at, After: after}, func(_, id string) { kept[faas.ID(id)] = true })
	}
	if len(kept) < 50 {
		t.Errorf("only %d were acknowledged: too few to tell", len(kept))
	}
	e := openEngine(t, dir)
	j := openJournal(t, e)
	seen := map[faas.ID]int{}
	for q := (Query{Namespace: "default", Limit: 100}); ; {
		page, cursor, err := j.Find(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range page {
			seen[a.ID]++
		}
		if q.Cursor = cursor; cursor == "" {
			break
		}
	}
	for id := range kept {
		if seen[id] != 1 {
			t.Errorf("%s was acknowledged and is found %d times", id, seen[id])
		}
	}
	for id, n := range seen {
		a, err := j.Get(t.Context(), "default", id)
		want := 0
		if err == nil && a.Function == "f" {
			want = 2
		}
		if err != nil || n != 1 || len(a.Logs) != want {
			t.Errorf("%s: found %d times, %d lines of log, %v; want once, %d lines", id, n, len(a.Logs), err, want)
		}
	}
}

// A disk that fills up makes records lost, counted and said; callers notice nothing, and with room
// again records are kept again.
func TestFullDisk(t *testing.T) {
	dir := faulttest.SmallDisk(t, "48m")
	e, err := store.Open(store.Config{Dir: filepath.Join(dir, "data"), MaxBytes: 1 << 30, MinFree: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	j := openJournal(t, e)
	before := call(time.Now(), "f", faas.OK)
	j.Record(before)
	flush(t, j)
	ballast := filepath.Join(dir, "ballast")
	faulttest.Fill(t, ballast, 0) // the index meets the end of the disk
	// Text that packing makes no smaller: what the index has set aside may well hold a few hundred bytes.
	noise := rand.NewChaCha8([32]byte{})
	for range 20 {
		line := make([]byte, 25_000)
		_, _ = noise.Read(line)
		j.Record(call(time.Now(), "f", faas.OK, hex.EncodeToString(line)))
		flush(t, j)
	}
	if j.Dropped() == 0 {
		t.Error("nothing was dropped though there is no room")
	}
	if _, err := j.Get(t.Context(), "default", before.ID); err != nil {
		t.Errorf("what was there before: %v", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	dropped := j.Dropped()
	after := call(time.Now(), "f", faas.OK)
	j.Record(after)
	flush(t, j)
	for _, a := range []*faas.Activation{before, after} {
		if _, err := j.Get(t.Context(), "default", a.ID); err != nil {
			t.Errorf("with room again: %v", err)
		}
	}
	if j.Dropped() != dropped {
		t.Errorf("%d more dropped with room again", j.Dropped()-dropped)
	}
}
