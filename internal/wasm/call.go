package wasm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/brasa-dev/brasa/runtimes"
	"github.com/brasa-dev/brasa/runtimes/golang/bootstrap"
)

// call is what one call's instance reads and writes. It belongs to the goroutine of the call.
type call struct {
	ctx    context.Context
	input  io.Reader
	log    func(lines []byte) // takes whole lines of stderr
	env    func() []string
	limits *limits

	out    []byte
	part   []byte   // of a line of stderr that has no end yet
	tail   []string // the last lines of stderr
	tailed int      // bytes in them
	vars   [][]byte // the environment, once it was asked for
	why    error    // why the host has ended the call
}

// limits are the same for all calls of a function.
type limits struct {
	memory   uint64 // of one call: its memory and its answer together
	told     uint64 // memory_bytes, for people
	response int
}

// box is what an instance has for its stdin, stdout and stderr before it has a call.
type box struct {
	call *call
	slot *slot
}

// stop ends the call from within one of the host's functions.
func (c *call) stop(why error) {
	c.why = why
	panic(sys.NewExitError(sys.ExitCodeContextCanceled))
}

var (
	errStack  = bootstrap.Fault{Kind: "stack overflow", Message: fmt.Sprintf("the functions of the module call each other too deeply: their stack is bounded by %d MiB", maxStack>>20)}
	errMemory = bootstrap.Fault{Kind: "out of memory", Limit: "memory_bytes"}
)

type callKey struct{}

func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// check is called by the code that rewrite has put into the module.
func check(ctx context.Context, stack []uint64) {
	c := callOf(ctx)
	if c == nil {
		return
	}
	if uint32(stack[0]) == checkStack {
		c.stop(errStack)
	}
	if ctx.Err() != nil {
		c.stop(ctx.Err())
	}
}

// stdin, stdout and stderr are a box's ends.
type (
	stdin  struct{ *box }
	stdout struct{ *box }
	stderr struct{ *box }
)

// Read is io.Reader's.
func (s stdin) Read(p []byte) (int, error) {
	c := s.call
	if c == nil || c.input == nil {
		return 0, io.EOF
	}
	n, err := c.input.Read(p)
	if c.ctx.Err() != nil {
		c.stop(c.ctx.Err())
	}
	return n, err
}

// Write is io.Writer's. The answer is kept until the call has ended well.
func (s stdout) Write(p []byte) (int, error) {
	c := s.call
	if c == nil {
		return len(p), nil
	}
	if c.ctx.Err() != nil {
		c.stop(c.ctx.Err())
	}
	if len(c.out)+len(p) > c.limits.response {
		c.stop(bootstrap.Fault{Message: fmt.Sprintf("the answer is larger than response_bytes allows, %d bytes", c.limits.response), Limit: "response_bytes"})
	}
	if need := len(c.out) + len(p); need > cap(c.out) {
		// It grows by doubling, while which the old one is there too.
		grown := max(need, 2*cap(c.out), 4<<10)
		if s.slot != nil && s.slot.used+uint64(grown)+uint64(len(c.out)) > c.limits.memory {
			f := errMemory
			f.Message = fmt.Sprintf("the answer and the module's memory together are larger than the %d MiB that a call may have", c.limits.memory>>20)
			c.stop(f)
		}
		c.out = append(make([]byte, 0, grown), c.out...)
		if s.slot != nil {
			s.slot.most = min(uint64(len(s.slot.all)), c.limits.memory-uint64(grown))
		}
	}
	c.out = append(c.out, p...)
	return len(p), nil
}

// maxPart is how much of a line without an end is kept.
const maxPart = 32 << 10

// Write is io.Writer's.
func (s stderr) Write(p []byte) (int, error) {
	c := s.call
	if c == nil {
		return len(p), nil
	}
	if c.ctx.Err() != nil {
		c.stop(c.ctx.Err())
	}
	for rest := p; len(rest) > 0; {
		n := min(len(rest), maxPart)
		c.part = append(c.part, rest[:n]...)
		rest = rest[n:]
		at := bytes.LastIndexByte(c.part, '\n') + 1
		if at == 0 && len(c.part) >= maxPart {
			at = len(c.part)
		}
		if at > 0 {
			c.emit(c.part[:at])
			c.part = append(c.part[:0], c.part[at:]...)
		}
	}
	return len(p), nil
}

// tailBytes of stderr tell in most languages what went wrong.
const tailBytes = 4 << 10

// emit passes lines on and remembers the last of them.
func (c *call) emit(lines []byte) {
	c.log(lines)
	text := strings.TrimSuffix(string(lines), "\n")
	if len(text) > tailBytes {
		text = text[len(text)-tailBytes:]
		c.tail, c.tailed = nil, 0
	}
	for line := range strings.SplitSeq(text, "\n") {
		c.tail = append(c.tail, line)
		c.tailed += len(line) + 1
	}
	for c.tailed > tailBytes && len(c.tail) > 1 {
		c.tailed -= len(c.tail[0]) + 1
		c.tail = c.tail[1:]
	}
}

// finish sends the rest of the log.
func (c *call) finish() {
	if len(c.part) > 0 {
		c.emit(c.part)
		c.part = nil
	}
}

// lastWord is the last line that says something, as the end of a message.
func (c *call) lastWord() string {
	for i := len(c.tail) - 1; i >= 0; i-- {
		if s := strings.TrimSpace(c.tail[i]); s != "" {
			if len(s) > 500 {
				s = s[:500] + "…"
			}
			return ": " + s
		}
	}
	return ""
}

