/* Threads that a fork takes along.
 *
 * The kernel's fork copies the thread that calls it, and no other. V8 and libuv have ten more,
 * which hold what the process waits for: whoever joined one, or waited for its work, would wait
 * for ever. So the threads of a zygote are parked in a signal handler, where all that they were at
 * lies in memory: their registers in the signal's frame, their stack and their thread's memory. A
 * child, which has a copy of that memory, makes threads of the kernel for them, and each of those
 * returns from the handler. Then everything is as it was before the signal, but in another process.
 *
 * A thread that is parked anywhere in a program, also with a lock in its hand, goes on there in each
 * child. A wait on a futex begins anew, and one with a bound ends with EINTR, as with any signal. */
#ifndef BRASA_THREADS_H
#define BRASA_THREADS_H

#include "../../../internal/sandbox/spawner/steps.h"

/* The C library's own (SIGCANCEL), which is never blocked: its sigprocmask leaves it out, also where
 * a program blocks all, as Node.js does in the thread that listens for a debugger. */
#define PARK 32
#define MAX_THREADS 1100 /* libuv's pool has up to 1,024 */

struct parked {
	void *frame; /* the stack pointer for sigreturn */
	u64 tls;
	s32 *id; /* where the C library keeps the thread's number, and the kernel wipes it at the end */
	void *robust;
	u64 robust_size;
	s32 was; /* its number in the zygote */
	u32 there;
};
static struct parked parked[MAX_THREADS];
static u32 claimed;

struct action { void *handler; u64 flags; void *restorer; u64 mask; };
#define SA_SIGINFO_ 4
#define SA_RESTORER_ 0x04000000
#define SA_RESTART_ 0x10000000

/* Where the C library keeps the memory that it shares with the kernel about restartable sequences;
 * since glibc 2.35. */
__attribute__((weak)) extern const long __rseq_offset;
__attribute__((weak)) extern const unsigned __rseq_size;
#if defined(__x86_64__)
#define RSEQ_SIGNATURE 0x53053053
#else
#define RSEQ_SIGNATURE 0xd428bc00
#endif

void *return_from_signal(void);
long clone_thread(u64 flags, void *stack, s32 *parent_id, s32 *child_id, u64 tls, struct parked *p);

#if defined(__x86_64__)
#define FRAME(info, context) (context) /* above the restorer's address, which a return has taken */
__asm__(".text\n"
	".hidden return_from_signal\n"
	".globl return_from_signal\n"
	".type return_from_signal,@function\n"
	"return_from_signal:\n"
	"	mov $15, %eax\n"
	"	syscall\n"
	"	hlt\n"
	".hidden revived\n"
	".hidden clone_thread\n"
	".globl clone_thread\n"
	".type clone_thread,@function\n"
	"clone_thread:\n"
	"	mov %rcx, %r10\n"
	"	mov $56, %eax\n" /* clone(flags, stack, parent_tid, child_tid, tls) */
	"	syscall\n"
	"	test %rax, %rax\n"
	"	jnz 1f\n"
	"	xor %ebp, %ebp\n"
	"	mov %r9, %rdi\n"
	"	call revived\n"
	"	mov $15, %eax\n" /* rt_sigreturn, by the frame that the stack pointer is at again */
	"	syscall\n"
	"	hlt\n"
	"1:	ret\n");
static u64 thread_pointer(void)
{
	u64 p = 0;
	sys(__NR_arch_prctl, 0x1003 /* ARCH_GET_FS */, &p);
	return p;
}
#else
#define FRAME(info, context) (info) /* the frame's first field */
__asm__(".text\n"
	".hidden return_from_signal\n"
	".globl return_from_signal\n"
	".type return_from_signal,%function\n"
	"return_from_signal:\n"
	"	mov x8, #139\n"
	"	svc #0\n"
	"	brk #0\n"
	".hidden revived\n"
	".hidden clone_thread\n"
	".globl clone_thread\n"
	".type clone_thread,%function\n"
	"clone_thread:\n"
	"	mov x9, x3\n"
	"	mov x3, x4\n"
	"	mov x4, x9\n"
	"	mov x8, #220\n" /* clone(flags, stack, parent_tid, tls, child_tid) */
	"	svc #0\n"
	"	cbnz x0, 1f\n"
	"	mov x29, xzr\n"
	"	mov x0, x5\n"
	"	bl revived\n"
	"	mov x8, #139\n"
	"	svc #0\n"
	"	brk #0\n"
	"1:	ret\n");
static u64 thread_pointer(void)
{
	u64 p;
	__asm__("mrs %0, tpidr_el0" : "=r"(p));
	return p;
}
#endif

