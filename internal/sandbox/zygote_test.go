package sandbox

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const testPython = "/usr/bin/python3"

// testBootstrap stands in for the real one: it runs each line it gets, Python in JSON, and
// answers with what that put into out.
const testBootstrap = `
import json, os, sys
def warm():
    import random, tempfile, threading, subprocess, socket
def stem(fd):
    global out
    with os.fdopen(os.dup(fd), "rb") as lines:
        for line in lines:
            out = None
            try:
                exec(json.loads(line), globals())
            except BaseException as e:
                out = "%s: %s" % (type(e).__name__, e)
            os.write(fd, json.dumps(out).encode() + b"\n")
if __name__ == "__main__":
    warm()
    import ctypes # as the zygote has
    stem(3)
`

// pythonMounts returns what a zygote and an executed bootstrap see at /brasa.
func pythonMounts(t testing.TB, bootstrap string) []Mount {
	t.Helper()
	if _, err := os.Stat(testPython); err != nil {
		t.Skip("needs " + testPython)
	}
	zygote, err := filepath.Abs("../../runtimes/python/zygote.py")
	must(t, err)
	file := filepath.Join(codeDir(t, ""), "bootstrap.py")
	must(t, os.WriteFile(file, []byte(bootstrap), 0o644))
	return []Mount{{Source: zygote, Target: "/brasa/zygote.py"}, {Source: file, Target: "/brasa/bootstrap.py"}}
}

func startPythonZygote(t testing.TB, h *Host) (*Zygote, []Mount) {
	t.Helper()
	mounts := pythonMounts(t, testBootstrap)
	z, err := h.StartZygote(context.Background(), ZygoteSpec{Name: "python", Args: []string{testPython, "-I", "/brasa/zygote.py"}, Env: []string{"LANG=C.UTF-8"}, Mounts: mounts})
	must(t, err)
	t.Cleanup(func() { z.Close() })
	return z, mounts
}

// scripted is a sandbox whose program is the test's bootstrap, executed or forked.
type scripted struct {
	*Sandbox
	t       testing.TB
	answers *bufio.Reader
}

func startScripted(t testing.TB, h *Host, spec Spec) *scripted {
	t.Helper()
	spec.Conn = true
	s := start(t, h, spec)
	must(t, s.Conn().SetDeadline(time.Now().Add(patience)))
	return &scripted{s, t, bufio.NewReader(s.Conn())}
}

// do runs a program and puts the value of its out into to.
func (p *scripted) do(program string, to any) {
	p.t.Helper()
	line, err := json.Marshal(program)
	must(p.t, err)
	_, err = p.Conn().Write(append(line, '\n'))
	must(p.t, err)
	answer, err := p.answers.ReadBytes('\n')
	must(p.t, err)
	if err := json.Unmarshal(answer, to); err != nil {
		p.t.Fatalf("%v: %s", err, answer)
	}
}

func (p *scripted) text(program string) string {
	p.t.Helper()
	var s string
	p.do(program, &s)
	return s
}

