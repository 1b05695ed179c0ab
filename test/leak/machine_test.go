package leak

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/internal/store"
	"github.com/brasa-dev/brasa/internal/wasm"
	"github.com/brasa-dev/brasa/internal/worker"
	"github.com/brasa-dev/brasa/runtimes"
)

func TestMain(m *testing.M) {
	wasm.Main(os.Args) // this binary is what serves modules, as brasa itself is
	runtimes.OfferWasm()
	os.Exit(m.Run())
}

// prefix is this run's own, as several may run on one machine.
var prefix = "l" + strconv.FormatInt(int64(os.Getpid()), 36)

// machine is a worker with all that lies below it, for real.
type machine struct {
	*worker.Worker
	depot *artifact.Depot
	reg   *runtimes.Registry
	log   *events

	mu    sync.Mutex
	stray []string // lines of no call; guarded by mu
}

// secretOf is the value of a namespace's secret. It looks like any mark, so that a search for
// marks finds it.
func secretOf(namespace, name string) string {
	secrets.Lock()
	defer secrets.Unlock()
	key := namespace + "/" + name
	if secrets.of[key] == "" {
		secrets.of[key] = newMark()
	}
	return secrets.of[key]
}

var secrets = struct {
	sync.Mutex
	of map[string]string // guarded by Mutex
}{of: map[string]string{}}

// newMark returns sixteen hex digits. Behind markHead they are what is searched for in memory.
func newMark() string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// markHead stands before a mark. Code that searches for it must not have it in one piece.
const markHead = "LEAK" + "~MARK~"

func newMachine(t *testing.T, adjust func(*worker.Config)) *machine {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: sandboxes are made in the initial user namespace")
	}
	dir := t.TempDir()
	engine, err := store.Open(store.Config{Dir: filepath.Join(dir, "data")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = engine.Close() })
	objects, err := engine.Objects(t.Context(), "blobs")
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{log: &events{}}
	if m.depot, err = artifact.Open(artifact.Config{Objects: objects, Dir: filepath.Join(dir, "code")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.depot.Close() })
	if m.reg, err = runtimes.Discover(t.Context(), runtimes.Config{Dir: filepath.Join(dir, "runtimes"), Java: os.Getenv("BRASA_TEST_JAVA")}); err != nil {
		t.Fatal(err)
	}
	log := slog.New(m.log)
	host, err := sandbox.New(sandbox.Config{Dir: filepath.Join(dir, "sandbox"), RootDirs: m.reg.RootDirs(), Prefix: prefix, NetPool: 4, CgroupPool: 4, EgressPool: -1, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Close() })
	run(t, host.Run)
	select {
	case <-host.Ready():
	case <-time.After(time.Minute):
		t.Fatal("sandboxes were not ready within a minute")
	}
	cfg := worker.Config{
		Node: "here", Sandbox: host, Runtimes: m.reg, Depot: m.depot, Logger: log,
		Secrets: func(_ context.Context, namespace string, names []string) (map[string]string, uint64, error) {
			values := map[string]string{}
			for _, n := range names {
				values[n] = markHead + secretOf(namespace, n)
			}
			return values, 1, nil
		},
		Stray: func(_ *faas.Revision, _ string, l []faas.LogLine) {
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, x := range l {
				m.stray = append(m.stray, x.Text)
			}
		},
	}
	if adjust != nil {
		adjust(&cfg)
	}
	m.Worker = worker.New(cfg)
	run(t, m.Worker.Run)
	return m
}

// run runs a part until the test's end, in the reverse order of starting.
func run(t *testing.T, f func(context.Context) error) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v", err)
		}
	})
}

// events keeps why instances were not put back, which only the log tells.
type events struct {
	mu   sync.Mutex
	last map[string]string // by instance; guarded by mu
}

func (e *events) Enabled(context.Context, slog.Level) bool { return true }
func (e *events) WithAttrs([]slog.Attr) slog.Handler       { return e }
func (e *events) WithGroup(string) slog.Handler            { return e }
func (e *events) Handle(_ context.Context, r slog.Record) error {
	var id, why string
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "instance":
			id = a.Value.String()
		case "err":
			why = a.Value.String()
		}
		return true
	})
	if id != "" && why != "" {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.last == nil {
			e.last = map[string]string{}
		}
		e.last[id] = why
	}
	return nil
}

// why returns the last error that was logged of an instance.
func (e *events) why(id string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.last[id]
}

// function stores the files and returns a revision of them.
func (m *machine) function(t *testing.T, runtime string, files map[string]string, entry string, adjust func(*faas.Revision)) *faas.Revision {
	t.Helper()
	if _, err := m.reg.Lookup(runtime); err != nil {
		t.Skip(err)
	}
	tree := fstest.MapFS{}
	for name, data := range files {
		tree[name] = &fstest.MapFile{Data: []byte(data), Mode: 0o755}
	}
	digest, _, err := m.depot.PutTree(t.Context(), tree, artifact.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	rev := &faas.Revision{
		Name: faas.Name{Namespace: "default", Function: "f"}, Runtime: runtime, Entry: entry, Code: digest,
		Limits: faas.DefaultLimits(), Network: faas.NetworkNone, Reuse: faas.ReuseFunction, State: faas.StateKept,
	}
	if adjust != nil {
		adjust(rev)
	}
	rev.ID = rev.Digest()
	return rev
}

// answer is what became of a call.
type answer struct {
	body     string
	start    faas.Start
	instance string
	log      string
}

// call calls the function with a value as JSON and returns the whole answer.
func (m *machine) call(rev *faas.Revision, args any) (answer, error) {
	input, err := json.Marshal(args)
	if err != nil {
		return answer{}, err
	}
	now := time.Now()
	inv := &faas.Invocation{
		ID: faas.NewID(now), Kind: faas.KindInvoke, Method: "POST", Path: "/", Attempt: 1,
		Header: map[string][]string{"Content-Type": {"application/json"}},
		Body:   strings.NewReader(string(input)), Length: int64(len(input)), Deadline: now.Add(rev.Limits.Timeout.D()),
	}
	inv.Timing.Begin = now
	inv.Function.Name = rev.Name
	ctx, cancel := context.WithDeadline(context.Background(), inv.Deadline)
	defer cancel()
	res, err := m.Execute(ctx, rev, inv)
	a := answer{start: inv.Report.Start, instance: inv.Report.Instance}
	if err == nil {
		var b []byte
		b, err = io.ReadAll(res.Body)
		_ = res.Body.Close()
		a.body = string(b)
	}
	a.start, a.instance = inv.Report.Start, inv.Report.Instance
	for _, l := range inv.Report.Logs {
		a.log += l.Stream + ": " + l.Text + "\n"
	}
	if e := faas.AsError(err); e != nil && e.Trace != "" {
		err = errors.Join(err, errors.New(e.Trace))
	}
	return a, err
}

// settle waits until every process is put back, or gone.
func (m *machine) settle(t testing.TB) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		busy := false
		for _, in := range m.Status().Instances {
			busy = busy || in.Active > 0
		}
		if !busy {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("instances are still busy: %+v", m.Status().Instances)
		}
		time.Sleep(500 * time.Microsecond)
	}
}

// rewinds returns how often an instance was put back, -1 if there is none of this name.
func (m *machine) rewinds(id string) int64 {
	for _, in := range m.Status().Instances {
		if in.ID == id {
			return in.Rewinds
		}
	}
	return -1
}
