package worker_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/internal/store"
	"github.com/brasa-dev/brasa/internal/worker"
	"github.com/brasa-dev/brasa/runtimes"
)

// prefix is this run's own, as several may run on one machine.
var prefix = "w" + strconv.FormatInt(int64(os.Getpid()), 36)

// machine is a worker with all that lies below it, for real.
type machine struct {
	*worker.Worker
	depot *artifact.Depot
	host  *sandbox.Host
	stop  func() // ends the worker before the test's end

	mu    sync.Mutex
	stray []faas.LogLine // guarded by mu
}

func (m *machine) strayLines() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return lines(m.stray)
}

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
	m := &machine{}
	if m.depot, err = artifact.Open(artifact.Config{Objects: objects, Dir: filepath.Join(dir, "code")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.depot.Close() })
	reg, err := runtimes.Discover(t.Context(), runtimes.Config{Dir: filepath.Join(dir, "runtimes")})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	m.host, err = sandbox.New(sandbox.Config{Dir: filepath.Join(dir, "sandbox"), RootDirs: reg.RootDirs(), Prefix: prefix, NetPool: 4, CgroupPool: 4, EgressPool: -1, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.host.Close() })
	run(t, m.host.Run)
	select {
	case <-m.host.Ready():
	case <-time.After(30 * time.Second):
		t.Fatal("sandboxes were not ready within 30s")
	}
	cfg := worker.Config{
		Node: "here", Sandbox: m.host, Runtimes: reg, Depot: m.depot, Logger: log,
		Secrets: func(context.Context, string, []string) (map[string]string, uint64, error) {
			return map[string]string{"TOKEN": "s3cret"}, 1, nil
		},
		Stray: func(_ *faas.Revision, _ string, l []faas.LogLine) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.stray = append(m.stray, l...)
		},
	}
	if adjust != nil {
		adjust(&cfg)
	}
	m.Worker = worker.New(cfg)
	m.stop = run(t, m.Worker.Run)
	return m
}

// run runs a part until the test's end, in the reverse order of starting, or until it is stopped.
func run(t *testing.T, f func(context.Context) error) (stop func()) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v", err)
		}
	})
	return stop
}