// portrait tells all about a process that confinement decides.
const portrait = `
import os, re, resource, signal, socket, sys, time
status = {}
for line in open("/proc/self/status"):
    k, v = line.rstrip("\n").split(":", 1)
    if k not in ("VmPeak", "VmSize", "VmLck", "VmHWM", "VmRSS", "RssAnon", "RssFile", "RssShmem", "VmData", "VmStk", "VmExe", "VmLib", "VmPTE", "FDSize", "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"):
        status[k] = v.split()
kind = lambda fd: re.sub(r"\d+", "N", os.readlink("/proc/self/fd/%s" % fd))
seen = []
for fd in sorted(os.listdir("/proc/self/fd"), key=int):
    try: seen.append([fd, kind(fd)])
    except FileNotFoundError: pass  # the listing's own
mounts = []
for line in open("/proc/self/mountinfo"):
    left, right = line.split(" - ")
    f = left.split()
    mounts.append([f[3].replace("deleted", ""), f[4], f[5], right.split()[0], re.sub(r"size=\w+", "", right.split()[2])])
out = dict(
    status=status,
    spaces={n: os.readlink("/proc/self/ns/" + n).split(":")[0] for n in os.listdir("/proc/self/ns")},
    own={n: os.readlink("/proc/self/ns/" + n) == os.readlink("/proc/1/ns/" + n) for n in ("pid", "mnt", "ipc", "uts")} if os.access("/proc/1/ns/pid", os.R_OK) else None,
    cgroup=open("/proc/self/cgroup").read(),
    limits=open("/proc/self/limits").read(),
    fds=seen, mounts=mounts,
    cwd=os.getcwd(), umask=(os.umask(0o22), os.umask(0o22)), ids=(os.getresuid(), os.getresgid(), os.getgroups()),
    pid=os.getpid(), ppid=os.getppid(), sid=os.getsid(0), pgid=os.getpgrp(), host=socket.gethostname(),
    exe=os.readlink("/proc/self/exe"), comm=open("/proc/self/comm").read(), owner=os.stat("/proc/self/environ").st_uid == os.getuid(),
    oom=open("/proc/self/oom_score_adj").read(), wchan=os.path.exists("/proc/self/wchan"), nice=os.nice(0), sched=os.sched_getscheduler(0),
    affinity=sorted(os.sched_getaffinity(0)), slack=open("/proc/self/timerslack_ns").read(), personality=open("/proc/self/personality").read() if os.access("/proc/self/personality", os.R_OK) else None,
    handlers={int(s): str(signal.getsignal(s)) for s in signal.valid_signals()}, keyring=None, interfaces=socket.if_nameindex(),
    passwd=open("/etc/passwd").read(), hosts=open("/etc/hosts").read(), net=open("/proc/self/net/dev").read().split()[:1],
)
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
out["prctl"] = {n: libc.prctl(n, 0, 0, 0, 0) for n in (3, 7, 21, 27, 30, 39, 42)}  # dumpable, keepcaps, seccomp, securebits, timerslack, no_new_privs, thp
sig = ctypes.c_int(); libc.prctl(2, ctypes.byref(sig), 0, 0, 0); out["pdeathsig"] = sig.value
out = json.loads(json.dumps(out))
`

// A forked process is as confined as an executed one, in every respect the kernel tells of.
func TestForkedIsAsConfinedAsExecuted(t *testing.T) {
	h := startHost(t)
	z, mounts := startPythonZygote(t, h)
	spec := Spec{Hostname: "same", Mounts: mounts, Memory: 256 << 20, CPU: 700, PIDs: 77, Files: 333}
	spec.Args, spec.Env = []string{testPython, "-I", "/brasa/bootstrap.py"}, []string{"LANG=C.UTF-8"}
	executed := startScripted(t, h, spec)
	spec.Zygote = z
	forked := startScripted(t, h, spec)
	var want, got map[string]any
	executed.do(portrait, &want)
	forked.do(portrait, &got)
	uid := func(s *scripted, m map[string]any) string { // differs by design
		text, err := json.MarshalIndent(m, "", " ")
		must(t, err)
		return strings.ReplaceAll(string(text), fmt.Sprint(s.UID()), "UID")
	}
	a, b := strings.Split(uid(executed, want), "\n"), strings.Split(uid(forked, got), "\n")
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			t.Fatalf("line %d differs; executed:\n%s\nforked:\n%s", i, strings.Join(a[max(0, i-5):min(len(a), i+10)], "\n"), strings.Join(b[max(0, i-5):min(len(b), i+10)], "\n"))
		}
	}
	// And the portrait is one of a confined process, not of two free ones.
	status := got["status"].(map[string]any)
	for key, value := range map[string]string{"CapEff": "0000000000000000", "CapPrm": "0000000000000000", "CapInh": "0000000000000000", "CapBnd": "0000000000000000", "CapAmb": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2", "Uid": fmt.Sprint(forked.UID())} {
		if status[key].([]any)[0] != value {
			t.Errorf("%s is %v, want %s", key, status[key], value)
		}
	}
	if len(status["Groups"].([]any)) != 0 || got["pdeathsig"] != 9.0 || len(got["fds"].([]any)) != 5 { // with the bootstrap's copy
		t.Errorf("groups %v, death signal %v, descriptors %v", status["Groups"], got["pdeathsig"], got["fds"])
	}
	// Seen from outside: namespaces of its own, of both, and never the server's or the zygote's.
	for _, ns := range []string{"pid", "mnt", "ipc", "uts", "net", "cgroup"} {
		link := func(pid int) string {
			l, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, ns))
			must(t, err)
			return l
		}
		seen := map[string]string{}
		for who, pid := range map[string]int{"server": os.Getpid(), "zygote": pidOf(z.pidfd), "executed": executed.PID(), "forked": forked.PID(), "spawner": z.spawner.cmd.Process.Pid} {
			if other, ok := seen[link(pid)]; ok && (who == "executed" || who == "forked" || other == "executed" || other == "forked") {
				t.Errorf("%s and %s share the %s namespace", who, other, ns)
			}
			seen[link(pid)] = who
		}
	}
	for _, s := range []*scripted{executed, forked} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", s.PID()))
		must(t, err)
		for _, dir := range s.group.dirs {
			if !strings.Contains(string(text), "/"+h.cfg.Prefix+"/"+filepath.Base(dir)) {
				t.Errorf("process is not in %s: %s", dir, text)
			}
		}
	}
}

