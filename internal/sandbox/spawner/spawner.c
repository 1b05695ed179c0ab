/* The spawner: one resident process that makes sandboxes.
 *
 * It lives, as pid 1 of a pid namespace, in a mount namespace that holds
 * exactly the read-only root that every sandbox sees. So a sandbox costs a
 * clone and a handful of mounts: what others build each time is inherited. And
 * when it dies, by any cause, the kernel kills whatever it has made.
 *
 * It is told what to do in steps (wire.h) and has no opinion of its own; which
 * steps in which order make a sandbox is said in one place, steps.go. It trusts
 * the host, and it alone: nothing that runs in a sandbox can talk to it.
 *
 * Namespaces are made beforehand, by a process that stays in them as pid 1 and
 * does nothing but reap: a nest. A program is started into a nest, as its second
 * process. So it is not the init of its pid namespace, which would make it deaf
 * to signals of its own, SIGKILL and abort among them, and the keeper of other
 * processes' orphans. When the program ends, the nest is killed, and with it
 * whatever else the program has left there.
 *
 * The program's process is made with CLONE_VM|CLONE_VFORK: it borrows this memory and a
 * stack while the spawner stands still, and leaves both at exec. Nothing here
 * may therefore keep a pointer or a lock across raw_clone, and nothing allocates.
 * Should the program's memory run out before exec, the kernel fails the call: it
 * does not choose a process in vfork, which would take this one with it. */
#include "steps.h"

#define SOCK 3 /* where the host puts its socket */

static u8 message[MAX_REQUEST] __attribute__((aligned(16)));
static u8 stack[128 * 1024] __attribute__((aligned(16)));
static char *vector[MAX_REQUEST / 16]; /* argv and envp; each string takes a byte or more of the request */

/* A nest and the program in it. */
struct nest {
	s32 pid, pidfd; /* of its pid 1; 0: this slot is free */
	s32 program;    /* 0: none yet */
	u64 id;         /* of the request that started it */
	u64 made;       /* of the request that made the nest */
};
static struct nest nests[MAX_NESTS];
static s32 top;      /* slots in use are below */
static s32 here;     /* nest of the request being served, or -1 */
static long self_fd; /* pidfd of the spawner */

/* What the child leaves for the spawner to read. In memory of its own, shared
 * also with a child that was made by copying. */
struct outcome { s32 error; s32 step; };
static volatile struct outcome *outcome;

static u64 now(void)
{
	struct timespec_ t;
	sys(__NR_clock_gettime, 1, &t);
	return (u64)t.sec * 1000000000ull + (u64)t.nsec;
}

/* arrange_fds gives the child its first descriptors and closes all others. The
 * sources are first moved above the range they are copied to, so that no copy
 * overwrites one that is still to come. */
static long arrange_fds(u64 count, u64 from)
{
	s32 high[8];
	if (count > 8 || from + count > nfds)
		return -EINVAL;
	for (u64 i = 0; i < count; i++) {
		long r = sys(__NR_fcntl, fds[from + i], 1030 /* F_DUPFD_CLOEXEC */, 16);
		if (r < 0)
			return r;
		high[i] = (s32)r;
	}
	for (u64 i = 0; i < count; i++) {
		long r = sys(__NR_dup3, high[i], i, 0);
		if (r < 0)
			return r;
	}
	return sys(__NR_close_range, count, ~0u, 0);
}

static long run_exec(struct step *s)
{
	char *p = text(s, 0);
	u64 n = 0;
	if (s->a + s->b + 2 > sizeof vector / sizeof *vector)
		return -E2BIG;
	for (u64 i = 0; i < s->a; i++, p += length(p) + 1)
		vector[n++] = p;
	vector[n++] = 0;
	char **env = vector + n;
	for (u64 i = 0; i < s->b; i++, p += length(p) + 1)
		vector[n++] = p;
	vector[n] = 0;
	return sys(__NR_execve, vector[0], vector, env);
}

static int ready_fd; /* where a nest says that it is ready */

/* hold is what pid 1 of a nest does for the rest of its life. */
static void __attribute__((noreturn)) hold(void)
{
	u64 chld = 1ull << (SIGCHLD - 1);
	sys(__NR_rt_sigprocmask, SIG_SETMASK, &chld, 0, 8);
	sys(__NR_write, ready_fd, "", 1);
	sys(__NR_close_range, 0, ~0u, 0);
	for (;;) {
		while (sys(__NR_wait4, -1, 0, WNOHANG, 0) > 0)
			;
		sys(__NR_rt_sigtimedwait, &chld, 0, 0, 8);
	}
}