// function stores the files and returns a revision of them.
func (m *machine) function(t *testing.T, runtime, entry, code string, adjust func(*faas.Revision)) *faas.Revision {
	t.Helper()
	tree := fstest.MapFS{entry: &fstest.MapFile{Data: []byte(code), Mode: 0o755}}
	digest, _, err := m.depot.PutTree(t.Context(), tree, artifact.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	rev := &faas.Revision{
		Name: faas.Name{Namespace: "default", Function: "f"}, Runtime: runtime, Entry: entry, Code: digest,
		Limits: faas.DefaultLimits(), Network: faas.NetworkNone, Reuse: faas.ReuseFunction,
	}
	if adjust != nil {
		adjust(rev)
	}
	rev.ID = rev.Digest()
	return rev
}

func call(input string) *faas.Invocation {
	now := time.Now()
	inv := &faas.Invocation{
		ID: faas.NewID(now), Kind: faas.KindInvoke, Method: "POST", Path: "/", Attempt: 1,
		Header: map[string][]string{"Content-Type": {"application/json"}},
		Body:   strings.NewReader(input), Length: int64(len(input)), Deadline: now.Add(30 * time.Second),
	}
	inv.Timing.Begin = now
	return inv
}

// do calls the function and returns the whole answer.
func (m *machine) do(rev *faas.Revision, inv *faas.Invocation) (string, error) {
	inv.Function.Name = rev.Name
	if d := inv.Timing.Begin.Add(rev.Limits.Timeout.D()); d.Before(inv.Deadline) {
		inv.Deadline = d
	}
	ctx, cancel := context.WithDeadline(context.Background(), inv.Deadline)
	defer cancel()
	res, err := m.Execute(ctx, rev, inv)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return string(b), err
}

func lines(l []faas.LogLine) string {
	var b strings.Builder
	for _, x := range l {
		b.WriteString(x.Stream + ": " + x.Text + "\n")
	}
	return b.String()
}

const counter = `
n = 0
def main(args):
    global n
    n += 1
    return {"n": n}
`

func TestTheFirstCallIsColdAndTheSecondWarm(t *testing.T) {
	m := newMachine(t, func(c *worker.Config) { c.NoStems = true })
	rev := m.function(t, "python", "f.py", counter, nil)
	first := call(`{}`)
	if got, err := m.do(rev, first); err != nil || got != `{"n":1}` && got != `{"n": 1}` {
		t.Fatalf("first call: %q, %v", got, err)
	}
	if first.Report.Start != faas.StartCold {
		t.Errorf("first call started %q, want cold", first.Report.Start)
	}
	for _, p := range []faas.Phase{faas.PhaseProvisioning, faas.PhaseSpawn, faas.PhaseRuntimeLoad, faas.PhaseCodeLoad, faas.PhaseExecution} {
		if d, ok := first.Timing.Get(p); !ok || d <= 0 {
			t.Errorf("first call: phase %s took %v (entered: %v)", p, d, ok)
		}
	}
	if first.Report.Memory <= 0 || first.Report.CPU <= 0 {
		t.Errorf("first call: memory %v, cpu %v; want what the cgroup counted", first.Report.Memory, first.Report.CPU)
	}
	second := call(`{}`)
	if got, err := m.do(rev, second); err != nil || !strings.Contains(got, "2") {
		t.Fatalf("second call: %q, %v", got, err)
	}
	if second.Report.Start != faas.StartWarm || second.Report.Instance != first.Report.Instance {
		t.Errorf("second call started %q in %q, want warm in %q", second.Report.Start, second.Report.Instance, first.Report.Instance)
	}
	if _, ok := second.Timing.Get(faas.PhaseRuntimeLoad); ok {
		t.Error("second call has a runtime load")
	}
}

func TestReuseNeverGivesEveryCallAFreshProcess(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.function(t, "python", "f.py", counter, func(r *faas.Revision) { r.Reuse = faas.ReuseNever })
	seen := map[string]bool{}
	for range 3 {
		inv := call(`{}`)
		if got, err := m.do(rev, inv); err != nil || !strings.Contains(got, "1") {
			t.Fatalf("%q, %v; want the count of a fresh process", got, err)
		}
		if seen[inv.Report.Instance] {
			t.Error("an instance served twice")
		}
		seen[inv.Report.Instance] = true
	}
}

func TestFailuresAreToldByWhoCanMendThem(t *testing.T) {
	m := newMachine(t, nil)
	for _, c := range []struct {
		name, code  string
		adjust      func(*faas.Revision)
		want        faas.Code
		limit, says string
	}{
		{"raises", "def main(args):\n    raise ValueError('bad total')\n", nil, faas.Failed, "", "bad total"},
		{"syntax error", "def main(args:\n", nil, faas.Failed, "", "f.py"},
		{"crash in load", "raise RuntimeError('no config')\n", nil, faas.Failed, "", "no config"},
		{"exit in load", "import os; os._exit(7)\n", nil, faas.Crashed, "", "7"},
		{"missing handler", "x = 1\n", nil, faas.Failed, "", "main"},
		{"junk on the socket", "import os\ndef main(args):\n    os.write(3, b'\\xff' * 100)\n", nil, faas.Crashed, "", "protocol"},
		{"last words", "import os\ndef main(args):\n    os.write(2, b'no licence\\n')\n    os._exit(3)\n", nil, faas.Crashed, "", "no licence"},
		{"last words in load", "import os\nos.write(2, b'no licence\\n')\nos._exit(3)\n", nil, faas.Crashed, "", "no licence"},
		{"exit without answer", "import os\ndef main(args):\n    os._exit(3)\n", nil, faas.Crashed, "", "3"},
		{"endless loop", "def main(args):\n    while True: pass\n", short, faas.Timeout, "timeout_ms", "timeout"},
		{"endless load", "while True: pass\n", short, faas.Timeout, "timeout_ms", ""},
		{"memory bomb", "def main(args):\n    x = []\n    while True: x.append(bytearray(1 << 20))\n",
			func(r *faas.Revision) { r.Limits.Memory = 64 * faas.MiB }, faas.Crashed, "memory_bytes", "memory"},
		{"answer over the limit", "def main(args):\n    return 'x' * 5000\n",
			func(r *faas.Revision) { r.Limits.Response = 1000 }, faas.Failed, "response_bytes", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			rev := m.function(t, "python", "f.py", c.code, func(r *faas.Revision) {
				r.Name.Function = strings.ReplaceAll(c.name, " ", "-")
				if c.adjust != nil {
					c.adjust(r)
				}
			})
			_, err := m.do(rev, call(`{}`))
			e := faas.AsError(err)
			if e == nil || e.Code != c.want || e.Limit != c.limit || !strings.Contains(e.Error()+e.Trace, c.says) {
				t.Errorf("error %v (code %v, limit %q), want %v, limit %q, saying %q", err, faas.CodeOf(err), faas.AsError(err).Limit, c.want, c.limit, c.says)
			}
		})
	}
	// After all that an honest function of the same node is served.
	ok := m.function(t, "python", "f.py", counter, nil)
	if got, err := m.do(ok, call(`{}`)); err != nil {
		t.Errorf("a good function beside them: %q, %v", got, err)
	}
}

