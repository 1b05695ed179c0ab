package queue

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// soakEnv is how many calls TestSoak has wait at once, as in
//
//	BRASA_QUEUE_SOAK=1000000 go test ./internal/queue -run TestSoak -v -timeout 2h
const soakEnv = "BRASA_QUEUE_SOAK"

// rss returns this process's memory in MiB, and the most that it had.
func rss(t *testing.T) (now, peak int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip("the system does not say what memory a process has")
	}
	for _, line := range strings.Split(string(b), "\n") {
		key, value, _ := strings.Cut(line, ":")
		kb, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		switch key {
		case "VmRSS":
			now = kb >> 10
		case "VmHWM":
			peak = kb >> 10
		}
	}
	return now, peak
}

// inParallel runs f for the numbers below n and returns how many were done in a second.
func inParallel(t *testing.T, n, workers int, f func(i int) error) float64 {
	t.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	begun := time.Now()
	for range workers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := f(i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return float64(n) / time.Since(begun).Seconds()
}

const soakFunctions = 8

// TestSoak has many calls wait at once and works them off: the memory is that of a tenth of them.
func TestSoak(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv(soakEnv))
	if err != nil {
		t.Skipf("takes many minutes; set %s to how many calls are to wait", soakEnv)
	}
	dir := os.Getenv("BRASA_QUEUE_SOAK_DIR") // a disk that is large enough
	if dir == "" {
		dir = t.TempDir()
	}
	o := openOn(t, store.Config{Dir: dir, MaxBytes: 64 << 30}, Config{})
	note := func(when string) int {
		debug.FreeOSMemory() // what is held, not what is yet to be collected
		now, peak := rss(t)
		t.Logf("%s: RSS %d MiB, peak %d MiB", when, now, peak)
		return now
	}
	note("empty")
	body := strings.Repeat("x", 200)
	push := func(i int) error {
		inv := invocation(fmt.Sprintf("f%d", i%soakFunctions), faas.Wait{})
		inv.Body, inv.Length = strings.NewReader(body), int64(len(body))
		_, err := o.Push(t.Context(), inv)
		return err
	}
	rate := inParallel(t, n/10, 64, push)
	t.Logf("pushed a tenth with %.0f/s", rate)
	tenth := note("a tenth waits")
	rate = inParallel(t, n-n/10, 64, push)
	t.Logf("pushed the rest with %.0f/s", rate)
	all := note("all wait")
	begun := time.Now()
	page, err := o.List(t.Context(), Filter{Namespace: "default", Limit: 30})
	must(t, err)
	t.Logf("the oldest %d were listed in %v", len(page), time.Since(begun))
	begun = time.Now()
	_, err = o.Find(t.Context(), "default", page[len(page)-1].ID)
	must(t, err)
	t.Logf("one was found in %v", time.Since(begun))

	begun = time.Now()
	o.stop(t)
	t.Logf("closed in %v", time.Since(begun))
	begun = time.Now()
	o = openOn(t, store.Config{Dir: dir, MaxBytes: 64 << 30}, Config{})
	t.Logf("opened again in %v", time.Since(begun))
	note("opened again")

	var came atomic.Int64
	halfway := make(chan struct{})
	go func() {
		for came.Load() < int64(n/2) {
			time.Sleep(100 * time.Millisecond)
		}
		close(halfway)
	}()
	begun = time.Now()
	var wg sync.WaitGroup
	for w := range 4 * soakFunctions {
		wg.Go(func() {
			f := name(fmt.Sprintf("f%d", w%soakFunctions))
			for {
				leases, err := o.Pull(t.Context(), f, 16)
				if err != nil || len(leases) == 0 {
					if err != nil {
						t.Error(err)
					}
					return
				}
				for _, l := range leases {
					if err := l.Done(t.Context()); err != nil {
						t.Error(err)
					}
					came.Add(1)
				}
			}
		})
	}
	<-halfway
	half := note("half is worked off")
	wg.Wait()
	t.Logf("worked off %d with %.0f/s", came.Load(), float64(came.Load())/time.Since(begun).Seconds())
	note("all is worked off")
	if came.Load() != int64(n) {
		t.Errorf("%d came, want %d", came.Load(), n)
	}
	if most := tenth + tenth/2 + 100; all > most || half > most {
		t.Errorf("%d MiB while all waited, %d MiB half-way; %d MiB with a tenth of it", all, half, tenth)
	}
}

// BenchmarkPush says how many calls are accepted in a second, beside messages of the same size that are
// published to bare streams of the same engine.
func BenchmarkPush(b *testing.B) {
	for _, workers := range []int{1, 64} {
		b.Run(fmt.Sprintf("by=%d", workers), func(b *testing.B) { benchmarkPush(b, workers) })
	}
}

func benchmarkPush(b *testing.B, workers int) { benchmarkPushTo(b, workers, 64, 16) }

func benchmarkPushTo(b *testing.B, workers, functions, streams int) {
	e, err := store.Open(store.Config{Dir: b.TempDir(), MaxBytes: 16 << 30})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	q, err := Open(context.Background(), Config{Engine: e})
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	for i := range streams {
		_, err := e.Stream(context.Background(), jetstream.StreamConfig{
			Name: fmt.Sprint("BARE-", i), Subjects: []string{fmt.Sprintf("bare.%d.>", i)}, Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew, MaxBytes: 1 << 30,
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	body := strings.Repeat("x", 1024)
	payload := make([]byte, 1024+600) // with what a call says of itself
	run := func(f func(i int) error) float64 {
		var next atomic.Int64
		var wg sync.WaitGroup
		begun := time.Now()
		for range workers {
			wg.Go(func() {
				for i := int(next.Add(1)) - 1; i < b.N; i = int(next.Add(1)) - 1 {
					if err := f(i); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		return float64(b.N) / time.Since(begun).Seconds()
	}
	var ours, bare []float64
	b.ResetTimer()
	for range 3 { // in turns, since the machine's other work comes and goes
		bare = append(bare, run(func(i int) error {
			_, err := e.JetStream().PublishMsg(context.Background(), &nats.Msg{Subject: fmt.Sprintf("bare.%d.x", i%streams), Data: payload})
			return err
		}))
		ours = append(ours, run(func(i int) error {
			inv := invocation(fmt.Sprintf("f%d", i%functions), faas.Wait{})
			inv.Body, inv.Length = strings.NewReader(body), int64(len(body))
			_, err := q.Push(context.Background(), inv)
			return err
		}))
	}
	slices.Sort(ours)
	slices.Sort(bare)
	b.ReportMetric(ours[1], "push/s")
	b.ReportMetric(bare[1], "publish/s")
	b.ReportMetric(ours[1]/bare[1], "ratio")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkFlood is BenchmarkPush of one function, whose calls all go to one stream.
func BenchmarkFlood(b *testing.B) { benchmarkPushTo(b, 64, 1, 1) }
