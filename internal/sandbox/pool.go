package sandbox

import (
	"context"
	"log/slog"
	"time"
)

// pool keeps a few objects ready that take long to make.
type pool[T any] struct {
	ready   chan T
	make    func() (T, error)
	destroy func(T)
}

func newPool[T any](size int, make_ func() (T, error), destroy func(T)) *pool[T] {
	return &pool[T]{ready: make(chan T, size), make: make_, destroy: destroy}
}

// take returns a ready object, or makes one when there is none.
func (p *pool[T]) take(ctx context.Context) (T, error) {
	select {
	case v := <-p.ready:
		return v, nil
	default:
		if err := ctx.Err(); err != nil {
			var none T
			return none, err
		}
		return p.make()
	}
}

// fill keeps the pool full until ctx ends.
func (p *pool[T]) fill(ctx context.Context, log *slog.Logger) {
	if cap(p.ready) == 0 {
		return
	}
	for ctx.Err() == nil {
		v, err := p.make()
		if err != nil {
			log.Warn("pool not filled", "err", err)
			select { // out of descriptors, perhaps; it may pass
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
			continue
		}
		select {
		case p.ready <- v:
		case <-ctx.Done():
			p.destroy(v)
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
