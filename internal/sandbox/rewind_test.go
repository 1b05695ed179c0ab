package sandbox

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// needRewind skips where processes cannot be put back.
func needRewind(t testing.TB, h *Host) {
	t.Helper()
	var missing *UnsupportedError
	if err := h.canRewind(); errors.As(err, &missing) {
		t.Skip(missing)
	}
}

// subject is a program that answers lines over its connection: it keeps state, and is put back.
type subject struct {
	*Sandbox
	r *bufio.Reader
}

// ask sends a line and returns the answer.
func (s *subject) ask(t testing.TB, line string) string {
	t.Helper()
	answer, err := s.try(line)
	if err != nil {
		t.Fatalf("%q: %v; the program: %s", line, err, s.fate())
	}
	return answer
}

func (s *subject) try(line string) (string, error) {
	if err := s.Conn().SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(s.Conn(), line+"\n"); err != nil {
		return "", err
	}
	answer, err := s.r.ReadString('\n')
	return strings.TrimSuffix(answer, "\n"), err
}

func (s *subject) fate() string {
	select {
	case <-s.Done():
		return s.Exit().String()
	case <-time.After(time.Second):
		return "it runs"
	}
}

// arm arms a program that has just answered; it is at rest when it reads again.
func (s *subject) arm(t testing.TB) {
	t.Helper()
	if err := s.Arm(context.Background()); err != nil {
		t.Fatalf("Arm: %v", err)
	}
}

func (s *subject) rewind(t testing.TB) Rewound {
	t.Helper()
	r, err := s.Rewind(context.Background())
	if err != nil {
		t.Fatalf("Rewind: %v", err)
	}
	return r
}

