/* Holding a process still from outside and having it make system calls. */
#ifndef BRASA_REWIND_TRACE_H
#define BRASA_REWIND_TRACE_H

#include "rewind_store.h"

#include <linux/ptrace.h>
#include <linux/signal.h>
#include <linux/wait.h>

#define MAX_THREADS 512
#define MAX_EXTRA_THREADS 128 /* that are ended in a rewind */
#define MAX_XSTATE 16384
#define NT_PRSTATUS_ 1
#define NT_PRFPREG_ 2
#define NT_XSTATE_ 0x202
#define NT_ARM_TLS_ 0x401

/* What an operation ends in when it fails. */
static u32 verdict;
static char why[160];
/* What an operation may take. Its own work is counted in CPU time, so that a busy
 * machine fails nobody. Waiting for a thread ends when it is in the kernel and stays
 * there, as the parent in vfork does; one that only waits for a CPU, also because
 * its cgroup has used up its quota, is given until the last moment. */
#define TICK 5000000ull /* ns: how often a thread that is waited for is looked at */
#define STUCK_TICKS 10
static u64 last_moment;
static u64 cpu_limit;

static u64 now(void)
{
	struct timespec_ t;
	sys(__NR_clock_gettime, 1, &t);
	return (u64)t.sec * 1000000000ull + (u64)t.nsec;
}

static void say_text(u32 *n, const char *s)
{
	while (*s && *n + 1 < sizeof why)
		why[(*n)++] = *s++;
	why[*n] = 0;
}

static void say_number(u32 *n, s64 v)
{
	char digits[24];
	u32 k = sizeof digits;
	u64 u = v < 0 ? (u64)-v : (u64)v;
	digits[--k] = 0;
	do
		digits[--k] = (char)('0' + u % 10);
	while (u /= 10);
	if (v < 0)
		digits[--k] = '-';
	say_text(n, digits + k);
}

/* fail notes why; the first reason stands. */
static int fail2(u32 status, const char *text, s64 number, const char *more)
{
	if (!verdict) {
		u32 n = 0;
		verdict = status;
		say_text(&n, text);
		if (number != -1) {
			say_text(&n, " ");
			say_number(&n, number);
		}
		say_text(&n, more);
	}
	return -1;
}

static u32 bad; /* what a refusal counts as: REWIND_NOT while arming, else REWIND_CHANGED */

static int refuse(const char *text) { return fail2(bad, text, -1, ""); }
static int refuse_n(const char *text, s64 n) { return fail2(bad, text, n, ""); }

static u64 cpu_now(void)
{
	struct timespec_ t;
	sys(__NR_clock_gettime, 3 /* CLOCK_THREAD_CPUTIME_ID */, &t);
	return (u64)t.sec * 1000000000ull + (u64)t.nsec;
}

static int late(void)
{
	return cpu_now() > cpu_limit || now() > last_moment ? refuse("it took too long") : 0;
}

/* allow sets the bounds of what follows: ns of work, and in all. */
static void allow(u64 work, u64 at_last)
{
	last_moment = now() + at_last;
	cpu_limit = cpu_now() + work;
}

#if defined(__x86_64__)
struct regs {
	u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs,
		flags, sp, ss, fs_base, gs_base, ds, es, fs, gs;
};
#define REG_IP(r) ((r)->ip)
/* GETREGS is in the tracer's layout, whatever mode the thread has put itself in. */
static long get_regs(s32 tid, struct regs *r) { return sys(__NR_ptrace, 12, tid, 0, r); }
static long set_regs(s32 tid, struct regs *r) { return sys(__NR_ptrace, 13, tid, 0, r); }
static void for_stub(struct regs *r, u64 code, u64 table, u64 count)
{
	r->ip = code;
	r->bx = table;
	r->bp = count;
	r->orig_ax = ~0ull;
	r->ax = 0;
	r->flags &= ~0x500ull; /* direction, trap */
}
static int syscall_at(const u8 *p) { return p[0] == 0x0f && p[1] == 0x05; }
#define SYSCALL_BYTES 2
#define TRAP_BYTES 1
#elif defined(__aarch64__)
struct regs { u64 x[31], sp, pc, pstate; };
#define REG_IP(r) ((r)->pc)
static long get_regs(s32 tid, struct regs *r)
{
	struct iovec_ v = {r, sizeof *r};
	return sys(__NR_ptrace, PTRACE_GETREGSET, tid, NT_PRSTATUS_, &v);
}
static long set_regs(s32 tid, struct regs *r)
{
	struct iovec_ v = {r, sizeof *r};
	return sys(__NR_ptrace, PTRACE_SETREGSET, tid, NT_PRSTATUS_, &v);
}
static void for_stub(struct regs *r, u64 code, u64 table, u64 count)
{
	r->pc = code;
	r->x[19] = table;
	r->x[20] = count;
}
static int syscall_at(const u8 *p) { return *(const u32 *)p == 0xd4000001; }
#define SYSCALL_BYTES 4
#define TRAP_BYTES 0
#endif

