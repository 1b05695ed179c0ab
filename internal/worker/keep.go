package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/policy"
	"github.com/brasa-dev/brasa/runtimes"
)

const (
	// tendEvery is how often idle instances are looked after, and how exactly plans are kept.
	tendEvery = time.Second
	// readyBefore is how long before its time an instance is made that a plan asks for: the time
	// between two looks, and what a start takes on a busy machine.
	readyBefore = 2 * time.Second
	// maxBooks is of how many functions it is remembered how they are called: some hundred bytes each.
	maxBooks = 20_000
	// tendAtOnce is how many pools are looked after before calls may go between.
	tendAtOnce = 64
	// saveEvery is how often what was seen is written to the disk.
	saveEvery = time.Minute
	// bookKeep is how long a function is remembered that nobody calls.
	bookKeep = 30 * 24 * time.Hour
)

// kept says why an idle instance stays. The words are made when somebody asks.
type kept struct {
	why   reason
	until time.Time // zero: for good
}

type reason uint8

const (
	keptNew     reason = iota // nobody has looked yet
	keptMin                   // the function asks for as many
	keptWindow                // the same, by the clock
	keptLoad                  // calls of the last minute have use for it
	keptOracle                // the next call is expected while it stands
	keptFixed                 // its time is not up
	keptSpare                 // it is dear to load, and stands in for others
	keptStarved               // calls that wait for a processor, or for memory, are to have it
)

func (k kept) text(now time.Time) string {
	left := max(k.until.Sub(now), 0).Round(time.Second)
	switch k.why {
	case keptMin:
		return "min_instances"
	case keptWindow:
		return fmt.Sprintf("warm window, for %s more", left)
	case keptLoad:
		return "load of the last minute"
	case keptOracle:
		return fmt.Sprintf("oracle: worth its memory for %s more", left)
	case keptFixed:
		return fmt.Sprintf("fixed: keep.idle, for %s more", left)
	case keptSpare:
		return fmt.Sprintf("spare: dear to load, for %s more", left)
	case keptStarved:
		return "calls are in line"
	}
	return "idle for less than a second"
}

// shelf holds the books of all functions. It is guarded by Worker.mu.
type shelf struct {
	books map[faas.Name]*policy.Book
	saved time.Time
}

// bookOf returns the book of a revision's function, nil if nothing is remembered of it. The caller
// holds mu.
func (w *Worker) bookOf(rev *faas.Revision, rt *runtimes.Runtime) *policy.Book {
	if rev.Name.Function == faas.AdHoc || rt.Style == runtimes.StyleExec || rev.Reuse == faas.ReuseTenant || rev.Reuse == faas.ReuseAny {
		return nil // no instance of it stays: it is ended, or its process is anybody's again
	}
	b := w.shelf.books[rev.Name]
	if b == nil {
		b = &policy.Book{}
		if len(w.shelf.books) < maxBooks {
			w.shelf.books[rev.Name] = b
		}
	}
	return b
}

// forgetHistory drops what was remembered of a function that is no more, and what it has asked for
// if that was by another revision.
func (w *Worker) forgetHistory(name faas.Name, keep []faas.RevisionID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if rev := w.standing[name]; rev != nil && !slices.Contains(keep, rev.ID) {
		delete(w.standing, name)
	}
	if len(keep) == 0 {
		delete(w.shelf.books, name)
	}
}

// Hold has instances of a revision stand as it asks for, min_instances and warm windows, from now on
// until the function is forgotten or another revision of it is held.
func (w *Worker) Hold(rev *faas.Revision) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if rev.Limits.MinInstances == 0 && len(rev.Warm) == 0 {
		delete(w.standing, rev.Name)
		return
	}
	w.standing[rev.Name] = rev
}

// tend ends idle instances that are not worth their memory and makes those that soon will be.
func (w *Worker) tend(now time.Time) {
	busy := w.busyNow()
	w.mu.Lock()
	w.busy = busy
	w.countCopies()
	w.feed() // some may be gone
	for _, rev := range w.standing {
		if rt, err := w.cfg.Runtimes.Lookup(rev.Runtime); err == nil && !w.draining {
			w.pool(rev, rt)
		}
	}
	pools := make([]*pool, 0, len(w.pools))
	for _, p := range w.pools {
		pools = append(pools, p)
	}
	w.mu.Unlock()
	for some := range slices.Chunk(pools, tendAtOnce) {
		w.mu.Lock()
		for _, p := range some {
			if w.pools[p.key] == p {
				w.tendPool(p, now)
				w.dropIfEmpty(p)
			}
		}
		w.mu.Unlock()
	}
	w.foresee(now)
	w.mu.Lock()
	w.tendStems(now)
	w.mu.Unlock()
}

