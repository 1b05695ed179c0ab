package contract

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// program is an executable's revision as it would be deployed.
func (s *Suite) program(t testing.TB, language string, files map[string]string, command ...string) (*runtimes.Runtime, *faas.Revision, string) {
	t.Helper()
	dir := write(t, files)
	plan, err := s.Registry.Plan(os.DirFS(dir), runtimes.Hints{Language: language, Command: command})
	if err != nil {
		t.Fatal(err)
	}
	limits := faas.DefaultLimits()
	limits.Response = 64 * faas.KiB
	rev := &faas.Revision{
		ID: "0123456789abcdef", Name: faas.Name{Namespace: "ns", Function: "fn"}, Runtime: plan.Runtime,
		Entry: plan.Entry, Handler: plan.Handler, Command: plan.Command, Limits: limits, Env: map[string]string{"PLAIN": "value ✓"},
	}
	return s.Runtime(t, language), rev, dir
}

// execute runs one call of an executable.
func (s *Suite) execute(t testing.TB, ctx context.Context, script string, inv *faas.Invocation) *Answer {
	t.Helper()
	rt, rev, dir := s.program(t, runtimes.Executable, map[string]string{"main.sh": "#!/bin/sh\n" + script})
	env := runtimes.Environ(rev, nil)
	for _, kv := range runtimes.ExecEnv(inv) {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	p := s.Launcher.Start(t, rt, rev, dir, env, false)
	a := &Answer{Log: NewLines()}
	res, err := runtimes.ExecCall(ctx, runtimes.ExecProcess{Stdin: p.Stdin, Stdout: p.Stdout, Stderr: p.Stderr, Wait: p.Wait, Kill: p.Kill}, inv, rev, a.Log)
	if err != nil {
		a.Err = err
		return a
	}
	a.Status, a.Header = res.Status, res.Header
	a.Body, a.Err = io.ReadAll(res.Body)
	return a
}

// executables: a process per call, its stdin the request and its stdout the answer.
func (s *Suite) executables(t *testing.T) {
	input := func(body string) *faas.Invocation { return (&Instance{}).Invocation([]byte(body)) }
	run := func(script, body string) *Answer { return s.execute(t, t.Context(), script, input(body)) }

	run("cat", `{"a": 1}`).Want(t, 200, typeJSON, `{"a": 1}`)
	run("cat", "text ✓").Want(t, 200, typeText, "text ✓")
	run(`printf '\377\000'`, "").Want(t, 200, typeBytes, "\xff\x00")
	run("true", "not read").Want(t, 200, typeText, "")
	big := strings.Repeat("x", 60<<10)
	run("cat", big).Want(t, 200, typeText, big)

	a := run("echo first >&2; printf last >&2; echo out", "")
	a.Want(t, 200, typeText, "out\n")
	if a.Log.Text(runtimes.Stderr) != "first\nlast\n" || a.Log.Text(runtimes.Stdout) != "" {
		t.Errorf("log = %q", a.Log.Text(""))
	}
	if e := run("echo broken pipe to nowhere >&2; exit 3", "").WantError(t, faas.Failed, "code 3", "broken pipe to nowhere"); !strings.Contains(e.Trace, "nowhere") {
		t.Errorf("trace = %q", e.Trace)
	}
	run("kill -9 $$", "").WantError(t, faas.Crashed, "SIGKILL")
	if e := run("head -c 70000 /dev/zero", "").WantError(t, faas.Failed); e.Limit != "response_bytes" {
		t.Errorf("limit = %q in %v", e.Limit, e)
	}
	run("cat /dev/zero", "").WantError(t, faas.Failed)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	s.execute(t, ctx, "while :; do :; done", input("")).WantError(t, faas.Timeout)

	inv := input("")
	inv.Method, inv.Path, inv.Query = "GET", "/a\nb", "x=() { :; }; echo bad"
	inv.Header = map[string][]string{"Content-Type": {"() { :; }; echo bad"}, "Ld-Preload": {"/tmp/x.so"}, "Path": {"/tmp"}, "Proxy": {"http://evil"}}
	a = s.execute(t, t.Context(), `env`, inv)
	if a.Err != nil {
		t.Fatal(a.Err)
	}
	env := "\n" + string(a.Body)
	for _, want := range []string{"BRASA_INVOCATION_ID=" + string(inv.ID), "BRASA_FUNCTION=fn", "BRASA_NAMESPACE=ns", "BRASA_REVISION=0123456789abcdef",
		"BRASA_MEMORY_BYTES=268435456", "BRASA_DEADLINE_MS=", "HTTP_METHOD=GET", "HTTP_PATH=/a b", "HTTP_CONTENT_TYPE=\n", "PLAIN=value ✓"} {
		if !strings.Contains(env, "\n"+want) {
			t.Errorf("environment lacks %q:\n%s", want, env)
		}
	}
	for _, bad := range []string{"\nLD_PRELOAD=", "\nHTTP_PROXY=", "\nHTTP_PATH=/tmp"} {
		if strings.Contains(env, bad) {
			t.Errorf("a caller has set %q:\n%s", bad, env)
		}
	}
}

const lineProgram = `
import json, os, sys, threading
out = os.fdopen(3, "w", buffering=1)
lock = threading.Lock()
def answer(m):
    i = m["input"]
    if i == "raw": text = "no json"
    elif i == "exit": print("about to exit", flush=True); os._exit(3)
    elif i == "silent": return
    elif i == "error": text = json.dumps({"id": m["id"], "error": "no good: é"})
    elif i == "object": text = json.dumps({"id": m["id"], "error": {"kind": "Oops", "message": "went wrong", "trace": "line 1"}})
    elif i == "other": text = json.dumps({"id": "someone else's", "result": 1}) + "\n" + json.dumps({"id": m["id"], "result": 2})
    elif i == "big": text = json.dumps({"id": m["id"], "result": "x" * 66000})
    elif i == "huge": text = "x" * 10000000
    elif i == "log": print("a line", flush=True); sys.stderr.write("another\n"); sys.stdin.readline(); text = json.dumps({"id": m["id"], "result": None})
    else: text = json.dumps({"id": m["id"], "result": i})
    with lock: out.write(text + "\n")
for line in sys.stdin:
    m = json.loads(line)
    threading.Thread(target=answer, args=(m,)).start() if m["input"] != "log" else answer(m)
`

// lines: a process that reads a line and writes a line per call.
func (s *Suite) lines(t *testing.T) {
	start := func(t *testing.T) (*runtimes.Lines, *Instance, *Process) {
		s.Runtime(t, runtimes.Python)
		rt, rev, dir := s.program(t, runtimes.JSONLines, map[string]string{"main.py": lineProgram})
		p := s.Launcher.Start(t, rt, rev, dir, runtimes.Environ(rev, nil), true)
		own := NewLines()
		l := runtimes.NewLines(runtimes.LinesConfig{Stdin: p.Stdin, Conn: p.Conn, Stdout: p.Stdout, Stderr: p.Stderr, Log: own, Response: rev.Limits.Response})
		t.Cleanup(func() { _ = l.Close() })
		return l, &Instance{t: t, Own: own, Process: p, Revision: rev}, p
	}
	l, in, _ := start(t)
	call := func(l *runtimes.Lines, body string) *Answer {
		a := &Answer{Log: NewLines()}
		res, err := l.RoundTrip(t.Context(), in.Invocation([]byte(body)), a.Log)
		if err != nil {
			a.Err = err
			return a
		}
		a.Status, a.Header = res.Status, res.Header
		a.Body, a.Err = io.ReadAll(res.Body)
		return a
	}
	call(l, "{\"a\":\n [1, \"é\"]}").Want(t, 200, typeJSON, `{"a": [1, "\u00e9"]}`)
	call(l, "no json").Want(t, 200, typeJSON, `"no json"`)
	call(l, "").Want(t, 200, typeJSON, "null")
	call(l, "\xff\xfe").WantError(t, faas.Invalid, "binary")
	call(l, `"error"`).WantError(t, faas.Failed, "no good: é")
	if e := call(l, `"object"`).WantError(t, faas.Failed, "Oops: went wrong"); e.Trace != "line 1" {
		t.Errorf("trace = %q", e.Trace)
	}
	call(l, `"other"`).Want(t, 200, typeJSON, "2")
	if e := call(l, `"big"`).WantError(t, faas.Failed); e.Limit != "response_bytes" {
		t.Errorf("limit = %q in %v", e.Limit, e)
	}
	var wait sync.WaitGroup
	for i := range 50 {
		wait.Go(func() { call(l, fmt.Sprint(i)).Want(t, 200, typeJSON, fmt.Sprint(i)) })
	}
	wait.Wait()

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := l.RoundTrip(ctx, in.Invocation([]byte(`"silent"`)), nil); faas.CodeOf(err) != faas.Timeout {
		t.Errorf("silent = %v, want Timeout", err)
	}
	if l.Active() != 1 {
		t.Errorf("active = %d, want 1", l.Active())
	}

	l, _, p := start(t)
	call(l, `"exit"`).WantError(t, faas.Crashed)
	if exit := p.Wait(); exit.Code != 3 {
		t.Errorf("exit = %+v", exit)
	}
	l, _, _ = start(t)
	call(l, `"raw"`).WantError(t, faas.Failed, "no json")
	l, _, _ = start(t)
	if e := call(l, `"huge"`).WantError(t, faas.Failed); e.Limit != "response_bytes" {
		t.Errorf("limit = %q in %v", e.Limit, e)
	}

	// While there is one call the lines are its own.
	l, _, p = start(t)
	log := NewLines()
	done := make(chan error)
	go func() {
		_, err := l.RoundTrip(t.Context(), in.Invocation([]byte(`"log"`)), log)
		done <- err
	}()
	log.Await(t, "a line")
	log.Await(t, "another")
	if _, err := io.WriteString(p.Stdin, "\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

const serverProgram = `
import base64, hashlib, os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class H(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *a): pass
    def answer(self):
        n = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while True:
                size = int(self.rfile.readline(), 16)
                body += self.rfile.read(size); self.rfile.readline()
                if not size: break
        else: body = self.rfile.read(n)
        p = self.path.split("?")[0]
        if p == "/exit": os._exit(3)
        if p == "/upgrade":
            self.send_response(101); self.send_header("Upgrade", "echo"); self.send_header("Connection", "Upgrade"); self.end_headers()
            self.wfile.write(b"hello ")
            while True:
                line = self.rfile.readline()
                if not line: break
                self.wfile.write(line)
            self.close_connection = True
            return
        self.send_response(int(self.headers.get("X-Status") or 200))
        if p == "/stream" or p == "/midway":
            self.send_header("Transfer-Encoding", "chunked"); self.end_headers()
            for i in range(3):
                c = b"part %d\n" % i
                self.wfile.write(b"%x\r\n%s\r\n" % (len(c), c))
            if p == "/midway": self.connection.shutdown(2); return
            self.wfile.write(b"0\r\n\r\n"); return
        if p == "/big": body = b"x" * 70000
        if p.startswith("/as-sent"): body = self.path.encode()
        elif p == "/request": body = ("%s %s %s %s %s" % (self.command, self.path, self.headers.get("X-Thing"), self.headers.get("Host"), self.headers.get("Brasa-Invocation-Id"))).encode()
        self.send_header("Content-Length", str(len(body))); self.send_header("Set-Cookie", "a=1"); self.send_header("Set-Cookie", "b=2")
        self.send_header("Brasa-Outcome", "ok"); self.send_header("X-Forwarded-For", "1.2.3.4"); self.send_header("Content-Type", "text/x")
        self.end_headers(); self.wfile.write(body)
    do_GET = do_POST = do_PUT = answer
print("listening", flush=True)
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), H).serve_forever()
`

// servers: a process that is an HTTP server.
func (s *Suite) servers(t *testing.T) {
	start := func(t *testing.T, program string) (*runtimes.HTTPConn, *Process, chan struct{}) {
		s.Runtime(t, runtimes.Python)
		rt, rev, dir := s.program(t, runtimes.HTTPServer, map[string]string{"main.py": program})
		p := s.Launcher.Start(t, rt, rev, dir, runtimes.Environ(rev, nil), false)
		own := NewLines()
		go runtimes.CopyLog(p.Stdout, runtimes.Stdout, own)
		go runtimes.CopyLog(p.Stderr, runtimes.Stderr, own)
		h := runtimes.NewHTTPConn(runtimes.HTTPConfig{
			Dial: dialOf(p),
			Port: p.Port, Response: rev.Limits.Response,
		})
		t.Cleanup(func() { _ = h.Close() })
		exited := make(chan struct{})
		go func() { p.Wait(); close(exited) }()
		return h, p, exited
	}
	h, p, exited := start(t, serverProgram)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := h.Ready(ctx, exited); err != nil {
		t.Fatal(err)
	}
	request := func(method, path string, body string) *faas.Invocation {
		inv := (&Instance{}).Invocation([]byte(body))
		inv.Kind, inv.Method, inv.Path = faas.KindHTTP, method, path
		return inv
	}
	do := func(h *runtimes.HTTPConn, inv *faas.Invocation) *Answer {
		a := &Answer{}
		res, err := h.RoundTrip(ctx, inv, nil)
		if err != nil {
			a.Err = err
			a.Log = NewLines()
			return a
		}
		a.Status, a.Header, a.Log = res.Status, res.Header, NewLines()
		a.Body, a.Err = io.ReadAll(res.Body)
		_ = res.Body.Close()
		return a
	}
	inv := request("PUT", "/request", "body")
	inv.Query, inv.Header = "a=1&b", map[string][]string{"X-Thing": {"thing"}, "Host": {"fn.example"}, "Connection": {"close"}}
	a := do(h, inv)
	a.Want(t, 200, "text/x", "PUT /request?a=1&b thing fn.example "+string(inv.ID))
	if len(a.Header["Set-Cookie"]) != 2 || a.Header["Brasa-Outcome"] != nil || a.Header["X-Forwarded-For"] != nil {
		t.Errorf("headers = %v", a.Header)
	}
	for _, path := range []string{"/as-sent/a%2Fb", "/as-sent/c%20d//e/../f", "/as-sent/100%", "/as-sent/%e2%9c%93;x"} {
		want := path
		if path == "/as-sent/100%" {
			want = "/as-sent/100%25"
		}
		do(h, request("GET", path, "")).Want(t, 200, "text/x", want)
	}
	do(h, request("POST", "/echo", "text ✓")).Want(t, 200, "text/x", "text ✓")
	chunked := request("POST", "/echo", "")
	chunked.Body, chunked.Length = strings.NewReader("unknown length"), -1
	do(h, chunked).Want(t, 200, "text/x", "unknown length")
	do(h, request("GET", "/stream", "")).Want(t, 200, "", "part 0\npart 1\npart 2\n")
	if a := do(h, request("GET", "/midway", "")); faas.CodeOf(a.Err) != faas.Crashed || string(a.Body) != "part 0\npart 1\npart 2\n" {
		t.Errorf("midway = %q, %v", a.Body, a.Err)
	}
	if e := do(h, request("GET", "/big", "")).WantError(t, faas.Failed); e.Limit != "response_bytes" {
		t.Errorf("limit = %q in %v", e.Limit, e)
	}
	inv = request("GET", "/", "")
	inv.Header["X-Status"] = []string{"700"}
	do(h, inv).WantError(t, faas.Failed, "700")

	inv = request("GET", "/upgrade", "")
	inv.Header["Upgrade"] = []string{"echo"}
	res, err := h.RoundTrip(ctx, inv, nil)
	if err != nil || res.Status != 101 || res.Header["Upgrade"][0] != "echo" {
		t.Fatalf("upgrade = %+v, %v", res, err)
	}
	rw := res.Body.(io.ReadWriteCloser)
	if _, err := io.WriteString(rw, "there\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(rw).ReadString('\n'); line != "hello there\n" || err != nil {
		t.Errorf("tunnel = %q, %v", line, err)
	}
	_ = rw.Close()

	do(h, request("GET", "/exit", "")).WantError(t, faas.Crashed)
	if exit := p.Wait(); exit.Code != 3 {
		t.Errorf("exit = %+v", exit)
	}

	h, _, exited = start(t, "raise SystemExit(2)")
	if err := h.Ready(ctx, exited); faas.CodeOf(err) != faas.Crashed {
		t.Errorf("ready of one that exits = %v, want Crashed", err)
	}
	h, _, exited = start(t, "import time; time.sleep(60)")
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if err := h.Ready(short, exited); faas.CodeOf(err) != faas.Timeout {
		t.Errorf("ready of one that does not listen = %v, want Timeout", err)
	}
}
