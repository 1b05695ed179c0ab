package worker

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/policy"
	"github.com/brasa-dev/brasa/runtimes"
)

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
	book      *policy.Book   // of the function, whatever its revision; nil: nothing is remembered of it
	load60    policy.Load    // of the last minute
	wanted    policy.Wanted  // when last looked at
	windows   policy.Windows // read from the revision
	short     bool           // the last time it asked there was no memory for an instance of it
	ahead     int            // starts in a row that failed and that no call waited for
	notAhead  time.Time      // no other before this
	claims    policy.Claims  // calls that needed an instance of their own
	called    time.Time      // when the last call asked for an instance
	load      time.Duration  // what the code took to load the last time
	failed    int            // instances in a row that could not be rewound
	unarmed   int            // instances in a row that served without being armed
	cleansing int            // instances that are being rewound, each for one call in line
	capped    time.Time      // when calls were last in line because there were as many instances as may be; guarded by Worker.mu
	renewed   time.Time      // what was begun before this is given up: the function has moved on, or a secret changed
}

// pool returns the pool of the calls of a function's own namespace.
func (w *Worker) pool(rev *faas.Revision, rt *runtimes.Runtime) *pool {
	return w.poolFor(keyOf(rev), rev, rt)
}

func (w *Worker) poolFor(k poolKey, rev *faas.Revision, rt *runtimes.Runtime) *pool {
	p := w.pools[k]
	if p == nil {
		p = &pool{key: k, rev: rev, rt: rt, instances: map[string]*instance{}, book: w.bookOf(rev, rt)}
		if k.caller == "" {
			p.windows, _ = policy.ReadWindows(rev.Warm, faas.CeilingLimits()) // what is wrong with them was said when it was deployed
		} else if p.book != nil {
			p.book = &policy.Book{} // its calls are not those that the function's own tell of
		}
		w.pools[k] = p
	}
	return p
}

// working returns how many instances serve calls now. The caller holds Worker.mu.
func (p *pool) working() int {
	if p.rev.Limits.Concurrency <= 1 {
		return len(p.instances) - len(p.free)
	}
	n := 0
	for _, in := range p.instances {
		if in.active > 0 {
			n++
		}
	}
	return n
}

func (w *Worker) dropIfEmpty(p *pool) {
	if p.ahead > 0 && time.Now().Before(p.notAhead) {
		return // that an instance of it could not be made is remembered for as long
	}
	if len(p.instances) == 0 && p.starting == 0 && p.line.len() == 0 && w.pools[p.key] == p {
		delete(w.pools, p.key)
	}
}

// acquire returns an instance with a slot taken for the call, waiting for one as long as ctx
// allows, and notes in the call how it came to it.
func (w *Worker) acquire(ctx context.Context, rev *faas.Revision, rt *runtimes.Runtime, c *call) (*instance, error) {
	since := time.Now()
	if c.from, c.gone = faas.AskedBy(ctx); c.from != "" {
		w.nested.waiting.Add(1)
		defer w.nested.waiting.Add(-1)
	}
	w.mu.Lock()
	if w.draining {
		w.mu.Unlock()
		return nil, shuttingDown()
	}
	key := keyOf(rev)
	key.caller = callerOf(rev, c.inv)
	p := w.poolFor(key, rev, rt)
	p.called = since
	if p.oneCall() {
		p.claims.Add(since.Unix())
	}
	if in := w.take(p, since); in != nil {
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
		p = w.poolFor(key, rev, rt)
	}
	deadline, _ := ctx.Deadline()
	if err := w.late(p, since, deadline); err != nil {
		w.dropIfEmpty(p)
		w.mu.Unlock()
		return nil, err
	}
	wt := &waiter{call: c, since: since, deadline: deadline, ready: make(chan grant, 1)}
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
	err := p.outOfLine(ctx, c.inv)
	w.dropIfEmpty(p)
	w.mu.Unlock()
	if !left { // the grant came at the same moment; the call is over all the same
		if g := <-wt.ready; g.in != nil {
			w.release(g.in, c, keep, 0)
		}
	}
	c.inv.Timing.Add(c.vain(err), time.Since(since))
	return nil, err
}

