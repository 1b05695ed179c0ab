package sandbox

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// sweeper removes used cgroups, off the way of whoever closes a sandbox. The kernel makes,
// removes and enters groups under one lock, so it lets starts go first.
type sweeper struct {
	log  *slog.Logger
	wake chan struct{} // has room for one

	mu     sync.Mutex
	queue  []used // guarded by mu
	inHand int    // guarded by mu
}

// used is a group whose processes are gone, or nearly.
type used struct {
	group *cgroup
	until time.Time // it may be busy, since its first attempt
}

func newSweeper(log *slog.Logger) *sweeper {
	return &sweeper{log: log, wake: make(chan struct{}, 1)}
}

// add does not block.
func (s *sweeper) add(g *cgroup) {
	s.mu.Lock()
	s.queue = append(s.queue, used{group: g})
	s.mu.Unlock()
	notify(s.wake)
}

// left returns how many groups are still to be removed.
func (s *sweeper) left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue) + s.inHand
}

const (
	// sweepAfter is how long a group may lie before it is removed: a burst of ends is often
	// one of starts as well.
	sweepAfter = 5 * time.Millisecond
	// sweepAtOnce is how many may lie before nothing is waited for.
	sweepAtOnce = 128
)

// run removes what is added until stop is closed, and then what is left.
func (s *sweeper) run(stop <-chan struct{}) {
	for {
		select {
		case <-s.wake:
		case <-stop:
		}
		for s.left() > 0 {
			if s.left() < sweepAtOnce {
				select {
				case <-time.After(sweepAfter):
				case <-stop:
					time.Sleep(time.Millisecond) // for those that are busy
				}
			}
			s.round()
		}
		select {
		case <-stop:
			if s.left() == 0 {
				return
			}
		default:
		}
	}
}

// round tries each group there is once. One that stays busy is tried again with the next ones: it
// does not hold them up.
func (s *sweeper) round() {
	s.mu.Lock()
	all := s.queue
	s.queue, s.inHand = nil, len(all)
	s.mu.Unlock()
	for _, u := range all {
		err := u.group.tryRemove()
		if u.until.IsZero() {
			u.until = time.Now().Add(2 * busyFor)
		}
		s.mu.Lock()
		s.inHand--
		if errors.Is(err, unix.EBUSY) && time.Now().Before(u.until) {
			s.queue = append(s.queue, u)
			err = nil
		}
		s.mu.Unlock()
		if err != nil {
			s.log.Warn("cgroup left behind", "err", err)
		}
	}
}
