/* The zygote's side of internal/sandbox/spawner/wire.h: forks as it is told to. */
#ifndef BRASA_ZYGOTE_H
#define BRASA_ZYGOTE_H

#include "objects.h"
#include "threads.h"

#define SOCKET 3
#define MAX_ASK (128 * 1024)

static u8 ask[MAX_ASK] __attribute__((aligned(16)));
static long home = -1; /* pidfd of the zygote */
static s32 *main_id;
static void *main_robust;
static u64 main_robust_size;

static void tell(u32 kind, u64 id, s32 pid, s32 error, s32 step, s32 fd, const char *words, u64 length)
{
	struct answer a;
	struct { struct cmsghdr_ head; s32 fd; s32 pad; } control = {
		{sizeof(struct cmsghdr_) + sizeof(s32), SOL_SOCKET_, SCM_RIGHTS_}, fd, 0};
	struct iovec_ iov[2] = {{&a, sizeof a}, {(void *)words, length}};
	struct msghdr_ m;
	memset(&a, 0, sizeof a);
	memset(&m, 0, sizeof m);
	a.version = WIRE_VERSION;
	a.kind = kind;
	a.id = id;
	a.nest = pid;
	a.error = error;
	a.step = step;
	m.iov = iov;
	m.iovlen = length ? 2 : 1;
	if (fd >= 0) {
		m.control = &control;
		m.controllen = sizeof control;
	}
	long r;
	do
		r = sys(__NR_sendmsg, SOCKET, &m, MSG_NOSIGNAL_);
	while (r == -EINTR);
	if (r < 0)
		sys(__NR_exit_group, 0); /* the host is gone */
}

/* hear returns the size of the next request, of which the descriptors lie in fds. */
static u64 hear(void)
{
	struct { struct cmsghdr_ head; s32 fd[MAX_FDS]; } control;
	struct iovec_ iov = {ask, sizeof ask};
	struct msghdr_ m;
	long n;
	memset(&m, 0, sizeof m);
	m.iov = &iov;
	m.iovlen = 1;
	do {
		m.control = &control;
		m.controllen = sizeof control;
		n = sys(__NR_recvmsg, SOCKET, &m, MSG_CMSG_CLOEXEC_);
	} while (n == -EINTR);
	if (n <= 0)
		sys(__NR_exit_group, 0);
	nfds = 0;
	if (m.controllen >= sizeof control.head && control.head.type == SCM_RIGHTS_) {
		nfds = (u32)((control.head.len - sizeof control.head) / sizeof(s32));
		for (u32 i = 0; i < nfds; i++)
			fds[i] = control.fd[i];
	}
	return m.flags & (MSG_TRUNC_ | MSG_CTRUNC_) ? 0 : (u64)n;
}

/* take_descriptors makes what was sent the first descriptors, closes all that are not its own and
 * makes those that are. Sources lie above the first four: these are taken since the start. */
static long take_descriptors(struct step *s, s32 gate)
{
	if (s->b + s->a > nfds || s->a > 4)
		return -EINVAL;
	for (u64 i = 0; i < s->a; i++) {
		/* As Node.js does at its start: a process that code starts gets none by chance. */
		long r = sys(__NR_dup3, fds[s->b + i], i, O_CLOEXEC);
		if (r < 0)
			return r;
	}
	long r = close_others((s32)s->a, gate);
	return r < 0 ? r : own_objects();
}

/* confine does the steps, says how it went, and waits to be let go. */
static void confine(struct request *q, s32 nest, s32 gate)
{
	struct { s32 error, step; } outcome = {0, 0};
	u8 *p = (u8 *)(q + 1), word;
	long r = 0;
	for (u32 i = 0; i < q->steps; i++) {
		struct step *s = (struct step *)p;
		outcome.step = (s32)i;
		if (s->op == OP_ENTER)
			r = sys(__NR_setns, nest, s->a);
		else if (s->op == OP_FDS)
			r = take_descriptors(s, gate);
		else
			r = run_common(s);
		if (r < 0 && !(s->flags & STEP_OPTIONAL)) {
			outcome.error = (s32)-r;
			break;
		}
		p += s->size;
	}
	sys(__NR_write, gate, &outcome, sizeof outcome);
	/* Also after an error: whose end this is must be known before it comes. */
	do
		r = sys(__NR_read, gate, &word, 1);
	while (r == -EINTR);
	if (r != 1 || outcome.error)
		sys(__NR_exit_group, 127);
	sys(__NR_close, gate);
}

