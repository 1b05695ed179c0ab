"""The zygote for Python 3.8 and newer: functions' processes are forked from it.

It is a trusted process with the rights that making a sandbox takes, and it runs nothing of any
function. It imports what functions share (bootstrap.warm), then reads requests from descriptor 3:
each is a list of steps in the form of internal/sandbox/spawner/wire.h, with descriptors, that
confine one process. It forks a child that does the steps, gives up all rights by them, waits until
it is let go and turns into the bootstrap (bootstrap.stem).

The fork is the bare system call, because the child must become a sibling (CLONE_PARENT: the
spawner minds it as it does all programs), in the pid namespace of its sandbox. What C's fork does
besides is done here: Python's own hooks are called, and the kernel is told where the thread's id
lies. There is one thread, so no lock can be held by another.

Usage: python3 -I zygote.py [bootstrap.py]; the bootstrap is found beside this file.
"""

import gc
import os
import sys
from struct import Struct, error as StructError

SOCKET = 3
VERSION = 1
KIND_DONE, KIND_READY, KIND_FORK = 4, 8, 9
STEP_OPTIONAL = 1
(
    OP_WRITE, OP_ENTER, OP_SETNS, OP_UNSHARE, OP_MOUNT, OP_MOVE_MOUNT, OP_FILE, OP_MKDIR, OP_HOSTNAME,
    OP_RLIMIT, OP_MAP_IDS, OP_IDS, OP_DROP_BOUNDING, OP_DROP_CAPS, OP_PRCTL, OP_CHDIR, OP_PIVOT, OP_FDS,
    OP_SECCOMP, OP_EXEC, OP_HOLD, OP_CAPS, OP_REPLACE,
) = range(1, 24)  # fmt: skip

REQUEST = Struct("=IIQQiIIIiiQ")  # version kind id clone_flags cgroup flags steps bytes nest pid made
STEP = Struct("=HHIQQQ")  # op flags size a b c
ANSWER = Struct("=IIQiiiiQQQQ")  # version kind id nest error step status took user system rss

EPERM, ESRCH, EINTR, EINVAL, ENOSYS, EBADMSG = 1, 3, 4, 22, 38, 74


def refuse(why):
    """Say why there can be no zygote here, and end."""
    text = why.encode("utf-8", "replace")[:900]
    os.write(SOCKET, ANSWER.pack(VERSION, KIND_READY, 0, 0, ENOSYS, 0, 0, 0, 0, 0, 0) + text)
    os._exit(1)


try:
    import ctypes
except ImportError as e:
    refuse("this Python has no ctypes: %s" % e)

# --- System calls -----------------------------------------------------------------------------

# The numbers of amd64 and of arm64 (asm-generic).
_NUMBERS = {
    "x86_64": dict(
        write=1, read=0, close=3, openat=257, recvmsg=47, sendmsg=46, setns=308, unshare=272, mount=165, move_mount=429,
        mkdirat=258, unlinkat=263, sethostname=170, prlimit64=302, setgroups=116, setresgid=119, setresuid=117,
        capset=126, prctl=157, chdir=80, dup3=292, fcntl=72, close_range=436, seccomp=317, clone=56, clone3=435,
        pidfd_open=434, set_robust_list=273, get_robust_list=274, exit_group=231,
        ftruncate=77,
    ),
    "aarch64": dict(
        write=64, read=63, close=57, openat=56, recvmsg=212, sendmsg=211, setns=268, unshare=97, mount=40, move_mount=429,
        mkdirat=34, unlinkat=35, sethostname=161, prlimit64=261, setgroups=159, setresgid=149, setresuid=147,
        capset=91, prctl=167, chdir=49, dup3=24, fcntl=25, close_range=436, seccomp=277, clone=220, clone3=435,
        pidfd_open=434, set_robust_list=99, get_robust_list=100, exit_group=94,
        ftruncate=46,
    ),
}  # fmt: skip

_machine = os.uname().machine
if _machine not in _NUMBERS or ctypes.sizeof(ctypes.c_void_p) != 8:
    refuse("no system call numbers for " + _machine)
NR = type("NR", (), _NUMBERS[_machine])

# PyDLL keeps the interpreter's lock over the call, as over any C function: a child must not
# find it lost.
_libc = ctypes.PyDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.argtypes = [ctypes.c_long] * 7
_syscall.restype = ctypes.c_long
_before_fork = ctypes.pythonapi.PyOS_BeforeFork
_after_fork_parent = ctypes.pythonapi.PyOS_AfterFork_Parent
_after_fork_child = ctypes.pythonapi.PyOS_AfterFork_Child
for _f in (_before_fork, _after_fork_parent, _after_fork_child):
    _f.argtypes, _f.restype = [], None


