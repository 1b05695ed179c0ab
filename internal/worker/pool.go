package worker

import (
	"context"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/policy"
	"github.com/brasa-dev/brasa/runtimes"
)

// poolKey tells pools apart. The name is part of it because two functions with the same code and
// settings in one namespace still are two: they may not see each other's state.
type poolKey struct {
	name     faas.Name
	revision faas.RevisionID
}

func keyOf(rev *faas.Revision) poolKey { return poolKey{rev.Name, rev.ID} }

// pool holds the instances of one revision. All its fields are guarded by Worker.mu.
type pool struct {
	key       poolKey
	rev       *faas.Revision
	rt        *runtimes.Runtime
	instances map[string]*instance
	free      []*instance // with a free slot, the most recently used last: the rest grow cold and go
	line      line
	starting  int
	inHungry  bool
	pace      pace
	claims    policy.Claims // calls that needed an instance of their own
	called    time.Time     // when the last call asked for an instance
	load      time.Duration // what the code took to load the last time
	failed    int           // instances in a row that could not be rewound
	unarmed   int           // instances in a row that served without being armed
	cleansing int           // instances that are being rewound, each for one call in line
	renewed   time.Time     // what was begun before this is given up: the function has moved on, or a secret changed
}

func (w *Worker) pool(rev *faas.Revision, rt *runtimes.Runtime) *pool {
	k := keyOf(rev)
	p := w.pools[k]
	if p == nil {
		p = &pool{key: k, rev: rev, rt: rt, instances: map[string]*instance{}}
		w.pools[k] = p
	}
	return p
}

func (w *Worker) dropIfEmpty(p *pool) {
	if len(p.instances) == 0 && p.starting == 0 && p.line.len() == 0 && w.pools[p.key] == p {
		delete(w.pools, p.key)
	}
}

// acquire returns an instance with a slot taken for the call, waiting for one as long as ctx
// allows, and notes in the call how it came to it.
func (w *Worker) acquire(ctx context.Context, rev *faas.Revision, rt *runtimes.Runtime, c *call) (*instance, error) {
	since := time.Now()
	w.mu.Lock()
	if w.draining {
		w.mu.Unlock()
		return nil, shuttingDown()
	}
	p := w.pool(rev, rt)
	p.called = since
	if p.oneCall() {
		p.claims.Add(since.Unix())
	}
	if in := w.take(p); in != nil {
		w.mu.Unlock()
		c.startedWarm(in, time.Since(since))
		return in, nil
	}
	var quick *instance
	if c.inv.Kind != faas.KindProof && !c.slow { // a proof's very end is to wait for the load
		quick = w.quickStem(p)
	}
	if in := quick; in != nil {
		w.mu.Unlock()
		err := w.quickStart(in, c)
		if err == nil {
			return in, nil
		}
		w.abandon(in)
		if !isStale(err) {
			return nil, err
		}
		w.mu.Lock()
		p = w.pool(rev, rt)
	}
	wt := &waiter{call: c, since: since, ready: make(chan grant, 1)}
	p.line.push(wt)
	if !w.waits(p) {
		w.grow(p)
	}
	w.mu.Unlock()
	return w.await(ctx, p, wt, c, since)
}

func (w *Worker) await(ctx context.Context, p *pool, wt *waiter, c *call, since time.Time) (*instance, error) {
	select {
	case g := <-wt.ready:
		return c.granted(g, time.Since(since))
	case <-ctx.Done():
	}
	w.mu.Lock()
	left := p.line.leave(wt)
	w.dropIfEmpty(p)
	w.mu.Unlock()
	if !left { // the grant came at the same moment; the call is over all the same
		if g := <-wt.ready; g.in != nil {
			w.release(g.in, c, keep, 0)
		}
	}
	c.inv.Timing.Add(faas.PhaseQueue, time.Since(since))
	return nil, context.Cause(ctx)
}

// take takes a slot of the most recently used free instance, if there is one and the memory that
// it may now grow into is there. The caller holds mu.
func (w *Worker) take(p *pool) *instance {
	for len(p.free) > 0 && p.free[len(p.free)-1].died() {
		w.retire(p.free[len(p.free)-1], "died") // takes it out of the free ones
	}
	n := len(p.free)
	if n == 0 || w.crowded(p, p.free[n-1]) {
		return nil
	}
	in := p.free[n-1]
	if more := p.rev.Limits.Memory - in.held; more > 0 {
		if over := w.reserved + more - w.cfg.Memory; over > 0 && !w.evict(over, in) {
			return nil
		}
		// What was evicted may take a millisecond to be gone; until then the books are over by
		// what an idle instance held.
		in.held += more
		w.reserved += more
	}
	in.active++
	if in.active >= in.slots {
		p.free = p.free[:n-1]
	}
	return in
}

