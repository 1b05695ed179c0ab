// Package bootstrap is Brasa's bootstrap for Go: frame protocol 1 over descriptor 3.
//
// It is not imported but copied, by package golang, into the module of a function, whose
// generated main calls Serve with the handler. It uses the standard library alone and little of
// it, because all of it is compiled at deploy; net/http comes only with http.go, for handlers
// that are of its form. What a handler may be is written in docs/runtimes/go.md and tested in
// test/contract.
package bootstrap

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	typeLoad, typeCall, typeBody, typeBodyEnd, typeCancel, typeCredit = 1, 2, 3, 4, 5, 6

	typeHello, typeLoaded, typeLoadFailed, typeLog, typeResult, typeHead, typeData, typeEnd, typeWindow = 16, 17, 18, 19, 20, 21, 22, 23, 24

	maxPayload    = 1 << 20
	maxWhole      = 256 << 10 // an answer up to this size travels in one frame
	initialWindow = 1 << 20
	chunk         = 128 << 10 // bytes in one DATA frame
)

// Handler runs one call and returns what to answer with.
type Handler func(ctx context.Context, c *Call) (any, error)

// spec is what LOAD says.
type spec struct {
	Namespace string            `json:"namespace"`
	Function  string            `json:"function"`
	Revision  string            `json:"revision"`
	Env       map[string]string `json:"env"`
	Memory    int64             `json:"memory_bytes"`
	Response  int64             `json:"response_bytes"`
	Log       int64             `json:"log_bytes"`
}

// link is our end of the socket.
type link struct {
	file    *os.File
	sending sync.Mutex
	spec    spec

	mu    sync.Mutex
	calls map[uint32]*Call // guarded by mu
}

// Serve says that the program has booted and serves calls with h until the host goes away. The
// code of a Go function is loaded when its program is, so LOAD only brings its environment.
func Serve(h Handler) {
	serve(program{
		runtime: "go", version: strings.TrimPrefix(runtime.Version(), "go"), call: h, captures: true,
		load: func(spec []byte, l *link) ([]byte, *fault) {
			for k, v := range l.spec.Env {
				_ = os.Setenv(k, v) // the host has checked the names
			}
			return []byte(`{"dependency_us":0,"code_us":0}`), nil
		},
	})
}

// program is what is served: a function that is compiled in, or one that comes with LOAD.
type program struct {
	runtime, version string
	load             func(spec []byte, l *link) (loaded []byte, failed *fault)
	call             Handler
	captures         bool // what is written to the process' stdout and stderr is a call's log
}

func serve(p program) {
	fd := 3
	syscall.CloseOnExec(fd)
	_ = syscall.SetNonblock(fd, true) // so that waiting for a frame holds no thread
	l := &link{file: os.NewFile(uintptr(fd), "host"), calls: make(map[uint32]*Call)}
	hello, _ := json.Marshal(map[string]any{"protocol": 1, "runtime": p.runtime, "version": p.version})
	l.send(frame(typeHello, 0, hello))
	var logs *captured
	if p.captures {
		logs = capture(l)
	}
	for {
		kind, stream, payload := l.next()
		if kind == typeCall {
			c := l.begin(stream, payload)
			go c.run(p.call, logs)
			continue
		}
		if kind == typeLoad {
			if err := json.Unmarshal(payload, &l.spec); err != nil {
				broken(err)
			}
			loaded, failed := p.load(payload, l)
			if failed != nil {
				b, _ := json.Marshal(failed)
				l.send(frame(typeLoadFailed, 0, b))
				os.Exit(1)
			}
			l.send(frame(typeLoaded, 0, loaded))
			continue
		}
		l.mu.Lock()
		c := l.calls[stream]
		l.mu.Unlock()
		if c == nil {
			continue // it is over
		}
		switch kind {
		case typeBody:
			c.body.put(payload, nil)
		case typeBodyEnd:
			c.body.put(nil, io.EOF)
		case typeCancel:
			c.cancel()
			c.body.put(nil, context.Canceled)
			c.grant(0)
		case typeCredit:
			c.grant(int(binary.BigEndian.Uint32(payload)))
		}
	}
}

func broken(err error) {
	fmt.Fprintln(os.Stderr, "brasa: a frame that cannot be read:", err)
	os.Exit(70)
}