// What programs try in order to get out fails in forked ones as well.
func TestForkedCannotEscape(t *testing.T) {
	h := startHost(t)
	z, _ := startPythonZygote(t, h)
	attack := buildStatic(t, attacker)
	run := func(program string) string {
		p := startScripted(t, h, Spec{Zygote: z, Mounts: []Mount{{Source: attack, Target: "/code"}}, Hostname: "box-1"})
		defer p.Close()
		return p.text(program)
	}
	lines := strings.Split(strings.TrimSpace(run(`import subprocess; out = subprocess.run(["/code/main"], stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout`)), "\n")
	if lines[len(lines)-1] != "end" || len(lines) < 60 {
		t.Fatalf("the attacker did not get through its list: %q", lines)
	}
	for _, line := range lines[:len(lines)-1] {
		if strings.HasSuffix(line, " worked") {
			t.Error(line)
		}
	}
	// In the forked process itself, which once had all rights, in its own memory.
	var got map[string]any
	p := startScripted(t, h, Spec{Zygote: z})
	p.do(`
import ctypes, os, glob, sys
libc = ctypes.CDLL(None, use_errno=True)
out = {}
def attempt(name, call):
    try:
        r = call()
        if isinstance(r, int) and r < 0: r = "errno %d" % ctypes.get_errno()
    except Exception as e:
        r = type(e).__name__
    out[name] = str(r)
attempt("setns", lambda: libc.setns(0, 0))
attempt("unshare", lambda: libc.unshare(0x20000))
attempt("mount", lambda: libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, 0))
attempt("sethostname", lambda: libc.sethostname(b"x", 1))
attempt("setuid", lambda: libc.setresuid(0, 0, 0))
attempt("shadow", lambda: open("/etc/shadow").read())
attempt("passwd", lambda: open("/etc/passwd", "w"))
attempt("init", lambda: os.kill(1, 9))
attempt("init's files", lambda: os.listdir("/proc/1/fd"))
attempt("init's root", lambda: os.listdir("/proc/1/root"))
attempt("group", lambda: os.kill(0, 0) or "own")
out["processes"] = sorted(int(p) for p in os.listdir("/proc") if p.isdigit())
out["environ"] = open("/proc/self/environ").read()
for fd in range(4, 64):
    try: os.fstat(fd)
    except OSError: continue
    if fd != 4: out["descriptor %d" % fd] = "open"
zygote = sys.modules["__main__"]
attempt("the zygote's home", lambda: libc.setns(3, 0x20000000))
`, &got)
	for name, value := range got {
		switch name {
		case "processes":
			if fmt.Sprint(value) != "[1 2]" {
				t.Errorf("processes %v are seen", value)
			}
		case "environ":
			if value != "LANG=C.UTF-8\x00" {
				t.Errorf("environment %q", value)
			}
		case "group":
		case "setns", "unshare", "mount", "sethostname", "setuid", "the zygote's home":
			if value != "errno 1" {
				t.Errorf("%s: %v", name, value)
			}
		default:
			if value != "PermissionError" && value != "FileNotFoundError" && value != "OSError" {
				t.Errorf("%s: %v", name, value)
			}
		}
	}
	if got := run(`
import os, glob
there = [f for f in ("/etc/shadow", "/root", "/home", "/boot", "/sys", "/media", "/var/lib", "/run/systemd") if os.path.exists(f)]
import subprocess
out = str(there) + subprocess.run("ls /tmp /dev/shm /run /var; for f in /x /usr/x /etc/x /etc/passwd /code/x /proc/sys/kernel/hostname /proc/self/oom_score_adj; do (echo x >>$f) 2>/dev/null && echo wrote $f; done; cat /proc/keys /proc/cmdline | wc -c; readlink /proc/self/exe", shell=True, capture_output=True, text=True).stdout`); got != "[]/dev/shm:\n\n/run:\nempty\nempty-file\n\n/tmp:\n\n/var:\ntmp\n0\n/usr/bin/readlink\n" {
		t.Errorf("got %q", got)
	}
}

