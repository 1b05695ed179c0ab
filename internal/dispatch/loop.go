package dispatch

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/policy"
	"github.com/brasa-dev/brasa/internal/queue"
)

const (
	// A queue that fails is asked again after this, doubling.
	queueBackoff     = 50 * time.Millisecond
	queueBackoffMost = 5 * time.Second
	// lookAgain bounds how long it goes unnoticed if a word of the queue is missed.
	lookAgain = 5 * time.Second
)

// loop takes calls from the queue and runs them.
type loop struct {
	d     *Dispatcher
	life  context.Context // of attempts
	turns *turns
	freed chan struct{} // holds one: an attempt has ended since it was last looked
	work  sync.WaitGroup
}

// Run runs the calls of the queue until ctx ends or the dispatcher drains. Those under way then have
// Config.Async.Grace; what has not ended by then goes back to the queue and does not count as an
// attempt. Run returns when ctx has ended and all is settled. It is to be run once.
func (d *Dispatcher) Run(ctx context.Context) error {
	if d.cfg.Queue == nil {
		<-ctx.Done()
		return nil
	}
	// Attempts outlive ctx by their grace.
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	l := &loop{d: d, life: life, turns: newTurns(d.cfg.Async), freed: make(chan struct{}, 1)}
	l.run(ctx)
	grace := time.AfterFunc(d.cfg.Async.Grace, func() { end(errInterrupted) })
	defer grace.Stop()
	l.work.Wait()
	d.warmer.work.Wait()
	<-ctx.Done()
	return nil
}

// run takes and starts calls until it is time to stop.
func (l *loop) run(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() { // a queue that hangs does not hold up the end
		select {
		case <-l.d.stopping:
			stop()
		case <-ctx.Done():
		}
	}()
	var changed <-chan struct{}
	pause := queueBackoff
	for look := true; ctx.Err() == nil; {
		err := error(nil)
		// While all places are taken there is nothing to be done about news.
		if look && !l.turns.full() {
			var due []faas.Name
			if due, changed, err = l.d.cfg.Queue.Due(ctx); err == nil {
				l.turns.ready(due)
				look = false
			}
		}
		more := false
		if err == nil {
			more, err = l.take(ctx)
		}
		var again <-chan time.Time
		news := changed
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			l.d.cfg.Logger.Warn("queue not read", "again", pause, "cause", err)
			look, news = true, nil
			again = time.After(policy.Jitter(pause, rand.Float64()))
			pause = min(2*pause, queueBackoffMost)
		default:
			pause = queueBackoff
			if more && !look {
				look = true
				continue
			}
			again = time.After(lookAgain)
			if look {
				news = nil // known already
			}
		}
		select {
		case <-news:
			look = true
		case <-l.freed:
		case <-again:
			look = true
		case <-ctx.Done():
		}
	}
}

// take starts what there are places for, one function after the other. more says that a function had
// fewer calls than it had places: some may have been left out, such as those that are gone.
func (l *loop) take(ctx context.Context) (more bool, err error) {
	for {
		name, n, ok := l.turns.next()
		if !ok {
			return more, nil
		}
		leases, err := l.d.cfg.Queue.Pull(ctx, name, n)
		l.turns.took(name, n, len(leases))
		for _, lease := range leases {
			l.start(name, lease)
		}
		if err != nil {
			return more, err
		}
		more = more || 0 < len(leases) && len(leases) < n
	}
}

// start runs one call in a goroutine of its own.
func (l *loop) start(name faas.Name, lease queue.Lease) {
	a := &attempt{lease: lease, inv: lease.Invocation(), settled: make(chan struct{})}
	if a.inv.Wait == nil {
		a.inv.Wait = &faas.Wait{} // nobody waits for what lies in a queue
	}
	ctx, cancel := context.WithCancelCause(l.life)
	a.cancel = cancel
	l.d.underway.add(a)
	l.work.Go(func() {
		defer cancel(nil)
		release := sync.OnceFunc(func() { l.release(name) })
		if a.inv.Kind == faas.KindDeliver {
			l.d.deliver(ctx, a, release)
		} else {
			l.d.try(ctx, a)
		}
		l.d.underway.remove(a)
		close(a.settled)
		release()
	})
}

func (l *loop) release(name faas.Name) {
	l.turns.release(name)
	select {
	case l.freed <- struct{}{}:
	default: // it is known
	}
}