struct thread {
	s32 tid;
	s32 comm;       /* descriptor of task/<tid>/comm: it reads as long as the thread lives */
	s32 filters;    /* seccomp filters on it */
	s32 ioprio;
	u32 xsize, affinity_size, sched_size, comm_size;
	u64 sigmask;
	u64 robust[2];
	struct rseq_conf_ rseq;
	struct regs regs;
	u64 tls;
	u8 sched[64];
	u8 affinity[128];
	u8 name[32];
	u8 *xstate;
};

/* The process in hand. */
static s32 tids[MAX_THREADS * 2];
static u32 ntids;
static u8 stopped[MAX_THREADS * 2];

static void decimal(char *to, u64 v)
{
	char digits[24];
	u32 k = 0;
	do
		digits[k++] = (char)('0' + v % 10);
	while (v /= 10);
	while (k)
		*to++ = digits[--k];
	*to = 0;
}

/* state_of returns the letter that /proc has for a thread, 0 if there is none. */
static u8 state_of(s32 tid)
{
	char path[48];
	u8 text[512];
	char *p = path;
	for (const char *s = "/proc/"; *s;)
		*p++ = *s++;
	decimal(p, (u64)tid);
	while (*p)
		p++;
	for (const char *s = "/stat"; *s;)
		*p++ = *s++;
	*p = 0;
	long fd = sys(__NR_openat, AT_FDCWD, path, O_CLOEXEC, 0);
	if (fd < 0)
		return 0;
	long n = sys(__NR_pread64, fd, text, sizeof text, 0), i;
	sys(__NR_close, fd);
	/* the name before it may hold brackets, what comes after cannot */
	for (i = n - 1; i > 0 && text[i] != ')'; i--)
		;
	return i > 0 && i + 2 < n ? text[i + 2] : 0;
}

static long wait_for(s32 tid, s32 *status)
{
	for (u32 stuck = 0; stuck < STUCK_TICKS && now() < last_moment;) {
		long r = sys(__NR_wait4, tid, status, __WALL, 0);
		if (r != -EINTR)
			return r;
		stuck = state_of(tid) == 'D' ? stuck + 1 : 0;
	}
	return -EINTR;
}

#define STOPPED(s) (((s) & 0xff) == 0x7f)
#define STOP_SIGNAL(s) (((s) >> 8) & 0xff)
#define STOP_EVENT(s) (((s) >> 16) & 0xff)

static long seize(s32 tid)
{
	return sys(__NR_ptrace, PTRACE_SEIZE, tid, 0,
		   PTRACE_O_EXITKILL | PTRACE_O_SUSPEND_SECCOMP | PTRACE_O_TRACESYSGOOD);
}

static s32 thread_index(s32 tid)
{
	for (u32 i = 0; i < ntids; i++)
		if (tids[i] == tid)
			return (s32)i;
	return -1;
}

struct dirent_ { u64 ino; s64 off; u16 len; u8 type; char name[]; };

/* each_entry calls f for each name of a directory that is a number, and returns
 * how many other names there were besides . and .. */
static int each_entry(s32 fd, int (*f)(s32 number, void *data), void *data)
{
	static u8 buffer[16384] __attribute__((aligned(8)));
	int others = 0;
	sys(__NR_lseek, fd, 0, 0);
	for (;;) {
		long n = sys(__NR_getdents64, fd, buffer, sizeof buffer);
		if (n < 0)
			return (int)n;
		if (!n)
			return others;
		for (long at = 0; at < n;) {
			struct dirent_ *d = (struct dirent_ *)(buffer + at);
			at += d->len;
			s64 v = 0;
			char *p = d->name;
			for (; *p >= '0' && *p <= '9' && v < 1 << 30; p++)
				v = v * 10 + (*p - '0');
			if (*p || p == d->name) {
				if (!(d->name[0] == '.' && (!d->name[1] || (d->name[1] == '.' && !d->name[2]))))
					others++;
				continue;
			}
			if (f && f((s32)v, data) < 0)
				return -1;
		}
	}
}

