"""A function that says what it finds of calls before it, and leaves what it is told to."""
import asyncio, atexit, builtins, codecs, contextvars, copy, ctypes, decimal, fcntl, gc, io, json, locale, logging, os, queue, random
import re, resource, select, signal, socket, struct, subprocess, sys, tempfile, threading, time, warnings, mmap

# MARK
libc = ctypes.CDLL(None, use_errno=True)
libc.malloc.restype = libc.mmap.restype = libc.getenv.restype = ctypes.c_void_p
libc.getenv.restype = ctypes.c_char_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.shmat.restype = ctypes.c_void_p
libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]

kept = []
at_load = locale.setlocale(locale.LC_ALL)
context = contextvars.ContextVar("left", default=0)
local = threading.local()


class Class:
    attribute = 0


def default(value=[]):
    return value


def must(n):
    if n == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return n


def maps():
    return open("/proc/self/maps").read().splitlines()


def kinds():
    out = []
    for n in sorted(os.listdir("/proc/self/fd"), key=int):
        try:
            out.append(n + " " + re.sub(r"\d+", "", os.readlink("/proc/self/fd/" + n)))
        except OSError:
            pass  # that of the list itself
    return out


def flags(fd):
    return [fcntl.fcntl(fd, fcntl.F_GETFL), fcntl.fcntl(fd, fcntl.F_GETFD), fcntl.fcntl(fd, fcntl.F_GETOWN), fcntl.fcntl(fd, 11)]


def option(n, size=8):
    s = socket.socket(fileno=os.dup(3))
    try:
        return list(s.getsockopt(socket.SOL_SOCKET, n, size))
    except OSError as e:
        return str(e)
    finally:
        s.close()


def set_option(n, value):
    s = socket.socket(fileno=os.dup(3))
    try:
        s.setsockopt(socket.SOL_SOCKET, n, value)
    finally:
        s.close()


def name_of(fd):
    s = socket.socket(fileno=os.dup(fd))
    try:
        return repr(s.getsockname())
    finally:
        s.close()


def bind_conn():
    s = socket.socket(fileno=os.dup(3))
    try:
        s.bind("\0left")
    finally:
        s.close()


class Filter(ctypes.Structure):
    _fields_ = [("n", ctypes.c_ushort), ("at", ctypes.c_void_p)]


def allow_all():
    code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000), 8)
    kept.append(code)
    return Filter(1, ctypes.addressof(code))


def listener(family, address):
    s = socket.socket(family)
    s.bind(address)
    s.listen()
    return s


def connection():
    """A connection that is over leaves its end in TIME_WAIT, behind every descriptor."""
    with listener(socket.AF_INET, ("127.0.0.1", 0)) as s:
        a = socket.create_connection(s.getsockname())
        b = s.accept()[0]
        a.close()
        b.close()


def reserve(size=4096, prot=3, flags=0x22):
    return must(libc.mmap(None, size, prot, flags, -1, 0))


def landlock():
    made = must(libc.syscall(444, ctypes.byref(ctypes.c_uint64(1 << 14)), 8, 0))  # LANDLOCK_ACCESS_FS_TRUNCATE
    try:
        must(libc.syscall(446, made, 0))
    finally:
        os.close(made)


def landlocked():
    fd = os.open("/tmp/probe", os.O_CREAT | os.O_RDWR, 0o600)
    os.write(fd, b"x")
    os.close(fd)
    try:
        os.truncate("/tmp/probe", 0)
        return False
    except OSError:
        return True
    finally:
        os.unlink("/tmp/probe")


def dispatch():
    """Calls of the kernel outside of all memory are to be sent to a handler; none is made there while the selector allows all."""
    selector = reserve()
    must(libc.prctl(59, 1, ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_void_p(selector)))


def dispatched():
    # Setting it anew tells nothing, so what is told is whether the tracer's view, in /proc, has it.
    return "syscall_user_dispatch" in open("/proc/self/status").read()


def timer():
    must(libc.syscall(222, 0, None, ctypes.byref(ctypes.c_int())))


def orphan():
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
    os.wait()


def sleeper():
    if os.fork() == 0:
        time.sleep(600)
        os._exit(0)


