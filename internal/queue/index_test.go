package queue

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// spoils are the ways in which an index may be found at a start.
func spoils(t *testing.T) map[string]func(string) {
	return map[string]func(string){
		"whole": nil,
		"lost": func(index string) {
			if err := os.RemoveAll(filepath.Dir(index)); err != nil {
				t.Fatal(err)
			}
		},
		"no database": func(index string) { must(t, os.WriteFile(index, []byte(strings.Repeat("x", 100_000)), 0o600)) },
		"cut off": func(index string) {
			info, err := os.Stat(index)
			must(t, err)
			must(t, os.Truncate(index, info.Size()/2))
		},
		"overwritten": func(index string) {
			b, err := os.ReadFile(index)
			must(t, err)
			for i := 8192; i < len(b); i++ {
				b[i] = 0xa5
			}
			must(t, os.WriteFile(index, b, 0o600))
		},
	}
}

// Whatever becomes of the index between two starts, the streams say what waits, and how.
func TestIndexIsMadeAgain(t *testing.T) {
	for how, spoil := range spoils(t) {
		t.Run(how, func(t *testing.T) {
			o := openQueue(t, t.TempDir(), Config{Partitions: 2})
			tried := o.push(t, "f", faas.Wait{})
			must(t, o.pullID(t, "f", tried, 1).Retry(t.Context(), 10*time.Millisecond, errors.New("first")))
			must(t, o.pullID(t, "f", tried, 2).Retry(t.Context(), time.Hour, errors.New("second")))
			keyed := o.push(t, "g", faas.Wait{Key: "k"})
			must(t, o.pullID(t, "g", keyed, 1).Done(t.Context()))
			buried := o.push(t, "g", faas.Wait{})
			must(t, o.pullID(t, "g", buried, 1).Bury(t.Context(), errors.New("why\nnot")))
			var row []faas.ID
			for range 3 {
				row = append(row, o.push(t, "row", faas.Wait{Order: "o", Priority: faas.PriorityLow}))
			}
			must(t, o.pullID(t, "row", row[0], 1).Retry(t.Context(), 300*time.Millisecond, errors.New("x")))
			redriven := o.push(t, "g", faas.Wait{})
			must(t, o.pullID(t, "g", redriven, 1).Bury(t.Context(), errors.New("x")))
			if n, err := o.Redrive(t.Context(), Filter{Namespace: "default", ID: redriven}); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			far := o.push(t, "far", faas.Wait{NotBefore: time.Now().Add(time.Hour)})
			canceled := o.push(t, "far", faas.Wait{})
			_, err := o.Cancel(t.Context(), "default", canceled)
			must(t, err)
			must(t, o.Pause(t.Context(), name("paused"), true))
			waits := o.push(t, "paused", faas.Wait{})
			held := o.pullID(t, "g", redriven, 1)
			_ = held // until the end of the process

			before, err := o.List(t.Context(), Filter{Namespace: "default"})
			must(t, err)
			o = o.again(t, spoil)
			after, err := o.List(t.Context(), Filter{Namespace: "default"})
			must(t, err)
			for _, all := range [][]faas.Waiting{before, after} {
				for i := range all {
					if all[i].ID == redriven { // what was handed out came back, and may have lost that it was
						all[i].Stage, all[i].Attempt, all[i].Due = faas.StageQueued, 0, time.Time{}
					}
					if all[i].ID == row[0] && how == "whole" {
						all[i].Stage = faas.StageRetrying
					}
				}
			}
			if fmt.Sprintf("%+v", before) != fmt.Sprintf("%+v", after) {
				t.Errorf("there waits\n%+v, want\n%+v", after, before)
			}
			if id := o.push(t, "g", faas.Wait{Key: "k"}); id != keyed {
				t.Errorf("the key is known as %s, want %s", id, keyed)
			}
			dead, err := o.Buried(t.Context(), Filter{Namespace: "default"})
			if err != nil || len(dead) != 1 || dead[0].Invocation.ID != buried || dead[0].Why != "why not" || dead[0].Invocation.Attempt != 1 {
				t.Errorf("Buried = %+v, %v", dead, err)
			}
			for i, id := range row {
				l := o.pull(t, "row")
				if l.Invocation().ID != id {
					t.Fatalf("the row goes on with %s, want %s", l.Invocation().ID, id)
				}
				if i == 0 && l.Invocation().Attempt != 2 {
					t.Errorf("attempt %d, want 2", l.Invocation().Attempt)
				}
				o.none(t, "row")
				must(t, l.Done(t.Context()))
			}
			if d := o.depth(t, "paused"); !d.Paused || d.Waiting != 1 {
				t.Errorf("the paused function: %+v", d)
			}
			o.none(t, "paused")
			for _, id := range []faas.ID{tried, far, waits, redriven} {
				_, err := o.Cancel(t.Context(), "default", id)
				must(t, err)
			}
			if w, err := o.List(t.Context(), Filter{Namespace: "default"}); err != nil || len(w) != 0 {
				t.Errorf("there is left %+v, %v", w, err)
			}
		})
	}
}

