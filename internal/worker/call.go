package worker

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// call is one invocation on its way through the worker.
type call struct {
	inv *faas.Invocation
	log *runtimes.Log
	cpu time.Duration // of the instance, when the call began
	// from is the instance from which it came; empty: from none. gone is closed when that does not wait
	// for it any more.
	from string
	gone <-chan struct{}
	// slow says that the call has lost a stem already and takes no other.
	slow bool
	// foreign says that its function's contract is another platform's, whose callers are told how long
	// the code has taken to load even where it failed.
	foreign bool
}

// startedWarm notes that the call found an instance at once.
func (c *call) startedWarm(in *instance, waited time.Duration) {
	c.took(in)
	c.inv.Timing.Add(faas.PhaseQueue, 0)
	c.inv.Timing.Add(faas.PhaseProvisioning, waited)
	if in.markUsed(c) { // it was made ahead
		c.inv.Report.Start = faas.StartPrewarmed
		c.firstOfNew()
	}
}

// firstOfNew notes that the call is the first of an instance that was made before it was wanted. Callers of
// other contracts tell by the time of the load, be it none, that the process is a new one.
func (c *call) firstOfNew() {
	if c.foreign {
		c.inv.Timing.Add(faas.PhaseCodeLoad, 0)
	}
}

// took notes which instance that stood there the call has got.
func (c *call) took(in *instance) {
	c.inv.Report.Instance = in.id
	switch {
	case in.rewound:
		c.inv.Report.Start = faas.StartRestored
		c.inv.Seed = newSeed()
	case in.pool.oneCall():
		c.inv.Report.Start = faas.StartPrewarmed
	default:
		c.inv.Report.Start = faas.StartWarm
	}
}

// granted notes what became of waiting in line.
func (c *call) granted(g grant, waited time.Duration) (*instance, error) {
	for _, l := range g.log {
		c.log.Log(l)
	}
	if g.err != nil {
		c.inv.Timing.Add(c.vain(g.err), waited)
		return nil, g.err
	}
	c.inv.Report.Instance = g.in.id
	first := g.in.markUsed(c)
	if first && waited >= g.in.births.total {
		// The first call of an instance is the one it was made for: it gets the times of that.
		b := &g.in.births
		c.inv.Report.Start = b.start
		c.inv.Timing.Add(faas.PhaseQueue, waited-b.total)
		for p := faas.PhaseProvisioning; p <= faas.PhaseCodeLoad; p++ {
			if d, ok := b.timing.Get(p); ok {
				c.inv.Timing.Add(p, d)
				c.inv.Timing.AddCPU(p, b.timing.CPU(p))
			}
		}
		c.inv.Timing.SetTrees(b.timing.Trees())
		for _, l := range b.log {
			c.log.Log(l)
		}
		return g.in, nil
	}
	c.took(g.in)
	c.inv.Timing.Add(faas.PhaseQueue, waited)
	if first {
		c.inv.Report.Start = faas.StartPrewarmed
		c.firstOfNew()
	}
	return g.in, nil
}

// vain is the phase in which a call was that has got no instance.
func (c *call) vain(err error) faas.Phase {
	if code := faas.CodeOf(err); c.foreign && (code == faas.Failed || code == faas.Crashed || code == faas.Timeout) {
		return faas.PhaseCodeLoad
	}
	return faas.PhaseQueue
}

// markUsed says whether this is the instance's first call. A proof does not count as one, save
// that it takes the times of the start as its own.
func (in *instance) markUsed(c *call) (first bool) {
	return in.used.CompareAndSwap(false, true)
}

// report moves the log into the invocation's report.
func (c *call) report() {
	r := &c.inv.Report
	r.Logs, r.LogTruncated = c.log.Lines()
}

// run sends the call to the instance and returns the answer's head. The slot is given back when
// the answer is complete.
func (w *Worker) run(ctx context.Context, in *instance, c *call) (*faas.Result, error) {
	alone := in.slots == 1
	if alone && in.out != nil {
		in.out.aim(c.log)
	}
	w.serves(in, c)
	began := time.Now()
	c.cpu = in.opened(began)
	res, err := in.conn.RoundTrip(ctx, c.inv, c.log)
	if in.quick {
		began = w.settle(in, c, began, err)
	}
	if err != nil {
		err = w.explainCall(ctx, in, c, err)
		w.ended(in, c, began, faas.CodeOf(err))
		return nil, lastWords(err, c.inv.Report.Logs)
	}
	if _, whole := res.Body.(*faas.BytesBody); whole {
		w.ended(in, c, began, faas.OK)
		c.inv.Report.Response = faas.Bytes(res.Body.(*faas.BytesBody).Len())
		return res, nil
	}
	b := &runningBody{ReadCloser: res.Body, end: func(err error, read int64) error {
		c.inv.Report.Response = faas.Bytes(read)
		code := faas.OK
		if err != nil {
			err = w.explainCall(ctx, in, c, err)
			code = faas.CodeOf(err)
		}
		w.ended(in, c, began, code)
		return err
	}}
	res.Body = b
	if wr, ok := b.ReadCloser.(io.Writer); ok {
		res.Body = &runningConn{b, wr}
	}
	return res, nil
}

