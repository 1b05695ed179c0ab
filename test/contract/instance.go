package contract

import (
	"bytes"
	"context"
	"embed"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
	"github.com/brasa-dev/brasa/runtimes/golang"
	"github.com/brasa-dev/brasa/runtimes/java"
)

//go:embed functions
var functions embed.FS

// Source returns a file of the suite's functions.
func Source(t testing.TB, name string) string {
	t.Helper()
	b, err := functions.ReadFile(path.Join("functions", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Suite is what the stories are told with.
type Suite struct {
	Registry *runtimes.Registry
	Launcher Launcher
	// Compile, if set, makes of a function what is run of it, in its place: dir holds its files.
	Compile func(t testing.TB, language, dir string, f *Function)

	mu    sync.Mutex
	built map[string]string // directory of a built Go function, by its source
}

// NewSuite finds the runtimes; BRASA_TEST_PYTHON, BRASA_TEST_NODE and BRASA_TEST_JAVA name others than those it
// would choose. It is for one test binary.
func NewSuite(t testing.TB, l Launcher) *Suite {
	t.Helper()
	dir := t.TempDir()
	reg, err := runtimes.Discover(t.Context(), runtimes.Config{
		Dir: dir, Python: os.Getenv("BRASA_TEST_PYTHON"), Node: os.Getenv("BRASA_TEST_NODE"), Java: os.Getenv("BRASA_TEST_JAVA"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return &Suite{Registry: reg, Launcher: l, built: make(map[string]string)}
}

// Runtime returns a language's runtime, or skips the test when this host lacks it.
func (s *Suite) Runtime(t testing.TB, name string) *runtimes.Runtime {
	t.Helper()
	rt, err := s.Registry.Lookup(name)
	if err != nil {
		t.Skip(err)
	}
	return rt
}

// Function is what an instance is started of.
type Function struct {
	Files       map[string]string
	Entry       string
	Handler     string
	Concurrency int
	Response    faas.Bytes
	Env         map[string]string
	Secrets     map[string]string
}

// Instance is a process that speaks frames with its function loaded.
type Instance struct {
	*runtimes.Conn
	Process  *Process
	Revision *faas.Revision
	Loaded   runtimes.Loaded
	Own      *Lines // lines of no call
	t        testing.TB
}

// Lines collects log lines.
type Lines struct {
	mu    sync.Mutex
	lines []faas.LogLine
	more  chan struct{}
}

// NewLines returns an empty collection.
func NewLines() *Lines { return &Lines{more: make(chan struct{}, 1)} }

// Log is runtimes.LogSink's.
func (l *Lines) Log(line faas.LogLine) {
	l.mu.Lock()
	l.lines = append(l.lines, line)
	l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// Text returns the lines of a stream, or of all if it is empty, one below the other.
func (l *Lines) Text(stream string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for _, line := range l.lines {
		if stream == "" || line.Stream == stream {
			b.WriteString(line.Text + "\n")
		}
	}
	return b.String()
}

// Await waits until a line holds the text.
func (l *Lines) Await(t testing.TB, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for !strings.Contains(l.Text(""), text) {
		select {
		case <-l.more:
		case <-ctx.Done():
			t.Fatalf("no line with %q came; there are:\n%s", text, l.Text(""))
		}
	}
}

// patience is how long a test waits for what must come; it is no measure of speed.
const patience = 30 * time.Second

// Boot starts a function's process and returns its connection before anything is loaded.
func (s *Suite) Boot(t testing.TB, language string, f Function) *Instance {
	t.Helper()
	rt := s.Runtime(t, language)
	dir := ""
	if language == runtimes.Go {
		dir, f.Entry = s.build(t, rt, f), runtimes.GoBinary
	} else if language == runtimes.Java {
		dir, f.Entry = s.compile(t, rt, f), strings.TrimSuffix(f.Entry, ".java")+".class"
	} else {
		dir = write(t, f.Files)
	}
	if s.Compile != nil {
		s.Compile(t, language, dir, &f)
	}
	return s.boot(t, rt, s.Launcher, dir, f)
}

// boot starts a function whose code lies in dir.
func (s *Suite) boot(t testing.TB, rt *runtimes.Runtime, l Launcher, dir string, f Function) *Instance {
	t.Helper()
	language := rt.Name
	limits := faas.DefaultLimits()
	if f.Concurrency > 0 {
		limits.Concurrency = f.Concurrency
	}
	if f.Response > 0 {
		limits.Response = f.Response
	}
	rev := &faas.Revision{
		ID: "0123456789abcdef", Name: faas.Name{Namespace: "ns", Function: "fn"}, Runtime: language,
		Entry: f.Entry, Handler: f.Handler, Env: f.Env, Limits: limits,
	}
	p := l.Start(t, rt, rev, dir, nil, true)
	own := NewLines()
	go runtimes.CopyLog(p.Stdout, runtimes.Stdout, own)
	go runtimes.CopyLog(p.Stderr, runtimes.Stderr, own)
	conn := runtimes.NewConn(p.Conn, runtimes.Options{Log: own})
	t.Cleanup(func() { _ = conn.Close() })
	in := &Instance{Conn: conn, Process: p, Revision: rev, Own: own, t: t}
	hello, err := conn.Hello(t.Context())
	if err != nil {
		t.Fatalf("boot: %v\n%s", err, own.Text(""))
	}
	if hello.Runtime != language || hello.Version == "" {
		t.Errorf("hello = %+v, want runtime %s and a version", hello, language)
	}
	return in
}

// Load gives a booted instance its function.
func (in *Instance) Load(secrets map[string]string) error {
	spec := runtimes.SpecOf(in.Revision, secrets)
	spec.Code = in.Process.Code
	loaded, err := in.Conn.Load(in.t.Context(), spec)
	in.Loaded = loaded
	return err
}

// Start boots and loads.
func (s *Suite) Start(t testing.TB, language string, f Function) *Instance {
	t.Helper()
	in := s.Boot(t, language, f)
	if err := in.Load(f.Secrets); err != nil {
		t.Fatalf("load: %v\n%s\n%s", err, faas.AsError(err).Trace, in.Own.Text(""))
	}
	return in
}

// build compiles a Go function once per test binary.
func (s *Suite) build(t testing.TB, rt *runtimes.Runtime, f Function) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var key strings.Builder
	for name, content := range f.Files {
		key.WriteString(name + "\x00" + content)
	}
	if dir := s.built[key.String()]; dir != "" {
		return dir
	}
	src, dst := write(t, f.Files), t.TempDir()
	out, err := os.MkdirTemp("", "brasa-contract-") // outlives this test
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(out, 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := golang.Generate(src, dst, golang.Options{Handler: f.Handler, Go: rt.Program, Version: rt.Version, Output: filepath.Join(out, runtimes.GoBinary)})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(b.Args[0], b.Args[1:]...)
	cmd.Dir, cmd.Env = dst, append(os.Environ(), b.Env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, text)
	}
	s.built[key.String()] = out
	return out
}

// compile compiles a Java function once per test binary.
func (s *Suite) compile(t testing.TB, rt *runtimes.Runtime, f Function) string {
	t.Helper()
	if rt.Compiler == "" {
		t.Skip("this host's Java has no compiler")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var key strings.Builder
	for _, name := range slices.Sorted(maps.Keys(f.Files)) {
		key.WriteString(name + "\x00" + f.Files[name])
	}
	if dir := s.built[key.String()]; dir != "" {
		return dir
	}
	src, dst := write(t, f.Files), t.TempDir()
	out, err := os.MkdirTemp("", "brasa-contract-") // outlives this test
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(out, 0o755); err != nil {
		t.Fatal(err)
	}
	_, _, mounts := rt.Command(nil)
	o := java.Options{Javac: rt.Compiler, Boot: filepath.Join(mounts[0].Source, filepath.Base(runtimes.JavaBootstrap)), Lib: filepath.Join(src, "lib"), Output: out}
	b, err := java.Generate(src, dst, o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(b.Args[0], b.Args[1:]...)
	cmd.Dir = dst
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, text)
	}
	_, _, _ = java.Finish(src, out, o) // some stories have no handler, which the instance shall say
	s.built[key.String()] = out
	return out
}

// Close removes what was built.
func (s *Suite) Close() {
	for _, dir := range s.built {
		_ = os.RemoveAll(dir)
	}
}

// Answer is a result that was read to its end.
type Answer struct {
	Status int
	Header map[string][]string
	Body   []byte
	Log    *Lines
	Err    error
}

// Call calls with a JSON input.
func (in *Instance) Call(input string) *Answer {
	in.t.Helper()
	return in.Do(in.t.Context(), in.Invocation([]byte(input)))
}

// Invocation returns an invocation with a body and a deadline.
func (in *Instance) Invocation(body []byte) *faas.Invocation {
	now := time.Now()
	return &faas.Invocation{
		ID: faas.NewID(now), Cause: "c0ffee", Kind: faas.KindInvoke, Body: faas.NewBytesBody(body), Length: int64(len(body)),
		Deadline: now.Add(time.Minute), Attempt: 1, Header: map[string][]string{},
	}
}

// Do runs an invocation and reads its answer.
func (in *Instance) Do(ctx context.Context, inv *faas.Invocation) *Answer {
	a := &Answer{Log: NewLines()}
	res, err := in.RoundTrip(ctx, inv, a.Log)
	if err != nil {
		a.Err = err
		return a
	}
	a.Status, a.Header = res.Status, res.Header
	a.Body, a.Err = io.ReadAll(res.Body)
	_ = res.Body.Close()
	return a
}

// Want fails the test unless the answer is good and has the status, content type and body.
func (a *Answer) Want(t testing.TB, status int, contentType, body string) {
	t.Helper()
	if a.Err != nil {
		t.Fatalf("call: %v\n%s\n%s", a.Err, faas.AsError(a.Err).Trace, a.Log.Text(""))
	}
	got := ""
	if v := a.Header["Content-Type"]; len(v) > 0 {
		got = v[0]
	}
	if a.Status != status || got != contentType || !bytes.Equal(a.Body, []byte(body)) {
		t.Errorf("answer = %d %q %q, want %d %q %q", a.Status, got, clip(string(a.Body)), status, contentType, clip(body))
	}
}

// WantError fails the test unless the call failed with the code and all of the words.
func (a *Answer) WantError(t testing.TB, code faas.Code, words ...string) *faas.Error {
	t.Helper()
	if a.Err == nil {
		t.Fatalf("call answered %d %q, want %v", a.Status, clip(string(a.Body)), code)
	}
	e := faas.AsError(a.Err)
	if e.Code != code {
		t.Errorf("call: code %v (%v), want %v", e.Code, e, code)
	}
	for _, w := range words {
		if !strings.Contains(e.Error(), w) {
			t.Errorf("call: %q, want the words %q", e.Error(), w)
		}
	}
	return e
}

func clip(s string) string {
	if len(s) > 300 {
		return s[:300] + "…"
	}
	return s
}

// stock returns the suite's own functions of a language: those of main, or of events.
func stock(t testing.TB, language, which string) Function {
	t.Helper()
	f := Function{Files: map[string]string{}, Concurrency: 1}
	entries, err := fs.ReadDir(functions, path.Join("functions", language))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ".txt")
		stem := strings.TrimSuffix(name, path.Ext(name))
		if language == runtimes.Go && stem != which {
			continue // one program each
		}
		f.Files[name] = Source(t, path.Join(language, e.Name()))
		if stem == which {
			f.Entry = name
		}
	}
	if f.Entry == "" {
		t.Skipf("%s has no %s", language, which)
	}
	return f
}
