package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// lies returns how many messages a stream has.
func lies(t *testing.T, p *part) int {
	t.Helper()
	info, err := p.stream.Info(t.Context())
	must(t, err)
	return int(info.State.Msgs)
}

// doneAll settles n of a function.
func doneAll(t *testing.T, o *opened, function string, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for n > 0 {
		leases, err := o.Pull(t.Context(), name(function), n)
		must(t, err)
		if len(leases) == 0 {
			t.Fatalf("%d more were to come", n)
		}
		n -= len(leases)
		for _, l := range leases {
			wg.Go(func() {
				if err := l.Done(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
}

// What is settled goes out of the streams, and what is not stays, wherever it lies between them.
func TestSettledIsRemoved(t *testing.T) {
	o := openQueue(t, t.TempDir(), Config{Partitions: 1})
	early := o.push(t, "held", faas.Wait{NotBefore: time.Now().Add(time.Hour)})
	const n = 60
	pushMany(t, o, "all", n)
	pushMany(t, o, "held", n)
	late := o.push(t, "all", faas.Wait{NotBefore: time.Now().Add(time.Hour)})
	put := o.pullID(t, "held", o.push(t, "held", faas.Wait{Priority: faas.PriorityHigh}), 1)
	must(t, put.Retry(t.Context(), time.Hour, errors.New("x")))
	buried := o.pullID(t, "all", o.push(t, "all", faas.Wait{Priority: faas.PriorityHigh}), 1)
	must(t, buried.Bury(t.Context(), errors.New("x")))
	doneAll(t, o, "all", n)
	doneAll(t, o, "held", n)
	p := o.parts[0]

	// Of a function of which nothing waits before them all go at once, of another they stay for a while.
	must(t, o.clean(t.Context(), time.Hour))
	if got, want := lies(t, p), 5+n; got < 3 || got > want {
		t.Errorf("%d messages are left, want %d at most", got, want)
	}
	must(t, o.clean(t.Context(), 0))
	if got := lies(t, p); got != 3 {
		t.Errorf("%d messages are left, want 3", got)
	}
	if got := lies(t, o.ledger.part); got != 0 || o.ledger.count != 0 || o.ledger.bytes != 0 {
		t.Errorf("%d records are left; %d of %d bytes count", got, o.ledger.count, o.ledger.bytes)
	}
	o = o.again(t, nil)
	for function, ids := range map[string][]faas.ID{"held": {early, put.Invocation().ID}, "all": {late}} {
		for _, id := range ids {
			if inv, err := o.Cancel(t.Context(), "default", id); err != nil || inv.Function.Name != name(function) {
				t.Errorf("%s of %s: %+v, %v", id, function, inv, err)
			}
		}
	}
}

// What is settled and lies in its stream still does not come back with an index that is made again.
func TestSettledStaysSo(t *testing.T) {
	o := openQueue(t, t.TempDir(), Config{Partitions: 2})
	o.cleaning.Lock() // nothing is removed
	const n = 400
	pushMany(t, o, "f", 2*n)
	doneAll(t, o, "f", n)
	if got := lies(t, o.parts[0]) + lies(t, o.parts[1]); got != 2*n {
		t.Fatalf("%d messages lie there, want %d", got, 2*n)
	}
	o.index.writing.Lock()
	err := o.mend()
	o.index.writing.Unlock()
	must(t, err)
	if d := o.depth(t, "f"); d.Waiting != n || d.Running != 0 {
		t.Errorf("%+v, want %d that wait", d, n)
	}
	o.cleaning.Unlock()
	o = o.again(t, func(index string) { must(t, os.Remove(index)) })
	if d := o.depth(t, "f"); d.Waiting != n {
		t.Errorf("after a restart %+v, want %d that wait", d, n)
	}
	doneAll(t, o, "f", n)
	o.none(t, "f")
}

// A record of a message whose number is another's now, as in a stream that lost its end, removes nothing.
func TestSettlementOfAnother(t *testing.T) {
	o := openQueue(t, t.TempDir(), Config{Partitions: 1})
	var ids []faas.ID
	for range 3 {
		ids = append(ids, o.push(t, "f", faas.Wait{}))
	}
	f := o.function(name("f"))
	_, err := o.ledger.record([]*settlement{
		{f: f, seq: 1, id: ids[0]}, {f: f, seq: 2, id: faas.NewID(time.Now())}, {f: f, seq: 7, id: faas.NewID(time.Now())},
	})
	must(t, err)
	o = o.again(t, nil)
	all, err := o.List(t.Context(), Filter{Namespace: "default"})
	if err != nil || len(all) != 2 || all[0].ID != ids[1] || all[1].ID != ids[2] {
		t.Errorf("there wait %+v, %v; want the second and the third", all, err)
	}
	if got := lies(t, o.ledger.part); got != 0 {
		t.Errorf("%d records are left", got)
	}
}

// Where the ledger has no room a settlement removes its message by itself.
func TestLedgerIsFull(t *testing.T) {
	o := openQueue(t, t.TempDir(), Config{Partitions: 1})
	o.ledger.most = 0
	pushMany(t, o, "f", 20)
	doneAll(t, o, "f", 20)
	if got := lies(t, o.parts[0]); got != 0 {
		t.Errorf("%d messages are left", got)
	}
	if got := lies(t, o.ledger.part); got != 0 {
		t.Errorf("%d records were written", got)
	}
}

// Many that come at once are stored together, each once, also where some are there already.
func TestManyAtOnce(t *testing.T) {
	var together atomic.Int32
	fault = func(at string) {
		if at == "push: sent together" {
			together.Add(1)
		}
	}
	o := openOn(t, store.Config{Dir: t.TempDir(), MaxBytes: 4 << 30}, Config{Partitions: 1, alone: 1, together: 2})
	t.Cleanup(func() {
		o.stop(t)
		fault = func(string) {}
	})
	const n = 600
	ids := make([]faas.ID, n)
	for i := range ids {
		ids[i] = faas.NewID(time.Now())
	}
	var next atomic.Int32
	var wg sync.WaitGroup
	for range 48 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n+n/4; i = int(next.Add(1)) - 1 {
				inv := invocation("f", faas.Wait{})
				inv.ID = ids[i%n] // the first ones twice
				if i < n/4 && i%2 == 0 {
					inv.ID = ids[i+1] // at the same time
				}
				inv.Body = strings.NewReader(fmt.Sprint("body of ", inv.ID))
				if _, err := o.Push(t.Context(), inv); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if together.Load() < 5 {
		t.Errorf("%d times some were stored together", together.Load())
	}
	if got := lies(t, o.parts[0]); got != n {
		t.Errorf("%d messages are stored, want %d", got, n)
	}
	seen := map[faas.ID]bool{}
	for len(seen) < n {
		leases, err := o.Pull(t.Context(), name("f"), 100)
		must(t, err)
		if len(leases) == 0 {
			break
		}
		for _, l := range leases {
			inv := l.Invocation()
			b := make([]byte, 100)
			k, _ := inv.Body.Read(b)
			if seen[inv.ID] || string(b[:k]) != fmt.Sprint("body of ", inv.ID) {
				t.Errorf("%s came, before: %v, with %q", inv.ID, seen[inv.ID], b[:k])
			}
			seen[inv.ID] = true
		}
	}
	if len(seen) != n {
		t.Errorf("%d came, want %d", len(seen), n)
	}
}

// Who goes away while his message waits for its turn has not sent it.
func TestSendingIsGivenUp(t *testing.T) {
	o := openQueue(t, t.TempDir(), Config{Partitions: 1})
	s := &o.parts[0].sender
	s.mu.Lock()
	s.batch = true // one that does not end
	s.mu.Unlock()
	gone := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, err := o.Push(ctx, invocation("f", faas.Wait{}))
		gone <- err
	}()
	for waiting := 0; waiting == 0; {
		s.mu.Lock()
		waiting = len(s.waiting)
		s.mu.Unlock()
	}
	cancel()
	if err := <-gone; err == nil {
		t.Error("it was accepted")
	}
	s.mu.Lock()
	s.batch = false
	s.mu.Unlock()
	if n := o.parts[0].underway(); n != 0 {
		t.Errorf("%d publications count as under way", n)
	}
	o.push(t, "f", faas.Wait{})
	if got := lies(t, o.parts[0]); got != 1 {
		t.Errorf("%d messages are stored, want the second", got)
	}
}
