package worker

import (
	"context"
	"errors"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/policy"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// A pristine function's calls each find the process as it was just after load. There are two ways
// to that, and a pool takes the cheaper: a process that was armed is rewound after its answer has
// been sent; any other is ended, and one that has never served a call takes its place. What can't
// be rewound to the last bit is ended, whatever the plan was.

const (
	// rewindTime bounds a rewind, which takes a millisecond: longer is as bad as a failure.
	rewindTime = time.Second
	// armTime bounds the preparation for it, which copies the process's memory.
	armTime = 5 * time.Second
	// rewindTries is how many instances in a row may turn out not to be rewound before the pool
	// gives up on it: what a function does once, it does each time.
	rewindTries = 3
	// parkPause is how long nobody has called a function before another instance of it is made
	// ahead: that takes the processors for as long as a call would, and from the calls there are.
	parkPause = time.Second
	// rewindCPU is the least share of a processor, in thousandths, with which a process is put back:
	// with less, its threads may take longer to stop than another process takes to be made, and the
	// next rewinds wait for them.
	rewindCPU = 100
	// unarmedMost is how many instances in a row may serve without being armed.
	unarmedMost = 2
)

// oneCall says whether a process of the pool serves one call only, unless it is rewound.
func (p *pool) oneCall() bool {
	return p.rev.Reuse == faas.ReuseNever || p.rev.State == faas.StatePristine && !p.rt.Fresh()
}

// rewindable says whether processes that serve the revision may be put back.
func rewindable(rev *faas.Revision, rt *runtimes.Runtime) bool {
	return rt.Rewinds() && rev.Limits.Concurrency <= 1 && (rev.Limits.CPU == 0 || rev.Limits.CPU >= rewindCPU)
}

// rewinds says whether instances of the pool are worth arming. The caller holds Worker.mu.
func (p *pool) rewinds() bool {
	return p.oneCall() && (p.rev.Reuse == faas.ReuseFunction || p.rev.Reuse == "") && p.failed < rewindTries && rewindable(p.rev, p.rt)
}

// worthArming says whether the next instance is to be armed before it serves. Those in line need it
// more, and it is replaced after one call; but calls that come one upon the other would have that
// for ever. The caller holds Worker.mu.
func (p *pool) worthArming() bool { return p.line.len() == 0 || p.unarmed >= unarmedMost }

// arm prepares an instance that has loaded its code and served nobody to be put back to this
// state. One that can't be armed serves one call and is replaced.
func (w *Worker) arm(in *instance) {
	ctx, cancel := context.WithTimeout(w.life, armTime)
	defer cancel()
	err := w.roomToArm(in)
	if err == nil {
		err = in.box.Arm(ctx)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.countCopies()
	if err == nil {
		in.armed = true
		in.pool.unarmed = 0
		return
	}
	in.pool.giveUp(err)
	w.cfg.Logger.Debug("instance not armed", "function", in.pool.key.name.String(), "instance", in.id, "err", err)
}

// roomToArm says whether there is memory for a copy of the process, which is in nobody's limit.
func (w *Worker) roomToArm(in *instance) error {
	u, err := in.box.Usage()
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.countCopies()
	if w.reserved+faas.Bytes(u.Memory) > w.memory() {
		return errors.New("there is no memory for a copy of it")
	}
	return nil
}

// countCopies takes into account what snapshots hold now. The caller holds mu.
func (w *Worker) countCopies() {
	now := faas.Bytes(w.cfg.Sandbox.SnapshotMemory())
	w.reserved += now - w.copies
	w.copies = now
}

// giveUp counts a failure to rewind. The caller holds Worker.mu.
func (p *pool) giveUp(err error) {
	if errors.Is(err, context.DeadlineExceeded) {
		return // it was not its turn in time, which is no fault of this function's
	}
	p.failed++
	if _, never := errors.AsType[*sandbox.UnsupportedError](err); never {
		p.failed = rewindTries
	}
}

// putBack rewinds the process, and sees to it that nothing which it said or was told before reaches
// the calls to come: what lies in its connection and in its log belongs to those before.
func (w *Worker) putBack(in *instance) (sandbox.Rewound, error) {
	ctx, cancel := context.WithTimeout(w.life, rewindTime)
	defer cancel()
	if err := in.frames.Silent(); err != nil {
		return sandbox.Rewound{}, err
	}
	done, err := in.box.Rewind(ctx)
	if err == nil {
		err = in.frames.Rewound()
	}
	if err == nil {
		in.out.aim(in.stray) // once more, which reads it empty
	}
	return done, err
}

// cleanse puts an armed instance back to its state after load and gives it to the next call. Its
// slot is still taken. The caller holds mu.
func (w *Worker) cleanse(in *instance) {
	in.pool.cleansing++
	w.work.Add(1)
	go func() {
		defer w.work.Done()
		done, err := w.putBack(in)
		held := faas.Bytes(0)
		if u, e := in.box.Usage(); e == nil {
			held = faas.Bytes(u.Memory)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		p := in.pool
		p.cleansing--
		in.active--
		if in.ending {
			w.grow(p)
			return
		}
		if err != nil || in.died() {
			p.giveUp(err)
			w.cfg.Logger.Debug("instance not rewound; it is replaced", "function", p.key.name.String(), "instance", in.id, "err", err)
			w.retire(in, "changed")
			w.park(p)
			return
		}
		p.failed = 0
		in.rewound = true
		in.rewinds++
		in.rewindTook = done.Took
		if in.leaving || w.draining {
			w.retire(in, "moved on")
			return
		}
		w.offer(in, held)
	}()
}

// sendHome puts an instance back to what it was before it got its function: a stem, for the next
// function of its owner. Its slot is still taken. The caller holds mu.
func (w *Worker) sendHome(in *instance) {
	w.work.Add(1)
	go func() {
		defer w.work.Done()
		done, err := w.putBack(in)
		held := faas.Bytes(0)
		if u, e := in.box.Usage(); e == nil {
			held = faas.Bytes(u.Memory)
		}
		in.tellStray(in.pool.rev, w.cfg.Stray)
		w.mu.Lock()
		defer w.mu.Unlock()
		p, s := in.pool, w.stems[in.home]
		in.active--
		if in.ending {
			return
		}
		if err != nil || in.died() || in.leaving || w.draining || s == nil || held == 0 {
			if err != nil {
				w.cfg.Logger.Debug("instance not put back; it is ended", "function", p.key.name.String(), "instance", in.id, "err", err)
			}
			w.retire(in, "changed")
			return
		}
		in.rewinds++
		in.rewindTook = done.Took
		in.frames.Unload()
		delete(p.instances, in.id)
		w.reserved += held - in.held
		in.held = held
		in.pool, in.births, in.idleSince = nil, births{}, time.Now()
		in.used.Store(false)
		s.ready = append(s.ready, in)
		w.grow(p) // calls may wait for one of a bounded number
		w.feed()
		w.dropIfEmpty(p)
	}()
}

// park has instances made that no call waits for yet, as policy.Park says. The caller holds mu.
func (w *Worker) park(p *pool) {
	if p.rev.Reuse == faas.ReuseTenant || p.rev.Reuse == faas.ReuseAny || p.rt.Style == runtimes.StyleExec || w.draining || w.pools[p.key] != p {
		return
	}
	now := time.Now()
	want := policy.Park(policy.Use{
		Load: p.load, Busiest: p.claims.Busiest(now.Unix()), Idle: now.Sub(p.called), OneCall: p.oneCall(), Rewound: p.rewinds(),
	})
	if p.key.name.Function == faas.AdHoc {
		want = 0 // most of it is never called again
	}
	have := p.starting
	for _, in := range p.free {
		if in.calls == 0 || in.rewound {
			have++
		}
	}
	for ; have < want+p.line.len(); have++ {
		if n := p.rev.Limits.MaxInstances; n > 0 && len(p.instances)+p.starting >= n {
			return
		}
		// Nothing gives way for what nobody has asked for.
		if !w.mayStart(p) || len(w.hungry) > 0 || w.reserved+w.stemming+p.rev.Limits.Memory > w.memory() || now.Before(p.notAhead) {
			return
		}
		w.reserved += p.rev.Limits.Memory
		w.begins(p)
		go w.start(p, nil)
	}
}

// spare says whether the instance has served nobody and is dear to replace. The caller holds
// Worker.mu.
func (in *instance) spare() bool { return in.calls == 0 && in.births.load() >= policy.ParkLoad }
