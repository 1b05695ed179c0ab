package wasm

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

func TestAProgramSpeaksAsExecutablesDo(t *testing.T) {
	p := ready(t, program(t), 256*faas.MiB, 2)
	call := func(input string) answered { return do(t.Context(), p, input, "A=1", "B=x y") }
	big := strings.Repeat("x✓", 100<<10)
	for input, want := range map[string]string{
		"cat\n" + big: big, "upper\nabc": "ABC", "env": "A=1\nB=x y\n", "args": `["fn.wasm"]`, "sleep 20ms": "true", "files": "done", "nonsense": `what is "nonsense"?`,
	} {
		if a := call(input); a.err != nil || a.out != want {
			t.Errorf("%s: %q, %v; want %q", clip(input), clip(a.out), a.err, clip(want))
		}
	}
	if a := call("log"); a.out != "out\n" || a.log != "first\nlast" {
		t.Errorf("out %q, log %q", a.out, a.log)
	}
	if f := call("exit").fault(t, "code 3", "broken pipe to nowhere"); !strings.Contains(f.Trace, "nowhere") {
		t.Errorf("trace %q", f.Trace)
	}
	if f := call("panic").fault(t, "code 2"); !strings.Contains(f.Trace, "over the edge") {
		t.Errorf("trace %q", f.Trace)
	}
	a := call("now")
	if ms, _ := strconv.ParseInt(a.out, 10, 64); time.Since(time.UnixMilli(ms)).Abs() > time.Minute {
		t.Errorf("the clock says %q", a.out)
	}
	if f := call("yes").fault(t, "larger than response_bytes"); f.Limit != "response_bytes" {
		t.Errorf("limit %q", f.Limit)
	}
	call("eat").fault(t, "code 2") // Go's own "out of memory"
}

func TestASleepEndsWithTheCall(t *testing.T) {
	p := ready(t, program(t), 256*faas.MiB, 2)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	if a := do(ctx, p, "sleep 1h"); a.err == nil || ctx.Err() == nil {
		t.Errorf("slept on: %q, %v", a.out, a.err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("a call that slept ended after %v", took)
	}
}

// What the host says over the socket reaches the program, and the other way round.
func TestAWorkerServesCalls(t *testing.T) {
	c := serve(t, program(t), 256*faas.MiB, 2)
	hello, err := c.Hello(t.Context())
	if err != nil || hello.Runtime != runtimes.Wasm || hello.Version == "" {
		t.Errorf("hello %+v, %v", hello, err)
	}
	inv := invocation("env")
	inv.Method, inv.Path = "PUT", "/a"
	inv.Header = map[string][]string{"Content-Type": {"text/x"}, "Proxy": {"evil"}}
	text := body(t, c, inv)
	for _, want := range []string{"PLAIN=value ✓\n", "BRASA_FUNCTION=fn\n", "BRASA_NAMESPACE=ns\n", "BRASA_INVOCATION_ID=" + string(inv.ID) + "\n",
		"HTTP_METHOD=PUT\n", "HTTP_PATH=/a\n", "HTTP_CONTENT_TYPE=text/x\n", "BRASA_DEADLINE_MS=", "BRASA_ATTEMPT=1\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("the environment lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "evil") || strings.Contains(text, "PATH=/usr") {
		t.Errorf("the environment has what is not the function's:\n%s", text)
	}
	long := strings.Repeat("0123456789", 60<<10) // streamed in, and out in several frames
	if got := body(t, c, invocation("cat\n"+long)); got != long {
		t.Errorf("%d bytes came back of %d", len(got), len(long))
	}
	var lines []string
	res, err := c.RoundTrip(t.Context(), invocation("log"), runtimes.LogFunc(func(l faas.LogLine) { lines = append(lines, l.Stream+" "+l.Text) }))
	if err != nil || res.Header["Content-Type"][0] != "text/plain; charset=utf-8" || fmt.Sprint(lines) != "[stderr first stderr last]" {
		t.Errorf("%v %v, log %q", res, err, lines)
	}
	if _, err := c.RoundTrip(t.Context(), invocation("exit"), nil); faas.CodeOf(err) != faas.Failed || !strings.Contains(err.Error(), "code 3") {
		t.Errorf("exit: %v", err)
	}
}

func body(t testing.TB, c *runtimes.Conn, inv *faas.Invocation) string {
	t.Helper()
	res, err := c.RoundTrip(t.Context(), inv, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A request whose body never ends holds up nobody longer than its deadline.
func TestACallThatWaitsForItsBodyEndsWithItsDeadline(t *testing.T) {
	c := serve(t, program(t), 256*faas.MiB, 2)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	inv := invocation("")
	inv.Body, inv.Length, inv.Deadline = waiting{ctx}, -1, time.Now().Add(100*time.Millisecond)
	if _, err := c.RoundTrip(ctx, inv, nil); faas.CodeOf(err) != faas.Timeout {
		t.Errorf("error %v, want a timeout", err)
	}
	idle, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	if err := c.Idle(idle); err != nil {
		t.Error("the call still runs")
	}
}

// waiting is a body of which nothing comes.
type waiting struct{ ctx context.Context }

func (w waiting) Read([]byte) (int, error) { <-w.ctx.Done(); return 0, w.ctx.Err() }
