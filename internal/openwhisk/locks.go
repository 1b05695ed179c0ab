package openwhisk

import (
	"context"
	"sync"

	"github.com/brasa-dev/brasa/internal/faas"
)

// locks let one at a time change an entity, so that of two who make it one is refused. Entities of different
// kinds with one name have one lock, as they exclude each other. Each has a lock of its own: to make an
// action may take as long as its compiler does, and nobody else is to wait for that.
type locks struct {
	mu  sync.Mutex
	all map[path]*entityLock // guarded by mu
}

type entityLock struct {
	sync.RWMutex
	users int // guarded by locks.mu; those that have it or wait for it
}

// lock returns when nobody else changes the entity, until what it returns is called.
func (l *locks) lock(p path) (unlock func()) {
	e := l.get(p)
	e.Lock()
	return func() {
		e.Unlock()
		l.put(p, e)
	}
}

// share keeps an entity from being changed, as several may at once, until what it returns is called. It comes
// before the locks of what is in the entity.
func (l *locks) share(p path) (unlock func()) {
	e := l.get(p)
	e.RLock()
	return func() {
		e.RUnlock()
		l.put(p, e)
	}
}

func (l *locks) get(p path) *entityLock {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = map[path]*entityLock{}
	}
	e := l.all[p]
	if e == nil {
		e = &entityLock{}
		l.all[p] = e
	}
	e.users++
	return e
}

func (l *locks) put(p path, e *entityLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.users--; e.users == 0 {
		delete(l.all, p)
	}
}

// atOnce is how many requests of a kind a namespace has served at once that may need much memory: an action's
// code is in it several times over while it is read and written.
const atOnce = 4

// slots let a namespace have some requests of a kind served at once. The rest waits, as long as their callers do.
type slots struct {
	mu  sync.Mutex
	all map[string]*slot // guarded by mu
}

type slot struct {
	places chan struct{}
	users  int // guarded by slots.mu; those that have a place or wait for one
}

// take returns when there is one of so many places, which it has until what it returns is called, or ctx ends.
// Requests of a kind all ask for one of as many.
func (s *slots) take(ctx context.Context, of string, places int) (release func(), err error) {
	s.mu.Lock()
	if s.all == nil {
		s.all = map[string]*slot{}
	}
	e := s.all[of]
	if e == nil {
		e = &slot{places: make(chan struct{}, places)}
		s.all[of] = e
	}
	e.users++
	s.mu.Unlock()
	gone := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if e.users--; e.users == 0 {
			delete(s.all, of)
		}
	}
	select {
	case e.places <- struct{}{}:
		return func() {
			<-e.places
			gone()
		}, nil
	case <-ctx.Done():
		gone()
		return nil, faas.AsError(context.Cause(ctx))
	}
}
