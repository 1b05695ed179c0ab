/* What the kernel keeps for a process besides its memory: compared with what it
 * was, and refused when it differs. Little of it is put back (signal masks,
 * counts of eventfds, what lies in pipes of its own); a difference is rare, and
 * another process is cheap. */
#ifndef BRASA_REWIND_STATE_H
#define BRASA_REWIND_STATE_H

#include "rewind_trace.h"

#define MAX_FDS 256
#define FD_TEXT 4096
#define IPC_FILES 3
#define PIPE_KEPT 64 /* a runtime may keep a token in a pipe, as a lock that signal handlers can take */

enum fd_kind { FD_PLAIN, FD_EVENT, FD_PIPE, FD_SOCKET };

struct fd_record {
	s32 number;
	s32 info;  /* descriptor of fdinfo/<number>, which shows whatever is open there now */
	s32 copy;  /* ours of the same open file, or -1 */
	u32 kind;
	u64 count; /* of an eventfd; bytes that lie in a pipe */
	u8 lies[PIPE_KEPT]; /* these */
	u32 size;
	u64 settings; /* what fcntl tells and fdinfo does not */
	u8 *text;
};

struct vma {
	u64 start, end, offset, inode;
	u64 device;
	u32 prot;   /* MAP_READ ... */
	u32 flags;  /* enum vma_flag */
};

enum vma_flag {
	VMA_SPECIAL = 1,    /* the kernel's own: vdso, vvar */
	VMA_SHARED = 2,
	VMA_REGISTERED = 4, /* its writes are tracked */
	VMA_STUB = 8,
	VMA_DONTFORK = 16,
	VMA_DONTDUMP = 32,
	VMA_NORESERVE = 64,
	VMA_ODD = 128,      /* with flags that would be lost were it made again */
	VMA_NOHUGE = 256,
	VMA_LIKELY = 512,   /* had private pages that the snapshot has not */
};

struct kept_page {
	u64 at;   /* address */
	u32 id;   /* in the store */
	u16 heat; /* in how many rewinds on end it was dirty */
	u16 anon; /* in anonymous memory, where absent means zero */
};

struct range { u64 start, end; };

/* An armed process. */
struct armed {
	struct armed *next;
	u64 block_size;
	u32 handle;
	s32 pid;
	s32 nest;
	s32 pidfd;
	s32 statm; /* -1: it is not exact here */
	s32 proc, task_dir, fd_dir, maps, pagemap, mem, timers;
	s32 pids_current, nest_children;
	s32 tmp, shm, ipc[IPC_FILES], mqueue, sockets;
	s32 uffd;
	u64 stub;
	u64 brk;
	u64 cwd[2];
	char cwd_path[PATH_SIZE]; /* as the program names it; empty: too long */
	int moved;                /* it is elsewhere now */
	u64 tmp_free[2], shm_free[2];
	u64 ipc_size[IPC_FILES];
	u64 connections;
	u64 mask_of_all;
	u64 rewinds;
	s64 children;
	u32 nthreads, nfds, nvmas, npages, room;
	u32 ncalls;
	struct thread *threads; /* the first is the one that works for us */
	struct fd_record *fds;
	struct vma *vmas;
	struct kept_page *pages;
	struct call *calls;     /* what is asked, and was answered */
	u8 *out;
	struct range given[64]; /* given back last time */
	u32 ngiven;
	struct range *spans; /* where there are private pages */
	u32 nspans;
	u64 pages_size, xstates_size;
	u8 *xstates, *texts;
	u64 texts_size;
};

static long read_whole(s32 fd, u8 *to, u64 room)
{
	u64 at = 0;
	for (;;) {
		long n = sys(__NR_pread64, fd, to + at, room - at, at);
		if (n < 0)
			return n;
		at += (u64)n;
		if (!n || at == room)
			return (long)at;
	}
}