def call(number, a=0, b=0, c=0, d=0, e=0, f=0):
    """Return what the kernel does: a value, or a negative errno."""
    r = _syscall(number, a, b, c, d, e, f)
    return r if r >= 0 else -ctypes.get_errno()


AT_FDCWD = -100
O_WRONLY, O_CREAT, O_EXCL, O_CLOEXEC = 1, 0o100, 0o200, 0o2000000
MS_BIND = 4096
CLONE_NEWPID = 0x20000000
CLONE_PARENT, CLONE_PIDFD = 0x8000, 0x1000
CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID = 0x200000, 0x1000000
CLONE_INTO_CGROUP = 0x200000000
PR_SET_DUMPABLE, PR_GET_TID_ADDRESS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 4, 40, 47, 4
MOVE_MOUNT_F_EMPTY_PATH = 4
F_DUPFD_CLOEXEC = 1030
MAX_MESSAGE = 128 << 10
MAX_FDS = 64


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


class Msghdr(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p), ("namelen", ctypes.c_uint32), ("iov", ctypes.c_void_p), ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t), ("flags", ctypes.c_int),
    ]  # fmt: skip


CMSGHDR = Struct("=Qii")  # len level type
SOL_SOCKET, SCM_RIGHTS = 1, 1
MSG_NOSIGNAL, MSG_CMSG_CLOEXEC, MSG_TRUNCATED = 0x4000, 0x40000000, 0x20 | 8


def pointer(thing):
    return ctypes.addressof(thing)


# Made once: what is allocated between clone and the end of the steps is a page to copy.
_message = ctypes.create_string_buffer(MAX_MESSAGE)
_control = ctypes.create_string_buffer(CMSGHDR.size + 4 * MAX_FDS)
_iov = Iovec()
_header = Msghdr(iov=pointer(_iov), iovlen=1)
_pidfd = ctypes.c_int32(-1)
_clone_args = (ctypes.c_uint64 * 11)()
_outcome = ctypes.create_string_buffer(8)
_cap_header = ctypes.create_string_buffer(Struct("=Ii").pack(0x20080522, 0), 8)  # version 3
_cap_none = ctypes.create_string_buffer(24)


