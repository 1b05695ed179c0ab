package queue

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// opened is a queue with its own engine, and what ends both.
type opened struct {
	*Durable
	dir    string
	cancel context.CancelFunc
	done   chan error
	closed bool
}

func openQueue(t *testing.T, dir string, config Config) *opened {
	t.Helper()
	return openOn(t, store.Config{Dir: dir, MaxBytes: 4 << 30}, config)
}

func openOn(t *testing.T, sc store.Config, config Config) *opened {
	t.Helper()
	e, err := store.Open(sc)
	if err != nil {
		t.Fatal(err)
	}
	config.Engine = e
	q, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	o := &opened{Durable: q, dir: sc.Dir, cancel: cancel, done: make(chan error, 1)}
	go func() { o.done <- q.Run(ctx) }()
	t.Cleanup(func() { o.stop(t) })
	return o
}

func (o *opened) stop(t *testing.T) {
	t.Helper()
	if o.closed {
		return
	}
	o.closed = true
	o.cancel()
	for what, err := range map[string]error{"Run": <-o.done, "Close": o.Close(), "engine": o.config.Engine.Close()} {
		if err != nil {
			t.Error(what, err)
		}
	}
}

// again closes the queue and opens it once more. spoil is done in between.
func (o *opened) again(t *testing.T, spoil func(index string)) *opened {
	t.Helper()
	o.stop(t)
	if spoil != nil {
		spoil(filepath.Join(o.dir, "queue", "index.db"))
	}
	config := o.config
	config.Dir = ""
	return openOn(t, store.Config{Dir: o.dir, MaxBytes: 4 << 30}, config)
}

func name(function string) faas.Name { return faas.Name{Namespace: "default", Function: function} }

func invocation(function string, w faas.Wait) *faas.Invocation {
	return &faas.Invocation{
		ID: faas.NewID(time.Now()), Function: faas.Ref{Name: name(function)}, Kind: faas.KindInvoke,
		Body: strings.NewReader("body"), Length: 4, Wait: &w,
	}
}

func (o *opened) push(t *testing.T, function string, w faas.Wait) faas.ID {
	t.Helper()
	id, err := o.Push(t.Context(), invocation(function, w))
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Millisecond) // IDs of one millisecond have no order
	return id
}