static s64 read_number(s32 fd)
{
	u8 b[32];
	long n = sys(__NR_pread64, fd, b, sizeof b, 0);
	if (n <= 0)
		return -1;
	s64 v = 0;
	for (long i = 0; i < n && b[i] >= '0' && b[i] <= '9'; i++)
		v = v * 10 + (b[i] - '0');
	return v;
}

static s32 open_at(s32 dir, const char *name, int flags)
{
	return (s32)sys(__NR_openat, dir, name, flags | O_CLOEXEC, 0);
}

static void close_fd(s32 fd)
{
	if (fd >= 0)
		sys(__NR_close, fd);
}

static void join(char *to, const char *a, s64 number, const char *b)
{
	while (*a)
		*to++ = *a++;
	if (number >= 0) {
		decimal(to, (u64)number);
		while (*to)
			to++;
	}
	while (*b)
		*to++ = *b++;
	*to = 0;
}

static int begins(const u8 *s, const char *with)
{
	while (*with)
		if (*s++ != (u8)*with++)
			return 0;
	return 1;
}

/* --- Asked by the process itself --------------------------------------------------------- */

static void ask(struct call *calls, u32 *n, u64 nr, u64 a, u64 b, u64 c, u64 d)
{
	struct call *k = &calls[(*n)++];
	memset(k, 0, sizeof *k);
	k->nr = nr;
	k->arg[0] = a;
	k->arg[1] = b;
	k->arg[2] = c;
	k->arg[3] = d;
}

#define MAX_ASKED 160
#define SIGACTION_SIZE 32u /* room for a struct; the kernel's is no larger */
#define SIGSTACK_SIZE 32u

/* questions lists the calls whose answers must be the same each time. Some of
 * them also put back: brk, umask, munlockall (which ends mlockall(MCL_FUTURE),
 * that can be seen nowhere). */
static u32 questions(struct call *calls, u64 out, u64 brk, u64 umask)
{
	u32 n = 0;
	u64 end = out + OUT_PAGES * PAGE - PATH_SIZE;
	ask(calls, &n, __NR_brk, brk, 0, 0, 0);
	ask(calls, &n, __NR_umask, umask, 0, 0, 0);
	ask(calls, &n, __NR_munlockall, 0, 0, 0, 0);
	for (u64 sig = 1; sig <= 64; sig++, out += SIGACTION_SIZE)
		if (sig != SIGKILL && sig != SIGSTOP)
			ask(calls, &n, __NR_rt_sigaction, sig, 0, out, 8);
	ask(calls, &n, __NR_sigaltstack, 0, out, 0, 0);
	out += SIGSTACK_SIZE;
	for (u64 i = 0; i < 3; i++, out += 32)
		ask(calls, &n, __NR_getitimer, i, out, 0, 0);
	for (u64 i = 0; i < 16; i++, out += 16)
		ask(calls, &n, __NR_prlimit64, 0, i, 0, out);
	static const u8 into[] = {2 /* PDEATHSIG */, 25 /* TSC */, 37 /* CHILD_SUBREAPER */, 40 /* TID_ADDRESS */};
	for (u32 i = 0; i < sizeof into; i++, out += 8)
		ask(calls, &n, __NR_prctl, into[i], out, 0, 0);
	static const u8 plain[] = {3 /* DUMPABLE */, 7 /* KEEPCAPS */, 13 /* TIMING */, 27 /* SECUREBITS */,
		30 /* TIMERSLACK */, 34 /* MCE_KILL_GET */, 39 /* NO_NEW_PRIVS */, 42 /* THP_DISABLE */,
		56 /* TAGGED_ADDR_CTRL */, 58 /* IO_FLUSHER */, 66 /* MDWE */, 68 /* MEMORY_MERGE */};
	for (u32 i = 0; i < sizeof plain; i++)
		ask(calls, &n, __NR_prctl, plain[i], 0, 0, 0);
	for (u64 i = 0; i < 3; i++)
		ask(calls, &n, __NR_prctl, 52 /* SPECULATION_CTRL */, i, 0, 0);
	ask(calls, &n, __NR_personality, 0xffffffff, 0, 0, 0);
	ask(calls, &n, __NR_getpgid, 0, 0, 0, 0);
	ask(calls, &n, __NR_getsid, 0, 0, 0, 0);
#if defined(__x86_64__)
	ask(calls, &n, __NR_arch_prctl, 0x5005 /* ARCH_SHSTK_STATUS */, out, 0, 0);
	ask(calls, &n, __NR_arch_prctl, 0x1011 /* ARCH_GET_CPUID */, 0, 0, 0);
#endif
	if (out + 8 > end)
		return 0; /* a mistake of ours, which arming reports */
	return n;
}