func startSubject(t testing.TB, h *Host, args []string, change ...func(*Spec)) *subject {
	t.Helper()
	spec := Spec{Args: args, Env: []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp"}, Conn: true, Memory: 512 << 20, Stderr: os.Stderr}
	for _, c := range change {
		c(&spec)
	}
	s := start(t, h, spec)
	sub := &subject{Sandbox: s, r: bufio.NewReader(s.Conn())}
	if got := sub.ask(t, "hello"); got != "hello" {
		t.Fatalf("the program says %q", got)
	}
	return sub
}

// pythonSubject runs lines of Python. Each is an expression whose value is the answer.
const pythonSubject = `
import sys, os, socket, ctypes, signal, resource, gc, json, threading, time, mmap
libc = ctypes.CDLL("libm.so.6", use_errno=True)
count = 0
kept = []
import random, select
libc.mmap.restype = libc.sbrk.restype = libc.mremap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
libc.mprotect.argtypes = libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.signal.restype = ctypes.c_void_p
libc.sbrk.argtypes = [ctypes.c_long]
libc.getenv.restype = ctypes.c_char_p
def reserve(pages, prot, at=None):
    return libc.mmap(at, pages << 12, prot, 0x22 | 0x4000 | (0x10 if at else 0), -1, 0)
def poke(at, value):
    ctypes.c_uint32.from_address(at).value = value
def peek(at):
    return ctypes.c_uint32.from_address(at).value
def find(test):
    return [int(l.split("-")[0], 16) for l in open("/proc/self/maps") if test(l)]
def text():
    return find(lambda l: "r-xp" in l and "libc" in l)[0] + (1 << 12)
def vdso():
    return find(lambda l: "[vdso]" in l)[0]
def ours():
    return find(lambda l: "r-xp 00000000 00:00 0" in l and "[" not in l)
def note(value):
    # in the pages behind the code that arming has mapped, at places that it may not use
    places = [a + 4096 + at for a in ours() for at in (8, 16000, 16384 + 2000, 16384 + 4088)]
    seen = [peek(p) for p in places]
    for p in places:
        poke(p, value)
    return seen
def map_file():
    f = os.open("/etc/passwd", 0)
    at = libc.mmap(None, 4096, 1, 2, f, 0)
    os.close(f)
    return at
def deep(n):
    return n and deep(n - 1)
def spin():
    while True: pass
def listen():
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    s.listen()
    return s
class Stack(ctypes.Structure):
    _fields_ = [("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
def altstack(at):
    now = Stack()
    libc.sigaltstack(ctypes.byref(Stack(at, 0, 16 << 12)) if at else None, ctypes.byref(now))
    return now.sp, now.flags
def more_filter():
    allow = ctypes.create_string_buffer(bytes([6, 0, 0, 0, 0, 0, 0xff, 0x7f]))
    class Program(ctypes.Structure):
        _fields_ = [("n", ctypes.c_ushort), ("at", ctypes.c_void_p)]
    return libc.prctl(22, 2, ctypes.byref(Program(1, ctypes.addressof(allow))))
def set_rounding(mode):
    return libc.fesetround(mode)
def get_rounding():
    return libc.fegetround()
def hello():
    global count
    count += 1
    return "hello" if count == 1 else "hello %d" % count
def work(line):
    return str(hello() if line == "hello" else eval(line))
def serve():
    conn = socket.socket(fileno=3)
    rest = b""
    while True:
        while b"\n" not in rest:
            data = conn.recv(65536)
            if not data:
                time.sleep(1000)
            rest += data
        line, rest = rest.split(b"\n", 1)
        try:
            answer = work(line.decode())
        except BaseException as e:
            answer = "%s: %s" % (type(e).__name__, e)
        conn.sendall(answer.encode() + b"\n")
serve()
`

func rewindPython(t testing.TB, h *Host, change ...func(*Spec)) *subject {
	t.Helper()
	const python = "/usr/bin/python3"
	if _, err := os.Stat(python); err != nil {
		t.Skipf("needs %s", python)
	}
	return startSubject(t, h, []string{python, "-I", "-S", "-u", "-c", pythonSubject}, change...)
}

// What a call leaves in memory, threads and masks is gone after a rewind: the program answers as
// if the call had not been.
func TestRewindPutsBack(t *testing.T) {
	h := startHost(t)
	needRewind(t, h)
	for _, c := range []struct {
		name   string
		before string // before the snapshot
		call   string // what the call does
		probe  string // asked before and after: the answers are the same
	}{
		{"nothing", "1", "1", "hello()"},
		{"globals", "1", "kept.append(1)", "len(kept), hello()"},
		{"environment", "1", "os.environ.update(SECRET='1')", "os.environ.get('SECRET'), libc.getenv(b'SECRET')"},
		{"modules", "1", "__import__('decimal')", "'decimal' in sys.modules"},
		{"monkey patch", "1", "setattr(json, 'dumps', lambda x: 'pwned')", "json.dumps(1)"},
		{"a big heap", "1", "kept.extend(bytearray(100) for i in range(20000))", "len(kept)"},
		{"a mapping of 8 MB", "1", "kept.append(b'x' * (8 << 20))", "len(kept), open('/proc/self/maps').read().count('\\n')"},
		{"an end of the heap", "1", "libc.sbrk(1 << 20)", "libc.sbrk(0)"},
		{"memory that is freed", "kept.append(b'x' * (8 << 20))", "kept.clear()", "len(kept), kept[0].count(b'x')"},
		{"memory that is unmapped", "kept.append(reserve(8, 3)) or poke(kept[0], 7)", "libc.munmap(kept[0], 8 << 12)", "peek(kept[0])"},
		{"memory that is mapped anew", "kept.append(reserve(8, 3)) or poke(kept[0], 7)", "libc.munmap(kept[0], 8 << 12), reserve(8, 3, kept[0])", "peek(kept[0])"},
		{"memory that is moved", "kept.append(reserve(8, 3)) or poke(kept[0], 7)", "libc.mremap(kept[0], 8 << 12, 16 << 12, 1)", "peek(kept[0])"},
		{"memory that is discarded", "kept.append(reserve(8, 3)) or poke(kept[0], 7)", "libc.madvise(kept[0], 8 << 12, 4)", "peek(kept[0])"},
		{"zeros that are written", "kept.append(reserve(8, 3)) or peek(kept[0])", "poke(kept[0], 7)", "peek(kept[0])"},
		{"a written reservation", "kept.append(reserve(8, 0))", "libc.mprotect(kept[0], 8 << 12, 3), poke(kept[0], 7), libc.mprotect(kept[0], 8 << 12, 0)", "libc.mprotect(kept[0], 8 << 12, 3), peek(kept[0])"},
		{"permissions", "kept.append(reserve(8, 3)) or poke(kept[0], 7)", "libc.mprotect(kept[0] + 4096, 4096, 0)", "peek(kept[0]), peek(kept[0] + 4096)"},
		{"read-only memory that is written", "kept.append(reserve(8, 3)) or poke(kept[0], 7) or libc.mprotect(kept[0], 8 << 12, 1)", "libc.mprotect(kept[0], 8 << 12, 3), poke(kept[0], 8), libc.mprotect(kept[0], 8 << 12, 1)", "peek(kept[0])"},
		{"code that is written", "kept.append(text())", "libc.mprotect(kept[0], 4096, 7), poke(kept[0] + 64, 0x6261), libc.mprotect(kept[0], 4096, 5)", "peek(kept[0] + 64)"},
		{"code that is left writable", "kept.append(text())", "libc.mprotect(kept[0], 4096, 7), poke(kept[0] + 64, 0x6261)", "peek(kept[0] + 64)"},
		{"the kernel's code that is written", "kept.append(vdso())", "libc.mprotect(kept[0], 4096, 7) and cannot(), poke(kept[0] + 64, 0x6261), libc.mprotect(kept[0], 4096, 5)", "peek(kept[0] + 64)"},
		{"deep recursion", "sys.setrecursionlimit(100000)", "deep(20000)", "hello()"},
		{"garbage", "1", "gc.collect()", "hello(), gc.get_count()"},
		{"a thread", "1", "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()", "threading.active_count(), len(os.listdir('/proc/self/task'))"},
		{"a busy thread", "1", "threading.Thread(target=spin, daemon=True).start()", "threading.active_count(), hello()"},
		{"twenty threads", "1", "[threading.Thread(target=time.sleep, args=(1000,), daemon=True).start() for i in range(20)]", "len(os.listdir('/proc/self/task'))"},
		{"the signal mask", "1", "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])", "signal.pthread_sigmask(signal.SIG_BLOCK, [])"},
		{"memory that will be locked", "1", "libc.mlockall(2)", "kept.append(reserve(1, 3)) or [l for l in open('/proc/self/status') if 'VmLck' in l]"},
		{"a closed pair of pipes", "1", "[os.close(f) for f in os.pipe()]", "hello()"},
		{"a temporary file", "1", "os.unlink(open('/tmp/x', 'w').name)", "os.listdir('/tmp')"},
		{"a child that was waited for", "1", "os.waitpid(os.fork() or os._exit(3), 0)", "hello()"},
		{"a count of an eventfd", "kept.append(os.eventfd(0, os.EFD_NONBLOCK))", "os.eventfd_write(kept[0], 5)", "select.select([kept[0]], [], [], 0)[0]"},
		{"what lies in a pipe of its own", "kept.extend(os.pipe())", "os.write(kept[1], b'secret')", "select.select([kept[0]], [], [], 0)[0]"},
		{"what lies in a socket of its own", "kept.extend(socket.socketpair())", "kept[1].send(b'secret')", "select.select([kept[0]], [], [], 0)[0]"},
		{"a handler", "1", "signal.signal(signal.SIGUSR1, lambda *a: 0)", "signal.getsignal(signal.SIGUSR1), libc.signal(10, 0)"},
		{"another handler", "libc.signal(10, libc.abs)", "libc.signal(10, libc.labs)", "libc.signal(10, libc.abs)"},
		{"an ignored signal", "1", "signal.signal(signal.SIGUSR1, signal.SIG_IGN)", "libc.signal(10, 0)"},
		{"a trap that is ignored", "1", "signal.signal(signal.SIGTRAP, signal.SIG_IGN)", "libc.signal(5, 0)"},
		{"a trap that is blocked", "1", "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTRAP])", "signal.pthread_sigmask(signal.SIG_BLOCK, [])"},
		{"the signal stack", "1", "altstack(reserve(16, 3))", "altstack(0)"},
		{"umask", "1", "os.umask(0)", "os.umask(0o22)"},
		{"the directory", "1", "os.chdir('/usr/lib')", "os.getcwd()"},
		{"a note in our memory", "1", "note(7)", "note(0)"},
		{"floating point", "1", "set_rounding(0xc00)", "1 / 3 + 1e-17, get_rounding()"},
		{"random numbers", "random.seed(1)", "random.random()", "random.random()"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := rewindPython(t, h)
			s.ask(t, c.before)
			s.arm(t)
			want := s.ask(t, c.probe)
			s.rewind(t)
			for range 5 {
				if got := s.ask(t, c.call); strings.Contains(got, "NameError: ") {
					t.Skip("this kernel does not allow it")
				} else if strings.Contains(got, "Error: ") {
					t.Fatalf("the call: %s", got)
				}
				s.rewind(t)
				if got := s.ask(t, c.probe); got != want {
					t.Fatalf("got %q, want %q", got, want)
				}
				s.rewind(t)
			}
		})
	}
}