// sleep is what poll_oneoff waits with.
func (b *box) sleep(ns int64) {
	if b.call == nil || ns <= 0 {
		return
	}
	t := time.NewTimer(time.Duration(ns))
	defer t.Stop()
	select {
	case <-t.C:
	case <-b.call.ctx.Done():
		b.call.stop(b.call.ctx.Err())
	}
}

// variables are the call's environment, each with its NUL.
func (c *call) variables() [][]byte {
	if c.vars == nil && c.env != nil {
		for _, v := range c.env() {
			c.vars = append(c.vars, append([]byte(v), 0))
		}
	}
	return c.vars
}

const errnoFault = 21

func environSizesGet(ctx context.Context, mod api.Module, stack []uint64) {
	var vars [][]byte
	if c := callOf(ctx); c != nil {
		vars = c.variables()
	}
	size := 0
	for _, v := range vars {
		size += len(v)
	}
	memory := mod.Memory()
	if !memory.WriteUint32Le(uint32(stack[0]), uint32(len(vars))) || !memory.WriteUint32Le(uint32(stack[1]), uint32(size)) {
		stack[0] = errnoFault
		return
	}
	stack[0] = 0
}

func environGet(ctx context.Context, mod api.Module, stack []uint64) {
	var vars [][]byte
	if c := callOf(ctx); c != nil {
		vars = c.variables()
	}
	memory, list, at := mod.Memory(), uint32(stack[0]), uint32(stack[1])
	for i, v := range vars {
		if !memory.WriteUint32Le(list+4*uint32(i), at) || !memory.Write(at, v) {
			stack[0] = errnoFault
			return
		}
		at += uint32(len(v))
	}
	stack[0] = 0
}

// run runs the call in an instance and returns its answer.
func (c *call) run(l *loaded, in *instance) ([]byte, error) {
	ctx := context.WithValue(c.ctx, callKey{}, c)
	in.box.call = c
	var err error
	switch {
	case in.mod == nil: // its code runs as soon as it is instantiated
		if err = in.make(ctx, l); err == nil {
			err = c.enter(ctx, l, in)
		}
	default:
		err = c.enter(ctx, l, in)
	}
	c.finish()
	if err != nil {
		if err = c.explain(err); err != nil {
			return nil, err
		}
	}
	return c.out, nil
}

func (c *call) enter(ctx context.Context, l *loaded, in *instance) error {
	if l.how == command {
		return in.entry.CallWithStack(ctx, nil)
	}
	return c.handle(ctx, in.mod)
}

// handle calls a reactor: its input is written where it says.
func (c *call) handle(ctx context.Context, mod api.Module) error {
	if f := mod.ExportedFunction("_initialize"); f != nil {
		if err := f.CallWithStack(ctx, nil); err != nil {
			return err
		}
	}
	body, err := io.ReadAll(io.LimitReader(c.input, int64(c.limits.memory)))
	if err != nil {
		return err
	}
	if c.ctx.Err() != nil {
		return c.ctx.Err()
	}
	c.input = nil
	at, err := mod.ExportedFunction("alloc").Call(ctx, uint64(len(body)))
	if err != nil {
		return err
	}
	place := uint32(at[0])
	if place == 0 && len(body) > 0 || !mod.Memory().Write(place, body) {
		return bootstrap.Fault{Message: fmt.Sprintf("the module's alloc returned %d, where there is no room for the request's %d bytes", place, len(body))}
	}
	answer, err := mod.ExportedFunction("handle").Call(ctx, uint64(place), uint64(len(body)))
	if err != nil {
		return err
	}
	begin, length := uint32(answer[0]>>32), uint32(answer[0])
	out, ok := mod.Memory().Read(begin, length)
	if !ok {
		return bootstrap.Fault{Message: fmt.Sprintf("the module's handle returned an answer of %d bytes at %d, which is not all in its memory", length, begin)}
	}
	if len(out) > c.limits.response {
		return bootstrap.Fault{Message: fmt.Sprintf("the answer is larger than response_bytes allows, %d bytes", c.limits.response), Limit: "response_bytes"}
	}
	c.out = bytes.Clone(out)
	return nil
}

// explain makes of how an instance ended what its owner is told. An exit with 0 is no error.
func (c *call) explain(err error) error {
	if c.why != nil {
		err = c.why
	}
	if f, ok := err.(bootstrap.Fault); ok {
		f.Trace = strings.Join(c.tail, "\n")
		return f
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if e, ok := errors.AsType[*sys.ExitError](err); ok {
		if e.ExitCode() == 0 {
			return nil
		}
		return bootstrap.Fault{Message: fmt.Sprintf("the program exited with code %d%s", e.ExitCode(), c.lastWord()), Trace: strings.Join(c.tail, "\n")}
	}
	// "wasm error: unreachable\nwasm stack trace:\n\t…"
	message, trace, _ := strings.Cut(err.Error(), "\nwasm stack trace:\n")
	message = strings.TrimPrefix(strings.TrimSuffix(message, " (recovered by wazero)"), "wasm error: ")
	if len(c.tail) > 0 {
		trace = strings.Join(c.tail, "\n") + "\n" + trace
	}
	return bootstrap.Fault{Kind: "trap", Message: "the module trapped: " + message + c.lastWord(), Trace: trace}
}

// contentType is what executables' answers have too.
func contentType(out []byte) string { return runtimes.ContentTypeOf(out) }
