package sandbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// descendants is a program that leaves the session and the process group, forks twice and tells
// when all are there.
const descendants = `(setsid sh -c '(sleep 86398 & exec sleep 86398) & echo up >&3; sleep 86398') & sleep 86398`

func TestKillReachesAll(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		s := start(t, h, Spec{Args: []string{"/bin/sh", "-c", descendants}, Env: []string{"PATH=/bin:/usr/bin"}, Conn: true})
		if _, err := s.Conn().Read(make([]byte, 3)); err != nil {
			t.Fatal(err)
		}
		pids, err := s.Processes()
		if err != nil || len(pids) < 3 {
			t.Fatalf("processes %v, %v", pids, err)
		}
		s.Kill()
		s.Kill()
		if e := s.Exit(); e.Signal != syscall.SIGKILL || e.OOM {
			t.Errorf("killed: %+v", e)
		}
		s.Close()
		for _, pid := range pids {
			if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
				t.Errorf("process %d is still there: %v", pid, err)
			}
		}
		s.Kill() // of what is gone
	})
}

func TestEndOfProgramEndsAll(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		s := start(t, h, Spec{Args: []string{"/bin/sh", "-c", strings.Replace(descendants, "& sleep 86398", "& read x <&3; exit 7", 1)}, Env: []string{"PATH=/bin:/usr/bin"}, Conn: true})
		if _, err := s.Conn().Read(make([]byte, 3)); err != nil {
			t.Fatal(err)
		}
		pids, _ := s.Processes()
		s.Conn().Write([]byte("\n"))
		if e := s.Exit(); e.Code != 7 || e.Signal != 0 {
			t.Errorf("exit %+v", e)
		}
		s.Close()
		for _, pid := range pids {
			if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
				t.Errorf("process %d is still there: %v", pid, err)
			}
		}
	})
}

// A program is not the init of its pid namespace: the signals it sends itself work.
func TestSignalsToItselfWork(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGABRT, syscall.SIGSEGV} {
			o := shell(t, h, "kill -"+strconv.Itoa(int(sig))+" $$; echo survived")
			if o.exit.Signal != sig || o.exit.Code != 128+int(sig) {
				t.Errorf("kill -%d of itself: %+v %q", sig, o.exit, o.stdout)
			}
		}
	})
}

func TestOrphansAreReaped(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		// Each round leaves an orphan that ends at once; with 12 processes allowed, fifty
		// zombies would not fit.
		o := shell(t, h, `i=0; while [ $i -lt 50 ]; do (true &) ; i=$((i+1)); done; echo done`, func(s *Spec) { s.PIDs = 12 })
		if got := o.ok(t); got != "done" {
			t.Errorf("got %q %q", o.stdout, o.stderr)
		}
	})
}

func TestCloseIsIdempotentAndConcurrent(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		s := start(t, h, Spec{Args: []string{"/bin/sleep", "1000"}, Conn: true})
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				s.Usage()
				s.Processes()
				s.PID()
				s.Kill()
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				s.Usage()
				s.PID()
				if _, err := s.Dial(context.Background(), "tcp", "127.0.0.1:1"); err == nil {
					t.Error("dial into a closed sandbox")
				}
			})
		}
		all.Wait()
		<-s.Done()
	})
}

func TestSpawnerDeath(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		var all []*Sandbox
		for range 4 * h.cfg.Spawners {
			all = append(all, start(t, h, Spec{Args: []string{"/bin/sh", "-c", "trap '' TERM HUP; sleep 1000"}}))
		}
		h.mu.Lock()
		for _, s := range h.spawners {
			s.cmd.Process.Kill()
		}
		h.mu.Unlock()
		for _, s := range all {
			select {
			case <-s.Done():
			case <-time.After(patience):
				t.Fatal("a sandbox outlives its spawner")
			}
			if e := s.Exit(); e.Signal != syscall.SIGKILL {
				t.Errorf("exit %+v", e)
			}
		}
		// Start may meet a spawner that is just dying, but not for long.
		deadline := time.Now().Add(patience)
		for {
			s, err := h.Start(context.Background(), Spec{Name: uniqueName(), Args: []string{"/bin/true"}})
			if err == nil {
				s.Close()
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("Start after the spawner's death: %v", err)
			}
		}
	})
}