// tendPool looks after one pool. The caller holds mu.
func (w *Worker) tendPool(p *pool, now time.Time) {
	if p.rt.Style == runtimes.StyleExec {
		return // each instance is for one call
	}
	working := p.working()
	want, least := w.scale(p, working, now)
	var idle []*instance // the one that is used next first
	for i := len(p.free) - 1; i >= 0; i-- {
		if in := p.free[i]; in.active == 0 && !in.ending {
			idle = append(idle, in)
		}
	}
	hold, until := 0, time.Time{}
	oracle := w.cfg.Keep.Oracle && p.book != nil
	if oracle {
		hold, until = p.book.Stand(working, now, readyBefore, w.cfg.Keep.Price, !p.oneCall() && p.load >= policy.ParkLoad)
	} else if !p.oneCall() && now.Sub(p.called) >= parkPause {
		w.park(p)
	}
	for i, in := range idle {
		since := now.Sub(in.idleSince)
		switch {
		case p.line.len() > 0:
			in.kept = kept{why: keptStarved}
		case i < want-working:
			in.kept = least
		case oracle && (i < hold || since < tendEvery):
			in.kept = kept{keptOracle, until}
		case oracle && w.parked(p, in, now):
			in.kept = kept{keptSpare, p.called.Add(policy.Recent)}
		case oracle:
			w.retire(in, "not worth its memory")
		default:
			keep := policy.Keep(w.cfg.Keep, since, in.births.load())
			in.kept = kept{keptFixed, now.Add(keep)}
			if spare := policy.ParkKeep - since; in.spare() && spare > keep {
				keep, in.kept = spare, kept{keptSpare, now.Add(spare)}
			}
			if keep <= 0 {
				w.retire(in, "idle")
				w.park(p) // in place of one that served, one that has served nobody
			}
		}
	}
	if p.queues() && p.line.len() > 0 && (w.busy || w.shouldWait(p)) {
		hold = 0 // those in line would take it, and more of them are of no use now
	}
	for n := max(want-working, hold); len(idle)+p.starting < n; n-- {
		if !w.makeAhead(p, want > working+len(idle)+p.starting, now) {
			return
		}
	}
}

// parked says whether an instance stands in for those that serve one call each, as long as the
// function is in use. The caller holds mu.
func (w *Worker) parked(p *pool, in *instance, now time.Time) bool {
	return p.oneCall() && (in.calls == 0 || in.rewound) && p.claims.Busiest(now.Unix()) > 0
}

// makeAhead has an instance made that no call waits for. Nothing gives way for it unless the
// function has asked for it. The caller holds mu.
func (w *Worker) makeAhead(p *pool, asked bool, now time.Time) bool {
	if n := p.rev.Limits.MaxInstances; n > 0 && len(p.instances)+p.starting >= n {
		return false
	}
	need := p.rev.Limits.Memory
	switch {
	case w.draining, now.Before(p.notAhead), len(w.hungry) > 0, !w.mayStart(p):
		return false
	case asked && !w.reserve(p):
		return false
	case !asked && w.reserved+w.stemming+need > w.memory():
		return false
	case !asked:
		w.reserved += need
	}
	w.begins(p)
	go w.start(p, nil)
	return true
}

// aheadFailed puts off the next attempt to make an instance that no call waits for. The caller holds
// mu.
func (w *Worker) aheadFailed(p *pool, of *waiter) {
	if of != nil {
		return
	}
	p.ahead++
	p.notAhead = time.Now().Add(min(time.Second<<min(p.ahead-1, 10), maxRetry))
}

