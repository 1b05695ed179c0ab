package queue

import (
	"context"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

type memoryLease struct {
	queue   *memory
	item    *item
	inv     *faas.Invocation
	settled bool // guarded by queue.mu
}

func (l *memoryLease) Invocation() *faas.Invocation { return l.inv }

func (l *memoryLease) Done(context.Context) error {
	return l.settle(func() { l.queue.remove(l.item) })
}

func (l *memoryLease) Retry(_ context.Context, after time.Duration, why error) error {
	return l.settle(func() {
		l.item.leased, l.item.due = false, time.Now().Add(after)
		if why == nil {
			l.item.attempt--
		} else {
			l.item.why = plainWhy(why)
		}
		l.queue.tell()
	})
}

func (l *memoryLease) Bury(_ context.Context, why error) error {
	return l.settle(func() {
		l.queue.remove(l.item)
		l.queue.bury(grave{l.item, plainWhy(why), time.Now()})
	})
}

func (l *memoryLease) settle(f func()) error {
	l.queue.mu.Lock()
	defer l.queue.mu.Unlock()
	if l.settled {
		return ErrSettled
	}
	l.settled = true
	f()
	return nil
}
