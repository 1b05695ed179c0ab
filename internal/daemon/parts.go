package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// part is something that runs for as long as the node does.
type part struct {
	name string
	run  func(ctx context.Context) error
}

// running are the parts that were started, each with its own end, so that they can be stopped in
// the reverse of the order they were started in: what is nearer the door goes first.
type running struct {
	log    *slog.Logger
	parts  []runningPart
	failed chan error // the first failure of any
}

type runningPart struct {
	name string
	stop context.CancelFunc
	done chan struct{}
	err  *error // good after done
}

func newRunning(log *slog.Logger) *running {
	return &running{log: log, failed: make(chan error, 1)}
}

// start runs p until it is stopped. A part that returns before that has failed, and takes the
// node with it.
func (r *running) start(ctx context.Context, p part) {
	// The parts' lives do not hang on ctx itself: it ends for all at once, and they end in order.
	own, stop := context.WithCancel(context.WithoutCancel(ctx))
	done, result := make(chan struct{}), new(error)
	r.parts = append(r.parts, runningPart{p.name, stop, done, result})
	go func() {
		defer close(done)
		err := p.run(own)
		if own.Err() != nil && errors.Is(err, context.Canceled) {
			err = nil
		}
		*result = err
		if own.Err() == nil {
			if err == nil {
				err = errors.New("ended by itself")
			}
			select {
			case r.failed <- fmt.Errorf("%s: %w", p.name, err):
			default:
			}
		}
	}()
}

// stop ends the parts, the last started first, and waits for each.
func (r *running) stop() error {
	var errs []error
	for i := len(r.parts) - 1; i >= 0; i-- {
		p := r.parts[i]
		began := time.Now()
		p.stop()
		<-p.done
		if *p.err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", p.name, *p.err))
		}
		r.log.Debug("part stopped", "part", p.name, "took", time.Since(began))
	}
	r.parts = nil
	return errors.Join(errs...)
}