static long run_step(struct step *s)
{
	switch (s->op) {
	case OP_ENTER:
		return here < 0 ? -EINVAL : sys(__NR_setns, nests[here].pidfd, s->a);
	case OP_FDS:
		return arrange_fds(s->a, s->b);
	case OP_EXEC:
		return run_exec(s);
	case OP_HOLD:
		hold();
	case OP_WAIT:
		vector[0] = "brasa-wait";
		vector[1] = vector[2] = 0;
		return sys(__NR_execveat, s->a, "", vector, vector + 1, 0x1000 /* AT_EMPTY_PATH */);
	}
	return run_common(s);
}

static u8 *steps;
static u32 nsteps;

/* run_steps runs the request's steps and leaves the outcome. */
static void run_steps(void)
{
	u8 *p = steps;
	outcome->error = 0;
	for (u32 i = 0; i < nsteps; i++) {
		struct step *s = (struct step *)p;
		outcome->step = (s32)i;
		long r = run_step(s);
		if (r < 0 && !(s->flags & STEP_OPTIONAL)) {
			outcome->error = (s32)-r;
			return;
		}
		p += s->size;
	}
}

static void child(void)
{
	/* The spawner has SIGCHLD blocked for its signalfd; the program must not inherit that. */
	u64 none = 0;
	sys(__NR_rt_sigprocmask, SIG_SETMASK, &none, 0, 8);
	run_steps();
	if (!outcome->error)
		outcome->error = EINVAL; /* the steps ended without exec */
	for (;;)
		sys(__NR_exit_group, 127);
}

static long make_process(struct request *q, s32 *pidfd)
{
	u64 flags = q->clone_flags | CLONE_PIDFD | CLONE_VFORK;
	if (!(q->flags & REQUEST_COPY))
		flags |= CLONE_VM;
	if (q->cgroup < 0)
		return raw_clone(flags | SIGCHLD, stack + sizeof stack, pidfd, child);
	struct clone_args args;
	memset(&args, 0, sizeof args);
	args.flags = flags | CLONE_INTO_CGROUP;
	args.pidfd = (u64)(unsigned long)pidfd;
	args.exit_signal = SIGCHLD;
	args.stack = (u64)(unsigned long)stack;
	args.stack_size = sizeof stack;
	args.cgroup = (u64)descriptor((u64)q->cgroup);
	return raw_clone3(&args, sizeof args, child);
}

static s32 free_slot(void)
{
	for (s32 i = 0; i < MAX_NESTS; i++)
		if (!nests[i].pid)
			return i;
	return -1;
}

/* make_nest forks: the new process keeps its memory, a few pages, for good. It
 * is waited for on a pipe, which also tells if it dies on the way. */
static long make_nest(struct request *q, s32 *pidfd)
{
	s32 slot = free_slot(), pipe[2];
	if (slot < 0)
		return -EAGAIN;
	long r = sys(__NR_pipe2, pipe, O_CLOEXEC);
	if (r < 0)
		return r;
	ready_fd = pipe[1];
	long pid = raw_clone(q->clone_flags | CLONE_PIDFD | SIGCHLD, 0, pidfd, child);
	sys(__NR_close, pipe[1]);
	if (pid > 0) {
		u8 byte;
		do
			r = sys(__NR_read, pipe[0], &byte, 1);
		while (r == -EINTR);
		if (r == 1)
			outcome->error = 0;
		else if (!outcome->error)
			outcome->error = ESRCH;
		nests[slot].pid = (s32)pid;
		nests[slot].pidfd = *pidfd;
		nests[slot].program = 0;
		nests[slot].made = q->id;
		if (slot >= top)
			top = slot + 1;
		if (outcome->error)
			sys(__NR_pidfd_send_signal, *pidfd, SIGKILL, 0, 0);
	}
	sys(__NR_close, pipe[0]);
	return pid < 0 ? pid : slot;
}

/* vacant says whether the request's nest is the one it means, alive and without a
 * program. */
static int vacant(struct request *q)
{
	return q->nest >= 0 && q->nest < top && nests[q->nest].pid && !nests[q->nest].program &&
	       nests[q->nest].made == q->made;
}

/* start_program runs a program in a nest. setns for pids counts for children,
 * and only until it is taken back. */
