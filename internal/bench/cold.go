package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// pauses between cold calls of one client: functions that are called once in a while, with time
// for the platform to make ready what the last call took. That is what a language takes to boot, on
// a processor that is not all its own.
var pauses = map[string]time.Duration{"python": pause, "exec": pause, "node": 200 * time.Millisecond, "java": 700 * time.Millisecond}

const pause = 20 * time.Millisecond

// cold measures first calls of functions that have no instance.
func (b *bench) cold(ctx context.Context) error {
	p, err := b.start(ctx, soonGone)
	if err != nil {
		return err
	}
	defer p.stop()
	p.settle(ctx, 2*time.Second)
	for _, lang := range []string{"python", "node", "java", "exec"} {
		l := b.batches[lang+"-cold"]
		if l == nil {
			err := b.need(lang)
			if err == nil {
				err = errors.New("not prepared")
			}
			b.result.skip(err.Error(), lang+"_cold_p50_ms", lang+"_cold_p99_ms")
			continue
		}
		// The first calls of a language after a start are a class of their own: they warm the
		// server. They are told apart and not left out of sight.
		ours := p.side("brasa "+lang, l.names(0, l.n)...)
		ours.Once, ours.Pause = true, pauses[lang]
		first, err := run(ctx, ours, 5, 1)
		if err != nil {
			return err
		}
		b.result.note(lang+"_cold_first_five_ms", ms(slices.Max(append(first.took, 0))))
		sides := []*Side{ours}
		if bare := b.bare(lang); bare != nil {
			sides = append(sides, bare)
		}
		got, err := Compare(ctx, sides[:1], l.n-5, 1, 6)
		if err != nil {
			return err
		}
		if len(sides) > 1 {
			more, err := Compare(ctx, sides[1:], 40, 1, 4)
			if err != nil {
				return err
			}
			got = append(got, more...)
			b.result.set(lang+"_bare_p50_ms", ms(more[0].Quantile(.5)))
		}
		rested, err := b.rested(ctx, lang)
		if err != nil {
			return err
		}
		b.result.table("cold "+lang, append(got, rested...)...)
		b.result.quantiles(lang+"_cold", got[0])
	}
	return nil
}

// rested measures what does nothing new after the same pauses: net/http, and a bare process of the
// language that has served before. What of a cold call is the machine's own waking up is seen by them.
func (b *bench) rested(ctx context.Context, lang string) ([]*Sample, error) {
	sides := []*Side{b.plain.side("plain net/http, rested")}
	floor, err := b.floor(lang, 1)
	if err != nil {
		return nil, err
	}
	if floor != nil {
		defer floor.stop()
		sides = append(sides, floor.side("bare "+lang+" process, warm and rested"))
	}
	for _, s := range sides {
		s.Pause = min(pauses[lang], 10*pause)
	}
	got, err := Compare(ctx, sides, 60, 1, 3)
	if err != nil {
		return nil, err
	}
	b.result.note(lang+"_rested_plain_p50_ms", ms(got[0].Quantile(.5)))
	if floor != nil {
		b.result.note(lang+"_rested_bare_p50_ms", ms(got[1].Quantile(.5)))
	}
	return got, nil
}

