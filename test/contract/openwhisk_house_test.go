package contract

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/internal/store"
	"github.com/brasa-dev/brasa/internal/worker"
	"github.com/brasa-dev/brasa/runtimes"
)

// house is what actions are deployed to and called in: all that lies between a dialect and a process.
type house struct {
	*deploy.Deployer
	worker   *worker.Worker
	registry *runtimes.Registry
	depot    *artifact.Depot
	n        int
}

// newHouse opens a house. It needs root, for builds and actions run in sandboxes.
func newHouse(t *testing.T, installs bool) *house {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: sandboxes are made in the initial user namespace")
	}
	dir := t.TempDir()
	h := &house{}
	var err error
	if h.registry, err = runtimes.Discover(t.Context(), runtimes.Config{Dir: filepath.Join(dir, "runtimes")}); err != nil {
		t.Fatal(err)
	}
	depot, err := artifact.Open(artifact.Config{Objects: store.MemoryObjects(), Dir: filepath.Join(dir, "code")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = depot.Close() })
	h.depot = depot
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	cat, err := catalog.Open(t.Context(), catalog.Config{Store: store.Memory(), Secrets: store.Memory(), Key: key})
	if err != nil {
		t.Fatal(err)
	}
	ways := -1 // out of sandboxes
	if installs {
		ways = 1
	}
	host, err := sandbox.New(sandbox.Config{
		Dir: filepath.Join(dir, "sandbox"), RootDirs: h.registry.RootDirs(), Prefix: "ow" + strconv.FormatInt(int64(os.Getpid()), 36), NetPool: 2, CgroupPool: 4, EgressPool: ways,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Close() })
	runs(t, host.Run)
	<-host.Ready()
	h.worker = worker.New(worker.Config{
		Node: "here", Sandbox: host, Runtimes: h.registry, Depot: depot,
		Secrets: func(context.Context, string, []string) (map[string]string, uint64, error) { return nil, 1, nil },
		Stray:   func(*faas.Revision, string, []faas.LogLine) {},
	})
	runs(t, h.worker.Run)
	cfg := deploy.Config{Catalog: cat, Depot: depot, Runtimes: h.registry, Sandbox: host, Prover: h.worker, Dir: filepath.Join(dir, "deploy")}
	if installs {
		i, err := install.New(install.Config{Depot: depot, Sandbox: host, Runtimes: h.registry, Dir: filepath.Join(dir, "install")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = i.Close() })
		cfg.Install = i
	}
	if h.Deployer, err = deploy.New(cfg); err != nil {
		t.Fatal(err)
	}
	return h
}