static long start_program(struct request *q, s32 *pidfd)
{
	if (!vacant(q))
		return -ESRCH;
	here = q->nest;
	struct nest *n = &nests[here];
	long pid = sys(__NR_setns, n->pidfd, CLONE_NEWPID);
	if (pid >= 0) {
		pid = make_process(q, pidfd);
		sys(__NR_setns, self_fd, CLONE_NEWPID);
	}
	if (pid < 0 || outcome->error) {
		sys(__NR_pidfd_send_signal, n->pidfd, SIGKILL, 0, 0); /* it is no longer fresh */
	} else {
		n->program = (s32)pid;
		n->id = q->id;
	}
	here = -1;
	return pid < 0 ? pid : q->nest;
}

/* take_program makes a process that a zygote has cloned into a nest the nest's
 * program. It is our child. If it has been reaped already, its end was told to
 * nobody, and its pid may be another's: the pidfd tells. */
static long take_program(struct request *q)
{
	u8 info[128];
	if (!vacant(q) || q->pid <= 1 || nfds < 1)
		return -ESRCH;
	long r = sys(__NR_waitid, P_PIDFD, fds[0], info, WEXITED | WNOHANG | WNOWAIT, 0);
	if (r < 0) {
		sys(__NR_pidfd_send_signal, nests[q->nest].pidfd, SIGKILL, 0, 0);
		return r;
	}
	nests[q->nest].program = q->pid;
	nests[q->nest].id = q->id;
	return q->nest;
}

static long make(struct request *q, s32 *pidfd)
{
	switch (q->kind) {
	case KIND_NEST:
		return make_nest(q, pidfd);
	case KIND_START:
		return start_program(q, pidfd);
	case KIND_FORKED:
		return take_program(q);
	case KIND_ZYGOTE: {
		long pid = make_process(q, pidfd);
		return pid < 0 ? pid : -outcome->error;
	}
	}
	return -EBADMSG;
}

static void say(struct answer *a, s32 fd)
{
	struct { struct cmsghdr_ head; s32 fd; s32 pad; } control = {
		{sizeof(struct cmsghdr_) + sizeof(s32), SOL_SOCKET_, SCM_RIGHTS_}, fd, 0};
	struct iovec_ iov = {a, sizeof *a};
	struct msghdr_ m;
	memset(&m, 0, sizeof m);
	m.iov = &iov;
	m.iovlen = 1;
	if (fd >= 0) {
		m.control = &control;
		m.controllen = sizeof control;
	}
	long r;
	do
		r = sys(__NR_sendmsg, SOCK, &m, MSG_NOSIGNAL_);
	while (r == -EINTR);
	if (r < 0)
		sys(__NR_exit_group, 0); /* the host is gone, and with us goes all we made */
}

/* fetch reads steps that were too long for one message. */
static s32 fetch(struct request *q)
{
	if (!nfds || q->bytes > sizeof message - sizeof *q)
		return EBADMSG;
	for (u64 at = 0; at < q->bytes;) {
		long n = sys(__NR_pread64, fds[nfds - 1], steps + at, q->bytes - at, at);
		if (n <= 0)
			return n ? (s32)-n : EBADMSG;
		at += (u64)n;
	}
	return 0;
}

static void serve(u64 size)
{
	u64 begin = now();
	struct request *q = (struct request *)message;
	struct answer a;
	memset(&a, 0, sizeof a);
	a.version = WIRE_VERSION;
	a.kind = KIND_DONE;
	a.step = -2;
	steps = message + sizeof *q;
	s32 pidfd = -1;
	if (size < sizeof *q) {
		a.error = EBADMSG;
	} else {
		a.id = q->id;
		u64 have = size - sizeof *q;
		if (q->flags & REQUEST_BY_FD) {
			a.error = fetch(q);
			have = q->bytes;
		}
		if (!a.error)
			a.error = check(q, steps, have);
	}
	if (!a.error) {
		nsteps = q->steps;
		outcome->error = 0;
		if (q->kind == KIND_SETUP) {
			run_steps();
		} else {
			outcome->step = -1;
			long nest = make(q, &pidfd);
			if (nest < 0)
				outcome->error = (s32)-nest;
			a.nest = (s32)nest;
		}
		a.error = outcome->error;
		a.step = outcome->step;
	}
	a.took = now() - begin;
	say(&a, a.error ? -1 : pidfd);
	if (pidfd >= 0 && q->kind != KIND_NEST) /* a nest's is kept */
		sys(__NR_close, pidfd);
	for (u32 i = 0; i < nfds; i++)
		sys(__NR_close, fds[i]);
	nfds = 0;
	/* Environments hold secrets; the next child borrows this memory. */
	if (size >= sizeof *q)
		memset(message, 0, size > sizeof *q + q->bytes ? size : sizeof *q + q->bytes);
}