func short(r *faas.Revision) { r.Limits.Timeout = faas.Duration(500 * time.Millisecond) }

func TestAnInstanceThatRanPastItsDeadlineIsNotUsedAgain(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.function(t, "python", "f.py", "import time\ndef main(args):\n    time.sleep(args.get('s', 0))\n    return 'late' if args else 'ok'\n", func(r *faas.Revision) {
		r.Limits.Timeout = faas.Duration(2 * time.Second)
	})
	if _, err := m.do(rev, call(`{}`)); err != nil {
		t.Fatal(err)
	}
	slow := call(`{"s": 60}`)
	if _, err := m.do(rev, slow); faas.CodeOf(err) != faas.Timeout {
		t.Fatalf("slow call: %v, want a timeout", err)
	}
	next := call(`{}`)
	if got, err := m.do(rev, next); err != nil || got != "ok" {
		t.Fatalf("next call: %q, %v", got, err)
	}
	if next.Report.Instance == slow.Report.Instance {
		t.Error("the next call ran in the instance that was still busy")
	}
}

func TestLogLinesBelongToTheCallThatWroteThem(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.function(t, "python", "f.py", `
import os, subprocess, sys
print("loading")
def main(args):
    print("print", args["n"])
    os.write(1, b"raw %d\n" % args["n"])
    os.write(2, b"raw error without end %d" % args["n"])
    subprocess.run(["/bin/sh", "-c", "echo child %d" % args["n"]])
    return args["n"]
`, nil)
	for n := 1; n <= 20; n++ {
		inv := call(`{"n": ` + strconv.Itoa(n) + `}`)
		if _, err := m.do(rev, inv); err != nil {
			t.Fatal(err)
		}
		got := lines(inv.Report.Logs)
		for _, want := range []string{"stdout: print " + strconv.Itoa(n) + "\n", "stdout: raw " + strconv.Itoa(n) + "\n", "stderr: raw error without end " + strconv.Itoa(n) + "\n", "stdout: child " + strconv.Itoa(n) + "\n"} {
			if strings.Count(got, want) != 1 {
				t.Errorf("call %d: want %q once in\n%s", n, want, got)
			}
		}
		if has := strings.Contains(got, "loading"); has != (n == 1) {
			t.Errorf("call %d: line of the load: %v; it belongs to the first", n, has)
		}
		if want := 4; n > 1 && len(inv.Report.Logs) != want {
			t.Errorf("call %d: %d lines, want %d:\n%s", n, len(inv.Report.Logs), want, got)
		}
	}
}

