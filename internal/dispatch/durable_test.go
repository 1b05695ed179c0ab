package dispatch_test

import (
	"context"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/dispatch"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/journal"
	"github.com/brasa-dev/brasa/internal/queue"
	"github.com/brasa-dev/brasa/internal/store"
)

// durable is a dispatcher on a queue and a journal that are on the disk.
func durable(t testing.TB, dir string, cfg dispatch.Config) (*dispatch.Dispatcher, *journal.Journal, *queue.Durable) {
	t.Helper()
	e, err := store.Open(store.Config{Dir: dir, MaxBytes: 8 << 30})
	if err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(t.Context(), journal.Config{Engine: e, Dir: filepath.Join(dir, "journal")})
	if err != nil {
		t.Fatal(err)
	}
	q, err := queue.Open(t.Context(), queue.Config{Engine: e, Dir: filepath.Join(dir, "queue")})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Queue, cfg.Journal, cfg.Recorder = q, j, j
	d := dispatch.New(cfg)
	ctx, stop := context.WithCancel(context.Background())
	parts := []func(context.Context) error{j.Run, q.Run, d.Run}
	ended := make(chan error, len(parts))
	for _, run := range parts {
		go func() { ended <- run(ctx) }()
	}
	t.Cleanup(func() {
		stop()
		for range parts {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		for _, c := range []interface{ Close() error }{q, j, e} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return d, j, q
}

func TestAThousandCallsOnTheDisk(t *testing.T) {
	const n = 1000
	var ran atomic.Int64
	d, j, q := durable(t, t.TempDir(), dispatch.Config{Catalog: deployed(t, map[string]*faas.Async{"default/f": {Backoff: quick}}), Node: &node{
		func(_ context.Context, _ *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
			if ran.Add(1)%10 == 0 && inv.Attempt < 3 {
				return nil, failed
			}
			return text("done"), nil
		}}})
	var ids []faas.ID
	for range n {
		id, err := d.Enqueue(t.Context(), call("default/f", faas.Wait{}))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	eventually(t, "nothing waits", func() bool {
		depths, err := q.Depths(t.Context(), "")
		return err == nil && !slices.ContainsFunc(depths, func(d queue.Depth) bool { return d.Waiting+d.Running > 0 })
	})
	for _, id := range ids {
		w, err := d.Standing(t.Context(), "default", id)
		if err != nil || w.Stage != faas.StageSucceeded {
			t.Errorf("%s is %s, %v", id, w.Stage, err)
		}
		if a, err := j.Get(t.Context(), "default", id); err != nil || string(a.Answer.Body) != "done" {
			t.Errorf("the answer of %s: %v", id, err)
		}
	}
}

// BenchmarkIdle measures what the queue adds on an idle system: from the acceptance to the begin of
// the function, and to where the outcome can be read.
func BenchmarkIdle(b *testing.B) {
	began := make(chan time.Time, 1)
	d, _, _ := durable(b, b.TempDir(), dispatch.Config{Catalog: deployedFor(b), Node: &node{
		func(context.Context, *faas.Revision, *faas.Invocation) (*faas.Result, error) {
			began <- time.Now()
			return text("done"), nil
		}}})
	var accepted, start, end []time.Duration
	for b.Loop() {
		at := time.Now()
		id, err := d.Enqueue(b.Context(), call("default/f", faas.Wait{}))
		if err != nil {
			b.Fatal(err)
		}
		in := time.Now()
		accepted, start = append(accepted, in.Sub(at)), append(start, max((<-began).Sub(in), 0))
		for {
			if w, err := d.Standing(b.Context(), "default", id); err == nil && w.Stage == faas.StageSucceeded {
				break
			}
		}
		end = append(end, time.Since(in))
	}
	for _, m := range []struct {
		of   []time.Duration
		name string
	}{{accepted, "accept"}, {start, "begin"}, {end, "outcome"}} {
		slices.Sort(m.of)
		b.ReportMetric(float64(m.of[len(m.of)/2].Microseconds()), m.name+"-p50-µs")
		b.ReportMetric(float64(m.of[len(m.of)*99/100].Microseconds()), m.name+"-p99-µs")
	}
}

// BenchmarkDrain measures how many calls a second leave the queue while nothing else is done.
func BenchmarkDrain(b *testing.B) {
	done := make(chan struct{})
	var ran atomic.Int64
	n := int64(b.N)
	d, _, q := durable(b, b.TempDir(), dispatch.Config{Catalog: deployedFor(b), Node: &node{
		func(context.Context, *faas.Revision, *faas.Invocation) (*faas.Result, error) {
			if ran.Add(1) == n {
				close(done)
			}
			return text("done"), nil
		}}})
	name := faas.Name{Namespace: "default", Function: "f"}
	if err := q.Pause(b.Context(), name, true); err != nil {
		b.Fatal(err)
	}
	for range b.N {
		if _, err := d.Enqueue(b.Context(), call("default/f", faas.Wait{})); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	if err := q.Pause(b.Context(), name, false); err != nil {
		b.Fatal(err)
	}
	<-done
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}
