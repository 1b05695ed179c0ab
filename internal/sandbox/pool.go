package sandbox

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// pool keeps a few objects ready that take long to make.
type pool[T any] struct {
	ready   chan T
	taken   chan struct{} // has room for one: something was taken
	low     chan struct{} // has room for one: half or less is left
	make    func() (T, error)
	destroy func(T)
}

func newPool[T any](size int, create func() (T, error), destroy func(T)) *pool[T] {
	return &pool[T]{ready: make(chan T, size), taken: make(chan struct{}, 1), low: make(chan struct{}, 1), make: create, destroy: destroy}
}

// take returns a ready object, or makes one when there is none.
func (p *pool[T]) take(ctx context.Context) (T, error) {
	select {
	case v := <-p.ready:
		notify(p.taken)
		if len(p.ready) <= cap(p.ready)/2 {
			notify(p.low)
		}
		return v, nil
	default:
		if err := ctx.Err(); err != nil {
			var none T
			return none, err
		}
		return p.make()
	}
}

func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// refillAfter lets the start that took something go first: making the next one at once would
// take the core, and the spawner, away from it. A pool that runs low does not wait.
const refillAfter = 3 * time.Millisecond

// retryAfter is for makers that fail: out of descriptors, perhaps; it may pass.
const retryAfter = time.Second

// fill keeps the pool full until ctx ends.
func (p *pool[T]) fill(ctx context.Context, log *slog.Logger) {
	for ctx.Err() == nil {
		wait := refillAfter
		for len(p.ready) < cap(p.ready) && ctx.Err() == nil {
			v, err := p.make()
			if err != nil {
				if ctx.Err() != nil || errors.Is(err, errSpawnerGone) {
					return // a pool of nests ends with its spawner
				}
				log.Warn("pool not filled", "err", err)
				wait = retryAfter
				break
			}
			p.ready <- v // has room: nobody else puts in
		}
		if wait == refillAfter {
			select {
			case <-p.taken:
			case <-ctx.Done():
				return
			}
		}
		low := p.low
		if wait == retryAfter {
			low = nil
		}
		select {
		case <-time.After(wait):
		case <-low:
		case <-ctx.Done():
		}
	}
}

// drain destroys what is ready. Nothing may fill or take any more.
func (p *pool[T]) drain() {
	for {
		select {
		case v := <-p.ready:
			p.destroy(v)
		default:
			return
		}
	}
}