func runs(t *testing.T, f func(context.Context) error) {
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

// put deploys an action as the dialect does.
func (h *house) put(t testing.TB, language, code string, adjust func(*deploy.Request)) *faas.Revision {
	t.Helper()
	rev, err := h.tryPut(t, language, code, adjust)
	switch {
	case faas.CodeOf(err) == faas.Unavailable && strings.Contains(err.Error(), "cannot reach its registry"):
		t.Skip("what the code needs can't be got: ", err)
	case err != nil:
		t.Fatalf("deploy: %v", err)
	}
	return rev
}

// again is a function of the same code and another name.
func (h *house) again(rev *faas.Revision, adjust func(*faas.Revision)) *faas.Revision {
	h.n++
	other := *rev
	other.Name.Function = "a" + strconv.Itoa(h.n)
	if adjust != nil {
		adjust(&other)
	}
	other.ID = other.Digest()
	return &other
}

func (h *house) tryPut(t testing.TB, language, code string, adjust func(*deploy.Request)) (*faas.Revision, error) {
	t.Helper()
	h.n++
	req := deploy.Request{
		Name: faas.Name{Namespace: "default", Package: "pkg", Function: "a" + strconv.Itoa(h.n)}, Contract: faas.ContractOpenWhisk, Unproved: true,
		Language: language, Code: strings.NewReader(code), Limits: faas.Limits{Response: faas.MiB, Timeout: faas.Duration(time.Minute)},
	}
	if adjust != nil {
		adjust(&req)
	}
	out, err := h.Deploy(t.Context(), req, nil)
	if err != nil {
		return nil, err
	}
	return out.Revision, nil
}

// activation is what one call came to.
type activation struct {
	*faas.Invocation
	Status int
	Body   string
	Err    error
	broken bool // its revision could not be built
}

// logs returns what was written to a stream, or to all.
func (a *activation) logs(stream string) string {
	var b strings.Builder
	for _, l := range a.Report.Logs {
		if stream == "" || l.Stream == stream {
			b.WriteString(l.Text + "\n")
		}
	}
	return b.String()
}

// warm says whether the call had nothing to load, and began where the code was loaded.
func (a *activation) warm() bool {
	_, loaded := a.Timing.Get(faas.PhaseCodeLoad)
	return !loaded
}

func (h *house) call(t testing.TB, rev *faas.Revision, input string, adjust func(*faas.Invocation)) *activation {
	t.Helper()
	now := time.Now()
	inv := &faas.Invocation{
		ID: faas.NewID(now), Kind: faas.KindInvoke, Method: "POST", Path: "/", Attempt: 1, Function: faas.Ref{Name: rev.Name},
		Header: map[string][]string{"Content-Type": {"application/json"}}, Body: strings.NewReader(input), Length: int64(len(input)),
	}
	inv.Timing.Begin = now
	inv.Deadline = now.Add(rev.Limits.Timeout.D())
	if adjust != nil {
		adjust(inv)
	}
	ctx, cancel := context.WithDeadline(t.Context(), inv.Deadline)
	defer cancel()
	a := &activation{Invocation: inv, broken: rev.Broken != ""}
	res, err := h.worker.Execute(ctx, rev, inv)
	if err != nil {
		a.Err = err
		return a
	}
	b, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	a.Status, a.Body, a.Err = res.Status, string(b), err
	return a
}

// want fails the test unless the answer has the status and is the same JSON value.
func (a *activation) want(t testing.TB, status int, body string) {
	t.Helper()
	if a.Err != nil {
		t.Fatalf("call: %v\n%s", a.Err, a.logs(""))
	}
	var got, wanted any
	if err := json.Unmarshal([]byte(a.Body), &got); err != nil {
		t.Fatalf("answer %q: %v", clip(a.Body), err)
	}
	if err := json.Unmarshal([]byte(body), &wanted); err != nil {
		t.Fatal(err)
	}
	g, _ := json.Marshal(got)
	w, _ := json.Marshal(wanted)
	if a.Status != status || !bytes.Equal(g, w) {
		t.Errorf("answer = %d %s, want %d %s", a.Status, clip(string(g)), status, w)
	}
}

// fails makes sure that the call failed as a defect of the action, in these words.
func (a *activation) fails(t testing.TB, op string, words ...string) {
	t.Helper()
	if a.Err == nil {
		t.Fatalf("the call answered %d %s, want an error", a.Status, clip(a.Body))
	}
	e := faas.AsError(a.Err)
	if e.Code.Fault() != "function" || e.Op != op {
		t.Errorf("error %v of %q, want a fault of the function in %q: %v", e.Code, e.Op, op, e)
	}
	if op == initializing && !a.broken && a.warm() {
		t.Error("it is not said how long the load took that failed")
	}
	for _, w := range words {
		if !strings.Contains(strings.ToLower(e.Message()), strings.ToLower(w)) {
			t.Errorf("error %q lacks %q", e.Message(), w)
		}
	}
}

const (
	initializing = "initialize action"
	running      = "run action"
)

// zipped is an archive of files, which are marked as no program.
func zipped(t testing.TB, files map[string]string) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, content := range files {
		f, err := w.Create(name)
		if err == nil {
			_, err = f.Write([]byte(content))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
