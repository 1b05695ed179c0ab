package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/faas"
)

const (
	// crowdStep is how many callers there are at once after the step.
	crowdStep = 500
	stepTime  = 5 * time.Second
	// flashCalls is how many first calls of a function come at the same moment: as many as may wait.
	flashCalls = 2000
	// floodClients is how many callers one namespace has that call without a pause.
	floodClients = 64
	// besideEvery is the pause between the calls of the namespace beside it.
	besideEvery = 100 * time.Millisecond
	besideCalls = 60 // in each block
	floodBlocks = 4
)

const restCode = `
import time

def main(args):
    time.sleep(0.02)
    return {"greeting": "Hello, %s!" % args["name"]}
`

// deploy deploys a function for one measurement, in a namespace that is made if need be.
func (p *platform) deploy(ctx context.Context, namespace, name, code string, limits faas.Limits) error {
	if namespace != "default" {
		if _, err := p.client.CreateNamespace(ctx, namespace); err != nil && faas.CodeOf(err) != faas.Conflict {
			return err
		}
	}
	public := true
	_, err := p.client.Deploy(ctx, namespace, name, api.Spec{Language: "python", Public: &public, Limits: &limits}, api.Code{Filename: "hello.py", Reader: strings.NewReader(code)})
	return err
}

// standing returns how many instances of a function there are.
func standing(n api.Node, namespace, function string) (count int) {
	for _, in := range n.Instances {
		if in.Namespace == namespace && in.Function == function {
			count++
		}
	}
	return count
}

// step measures the step from nobody to five hundred callers at once, and back.
func (b *bench) step(ctx context.Context) error {
	p, err := b.start(ctx, soonGone)
	if err != nil {
		return err
	}
	defer p.stop()
	if err := p.deploy(ctx, "default", "step", restCode, faas.Limits{Memory: 32 * faas.MiB}); err != nil {
		return err
	}
	p.settle(ctx, time.Second)
	total, err := p.crowd(ctx, post(p.addr, "/f/default/step/", "", Input), crowdStep, stepTime)
	if err != nil {
		return err
	}
	most := standing(p.settle(ctx, 0), "default", "step")
	began := time.Now()
	left := most
	for left > 0 && time.Since(began) < 2*time.Minute && ctx.Err() == nil {
		left = standing(p.settle(ctx, time.Second), "default", "step")
	}
	b.result.table(fmt.Sprintf("step to %d callers", crowdStep), total)
	b.result.set("step_500_failed", float64(total.Failed))
	b.result.note("step_500_p99_ms", ms(total.Quantile(.99)))
	b.result.note("step_500_instances", most)
	b.result.note("step_500_gone_s", time.Since(began).Seconds())
	if left > 0 {
		return fmt.Errorf("%d instances are left two minutes after the step back", left)
	}
	return nil
}

// crowd has clients call without a pause for a time.
func (p *platform) crowd(ctx context.Context, request []byte, clients int, length time.Duration) (*Sample, error) {
	callers := make([]*caller, clients)
	for i := range callers {
		c, err := dial(ctx, p.addr)
		if err != nil {
			return nil, err
		}
		defer c.close()
		callers[i] = c
	}
	total := &Sample{Name: fmt.Sprintf("%d callers", clients)}
	var mu sync.Mutex
	var wg sync.WaitGroup
	began := time.Now()
	for _, c := range callers {
		wg.Go(func() {
			mine := &Sample{}
			for time.Since(began) < length && ctx.Err() == nil {
				at := time.Now()
				a, err := c.do(request)
				took := time.Since(at)
				if err == nil {
					err = a.want()
				}
				mine.note(took, err)
				mine.start(a.start)
				if err != nil {
					break // the connection may be of no use any more
				}
			}
			mu.Lock()
			defer mu.Unlock()
			total.join(mine)
		})
	}
	wg.Wait()
	total.busy = time.Since(began)
	return total, nil
}

// flash measures two thousand first calls at the same moment.
func (b *bench) flash(ctx context.Context) error {
	p, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	if err := p.deploy(ctx, "default", "flash", restCode, faas.Limits{Memory: 32 * faas.MiB}); err != nil {
		return err
	}
	p.settle(ctx, time.Second)
	took, total, err := volley(ctx, p.addr, post(p.addr, "/f/default/flash/", "", Input), flashCalls)
	if err != nil {
		return err
	}
	b.result.table(fmt.Sprintf("flash of %d calls", flashCalls), total)
	b.result.set("flash_2000_failed", float64(total.Failed))
	b.result.note("flash_2000_total_s", took.Seconds())
	b.result.note("flash_2000_instances", standing(p.settle(ctx, 0), "default", "flash"))
	return nil
}

// flood measures calls of one namespace while another calls as much as it can, and while it does not.
func (b *bench) flood(ctx context.Context) error {
	p, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	limits := faas.Limits{Memory: 64 * faas.MiB}
	if err := errors.Join(p.deploy(ctx, "flooding", "flood", restCode, limits), p.deploy(ctx, "beside", "small", restCode, limits)); err != nil {
		return err
	}
	p.settle(ctx, time.Second)
	beside := func(name string) (*Sample, error) {
		c, err := dial(ctx, p.addr)
		if err != nil {
			return nil, err
		}
		defer c.close()
		s := &Sample{Name: name}
		request := post(p.addr, "/f/beside/small/", "", Input)
		for range besideCalls {
			time.Sleep(besideEvery)
			at := time.Now()
			a, err := c.do(request)
			took := time.Since(at)
			if err == nil {
				err = a.want()
			}
			s.note(took, err)
			s.start(a.start)
		}
		return s, nil
	}
	alone, flooded := &Sample{Name: "alone"}, &Sample{Name: "beside a flood"}
	for range floodBlocks {
		got, err := beside("")
		if err != nil {
			return err
		}
		alone.join(got)
		flooding, stop := context.WithCancel(ctx)
		over := make(chan error, 1)
		go func() {
			_, err := p.crowd(flooding, post(p.addr, "/f/flooding/flood/", "", Input), floodClients, time.Hour)
			over <- err
		}()
		time.Sleep(time.Second)
		got, err = beside("")
		stop()
		if err = errors.Join(err, <-over); err != nil {
			return err
		}
		flooded.join(got)
		p.settle(ctx, time.Second)
	}
	b.result.table(fmt.Sprintf("calls beside %d callers of another namespace", floodClients), alone, flooded)
	if n := alone.Failed + flooded.Failed; n > 0 {
		return fmt.Errorf("%d calls failed: %w", n, errors.Join(alone.Failure, flooded.Failure))
	}
	b.result.set("flood_p99_ratio", float64(flooded.Quantile(.99))/float64(alone.Quantile(.99)))
	b.result.note("flood_p50_ratio", float64(flooded.Quantile(.5))/float64(alone.Quantile(.5)))
	return nil
}
