package wasm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
	"github.com/brasa-dev/brasa/runtimes/golang/bootstrap"
)

func TestMain(m *testing.M) {
	Main(os.Args) // this binary is the worker too
	os.Exit(m.Run())
}

// answered is what became of a call.
type answered struct {
	out string
	log string
	err error
}

func (a answered) fault(t testing.TB, words ...string) bootstrap.Fault {
	t.Helper()
	f, ok := errors.AsType[bootstrap.Fault](a.err)
	if !ok {
		t.Fatalf("answer %q, error %v; want a fault", clip(a.out), a.err)
	}
	for _, w := range words {
		if !strings.Contains(f.Message, w) {
			t.Errorf("message %q, want %q in it", f.Message, w)
		}
	}
	return f
}

// do runs one call in an instance of the pool.
func do(ctx context.Context, p *pool, input string, env ...string) answered {
	in, err := p.take()
	if err != nil {
		return answered{err: err}
	}
	defer p.done(in)
	var log strings.Builder
	c := &call{
		ctx: ctx, limits: p.limits, input: strings.NewReader(input), env: func() []string { return env },
		log: func(b []byte) { log.Write(b) },
	}
	out, err := c.run(p.loaded, in)
	return answered{string(out), log.String(), err}
}

// process starts a worker and returns the host's end of the conversation, before LOAD.
func process(t testing.TB) (*runtimes.Conn, *exec.Cmd) {
	t.Helper()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	near, far := os.NewFile(uintptr(pair[0]), "near"), os.NewFile(uintptr(pair[1]), "far")
	conn, err := net.FileConn(near)
	near.Close()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", runtimes.WasmWorker)
	cmd.Env = []string{}
	cmd.ExtraFiles = []*os.File{far}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	far.Close()
	c := runtimes.NewConn(conn, runtimes.Options{})
	t.Cleanup(func() {
		c.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return c, cmd
}

func revision(memory faas.Bytes, concurrency int) *faas.Revision {
	return &faas.Revision{
		ID: "0123456789abcdef", Name: faas.Name{Namespace: "ns", Function: "fn"}, Runtime: runtimes.Wasm, Entry: "fn.wasm",
		Limits: faas.Limits{Memory: memory, Concurrency: concurrency, Response: 1 * faas.MiB}, Env: map[string]string{"PLAIN": "value ✓"},
	}
}

// serve starts a worker that has loaded a module.
func serve(t testing.TB, module []byte, memory faas.Bytes, concurrency int) *runtimes.Conn {
	t.Helper()
	c, _ := process(t)
	spec := runtimes.SpecOf(revision(memory, concurrency), nil)
	spec.Code = compiled(t, module)
	if _, err := c.Load(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	return c
}

func invocation(body string) *faas.Invocation {
	now := time.Now()
	return &faas.Invocation{
		ID: faas.NewID(now), Kind: faas.KindInvoke, Body: faas.NewBytesBody([]byte(body)), Length: int64(len(body)),
		Deadline: now.Add(time.Minute), Attempt: 1,
	}
}

// goProgram builds a program in Go for WASI, once.
var goProgram = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "brasa-wasm-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", dir+"/fn.wasm", "./testdata/program")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, errors.New(string(out))
	}
	return os.ReadFile(dir + "/fn.wasm")
})

func program(t testing.TB) []byte {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go command to build a program for WASI with")
	}
	b, err := goProgram()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// anonymousPeak is the most that a process has had resident, without its program's file.
func anonymousPeak(t testing.TB, pid int) faas.Bytes {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	value := func(key string) (kb int64) {
		_, rest, _ := strings.Cut(string(status), "\n"+key+":")
		_, _ = fmt.Sscan(rest, &kb)
		return kb
	}
	return faas.Bytes(value("VmHWM")-value("RssFile")) * faas.KiB
}