func TestStartAfterRunEnded(t *testing.T) {
	needRoot(t)
	goleak.VerifyNone(t) // of earlier tests
	h, err := New(testConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Start(context.Background(), Spec{Name: "early", Args: []string{"/bin/true"}}); !errors.Is(err, ErrClosed) {
		t.Errorf("Start before Run: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	<-h.Ready()
	s, err := h.Start(context.Background(), Spec{Name: "one", Args: []string{"/bin/sleep", "1000"}})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	<-s.Done() // nothing outlives Run
	s.Close()
	if _, err := h.Start(context.Background(), Spec{Name: "late", Args: []string{"/bin/true"}}); !errors.Is(err, ErrClosed) {
		t.Errorf("Start after Run: %v", err)
	}
	goleak.VerifyNone(t)
}

func TestTwoServersDoNotMeet(t *testing.T) {
	needRoot(t)
	cfg := testConfig(t)
	runHost(t, cfg)
	other := cfg
	other.Dir = t.TempDir()
	if _, err := New(other); err == nil || !strings.Contains(err.Error(), "prefix") {
		t.Errorf("a second server with the prefix: %v", err)
	}
	other = testConfig(t)
	other.Dir = cfg.Dir
	if _, err := New(other); err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("a second server in the directory: %v", err)
	}
	shell(t, runHost(t, testConfig(t)), "true").ok(t)
}

// counts is what a leak would make grow.
type counts struct{ fds, cgroups, mounts, processes, uids int }

func count(t *testing.T, h *Host) counts {
	t.Helper()
	entries := func(dir string) int {
		e, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(e)
	}
	c := counts{fds: entries("/proc/self/fd")}
	if h.layout != nil {
		for _, d := range h.layout.dirs() {
			e, _ := filepath.Glob(d + "/sandbox-*")
			c.cgroups += len(e)
		}
	}
	h.mu.Lock()
	c.uids = len(h.uids.used)
	for _, s := range h.spawners {
		pid := strconv.Itoa(s.cmd.Process.Pid)
		text, err := os.ReadFile("/proc/" + pid + "/mountinfo")
		if err != nil {
			t.Error(err)
		}
		c.mounts += strings.Count(string(text), "\n")
		c.fds += entries("/proc/" + pid + "/fd")
		children, err := readProcesses("/proc/" + pid + "/task/" + pid + "/children")
		must(t, err)
		c.processes += len(children)
	}
	h.mu.Unlock()
	return c
}

// full waits until the pools are.
func full(t *testing.T, h *Host) {
	t.Helper()
	waitFor(t, "the pools to fill", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		ok := len(h.groups.ready) == cap(h.groups.ready) && len(h.nets.ready) == cap(h.nets.ready) && h.sweeper.left() == 0
		for _, s := range h.spawners {
			ok = ok && s != nil && len(s.nests.ready) == cap(s.nests.ready)
		}
		return ok
	})
}

// nothingLeft waits until no more is there than before.
func nothingLeft(t *testing.T, h *Host, before counts) {
	t.Helper()
	full(t, h)
	var after counts
	deadline := time.Now().Add(patience)
	for {
		after = count(t, h)
		// Poll descriptors come late.
		if after.fds <= before.fds+2 && after.cgroups <= before.cgroups && after.mounts <= before.mounts && after.processes <= before.processes && after.uids <= before.uids {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("before %+v, after %+v", before, after)
		}
		time.Sleep(10 * time.Millisecond) // polls a state, asserts no time
	}
}

// many returns how often something is done; BRASA_TEST_MANY asks for more than a test run has
// time for.
func many(t *testing.T, usual int) int {
	t.Helper()
	text := os.Getenv("BRASA_TEST_MANY")
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	must(t, err)
	return n
}

func TestChurnLeavesNothing(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		dir := t.TempDir()
		total := many(t, 200)
		var zygote *Zygote
		if h.cfg.GoInit {
			total = min(total, 40)
		} else if _, err := os.Stat(testPython); err == nil {
			zygote, _ = startPythonZygote(t, h)
		}
		one := func(i int) {
			spec := Spec{Name: uniqueName(), Args: []string{"/bin/true"}, Conn: true, Mounts: []Mount{{Source: dir, Target: "/code"}}}
			if i%2 == 1 && zygote != nil {
				spec.Zygote = zygote
			}
			s, err := h.Start(context.Background(), spec)
			if err != nil {
				t.Error(err)
				return
			}
			if i%4 < 2 || spec.Zygote != nil {
				// Whether it is still there is not this test's concern.
				_ = s.Adopt(context.Background(), Claim{Hostname: "adopted", Memory: 100 << 20, Mounts: []Mount{{Source: dir, Target: "/brasa/more"}}})
			}
			if spec.Zygote == nil {
				<-s.Done()
			}
			s.Close()
		}
		for i := range 4 {
			one(i)
		}
		full(t, h)
		before := count(t, h)
		var all sync.WaitGroup
		work := make(chan int)
		for range 8 { // more at a time than the pools hold, at times
			all.Go(func() {
				for i := range work {
					one(i)
				}
			})
		}
		begin := time.Now()
		for i := range total {
			work <- i
		}
		close(work)
		all.Wait()
		t.Logf("%d in %v", total, time.Since(begin))
		nothingLeft(t, h, before)
	})
}

