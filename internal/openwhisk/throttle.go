package openwhisk

import (
	"net/http"
	"sync"
	"time"
)

// throttle counts what namespaces do in a minute of the clock and at once.
type throttle struct {
	mu     sync.Mutex
	minute int64            // guarded by mu; that what follows is of
	calls  map[string]int   // guarded by mu; by namespace, in this minute
	fires  map[string]int   // guarded by mu; by namespace, in this minute
	now    map[string]int   // guarded by mu; calls under way
	clock  func() time.Time // nil: now
}

// enter counts a call of a namespace and takes a place for it. release gives the place back.
func (t *throttle) enter(namespace string, l *Limits) (release func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turn()
	if n := t.calls[namespace]; n >= l.InvocationsPerMinute {
		return nil, reject(http.StatusTooManyRequests, "Too many requests in the last minute (count: %d, allowed: %d).", n+1, l.InvocationsPerMinute)
	}
	if n := t.now[namespace]; n >= l.Concurrent {
		return nil, reject(http.StatusTooManyRequests, "Too many concurrent requests in flight (count: %d, allowed: %d).", n+1, l.Concurrent)
	}
	t.calls[namespace]++
	t.now[namespace]++
	return sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.now[namespace]--; t.now[namespace] == 0 {
			delete(t.now, namespace)
		}
	}), nil
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
		t.now = map[string]int{}
	}
}
