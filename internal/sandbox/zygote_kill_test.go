package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// faultyZygote is the real zygote that dies, or lets its child die, at one point of a fork.
const faultyZygote = `
import os, signal, sys
fault, at = sys.argv[1], int(sys.argv[2])
sys.argv = ["/brasa/zygote.py"]
g = {"__name__": "zygote", "__file__": "/brasa/zygote.py"}
exec(compile(open("/brasa/zygote.py").read(), "/brasa/zygote.py", "exec"), g)
Z = g["Zygote"]
read, fork, confine, answer, receive = Z.read, Z.fork, Z.confine, g["answer"], g["receive"]
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def around(before, do, after):
    def run(*a, **k):
        before()
        r = do(*a, **k)
        after(r)
        return r
    return run
never = lambda *a: None
if fault == "received": g["receive"] = around(never, receive, lambda r: die())
if fault == "read": Z.read = around(never, read, lambda r: die())
if fault == "cloned": Z.fork = around(never, fork, lambda pid: pid and die())
if fault == "answering": g["answer"] = around(die, answer, never)
if fault == "answered": g["answer"] = around(never, answer, lambda r: die())
if fault == "zygote":
    # The child cannot signal out of its pid namespace: a third one kills when it is told.
    told, tell = os.pipe()
    zygote = os.getpid()
    if os.fork() == 0:
        os.close(3)
        os.close(tell)
        if os.read(told, 1): os.kill(zygote, signal.SIGKILL)
        os._exit(0)
    os.close(told)
def kill_zygote(self):
    import select
    try:
        os.write(tell, b"x")
        select.select([self.home], [], [])
    except OSError:
        pass # descriptors are closed by now
def forks(self, nest, cgroup): # the next one fails a step later
    global at
    pid = fork(self, nest, cgroup)
    if pid > 0: at += 1
    return pid
if fault in ("child", "refused"): Z.fork = forks
def at_step(do):
    def run(self, todo, gate):
        def broken(step, first):
            def run():
                if first: do(self)
                return step()
            return run
        confine(self, [(broken(step, i == at), optional) for i, (step, optional) in enumerate(todo)], gate)
    return run
if fault == "child": Z.confine = at_step(lambda self: die())
if fault == "zygote": Z.confine = at_step(kill_zygote)
if fault == "refused": Z.confine = lambda self, todo, gate: confine(self, todo[:at] + [(lambda: -5, False)] + todo[at + 1:], gate)
if fault == "silent": Z.confine = lambda self, todo, gate: os._exit(3)
if fault == "raises": Z.confine = lambda self, todo, gate: 1 / 0
if fault == "gone": # the child ends before it can be known
    def quick(self, nest, cgroup):
        pid = fork(self, nest, cgroup)
        if pid == 0: os._exit(9)
        import time
        time.sleep(0.05)
        return pid
    Z.fork = quick
g["main"]().stem(3)
`

// faulty starts a zygote with a fault.
func faulty(t *testing.T, h *Host, mounts []Mount, what string, at int) *Zygote {
	t.Helper()
	z, err := h.StartZygote(context.Background(), ZygoteSpec{Name: "python", Args: []string{testPython, "-I", "-c", faultyZygote, what, fmt.Sprint(at)}, Mounts: mounts})
	must(t, err)
	return z
}

func forkFaulty(t *testing.T, h *Host, z *Zygote) (*Sandbox, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return h.Start(ctx, Spec{Name: "faulty", Zygote: z, Conn: true})
}

