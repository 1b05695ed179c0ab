package worker

import (
	"container/list"
	"iter"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// grant is what a waiting call gets: an instance with a slot taken for it, or an error.
type grant struct {
	in  *instance
	err error
	log []faas.LogLine // what an instance wrote that failed to start
}

// waiter is a call in a pool's line.
type waiter struct {
	call  *call
	since time.Time
	// deadline is when nobody waits any more; zero: never.
	deadline time.Time
	ready    chan grant // one grant at the most, so the giver never blocks
	elem     *list.Element
}

func (wt *waiter) answer(g grant) { wt.ready <- g }

// line is a first-in first-out queue of waiters from whose middle a caller that goes away can
// leave. The zero value is empty.
type line struct{ l list.List }

func (q *line) push(wt *waiter) { wt.elem = q.l.PushBack(wt) }
func (q *line) len() int        { return q.l.Len() }

// all goes through those who wait, the first first.
func (q *line) all() iter.Seq[*waiter] {
	return func(yield func(*waiter) bool) {
		for e := q.l.Front(); e != nil; e = e.Next() {
			if !yield(e.Value.(*waiter)) {
				return
			}
		}
	}
}

// first returns the first waiter, or nil.
func (q *line) first() *waiter {
	if e := q.l.Front(); e != nil {
		return e.Value.(*waiter)
	}
	return nil
}

// pop takes the first waiter, or returns nil.
func (q *line) pop() *waiter {
	e := q.l.Front()
	if e == nil {
		return nil
	}
	wt := q.l.Remove(e).(*waiter)
	wt.elem = nil
	return wt
}

// unpop puts a waiter back that was popped just now.
func (q *line) unpop(wt *waiter) { wt.elem = q.l.PushFront(wt) }

// leave takes wt out; it returns false if it has been popped before, and then a grant is there
// or on its way.
func (q *line) leave(wt *waiter) bool {
	if wt.elem == nil {
		return false
	}
	q.l.Remove(wt.elem)
	wt.elem = nil
	return true
}