// next reads a frame. It ends the process when the host has gone, for nobody would care.
func (l *link) next() (kind byte, stream uint32, payload []byte) {
	var head [9]byte
	if _, err := io.ReadFull(l.file, head[:]); err != nil {
		os.Exit(0)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 5 || n > 5+maxPayload {
		broken(fmt.Errorf("%d bytes", n))
	}
	payload = make([]byte, n-5)
	if _, err := io.ReadFull(l.file, payload); err != nil {
		os.Exit(0)
	}
	return head[4], binary.BigEndian.Uint32(head[5:]), payload
}

func (l *link) send(b []byte) {
	l.sending.Lock()
	defer l.sending.Unlock()
	if _, err := l.file.Write(b); err != nil {
		os.Exit(0)
	}
}

func frame(kind byte, stream uint32, payload []byte) []byte {
	b := make([]byte, 9, 9+len(payload))
	binary.BigEndian.PutUint32(b, uint32(len(payload)+5))
	b[4] = kind
	binary.BigEndian.PutUint32(b[5:], stream)
	return append(b, payload...)
}

func metaFrame(kind byte, stream uint32, meta any, body []byte) []byte {
	m, err := json.Marshal(meta)
	if err != nil {
		m, _ = json.Marshal(map[string]any{"error": fault{Message: err.Error()}})
	}
	b := make([]byte, 13, 13+len(m)+len(body))
	binary.BigEndian.PutUint32(b, uint32(9+len(m)+len(body)))
	b[4] = kind
	binary.BigEndian.PutUint32(b[5:], stream)
	binary.BigEndian.PutUint32(b[9:], uint32(len(m)))
	return append(append(b, m...), body...)
}

// Call is one call.
type Call struct {
	ID         string              `json:"id"`
	DeadlineMS int64               `json:"deadline_ms"`
	Kind       string              `json:"kind"`
	Method     string              `json:"method"`
	Path       string              `json:"path"`
	Query      string              `json:"query"`
	Header     map[string][]string `json:"headers"`
	Attempt    int                 `json:"attempt"`
	Cause      string              `json:"cause"`
	BodyForm   string              `json:"body"`
	Length     int64               `json:"length"`
	link       *link
	stream     uint32
	ctx        context.Context
	cancel     context.CancelFunc
	body       *body
	logged     atomic.Int64
	creditMu   sync.Mutex
	creditMore *sync.Cond
	credit     int   // guarded by creditMu
	sent       int64 // bytes of a streamed answer; the handler's goroutine
	headed     bool  // the handler's goroutine
}

func (l *link) begin(stream uint32, payload []byte) *Call {
	if len(payload) < 4 || int64(binary.BigEndian.Uint32(payload)) > int64(len(payload)-4) {
		broken(errors.New("CALL"))
	}
	n := 4 + binary.BigEndian.Uint32(payload)
	c := &Call{link: l, stream: stream, credit: initialWindow}
	c.creditMore = sync.NewCond(&c.creditMu)
	if err := json.Unmarshal(payload[4:n], c); err != nil {
		broken(err)
	}
	c.body = newBody(c, payload[n:], c.BodyForm == "stream")
	if c.DeadlineMS > 0 {
		c.ctx, c.cancel = context.WithDeadline(context.Background(), time.UnixMilli(c.DeadlineMS))
	} else {
		c.ctx, c.cancel = context.WithCancel(context.Background())
	}
	c.ctx = values{c.ctx, c}
	l.mu.Lock()
	l.calls[stream] = c
	l.mu.Unlock()
	return c
}

// values lets a handler ask its context for what is known of the call, by names that need no
// import: ctx.Value("brasa.invocation_id").
type values struct {
	context.Context
	call *Call
}

func (v values) Value(key any) any {
	name, ok := key.(string)
	if !ok {
		return v.Context.Value(key)
	}
	c := v.call
	switch name {
	case "brasa.invocation_id":
		return c.ID
	case "brasa.cause":
		return c.Cause
	case "brasa.attempt":
		return c.Attempt
	case "brasa.function_name":
		return c.link.spec.Function
	case "brasa.namespace":
		return c.link.spec.Namespace
	case "brasa.revision":
		return c.link.spec.Revision
	case "brasa.memory_limit":
		return c.link.spec.Memory
	case "brasa.log":
		return io.Writer(callLog{c})
	}
	return v.Context.Value(key)
}

func (c *Call) run(h Handler, logs *captured) {
	defer c.cancel()
	defer func() {
		if p := recover(); p != nil {
			c.fail(logs, fault{Kind: "panic", Message: fmt.Sprint(p), Trace: stack()})
		}
	}()
	v, err := h(c.ctx, c)
	if err == nil {
		err = c.answer(logs, v)
	}
	if err != nil {
		c.fail(logs, faultOf(err))
	}
}

// end sends the call's last frame, after the lines that it has written.
func (c *Call) end(logs *captured, b []byte) {
	logs.flush()
	c.link.mu.Lock()
	_, first := c.link.calls[c.stream]
	delete(c.link.calls, c.stream)
	c.link.mu.Unlock()
	if first {
		c.link.send(b)
	}
	c.body.put(nil, context.Canceled)
}

func (c *Call) fail(logs *captured, f fault) {
	if c.headed {
		b, _ := json.Marshal(map[string]any{"error": f})
		c.end(logs, frame(typeEnd, c.stream, b))
		return
	}
	c.end(logs, metaFrame(typeResult, c.stream, map[string]any{"error": f}, nil))
}

// fault is an error as the host wants it.
type fault struct {
	Code    string `json:"code,omitempty"` // "invalid": the caller can mend it
	Kind    string `json:"kind,omitempty"`
	Message string `json:"message,omitempty"`
	Trace   string `json:"trace,omitempty"`
	Limit   string `json:"limit,omitempty"`
}

func (f fault) Error() string { return f.Message }

func faultOf(err error) fault {
	if f, ok := err.(fault); ok {
		return f
	}
	f := fault{Message: err.Error()}
	// The types that say nothing of the error have no place in what a person reads.
	switch t := reflect.TypeOf(err); t.String() {
	case "*errors.errorString", "*fmt.wrapError", "*errors.joinError", "*fmt.wrapErrors":
	default:
		f.Kind = strings.TrimPrefix(t.String(), "*")
	}
	return f
}

// stack is the stack of a panic without the frames of the runtime and ours.
func stack() string {
	lines := strings.Split(string(debug.Stack()), "\n")
	var out []string
	for i := 1; i+1 < len(lines); i += 2 {
		fn, at := lines[i], lines[i+1]
		if strings.HasPrefix(fn, "panic(") {
			out = out[:0] // what is above led to here, not to the panic
			continue
		}
		if strings.Contains(fn, "internal/brasaboot.") || strings.HasPrefix(fn, "reflect.") || strings.HasPrefix(fn, "created by") || strings.HasPrefix(fn, "main.main.") || strings.HasPrefix(fn, "runtime/debug.") {
			continue
		}
		out = append(out, fn, at)
	}
	return strings.Join(out, "\n")
}

func (c *Call) grant(n int) {
	c.creditMu.Lock()
	c.credit += n
	c.creditMu.Unlock()
	c.creditMore.Broadcast()
}

func (c *Call) head(status int, header map[string][]string) {
	c.headed = true
	c.link.send(metaFrame(typeHead, c.stream, meta{status, header}, nil))
}

// write streams bytes of the answer as there is credit.
func (c *Call) write(p []byte) error {
	for len(p) > 0 {
		c.creditMu.Lock()
		for c.credit <= 0 && c.ctx.Err() == nil {
			c.creditMore.Wait()
		}
		n := min(len(p), c.credit, chunk)
		c.credit -= max(n, 0)
		c.creditMu.Unlock()
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if c.sent += int64(n); c.sent > c.link.spec.Response {
			return tooLarge(c.link.spec.Response)
		}
		c.link.send(frame(typeData, c.stream, p[:n]))
		p = p[n:]
	}
	return nil
}

func tooLarge(limit int64) error {
	return fault{Message: fmt.Sprintf("the answer is larger than response_bytes allows, %d bytes", limit), Limit: "response_bytes"}
}

type meta struct {
	Status int                 `json:"status"`
	Header map[string][]string `json:"headers,omitempty"`
}