// Wherever a fork breaks off, Start says so, the name is free and nothing is left.
func TestZygoteDiesAtEachPoint(t *testing.T) {
	h := startHost(t)
	mounts := pythonMounts(t, testBootstrap)
	z, _ := startPythonZygote(t, h)
	startScripted(t, h, Spec{Zygote: z}).Close()
	full(t, h)
	before := count(t, h)
	for _, what := range []string{"received", "read", "cloned", "answering"} {
		dead := faulty(t, h, mounts, what, 0)
		_, err := forkFaulty(t, h, dead)
		if !errors.Is(err, errZygoteGone) {
			t.Errorf("zygote dies when it has %s: %v", what, err)
		}
		select {
		case <-dead.Done():
		case <-time.After(patience):
			t.Fatalf("%s: Done is not closed", what)
		}
		if _, err := h.Start(context.Background(), Spec{Name: "faulty", Zygote: dead}); !errors.Is(err, errZygoteGone) {
			t.Errorf("fork of a dead zygote: %v", err)
		}
	}
	for _, what := range []string{"silent", "raises", "gone"} {
		odd := faulty(t, h, mounts, what, 0)
		if _, err := forkFaulty(t, h, odd); err == nil {
			t.Errorf("%s: a child was taken for a program", what)
		}
		odd.Close()
	}
	steps := len(planSandbox(planInput{spec: Spec{Hostname: "x"}, uid: 1, group: &cgroup{layout: h.layout, into: -1}, forked: true}).steps)
	if steps < 15 {
		t.Fatalf("%d steps", steps)
	}
	dies, refused := faulty(t, h, mounts, "child", 0), faulty(t, h, mounts, "refused", 0)
	for at := range steps {
		if _, err := forkFaulty(t, h, dies); err == nil {
			t.Errorf("child dies before step %d: it was started", at)
		}
		var failed *StepError
		if _, err := forkFaulty(t, h, refused); !errors.As(err, &failed) || !errors.Is(err, unix.EIO) {
			t.Errorf("step %d is refused: %v", at, err)
		}
		// A child that is answered for outlives its zygote, one that is not does not.
		dead := faulty(t, h, mounts, "zygote", at)
		s, err := forkFaulty(t, h, dead)
		if err == nil {
			if e := (&scripted{s, t, nil}).ended(); e != "" {
				t.Errorf("zygote dies at step %d of its child: the child has ended: %s", at, e)
			}
			s.Close()
		} else if !errors.Is(err, errZygoteGone) {
			t.Errorf("zygote dies at step %d of its child: %v", at, err)
		}
		dead.Close()
	}
	dies.Close()
	refused.Close()
	// The first zygote is untouched.
	p := startScripted(t, h, Spec{Name: "faulty", Zygote: z})
	if got := p.text("out = 'fine'"); got != "fine" {
		t.Errorf("got %q", got)
	}
	p.Close()
	nothingLeft(t, h, before)
}

// ended says how the program has ended, or "".
func (p *scripted) ended() string {
	select {
	case <-p.Done():
		return p.Exit().String()
	default:
		return ""
	}
}

