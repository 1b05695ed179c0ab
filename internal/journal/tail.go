package journal

import (
	"context"
	"sync"

	"github.com/brasa-dev/brasa/internal/faas"
)

// maxBehind is how many activations a reader of Tail may leave waiting.
const maxBehind = 50_000

// tail is one reader. Record offers to it under Journal.mu and never waits.
type tail struct {
	query Query
	mu    sync.Mutex
	queue []*faas.Activation // guarded by mu
	ended bool               // guarded by mu
	news  chan struct{}      // holds one: there is something in the queue, or ended
}

func (t *tail) offer(a *faas.Activation) {
	if !t.query.matches(a) {
		return
	}
	t.mu.Lock()
	if len(t.queue) >= maxBehind {
		t.ended = true
	}
	if !t.ended {
		t.queue = append(t.queue, a)
	}
	t.mu.Unlock()
	t.tell()
}

func (t *tail) end() {
	t.mu.Lock()
	t.ended = true
	t.mu.Unlock()
	t.tell()
}

func (t *tail) tell() {
	select {
	case t.news <- struct{}{}:
	default:
	}
}

// Tail delivers every activation that is recorded from the call of Tail on and matches the query,
// each once, in the order in which they were recorded, with all of its logs. Times, Limit and
// Cursor of the query do not matter: whoever wants the past too calls Tail first, then Find, and
// leaves out what Find had. The channel is closed when ctx ends, when the journal is closed, or
// when the reader is 50,000 behind.
func (j *Journal) Tail(ctx context.Context, q Query) (<-chan *faas.Activation, error) {
	t := &tail{query: q, news: make(chan struct{}, 1)}
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil, faas.Errorf(faas.Unavailable, "tail activations", "the journal is closed")
	}
	j.tails[t] = struct{}{}
	j.mu.Unlock()
	out := make(chan *faas.Activation)
	go func() {
		defer close(out)
		defer func() {
			j.mu.Lock()
			delete(j.tails, t)
			j.mu.Unlock()
		}()
		for {
			t.mu.Lock()
			queue, ended := t.queue, t.ended
			t.queue = nil
			t.mu.Unlock()
			for _, a := range queue {
				select {
				case out <- a:
				case <-ctx.Done():
					return
				}
			}
			if ended {
				return
			}
			select {
			case <-t.news:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}