// packages measures functions that load a package which takes longer than the language. Each is
// called once, so that whatever the platform keeps of it is made, then again when its instance
// is gone.
func (b *bench) packages(ctx context.Context) error {
	for _, l := range []struct{ key, prefix, template string }{
		{"python_numpy", "numpy-cold", "numpy"}, {"node_express", "express-cold", "express"},
	} {
		if err := b.need(l.template); err != nil {
			b.result.skip(err.Error(), l.key+"_cold_p50_ms")
			continue
		}
		if err := b.onePackage(ctx, l.key, b.batches[l.prefix]); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) onePackage(ctx context.Context, key string, l *batch) error {
	p, err := b.start(ctx, soonGone)
	if err != nil {
		return err
	}
	defer p.stop()
	p.settle(ctx, 2*time.Second)
	ours := p.side("brasa, first call", l.names(0, l.n)...)
	ours.Pause = pause
	first, err := run(ctx, ours, l.n, 1)
	if err != nil {
		return err
	}
	if err := b.gone(ctx, p); err != nil {
		return err
	}
	ours = p.side("brasa, when it was idle", l.names(0, l.n)...)
	ours.Pause = pause
	again, err := run(ctx, ours, l.n, 1)
	if err != nil {
		return err
	}
	b.result.table("cold "+key, again, first)
	b.result.quantiles(key+"_cold", again)
	b.result.quantiles(key+"_first", first)
	return nil
}

// gone waits until no instance is left of those that have served a call.
func (b *bench) gone(ctx context.Context, p *platform) error {
	for range 150 {
		nodes, err := p.client.Nodes(ctx)
		if err != nil {
			return err
		}
		left := 0
		for _, n := range nodes {
			for _, in := range n.Instances {
				if in.Calls > 0 {
					left++
				}
			}
		}
		if left == 0 {
			p.settle(ctx, 300*time.Millisecond)
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New("idle instances did not end")
}

// empty measures cold calls when no stem stands ready.
func (b *bench) empty(ctx context.Context) error {
	// One byte: there is room for no stem at all.
	p, err := b.start(ctx, soonGone, "BRASA_STEMS_MEMORY=1")
	if err != nil {
		return err
	}
	defer p.stop()
	p.settle(ctx, 2*time.Second)
	l := b.batches["python-empty"]
	ours := p.side("brasa python", l.names(0, l.n)...)
	ours.Once, ours.Pause = true, pause
	if _, err := run(ctx, ours, 5, 1); err != nil {
		return err
	}
	got, err := Compare(ctx, []*Side{ours}, l.n-5, 1, 5)
	if err != nil {
		return err
	}
	b.result.table("cold python without a stem", got...)
	b.result.quantiles("python_pool_empty", got[0])
	return nil
}

// burst measures first calls of one function that arrive at the same time.
func (b *bench) burst(ctx context.Context) error {
	l := b.batches["python-burst"]
	var total []time.Duration
	failed := 0
	for i := range 3 {
		p, err := b.start(ctx, soonGone)
		if err != nil {
			return err
		}
		p.settle(ctx, 2*time.Second)
		took, s, err := volley(ctx, p.addr, post(p.addr, "/f/"+l.name(i).String()+"/", "", Input), b.cfg.Many)
		n := p.settle(ctx, 0)
		p.stop()
		if err != nil {
			return err
		}
		total, failed = append(total, took), failed+s.Failed
		s.busy = took
		b.result.table(fmt.Sprintf("burst of %d, round %d", b.cfg.Many, i+1), s)
		b.result.printf("  %.2f s in all, %d failed (%v), %d instances\n", took.Seconds(), s.Failed, s.Failure, len(n.Instances))
	}
	slices.Sort(total)
	b.result.set("burst_1000_total_s", total[1].Seconds())
	b.result.set("burst_1000_failed", float64(failed))
	return nil
}

// volley sends one request on each of n connections at once, and returns the time from the first
// sent to the last answered.
func volley(ctx context.Context, addr string, request []byte, n int) (time.Duration, *Sample, error) {
	callers := make([]*caller, n)
	for i := range callers {
		c, err := dial(ctx, addr)
		if err != nil {
			return 0, nil, err
		}
		defer c.close()
		if _, err := c.do([]byte("GET /readyz HTTP/1.1\r\nHost: " + addr + "\r\n\r\n")); err != nil {
			return 0, nil, err
		}
		callers[i] = c
	}
	total := &Sample{Name: fmt.Sprintf("%d calls", n)}
	var mu sync.Mutex
	var wg sync.WaitGroup
	start := make(chan struct{})
	for _, c := range callers {
		wg.Go(func() {
			<-start
			at := time.Now()
			a, err := c.do(request)
			took := time.Since(at)
			if err == nil {
				err = a.want()
			}
			mu.Lock()
			defer mu.Unlock()
			total.note(took, err)
			total.start(a.start)
		})
	}
	began := time.Now()
	close(start)
	wg.Wait()
	return time.Since(began), total, nil
}

// rate measures how many functions a second can be called for the first time, for as long as
// there are functions.
func (b *bench) rate(ctx context.Context) error {
	p, err := b.start(ctx, soonGone)
	if err != nil {
		return err
	}
	defer p.stop()
	p.settle(ctx, 2*time.Second)
	const (
		clients = 8
		least   = 10 * time.Second
	)
	l := b.batches["python-rate"]
	var next atomic.Int64
	var mu sync.Mutex
	var wg sync.WaitGroup
	total := &Sample{Name: "brasa python"}
	cpu, _ := treeCPU(p.cmd.Process.Pid)
	began := time.Now()
	for range clients {
		c, err := dial(ctx, p.addr)
		if err != nil {
			return err
		}
		wg.Go(func() {
			defer c.close()
			for time.Since(began) < least && ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= l.n {
					return
				}
				at := time.Now()
				a, err := c.do(post(p.addr, "/f/"+l.name(i).String()+"/", "", Input))
				took := time.Since(at)
				if err == nil {
					err = a.want()
				}
				mu.Lock()
				total.note(took, err)
				total.start(a.start)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	total.busy = time.Since(began)
	after, _ := treeCPU(p.cmd.Process.Pid)
	total.cpu = after - cpu
	b.result.table(fmt.Sprintf("first calls of distinct functions, %d clients", clients), total)
	if total.Failed > 0 {
		b.result.note("cold_starts_failed", total.Failed)
	}
	b.result.set("cold_starts_per_s", float64(len(total.took)-total.Failed)/total.busy.Seconds())
	return nil
}