// Python itself works in a child: what a fork by hand could have broken.
func TestForkedPythonWorks(t *testing.T) {
	h := startHost(t)
	z, _ := startPythonZygote(t, h)
	p := startScripted(t, h, Spec{Zygote: z})
	var out []any
	p.do(`
import threading, subprocess, asyncio, multiprocessing, os, time, concurrent.futures, ctypes, gc
out = []
t = threading.Thread(target=lambda: out.append("thread")); t.start(); t.join()
out.append(threading.main_thread() is threading.current_thread() and threading.get_native_id() == os.getpid())
out.append(subprocess.check_output(["echo", "child"], text=True).strip())
async def a():
    await asyncio.sleep(0.001)
    return "async"
out.append(asyncio.run(a()))
with concurrent.futures.ThreadPoolExecutor(4) as e: out.append(sum(e.map(abs, range(-100, 0))))
pid = os.fork()
if pid == 0: os._exit(7)
out.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if hasattr(os, "waitstatus_to_exitcode") else 7)
lock = threading.RLock()
with lock: out.append(lock.acquire(timeout=1))
out.append(ctypes.CDLL(None).syscall(39 if os.uname().machine == "x86_64" else 172) == os.getpid())
out.append(gc.isenabled())
`, &out)
	if got := fmt.Sprint(out); got != "[thread true child async 5050 7 true true true]" {
		t.Errorf("got %s", got)
	}
	// It ends as any program does.
	s := start(t, h, Spec{Zygote: z, Conn: true})
	s.Conn().Write([]byte(`"import os; os._exit(5)"` + "\n"))
	if e := s.Exit(); e.Code != 5 || e.Signal != 0 {
		t.Errorf("exit %+v", e)
	}
	s.Close()
	s = start(t, h, Spec{Zygote: z, Conn: true})
	s.Kill()
	if e := s.Exit(); e.Signal != unix.SIGKILL {
		t.Errorf("exit %+v", e)
	}
	s = start(t, h, Spec{Zygote: z, Conn: true})
	s.Conn().Close() // the bootstrap returns, and Python ends in order
	if e := s.Exit(); e.Code != 0 {
		t.Errorf("exit %+v", e)
	}
}

// A stem is forked without code and adopted.
func TestForkedIsAdopted(t *testing.T) {
	h := startHost(t)
	z, _ := startPythonZygote(t, h)
	p := startScripted(t, h, Spec{Zygote: z, Hostname: "stem"})
	must(t, p.Adopt(context.Background(), Claim{Hostname: "pay", Memory: 200 << 20, Mounts: []Mount{{Source: codeDir(t, "content"), Target: "/code"}}}))
	if got := p.text(`import socket; out = open("/code/file").read() + " " + socket.gethostname()`); got != "content pay" {
		t.Errorf("got %q", got)
	}
}

