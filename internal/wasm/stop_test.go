package wasm

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// villain is a command that does what the first byte of its input says: one harm for each letter,
// or "ok".
func villain() []byte {
	a := newAsm()
	r, w := a.wasi("fd_read", i32t, i32t, i32t, i32t), a.wasi("fd_write", i32t, i32t, i32t, i32t)
	first := len(a.imports)
	harm := map[byte][]byte{
		'l': forever(),                                 // computes for ever
		'r': callf(first),                              // recursion without an end
		'f': join(callf(first+1), ops(opDrop)),         // recursion that never gets deep
		'u': ops(opUnreachable),                        // a trap
		'o': join(load32(-4), ops(opDrop)),             // beyond its memory
		'd': join(i32c(1), i32c(0), ops(0x6d, opDrop)), // divides by zero
		'm': forever(i32c(1), ops(0x40, 0, opDrop), // grows for ever and writes to all it gets
			i32c(0), i32c(1), ops(0x3f, 0), i32c(16), ops(0x74), ops(0xfc, 11, 0)),
		't': join(forever(ops(0xd0, 0x70), i32c(1<<16), ops(0xfc, 15, 0, opDrop))), // a table without an end
		'b': join(i32c(1000), ops(0x40, 0, opDrop), // fills its memory over and over, without a loop in most of it
			forever(many(i32c(0), i32c(2), ops(0x3f, 0), i32c(16), ops(0x74), ops(0xfc, 11, 0)))),
		'w': forever(write(w, 1, 0)), // answers for ever
		'e': forever(write(w, 2, 0)), // logs for ever
	}
	rec := a.fn(nil, nil, 0, callf(first))
	// fib(64): 2^44 calls, at most 64 deep.
	fib := a.fn(nil, []byte{i32t}, 0, i32c(64), callf(first+2))
	a.fn([]byte{i32t}, []byte{i32t}, 0, lget(0), i32c(2), ops(0x49, 0x04, i32t, 0x41, 1, 0x05), // if n < 2 {1} else
		lget(0), i32c(1), ops(0x6b), callf(first+2), lget(0), i32c(2), ops(0x6b), callf(first+2), ops(opAdd, 0x0b))
	_, _ = rec, fib
	code := join(i32c(0), i32c(32), i32c(1), i32c(40), callf(r), ops(opDrop))
	for c, body := range harm {
		code = join(code, i32c(48), ops(0x2d, 0, 0), i32c(int32(c)), ops(0x46, 0x04, 0x40), body, ops(0x0b))
	}
	main := a.fn(nil, nil, 0, code, write(w, 1, 64))
	a.mem(2)
	a.tables = [][]byte{{0x70, 0, 1}}
	a.export("_start", 0, main)
	a.put(0, iovec(1024, 4096))
	a.put(32, iovec(48, 1))
	a.put(64, iovec(80, 2))
	a.put(80, "ok")
	return a.bytes()
}

// many repeats instructions a few hundred times, for a body that no short loop stands for.
func many(parts ...[]byte) []byte { return []byte(strings.Repeat(string(join(parts...)), 300)) }

func TestAHarmfulCallEndsAlone(t *testing.T) {
	const memory, concurrency = 256 * faas.MiB, 4
	c := serve(t, villain(), memory, concurrency)
	want := map[string]struct {
		code  faas.Code
		words string
	}{
		"l": {faas.Timeout, ""}, "f": {faas.Timeout, ""}, "b": {faas.Timeout, ""}, "e": {faas.Timeout, ""},
		"t": {faas.Timeout, ""}, // growing a table fails in the end, and the program goes on trying
		"m": {faas.Timeout, ""}, // the same of its memory
		"r": {faas.Failed, "too deeply"}, "u": {faas.Failed, "unreachable"}, "o": {faas.Failed, "out of bounds"},
		"d": {faas.Failed, "divide by zero"}, "w": {faas.Failed, "larger than response_bytes"},
	}
	for input, w := range want {
		t.Run(input, func(t *testing.T) {
			stop, neighbours := make(chan struct{}), sync.WaitGroup{}
			served := 0
			neighbours.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
					res, err := c.RoundTrip(ctx, invocation("good"), nil)
					cancel()
					if err != nil || res.Status != 200 {
						t.Errorf("a neighbour got %v", err)
						return
					}
					served++
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			inv := invocation(input)
			inv.Deadline, _ = ctx.Deadline()
			res, err := c.RoundTrip(ctx, inv, runtimes.LogFunc(func(faas.LogLine) {}))
			if err == nil || faas.CodeOf(err) != w.code || !strings.Contains(err.Error(), w.words) {
				t.Errorf("the call ended with %v, %v; want %v %q", res, err, w.code, w.words)
			}
			close(stop)
			neighbours.Wait()
			if served == 0 {
				t.Error("no neighbour was served")
			}
		})
	}
	idle, stop := context.WithTimeout(t.Context(), 5*time.Second)
	defer stop()
	if err := c.Idle(idle); err != nil {
		t.Fatalf("%d calls still run", c.Active())
	}
	// As many at once as may be, each with all that it can take.
	var wait sync.WaitGroup
	for _, input := range []string{"m", "m", "r", "m"} {
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			inv := invocation(input)
			inv.Deadline, _ = ctx.Deadline()
			_, _ = c.RoundTrip(ctx, inv, nil)
		})
	}
	wait.Wait()
	if got := body(t, c, invocation("good")); got != "ok" {
		t.Errorf("afterwards the worker answers %q", got)
	}
}

// The peak of all harm together stays below what the process may have.
func TestMemoryStaysWithinTheProcess(t *testing.T) {
	const memory, concurrency = 128 * faas.MiB, 4
	c, cmd := process(t)
	spec := runtimes.SpecOf(revision(memory, concurrency), nil)
	spec.Code = compiled(t, villain())
	if _, err := c.Load(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for _, input := range []string{"m", "m", "m", "r"} {
		wait.Go(func() {
			for range 3 {
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				inv := invocation(input)
				inv.Deadline, _ = ctx.Deadline()
				_, _ = c.RoundTrip(ctx, inv, nil)
				cancel()
			}
		})
	}
	wait.Wait()
	if peak := anonymousPeak(t, cmd.Process.Pid); peak > memory {
		t.Errorf("the process had %v at its peak; it may have %v", peak, faas.Bytes(memory))
	} else {
		t.Logf("peak %v of %v", peak, faas.Bytes(memory))
	}
}