// A burst that no pool can serve is served all the same.
func TestBurstOfStarts(t *testing.T) {
	h := startHost(t)
	full(t, h)
	before := count(t, h)
	n := min(many(t, 100), 1000)
	all := make([]*Sandbox, n)
	var starting sync.WaitGroup
	begin := time.Now()
	for i := range all {
		starting.Go(func() {
			s, err := h.Start(context.Background(), Spec{Name: uniqueName(), Args: []string{"/bin/sleep", "1000"}, Conn: true})
			if err != nil {
				t.Error(err)
				return
			}
			all[i] = s
		})
	}
	starting.Wait()
	t.Logf("%d started in %v", n, time.Since(begin))
	begin = time.Now()
	for _, s := range all {
		if s != nil {
			starting.Go(func() { s.Close() })
		}
	}
	starting.Wait()
	t.Logf("closed in %v", time.Since(begin))
	nothingLeft(t, h, before)
}

func TestPoolsRunDryAndRefill(t *testing.T) {
	h := startHost(t, func(c *Config) { c.NetPool, c.CgroupPool, c.NestPool = 2, 2, 2 })
	var all []*Sandbox
	for range 12 {
		all = append(all, start(t, h, Spec{Args: []string{"/bin/sleep", "1000"}}))
	}
	seen := map[string]bool{}
	for _, s := range all {
		link, err := os.Readlink("/proc/" + strconv.Itoa(s.PID()) + "/ns/net")
		if err != nil || seen[link] {
			t.Errorf("network namespace %q is used twice (%v)", link, err)
		}
		seen[link] = true
	}
	h2 := startHost(t, func(c *Config) { c.NetPool, c.CgroupPool, c.NestPool = -1, -1, -1 })
	shell(t, h2, "true").ok(t)
}

// Where the embedded program cannot be executed, the binary stands in by itself.
func TestStandInTakesOver(t *testing.T) {
	program := spawnerBinary
	t.Cleanup(func() { spawnerBinary = program })
	spawnerBinary = []byte("not a program")
	h := startHost(t)
	if !h.standIn {
		t.Error("the stand-in is not used")
	}
	shell(t, h, "true").ok(t)
}

// What cannot be set up ends Run with a reason and leaves nothing.
func TestRunFailsCleanly(t *testing.T) {
	needRoot(t)
	cfg := testConfig(t)
	cfg.RootDirs = []string{"/no/such/directory"}
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Run(context.Background()) }()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "bind /no/such/directory") {
			t.Errorf("got %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Run goes on")
	}
	cfg.RootDirs = nil
	shell(t, runHost(t, cfg), "true").ok(t)
}