func TestZygoteAndSpawnerDeath(t *testing.T) {
	ctx := context.Background()
	t.Run("zygote is killed, children live", func(t *testing.T) {
		h := startHost(t)
		z, mounts := startPythonZygote(t, h)
		p := startScripted(t, h, Spec{Zygote: z})
		must(t, unix.PidfdSendSignal(z.pidfd, unix.SIGKILL, nil, 0))
		<-z.Done()
		if _, err := h.Start(ctx, Spec{Name: "late", Zygote: z}); !errors.Is(err, errZygoteGone) {
			t.Errorf("got %v", err)
		}
		if got := p.text("out = 'alive'"); got != "alive" {
			t.Errorf("got %q", got)
		}
		must(t, p.Adopt(ctx, Claim{Hostname: "still"}))
		next, err := h.StartZygote(ctx, ZygoteSpec{Name: "python", Args: []string{testPython, "-I", "/brasa/zygote.py"}, Mounts: mounts})
		must(t, err)
		defer next.Close()
		q := startScripted(t, h, Spec{Zygote: next})
		if got := q.text("out = 'alive'"); got != "alive" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("zygote is killed while forks wait", func(t *testing.T) {
		h := startHost(t)
		z, _ := startPythonZygote(t, h)
		must(t, unix.PidfdSendSignal(z.pidfd, unix.SIGSTOP, nil, 0))
		ended := make(chan error, 20)
		for i := range cap(ended) {
			go func() {
				_, err := h.Start(ctx, Spec{Name: fmt.Sprintf("w%d", i), Zygote: z})
				ended <- err
			}()
		}
		waitFor(t, "forks to be asked for", func() bool { z.mu.Lock(); defer z.mu.Unlock(); return len(z.waiting) == cap(ended) })
		must(t, z.Close())
		for range cap(ended) {
			if err := <-ended; !errors.Is(err, errZygoteGone) {
				t.Errorf("got %v", err)
			}
		}
	})
	t.Run("spawner is killed", func(t *testing.T) {
		h := startHost(t)
		z, _ := startPythonZygote(t, h)
		p := startScripted(t, h, Spec{Zygote: z})
		must(t, unix.PidfdSendSignal(z.pidfd, unix.SIGSTOP, nil, 0))
		ended := make(chan error, 1)
		go func() {
			_, err := h.Start(ctx, Spec{Name: "waits", Zygote: z})
			ended <- err
		}()
		waitFor(t, "the fork to be asked for", func() bool { z.mu.Lock(); defer z.mu.Unlock(); return len(z.waiting) == 1 })
		zygote, child := pidOf(z.pidfd), p.PID()
		must(t, z.spawner.cmd.Process.Kill())
		if err := <-ended; err == nil {
			t.Error("the fork went on")
		}
		<-z.Done()
		<-p.Done()
		for _, pid := range []int{zygote, child} {
			waitFor(t, "processes to go", func() bool { return errors.Is(unix.Kill(pid, 0), unix.ESRCH) })
		}
		if err := p.Adopt(ctx, Claim{Hostname: "dead"}); err == nil {
			t.Error("a dead sandbox was adopted")
		}
		// Another zygote belongs to a spawner that lives.
		waitFor(t, "a zygote to start", func() bool {
			next, err := h.StartZygote(ctx, ZygoteSpec{Name: "python", Args: []string{testPython, "-I", "/brasa/zygote.py"}, Mounts: pythonMounts(t, testBootstrap)})
			if err != nil {
				return false
			}
			defer next.Close()
			q := startScripted(t, h, Spec{Zygote: next})
			return q.text("out = 'alive'") == "alive"
		})
	})
	t.Run("nest is gone", func(t *testing.T) {
		h := startHost(t, func(c *Config) { c.NestPool, c.Spawners = 1, 1 })
		z, _ := startPythonZygote(t, h)
		for name, spec := range map[string]Spec{"forked": {Zygote: z}, "executed": {Args: []string{"/bin/true"}}} {
			var n *nest
			waitFor(t, "a nest", func() bool { return len(z.spawner.nests.ready) == 1 })
			n = <-z.spawner.nests.ready
			must(t, unix.PidfdSendSignal(n.pidfd, unix.SIGKILL, nil, 0))
			waitFor(t, "the nest to end", func() bool { return pidOf(n.pidfd) == 0 })
			z.spawner.nests.ready <- n
			spec.Name = name
			s, err := h.Start(ctx, spec)
			var failed *StepError
			if !errors.As(err, &failed) {
				t.Errorf("%s: %v, %v", name, s, err)
			}
		}
		p := startScripted(t, h, Spec{Zygote: z})
		if got := p.text("out = 'alive'"); got != "alive" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("a nest's place is another's", func(t *testing.T) {
		h := startHost(t, func(c *Config) { c.NestPool, c.Spawners = 1, 1 })
		sp := h.spawners[0]
		waitFor(t, "a nest", func() bool { return len(sp.nests.ready) == 1 })
		n := <-sp.nests.ready
		stale := *n
		stale.made--
		stale.pidfd, _ = unix.FcntlInt(uintptr(n.pidfd), unix.F_DUPFD_CLOEXEC, 0)
		sp.nests.ready <- &stale
		if _, err := h.Start(ctx, Spec{Name: "other", Args: []string{"/bin/true"}}); !errors.Is(err, unix.ESRCH) {
			t.Errorf("got %v", err)
		}
		n.kill()
	})
	t.Run("host ends", func(t *testing.T) {
		needRoot(t)
		h, err := New(testConfig(t))
		must(t, err)
		run, cancel := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- h.Run(run) }()
		<-h.Ready()
		z, _ := startPythonZygote(t, h)
		p := startScripted(t, h, Spec{Zygote: z})
		cancel()
		must(t, <-ended)
		<-z.Done()
		<-p.Done()
		if _, err := h.StartZygote(ctx, ZygoteSpec{Name: "late", Args: []string{"/bin/true"}}); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}

// The numbers that zygotes carry are those of the protocol.
func TestPythonSpeaksTheProtocol(t *testing.T) {
	text, err := os.ReadFile("../../runtimes/python/zygote.py")
	must(t, err)
	ops := "OP_WRITE, OP_ENTER, OP_SETNS, OP_UNSHARE, OP_MOUNT, OP_MOVE_MOUNT, OP_FILE, OP_MKDIR, OP_HOSTNAME,\n    OP_RLIMIT, OP_MAP_IDS, OP_IDS, OP_DROP_BOUNDING, OP_DROP_CAPS, OP_PRCTL, OP_CHDIR, OP_PIVOT, OP_FDS,\n    OP_SECCOMP, OP_EXEC, OP_HOLD, OP_CAPS, OP_REPLACE,\n) = range(1, 24)"
	for _, want := range []string{
		fmt.Sprintf("VERSION = %d\n", wireVersion),
		fmt.Sprintf("KIND_DONE, KIND_READY, KIND_FORK = %d, %d, %d\n", kindDone, kindReady, kindFork),
		fmt.Sprintf("STEP_OPTIONAL = %d\n", stepOptional),
		fmt.Sprintf("MAX_FDS = %d\n", maxFDs),
		ops,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("zygote.py lacks %q", want)
		}
	}
	if opReplace != 23 {
		t.Error("there are steps that zygote.py does not know")
	}
}