static void receive(void)
{
	struct { struct cmsghdr_ head; s32 fd[MAX_FDS]; } control;
	struct iovec_ iov = {message, sizeof message};
	struct msghdr_ m;
	memset(&m, 0, sizeof m);
	m.iov = &iov;
	m.iovlen = 1;
	m.control = &control;
	m.controllen = sizeof control;
	long n = sys(__NR_recvmsg, SOCK, &m, MSG_CMSG_CLOEXEC_);
	if (n == -EINTR || n == -EAGAIN)
		return;
	if (n <= 0)
		sys(__NR_exit_group, 0); /* the host closed its end or died */
	nfds = 0;
	if (m.controllen >= sizeof control.head && control.head.type == SCM_RIGHTS_) {
		nfds = (u32)((control.head.len - sizeof control.head) / sizeof(s32));
		for (u32 i = 0; i < nfds; i++)
			fds[i] = control.fd[i];
	}
	serve(m.flags & (MSG_TRUNC_ | MSG_CTRUNC_) ? 0 : (u64)n);
}

/* ended tells the host that a program or a nest has ended. With the program ends
 * its nest; pid 1 of a pid namespace is reaped last. Two messages, because taking
 * the namespaces down makes the second a millisecond late. */
static void ended(s32 pid, struct answer *a)
{
	for (s32 i = 0; i < top; i++) {
		struct nest *n = &nests[i];
		if (n->pid && n->program == pid) {
			a->kind = KIND_EXITED;
			a->id = n->id;
			a->nest = i;
			n->program = -1; /* it was; its id is free for others */
			say(a, -1); /* first, since somebody waits for it */
			sys(__NR_pidfd_send_signal, n->pidfd, SIGKILL, 0, 0);
			return;
		}
		if (n->pid == pid) {
			if (n->program) {
				a->kind = KIND_EMPTY;
				a->id = n->id;
				a->nest = i;
				say(a, -1);
			}
			sys(__NR_close, n->pidfd);
			memset(n, 0, sizeof *n);
			while (top && !nests[top - 1].pid)
				top--;
			return;
		}
	}
}

static void reap(void)
{
	for (;;) {
		struct rusage_ use;
		struct answer a;
		memset(&a, 0, sizeof a);
		long pid = sys(__NR_wait4, -1, &a.status, WNOHANG, &use);
		if (pid <= 0)
			return;
		a.version = WIRE_VERSION;
		a.user_us = (u64)(use.utime[0] * 1000000 + use.utime[1]);
		a.system_us = (u64)(use.stime[0] * 1000000 + use.stime[1]);
		a.max_rss_kb = (u64)use.maxrss;
		ended((s32)pid, &a);
	}
}

static void leave(void) { sys(__NR_exit_group, 0); }

__attribute__((used)) void spawner_main(void)
{
	struct { void *handler; u64 flags; void *restorer; u64 mask; } dfl = {0, 0, 0, 0};
	for (int sig = 1; sig <= 64; sig++)
		sys(__NR_rt_sigaction, sig, &dfl, 0, 8);
	sys(__NR_prctl, PR_SET_NAME, "brasa-spawner", 0, 0, 0);
	sys(__NR_umask, 022);
	u64 chld = 1ull << (SIGCHLD - 1);
	sys(__NR_rt_sigprocmask, SIG_SETMASK, &chld, 0, 8);
	long sigfd = sys(__NR_signalfd4, -1, &chld, 8, O_CLOEXEC | 04000 /* O_NONBLOCK */);
	long page = sys(__NR_mmap, 0, 4096, 3, 0x21 /* MAP_SHARED|MAP_ANONYMOUS */, -1, 0);
	here = -1;
	self_fd = sys(__NR_pidfd_open, sys(__NR_getpid), 0);
	if (sigfd < 0 || self_fd < 0 || (page < 0 && page > -4096))
		sys(__NR_exit_group, 1);
	outcome = (void *)page;
	/* Programs are pid 2 of their namespaces. No zygote may be that in ours: OpenSSL
	 * knows by its pid that it has been forked. */
	raw_clone(SIGCHLD, 0, 0, leave);
	for (;;) {
		struct pollfd p[2] = {{SOCK, POLLIN, 0}, {(int)sigfd, POLLIN, 0}};
		long r = sys(__NR_ppoll, p, 2, 0, 0, 8);
		if (r < 0)
			continue;
		if (p[1].revents) {
			u8 info[128 * 8];
			sys(__NR_read, sigfd, info, sizeof info);
			reap();
		}
		if (p[0].revents)
			receive();
	}
}