func TestAProcessLeftBehindIsEndedWithItsInstance(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.function(t, "python", "f.py", `
import subprocess
def main(args):
    if args.get("leave"):
        subprocess.Popen(["/bin/sh", "-c", "while :; do echo late; sleep 0.01; done"], start_new_session=True)
    return "ok"
`, nil)
	leaving := call(`{"leave": true}`)
	if _, err := m.do(rev, leaving); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(lines(leaving.Report.Logs), "platform: a process was left running") {
		t.Errorf("the call's log does not say that a process was left:\n%s", lines(leaving.Report.Logs))
	}
	next := call(`{}`)
	if _, err := m.do(rev, next); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(lines(next.Report.Logs), "late") {
		t.Error("the next call got the lines of a process it did not start")
	}
	if next.Report.Instance == leaving.Report.Instance {
		t.Error("the instance was used again")
	}
}

func TestAnInstanceThatDiedIdleIsNotUsed(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.function(t, "python", "f.py", `
import os, threading
def main(args):
    threading.Timer(0.05, os._exit, (1,)).start()
    return os.getpid()
`, nil)
	for i := range 3 {
		inv := call(`{}`)
		if _, err := m.do(rev, inv); err != nil || inv.Report.Start == faas.StartWarm {
			t.Errorf("call %d: %v, start %q; want a new instance", i, err, inv.Report.Start)
		}
		time.Sleep(300 * time.Millisecond) // until the process has ended; nothing here tells
	}
}

// A process may be left behind by a call that also ends a thread, so that the tasks are as many as before.
func TestAProcessLeftBehindForAThreadIsFoundToo(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.function(t, "python", "f.py", `
import os, threading, time
gate, threads = threading.Event(), []
def main(args):
    if not threads:
        threads.extend(threading.Thread(target=gate.wait, daemon=True) for _ in range(3))
        for t in threads: t.start()
        return "threads"
    gate.set()
    for t in threads: t.join()
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
    return "forked"
`, nil)
	first, second := call(`{}`), call(`{}`)
	for _, inv := range []*faas.Invocation{first, second} {
		if _, err := m.do(rev, inv); err != nil {
			t.Fatal(err)
		}
	}
	if first.Report.Instance != second.Report.Instance {
		t.Error("threads alone have ended the instance")
	}
	if log := lines(second.Report.Logs); !strings.Contains(log, "left running") {
		t.Errorf("the second call's log says nothing of the process: %q", log)
	}
}

func TestManyFirstCallsAtOnceShareWhatIsStarted(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.function(t, "node", "f.js", "exports.main = async () => { await new Promise(r => setTimeout(r, 20)); return 'ok' }\n", func(r *faas.Revision) {
		r.Limits.Concurrency = 50
	})
	var wg sync.WaitGroup
	var mu sync.Mutex
	instances := map[string]int{}
	for range 50 {
		wg.Go(func() {
			inv := call(`{}`)
			if got, err := m.do(rev, inv); err != nil || got != "ok" {
				t.Errorf("%q, %v", got, err)
			}
			mu.Lock()
			defer mu.Unlock()
			instances[inv.Report.Instance]++
		})
	}
	wg.Wait()
	if len(instances) > 2 {
		t.Errorf("50 calls of a function that serves 50 at once made %d instances, want one or two", len(instances))
	}
}

func TestIdleInstancesGiveWayToOthers(t *testing.T) {
	m := newMachine(t, func(c *worker.Config) { c.Memory = 300 * faas.MiB })
	for i := range 6 {
		rev := m.function(t, "python", "f.py", counter, func(r *faas.Revision) { r.Name.Function = "f" + strconv.Itoa(i+1) })
		if _, err := m.do(rev, call(`{}`)); err != nil {
			t.Fatalf("function %d: %v", i, err)
		}
	}
	if s := m.Status(); s.Reserved > s.Memory {
		t.Errorf("%v reserved of %v", s.Reserved, s.Memory)
	}
}