def receive():
    """Return the size of the next message and its descriptors; (0, []) at the end."""
    _iov.base, _iov.len = pointer(_message), MAX_MESSAGE
    _header.control, _header.controllen = pointer(_control), len(_control)
    while True:
        n = call(NR.recvmsg, SOCKET, pointer(_header), MSG_CMSG_CLOEXEC)
        if n != -EINTR:
            break
    if n <= 0:
        return 0, []
    fds = []
    if _header.controllen >= CMSGHDR.size:
        size, _, kind = CMSGHDR.unpack_from(_control)
        if kind == SCM_RIGHTS:
            fds = list(Struct("=%di" % ((size - CMSGHDR.size) // 4)).unpack_from(_control, CMSGHDR.size))
    if _header.flags & MSG_TRUNCATED:
        n = 1  # not even a header: refused
    return n, fds


def answer(ident, pid=0, error=0, step=-2, fd=-1):
    data = ctypes.create_string_buffer(ANSWER.pack(VERSION, KIND_DONE, ident, pid, error, step, 0, 0, 0, 0, 0), ANSWER.size)
    _iov.base, _iov.len = pointer(data), ANSWER.size
    _header.control, _header.controllen = None, 0
    if fd >= 0:
        CMSGHDR.pack_into(_control, 0, CMSGHDR.size + 4, SOL_SOCKET, SCM_RIGHTS)
        Struct("=ii").pack_into(_control, CMSGHDR.size, fd, 0)
        _header.control, _header.controllen = pointer(_control), CMSGHDR.size + 8
    while True:
        n = call(NR.sendmsg, SOCKET, pointer(_header), MSG_NOSIGNAL)
        if n != -EINTR:
            break
    if n < 0:
        os._exit(0)  # the host is gone


# --- Steps ------------------------------------------------------------------------------------


class Bad(Exception):
    pass


class Step:
    """One step as it lies in the message; its strings stay there."""

    __slots__ = ("op", "optional", "a", "b", "c", "body", "at")

    def texts(self):
        """Return the address and the length of each string."""
        found, at = [], pointer(_message) + self.at
        for text in self.body.split(b"\0"):
            found.append((at, len(text)))
            at += len(text) + 1
        return found


def parse(raw, count):
    """Return the message's steps."""
    steps, at, size = [], REQUEST.size, len(raw)
    for _ in range(count):
        if size - at < STEP.size:
            raise Bad
        s = Step()
        s.op, flags, length, s.a, s.b, s.c = STEP.unpack_from(raw, at)
        if length < STEP.size or length % 8 or length > size - at:
            raise Bad
        s.optional = bool(flags & STEP_OPTIONAL)
        s.at = at + STEP.size
        s.body = raw[s.at : at + length]
        if length > STEP.size and s.body[-1] and s.op != OP_SECCOMP:
            raise Bad  # a string without an end
        steps.append(s)
        at += length
    if at != size:
        raise Bad
    return steps


def simple(*args):
    return lambda: call(*args)


def in_turn(*calls):
    """One after the other until one fails."""

    def run():
        for args in calls:
            r = call(*args)
            if r < 0:
                return r
        return 0

    return run


def place_file(scratch, target, content, length, mode):
    def run():
        fd = call(NR.openat, AT_FDCWD, scratch, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)
        if fd < 0:
            return fd
        r = call(NR.write, fd, content, length)
        call(NR.close, fd)
        if r >= 0:
            r = call(NR.mount, scratch, target, 0, MS_BIND, 0)
        call(NR.unlinkat, AT_FDCWD, scratch, 0)
        return r

    return run


def replace_file(path, content, length):
    def run():
        fd = call(NR.openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC)
        if fd < 0:
            return fd
        r = call(NR.write, fd, content, length)
        if r >= 0:
            r = call(NR.ftruncate, fd, r)
        call(NR.close, fd)
        return r

    return run


def arrange(fds, gate):
    """Descriptors become 0, 1, ... and all others but the gate are closed. Those that came with a
    message lie above the first four, so no copy overwrites one that is still to come."""
    calls = [(NR.dup3, fd, i, 0) for i, fd in enumerate(fds)]
    if min(fds + [gate]) < len(fds):
        raise Bad
    if gate > len(fds):
        calls.append((NR.close_range, len(fds), gate - 1, 0))
    calls.append((NR.close_range, gate + 1, 0xFFFFFFFF, 0))
    return in_turn(*calls)


def drop_caps():
    call(NR.prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)  # where there is such a set
    return call(NR.capset, pointer(_cap_header), pointer(_cap_none))


def prepare(s, fds, nest, gate, keep):
    """Return a function that does the step. All that can be done before the fork is done here."""

    def fd(i):
        if i >= len(fds):
            raise Bad
        return fds[i]

    op = s.op
    if op == OP_RLIMIT:
        limit = (ctypes.c_uint64 * 2)(s.b, s.c)
        keep.append(limit)
        return simple(NR.prlimit64, 0, s.a, pointer(limit), 0)
    if op == OP_PRCTL:
        return simple(NR.prctl, s.a, s.b)
    if op == OP_ENTER:
        return simple(NR.setns, nest, s.a)
    if op == OP_SETNS:
        return simple(NR.setns, fd(s.a), s.b)
    if op == OP_UNSHARE:
        return simple(NR.unshare, s.a)
    if op == OP_IDS:
        calls = [(NR.setresgid, s.b, s.b, s.b), (NR.setresuid, s.a, s.a, s.a)]
        if not s.c:
            calls.insert(0, (NR.setgroups, 0, 0))
        return in_turn(*calls)
    if op == OP_DROP_CAPS:
        return drop_caps
    if op == OP_FDS:
        if s.b + s.a > len(fds):
            raise Bad
        return arrange(fds[s.b : s.b + s.a], gate)
    if op == OP_SECCOMP:
        program = ctypes.create_string_buffer(Struct("=H6xQ").pack(s.a, pointer(_message) + s.at), 16)
        keep.append(program)
        return simple(NR.seccomp, 1, 0, pointer(program))
    texts = s.texts()
    first, length = texts[0]
    if op == OP_WRITE:
        return simple(NR.write, fd(s.a), first, length)
    if op == OP_MOUNT:
        source, target, kind, data = (address if size else 0 for address, size in texts[:4])
        return simple(NR.mount, source, target, kind, s.a, data)
    if op == OP_MOVE_MOUNT:
        return simple(NR.move_mount, fd(s.a), first + length, AT_FDCWD, first, MOVE_MOUNT_F_EMPTY_PATH)  # the first: ""
    if op == OP_FILE:
        return place_file(first, texts[1][0], texts[2][0], texts[2][1], s.a)
    if op == OP_REPLACE:
        return replace_file(first, *texts[1])
    if op == OP_MKDIR:
        return simple(NR.mkdirat, AT_FDCWD, first, s.a)
    if op == OP_HOSTNAME:
        return simple(NR.sethostname, first, length)
    if op == OP_CHDIR:
        return simple(NR.chdir, first)
    return lambda: -ENOSYS


# --- Fork -------------------------------------------------------------------------------------


class Zygote:
    def __init__(self):
        self.home = call(NR.pidfd_open, os.getpid(), 0)
        tid = ctypes.c_uint64()
        if call(NR.prctl, PR_GET_TID_ADDRESS, pointer(tid)) < 0 or not tid.value:
            refuse("this kernel does not tell where it keeps the thread's id (CONFIG_CHECKPOINT_RESTORE)")
        self.tid = tid.value
        head, size = ctypes.c_uint64(), ctypes.c_uint64()
        call(NR.get_robust_list, 0, pointer(head), pointer(size))
        self.robust = head.value, size.value

    def serve(self):
        """Fork as told. Return in a child, confined and let go; the zygote itself ends here."""
        while True:
            size, fds = receive()
            if not size:
                os._exit(0)  # the host is gone
            keep = []
            ident, error, step, pid = 0, 0, -2, -1
            try:
                ident, nest, gate, into, todo = self.read(size, fds, keep)
            except (Bad, IndexError, ValueError, StructError):
                error = EBADMSG
            if not error:
                step, pid = -1, self.fork(nest, into)
                if pid == 0:
                    self.confine(todo, gate)
                    return
                error = -pid if pid < 0 else 0
            if error:
                answer(ident, error=error, step=step)
            else:
                answer(ident, pid=pid, fd=_pidfd.value)
                os.close(_pidfd.value)
            for fd in fds:
                os.close(fd)

    def read(self, size, fds, keep):
        """Return what a request asks for, ready to be done. keep holds what that points to."""
        raw = ctypes.string_at(_message, size)
        version, kind, ident, _, cgroup, flags, count, length, nest, gate, _ = REQUEST.unpack_from(raw)
        if version != VERSION or kind != KIND_FORK or flags or length != size - REQUEST.size or min(nest, gate) < 0:
            raise Bad
        nest, gate = fds[nest], fds[gate]
        into = fds[cgroup] if cgroup >= 0 else -1
        todo = [(prepare(s, fds, nest, gate, keep), s.optional) for s in parse(raw, count)]
        return ident, nest, gate, into, todo

    def fork(self, nest, cgroup):
        """Clone into the pid namespace of the nest. The namespace is taken back at once: with it, a
        thread of ours could not start."""
        r = call(NR.setns, nest, CLONE_NEWPID)
        if r < 0:
            return r
        flags = CLONE_PARENT | CLONE_PIDFD | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID
        _before_fork()
        if cgroup >= 0:
            args = _clone_args
            args[0], args[1], args[2], args[10] = flags | CLONE_INTO_CGROUP, pointer(_pidfd), self.tid, cgroup
            pid = call(NR.clone3, pointer(args), 88)
        elif _machine == "x86_64":  # flags, stack, parent's id, child's id, thread's memory
            pid = call(NR.clone, flags, 0, pointer(_pidfd), self.tid, 0)
        else:  # flags, stack, parent's id, thread's memory, child's id
            pid = call(NR.clone, flags, 0, pointer(_pidfd), 0, self.tid)
        if pid == 0:
            call(NR.set_robust_list, *self.robust)
            _after_fork_child()
            return 0
        call(NR.setns, self.home, CLONE_NEWPID)
        _after_fork_parent()
        return pid

    def confine(self, todo, gate):
        """Do the steps, say how it went, and wait to be let go."""
        error = at = 0
        for at, (run, optional) in enumerate(todo):
            r = run()
            if r < 0 and not optional:
                error = -r
                break
        Struct("=ii").pack_into(_outcome, 0, error, at)
        call(NR.write, gate, pointer(_outcome), 8)
        # Also after an error: whose end this is must be known before it comes.
        while True:
            r = call(NR.read, gate, pointer(_outcome), 1)
            if r != -EINTR:
                break
        if r != 1 or error:
            call(NR.exit_group, 127)
        call(NR.close, gate)


def load(path):
    """Import the bootstrap from its file; -I keeps its directory out of sys.path."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("bootstrap", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bootstrap"] = module
    spec.loader.exec_module(module)
    return module


def main():
    if os.getpid() <= 2:
        # OpenSSL knows by its pid that it has been forked; a program is pid 2 in its namespace.
        refuse("the zygote's pid is %d" % os.getpid())
    sys.dont_write_bytecode = True
    bootstrap = load(sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "bootstrap.py"))
    try:
        bootstrap.warm()
    except Exception as e:
        refuse("bootstrap.warm: %s: %s" % (type(e).__name__, e))
    if len(sys._current_frames()) > 1:
        refuse("bootstrap.warm started a thread")
    call(NR.prctl, PR_SET_DUMPABLE, 0)
    zygote = Zygote()
    gc.collect()
    gc.disable()  # a collection would touch, and so copy, pages that children share
    gc.freeze()
    os.write(SOCKET, ANSWER.pack(VERSION, KIND_READY, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    zygote.serve()
    gc.enable()
    return bootstrap


if __name__ == "__main__":
    # The child leaves main first, so that it stands where an executed bootstrap would.
    main().stem(SOCKET)
