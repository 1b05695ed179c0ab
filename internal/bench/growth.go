package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
)

// growth makes calls of every kind and looks what the server holds more of afterwards.
func (b *bench) growth(ctx context.Context) error {
	p, err := b.start(ctx, soonGone)
	if err != nil {
		return err
	}
	defer p.stop()
	// The first of each kind make what stays on purpose: pools, zygotes, stems.
	if err := b.mixed(ctx, p, min(b.cfg.Calls/10, 2000)); err != nil {
		return err
	}
	before, stoodBefore, err := b.rest(ctx, p)
	if err != nil {
		return err
	}
	goroutines, heap := p.goroutines(), p.heapKB()
	began := time.Now()
	if err := b.mixed(ctx, p, b.cfg.Calls); err != nil {
		return err
	}
	took := time.Since(began)
	after, standsAfter, err := b.rest(ctx, p)
	if err != nil {
		return err
	}
	b.result.printf("\n%d mixed calls in %.0f s\n  before %+v, %d goroutines, heap %d kB\n  after  %+v, %d goroutines, heap %d kB\n",
		b.cfg.Calls, took.Seconds(), before, goroutines, heap, after, p.goroutines(), p.heapKB())
	b.result.note("growth_calls", b.cfg.Calls)
	b.result.note("growth_before", before)
	b.result.note("growth_after", after)
	b.result.note("growth_stood_before", stoodBefore)
	b.result.note("growth_stands_after", standsAfter)
	b.result.printf("  stood before %v\n  stands after %v\n", stoodBefore, standsAfter)
	b.result.note("growth_goroutines", p.goroutines()-goroutines)
	b.result.note("growth_heap_kb", p.heapKB()-heap)
	b.result.set("growth_after_100k", float64(after.over(before)))
	return nil
}

// rest waits until the server holds as little as it comes to hold, and returns that: the pools
// are as full as a minute without calls leaves them. With it comes what the server says of what
// stands ready, by what it is.
func (b *bench) rest(ctx context.Context, p *platform) (footprint, map[string]int, error) {
	if err := b.gone(ctx, p); err != nil {
		return footprint{}, nil, err
	}
	least := look(p.cmd.Process.Pid, prefix)
	for since := time.Now(); time.Since(since) < 75*time.Second && ctx.Err() == nil; {
		time.Sleep(time.Second)
		least = least.least(look(p.cmd.Process.Pid, prefix))
	}
	stands := map[string]int{}
	for _, in := range p.settle(ctx, 0).Instances {
		stands["instance of "+in.Function]++
	}
	for _, s := range p.settle(ctx, 0).Stems {
		stands["stem of "+s.Class] += s.Ready
	}
	return least, stands, ctx.Err()
}

// mixed makes calls of every kind: most warm, the others rarer the dearer they are.
func (b *bench) mixed(ctx context.Context, p *platform, calls int) error {
	l := b.batches["python-growth"]
	kinds := []struct {
		of1000 int
		path   func() string
		want   int
	}{
		{860, func() string { return "default/python" }, 200},
		{50, func() string { return "default/fail" }, 502},
		{40, func() string { return "default/python-pristine" }, 200},
		{30, func() string { return l.name(rand.IntN(l.n)).String() }, 200},
		{10, func() string { return "default/node" }, 200},
		{4, func() string { return "default/exec" }, 200},
		{2, func() string { return "default/slow" }, 504},
		{4, nil, 0}, // code that is not deployed
	}
	var next, wrong atomic.Int64
	var wg sync.WaitGroup
	var once sync.Once
	var first error
	note := func(err error) {
		wrong.Add(1)
		once.Do(func() { first = err })
	}
	for range 8 {
		c, err := dial(ctx, p.addr)
		if err != nil {
			return err
		}
		wg.Go(func() {
			defer func() { c.close() }()
			for int(next.Add(1)) <= calls && ctx.Err() == nil {
				turn := rand.IntN(1000)
				kind := kinds[0]
				for _, k := range kinds {
					if kind = k; turn < k.of1000 {
						break
					}
					turn -= k.of1000
				}
				if kind.path == nil {
					if _, err := p.client.Run(ctx, "default", api.Spec{Language: "python"}, api.Code{Filename: "hello.py", Reader: strings.NewReader(pythonCode)}, api.CallOptions{}, strings.NewReader(Input)); err != nil {
						note(fmt.Errorf("run code: %w", err))
					}
					continue
				}
				path := kind.path()
				a, err := c.do(post(p.addr, "/f/"+path+"/", "", Input))
				if err != nil {
					note(err)
					c.close()
					if c, err = dial(ctx, p.addr); err != nil {
						return
					}
				} else if a.status != kind.want {
					note(fmt.Errorf("%s: status %d: %.200s", path, a.status, a.body))
				}
			}
		})
	}
	wg.Wait()
	if n := wrong.Load(); n > 0 {
		b.result.printf("%d of %d mixed calls were answered otherwise than meant, the first: %v\n", n, calls, first)
	}
	return ctx.Err()
}
