// Package gatewaytest puts the whole control plane behind a real listener, with a fake node where
// functions would run.
//
// Everything between the network and dispatch.Node is the real thing; what a function does is a
// Go func given by the test.
package gatewaytest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/dispatch"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/gateway"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/internal/journal"
	"github.com/brasa-dev/brasa/internal/queue"
	"github.com/brasa-dev/brasa/internal/store"
	"github.com/brasa-dev/brasa/internal/trigger"
	"github.com/brasa-dev/brasa/runtimes"
)

// Func is what a function does. It runs on the goroutine of Execute.
type Func func(ctx context.Context, inv *faas.Invocation) (*faas.Result, error)

// Door is a server with two namespaces, green and blue, besides the default one.
type Door struct {
	URL     string
	Addr    string
	Admin   string // key
	Green   string // key of namespace green
	Blue    string // key of namespace blue
	Catalog *catalog.Catalog
	Keys    *auth.Keys
	Journal *journal.Journal
	Builds  *install.Builds
	Queue   queue.Queue
	API     *api.Server
	Gateway *gateway.Gateway
	Logs    *Buffer // what the server logged

	t    testing.TB
	mu   sync.Mutex
	does map[string]Func // guarded by mu; by the function's full name, "" for ad-hoc code
	stop func()
}

// Options change what Open makes.
type Options struct {
	Gateway  func(*gateway.Config)
	API      func(*api.Config)
	Dispatch func(*dispatch.Config)
	Attempts int // wrong keys from one address; default so many that no test meets the bound
}

// Open starts a server that ends with the test.
func Open(t testing.TB, opts Options) *Door {
	t.Helper()
	d := &Door{t: t, does: map[string]Func{}, Logs: &Buffer{}}
	log := slog.New(slog.NewJSONHandler(d.Logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	dir, ctx := t.TempDir(), t.Context()
	engine, err := store.Open(store.Config{Dir: filepath.Join(dir, "store")})
	d.must(err)
	t.Cleanup(func() { _ = engine.Close() })
	d.Journal, err = journal.Open(ctx, journal.Config{Engine: engine, Dir: filepath.Join(dir, "journal")})
	d.must(err)
	t.Cleanup(func() { _ = d.Journal.Close() })
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	d.Catalog, err = catalog.Open(ctx, catalog.Config{Store: store.Memory(), Secrets: store.Memory(), Key: key})
	d.must(err)
	for _, ns := range []string{"green", "blue"} {
		_, err := d.Catalog.CreateNamespace(ctx, ns)
		d.must(err)
	}
	d.Keys, err = auth.Open(ctx, auth.Config{Store: store.Memory(), Attempts: cmp.Or(opts.Attempts, 1<<20)})
	d.must(err)
	d.Admin, d.Green, d.Blue = d.Key("", true), d.Key("green", false), d.Key("blue", false)
	d.Queue = queue.Memory()
	dc := dispatch.Config{
		Catalog: d.Catalog, Node: fakeNode{d}, Recorder: d.Journal, Journal: d.Journal, Queue: d.Queue, Logger: log,
		Async: dispatch.AsyncConfig{Grace: time.Millisecond},
	}
	if opts.Dispatch != nil {
		opts.Dispatch(&dc)
	}
	dispatcher := dispatch.New(dc)
	d.background(dispatcher.Run)
	triggers := trigger.New(trigger.Config{Catalog: d.Catalog, Dispatcher: dispatcher, State: store.Memory(), Logger: log})
	d.background(triggers.Run)

	if d.Builds, err = install.OpenBuilds(filepath.Join(dir, "builds"), log); err != nil {
		t.Fatal(err)
	}
	subjects, err := auth.OpenSubjects(ctx, auth.Config{Store: store.Memory()})
	d.must(err)
	_, err = subjects.Put(ctx, "guest", "green", "", "", false)
	d.must(err)
	cfg := api.Config{
		Subjects: subjects,
		Builds:   d.Builds, Catalog: d.Catalog, Dispatcher: dispatcher, Queue: d.Queue, Triggers: triggers, Deployer: d.deployer(engine, dir), Journal: d.Journal, Keys: d.Keys,
		Version: api.Version{Version: "0.0.0-test", Go: "go"}, Dir: dir, Logger: log,
		Runtimes: func() []api.Runtime { return []api.Runtime{{Name: "python", Ready: true}} },
	}
	if opts.API != nil {
		opts.API(&cfg)
	}
	d.API, err = api.New(cfg)
	d.must(err)
	gc := gateway.Config{API: d.API, Keys: d.Keys, Listen: "127.0.0.1:0", Logger: log}
	if opts.Gateway != nil {
		opts.Gateway(&gc)
	}
	d.Gateway, err = gateway.New(gc)
	d.must(err)
	d.start(gc.Cert != "")
	return d
}

func (d *Door) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// deployer is the real one; starting what it deployed is the fake node's part.
func (d *Door) deployer(engine *store.Engine, dir string) *deploy.Deployer {
	d.t.Helper()
	objects, err := engine.Objects(d.t.Context(), "blobs")
	d.must(err)
	depot, err := artifact.Open(artifact.Config{Objects: objects, Dir: filepath.Join(dir, "code")})
	d.must(err)
	d.t.Cleanup(func() { _ = depot.Close() })
	registry, err := runtimes.Discover(d.t.Context(), runtimes.Config{Dir: filepath.Join(dir, "runtimes")})
	d.must(err)
	dep, err := deploy.New(deploy.Config{Catalog: d.Catalog, Depot: depot, Runtimes: registry, Prover: fakeNode{d}, Dir: filepath.Join(dir, "deploy")})
	d.must(err)
	return dep
}

func (d *Door) start(secure bool) {
	d.t.Helper()
	addr, err := d.Gateway.Listen(d.t.Context())
	d.must(err)
	d.Addr, d.URL = addr.String(), "http://"+addr.String()
	if secure {
		d.URL = "https://" + addr.String()
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(d.t.Context()))
	done := make(chan error, 1)
	go func() { done <- d.Gateway.Run(ctx) }()
	d.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			d.t.Errorf("gateway: %v", err)
		}
	})
	d.t.Cleanup(d.stop)
}