// foresee makes instances of functions that have none and are about to be called.
func (w *Worker) foresee(now time.Time) {
	if !w.cfg.Keep.Oracle || w.cfg.Resolve == nil {
		return
	}
	type due struct {
		name faas.Name
		book *policy.Book
	}
	var all []due
	w.mu.Lock()
	for name, b := range w.shelf.books {
		if at := b.Due(); !at.IsZero() && !at.After(now) {
			all = append(all, due{name, b})
		}
	}
	w.mu.Unlock()
	for _, d := range all {
		rev, err := w.cfg.Resolve(d.name) // not while mu is held: it may look things up
		w.mu.Lock()
		if err != nil {
			delete(w.shelf.books, d.name) // there is none any more
			w.mu.Unlock()
			continue
		}
		rt, err := w.cfg.Runtimes.Lookup(rev.Runtime)
		if p := w.pools[keyOf(rev)]; err == nil && p == nil && w.fits(rev) == nil && !w.draining { // else tendPool has seen to it
			if hold, _ := d.book.Stand(0, now, readyBefore, w.cfg.Keep.Price, false); hold > 0 {
				p = w.pool(rev, rt)
				w.makeAhead(p, false, now)
				w.dropIfEmpty(p)
			}
		}
		w.mu.Unlock()
	}
}

// valueOf says what an idle instance is worth. The caller holds mu.
func (w *Worker) valueOf(in *instance, now time.Time) policy.Idle {
	p := in.pool
	v := policy.Idle{Memory: in.held, Since: now.Sub(in.idleSince), Spare: in.spare()}
	if w.cfg.Keep.Oracle && p.book != nil {
		place := len(p.free) - 1 - slices.Index(p.free, in)
		v.Worth = p.book.Worth(p.working()+place, in.held, now, w.cfg.Keep.Price)
	}
	return v
}

// history is a function's book as it lies in the file, one a line.
type history struct {
	Function faas.Name `json:"function"`
	policy.Record
}

// restore reads what was seen before the server was stopped. A file that can't be read is begun anew:
// what it says is worth some milliseconds of somebody's time.
func (w *Worker) restore(now time.Time) {
	if w.cfg.Histories == "" || !w.cfg.Keep.Oracle {
		return
	}
	f, err := os.Open(w.cfg.Histories)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			w.cfg.Logger.Warn("histories of functions not read; they are learned anew", "err", err)
		}
		return
	}
	defer f.Close()
	books := map[faas.Name]*policy.Book{}
	lines := json.NewDecoder(f)
	for len(books) < maxBooks {
		var h history
		if err := lines.Decode(&h); err != nil {
			break // the end, or where it was cut
		}
		if now.Sub(h.Last) < bookKeep {
			books[h.Function] = policy.Restore(h.Record, now)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, b := range books {
		if w.shelf.books[name] == nil { // else it has been called already
			w.shelf.books[name] = b
		}
	}
	w.shelf.saved = now
}

// save writes what was seen, now and then or at once.
func (w *Worker) save(atOnce bool) {
	if w.cfg.Histories == "" || !w.cfg.Keep.Oracle {
		return
	}
	now := time.Now()
	w.mu.Lock()
	if !atOnce && now.Sub(w.shelf.saved) < saveEvery {
		w.mu.Unlock()
		return
	}
	w.shelf.saved = now
	var all []history
	names := make([]faas.Name, 0, len(w.shelf.books))
	for name, b := range w.shelf.books {
		if now.Sub(b.Last()) > bookKeep {
			delete(w.shelf.books, name)
			continue
		}
		names = append(names, name)
	}
	w.mu.Unlock()
	for some := range slices.Chunk(names, tendAtOnce) {
		w.mu.Lock()
		for _, name := range some {
			if b := w.shelf.books[name]; b != nil {
				all = append(all, history{name, b.Record()})
			}
		}
		w.mu.Unlock()
	}
	if err := writeHistories(w.cfg.Histories, all); err != nil {
		w.cfg.Logger.Warn("histories of functions not written", "err", err)
	}
}

// writeHistories replaces the file as a whole. It is not forced to the disk: see restore.
func writeHistories(path string, all []history) (err error) {
	// One name, so that a server that is killed meanwhile leaves no more than one file behind.
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	enc := json.NewEncoder(f)
	for i := range all {
		if err = enc.Encode(&all[i]); err != nil {
			_ = f.Close()
			return err
		}
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
