package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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

// A delay stays as long as it was told to be when the clock is set; a time of day stays that time.
func TestClockIsSet(t *testing.T) {
	var step atomic.Int64
	begun := time.Now()
	c := clock{
		wall:   func() time.Time { return time.Now().Add(time.Duration(step.Load())) },
		steady: func() time.Duration { return time.Since(begun) },
	}
	o := openQueue(t, t.TempDir(), Config{clock: c})
	put := func(function string, after time.Duration) faas.ID {
		id := o.push(t, function, faas.Wait{})
		must(t, o.pullID(t, function, id, 1).Retry(t.Context(), after, errors.New("x")))
		return id
	}
	short, long := put("short", 3*time.Second), put("long", time.Hour)
	at := o.push(t, "at", faas.Wait{NotBefore: c.wall().Add(2 * time.Hour)})
	due := func(id faas.ID) time.Duration {
		w, err := o.Find(t.Context(), "default", id)
		must(t, err)
		return w.Due.Sub(c.wall()).Round(time.Minute)
	}
	wait := func(want time.Duration) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); due(long) != want && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
		if due(long) != want {
			t.Fatalf("a delay of an hour is due in %v", due(long))
		}
	}
	step.Store(int64(-24 * time.Hour)) // back
	wait(time.Hour)
	must(t, o.pullID(t, "short", short, 2).Done(t.Context()))
	if d := due(at); d != 26*time.Hour {
		t.Errorf("what has a time of day is due in %v, want 26h", d)
	}
	step.Store(int64(110 * time.Minute)) // forward
	wait(time.Hour)
	o.none(t, "at")
	// Set back while no process looked: no delay is longer than it was told to be.
	o.stop(t)
	step.Store(int64(-48 * time.Hour))
	o = o.again(t, nil)
	if d := due(long); d != time.Hour {
		t.Errorf("after a restart a delay of an hour is due in %v", d)
	}
	step.Store(int64(3 * time.Hour))
	must(t, o.pullID(t, "at", at, 1).Done(t.Context()))
	o.none(t, "long")
}

// Who floods the queue leaves room for others, is told which limit he met, and can go on as soon
// as something is settled.
func TestFullQueue(t *testing.T) {
	o := openOn(t, store.Config{Dir: t.TempDir(), MaxBytes: 64 << 20}, Config{})
	fill := func(function string) (n int) {
		for ; n < 1000; n++ {
			inv := invocation(function, faas.Wait{})
			inv.Body = strings.NewReader(strings.Repeat("x", 256<<10))
			_, err := o.Push(t.Context(), inv)
			if err == nil {
				continue
			}
			e := faas.AsError(err)
			if e.Code != faas.Overloaded || e.Limit != "queue_bytes" || e.Fix == "" {
				t.Fatalf("%+v", e)
			}
			return n
		}
		t.Fatal("the queue has no end")
		return 0
	}
	first, second := fill("f"), fill("g")
	if first < 20 || first > 32 || second < first/4 || second > first {
		t.Errorf("one may have %d, another then %d", first, second)
	}
	if d := o.depth(t, "f"); d.Waiting != first {
		t.Errorf("%+v; %d were accepted", d, first)
	}
	must(t, o.pull(t, "f").Retry(t.Context(), time.Hour, errors.New("x")))
	must(t, o.pull(t, "f").Bury(t.Context(), errors.New("x")))
	if _, err := o.Push(t.Context(), invocation("f", faas.Wait{})); faas.CodeOf(err) != faas.Overloaded {
		t.Errorf("beside another's share: %v", err)
	}
	for range first / 2 {
		must(t, o.pull(t, "f").Done(t.Context()))
	}
	o.push(t, "f", faas.Wait{})
	if n, err := o.Clear(t.Context(), name("g")); err != nil || n != second {
		t.Errorf("Clear = %d, %v; want %d", n, err, second)
	}
	if again := fill("g"); again < second {
		t.Errorf("after all was cleared there is room for %d, before there was for %d", again, second)
	}
}

// A backlog of one function does not delay another's: its next is found as fast, in the same
// partition too.
func TestBacklogHoldsUpNobody(t *testing.T) {
	const backlog = 20_000
	o := openQueue(t, t.TempDir(), Config{Partitions: 1})
	took := func() time.Duration {
		var all []time.Duration
		for range 41 {
			begun := time.Now()
			id := o.push(t, "other", faas.Wait{})
			must(t, o.pullID(t, "other", id, 1).Done(t.Context()))
			all = append(all, time.Since(begun))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	before := took()
	pushMany(t, o, "flood", backlog)
	if d := o.depth(t, "flood"); d.Waiting != backlog {
		t.Fatalf("%+v", d)
	}
	idle := took()
	// And while the backlog is worked off.
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			leases, err := o.Pull(ctx, name("flood"), 8)
			if err != nil && ctx.Err() == nil {
				t.Error(err)
			}
			for _, l := range leases {
				if err := l.Done(ctx); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	busy := took()
	cancel()
	<-done
	t.Logf("a call of another function: %v without a backlog, %v beside %d that wait, %v while they are worked off", before, idle, backlog, busy)
	if idle > 5*before+20*time.Millisecond || busy > 10*before+50*time.Millisecond {
		t.Errorf("a call of another function takes %v, beside a backlog %v, while that is worked off %v", before, idle, busy)
	}
}