// background runs a part until the test ends.
func (d *Door) background(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(d.t.Context()))
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	d.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			d.t.Error(err)
		}
	})
}

// Stop ends the server as Run's context does, and waits for it.
func (d *Door) Stop() { d.stop() }

// Key makes a key.
func (d *Door) Key(namespace string, admin bool) string {
	d.t.Helper()
	key, _, err := d.Keys.Create(d.t.Context(), "", namespace, admin)
	d.must(err)
	return key
}

// Function publishes a function in a namespace that does f.
func (d *Door) Function(namespace, name string, public bool, f Func) *faas.Function {
	d.t.Helper()
	return d.FunctionWith(namespace, name, public, nil, f)
}

// FunctionWith is Function with a policy for calls whose caller does not wait.
func (d *Door) FunctionWith(namespace, name string, public bool, async *faas.Async, f Func) *faas.Function {
	d.t.Helper()
	full := faas.Name{Namespace: namespace, Function: name}
	rev := &faas.Revision{
		Name: full, Runtime: "python", Version: "3", Entry: "main.py", Network: faas.NetworkNone, Created: time.Now(),
		Code:   "sha256:0000000000000000000000000000000000000000000000000000000000000000",
		Limits: faas.DefaultLimits(), Async: async,
	}
	rev.ID = rev.Digest()
	fn, err := d.Catalog.Publish(d.t.Context(), rev, catalog.PublishOptions{Public: &public})
	d.must(err)
	d.Does(full.String(), f)
	return fn
}

// Does says what the function of a full name does from now on; "" is ad-hoc code.
func (d *Door) Does(name string, f Func) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.does[name] = f
}

// Request makes one with a key, which may be empty.
func (d *Door) Request(method, path, key string, body io.Reader) *http.Request {
	d.t.Helper()
	r, err := http.NewRequestWithContext(d.t.Context(), method, d.URL+path, body)
	d.must(err)
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	return r
}

// Do sends a request and reads its whole answer.
func (d *Door) Do(r *http.Request) (*http.Response, []byte) {
	d.t.Helper()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	res, err := client.Do(r)
	d.must(err)
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	d.must(err)
	return res, b
}

// Raw sends bytes over a fresh connection and returns the connection.
func (d *Door) Raw(text string) net.Conn {
	d.t.Helper()
	c, err := (&net.Dialer{}).DialContext(d.t.Context(), "tcp", d.Addr)
	d.must(err)
	d.t.Cleanup(func() { _ = c.Close() })
	_, err = io.WriteString(c, text)
	d.must(err)
	return c
}

// fakeNode runs Go funcs instead of functions.
type fakeNode struct{ d *Door }

func (n fakeNode) Execute(ctx context.Context, rev *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
	name := rev.Name.String()
	if inv.Kind == faas.KindRun {
		name = ""
	}
	n.d.mu.Lock()
	f := n.d.does[name]
	n.d.mu.Unlock()
	if f == nil {
		f = Echo
	}
	inv.Report.Start, inv.Report.Node, inv.Report.Instance = faas.StartWarm, "fake", "i-1"
	inv.Timing.Add(faas.PhaseExecution, time.Millisecond)
	return f(ctx, inv)
}

func (fakeNode) Status() faas.NodeStatus { return faas.NodeStatus{Name: "fake"} }

func (fakeNode) Prove(context.Context, *faas.Revision) (faas.Proof, error) {
	return faas.Proof{Timing: faas.Timing{Begin: time.Now()}, Memory: faas.MiB}, nil
}

// Echo answers with the body it is sent.
func Echo(_ context.Context, inv *faas.Invocation) (*faas.Result, error) {
	var b []byte
	if inv.Body != nil {
		var err error
		if b, err = io.ReadAll(inv.Body); err != nil {
			return nil, faas.AsError(err)
		}
	}
	h := map[string][]string{}
	if ct := inv.Header["Content-Type"]; len(ct) > 0 {
		h["Content-Type"] = ct
	}
	return &faas.Result{Status: http.StatusOK, Header: h, Body: faas.NewBytesBody(b)}, nil
}

// Answer makes a function that answers with a text.
func Answer(status int, header map[string][]string, text string) Func {
	return func(context.Context, *faas.Invocation) (*faas.Result, error) {
		return &faas.Result{Status: status, Header: header, Body: faas.NewBytesBody([]byte(text))}, nil
	}
}

// Streamed makes a result whose body is read from r; closed is called when it is closed.
func Streamed(header map[string][]string, r io.Reader, closed func()) *faas.Result {
	return &faas.Result{Status: http.StatusOK, Header: header, Body: &streamed{Reader: r, closed: sync.OnceFunc(closed)}}
}

type streamed struct {
	io.Reader
	closed func()
}

func (s *streamed) Close() error {
	s.closed()
	return nil
}

// Buffer holds what was logged. It is safe for concurrent use.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

// Write appends.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// String returns all of it.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
