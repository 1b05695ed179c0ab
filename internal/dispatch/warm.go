package dispatch

import (
	"context"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// prefetcher is a Node that can make itself ready for a call before it comes.
type prefetcher interface {
	// Prefetch has an instance ready for the next call of the revision.
	Prefetch(ctx context.Context, rev *faas.Revision) ([]faas.Tree, error)
}

const (
	warmMost    = 2                // at once: what is certain to run comes before what is likely to
	warmAgain   = 30 * time.Second // an instance stays for longer
	warmTimeout = 30 * time.Second
	maxWarmed   = 1024
)

// warmer makes ready what comes next.
type warmer struct {
	work sync.WaitGroup

	mu     sync.Mutex
	under  int                           // guarded by mu
	warmed map[faas.RevisionID]time.Time // guarded by mu; when that was begun
}

// warmNext has the node make ready the function that gets the answer, while the one before runs.
func (d *Dispatcher) warmNext(ctx context.Context, inv *faas.Invocation, h handOn) {
	if !h.isFunction() {
		return
	}
	if target, err := h.to.Target(inv.Function.Name.Namespace); err == nil {
		d.makeReady(ctx, target)
	}
}

// makeReady has the node make ready a function that will be called soon; of a sequence, its first step.
func (d *Dispatcher) makeReady(ctx context.Context, target faas.Name) {
	node, can := d.cfg.Node.(prefetcher)
	if !can {
		return
	}
	_, rev, err := d.cfg.Catalog.Resolve(faas.Ref{Name: target})
	for deep := 0; err == nil && rev.Sequence != nil; deep++ {
		if deep == faas.MaxSteps || len(rev.Sequence.Steps) == 0 {
			return
		}
		_, rev, err = d.cfg.Catalog.Resolve(faas.Ref{Name: rev.Sequence.Steps[0]})
	}
	if err != nil || d.builtin(rev) != nil || !d.warmer.begin(rev.ID) {
		return
	}
	// The call may end before the next one is ready, which is none the less wanted.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), warmTimeout)
	d.warmer.work.Go(func() {
		defer cancel()
		defer d.warmer.end()
		if _, err := node.Prefetch(ctx, rev); err != nil {
			d.cfg.Logger.Debug("next function not made ready", "function", target, "cause", err) // its call will say it
		}
	})
}

func (w *warmer) begin(id faas.RevisionID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.under >= warmMost || time.Since(w.warmed[id]) < warmAgain {
		return false
	}
	if w.warmed == nil || len(w.warmed) >= maxWarmed {
		w.warmed = map[faas.RevisionID]time.Time{}
	}
	w.warmed[id] = time.Now()
	w.under++
	return true
}

func (w *warmer) end() {
	w.mu.Lock()
	w.under--
	w.mu.Unlock()
}