func TestWhatDoesNotFitWaitsItsTurn(t *testing.T) {
	m := newMachine(t, func(c *worker.Config) { c.Memory = 300 * faas.MiB }) // room for one at a time
	rev := m.function(t, "python", "f.py", "import time\ndef main(args):\n    time.sleep(0.05)\n    return 'ok'\n", nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got, err := m.do(rev, call(`{}`)); err != nil || got != "ok" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	wg.Wait()
	if n := len(m.Status().Instances); n > 1 {
		t.Errorf("%d instances where one fits", n)
	}
}

// An idle instance counts at what it holds. A call that finds it may have to wait for what it can
// grow to, and must learn when there is room.
func TestAnIdleInstanceThatMayNotGrowYetIsUsedLater(t *testing.T) {
	m := newMachine(t, func(c *worker.Config) { c.Memory = 380 * faas.MiB })
	small := m.function(t, "python", "f.py", counter, func(r *faas.Revision) {
		r.Name.Function, r.Limits.Memory, r.Limits.MaxInstances = "small", 128*faas.MiB, 1
	})
	large := m.function(t, "python", "f.py", "import time\ndef main(args):\n    time.sleep(1)\n", func(r *faas.Revision) { r.Name.Function = "large" })
	if _, err := m.do(small, call(`{}`)); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := m.do(large, call(`{}`)); err != nil {
			t.Error(err)
		}
	})
	until(t, "the large one runs", func() bool { return m.Status().Reserved >= 256*faas.MiB && m.Status().Starting == 0 })
	inv := call(`{}`)
	if _, err := m.do(small, inv); err != nil || inv.Report.Start != faas.StartWarm {
		t.Errorf("%v, start %q; want the idle instance once the other has ended", err, inv.Report.Start)
	}
	wg.Wait()
}

func TestAFunctionLargerThanTheNodeIsRefusedAtOnce(t *testing.T) {
	m := newMachine(t, func(c *worker.Config) { c.Memory = 100 * faas.MiB })
	rev := m.function(t, "python", "f.py", counter, nil) // 256 MiB
	_, err := m.do(rev, call(`{}`))
	if e := faas.AsError(err); e == nil || e.Code != faas.Unavailable || e.Limit != "memory_bytes" {
		t.Errorf("error %v, want unavailable by memory_bytes", err)
	}
}

func TestMaxInstancesBoundsAPool(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.function(t, "python", "f.py", "import time\ndef main(args):\n    time.sleep(0.02)\n    return 'ok'\n", func(r *faas.Revision) { r.Limits.MaxInstances = 2 })
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]bool{}
	for range 20 {
		wg.Go(func() {
			inv := call(`{}`)
			if _, err := m.do(rev, inv); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			seen[inv.Report.Instance] = true
		})
	}
	wg.Wait()
	if len(seen) > 2 {
		t.Errorf("%d instances served, want at most 2", len(seen))
	}
}

func TestForgetEndsIdleInstancesAndLetsBusyOnesFinish(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.function(t, "python", "f.py", "import time\ndef main(args):\n    print('in', flush=True)\n    time.sleep(args.get('s', 0))\n    return 'ok'\n", nil)
	if _, err := m.do(rev, call(`{}`)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		got, err := m.do(rev, call(`{"s": 0.5}`))
		if err == nil && got != "ok" {
			err = errors.New(got)
		}
		done <- err
	}()
	until(t, "the call runs", func() bool { s := m.Status(); return len(s.Instances) == 1 && s.Instances[0].Active == 1 })
	m.Forget(rev.Name)
	if err := <-done; err != nil {
		t.Errorf("the call that ran: %v", err)
	}
	until(t, "the instance is gone", func() bool { return len(m.Status().Instances) == 0 })
}