// An index that is damaged while it is used is made again under those who use it, and what is
// handed out stays so.
func TestIndexDamagedInUse(t *testing.T) {
	o := openQueue(t, t.TempDir(), Config{Partitions: 2})
	const n = 3000
	pushMany(t, o, "f", n)
	held := o.pull(t, "f")
	damage := func() { // back to the file, and then nonsense where there were pages
		_, err := o.index.conn.ExecContext(t.Context(), `PRAGMA wal_checkpoint(TRUNCATE)`)
		must(t, err)
		f, err := os.OpenFile(o.index.path, os.O_RDWR, 0)
		must(t, err)
		info, err := f.Stat()
		must(t, err)
		for at := int64(4096); at < info.Size(); at += 4096 {
			_, err := f.WriteAt([]byte(strings.Repeat("\xa5", 4096)), at)
			must(t, err)
		}
		must(t, f.Close())
		_, err = o.index.conn.ExecContext(t.Context(), `PRAGMA shrink_memory`)
		must(t, err)
	}
	damage()
	if w, err := o.List(t.Context(), Filter{Namespace: "default"}); err != nil || len(w) != n { // whoever reads it mends it too
		t.Errorf("List = %d, %v; want %d", len(w), err, n)
	}
	damage()
	last := o.push(t, "f", faas.Wait{})
	seen := map[faas.ID]bool{held.Invocation().ID: true}
	for len(seen) < n+1 {
		leases, err := o.Pull(t.Context(), name("f"), 100)
		must(t, err)
		if len(leases) == 0 {
			break
		}
		for _, l := range leases {
			if seen[l.Invocation().ID] {
				t.Fatalf("%s was handed out twice", l.Invocation().ID)
			}
			seen[l.Invocation().ID] = true
		}
	}
	if len(seen) != n+1 || !seen[last] {
		t.Errorf("%d came, want %d", len(seen), n+1)
	}
	must(t, held.Done(t.Context()))
	if d := o.depth(t, "f"); d.Running != n || d.Waiting != 0 {
		t.Errorf("%+v", d)
	}
}

// pushMany pushes n from several goroutines.
func pushMany(t *testing.T, o *opened, function string, n int) {
	t.Helper()
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(n))
	for range 32 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := o.Push(t.Context(), invocation(function, faas.Wait{})); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// An older index, as a power cut or a restored backup may leave, is brought up to the streams.
func TestIndexIsBehind(t *testing.T) {
	o := openQueue(t, t.TempDir(), Config{Partitions: 2})
	gone, stays := o.push(t, "f", faas.Wait{}), o.push(t, "g", faas.Wait{})
	row := o.push(t, "f", faas.Wait{Order: "o"})
	o.stop(t)
	index := filepath.Join(o.dir, "queue", "index.db")
	old, err := os.ReadFile(index)
	must(t, err)
	o = o.again(t, nil)
	must(t, o.pullID(t, "f", gone, 1).Done(t.Context()))
	must(t, o.pullID(t, "f", row, 1).Bury(t.Context(), errors.New("x")))
	later := o.push(t, "f", faas.Wait{Order: "o"})
	o = o.again(t, func(index string) { must(t, os.WriteFile(index, old, 0o600)) })
	if d := o.depth(t, "f"); d.Waiting != 1 || d.Dead != 1 {
		t.Errorf("%+v", d)
	}
	must(t, o.pullID(t, "f", later, 1).Done(t.Context()))
	must(t, o.pullID(t, "g", stays, 1).Done(t.Context()))
	o.none(t, "f")
}
