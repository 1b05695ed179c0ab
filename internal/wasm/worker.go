package wasm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"sort"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
	"github.com/brasa-dev/brasa/runtimes/golang/bootstrap"
)

// Main does what the arguments ask for, if it is one of the things that this package does, and
// does not return then. Else it tells package runtimes that this program can do them. It is called
// first of all in main.
func Main(args []string) {
	arg := ""
	if len(args) > 1 {
		arg = args[1]
	}
	switch arg {
	case runtimes.WasmWorker:
		work()
	case runtimes.WasmCompile:
		if len(args) != 4 {
			os.Exit(64)
		}
		os.Exit(compileMain(args[2], args[3]))
	}
	runtimes.OfferWasm()
}

// compileMain compiles a module, as a deploy does in a sandbox. A refused module is a result like
// another; what is not expected ends with another code than 0.
func compileMain(file, out string) int {
	err := compileTo(context.Background(), file, out)
	if err == nil {
		return 0
	}
	if r, ok := errors.AsType[*Refused](err); ok {
		b, _ := json.Marshal(r)
		if err = os.WriteFile(filepath.Join(out, runtimes.WasmRefused), b, 0o644); err == nil {
			return 0
		}
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// processMemory is what a worker needs besides its modules: the program's own data, the heap with
// its garbage and the stacks of calls.
const processMemory = 40 << 20

// worker is the function that a process serves.
type worker struct {
	spec   runtimes.Spec
	env    []string // without what is a call's own
	limits limits
	pool   *pool
}

// work serves calls. It does not return.
func work() {
	// The heap is small, and each call leaves some garbage in it: collecting it at twice its size
	// would take a tenth of the processor at full speed.
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(processMemory)
	rehearse()
	w := &worker{}
	bootstrap.Host{
		Runtime: runtimes.Wasm, Version: runtimes.WazeroVersion(),
		Load: w.load, Call: w.call,
	}.Serve()
}

// nothing is a module whose _start does nothing.
const nothing = "\x00asm\x01\x00\x00\x00" + "\x01\x04\x01\x60\x00\x00" + "\x03\x02\x01\x00" + "\x05\x03\x01\x00\x01" +
	"\x07\x13\x02\x06memory\x02\x00\x06_start\x00\x00" + "\x0a\x04\x01\x02\x00\x0b"

// rehearse does once all that a load and a call do, with a module of our own, so that what they
// touch is there when a process that stands ready is claimed.
func rehearse() {
	ctx := context.Background()
	m, err := rewrite([]byte(nothing))
	if err != nil {
		return // what is wrong shows when there is somebody to tell
	}
	l, err := instantiable(ctx, nil, m.binary)
	if err != nil {
		return
	}
	defer l.engine.runtime.Close(ctx)
	s, err := newSlot(pageSize)
	if err != nil {
		return
	}
	defer s.drop()
	in := &instance{box: &box{slot: s}, config: l.config("")}
	if in.make(ctx, l) == nil {
		c := &call{ctx: ctx, limits: &limits{}}
		_, _ = c.run(l, in)
	}
}

func (w *worker) load(text []byte) error {
	if err := json.Unmarshal(text, &w.spec); err != nil {
		return err
	}
	s := &w.spec
	for k, v := range s.Env {
		w.env = append(w.env, k+"="+v)
	}
	sort.Strings(w.env)
	l, err := load(context.Background(), s.Code, s.Entry)
	if err != nil {
		f := bootstrap.Fault{Message: err.Error()}
		if r, ok := errors.AsType[*Refused](err); ok && r.Fix != "" {
			f.Message += "; " + r.Fix
		}
		return f
	}
	if w.limits, err = share(s, l); err != nil {
		return err
	}
	w.pool = newPool(l, filepath.Base(s.Entry), &w.limits, min(max(2, s.Concurrency), maxSpare))
	if l.starts {
		return nil
	}
	in, err := w.pool.take()
	if err != nil {
		return bootstrap.Fault{Message: err.Error()}
	}
	w.pool.done(in)
	return nil
}

// share divides the process' memory: each of the calls that run at once has an equal part of what
// the compiled code and instances made ahead leave.
func share(s *runtimes.Spec, l *loaded) (limits, error) {
	calls := max(1, s.Concurrency)
	left := int64(s.Memory) - processMemory - int64(l.code) - int64(l.data)*maxSpare
	part := max(0, left/int64(calls)) / pageSize * pageSize
	part = min(part, 1<<32)
	lim := limits{memory: uint64(part), told: uint64(s.Memory), response: int(min(int64(s.Response), 1<<40))}
	if l.least > lim.memory || part == 0 {
		need := faas.Bytes(int64(s.Memory) - left + int64(calls)*int64(max(l.least, pageSize)))
		need = (need + faas.MiB - 1) / faas.MiB * faas.MiB
		return lim, bootstrap.Fault{
			Message: fmt.Sprintf("the module's memory begins with %v, and of memory_bytes, %v, each of %d calls at once may have %v; raise memory_bytes to %v at least, or lower concurrency",
				faas.Bytes(l.least), s.Memory, calls, faas.Bytes(part), need),
			Limit: "memory_bytes",
		}
	}
	return lim, nil
}

// grace is how long after its deadline a call that was stopped says so.
const grace = 50 * time.Millisecond

func (w *worker) call(ctx context.Context, b *bootstrap.Call) (any, error) {
	in, err := w.pool.take()
	if err != nil {
		return nil, err
	}
	defer w.pool.done(in)
	c := &call{ctx: ctx, limits: &w.limits, input: b.Body(), log: b.Log, env: func() []string {
		inv := &faas.Invocation{
			ID: faas.ID(b.ID), Cause: faas.ID(b.Cause), Attempt: b.Attempt, Kind: faas.Kind(b.Kind),
			Method: b.Method, Path: b.Path, Query: b.Query, Header: b.Header,
		}
		if b.DeadlineMS > 0 {
			inv.Deadline = time.UnixMilli(b.DeadlineMS)
		}
		return append(w.env[:len(w.env):len(w.env)], runtimes.ExecEnv(inv)...)
	}}
	if b.BodyForm == "stream" {
		defer context.AfterFunc(ctx, func() { b.Abandon(io.ErrUnexpectedEOF) })()
	}
	out, err := c.run(w.pool.loaded, in)
	if errors.Is(err, context.DeadlineExceeded) {
		// The host knows the same deadline and has its own words for it, which are those that its
		// caller shall get.
		time.Sleep(grace)
	}
	if err != nil {
		return nil, err
	}
	return bootstrap.Answered(200, contentType(out), out), nil
}
