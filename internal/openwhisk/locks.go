package openwhisk

import "sync"

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
