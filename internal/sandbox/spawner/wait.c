/* The waiting program: what stands in a sandbox that is ready for an executable.
 *
 * It is executed in place of the program as the last step of the sandbox's making,
 * so it is confined in every respect as that will be, by the system-call filter too.
 * It holds nothing of anybody's. The host mounts the code and sets the limits from
 * outside, then sends one message: where to begin, arguments, environment, and the
 * descriptors from 0 on. Then it becomes the program by exec, which leaves nothing of
 * it: its memory and descriptors go. That its socket closes by that tells the host
 * that all went well; an errno on it says what did not. */
#define SYS_MAIN "wait_main"
#include "wire.h"

#define EINTR 4
#define EINVAL 22
#define E2BIG 7
#define AT_FDCWD (-100)
#define HIGH 16 /* above all descriptors of a program's begin */
#define F_DUPFD_CLOEXEC_ 1030
#define SCM_RIGHTS_ 1
#define MSG_NOSIGNAL_ 0x4000
#define MSG_CTRUNC_ 8
#define MSG_TRUNC_ 0x20
#define MSG_CMSG_CLOEXEC_ 0x40000000

struct iovec_ { void *base; u64 len; };
struct msghdr_ {
	void *name; u32 namelen; u32 pad0;
	struct iovec_ *iov; u64 iovlen;
	void *control; u64 controllen;
	s32 flags; s32 pad1;
};
struct cmsghdr_ { u64 len; s32 level; s32 type; };

static u8 message[sizeof(struct command) + MAX_COMMAND] __attribute__((aligned(16)));
static char *vector[MAX_STRINGS + 2];

/* become turns into the program. It returns an errno if it can't. */
static long become(struct command *c, u64 size, s32 *fds, u32 nfds)
{
	if (size < sizeof *c || c->version != WIRE_VERSION || c->bytes != size - sizeof *c || !c->bytes ||
	    message[size - 1] || c->args < 1 || (u64)c->args + c->env > MAX_STRINGS || nfds != c->fds)
		return -EINVAL;
	char *p = (char *)(c + 1), *end = (char *)message + size, *dir = p;
	u32 n = 0;
	p += length(p) + 1;
	for (u32 i = 0; i < c->args + c->env; i++, p += length(p) + 1) {
		if (p >= end)
			return -EINVAL;
		if (i == c->args)
			vector[n++] = 0;
		vector[n++] = p;
	}
	if (!c->env)
		vector[n++] = 0;
	vector[n] = 0;
	/* First out of the way, so that no copy overwrites one that is still to come. */
	for (u32 i = 0; i < nfds; i++) {
		long r = sys(__NR_fcntl, fds[i], F_DUPFD_CLOEXEC_, HIGH);
		if (r < 0)
			return r;
		fds[i] = (s32)r;
	}
	for (u32 i = 0; i < nfds; i++) {
		long r = sys(__NR_dup3, fds[i], i, 0);
		if (r < 0)
			return r;
	}
	long r = sys(__NR_close_range, nfds, HIGH - 1, 0);
	if (r >= 0)
		r = sys(__NR_chdir, dir);
	return r < 0 ? r : sys(__NR_execve, vector[0], vector, vector + c->args + 1);
}

__attribute__((used)) void wait_main(void)
{
	struct { struct cmsghdr_ head; s32 fd[8]; } control;
	struct iovec_ iov = {message, sizeof message};
	struct msghdr_ m;
	/* The socket goes where the program's descriptors don't; the program's file is not needed
	 * any more. */
	s32 sock = (s32)sys(__NR_fcntl, WAIT_SOCK, F_DUPFD_CLOEXEC_, HIGH);
	sys(__NR_close_range, WAIT_SOCK, HIGH - 1, 0);
	long n;
	do {
		memset(&m, 0, sizeof m);
		m.iov = &iov;
		m.iovlen = 1;
		m.control = &control;
		m.controllen = sizeof control;
		n = sys(__NR_recvmsg, sock, &m, MSG_CMSG_CLOEXEC_);
	} while (n == -EINTR);
	if (n <= 0)
		sys(__NR_exit_group, 0); /* the host is gone, or has no use for us */
	s32 *fds = control.fd;
	u32 nfds = 0;
	if (m.controllen >= sizeof control.head && control.head.type == SCM_RIGHTS_)
		nfds = (u32)((control.head.len - sizeof control.head) / sizeof(s32));
	long r = m.flags & (MSG_TRUNC_ | MSG_CTRUNC_) ? -E2BIG : become((struct command *)message, (u64)n, fds, nfds);
	s32 error = (s32)-r;
	struct iovec_ answer = {&error, sizeof error};
	memset(&m, 0, sizeof m);
	m.iov = &answer;
	m.iovlen = 1;
	sys(__NR_sendmsg, sock, &m, MSG_NOSIGNAL_);
	for (;;)
		sys(__NR_exit_group, 127);
}
