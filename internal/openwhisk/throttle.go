package openwhisk

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// throttle counts what namespaces do in a minute of the clock and at once. What is in flight are the calls
// that somebody waits for, which are counted here, and those that nobody waits for, which the queue knows,
// also after a restart.
type throttle struct {
	queued func(namespace string) int // calls that nobody waits for, and that have not ended; nil: there are none

	mu        sync.Mutex
	minute    int64            // guarded by mu; that what follows is of
	calls     map[string]int   // guarded by mu; by namespace, in this minute
	fires     map[string]int   // guarded by mu; by namespace, in this minute
	now       map[string]int   // guarded by mu; calls under way, and those that are being accepted
	accepting map[string]int   // guarded by mu; of now, those that the queue may have counted already
	freed     chan struct{}    // guarded by mu; closed when one of accepting is over; nil: nobody waits for that
	clock     func() time.Time // nil: now
}

// enter counts a call of a namespace that somebody waits for and takes a place for it. release gives the
// place back.
func (t *throttle) enter(ctx context.Context, namespace string, l *Limits) (release func(), err error) {
	return t.take(ctx, namespace, l, true, false)
}

// accept counts a call of a namespace that nobody waits for. accepted is to be called when it is in the
// queue, or will not come there. An event that a source holds until it is taken is not counted in the
// minute, which it would else fill by being told again.
func (t *throttle) accept(ctx context.Context, namespace string, l *Limits, event bool) (accepted func(), err error) {
	return t.take(ctx, namespace, l, !event, true)
}

func (t *throttle) take(ctx context.Context, namespace string, l *Limits, timed, queued bool) (release func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		t.turn()
		if n := t.calls[namespace]; timed && n >= l.InvocationsPerMinute {
			return nil, reject(http.StatusTooManyRequests, "Too many requests in the last minute (count: %d, allowed: %d).", n+1, l.InvocationsPerMinute)
		}
		n := t.now[namespace]
		if t.queued != nil {
			n += t.queued(namespace)
		}
		if n < l.Concurrent {
			break
		}
		if n-t.accepting[namespace] >= l.Concurrent {
			return nil, reject(http.StatusTooManyRequests, "Too many concurrent requests in flight (count: %d, allowed: %d).", n+1, l.Concurrent)
		}
		// A call that is being accepted may stand in both counts. It does so for the time of a write.
		if err := t.wait(ctx); err != nil {
			return nil, err
		}
	}
	if timed {
		t.calls[namespace]++
	}
	t.now[namespace]++
	if queued {
		t.accepting[namespace]++
	}
	return sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		less(t.now, namespace)
		if queued {
			less(t.accepting, namespace)
			if t.freed != nil {
				close(t.freed)
				t.freed = nil
			}
		}
	}), nil
}

// wait returns when a call has been accepted. mu is held, and let go meanwhile.
func (t *throttle) wait(ctx context.Context) error {
	if t.freed == nil {
		t.freed = make(chan struct{})
	}
	freed := t.freed
	t.mu.Unlock()
	defer t.mu.Lock()
	select {
	case <-freed:
		return nil
	case <-ctx.Done():
		return faas.AsError(context.Cause(ctx))
	}
}

func less(counts map[string]int, namespace string) {
	if counts[namespace]--; counts[namespace] == 0 {
		delete(counts, namespace)
	}
}

// fire counts a fire of a trigger of a namespace.
func (t *throttle) fire(namespace string, l *Limits) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turn()
	if n := t.fires[namespace]; n >= l.FiresPerMinute {
		return reject(http.StatusTooManyRequests, "Too many requests in the last minute (count: %d, allowed: %d).", n+1, l.FiresPerMinute)
	}
	t.fires[namespace]++
	return nil
}

// turn begins to count anew when the clock's minute is another. mu is held.
func (t *throttle) turn() {
	clock := t.clock
	if clock == nil {
		clock = now
	}
	if minute := clock().Unix() / 60; minute != t.minute || t.calls == nil {
		t.minute, t.calls, t.fires = minute, map[string]int{}, map[string]int{}
	}
	if t.now == nil {
		t.now, t.accepting = map[string]int{}, map[string]int{}
	}
}