struct stopping { s32 dir; u32 fresh; u32 known; };

/* take_thread holds a thread that is not held yet. Between the listing and the
 * call its number may have gone to a process of somebody else's, which is why it
 * is looked up again before it is stopped. */
static int take_thread(s32 tid, void *data)
{
	struct stopping *s = data;
	if (thread_index(tid) >= 0)
		return 0;
	/* Not one more is waited for than will be ended: each takes its time to stop. */
	if (ntids >= (s->known ? s->known + MAX_EXTRA_THREADS : MAX_THREADS * 2))
		return refuse("it has too many threads");
	long r = seize(tid);
	if (r == -ESRCH || r == -EPERM)
		return 0; /* it is ending; if it stays, the comparison of threads tells */
	if (r == -EINVAL)
		return fail2(REWIND_UNABLE, "PTRACE_O_SUSPEND_SECCOMP is refused", -1, "");
	if (r < 0)
		return refuse_n("a thread cannot be traced: errno", -r);
	char name[24];
	u8 buffer[256];
	decimal(name, (u64)tid);
	int ours = sys(__NR_newfstatat, s->dir, name, buffer, 0) >= 0;
	sys(__NR_ptrace, PTRACE_INTERRUPT, tid, 0, 0);
	if (!ours) {
		s32 status;
		if (wait_for(tid, &status) == tid && STOPPED(status))
			sys(__NR_ptrace, PTRACE_DETACH, tid, 0, 0);
		return 0;
	}
	tids[ntids] = tid;
	stopped[ntids++] = 0;
	s->fresh++;
	return 0;
}

/* await_stops waits until all threads that are held stand still. */
static int await_stops(int drop_signals)
{
	for (u32 i = 0; i < ntids; i++) {
		if (stopped[i])
			continue;
		s32 status;
		long r = wait_for(tids[i], &status);
		if (r == -EINTR)
			return refuse_n("a thread does not stop: thread", tids[i]);
		if (r < 0 || !STOPPED(status)) { /* it has ended */
			tids[i] = tids[--ntids];
			stopped[i] = stopped[ntids];
			i--;
			continue;
		}
		stopped[i] = 1;
		if (STOP_EVENT(status) == PTRACE_EVENT_STOP_ && STOP_SIGNAL(status) != SIGTRAP)
			return refuse_n("it is stopped by signal", STOP_SIGNAL(status));
		if (!STOP_EVENT(status) && !drop_signals) {
			/* hand the signal on, it is the program's */
			sys(__NR_ptrace, PTRACE_DETACH, tids[i], 0, STOP_SIGNAL(status));
			tids[i] = tids[--ntids];
			stopped[i] = stopped[ntids];
			return refuse("a signal is arriving");
		}
	}
	return 0;
}

/* stop_all holds every thread: those that are known first, all at once, then
 * those that the listing shows, until it shows no new one. */
static int stop_all(s32 task_dir, struct thread *known, u32 nknown, int drop_signals)
{
	struct stopping s = {task_dir, 0, nknown};
	ntids = 0;
	for (u32 i = 0; i < nknown; i++) {
		long r = seize(known[i].tid);
		if (r < 0) {
			if (r == -ESRCH || r == -EPERM)
				return refuse_n("a thread has ended: thread", known[i].tid);
			return refuse_n("a thread cannot be traced: errno", -r);
		}
		tids[ntids] = known[i].tid;
		stopped[ntids++] = 0;
	}
	for (u32 i = 0; i < nknown; i++) {
		/* The number may be another process's by now; the descriptor cannot be. */
		u8 name[32];
		if (sys(__NR_pread64, known[i].comm, name, sizeof name, 0) < 0)
			return refuse_n("a thread has ended: thread", known[i].tid);
	}
	for (u32 i = 0; i < nknown; i++)
		sys(__NR_ptrace, PTRACE_INTERRUPT, known[i].tid, 0, 0);
	if (await_stops(drop_signals) < 0)
		return -1;
	for (u32 round = 0;; round++) {
		s.fresh = 0;
		int r = each_entry(task_dir, take_thread, &s);
		if (r < 0)
			return verdict ? -1 : fail2(REWIND_ENDED, "the program has ended", -1, "");
		if (await_stops(drop_signals) < 0)
			return -1;
		if (!s.fresh)
			return ntids ? 0 : fail2(REWIND_ENDED, "the program has ended", -1, "");
		if (late() < 0)
			return -1;
	}
}