// What changes in the kernel is not repaired: it is noticed, and the program is killed.
func TestRewindNoticesChanges(t *testing.T) {
	h := startHost(t)
	needRewind(t, h)
	for _, c := range []struct{ name, before, call, want string }{
		{"an open file", "1", "kept.append(os.open('/dev/null', 0))", "the number of open files"},
		{"a closed file", "1", "os.close(1)", "the number of open files"},
		{"another file", "1", "os.dup2(os.open('/etc/passwd', 0), 1), os.close(max(map(int, os.listdir('/proc/self/fd'))) - 1)", "open files"},
		{"a file's position", "kept.append(os.open('/etc/passwd', 0))", "os.read(kept[0], 10)", "open files: descriptor"},
		{"a file's flags", "1", "__import__('fcntl').fcntl(3, 4, os.O_APPEND | os.O_RDWR)", "open files: descriptor 3"},
		{"a file lock", "kept.append(os.open('/etc/passwd', 0))", "__import__('fcntl').flock(kept[0], 1)", "open files: descriptor"},
		{"an epoll set", "kept.extend([select.epoll(), os.eventfd(0)])", "kept[0].register(kept[1])", "open files: descriptor"},
		{"a socket that listens", "1", "kept.append(listen())", "the number of open files"},
		{"an option of the connection", "1", "libc.setsockopt(3, 1, 20, (ctypes.c_long * 2)(5, 0), 16)", "options of descriptor 3"},
		{"the end of the connection", "1", "libc.shutdown(3, 0)", "descriptor 3 was shut down"},
		{"a limit", "1", "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))", "resource limits"},
		{"a pending signal", "1", "signal.pthread_sigmask(signal.SIG_BLOCK, [10]), os.kill(os.getpid(), 10)", "a signal is pending"},
		{"an interval timer", "1", "signal.setitimer(signal.ITIMER_VIRTUAL, 1000)", "an interval timer"},
		{"an alarm", "1", "signal.alarm(1000)", "an interval timer"},
		{"a timer", "1", "libc.timer_create(0, None, ctypes.byref(ctypes.c_void_p()))", "timers"},
		{"a child", "1", "os.fork() or time.sleep(1000)", "child processes"},
		{"an orphan", "1", "os.fork() or (os.fork() and os._exit(0) or time.sleep(1000)), os.wait()", "child processes"},
		{"a zombie", "1", "os.fork() or os._exit(0), time.sleep(0.01)", "child processes"},
		{"the nice value", "1", "os.nice(1)", "the scheduling of a thread"},
		{"the scheduler", "1", "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))", "the scheduling of a thread"},
		{"affinity", "1", "os.sched_setaffinity(0, {0})", "the CPU affinity of a thread"},
		{"I/O priority", "1", "libc.syscall(251, 1, 0, 3 << 13)", "the I/O priority of a thread"},
		{"the name", "1", "libc.prctl(15, b'evil')", "the name of a thread"},
		{"the death signal", "1", "libc.prctl(1, 0)", "prctl settings"},
		{"dumpable", "1", "libc.prctl(4, 0)", "prctl settings"},
		{"the keeper of orphans", "1", "libc.prctl(36, 1)", "prctl settings"},
		{"timer slack", "1", "libc.prctl(29, 123456)", "prctl settings"},
		{"a filter", "1", "more_filter()", "seccomp filters"},
		{"the session", "1", "os.setsid()", "the process group"},
		{"a file", "1", "open('/tmp/x', 'w').close()", "files in /tmp"},
		{"shared memory's file", "1", "open('/dev/shm/x', 'w').close()", "files in /dev/shm"},
		{"a shared segment", "1", "libc.shmget(1, 4096, 0o1600)", "System V"},
		{"semaphores", "1", "libc.semget(1, 1, 0o1600)", "System V"},
		{"a queue", "1", "libc.msgget(1, 0o1600)", "System V"},
		{"a POSIX queue", "1", "libc.close(libc.mq_open(b'/q', 0o102, 0o600, None))", "message queues"},
		{"shared memory", "1", "kept.append(mmap.mmap(-1, 4096))", "shared memory"},
		{"asynchronous I/O", "1", "libc.syscall(206, 4, ctypes.byref(ctypes.c_long()))", "shared memory"},
		{"the robust list", "1", "libc.syscall(273, 0x1000, 24)", "the robust list of a thread"},
		{"a mapping of a file", "kept.append(map_file())", "libc.munmap(kept[0], 4096)", "a mapping of a file is gone"},
		{"our memory", "1", "[libc.munmap(a, 4096) for a in ours()]", ""},
		{"a note behind our code", "1", "[libc.mprotect(a, 4096, 7) or poke(a + 4000, 1) or libc.mprotect(a, 4096, 5) for a in ours()]", "memory of ours"},
		{"our code", "1", "[libc.mprotect(a, 4096, 7) or poke(a, 0) for a in ours()]", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := rewindPython(t, h)
			s.ask(t, c.before)
			s.arm(t)
			for range 3 {
				s.ask(t, "1")
				s.rewind(t)
			}
			if got := s.ask(t, c.call); strings.Contains(got, "Error: ") || got == "-1" {
				t.Skipf("cannot be had here: %s", got)
			}
			_, err := s.Rewind(context.Background())
			var changed *ChangedError
			if !errors.As(err, &changed) {
				t.Fatalf("got %v, want a ChangedError", err)
			}
			if !strings.Contains(changed.What, c.want) {
				t.Errorf("got %q, want %q", changed.What, c.want)
			}
			select {
			case <-s.Done():
			case <-time.After(patience):
				t.Error("the program goes on")
			}
		})
	}
}

