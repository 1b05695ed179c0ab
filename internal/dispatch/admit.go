package dispatch

import (
	"sync/atomic"

	"github.com/brasa-dev/brasa/internal/faas"
)

// admit takes a place among the calls that are on their way to the function and in its
// namespace. The place is given back by the function returned.
func (d *Dispatcher) admit(rev *faas.Revision) (release func(), err error) {
	d.calls.Add(1)
	if d.draining.Load() {
		d.calls.Done()
		return nil, faas.Errorf(faas.Unavailable, "admit call", "the server is shutting down").
			WithFix("send the call again in a few seconds")
	}
	fn, ns := d.counter(rev.Name.String()), d.counter(rev.Name.Namespace)
	release = func() {
		fn.Add(-1)
		ns.Add(-1)
		d.calls.Done()
	}
	nfn, nns := fn.Add(1), ns.Add(1)
	switch {
	case nfn > int64(d.cfg.MaxWaiting):
		release()
		return nil, faas.Errorf(faas.Overloaded, "admit call", "function %q has %d calls waiting or running, as many as it may", rev.Name, d.cfg.MaxWaiting).
			WithLimit("max_waiting").WithFix("send the call again later, or let the function serve more at once: brasa deploy PATH --concurrency N")
	case nns > int64(d.cfg.MaxNamespace):
		release()
		return nil, faas.Errorf(faas.Overloaded, "admit call", "namespace %q has %d calls waiting or running, as many as it may", rev.Name.Namespace, d.cfg.MaxNamespace).
			WithLimit("max_waiting_namespace").WithFix("send the call again later")
	}
	return release, nil
}

// counter returns the count of calls on their way under a key. A namespace has no slash and a
// function's full name has one, so they share a map. Counters are never removed: their number
// is bounded by the catalog's quotas, and that of ad-hoc code is one a namespace.
func (d *Dispatcher) counter(key string) *atomic.Int64 {
	d.mu.RLock()
	c := d.onTheWay[key]
	d.mu.RUnlock()
	if c != nil {
		return c
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if c = d.onTheWay[key]; c == nil {
		c = new(atomic.Int64)
		d.onTheWay[key] = c
	}
	return c
}
