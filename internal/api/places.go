package api

import (
	"context"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// places bounds how many send something large at once, together and for each namespace, so that one
// with slow senders does not keep the others from theirs.
type places struct {
	full *faas.Error
	all  chan struct{} // holds a token for each
	mu   sync.Mutex
	of   map[string]chan struct{} // guarded by mu; by namespace, whose number is bounded by the catalog
}

// newPlaces returns n places. full is what those are told who get none in time.
func newPlaces(n int, full *faas.Error) *places {
	return &places{full: full, all: make(chan struct{}, n), of: map[string]chan struct{}{}}
}

// patience is how long a request waits for a place.
const patience = 10 * time.Second

// take waits for a place and returns how to give it back.
func (p *places) take(ctx context.Context, namespace string) (release func(), err error) {
	p.mu.Lock()
	own := p.of[namespace]
	if own == nil {
		own = make(chan struct{}, max(cap(p.all)/4, 1))
		p.of[namespace] = own
	}
	p.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, patience, p.full)
	defer cancel()
	select {
	case own <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	select {
	case p.all <- struct{}{}:
	case <-ctx.Done():
		<-own
		return nil, context.Cause(ctx)
	}
	return func() { <-p.all; <-own }, nil
}
