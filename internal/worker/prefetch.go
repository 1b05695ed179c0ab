package worker

import (
	"context"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// Prefetch lays out on this machine all that a revision runs of, and has an instance ready for its
// next call, which finds nothing left to do. What each call begins a process of has no instance:
// sandboxes are made ready for it instead. It returns what was laid out and where it was.
func (w *Worker) Prefetch(ctx context.Context, rev *faas.Revision) ([]faas.Tree, error) {
	rt, err := w.cfg.Runtimes.Lookup(rev.Runtime)
	if err != nil {
		return nil, err
	}
	var t faas.Timing
	_, release, err := w.trees(ctx, rev, &t)
	if err != nil {
		return nil, err
	}
	defer release()
	if rev.Image != nil {
		mark := time.Now()
		_, from, free, err := w.cfg.Depot.RootFrom(ctx, rev.Image.Root)
		if err != nil {
			return nil, faas.AsError(err)
		}
		defer free()
		t.SetTrees(append(t.Trees(), faas.Tree{Target: "/", Digest: rev.Image.Root, Bytes: rev.Image.Bytes, From: from, US: time.Since(mark).Microseconds()}))
	}
	w.Expect(rev)
	if rt.Style == runtimes.StyleExec {
		return t.Trees(), nil
	}
	_, err = w.Prove(ctx, rev) // takes an idle instance, or makes one and leaves it idle
	return t.Trees(), err
}
