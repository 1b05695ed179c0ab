package worker

import "github.com/brasa-dev/brasa/internal/faas"

// Check says why this node can never run a revision: it has not the language, or not the memory. It
// is nil where the next call may run.
func (w *Worker) Check(rev *faas.Revision) error {
	if _, err := w.cfg.Runtimes.Lookup(rev.Runtime); err != nil {
		return err
	}
	return w.fits(rev)
}
