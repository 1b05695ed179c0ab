package api

import (
	"context"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// places bounds how many bring code at once, together and for each namespace, so that one with
// slow uploads does not keep the others from theirs.
type places struct {
	all chan struct{} // holds a token for each
	mu  sync.Mutex
	of  map[string]chan struct{} // guarded by mu; by namespace, whose number is bounded by the catalog
}

func newPlaces(n int) *places {
	return &places{all: make(chan struct{}, n), of: map[string]chan struct{}{}}
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
	ctx, cancel := context.WithTimeoutCause(ctx, patience, faas.Errorf(faas.Overloaded, "receive code", "as many uploads are under way as may be").
		WithLimit("uploads").WithFix("send it again in a moment"))
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
