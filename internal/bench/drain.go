package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

const (
	drainClients = 64
	drainLooks   = 20 // at the memory, while calls are accepted and while they are worked off
)

// drain has many calls wait of a function whose queue is paused, and measures how fast they are worked off and
// what memory the server has meanwhile.
func (b *bench) drain(ctx context.Context) error {
	p, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	n := b.cfg.Drain
	if err := p.deploy(ctx, "default", "drained", pythonCode, faas.Limits{Memory: 64 * faas.MiB}); err != nil {
		return err
	}
	if _, err := p.client.PauseQueue(ctx, "default", "drained", true); err != nil {
		return err
	}
	p.settle(ctx, time.Second)
	key, err := os.ReadFile(filepath.Join(p.dir, "admin.key"))
	if err != nil {
		return err
	}
	request := fmt.Appendf(nil, "POST /v1/namespaces/default/functions/drained/invoke HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nPrefer: respond-async\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		p.addr, strings.TrimSpace(string(key)), len(Input), Input)
	callers := make(chan *caller, drainClients)
	for range drainClients {
		c, err := dial(ctx, p.addr)
		if err != nil {
			return err
		}
		defer c.close()
		callers <- c
	}
	peak := 0
	var looks []map[string]any
	look := func(when string, of float64) {
		now, most := p.resident()
		peak = max(peak, now)
		looks = append(looks, map[string]any{"when": when, "calls": int(of), "rss_mib": now})
		b.result.printf("  %-10s %9.0f calls  RSS %4d MiB, at most %4d\n", when, of, now, most)
	}
	b.result.printf("\n%d calls are accepted and worked off\n", n)
	look("empty", 0)
	accepted := &Sample{Name: "accepted, over HTTP"}
	for part := range drainLooks {
		from, to := n*part/drainLooks, n*(part+1)/drainLooks
		s, err := together(ctx, to-from, drainClients, func(int) error {
			c := <-callers
			a, err := c.do(request)
			callers <- c
			if err == nil && a.status != 202 {
				err = fmt.Errorf("status %d: %.300s", a.status, a.body)
			}
			return err
		})
		if err != nil {
			return err
		}
		accepted.join(s)
		look("accepted", float64(to))
	}
	waiting, _ := p.resident()
	if q, err := p.client.Queue(ctx, "default", "drained"); err != nil || q.Waiting != n {
		return fmt.Errorf("%d of %d calls wait: %w", q.Waiting, n, err)
	}
	began := time.Now()
	if _, err := p.client.PauseQueue(ctx, "default", "drained", false); err != nil {
		return err
	}
	for next, last := n-n/drainLooks, began; ; time.Sleep(50 * time.Millisecond) {
		q, err := p.client.Queue(ctx, "default", "drained")
		if err != nil {
			return err
		}
		left := q.Waiting + q.Running
		if left <= next || time.Since(last) > time.Minute {
			look("left", float64(left))
			next, last = min(next, left)-n/drainLooks, time.Now()
		}
		if q.Dead > 0 {
			return fmt.Errorf("%d calls were given up", q.Dead)
		}
		if left == 0 {
			break
		}
	}
	took := time.Since(began)
	rate := float64(n) / took.Seconds()
	b.result.printf("  accepted with %.0f/s, worked off with %.0f/s\n", accepted.Rate(), rate)
	b.result.set("async_drain_per_s", rate)
	b.result.note("async_drain_accepted_per_s", accepted.Rate())
	b.result.note("async_drain_calls", n)
	b.result.note("async_drain_waiting_rss_mib", waiting)
	b.result.note("async_drain_peak_rss_mib", peak)
	b.result.note("async_drain_memory", looks)
	return nil
}

// resident returns the server's memory in MiB, without that of its functions, and the most that it had.
func (p *platform) resident() (now, most int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(line, ":")
		kb, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(v), " kB"))
		switch k {
		case "VmRSS":
			now = kb >> 10
		case "VmHWM":
			most = kb >> 10
		}
	}
	return now, most
}
