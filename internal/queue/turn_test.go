package queue

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

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