// With control groups of version 2 a child is cloned into its own.
func TestForkedIntoItsGroup(t *testing.T) {
	h := startHost(t)
	z, _ := startPythonZygote(t, h)
	var at string
	for _, m := range ownCgroups() {
		if m.v2 {
			at = filepath.Join(m.own, h.cfg.Prefix+"-fork")
		}
	}
	if at == "" || os.Mkdir(at, 0o755) != nil {
		t.Skip("no cgroup v2 to write to")
	}
	t.Cleanup(func() { removeGroup(at) })
	into, err := unix.Open(at, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(into)
	net, err := h.nets.take(context.Background())
	must(t, err)
	defer net.close()
	n, err := z.spawner.nests.take(context.Background())
	must(t, err)
	spec, err := Spec{Name: "x", Zygote: z}.complete()
	must(t, err)
	null := int(h.devnull.Fd())
	plan := planSandbox(planInput{spec: spec, uid: h.cfg.UIDBase + h.cfg.UIDCount - 1, netns: net.fd, conn: -1, stdio: [3]int{null, null, null}, filter: h.filter, forked: true,
		group: &cgroup{layout: &cgroupLayout{version: 2}, into: into}})
	if plan.cgroup < 0 {
		t.Fatal("the plan has no group")
	}
	exited, empty := make(chan Exit, 1), make(chan struct{})
	p, g, err := z.fork(context.Background(), n, plan, &life{func(e Exit) { exited <- e }, func() { close(empty) }})
	must(t, err)
	defer p.close()
	// Before it is let go, so that it is there.
	pids, err := readProcesses(filepath.Join(at, "cgroup.procs"))
	if err != nil || len(pids) != 1 || pids[0] != p.hostPID() {
		t.Errorf("processes %v, %v in the group, want %d", pids, err, p.hostPID())
	}
	must(t, g.open(context.Background()))
	p.kill()
	if e := <-exited; e.Code == 0 {
		t.Errorf("exit %+v", e) // it has no descriptor 3, and is killed
	}
	<-empty
}

// Children of one zygote share nothing that is drawn after the fork.
func TestForkedDrawDifferently(t *testing.T) {
	h := startHost(t)
	z, _ := startPythonZygote(t, h)
	if pid := pidOf(z.pidfd); pid == z.spawner.cmd.Process.Pid {
		t.Fatal("the zygote is the spawner")
	}
	seen := map[string]bool{}
	for range 8 {
		p := startScripted(t, h, Spec{Zygote: z})
		got := p.text(`import os, random, uuid, ssl, tempfile; out = " ".join([os.urandom(8).hex(), str(random.random()), str(uuid.uuid4()), ssl.RAND_bytes(8).hex(), next(tempfile._get_candidate_names())])`)
		for word := range strings.FieldsSeq(got) {
			if seen[word] {
				t.Errorf("%s was drawn twice", word)
			}
			seen[word] = true
		}
	}
}

func TestZygoteFailures(t *testing.T) {
	ctx := context.Background()
	h := startHost(t)
	t.Run("no such program", func(t *testing.T) {
		_, err := h.StartZygote(ctx, ZygoteSpec{Name: "none", Args: []string{"/no/such/program"}})
		var failed *StepError
		if !errors.As(err, &failed) || failed.Step != "exec /no/such/program" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("ends at once", func(t *testing.T) {
		if _, err := h.StartZygote(ctx, ZygoteSpec{Name: "true", Args: []string{"/bin/true"}}); !errors.Is(err, errZygoteGone) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("never speaks", func(t *testing.T) {
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		if _, err := h.StartZygote(short, ZygoteSpec{Name: "sleep", Args: []string{"/bin/sleep", "1000"}}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("cannot serve", func(t *testing.T) {
		mounts := pythonMounts(t, "def warm(): raise ImportError('no module named nothing')\n")
		_, err := h.StartZygote(ctx, ZygoteSpec{Name: "python", Args: []string{testPython, "-I", "/brasa/zygote.py"}, Mounts: mounts})
		var no *UnsupportedError
		if !errors.As(err, &no) || !strings.Contains(no.Why, "no module named nothing") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no ctypes", func(t *testing.T) {
		mounts := pythonMounts(t, "")
		script := "import sys; sys.modules['_ctypes'] = None; sys.argv = ['/brasa/zygote.py']; exec(open('/brasa/zygote.py').read())"
		_, err := h.StartZygote(ctx, ZygoteSpec{Name: "python", Args: []string{testPython, "-I", "-c", script}, Mounts: mounts})
		var no *UnsupportedError
		if !errors.As(err, &no) || !strings.Contains(no.Why, "ctypes") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no mount", func(t *testing.T) {
		if _, err := h.StartZygote(ctx, ZygoteSpec{Name: "x", Args: []string{"/bin/true"}, Mounts: []Mount{{Source: "/no/such/file", Target: "/brasa/x"}}}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("another host's", func(t *testing.T) {
		z, _ := startPythonZygote(t, h)
		if _, err := startHost(t).Start(ctx, Spec{Name: "x", Zygote: z}); err == nil {
			t.Error("was forked")
		}
	})
	t.Run("stand-in", func(t *testing.T) {
		_, err := startHost(t, func(c *Config) { c.GoInit = true }).StartZygote(ctx, ZygoteSpec{Name: "x", Args: []string{"/bin/true"}})
		var no *UnsupportedError
		if !errors.As(err, &no) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("step fails in the child", func(t *testing.T) {
		z, _ := startPythonZygote(t, h)
		_, err := h.Start(ctx, Spec{Name: "nowhere", Zygote: z, Dir: "/no/such/dir"})
		var failed *StepError
		if !errors.As(err, &failed) || failed.Step != "enter /no/such/dir" || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v", err)
		}
		start(t, h, Spec{Name: "nowhere", Zygote: z, Conn: true}) // the name is free, the zygote serves
	})
	t.Run("context", func(t *testing.T) {
		z, _ := startPythonZygote(t, h)
		must(t, unix.PidfdSendSignal(z.pidfd, unix.SIGSTOP, nil, 0))
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		if _, err := h.Start(short, Spec{Name: "slow", Zygote: z}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		must(t, unix.PidfdSendSignal(z.pidfd, unix.SIGCONT, nil, 0))
		p := startScripted(t, h, Spec{Name: "slow", Zygote: z})
		if got := p.text("out = 'fine'"); got != "fine" {
			t.Errorf("got %q", got)
		}
	})
}