/* let_go lets all threads run on, and returns the first error. */
static long let_go(void)
{
	long r = 0;
	for (u32 i = 0; i < ntids; i++) {
		long e = stopped[i] ? sys(__NR_ptrace, PTRACE_DETACH, tids[i], 0, 0) : 0;
		if (e < 0 && !r)
			r = e;
	}
	ntids = 0;
	return r;
}

/* --- System calls by the process --------------------------------------------------------- */

/* One call of a batch, as the stub reads it. */
struct call { u64 nr, arg[6], result; };

#define TABLE_PAGES 4
#define OUT_PAGES 1
#define PATH_SIZE 256u /* of the last page, for the name of a directory */
#define STUB_PAGES (1 + TABLE_PAGES + OUT_PAGES)
#define TABLE_CALLS (TABLE_PAGES * PAGE / sizeof(struct call))
#define STUB_CODE(stub) (stub)
#define STUB_TABLE(stub) ((stub) + PAGE)
#define STUB_OUT(stub) ((stub) + PAGE + TABLE_PAGES * PAGE)

/* The stub runs a table of calls and traps. It uses no stack. Behind it is what
 * ends a thread. */
extern const u8 stub_begin[], stub_exit[], stub_end[];
#if defined(__x86_64__)
__asm__(".text\n"
	".globl stub_begin\nstub_begin:\n"
	"1:	test %ebp, %ebp\n"
	"	jz 2f\n"
	"	mov (%rbx), %rax\n"
	"	mov 8(%rbx), %rdi\n"
	"	mov 16(%rbx), %rsi\n"
	"	mov 24(%rbx), %rdx\n"
	"	mov 32(%rbx), %r10\n"
	"	mov 40(%rbx), %r8\n"
	"	mov 48(%rbx), %r9\n"
	"	syscall\n"
	"	mov %rax, 56(%rbx)\n"
	"	add $64, %rbx\n"
	"	dec %ebp\n"
	"	jmp 1b\n"
	"2:	int3\n"
	".globl stub_exit\nstub_exit:\n"
	"	mov $60, %eax\n"
	"	xor %edi, %edi\n"
	"	syscall\n"
	"	hlt\n"
	".globl stub_end\nstub_end:\n");
#else
__asm__(".text\n"
	".globl stub_begin\nstub_begin:\n"
	"1:	cbz w20, 2f\n"
	"	ldp x8, x0, [x19]\n"
	"	ldp x1, x2, [x19, #16]\n"
	"	ldp x3, x4, [x19, #32]\n"
	"	ldr x5, [x19, #48]\n"
	"	svc #0\n"
	"	str x0, [x19, #56]\n"
	"	add x19, x19, #64\n"
	"	sub w20, w20, #1\n"
	"	b 1b\n"
	"2:	brk #0\n"
	".globl stub_exit\nstub_exit:\n"
	"	mov x8, #93\n"
	"	mov x0, xzr\n"
	"	svc #0\n"
	"	brk #0\n"
	".globl stub_end\nstub_end:\n");
#endif

static long vm_copy(int nr, s32 pid, void *here, u64 there, u64 n)
{
	struct iovec_ l = {here, n}, r = {(void *)there, n};
	return sys(nr, pid, &l, 1, &r, 1, 0);
}
static long vm_read(s32 pid, void *to, u64 from, u64 n) { return vm_copy(__NR_process_vm_readv, pid, to, from, n); }
static long vm_write(s32 pid, u64 to, const void *from, u64 n) { return vm_copy(__NR_process_vm_writev, pid, (void *)from, to, n); }

/* block_signals keeps handlers from running while the process works for us. The
 * trap must come through, or the kernel would change what the program does about it. */
static long block_signals(s32 tid)
{
	u64 all = ~(1ull << (SIGTRAP - 1));
	return sys(__NR_ptrace, PTRACE_SETSIGMASK_, tid, 8, &all);
}

/* run_batch has a stopped thread, whose signals are blocked, make calls. base are
 * registers to start from. The results are in calls. */
