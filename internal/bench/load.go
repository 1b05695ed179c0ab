package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Side is one of the things that are compared.
type Side struct {
	Name string
	Addr string   // host and port
	Path []string // called in turn
	PID  int      // root of the process tree whose processor time counts; 0: none

	// Do, if set, is one call instead of an HTTP request.
	Do func(ctx context.Context) error
	// Once says that a path is called once only, and for an instance that is made for it.
	Once bool
	// Pause between calls, and between a side's blocks.
	Pause time.Duration

	next int // of Path; sides of one client only
}

// warmUp is how many calls of each function a warm-up has at least: as many as make the instances that
// it comes to have under the load.
const warmUp = 40

// Compare calls the sides in turn, in blocks, until each has had calls many calls, clients at
// once. The first block of each is a warm-up and not counted, save for sides with Once.
func Compare(ctx context.Context, sides []*Side, calls, clients, blocks int) ([]*Sample, error) {
	samples := make([]*Sample, len(sides))
	for i := range sides {
		samples[i] = &Sample{Name: sides[i].Name}
	}
	per := max(1, calls/blocks)
	for block := -1; block < blocks; block++ {
		for i, side := range sides {
			if ctx.Err() != nil {
				return samples, ctx.Err()
			}
			n := per
			if block < 0 {
				if side.Once {
					continue
				}
				n = max(min(per, 200), warmUp*len(side.Path))
			}
			got, err := run(ctx, side, n, clients)
			if err != nil {
				return samples, fmt.Errorf("%s: %w", side.Name, err)
			}
			if block < 0 {
				if got.Failure != nil {
					return samples, fmt.Errorf("%s: %w", side.Name, got.Failure)
				}
				continue
			}
			samples[i].join(got)
		}
	}
	return samples, nil
}

// run is one block.
func run(ctx context.Context, side *Side, calls, clients int) (*Sample, error) {
	total := &Sample{Name: side.Name}
	callers := make([]*caller, clients)
	if side.Do == nil {
		for i := range callers {
			c, err := dial(ctx, side.Addr)
			if err != nil {
				return nil, err
			}
			defer c.close()
			callers[i] = c
		}
	}
	requests := make([][]byte, len(side.Path))
	for i, path := range side.Path {
		requests[i] = post(side.Addr, path, "", Input)
	}
	// A first request opens what the connection needs on the server's side.
	if side.Once && side.Do == nil {
		for _, c := range callers {
			if _, err := c.do([]byte("GET /readyz HTTP/1.1\r\nHost: " + side.Addr + "\r\n\r\n")); err != nil {
				return nil, err
			}
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	cpu, own := treeCPU(side.PID)
	began := time.Now()
	first := side.next
	for i := range clients {
		n := calls / clients
		if i < calls%clients {
			n++
		}
		wg.Go(func() {
			mine := &Sample{}
			for k := range n {
				if ctx.Err() != nil {
					break
				}
				if side.Pause > 0 {
					time.Sleep(side.Pause)
				}
				at := time.Now()
				if side.Do != nil {
					err := side.Do(ctx)
					mine.note(time.Since(at), err)
					continue
				}
				turn := first + k*clients + i
				if side.Once && turn >= len(side.Path) {
					mine.note(0, errors.New("there are too few functions"))
					break
				}
				a, err := callers[i].do(requests[turn%len(requests)])
				took := time.Since(at)
				if err == nil {
					err = a.want()
				}
				if err == nil && side.Once && a.start == "warm" {
					mine.Warm++
					continue
				}
				mine.note(took, err)
				mine.start(a.start)
			}
			mu.Lock()
			defer mu.Unlock()
			total.join(mine)
		})
	}
	wg.Wait()
	side.next += calls
	total.busy = time.Since(began)
	cpuAfter, ownAfter := treeCPU(side.PID)
	total.cpu, total.own = max(cpuAfter-cpu, 0), max(ownAfter-own, 0)
	return total, nil
}
