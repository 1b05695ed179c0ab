package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/queue"
	"github.com/brasa-dev/brasa/internal/store"
)

const (
	enqueueClients = 64
	enqueueCalls   = 6000 // of each side in each round
	enqueueRounds  = 5
	enqueueBody    = 1024
	enqueueSpread  = 64 // functions
	bareStreams    = 16 // as many as the queue has

	idleCalls = 400 // of each kind
	idleBlock = 20
	idlePause = 10 * time.Millisecond
)

// enqueue measures how many calls the queue accepts for good, beside bare publications of the same
// body to streams of the same engine, which syncs each write.
func (b *bench) enqueue(ctx context.Context) error {
	e, err := store.Open(store.Config{Dir: filepath.Join(b.dir, "enqueue"), MaxBytes: 16 << 30})
	if err != nil {
		return err
	}
	defer e.Close()
	q, err := queue.Open(ctx, queue.Config{Engine: e})
	if err != nil {
		return err
	}
	defer q.Close()
	for i := range bareStreams {
		_, err := e.Stream(ctx, jetstream.StreamConfig{
			Name: fmt.Sprint("BARE-", i), Subjects: []string{fmt.Sprintf("bare.%d.>", i)}, Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew, MaxBytes: 4 << 30,
		})
		if err != nil {
			return err
		}
	}
	body := strings.Repeat("x", enqueueBody)
	push := func(i int) error {
		_, err := q.Push(ctx, &faas.Invocation{
			ID: faas.NewID(time.Now()), Function: faas.Ref{Name: faas.Name{Namespace: "default", Function: fmt.Sprint("f", i%enqueueSpread)}},
			Kind: faas.KindInvoke, Body: strings.NewReader(body), Length: enqueueBody, Wait: &faas.Wait{},
		})
		return err
	}
	publish := func(i int) error {
		_, err := e.JetStream().PublishMsg(ctx, &nats.Msg{Subject: fmt.Sprintf("bare.%d.x", i%bareStreams), Data: []byte(body)})
		return err
	}
	ours, bare := &Sample{Name: "queue"}, &Sample{Name: "bare publish"}
	var ratios []float64
	for round := range enqueueRounds + 1 { // the first warms up
		o, err := together(ctx, enqueueCalls, enqueueClients, push)
		if err != nil {
			return err
		}
		p, err := together(ctx, enqueueCalls, enqueueClients, publish)
		if err != nil {
			return err
		}
		if round > 0 {
			ours.join(o)
			bare.join(p)
			ratios = append(ratios, o.Rate()/p.Rate())
		}
	}
	b.result.table(fmt.Sprintf("calls accepted, %d callers", enqueueClients), ours, bare)
	slices.Sort(ratios)
	b.result.set("async_enqueue_ratio", ratios[len(ratios)/2])
	return nil
}

// together does something many times, by so many at once.
func together(ctx context.Context, n, clients int, do func(i int) error) (*Sample, error) {
	total := &Sample{}
	var next atomic.Int64
	var mu sync.Mutex
	var wg sync.WaitGroup
	began := time.Now()
	for range clients {
		wg.Go(func() {
			mine := &Sample{}
			for i := int(next.Add(1)) - 1; i < n && mine.Failure == nil && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				at := time.Now()
				err := do(i)
				mine.note(time.Since(at), err)
			}
			mu.Lock()
			defer mu.Unlock()
			total.join(mine)
		})
	}
	wg.Wait()
	total.busy = time.Since(began)
	if total.Failure == nil {
		total.Failure = ctx.Err()
	}
	return total, total.Failure
}

const whenCode = `
import time

def main(args):
    return {"at": time.time_ns()}
`

var whenAnswer = regexp.MustCompile(`"at":\s*(\d+)`)

// idle measures how much later a call begins whose caller does not wait, when nothing else is to be done.
func (b *bench) idle(ctx context.Context) error {
	p, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	if err := p.deploy(ctx, "default", "when", whenCode, faas.Limits{Memory: 64 * faas.MiB}); err != nil {
		return err
	}
	p.settle(ctx, time.Second)
	c, err := dial(ctx, p.addr)
	if err != nil {
		return err
	}
	defer c.close()
	key, err := os.ReadFile(filepath.Join(p.dir, "admin.key"))
	if err != nil {
		return err
	}
	auth := "Authorization: Bearer " + strings.TrimSpace(string(key)) + "\r\n"
	const path = "/v1/namespaces/default/"
	call := func(more string) []byte {
		return fmt.Appendf(nil, "POST %sfunctions/when/invoke HTTP/1.1\r\nHost: %s\r\n%s%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, p.addr, auth, more, len(Input), Input)
	}
	began := func(a answer, err error) (time.Time, error) {
		said := whenAnswer.FindStringSubmatch(a.body) // in the API's envelope, or without
		if err == nil && (a.status != 200 || said == nil) {
			err = fmt.Errorf("status %d: %.300s", a.status, a.body)
		}
		if err != nil {
			return time.Time{}, err
		}
		at, err := strconv.ParseInt(said[1], 10, 64)
		return time.Unix(0, at), err
	}
	direct := func() (time.Time, error) { return began(c.do(call(""))) }
	queued := func() (time.Time, error) {
		a, err := c.do(call("Prefer: respond-async\r\n"))
		if err != nil || a.status != 202 {
			return time.Time{}, fmt.Errorf("status %d: %.300s %w", a.status, a.body, err)
		}
		var accepted struct{ Data struct{ ID string } }
		if err := json.Unmarshal([]byte(a.body), &accepted); err != nil {
			return time.Time{}, err
		}
		return began(c.do(fmt.Appendf(nil, "GET %sactivations/%s/result?wait=10 HTTP/1.1\r\nHost: %s\r\n%s\r\n", path, accepted.Data.ID, p.addr, auth)))
	}
	kinds := []struct {
		s  *Sample
		do func() (time.Time, error)
	}{{&Sample{Name: "not waited for"}, queued}, {&Sample{Name: "waited for"}, direct}}
	for block := -1; block < idleCalls/idleBlock; block++ {
		for _, k := range kinds {
			for range idleBlock {
				time.Sleep(idlePause)
				at := time.Now()
				start, err := k.do()
				if err != nil {
					return err
				}
				if block >= 0 {
					k.s.note(start.Sub(at), nil)
					k.s.busy += time.Since(at)
				}
			}
		}
	}
	async, sync := kinds[0].s, kinds[1].s
	b.result.table("from the request to the function's first line", async, sync)
	b.result.set("async_idle_added_ms", ms(async.Quantile(.5)-sync.Quantile(.5)))
	b.result.note("async_idle_added_p99_ms", ms(async.Quantile(.99)-sync.Quantile(.99)))
	return nil
}