// take takes a slot of the most recently used free instance, if there is one and the memory that
// it may now grow into is there. The caller holds mu.
func (w *Worker) take(p *pool, now time.Time) *instance {
	for len(p.free) > 0 && p.free[len(p.free)-1].died() {
		w.retire(p.free[len(p.free)-1], "died") // takes it out of the free ones
	}
	n := len(p.free)
	if n == 0 || w.crowded(p, p.free[n-1]) {
		return nil
	}
	in := p.free[n-1]
	if in.slots > 1 {
		in = p.leastFull()
	}
	if more := p.rev.Limits.Memory - in.held; more > 0 {
		if over := w.reserved + more - w.memory(); over > 0 && !w.evict(over, in, p.key.tenant()) {
			p.short = true
			return nil
		}
		// What was evicted may take a millisecond to be gone; until then the books are over by
		// what an idle instance held.
		in.held += more
		w.reserved += more
	}
	if in.active == 0 && p.book != nil {
		p.book.Needed(p.working(), now)
	}
	in.active++
	if in.active >= in.slots {
		p.free = slices.DeleteFunc(p.free, func(x *instance) bool { return x == in })
	}
	return in
}

// leastFull returns, of the free instances, the most recently used one that serves fewer calls than
// scaling aims at, or if there is none the most recently used. The caller holds Worker.mu.
func (p *pool) leastFull() *instance {
	target := policy.Target(p.rev.Limits.Target, p.rev.Limits.Concurrency)
	for i := len(p.free) - 1; i >= 0; i-- {
		if float64(p.free[i].active) < target {
			return p.free[i]
		}
	}
	return p.free[len(p.free)-1]
}

// next takes the first call out of the line that can still be met, nil if there is none. Those
// before it have their answer. The caller holds mu.
func (w *Worker) next(p *pool) *waiter {
	for wt := p.line.pop(); wt != nil; wt = p.line.pop() {
		if wt.deadline.IsZero() || !policy.TooLate(p.pace.known(), time.Until(wt.deadline)) {
			return wt
		}
		wt.answer(grant{err: p.tooLate(time.Since(wt.since), 0)})
	}
	return nil
}

// late refuses a call that could not be met in time if it stood in line. The caller holds mu.
func (w *Worker) late(p *pool, now, deadline time.Time) error {
	if deadline.IsZero() || p.line.len() == 0 && len(p.instances) == 0 {
		return nil
	}
	slots := max(1, p.rev.Limits.Concurrency)
	most := p.rev.Limits.MaxInstances
	all := len(p.instances) + p.starting
	late, after := policy.Late(policy.Turn{
		Ahead: p.line.len(), Slots: all * slots, Grows: !(most > 0 && all >= most) && !p.short, Pace: p.pace.known(), Left: deadline.Sub(now),
	})
	if !late {
		return nil
	}
	return p.tooLate(0, after)
}

// grow starts as many instances as the calls in line have use for and the node has room for. The
// caller holds mu.
func (w *Worker) grow(p *pool) { w.growBy(p, math.MaxInt) }