// pull waits for the function's next.
func (o *opened) pull(t *testing.T, function string) Lease {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		_, more, err := o.Due(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		leases, err := o.Pull(t.Context(), name(function), 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(leases) > 0 {
			return leases[0]
		}
		select {
		case <-more:
		case <-deadline:
			t.Fatalf("nothing of %s came", function)
		}
	}
}

func (o *opened) pullID(t *testing.T, function string, id faas.ID, attempt int) Lease {
	t.Helper()
	l := o.pull(t, function)
	inv := l.Invocation()
	b, err := io.ReadAll(inv.Body)
	if inv.ID != id || inv.Attempt != attempt || string(b) != "body" || err != nil {
		t.Fatalf("attempt %d of %s came with %q, %v; want %d of %s", inv.Attempt, inv.ID, b, err, attempt, id)
	}
	return l
}

func (o *opened) none(t *testing.T, function string) {
	t.Helper()
	if leases, err := o.Pull(t.Context(), name(function), 1); err != nil || len(leases) > 0 {
		t.Fatalf("Pull of %s = %d, %v; want none", function, len(leases), err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (o *opened) depth(t *testing.T, function string) Depth {
	t.Helper()
	depths, err := o.Depths(t.Context(), "default")
	must(t, err)
	for _, d := range depths {
		if d.Function == name(function) {
			return d
		}
	}
	return Depth{}
}

// A lease lasts as long as its process, and comes back after it.
func TestLeasesComeBack(t *testing.T) {
	o := openQueue(t, t.TempDir(), Config{})
	id := o.push(t, "f", faas.Wait{})
	for attempt := 1; attempt <= 3; attempt++ {
		o.pullID(t, "f", id, attempt)
		o.none(t, "f")
		if w, err := o.Find(t.Context(), "default", id); err != nil || w.Stage != faas.StageRunning {
			t.Errorf("%+v, %v", w, err)
		}
		o = o.again(t, nil)
		if w, err := o.Find(t.Context(), "default", id); err != nil || w.Stage != faas.StageRetrying || w.Attempt != attempt {
			t.Errorf("%+v, %v", w, err)
		}
	}
}

func TestPoisonIsBuried(t *testing.T) {
	o := openQueue(t, t.TempDir(), Config{MaxAttempts: 3})
	id := o.push(t, "f", faas.Wait{})
	good := o.push(t, "f", faas.Wait{})
	for attempt := 1; attempt <= 3; attempt++ { // each time the process ends with it
		o.pullID(t, "f", id, attempt)
		o = o.again(t, nil)
	}
	must(t, o.pullID(t, "f", good, 1).Done(t.Context()))
	dead, err := o.Buried(t.Context(), Filter{Namespace: "default"})
	if err != nil || len(dead) != 1 || dead[0].Invocation.ID != id || !strings.Contains(dead[0].Why, "3 times") {
		t.Errorf("Buried = %+v, %v", dead, err)
	}
}

// One at a time and in order, whatever is tried again and however often the process ends.
func TestRowsOverRestarts(t *testing.T) {
	o := openQueue(t, t.TempDir(), Config{})
	var want, got []faas.ID
	for range 12 {
		want = append(want, o.push(t, "f", faas.Wait{Order: "o"}))
	}
	attempts := map[faas.ID]int{}
	for round := 0; len(got) < len(want); round++ {
		l := o.pull(t, "f")
		o.none(t, "f")
		id := l.Invocation().ID
		if attempts[id]++; l.Invocation().Attempt != attempts[id] {
			t.Errorf("attempt %d, want %d", l.Invocation().Attempt, attempts[id])
		}
		switch round % 5 {
		case 0:
			must(t, l.Retry(t.Context(), 5*time.Millisecond, errors.New("x")))
			o = o.again(t, nil)
		case 1:
			must(t, l.Retry(t.Context(), 0, errors.New("x")))
		case 2:
			o = o.again(t, nil)
		case 3:
			must(t, l.Done(t.Context()))
			got = append(got, id)
			o = o.again(t, nil)
		case 4:
			must(t, l.Bury(t.Context(), errors.New("x")))
			got = append(got, id)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("they ended in the order\n%v, want\n%v", got, want)
	}
}

// Whose the invocations are is known again after a stop, and when the index has to be made anew.
func TestOwnedAgain(t *testing.T) {
	o := openQueue(t, t.TempDir(), Config{Partitions: 2})
	for range 3 {
		inv := invocation("f", faas.Wait{})
		inv.Owner = "me"
		if _, err := o.Push(t.Context(), inv); err != nil {
			t.Fatal(err)
		}
	}
	_ = o.pull(t, "f") // in somebody's hands when it stops
	if err := o.pull(t, "f").Done(t.Context()); err != nil {
		t.Fatal(err)
	}
	for what, spoil := range map[string]func(string){
		"stopped":    nil,
		"index gone": func(index string) { must(t, os.Remove(index)) },
		"index spoilt": func(index string) {
			must(t, os.WriteFile(index, []byte("this is no database, and never was one: it has no header of that kind"), 0o600))
		},
		"index of another version, without owners": func(index string) {
			db, err := sql.Open("sqlite", index)
			must(t, err)
			defer db.Close()
			_, err = db.Exec(`DROP INDEX letter_by_owner; ALTER TABLE letter DROP COLUMN owner; UPDATE seen SET seq = 1; PRAGMA user_version = 1`)
			must(t, err)
		},
	} {
		o = o.again(t, spoil)
		if got := o.Owned("me"); got != 2 {
			t.Errorf("%s: %d are mine, want 2", what, got)
		}
	}
}