// ended closes a call's books: times, figures, log; and gives the slot back.
func (w *Worker) ended(in *instance, c *call, began time.Time, code faas.Code) {
	now := time.Now()
	c.inv.Timing.Add(faas.PhaseExecution, now.Sub(began))
	alone := in.slots == 1
	if alone && in.out != nil {
		in.out.aim(in.stray)
	}
	next, held := keep, faas.Bytes(0)
	if u, err := in.closing(began, now, alone && in.out != nil); err == nil {
		held = u.memory
		used := max(u.cpu-c.cpu, 0)
		c.inv.Timing.AddCPU(faas.PhaseExecution, used)
		in.pool.pace.note(now.Sub(began), used)
		for p := faas.PhaseProvisioning; p <= faas.PhaseCodeLoad; p++ {
			used += c.inv.Timing.CPU(p)
		}
		c.inv.Report.CPU = used
		c.inv.Report.Memory = u.peak
		if alone && in.out != nil && !w.nothingLeft(in, c, u.tasks) {
			next = end
		}
	}
	c.report()
	switch code {
	case faas.Timeout:
		// The call still runs inside. Alone, it is ended with its process; beside others, these
		// may finish first.
		if next = max(next, leave); alone {
			next = end
		}
	case faas.Canceled:
		// The function was told that nobody waits. Alone, there is no telling when it has let go
		// of the process; beside others, it has only its own slot, and theirs are not its to end.
		if alone {
			next = end
		}
	case faas.Crashed:
		next = end
	case faas.Failed:
		if c.foreign { // whose processes end when their code breaks its contract
			if next = max(next, leave); alone {
				next = end
			}
		}
	}
	if in.broken || in.died() {
		next = end
	}
	w.release(in, c, next, held)
}

// nothingLeft says whether the instance is as it was after load as far as its processes go. A
// process that a call left running could write into the next call's log and read its data, so
// such an instance is not used again. The number of tasks alone does not tell: a process may have
// come for a thread that has gone. Only when there is one task, or as many as the processes of the
// load have threads, there is nothing to look for; and only a control group counts them at this
// very moment, which those without a user id may not have.
func (w *Worker) nothingLeft(in *instance, c *call, tasks int) bool {
	counted := in.box.UID() != 0
	if counted && (tasks == 1 || in.onlyThreads(tasks)) {
		return true
	}
	if in.tree == nil {
		return true
	}
	now, err := in.box.Processes()
	if err != nil {
		return false
	}
	for _, pid := range now {
		if _, had := slices.BinarySearch(in.tree, pid); !had {
			c.log.Log(platformLine("a process was left running after the answer; it and its instance were ended"))
			return false
		}
	}
	if counted {
		in.count(now)
	}
	return true
}

// runningBody is an answer that the function is still writing.
type runningBody struct {
	io.ReadCloser
	once sync.Once
	end  func(err error, read int64) error
	read atomic.Int64 // an upgraded connection is read and closed at once
}

func (b *runningBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read.Add(int64(n))
	if err != nil {
		b.once.Do(func() {
			if errors.Is(err, io.EOF) {
				_ = b.end(nil, b.read.Load())
			} else {
				err = b.end(err, b.read.Load())
			}
		})
	}
	return n, err
}

func (b *runningBody) Close() error {
	err := b.ReadCloser.Close()
	b.once.Do(func() { _ = b.end(faas.Errorf(faas.Canceled, "return answer", "the caller went away"), b.read.Load()) })
	return err
}

// runningConn is an upgraded connection.
type runningConn struct {
	*runningBody
	io.Writer
}

// Read does not tell how the connection ended: whichever side closes it, it has ended well.
func (b *runningConn) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read.Add(int64(n))
	if err != nil {
		b.once.Do(func() { _ = b.end(nil, b.read.Load()) })
	}
	return n, err
}

// Close is the other end.
func (b *runningConn) Close() error {
	err := b.ReadCloser.Close()
	b.once.Do(func() { _ = b.end(nil, b.read.Load()) })
	return err
}