static int run_batch(s32 tid, u64 stub, const struct regs *base, struct call *calls, u32 n)
{
	static u8 code[PAGE], wanted[PAGE];
	u64 code_size = (u64)(stub_end - stub_begin);
	for (u64 i = 0; i < code_size; i++)
		wanted[i] = stub_begin[i];
	if (!n)
		return 0;
	if (n > TABLE_CALLS)
		return refuse("a batch is too long");
	/* All of the page: what is behind the code could be used to remember something. */
	if (vm_read(tid, code, STUB_CODE(stub), PAGE) != (long)PAGE || !same_bytes(code, wanted, PAGE))
		return refuse("memory of ours in it was written to");
	if (vm_write(tid, STUB_TABLE(stub), calls, n * sizeof *calls) != (long)(n * sizeof *calls))
		return refuse("memory of ours in it cannot be written");
	struct regs r = *base;
	for_stub(&r, STUB_CODE(stub), STUB_TABLE(stub), n);
	if (set_regs(tid, &r) < 0)
		return refuse("registers cannot be set");
	for (u32 tries = 0;; tries++) {
		s32 status;
		if (sys(__NR_ptrace, PTRACE_CONT, tid, 0, 0) < 0)
			return refuse("a thread cannot be made to go on");
		stopped[thread_index(tid)] = 0;
		if (wait_for(tid, &status) != tid)
			return refuse("it does not answer");
		if (!STOPPED(status))
			return fail2(REWIND_ENDED, "the program has ended", -1, "");
		stopped[thread_index(tid)] = 1;
		if (STOP_EVENT(status) == PTRACE_EVENT_STOP_ && STOP_SIGNAL(status) == SIGTRAP && tries < 3)
			continue; /* the interrupt that a signal had overtaken */
		if (STOP_EVENT(status) || STOP_SIGNAL(status) != SIGTRAP)
			return refuse_n("an unexpected stop while it worked for us: signal", STOP_SIGNAL(status));
		if (get_regs(tid, &r) < 0)
			return refuse("registers cannot be read");
		if (REG_IP(&r) == STUB_CODE(stub) && tries < 3)
			continue; /* a trap of the program's own from before */
		break;
	}
	if (REG_IP(&r) != STUB_CODE(stub) + (u64)(stub_exit - stub_begin) - (TRAP_BYTES ? 0 : 4))
		return refuse("an unexpected stop while it worked for us");
	if (vm_read(tid, calls, STUB_TABLE(stub), n * sizeof *calls) != (long)(n * sizeof *calls))
		return refuse("memory of ours in it cannot be read");
	return 0;
}

/* wipe_stub leaves nothing in the stub's data: neither what we asked, which tells
 * what was done before, nor what the program may have put there. */
static int wipe_stub(s32 pid, u64 stub)
{
	static u8 zeros[(TABLE_PAGES + OUT_PAGES) * PAGE];
	return vm_write(pid, STUB_TABLE(stub), zeros, sizeof zeros) == (long)sizeof zeros ? 0 : refuse("memory of ours in it cannot be written");
}

/* single_call has a thread make one call with a system call instruction of its
 * own, before there is a stub. */
static long single_call(s32 tid, const struct regs *base, u64 instruction, u64 nr, const u64 *arg)
{
	struct regs r = *base;
#if defined(__x86_64__)
	r.ip = instruction;
	r.ax = nr;
	r.di = arg[0];
	r.si = arg[1];
	r.dx = arg[2];
	r.r10 = arg[3];
	r.r8 = arg[4];
	r.r9 = arg[5];
	r.orig_ax = ~0ull;
	r.flags &= ~0x500ull;
#else
	r.pc = instruction;
	r.x[8] = nr;
	for (u32 i = 0; i < 6; i++)
		r.x[i] = arg[i];
#endif
	if (set_regs(tid, &r) < 0)
		return -ESRCH;
	for (u32 stops = 0; stops < 2;) {
		s32 status;
		if (sys(__NR_ptrace, PTRACE_SYSCALL, tid, 0, 0) < 0)
			return -ESRCH;
		stopped[thread_index(tid)] = 0;
		if (wait_for(tid, &status) != tid || !STOPPED(status))
			return -ESRCH;
		stopped[thread_index(tid)] = 1;
		if (STOP_SIGNAL(status) == (SIGTRAP | 0x80))
			stops++;
		else if (STOP_EVENT(status) != PTRACE_EVENT_STOP_)
			return -EINTR;
	}
	if (get_regs(tid, &r) < 0)
		return -ESRCH;
#if defined(__x86_64__)
	return (long)r.ax;
#else
	return (long)r.x[0];
#endif
}

#endif