// grow starts as many instances as the calls in line have use for and the node has room for. The
// caller holds mu.
func (w *Worker) grow(p *pool) {
	for p.line.len() > 0 { // free instances there was no memory for before
		in := w.take(p)
		if in == nil {
			break
		}
		p.line.pop().answer(grant{in: in})
	}
	slots := max(1, p.rev.Limits.Concurrency)
	starting := func() int { // that those in line may hope for
		if p.rt.Style == runtimes.StyleExec {
			return 0
		}
		return p.starting*slots + p.cleansing
	}
	hungry := func() {
		if !p.inHungry {
			p.inHungry = true
			w.hungry = append(w.hungry, p)
		}
	}
	for p.line.len() > starting() {
		if n := p.rev.Limits.MaxInstances; n > 0 && len(p.instances)+p.starting >= n {
			if len(p.free) > 0 {
				hungry() // one is idle, and there is no memory for what it may grow to
			}
			return // else one of its own instances will be free one day
		}
		if w.starting >= w.cfg.Starts || !w.reserve(p.rev.Limits.Memory) {
			hungry()
			return
		}
		p.starting++
		w.starting++
		w.work.Add(1)
		var of *waiter
		if p.rt.Style == runtimes.StyleExec {
			of = p.line.pop()
		}
		go w.start(p, of)
	}
}

// feed lets hungry pools grow, in the order in which they asked. It is called whenever a start
// has ended, memory was given back or an instance became idle. The caller holds mu.
func (w *Worker) feed() {
	for n := len(w.hungry); n > 0 && len(w.hungry) > 0; n-- {
		if w.starting >= w.cfg.Starts {
			return
		}
		p := w.hungry[0]
		w.hungry = w.hungry[1:]
		p.inHungry = false
		if w.waits(p) { // by now it is known that more of them are of no use
			continue
		}
		before := p.starting
		w.grow(p)
		if p.inHungry && p.starting == before {
			// It could not: it keeps its place, and nobody overtakes it, so that a large one
			// is not starved by many small ones.
			last := len(w.hungry) - 1
			w.hungry = append([]*pool{p}, w.hungry[:last]...)
			return
		}
	}
}

// reserve takes memory for a new instance, from idle instances if none is left. The caller
// holds mu.
func (w *Worker) reserve(need faas.Bytes) bool {
	if over := w.reserved + need - w.cfg.Memory; over > 0 {
		// The memory comes back when they are gone; then feed tries again.
		w.evict(over, nil)
		return false
	}
	w.reserved += need
	return true
}

// evict ends stems and idle instances, save one, that hold at least need together; it returns false
// and ends none if there are too few. Stems go first: what they are ready for may never come. The
// caller holds mu.
func (w *Worker) evict(need faas.Bytes, save *instance) bool {
	now := time.Now()
	stems := w.stemMemory()
	if stems >= need {
		w.dropStems(need)
		return true
	}
	var idle []*instance
	var status []faas.InstanceStatus
	for _, p := range w.pools {
		for _, in := range p.instances {
			if in.active == 0 && in != save {
				idle = append(idle, in)
				status = append(status, in.status(now))
			}
		}
	}
	chosen := policy.Evict(status, need-stems)
	if chosen == nil {
		return false
	}
	w.dropStems(stems)
	for _, i := range chosen {
		w.retire(idle[i], "memory")
	}
	return true
}

// reap ends instances that have been idle for as long as the policy says.
func (w *Worker) reap(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.countCopies()
	w.feed() // some may be gone
	for _, p := range w.pools {
		if !p.oneCall() && now.Sub(p.called) >= parkPause {
			w.park(p)
		}
		for _, in := range p.instances {
			if in.active > 0 || in.ending {
				continue
			}
			idle := now.Sub(in.idleSince)
			keep := policy.Keep(w.cfg.Keep, idle, in.births.load())
			if in.spare() {
				keep = max(keep, policy.ParkKeep-idle)
			}
			if keep <= 0 {
				w.retire(in, "idle")
				w.park(p) // in place of one that served, one that has served nobody
			}
		}
	}
	w.tendStems(now)
}