// A changed secret must not make a function cold for as long as calls overlap.
func TestForgetDoesNotLastWhileCallsOverlap(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.function(t, "python", "f.py", "import time\ndef main(args):\n    time.sleep(args['s'])\n", func(r *faas.Revision) { r.Secrets = []string{"TOKEN"} })
	other := m.function(t, "python", "f.py", counter, func(r *faas.Revision) { r.Name.Function = "other" })
	if _, err := m.do(other, call(`{}`)); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := m.do(rev, call(`{"s":2}`)); err != nil {
			t.Error(err)
		}
	})
	until(t, "the long call runs", func() bool {
		s := m.Status().Instances
		return len(s) == 2 && s[0].Active+s[1].Active == 1
	})
	m.ForgetSecret("default", "TOKEN")
	beside := call(`{}`)
	if _, err := m.do(other, beside); err != nil || beside.Report.Start != faas.StartWarm {
		t.Errorf("a function without the secret: %v, start %q, want warm", err, beside.Report.Start)
	}
	for i, warm := range []bool{false, true} {
		inv := call(`{"s":0}`)
		if _, err := m.do(rev, inv); err != nil || (inv.Report.Start == faas.StartWarm) != warm {
			t.Errorf("call %d: %v, start %q, warm wanted: %v", i, err, inv.Report.Start, warm)
		}
	}
	wg.Wait()
}

// An instance that was being made while a secret changed may hold the older value.
func TestAStartThatASecretOvertakesServesNobody(t *testing.T) {
	var value atomic.Value
	value.Store("old")
	asked, change := make(chan struct{}), make(chan struct{})
	var once sync.Once
	m := newMachine(t, func(c *worker.Config) {
		c.Secrets = func(context.Context, string, []string) (map[string]string, uint64, error) {
			v := value.Load().(string)
			once.Do(func() { close(asked); <-change })
			return map[string]string{"TOKEN": v}, 1, nil
		}
	})
	rev := m.function(t, "python", "f.py", "import os\ndef main(args):\n    return os.environ['TOKEN']\n", func(r *faas.Revision) { r.Secrets = []string{"TOKEN"} })
	var wg sync.WaitGroup
	wg.Go(func() {
		if got, err := m.do(rev, call(`{}`)); err != nil || got != "new" {
			t.Errorf("%q, %v; want the new value", got, err)
		}
	})
	<-asked
	value.Store("new")
	m.ForgetSecret("default", "TOKEN")
	close(change)
	wg.Wait()
}

// until waits for a state that other goroutines bring about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 10s: %s", what)
		}
	}
}

func TestAProofLoadsTheCodeAndKeepsTheInstance(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.function(t, "python", "f.py", "print('hello from load')\n"+counter, nil)
	proof, err := m.Prove(t.Context(), rev)
	if err != nil {
		t.Fatal(err)
	}
	if d, ok := proof.Timing.Get(faas.PhaseRuntimeLoad); !ok || d <= 0 || proof.Memory <= 0 || !strings.Contains(lines(proof.Logs), "hello from load") {
		t.Errorf("proof %+v", proof)
	}
	inv := call(`{}`)
	if _, err := m.do(rev, inv); err != nil || inv.Report.Start != faas.StartWarm {
		t.Errorf("call after the proof: started %q, %v; want warm", inv.Report.Start, err)
	}
	bad := m.function(t, "python", "f.py", "print('before')\nimport nowhere\n", nil)
	proof, err = m.Prove(t.Context(), bad)
	if e := faas.AsError(err); e == nil || e.Code != faas.Failed || !strings.Contains(e.Error()+e.Trace, "nowhere") {
		t.Errorf("proof of a broken function: %v", err)
	}
	if !strings.Contains(lines(proof.Logs), "before") {
		t.Errorf("what it wrote before is lost: %q", lines(proof.Logs))
	}
}