/* park is the handler. It never returns in the zygote. */
static void park(int sig, void *info, void *context)
{
	(void)sig, (void)info, (void)context;
	u32 at = __atomic_fetch_add(&claimed, 1, __ATOMIC_SEQ_CST);
	if (at < MAX_THREADS) {
		struct parked *p = &parked[at];
		p->frame = FRAME(info, context);
		p->tls = thread_pointer();
		sys(__NR_prctl, PR_GET_TID_ADDRESS, &p->id, 0, 0, 0);
		sys(__NR_get_robust_list, 0, &p->robust, &p->robust_size);
		p->was = (s32)sys(__NR_gettid);
		__atomic_store_n(&p->there, 1, __ATOMIC_SEQ_CST);
	}
	for (;;)
		sys(__NR_ppoll, 0, 0, 0, 0, 0);
}

static u32 threads_parked(void)
{
	u32 n = 0, top = __atomic_load_n(&claimed, __ATOMIC_SEQ_CST);
	for (u32 i = 0; i < top && i < MAX_THREADS; i++)
		n += __atomic_load_n(&parked[i].there, __ATOMIC_SEQ_CST);
	return n;
}

static struct action usual; /* what was done on PARK before */

static long set_action(struct action *new, struct action *old)
{
#if defined(__aarch64__)
	new->flags &= ~(u64)SA_RESTORER_;
#endif
	return sys(__NR_rt_sigaction, PARK, new, old, 8);
}

/* tell_others sends PARK to each thread that has not had it. It returns how many there were. */
static long tell_others(s32 *told, u32 *ntold)
{
	static u8 list[32768];
	long self = sys(__NR_gettid), pid = sys(__NR_getpid), found = 0;
	long dir = sys(__NR_openat, AT_FDCWD, "/proc/self/task", O_RDONLY | O_CLOEXEC, 0);
	if (dir < 0)
		return dir;
	for (long n; (n = sys(__NR_getdents64, dir, list, sizeof list)) > 0;) {
		for (long at = 0; at < n; at += *(u16 *)(list + at + 16)) {
			s32 id = 0;
			const char *name = (const char *)list + at + 19;
			if (*name == '.')
				continue;
			while (*name)
				id = id * 10 + (*name++ - '0');
			u32 known = 0;
			while (known < *ntold && told[known] != id)
				known++;
			if (id == self || known < *ntold)
				continue;
			if (*ntold == MAX_THREADS) {
				sys(__NR_close, dir);
				return -EINVAL;
			}
			told[(*ntold)++] = id;
			if (sys(__NR_tgkill, pid, id, PARK) < 0)
				(*ntold)--; /* it has ended */
			else
				found++;
		}
	}
	sys(__NR_close, dir);
	return found;
}

/* park_threads parks all threads but this one. It returns why it could not; 0 if it could. */
static const char *park_threads(void)
{
	static s32 told[MAX_THREADS];
	u32 ntold = 0;
	struct action a = {(void *)park, SA_SIGINFO_ | SA_RESTORER_ | SA_RESTART_, (void *)return_from_signal, ~0ull};
	struct timespec_ moment = {0, 1000000};
	if (set_action(&a, &usual) < 0)
		return "its threads can't be sent the signal that parks them";
	for (;;) {
		long found = tell_others(told, &ntold);
		if (found < 0)
			return "its threads can't be listed, or are too many";
		for (int i = 0; threads_parked() < ntold; i++) {
			if (i == 5000)
				return "a thread does not take the signal that parks it";
			sys(__NR_nanosleep, &moment, 0);
		}
		if (!found)
			break; /* those that there are can make no more */
	}
	for (u32 i = 0; i < ntold; i++)
		if (!parked[i].id || *parked[i].id != parked[i].was || !parked[i].tls)
			return "its C library keeps the numbers of threads elsewhere than glibc does";
	return 0;
}

/* revived is what the kernel's new thread does before it becomes the one that was parked. */
__attribute__((used)) void revived(struct parked *p)
{
	sys(__NR_set_robust_list, p->robust, p->robust_size);
	if (&__rseq_size && __rseq_size) {
		u32 *area = (u32 *)(p->tls + (u64)__rseq_offset);
		area[0] = 0;           /* processor, for a sequence that begins */
		area[1] = (u32)-1;     /* processor: not known yet */
		*(u64 *)(area + 2) = 0; /* in no sequence */
		if (sys(__NR_rseq, area, 32, 0, RSEQ_SIGNATURE) < 0)
			area[1] = (u32)-2; /* the C library asks the kernel then */
	}
}

/* revive_threads makes threads of those that were parked in the process that this is a copy of. */
static long revive_threads(void)
{
	const u64 flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
			  CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
	for (u32 i = 0; i < claimed; i++) {
		struct parked *p = &parked[i];
		long r = clone_thread(flags, p->frame, p->id, p->id, p->tls, p);
		if (r < 0)
			return r;
	}
	return set_action(&usual, 0);
}

#endif