/* make_child clones into the pid namespace of the nest. It returns 0 in the child. */
static long make_child(s32 nest, s32 cgroup, s32 *pidfd)
{
	const u64 flags = CLONE_PARENT | CLONE_PIDFD | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
	long pid = sys(__NR_setns, nest, CLONE_NEWPID);
	if (pid < 0)
		return pid;
	if (cgroup >= 0) {
		struct clone_args args;
		memset(&args, 0, sizeof args);
		args.flags = flags | CLONE_INTO_CGROUP;
		args.pidfd = (u64)(unsigned long)pidfd;
		args.child_tid = (u64)(unsigned long)main_id;
		args.cgroup = (u64)cgroup;
		pid = sys(__NR_clone3, &args, sizeof args);
	} else {
#if defined(__x86_64__)
		pid = sys(__NR_clone, flags, 0, pidfd, main_id, 0);
#else
		pid = sys(__NR_clone, flags, 0, pidfd, 0, main_id);
#endif
	}
	if (pid)
		sys(__NR_setns, home, CLONE_NEWPID);
	else
		sys(__NR_set_robust_list, main_robust, main_robust_size);
	return pid;
}

/* serve_forks returns in each child, confined and let go, with all its threads. */
static void serve_forks(void)
{
	for (;;) {
		struct request *q = (struct request *)ask;
		u64 size = hear();
		s32 error = 0, pidfd = -1;
		long pid = -1;
		if (size < sizeof *q || q->kind != KIND_FORK || q->flags || check(q, ask + sizeof *q, size - sizeof *q) ||
		    descriptor((u64)(u32)q->nest) < 0 || descriptor((u64)(u32)q->pid) < 0 || q->cgroup >= (s32)nfds) {
			tell(KIND_DONE, size < sizeof *q ? 0 : q->id, 0, EBADMSG, -2, -1, 0, 0);
		} else {
			s32 nest = fds[q->nest], gate = fds[q->pid];
			pid = make_child(nest, q->cgroup >= 0 ? fds[q->cgroup] : -1, &pidfd);
			if (pid == 0) {
				confine(q, nest, gate);
				if (revive_threads() < 0) {
					static const char words[] = "brasa: the threads of this process could not be made\n";
					sys(__NR_write, 2, words, sizeof words - 1);
					sys(__NR_exit_group, 70);
				}
				return;
			}
			error = pid < 0 ? (s32)-pid : 0;
			tell(KIND_DONE, q->id, error ? 0 : (s32)pid, error, -1, error ? -1 : pidfd, 0, 0);
			if (pidfd >= 0)
				sys(__NR_close, pidfd);
		}
		for (u32 i = 0; i < nfds; i++)
			sys(__NR_close, fds[i]);
		nfds = 0;
	}
}

/* ready_to_fork makes this process a zygote. It returns why it can't be one; 0 if it is. */
static const char *ready_to_fork(void)
{
	/* Programs are pid 2 of their namespaces, and OpenSSL knows by its pid that it was forked. */
	if (sys(__NR_getpid) <= 2)
		return "its pid is that of its children";
	home = sys(__NR_pidfd_open, sys(__NR_getpid), 0);
	if (home < 0)
		return "the kernel gives no descriptor of a process";
	if (sys(__NR_prctl, PR_GET_TID_ADDRESS, &main_id, 0, 0, 0) < 0 || !main_id || *main_id != sys(__NR_gettid))
		return "the kernel does not tell where its C library keeps the numbers of threads";
	sys(__NR_get_robust_list, 0, &main_robust, &main_robust_size);
	const char *why = park_threads();
	if (!why)
		why = share_memory();
	if (!why && sys(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		why = "it can't be hidden from its children";
	return why;
}

#endif