/* what_differs names the first question whose answer is another one. */
static const char *what_differs(const struct call *was)
{
	switch (was->nr) {
	case __NR_brk: return "the end of the heap";
	case __NR_umask: return "umask";
	case __NR_munlockall: return "locked memory";
	case __NR_rt_sigaction: return "signal handlers";
	case __NR_sigaltstack: return "the signal stack";
	case __NR_getitimer: return "an interval timer";
	case __NR_prlimit64: return "resource limits";
	case __NR_prctl: return "prctl settings";
	case __NR_personality: return "personality";
	case __NR_getpgid: return "the process group";
	case __NR_getsid: return "the session";
	}
	return "what the kernel says of it";
}

static int compare_answers(const struct call *was, const u8 *out_was, const struct call *is, const u8 *out_is, u32 n, u64 out)
{
	for (u32 i = 0; i < n; i++)
		if (was[i].result != is[i].result && was[i].nr != __NR_umask) /* which asking has put back */
			return refuse(what_differs(&was[i]));
	if (same_bytes(out_was, out_is, OUT_PAGES * PAGE))
		return 0;
	u64 at = 0;
	while (out_was[at] == out_is[at])
		at++;
	const struct call *best = 0;
	u64 best_at = 0;
	for (u32 i = 0; i < n; i++)
		for (u32 k = 0; k < 4; k++)
			if (was[i].arg[k] >= out && was[i].arg[k] <= out + at && was[i].arg[k] >= best_at) {
				best = &was[i];
				best_at = was[i].arg[k];
			}
	return refuse(best ? what_differs(best) : "what the kernel says of it");
}

/* --- Threads ----------------------------------------------------------------------------- */

/* look_at_thread reads what the kernel holds for a stopped thread besides its registers. */
static int look_at_thread(struct thread *t)
{
	long r = sys(__NR_pread64, t->comm, t->name, sizeof t->name, 0);
	if (r < 0)
		return -1;
	t->comm_size = (u32)r;
	if ((r = sys(__NR_sched_getattr, t->tid, t->sched, sizeof t->sched, 0)) < 0)
		return -1;
	if ((r = sys(__NR_sched_getaffinity, t->tid, sizeof t->affinity, t->affinity)) < 0)
		return -1;
	t->affinity_size = (u32)r;
	t->ioprio = (s32)sys(__NR_ioprio_get, 1, t->tid);
	if (sys(__NR_get_robust_list, t->tid, &t->robust[0], &t->robust[1]) < 0)
		return -1;
	if (sys(__NR_ptrace, PTRACE_GET_RSEQ_, t->tid, sizeof t->rseq, &t->rseq) < 0)
		memset(&t->rseq, 0, sizeof t->rseq);
	return 0;
}

static int has_filter(s32 tid, u32 index)
{
	return sys(__NR_ptrace, PTRACE_SECCOMP_GET_FILTER_, tid, index, 0) >= 0;
}

static int pending(s32 tid)
{
	static u8 info[128];
	struct { u64 off; u32 flags; s32 nr; } args = {0, 0, 1};
	if (sys(__NR_ptrace, PTRACE_PEEKSIGINFO_, tid, &args, info) > 0)
		return 1;
	args.flags = 1; /* shared */
	return sys(__NR_ptrace, PTRACE_PEEKSIGINFO_, tid, &args, info) > 0;
}