func TestSecretsAreInTheEnvironment(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.function(t, "python", "f.py", "import os\ndef main(args):\n    return os.environ['TOKEN'] + os.environ['PLAIN']\n", func(r *faas.Revision) {
		r.Secrets, r.Env = []string{"TOKEN"}, map[string]string{"PLAIN": "x"}
	})
	if got, err := m.do(rev, call(`{}`)); err != nil || got != "s3cretx" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestOneCallerThatGoesAwayHarmsNoOther(t *testing.T) {
	m := newMachine(t, nil)
	for _, c := range []struct{ runtime, entry, code string }{
		{"node", "f.js", `
exports.main = async function* (args) {
  for (let i = 0; i < args.n; i++) { yield 'x'; await new Promise(r => setTimeout(r, 10)); }
};
`},
		{"python", "f.py", `
import asyncio
async def main(args):
    for i in range(args["n"]):
        yield "x"
        await asyncio.sleep(0.01)
`},
	} {
		t.Run(c.runtime, func(t *testing.T) {
			rev := m.function(t, c.runtime, c.entry, c.code, func(r *faas.Revision) {
				r.Name.Function, r.Limits.Concurrency = c.runtime, 8
			})
			if _, err := m.do(rev, call(`{"n": 1}`)); err != nil {
				t.Fatal(err)
			}
			staying, leaving := call(`{"n": 60}`), call(`{"n": 6000}`)
			stay, err := m.Execute(t.Context(), rev, staying)
			if err != nil {
				t.Fatal(err)
			}
			ctx, goAway := context.WithCancel(t.Context())
			gone, err := m.Execute(ctx, rev, leaving)
			if err != nil {
				t.Fatal(err)
			}
			if staying.Report.Instance != leaving.Report.Instance {
				t.Fatal("the two calls are in different instances; the test shows nothing")
			}
			if _, err := gone.Body.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			goAway()
			gone.Body.Close()
			b, err := io.ReadAll(stay.Body)
			stay.Body.Close()
			if err != nil || len(b) != 60 {
				t.Errorf("the call that stayed got %d bytes, %v; want all 60", len(b), err)
			}
		})
	}
}

func TestATimeoutBesideOtherCallsLetsThemFinish(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.function(t, "node", "f.js", "exports.main = async (a) => { await new Promise(r => setTimeout(r, a.ms)); return 'ok' }\n", func(r *faas.Revision) {
		r.Limits.Concurrency = 8
	})
	if _, err := m.do(rev, call(`{"ms": 0}`)); err != nil {
		t.Fatal(err)
	}
	late, fine := call(`{"ms": 60000}`), call(`{"ms": 1500}`)
	late.Deadline = time.Now().Add(300 * time.Millisecond)
	done := make(chan error, 1)
	go func() {
		got, err := m.do(rev, fine)
		if err == nil && got != "ok" {
			err = errors.New(got)
		}
		done <- err
	}()
	until(t, "the fine call runs", func() bool { s := m.Status(); return len(s.Instances) == 1 && s.Instances[0].Active == 1 })
	if _, err := m.do(rev, late); faas.CodeOf(err) != faas.Timeout {
		t.Errorf("late call: %v, want a timeout", err)
	}
	if err := <-done; err != nil {
		t.Errorf("the call beside it: %v", err)
	}
	until(t, "the instance with the stuck call is gone", func() bool { return len(m.Status().Instances) == 0 })
}

// While several calls share a process, what it writes past its bootstrap can't be told apart: it is
// kept for the function and given to no call.
func TestLinesOfNoSingleCallAreKeptForTheFunction(t *testing.T) {
	m := newMachine(t, nil)
	rev := m.function(t, "python", "f.py", "import os\ndef main(args):\n    os.write(1, b'raw\\n')\n    print('framed')\n", func(r *faas.Revision) {
		r.Limits.Concurrency = 2
	})
	inv := call(`{}`)
	if _, err := m.do(rev, inv); err != nil {
		t.Fatal(err)
	}
	if got := lines(inv.Report.Logs); got != "stdout: framed\n" {
		t.Errorf("the call's log is %q, want the framed line alone", got)
	}
	until(t, "the raw line is told", func() bool { return strings.Contains(m.strayLines(), "stdout: raw\n") })
}