// What could not be put back is not armed, and the program goes on as it was.
func TestArmRefuses(t *testing.T) {
	h := startHost(t)
	needRewind(t, h)
	for _, c := range []struct{ name, before, want string }{
		{"a child", "os.fork() or time.sleep(1000)", "child processes"},
		{"a file", "open('/tmp/x', 'w').close()", "files in /tmp"},
		{"a file in /dev/shm", "open('/dev/shm/x', 'w').close()", "files in /dev/shm"},
		{"a file that is written", "kept.append(open('/tmp/x', 'w')) or os.unlink('/tmp/x')", "open for writing"},
		{"a listener", "kept.append(listen())", "network connection"},
		{"inotify", "kept.append(libc.inotify_init())", "inotify"},
		{"a timer", "signal.alarm(1000)", "interval timer"},
		{"a POSIX timer", "libc.timer_create(0, None, ctypes.byref(ctypes.c_void_p()))", "timers"},
		{"shared memory", "kept.append(mmap.mmap(-1, 4096))", "shared memory"},
		{"a shared segment", "libc.shmget(1, 4096, 0o1600)", "System V"},
		{"a POSIX queue", "libc.close(libc.mq_open(b'/q', 0o102, 0o600, None))", "message queues"},
		{"locked memory", "libc.mlock(kept.append(reserve(1, 3)) or kept[0], 4096)", "locked memory"},
		{"a busy thread", "threading.Thread(target=spin, daemon=True).start()", "a thread is running"},
		{"a changed vdso", "libc.mprotect(vdso(), 4096, 7) and cannot(), poke(vdso() + 64, 1)", "the kernel's pages"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := rewindPython(t, h)
			if got := s.ask(t, c.before); strings.Contains(got, "Error: ") || got == "-1" {
				t.Skipf("cannot be had here: %s", got)
			}
			for range 2 {
				err := s.Arm(context.Background())
				var not *NotRewindableError
				if !errors.As(err, &not) || !strings.Contains(not.Why, c.want) {
					t.Fatalf("got %v, want a NotRewindableError with %q", err, c.want)
				}
			}
			if got := s.ask(t, "hello()"); got != "hello 2" {
				t.Errorf("afterwards it says %q", got)
			}
			if got := s.ask(t, "sum('rwxp' in l or 'r-xp 00000000 00:00' in l for l in open('/proc/self/maps'))"); got != "1" {
				t.Errorf("%s mappings of the kernel's or ours are left, want the vdso alone", got)
			}
		})
	}
}
