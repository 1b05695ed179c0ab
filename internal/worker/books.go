package worker

import (
	"slices"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
)

// lookEvery is how old a reading of an instance may be to be taken for that of a call. Reading its
// control group costs more than most of what is done for a warm call, and calls that follow each
// other at once find the same: in this time a process fills some ten megabytes. A call that takes
// longer than this is always measured by itself.
const lookEvery = 10 * time.Millisecond

// books are what was last read of an instance's use.
type books struct {
	mu     sync.Mutex
	read   time.Time     // when cpu was read; guarded by mu
	cpu    time.Duration // guarded by mu
	looked time.Time     // when the memory was; guarded by mu
	memory faas.Bytes    // guarded by mu
	peak   faas.Bytes    // guarded by mu

	census *sandbox.Census // of the processes after load; guarded by mu; nil: not made so far
	closed bool            // guarded by mu
}

// opened returns the processor time that a call begins with. What the instance has used since the
// call before it, if that was a moment ago, is what that left to do.
func (in *instance) opened(now time.Time) time.Duration {
	b := &in.books
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Sub(b.read) < lookEvery {
		return b.cpu
	}
	return in.cpu()
}

// usage is what a call is told of its instance.
type usage struct {
	cpu          time.Duration
	tasks        int
	memory, peak faas.Bytes
}

// closing reads what the instance has used when a call that began at a time has ended. alone says
// that the next peak is to be another's.
func (in *instance) closing(began, now time.Time, alone bool) (u usage, err error) {
	b := &in.books
	b.mu.Lock()
	defer b.mu.Unlock()
	if u.cpu, u.tasks, err = in.box.Glance(); err != nil {
		return u, err
	}
	b.read, b.cpu = now, u.cpu
	if now.Sub(b.looked) >= lookEvery || now.Sub(began) >= lookEvery {
		all, err := in.box.Usage()
		if err != nil {
			return u, err
		}
		b.looked, b.memory, b.peak = now, faas.Bytes(all.Memory), faas.Bytes(all.MemoryPeak)
		if alone {
			_ = in.box.ResetPeak() // without it the next peak is the highest so far, which is still true of the instance
		}
	}
	u.memory, u.peak = b.memory, b.peak
	return u, nil
}

// onlyThreads says whether the tasks, as a control group counts them, are all threads of the
// processes that were there after load. False means that nobody knows.
func (in *instance) onlyThreads(tasks int) bool {
	b := &in.books
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.census != nil && b.census.Threads() == tasks
}

// mostCounted bounds the descriptors that a census holds.
const mostCounted = 4

// count makes a census of the processes that are there, which are all as they should be.
func (in *instance) count(pids []int) {
	if len(pids) > mostCounted {
		return
	}
	b := &in.books
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dismiss()
	if b.closed {
		return
	}
	c, err := sandbox.NewCensus(pids)
	if err != nil {
		return // one has ended meanwhile
	}
	// None of them has, so it is them that are counted and not others with their ids.
	if again, err := in.box.Processes(); err != nil || !slices.Equal(again, pids) {
		c.Close()
		return
	}
	b.census = c
}

// dismiss ends the census. The caller holds mu.
func (b *books) dismiss() {
	if b.census != nil {
		b.census.Close()
		b.census = nil
	}
}

// close gives back what the books hold.
func (b *books) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dismiss()
	b.closed = true
}