def writer():
    """A thread that writes when nobody expects it: to the log's pipes and by print."""
    line = b"LEFT-RAW %d\n" % os.getpid()

    def work():
        while True:
            os.write(1, line)
            print("LEFT-PRINTED")
            time.sleep(0.0002)

    threading.Thread(target=work, daemon=True).start()


def loop():
    made = asyncio.new_event_loop()
    asyncio.set_event_loop(made)
    kept.append(made)


def segment():
    n = must(libc.shmget(7, 4096, 0o1600))
    at = libc.shmat(n, None, 0)
    ctypes.memmove(at, b"left", 4)


def fill(note):
    """Fills much memory of all sizes with the mark and frees it."""
    data = note.encode()
    for size in (32, 64, 200, 512, 4000, 70_000, 300_000):
        b = (data * (size // len(data) + 1))[: max(size, len(data))]
        objects = [bytearray(b) for _ in range(min(200, 2_000_000 // size))]
        blocks = [libc.malloc(size) for _ in range(20)]
        for at in blocks:
            ctypes.memmove(at, b, min(size, len(b)))
        for at in blocks:
            libc.free(at)
        del objects


def fresh():
    """Marks in memory that was just allocated and never written to."""
    found = set()
    for size in (64, 200, 512, 4000, 70_000, 300_000, 3_000_000):
        blocks = [libc.malloc(size) for _ in range(20 if size < 1_000_000 else 2)]
        for at in blocks:
            found.update(search(ctypes.string_at(at, size)))
        for at in blocks:
            libc.free(at)
    return found


def search(data):
    # The pattern does not match itself.
    return {m.decode() for m in re.findall(rb"[L]EAK~MARK~([0-9a-f]{16})", data)}


def memory():
    """Marks in all memory of the process."""
    found = fresh()
    for line in maps():
        where, prot, *_ = line.split()
        if prot[0] != "r" or line.endswith("[vvar]") or line.endswith("[vsyscall]") or "vvar" in line:
            continue
        low, high = (int(x, 16) for x in where.split("-"))
        if "w" not in prot and " 00:00 0" not in line:
            continue  # a file's own
        try:
            with open("/proc/self/mem", "rb", 0) as f:
                while low < high:
                    f.seek(low)
                    data = f.read(min(high - low, 1 << 22))
                    if not data:
                        break
                    found |= search(data)
                    low += len(data)
        except OSError:
            found |= search(ctypes.string_at(low, high - low)) if high - low < 1 << 28 else set()
    return sorted(found)


def lines(path):
    try:
        with open(path) as f:
            return len(f.readlines())
    except OSError as e:
        return str(e)


def status():
    names = ("Umask", "Groups", "NoNewPrivs", "Seccomp", "Seccomp_filters", "SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd", "CapInh", "CapPrm",
             "CapEff", "CapBnd", "CapAmb", "Threads", "Cpus_allowed", "Mems_allowed", "VmLck", "VmPin", "THP_enabled", "untag_mask", "CoreDumping", "SpeculationIndirectBranch", "Speculation_Store_Bypass")
    return [l.split() for l in open("/proc/self/status") if l.split(":")[0] in names]


def seen_by(stat):
    f = open(stat).read().rsplit(")", 1)[1].split()
    return f[2:4]  # process group and session


def text():
    return next(int(l.split("-")[0], 16) for l in maps() if "r-xp" in l and "libc" in l) + 4096


at_text = text()
text_at_load = hash(ctypes.string_at(at_text, 4096))

LOOK = {
    "code that is written": lambda: hash(ctypes.string_at(at_text, 4096)) == text_at_load,
    "a global": lambda: len(kept),
    "a class attribute": lambda: Class.attribute,
    "a default argument": lambda: len(default()),
    "a builtin": lambda: getattr(builtins, "left", 0),
    "a function of the library": lambda: json.dumps.__name__ + str(getattr(json, "left", 0)),
    "an entry of sys.modules": lambda: sorted(m for m in sys.modules if m.startswith("left_by")),
    "an import": lambda: "wave" in sys.modules,
    "an import hook": lambda: len(sys.meta_path),
    "sys.path": lambda: sys.path,
    "the environment": lambda: sorted(os.environ),
    "the environment of C": lambda: libc.getenv(b"LEFT_IN_C") is not None,
    "a warning filter": lambda: len(warnings.filters),
    "logging": lambda: [logging.root.level, len(logging.root.handlers)],
    "the locale": lambda: locale.setlocale(locale.LC_ALL) == at_load,
    "the decimal context": lambda: decimal.getcontext().prec,
    "the recursion limit": lambda: sys.getrecursionlimit(),
    "a trace function": lambda: [sys.gettrace() is None, sys.getprofile() is None, threading._profile_hook is None],
    "an except hook": lambda: sys.excepthook is sys.__excepthook__,
    "standard output": lambda: type(sys.stdout).__name__,
    "an atexit hook": lambda: atexit._ncallbacks(),
    "a codec": lambda: known("left-codec"),
    "a context variable": lambda: context.get(),
    "a thread local": lambda: getattr(local, "left", 0),
    "the collector": lambda: [gc.isenabled(), len(gc.callbacks)],
    "a thread": lambda: [threading.active_count(), len(os.listdir("/proc/self/task"))],
    "a signal handler": lambda: [str(signal.getsignal(s)) for s in (signal.SIGUSR1, signal.SIGALRM, signal.SIGCHLD)],
    "the signal mask": lambda: len(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "umask": lambda: [l.split() for l in open("/proc/self/status") if l.startswith("Umask")],
    "memory that is locked": lambda: [l.split() for l in open("/proc/self/status") if l.startswith("VmLck")],
    "shared memory": lambda: sum(l.split()[1][3] == "s" for l in maps()),
    "files in /tmp": lambda: [sorted(os.listdir("/tmp")), os.stat("/tmp").st_mode, os.stat("/tmp").st_uid, os.listxattr("/tmp")],
    "files in /dev/shm": lambda: sorted(os.listdir("/dev/shm")),
    "open files": kinds,
    "flags of open files": lambda: [flags(n) for n in range(4)],
    "the size of a pipe": lambda: [fcntl.fcntl(n, 1032) for n in (1, 2)],
    "options of the connection": lambda: [option(n) for n in (2, 6, 9, 10, 12, 16, 18, 29, 34, 37, 40, 41, 43, 45, 46, 47, 69, 70, 75, 76, 82, 83)],
    "a filter of the connection": lambda: option(26, 8),
    "the connection's name": lambda: name_of(3),
    "names of sockets": lambda: lines("/proc/self/net/unix"),
    "connections": lambda: [lines("/proc/self/net/tcp"), lines("/proc/self/net/udp")],
    "children": lambda: [len([p for p in os.listdir("/proc") if p.isdigit()])],
    "the directory": os.getcwd,
    "limits": lambda: [resource.getrlimit(n) for n in range(16)],
    "the nice value": lambda: [os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)],
    "affinity": lambda: sorted(os.sched_getaffinity(0)),
    "I/O priority": lambda: libc.syscall(252, 1, 0),
    "timers": lambda: [signal.getitimer(n) for n in range(3)] + [lines("/proc/self/timers")],
    "the process's name": lambda: open("/proc/self/comm").read(),
    "prctl": lambda: [libc.prctl(n, 0, 0, 0, 0) for n in (3, 27, 30, 39, 42)] + [libc.prctl(52, n, 0, 0, 0) for n in range(3)],
    "the session": lambda: seen_by("/proc/self/stat"),
    "objects of System V": lambda: [lines("/proc/sysvipc/" + n) for n in ("shm", "sem", "msg")],
    "a message queue": lambda: open_queue(),
    "pending signals": lambda: len(signal.sigpending()),
    "what the kernel says": status,
    "a landlock": landlocked,
    "the host's name": lambda: os.uname().nodename,
    "the code": lambda: sorted(n for n in os.listdir("/code") if n != "__pycache__"),
    "mounts": lambda: sorted(l.split()[4] for l in open("/proc/self/mountinfo")),
    "private settings of /proc": lambda: [open("/proc/self/" + n).read() for n in ("oom_score_adj", "coredump_filter", "cmdline")],
}


def known(codec):
    try:
        return codecs.lookup(codec).name
    except LookupError:
        return ""


def open_queue():
    q = libc.mq_open(b"/left", 0, 0, None)
    if q != -1:
        os.close(q)
    return q != -1


LEAVE = {
    "a global": lambda n: kept.append(n),
    "a class attribute": lambda n: setattr(Class, "attribute", n),
    "a default argument": lambda n: default().append(n),
    "a builtin": lambda n: setattr(builtins, "left", n),
    "a function of the library": lambda n: [setattr(json, "left", n), setattr(json, "dumps", search)],
    "an entry of sys.modules": lambda n: sys.modules.update(left_by_another=os),
    "an import": lambda n: __import__("wave"),
    "an import hook": lambda n: sys.meta_path.append(type(sys)("left")),
    "sys.path": lambda n: sys.path.insert(0, "/tmp/left"),
    "the environment": lambda n: os.environ.update(LEFT=n),
    "the environment of C": lambda n: libc.setenv(b"LEFT_IN_C", n.encode(), 1),
    "a warning filter": lambda n: warnings.simplefilter("error"),
    "logging": lambda n: [logging.root.setLevel(1), logging.root.addHandler(logging.NullHandler())],
    "the locale": lambda n: locale.setlocale(locale.LC_ALL, "C" if at_load != "C" else "C.UTF-8"),
    "the decimal context": lambda n: setattr(decimal.getcontext(), "prec", 5),
    "the recursion limit": lambda n: sys.setrecursionlimit(5000),
    "a trace function": lambda n: threading.setprofile(len),
    "an except hook": lambda n: setattr(sys, "excepthook", len),
    "standard output": lambda n: setattr(sys, "stdout", io.StringIO()),
    "an atexit hook": lambda n: atexit.register(len, n),
    "a codec": lambda n: codecs.register(lambda name: codecs.lookup("utf-8") if name in ("left_codec", "left-codec") else None),
    "a context variable": lambda n: context.set(n),
    "a thread local": lambda n: setattr(local, "left", n),
    "the collector": lambda n: [gc.disable(), gc.callbacks.append(lambda *a: None)],
    "a thread": lambda n: threading.Thread(target=time.sleep, args=(600,), daemon=True).start(),
    "a timer of the library": lambda n: threading.Timer(0.001, setattr, (builtins, "left", n)).start(),
    "a thread that writes": lambda n: writer(),
    "a signal handler": lambda n: signal.signal(signal.SIGUSR1, lambda *a: None),
    "a signal that is ignored": lambda n: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
    "the signal mask": lambda n: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]),
    "umask": lambda n: os.umask(0o077),
    "memory that is locked": lambda n: must(libc.mlock(reserve(), 4096)),
    "memory that would be locked": lambda n: libc.mlockall(2),
    "memory that is freed": fill,
    "a mapping": lambda n: ctypes.memmove(reserve(1 << 20), n.encode(), len(n)),
    "code that is written": lambda n: patch(),
    "the directory": lambda n: os.chdir("/tmp"),
    "a temporary file that is gone": lambda n: tempfile.NamedTemporaryFile().close(),
    "a child that has ended": lambda n: subprocess.run(["/bin/true"], check=True),
    "shared memory": lambda n: reserve(flags=0x21),
    "a memfd that is mapped": lambda n: memfd(n),
    "a file in /tmp": lambda n: open("/tmp/left", "w").write(n),
    "a directory in /tmp": lambda n: os.mkdir("/tmp/left"),
    "a link in /tmp": lambda n: os.symlink(n, "/tmp/left"),
    "a file in /dev/shm": lambda n: open("/dev/shm/left", "w").write(n),
    "an open file": lambda n: os.open("/etc/passwd", 0),
    "another file as standard input": lambda n: other_input(),
    "a file that was removed": lambda n: kept.append(tempfile.TemporaryFile()),
    "a pipe": lambda n: os.write(os.pipe()[1], n.encode()),
    "a memfd": lambda n: os.write(os.memfd_create("left", 0), n.encode()),
    "a listener": lambda n: kept.append(listener(socket.AF_INET, ("127.0.0.1", 0))),
    "an abstract socket": lambda n: kept.append(listener(socket.AF_UNIX, "\0left")),
    "a datagram socket": lambda n: kept.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
    "a connection that is over": lambda n: connection(),
    "an epoll set": lambda n: kept.append(select.epoll()),
    "an event loop": lambda n: loop(),
    "flags of standard output": lambda n: fcntl.fcntl(1, fcntl.F_SETFL, fcntl.fcntl(1, fcntl.F_GETFL) | os.O_NONBLOCK),
    "an owner of standard output": lambda n: fcntl.fcntl(1, fcntl.F_SETOWN, os.getpid()),
    "a signal of standard output": lambda n: fcntl.fcntl(1, 10, int(signal.SIGWINCH)),
    "an owner of the connection": lambda n: fcntl.fcntl(3, fcntl.F_SETOWN, os.getpid()),
    "the size of a pipe": lambda n: fcntl.fcntl(1, 1031, 4096 * 4),
    "an option of the connection": lambda n: set_option(47, struct.pack("Q", 123456789)),
    "a flag of the connection": lambda n: set_option(2, 1),
    "a timestamp of the connection": lambda n: set_option(29, 1),
    "a filter of the connection": lambda n: set_option(26, bytes(allow_all())),
    "the connection's name": lambda n: bind_conn(),
    "a child": lambda n: sleeper(),
    "an orphan": lambda n: orphan(),
    "a zombie": lambda n: [os.fork() or os._exit(0), time.sleep(0.02)],
    "a limit": lambda n: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128)),
    "the nice value": lambda n: os.nice(1),
    "the scheduler": lambda n: os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)),
    "affinity": lambda n: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    "I/O priority": lambda n: must(libc.syscall(251, 1, 0, 3 << 13)),
    "an interval timer": lambda n: signal.setitimer(signal.ITIMER_VIRTUAL, 1000),
    "an alarm": lambda n: signal.alarm(1000),
    "a timer": lambda n: timer(),
    "the process's name": lambda n: must(libc.prctl(15, b"left")),
    "timer slack": lambda n: must(libc.prctl(29, 123456)),
    "dumpable": lambda n: must(libc.prctl(4, 0)),
    "the session": lambda n: os.setsid(),
    "a segment of System V": lambda n: segment(),
    "semaphores of System V": lambda n: must(libc.semget(7, 1, 0o1600)),
    "a queue of System V": lambda n: must(libc.msgget(7, 0o1600)),
    "a message queue": lambda n: os.close(must(libc.mq_open(b"/left", 0o102, 0o600, None))),
    "a pending signal": lambda n: [signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]), os.kill(os.getpid(), signal.SIGUSR1)],
    "a system call filter": lambda n: must(libc.prctl(22, 2, ctypes.byref(allow_all()))),
    "a landlock": lambda n: landlock(),
    "dispatch of system calls": lambda n: dispatch(),
    "sealed memory": lambda n: must(libc.syscall(462, ctypes.c_void_p(reserve()), ctypes.c_ulong(4096), 0)),
}


def patch():
    """Writes into the code of the C library."""
    must(libc.mprotect(at_text, 4096, 7))
    ctypes.memmove(at_text, b"left", 4)
    must(libc.mprotect(at_text, 4096, 5))


def memfd(note):
    fd = os.memfd_create("left", 0)
    os.ftruncate(fd, 4096)
    kept.append(mmap.mmap(fd, 4096))
    os.close(fd)


def other_input():
    fd = os.open("/etc/passwd", 0)
    os.dup2(fd, 0)
    os.close(fd)


def main(args):
    if args.get("names"):
        return {"look": sorted(LOOK), "leave": sorted(LEAVE)}
    found = copy.deepcopy({name: look() for name, look in LOOK.items() if args.get("only", name) == name})
    marks = memory() if args.get("memory") else []
    failed = ""
    if args.get("leave"):
        try:
            LEAVE[args["leave"]](args["note"])
        except Exception as e:
            failed = "%s: %s" % (type(e).__name__, e)
    return {"found": found, "marks": marks, "failed": failed}