static int compare_thread(struct thread *was)
{
	static struct thread is;
	is.tid = was->tid;
	is.comm = was->comm;
	if (look_at_thread(&is) < 0)
		return refuse_n("a thread has ended: thread", was->tid);
	if (is.comm_size != was->comm_size || !same_bytes(is.name, was->name, is.comm_size))
		return refuse("the name of a thread");
	if (!same_bytes(is.sched, was->sched, sizeof is.sched))
		return refuse("the scheduling of a thread");
	if (is.affinity_size != was->affinity_size || !same_bytes(is.affinity, was->affinity, is.affinity_size))
		return refuse("the CPU affinity of a thread");
	if (is.ioprio != was->ioprio)
		return refuse("the I/O priority of a thread");
	if (is.robust[0] != was->robust[0] || is.robust[1] != was->robust[1])
		return refuse("the robust list of a thread");
	if (!same_bytes(&is.rseq, &was->rseq, sizeof is.rseq))
		return refuse("the rseq area of a thread");
	if (has_filter(was->tid, (u32)was->filters))
		return refuse("seccomp filters");
	if (pending(was->tid))
		return refuse("a signal is pending");
	return 0;
}

/* --- Descriptors ------------------------------------------------------------------------- */

/* without_position removes the line of a descriptor's position, which for the
 * first three is the business of whoever reads what is written there. */
static u32 without_position(u8 *text, u32 n)
{
	u32 at = 0;
	while (at < n && text[at] != '\n')
		at++;
	if (!begins(text, "pos:") || at == n)
		return n;
	at++;
	for (u32 i = at; i < n; i++)
		text[i - at] = text[i];
	return n - at;
}

static long fd_text(struct fd_record *f, u8 *to)
{
	long n = read_whole(f->info, to, FD_TEXT);
	if (n > 0 && f->number < 3)
		n = without_position(to, (u32)n);
	return n;
}

static u64 event_count(const u8 *text, u32 n)
{
	u64 v = 0;
	for (u32 i = 0; i + 14 < n; i++) {
		if (!begins(text + i, "eventfd-count:"))
			continue;
		for (i += 14; i < n && text[i] != '\n'; i++) {
			u8 c = text[i];
			if (c >= '0' && c <= '9')
				v = v * 16 + c - '0';
			else if (c >= 'a' && c <= 'f')
				v = v * 16 + c - 'a' + 10;
		}
		break;
	}
	return v;
}

static s32 unread(s32 fd)
{
	s32 n = 0;
	return sys(__NR_ioctl, fd, 0x541b /* FIONREAD */, &n) < 0 ? -1 : n;
}

static u8 scratch[65536];

/* settings_of packs what a program may set of an open file and fdinfo does not show:
 * whom it signals and how, and how much a pipe holds. */
static u64 settings_of(s32 fd)
{
	u64 owner = (u32)sys(__NR_fcntl, fd, 9 /* F_GETOWN */, 0), signal = (u8)sys(__NR_fcntl, fd, 11 /* F_GETSIG */, 0);
	long pipe = sys(__NR_fcntl, fd, 1032 /* F_GETPIPE_SZ */, 0);
	return owner | signal << 32 | (pipe > 0 ? (u64)pipe >> 12 << 40 : 0);
}

/* drain reads away what was not there. All threads stand still, so what FIONREAD
 * tells is there, and no read blocks. */
static int drain(struct fd_record *f, u8 *scratch)
{
	for (u32 i = 0; i < 4096; i++) {
		s32 n = unread(f->copy);
		if (n <= 0)
			return n;
		if (n > 65536)
			n = 65536;
		long r = f->kind == FD_SOCKET ? sys(__NR_recvfrom, f->copy, scratch, n, MSG_DONTWAIT_, 0, 0)
					      : sys(__NR_read, f->copy, scratch, n);
		if (r <= 0)
			return -1; /* the writing end of a pipe, or worse */
	}
	return -1;
}