// growBy is grow for at most so many instances. The caller holds mu.
func (w *Worker) growBy(p *pool, most int) {
	for p.line.len() > 0 { // free instances there was no memory for before
		in := w.take(p, time.Now())
		if in == nil {
			break
		}
		wt := w.next(p)
		if wt == nil {
			in.active--
			w.offer(in, 0)
			break
		}
		wt.answer(grant{in: in})
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
	for ; most > 0 && p.line.len() > starting(); most-- {
		if n := p.rev.Limits.MaxInstances; n > 0 && len(p.instances)+p.starting >= n {
			p.capped = time.Now()
			if len(p.free) > 0 {
				hungry() // one is idle, and there is no memory for what it may grow to
			}
			return // else one of its own instances will be free one day
		}
		var of *waiter
		if p.rt.Style == runtimes.StyleExec {
			if of = w.next(p); of == nil {
				return
			}
		}
		if !w.mayStart(p) || !w.reserve(p) {
			if of != nil {
				p.line.unpop(of)
			}
			hungry()
			return
		}
		if p.book != nil {
			p.book.Needed(p.working()+p.starting, time.Now())
		}
		w.begins(p)
		go w.start(p, of)
	}
}

// feed lets hungry pools grow: those whose namespaces have least first, and of these in the order in
// which they asked. It is called whenever a start has ended, memory was given back or an instance
// became idle. The caller holds mu.
func (w *Worker) feed() {
	if len(w.hungry) == 0 {
		w.owed = owed{}
		return
	}
	now := time.Now()
	var aside []*pool // of namespaces that have as many starts under way as they may
	defer func() { w.hungry = append(aside, w.hungry...) }()
	for n := len(w.hungry); n > 0 && len(w.hungry) > 0 && w.starting < w.cfg.Starts; n-- {
		i, poor := w.nextHungry(now)
		p := w.hungry[i]
		w.hungry = slices.Delete(w.hungry, i, i+1)
		p.inHungry = false
		if w.waits(p) { // by now it is known that more of them are of no use
			continue
		}
		ns := p.key.tenant()
		before := p.starting
		w.grow(p)
		if !p.inHungry || p.starting > before {
			if w.owed.namespace == ns {
				w.owed = owed{}
			}
			continue
		}
		// It could not, and keeps its place.
		w.hungry = w.hungry[:len(w.hungry)-1]
		if !w.mayStart(p) {
			aside = append(aside, p)
			continue
		}
		w.hungry = slices.Insert(w.hungry, min(i, len(w.hungry)), p)
		if poor && (w.owed.namespace != ns || w.owed.given >= w.owed.need) { // what was given up went to somebody else
			w.owed = owed{namespace: ns, need: p.rev.Limits.Memory}
		}
		return // nobody overtakes it, so that a large one is not starved by many small ones
	}
}

// reserve takes memory for a new instance, from idle instances if none is left. The caller
// holds mu.
func (w *Worker) reserve(p *pool) bool {
	need, total, ns := p.rev.Limits.Memory, w.memory(), p.key.tenant()
	p.short = false
	if w.reserved+need > total/2 { // below that nobody is in anybody's way
		if t := w.census(time.Now()); !policy.MayHold(total, need, t.all[ns], t.atWork) {
			p.short = true
			return false
		}
	}
	if over := w.reserved + need - total; over > 0 {
		// The memory comes back when they are gone; then feed tries again.
		w.evict(over, nil, ns)
		p.short = true
		return false
	}
	w.reserved += need
	return true
}

// evict ends stems and idle instances, save one, that hold at least need together; it returns false
// and ends none if there are too few. Stems go first: what they are ready for may never come. What
// another namespace has a right to stays. The caller holds mu.
func (w *Worker) evict(need faas.Bytes, save *instance, namespace string) bool {
	now := time.Now()
	stems := w.stemMemory()
	if stems >= need {
		w.dropStems(need)
		return true
	}
	t := w.census(now)
	fair := policy.Fair(w.memory(), t.atWork)
	var idle []*instance
	var status []policy.Idle
	for _, p := range w.pools {
		ns := p.key.tenant()
		if namespace != "" && namespace != ns && policy.Safe(t.all[ns], t.all[namespace], need, fair, now.Sub(p.called)) {
			continue
		}
		for _, in := range p.instances {
			if in.active == 0 && in != save {
				idle = append(idle, in)
				status = append(status, w.valueOf(in, now))
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