/* peek_pipe reads what lies in a pipe and leaves it there. */
static long peek_pipe(s32 fd, u8 *to, u64 room)
{
	s32 ends[2];
	if (sys(__NR_pipe2, ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return -1;
	long n = sys(__NR_tee, fd, ends[1], room, 2 /* SPLICE_F_NONBLOCK */);
	if (n > 0)
		n = sys(__NR_read, ends[0], to, n);
	sys(__NR_close, ends[0]);
	sys(__NR_close, ends[1]);
	return n;
}

static int compare_pipe(struct fd_record *f)
{
	u8 lies[PIPE_KEPT];
	s32 n = unread(f->copy);
	if (!f->count)
		return n <= 0 ? 0 : drain(f, scratch);
	if (n != (s32)f->count)
		return -1;
	/* Only the reading end can be looked through; the other one shows the same pipe. */
	long seen = peek_pipe(f->copy, lies, sizeof lies);
	return seen == -EBADF || (seen == (long)f->count && same_bytes(lies, f->lies, f->count)) ? 0 : -1;
}

static int compare_fd(struct armed *a, struct fd_record *f)
{
	static u8 text[FD_TEXT];
	long n = fd_text(f, text);
	if (n < 0)
		return refuse_n("open files: descriptor", f->number);
	if (f->copy >= 0 && sys(__NR_kcmp, a->pid, sys(__NR_getpid), KCMP_FILE, f->number, f->copy) != 0)
		return refuse_n("open files: descriptor", f->number);
	if (f->copy >= 0 && settings_of(f->copy) != f->settings)
		return refuse_n("settings of descriptor", f->number);
	if (f->kind == FD_PIPE && compare_pipe(f) < 0)
		return refuse_n("what lies unread in descriptor", f->number);
	if (f->kind == FD_SOCKET && f->copy >= 0 && unread(f->copy) > 0 && drain(f, scratch) < 0)
		return refuse_n("what lies unread in descriptor", f->number);
	if (n == (long)f->size && same_bytes(text, f->text, f->size))
		return 0;
	if (f->kind == FD_EVENT) {
		u64 count = event_count(text, (u32)n), value;
		if (count) {
			/* also of a semaphore, of which each read takes one; more than these are odd */
			for (u32 i = 0; i < 64 && count; i++) {
				if (sys(__NR_read, f->copy, &value, 8) != 8)
					break;
				n = fd_text(f, text);
				count = n < 0 ? 0 : event_count(text, (u32)n);
			}
		}
		if (!count && f->count)
			sys(__NR_write, f->copy, &f->count, 8);
		n = fd_text(f, text);
		if (n == (long)f->size && same_bytes(text, f->text, f->size))
			return 0;
	}
	return refuse_n("open files: descriptor", f->number);
}

#define CONN_OPTIONS 768 /* bytes behind the text of descriptor 3 */

/* compare_conn looks at the connection to the host: nothing unread, both ways open. */
static int compare_conn(struct armed *a)
{
	for (u32 i = 0; i < a->nfds; i++) {
		struct fd_record *f = &a->fds[i];
		if (f->number != 3 || f->kind != FD_SOCKET)
			continue;
		/* Not kept: it would keep the connection open when the program is gone. */
		s32 fd = (s32)sys(__NR_pidfd_getfd, a->pidfd, 3, 0);
		if (fd < 0)
			return refuse_n("open files: descriptor", 3);
		int r = 0;
		struct { s32 fd; u16 events, revents; } p = {fd, 0x2000 /* POLLRDHUP */, 0};
		struct timespec_ none = {0, 0};
		if (unread(fd) > 0)
			r = refuse("descriptor 3 has something unread");
		else if (sys(__NR_ppoll, &p, 1, &none, 0, 8) > 0)
			r = refuse("descriptor 3 was shut down");
		/* All that a socket of this kind keeps when it is set. */
		static const u8 options[] = {2 /* REUSEADDR */, 5 /* DONTROUTE */, 6 /* BROADCAST */, 7 /* SNDBUF */, 8 /* RCVBUF */,
			9 /* KEEPALIVE */, 10 /* OOBINLINE */, 11 /* NO_CHECK */, 12 /* PRIORITY */, 13 /* LINGER */, 15 /* REUSEPORT */,
			16 /* PASSCRED */, 18 /* RCVLOWAT */, 20 /* RCVTIMEO */, 21 /* SNDTIMEO */, 29 /* TIMESTAMP */, 34 /* PASSSEC */,
			35 /* TIMESTAMPNS */, 36 /* MARK */, 37 /* TIMESTAMPING */, 40 /* RXQ_OVFL */, 41 /* WIFI_STATUS */, 42 /* PEEK_OFF */,
			43 /* NOFCS */, 44 /* LOCK_FILTER */, 45 /* SELECT_ERR_QUEUE */, 46 /* BUSY_POLL */, 47 /* MAX_PACING_RATE */,
			49 /* INCOMING_CPU */, 60 /* ZEROCOPY */, 61 /* TXTIME */, 62 /* BINDTOIFINDEX */, 63, 64 /* TIMESTAMPs */,
			69 /* PREFER_BUSY_POLL */, 70 /* BUSY_POLL_BUDGET */, 72 /* BUF_LOCK */, 74 /* TXREHASH */, 75 /* RCVMARK */,
			76 /* PASSPIDFD */, 82 /* RCVPRIORITY */, 83 /* PASSRIGHTS */};
		u8 values[CONN_OPTIONS];
		_Static_assert((sizeof options + 3) * 16 <= sizeof values, "");
		memset(values, 0, sizeof values);
		u8 *to = values;
		u32 size;
		for (u32 k = 0; k < sizeof options && r >= 0; k++, to += 16) {
			size = 16;
			sys(__NR_getsockopt, fd, SOL_SOCKET_, options[k], to, &size);
		}
		/* How long its filter is, and its name: it can have either but once. */
		size = 0;
		sys(__NR_getsockopt, fd, SOL_SOCKET_, 26 /* GET_FILTER */, 0, &size);
		*(u32 *)to = size;
		size = sizeof scratch;
		sys(__NR_getsockname, fd, scratch, &size);
		*(u32 *)(to + 4) = size;
		*(u64 *)(to + 8) = settings_of(fd);
		to += 16;
		sys(__NR_close, fd);
		if (r < 0)
			return r;
		for (s32 n = 0; n < 3; n++, to += 8)
			if ((fd = (s32)sys(__NR_pidfd_getfd, a->pidfd, n, 0)) >= 0) {
				*(u64 *)to = settings_of(fd);
				sys(__NR_close, fd);
			}
		if (!f->count) { /* the first time */
			for (u32 k = 0; k < sizeof values; k++)
				f->text[FD_TEXT + k] = values[k];
			f->count = 1;
		} else if (!same_bytes(f->text + FD_TEXT, values, sizeof options * 16)) {
			return refuse("options of descriptor 3");
		} else if (!same_bytes(f->text + FD_TEXT, values, sizeof values)) {
			return refuse("settings of the first descriptors");
		}
	}
	return 0;
}

struct collecting { struct armed *a; struct fd_record *fds; u32 n; u8 *texts; u64 used, room; };

/* collect_fd judges a descriptor at arming: is it known how to tell that it did not change? */
static int collect_fd(s32 number, void *data)
{
	struct collecting *c = data;
	struct armed *a = c->a;
	if (c->n >= MAX_FDS)
		return refuse("it has too many open files");
	struct fd_record *f = &c->fds[c->n];
	memset(f, 0, sizeof *f);
	f->number = number;
	f->copy = f->info = -1;
	char path[48], target[256];
	join(path, "fdinfo/", number, "");
	f->info = open_at(a->proc, path, 0);
	c->n++;
	join(path, "fd/", number, "");
	long n = sys(__NR_readlinkat, a->proc, path, target, sizeof target - 1);
	if (f->info < 0 || n < 0)
		return refuse_n("a descriptor cannot be looked at:", number);
	target[n] = 0;
	const u8 *t = (const u8 *)target;
	if (c->used + FD_TEXT + CONN_OPTIONS > c->room)
		return refuse("it has too many open files");
	f->text = c->texts + c->used;
	n = fd_text(f, f->text);
	if (n < 0 || n == FD_TEXT)
		return refuse_n("a descriptor cannot be looked at:", number);
	f->size = (u32)n;
	c->used += number == 3 ? FD_TEXT + CONN_OPTIONS : (u64)(n + 7) & ~7ull;
	if (number < 3)
		return 0;
	if (begins(t, "anon_inode:[eventpoll]") || begins(t, "anon_inode:[signalfd]") || begins(t, "anon_inode:[pidfd]"))
		return 0;
	/* The host waits for the last end of these to be closed, so no copy is kept. */
	for (s32 first = 0; first <= 3 && number > 3; first++)
		if (sys(__NR_kcmp, a->pid, a->pid, KCMP_FILE, first, number) == 0)
			return 0;
	s32 copy = (s32)sys(__NR_pidfd_getfd, a->pidfd, number, 0);
	if (copy < 0)
		return refuse_n("a descriptor cannot be looked at:", number);
	f->copy = copy;
	f->settings = settings_of(copy);
	if (begins(t, "anon_inode:[eventfd]")) {
		f->kind = FD_EVENT;
		f->count = event_count(f->text, f->size);
		return 0;
	}
	if (begins(t, "pipe:[")) {
		f->kind = FD_PIPE;
		s32 lies = unread(copy);
		if (lies <= 0)
			return 0;
		f->count = (u64)lies;
		long seen = lies <= PIPE_KEPT ? peek_pipe(copy, f->lies, PIPE_KEPT) : 0;
		return seen == lies || seen == -EBADF ? 0 : refuse_n("something lies unread in descriptor", number);
	}
	if (begins(t, "socket:[")) {
		s32 domain = 0, listening = 0;
		u32 size = 4;
		sys(__NR_getsockopt, copy, SOL_SOCKET_, 39 /* SO_DOMAIN */, &domain, &size);
		size = 4;
		sys(__NR_getsockopt, copy, SOL_SOCKET_, 30 /* SO_ACCEPTCONN */, &listening, &size);
		f->kind = FD_SOCKET;
		if (domain != 1 || listening)
			return refuse_n("it has a network connection: descriptor", number);
		if (unread(copy) > 0)
			return refuse_n("something lies unread in descriptor", number);
		if (number == 3) { /* nor here */
			close_fd(copy);
			f->copy = -1;
		}
		return 0;
	}
	if (begins(t, "anon_inode:"))
		return fail2(bad, "its descriptor cannot be put back: ", number, target + 10);
	/* A file by name: only what it cannot write, or has no contents. */
	u8 statx[256];
	if (sys(__NR_statx, copy, "", 0x1000 /* AT_EMPTY_PATH */, 2 | 1, statx) < 0)
		return refuse_n("a descriptor cannot be looked at:", number);
	u16 mode = *(u16 *)(statx + 28);
	long flags = sys(__NR_fcntl, copy, 3 /* F_GETFL */, 0);
	close_fd(copy); /* so that its file system can go when the program has gone */
	f->copy = -1;
	switch (mode & 0xf000) {
	case 0x8000:
		if (flags & 3)
			return refuse_n("it has a file open for writing: descriptor", number);
		return 0;
	case 0x4000: /* directory */
	case 0x2000: /* /dev/null and the like; others there are none */
		return 0;
	}
	return refuse_n("its descriptor cannot be put back:", number);
}

/* --- Places ------------------------------------------------------------------------------ */

static int free_of(s32 fd, u64 to[2])
{
	u64 st[16];
	if (sys(__NR_fstatfs, fd, st) < 0)
		return -1;
	to[0] = st[3]; /* f_bfree */
	to[1] = st[6]; /* f_ffree */
	return 0;
}

static int where(s32 proc, u64 to[2])
{
	u8 statx[256];
	if (sys(__NR_statx, proc, "cwd", 0, 0x7ff, statx) < 0)
		return -1;
	to[0] = *(u64 *)(statx + 32);                          /* inode */
	to[1] = *(u64 *)(statx + 136) ;                        /* device */
	return 0;
}

/* family counts the tasks of the sandbox: by its cgroup, or else by looking for children. */
static s64 family(struct armed *a)
{
	if (a->pids_current >= 0)
		return read_number(a->pids_current);
	s64 children = 0;
	u8 b[256];
	if (a->nest_children >= 0 && (sys(__NR_pread64, a->nest_children, b, sizeof b, 0)) > 0)
		children++;
	for (u32 i = 0; i < ntids; i++) {
		char path[64];
		join(path, "task/", tids[i], "/children");
		s32 fd = open_at(a->proc, path, 0);
		if (fd < 0)
			return -1;
		if (sys(__NR_pread64, fd, b, sizeof b, 0) > 0)
			children++;
		close_fd(fd);
	}
	return children ? -2 - children : (s64)ntids;
}

static u64 count_of(s32 dir_fd)
{
	/* since 6.2 the size of /proc/<pid>/fd is the number of descriptors */
	u8 statx[256];
	return sys(__NR_statx, dir_fd, "", 0x1000, 0x200, statx) < 0 ? 0 : *(u64 *)(statx + 40);
}

static int count_entry(s32 number, void *data)
{
	(void)number;
	++*(u32 *)data;
	return 0;
}

/* empty says whether a directory has no entries. */
static int empty(s32 fd)
{
	u32 numbers = 0;
	int others = each_entry(fd, count_entry, &numbers);
	return others == 0 && numbers == 0;
}

/* connections packs how many sockets of TCP and UDP there are in the program's network, also
 * those that nobody has open any more. */
static u64 connections(s32 fd)
{
	u8 text[512];
	long n = fd < 0 ? -1 : sys(__NR_pread64, fd, text, sizeof text, 0);
	u64 v = 0;
	for (long i = 0; i + 12 < n; i++) {
		u64 number = 0, tcp = begins(text + i, "TCP: inuse "), udp = begins(text + i, "UDP: inuse "), waits = begins(text + i, " tw ");
		if (!tcp && !udp && !waits)
			continue;
		for (i += waits ? 4 : 11; i < n && text[i] >= '0' && text[i] <= '9'; i++)
			number = number * 10 + text[i] - '0';
		v += number << (tcp ? 0 : udp ? 20 : 40);
		i--;
	}
	return v;
}

static int compare_places(struct armed *a)
{
	u64 is[2];
	if (where(a->proc, is) < 0)
		return refuse("the current directory");
	a->moved = is[0] != a->cwd[0] || is[1] != a->cwd[1];
	if (a->moved && !a->cwd_path[0])
		return refuse("the current directory");
	if (free_of(a->tmp, is) < 0 || is[0] != a->tmp_free[0] || is[1] != a->tmp_free[1])
		return refuse("files in /tmp");
	if (free_of(a->shm, is) < 0 || is[0] != a->shm_free[0] || is[1] != a->shm_free[1])
		return refuse("files in /dev/shm");
	for (u32 i = 0; i < IPC_FILES; i++)
		if (read_whole(a->ipc[i], scratch, sizeof scratch) != (long)a->ipc_size[i])
			return refuse("System V IPC objects");
	if (a->mqueue >= 0 && !empty(a->mqueue))
		return refuse("message queues");
	if (sys(__NR_pread64, a->timers, scratch, 64, 0) != 0)
		return refuse("timers");
	return 0;
}

static int compare_fds(struct armed *a)
{
	if (count_of(a->fd_dir) != a->nfds)
		return refuse("the number of open files");
	for (u32 i = 0; i < a->nfds; i++)
		if (compare_fd(a, &a->fds[i]) < 0)
			return -1;
	if (connections(a->sockets) != a->connections)
		return refuse("network connections");
	return compare_conn(a);
}

#endif
