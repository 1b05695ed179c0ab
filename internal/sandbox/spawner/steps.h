/* Steps that are done alike by all who make a sandbox: the spawner, which then executes a
 * program, and a zygote in C, which turns into one. */
#ifndef BRASA_STEPS_H
#define BRASA_STEPS_H

#include "wire.h"

#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/poll.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/signal.h>
#include <linux/wait.h>

#define ESRCH 3
#define EINTR 4
#define EAGAIN 11
#define ENOMEM 12
#define EINVAL 22
#define E2BIG 7
#define EBADMSG 74
#define ENOSYS 38
#define AT_FDCWD (-100)
#define O_RDONLY 0
#define O_WRONLY 1
#define O_CREAT 0100
#define O_EXCL 0200
#define O_CLOEXEC 02000000
#define MNT_DETACH 2

/* What <sys/socket.h> and <sys/resource.h> would say. */
struct iovec_ { void *base; u64 len; };
struct msghdr_ {
	void *name; u32 namelen; u32 pad0;
	struct iovec_ *iov; u64 iovlen;
	void *control; u64 controllen;
	s32 flags; s32 pad1;
};
struct cmsghdr_ { u64 len; s32 level; s32 type; };
struct rusage_ { s64 utime[2], stime[2], maxrss, rest[13]; };
struct timespec_ { s64 sec, nsec; };
#define SOL_SOCKET_ 1
#define SCM_RIGHTS_ 1
#define MSG_NOSIGNAL_ 0x4000
#define MSG_CTRUNC_ 8
#define MSG_TRUNC_ 0x20
#define MSG_CMSG_CLOEXEC_ 0x40000000

static s32 fds[MAX_FDS]; /* that came with the request */
static u32 nfds;

static long descriptor(u64 index) { return index < nfds ? fds[index] : -1; }

/* text returns the nth string of a step. */
static char *text(struct step *s, u32 n)
{
	char *p = (char *)(s + 1);
	while (n--)
		p += length(p) + 1;
	return p;
}

/* or_null is for arguments of mount that may be absent. */
static char *or_null(char *s) { return *s ? s : 0; }

static long write_file(const char *path, const char *content, int cut)
{
	long fd = sys(__NR_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return fd;
	long n = sys(__NR_write, fd, content, length(content));
	/* Behind the content rather than to nothing first: its page is kept. */
	if (n >= 0 && cut)
		n = sys(__NR_ftruncate, fd, n);
	sys(__NR_close, fd);
	return n < 0 ? n : 0;
}

/* place_file puts a small read-only file of this sandbox's own over one of the
 * root's. It is written on the sandbox's tmpfs, bound, and its name removed:
 * what is left can be reached by the mount only. It belongs to root, so no
 * read-only remount is needed. */
static long place_file(const char *scratch, const char *target, const char *content, u64 mode)
{
	long fd = sys(__NR_openat, AT_FDCWD, scratch, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	if (fd < 0)
		return fd;
	long n = sys(__NR_write, fd, content, length(content));
	sys(__NR_close, fd);
	if (n >= 0)
		n = sys(__NR_mount, scratch, target, 0, MS_BIND, 0);
	sys(__NR_unlinkat, AT_FDCWD, scratch, 0);
	return n < 0 ? n : 0;
}

static long drop_bounding(void)
{
	for (u32 cap = 0; cap < 64; cap++) {
		long r = sys(__NR_prctl, PR_CAPBSET_DROP, cap, 0, 0, 0);
		if (r == -EINVAL) /* past the last capability of this kernel */
			return cap ? 0 : r;
		if (r < 0)
			return r;
	}
	return 0;
}

static long drop_caps(void)
{
	struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2];
	memset(data, 0, sizeof data);
	sys(__NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return sys(__NR_capset, &head, data);
}

/* keep_caps leaves of our capabilities those that are wanted. They are inheritable
 * as well: without a bounding set, that is what root has after exec. */
static long keep_caps(u64 wanted)
{
	struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2];
	long r = sys(__NR_capget, &head, data);
	if (r < 0)
		return r;
	for (int i = 0; i < 2; i++) {
		data[i].permitted &= (u32)(wanted >> (32 * i));
		data[i].effective = data[i].inheritable = data[i].permitted;
	}
	return sys(__NR_capset, &head, data);
}

static long take_ids(u64 uid, u64 gid, int groups)
{
	long r = 0;
	if (groups)
		r = sys(__NR_setgroups, 0, 0);
	if (r >= 0)
		r = sys(__NR_setresgid, gid, gid, gid);
	if (r >= 0)
		r = sys(__NR_setresuid, uid, uid, uid);
	return r;
}

/* run_common does a step that is not the maker's own affair. */
static long run_common(struct step *s)
{
	switch (s->op) {
	case OP_WRITE: {
		long n = sys(__NR_write, descriptor(s->a), text(s, 0), length(text(s, 0)));
		return n < 0 ? n : 0;
	}
	case OP_SETNS:
		return sys(__NR_setns, descriptor(s->a), s->b);
	case OP_UNSHARE:
		return sys(__NR_unshare, s->a);
	case OP_MOUNT:
		return sys(__NR_mount, or_null(text(s, 0)), text(s, 1), or_null(text(s, 2)), s->a,
			   or_null(text(s, 3)));
	case OP_MOVE_MOUNT:
		return sys(__NR_move_mount, descriptor(s->a), "", AT_FDCWD, text(s, 0),
			   MOVE_MOUNT_F_EMPTY_PATH);
	case OP_FILE:
		return place_file(text(s, 0), text(s, 1), text(s, 2), s->a);
	case OP_MKDIR:
		return sys(__NR_mkdirat, AT_FDCWD, text(s, 0), s->a);
	case OP_HOSTNAME:
		return sys(__NR_sethostname, text(s, 0), length(text(s, 0)));
	case OP_RLIMIT: {
		u64 limit[2] = {s->b, s->c};
		return sys(__NR_prlimit64, 0, s->a, limit, 0);
	}
	case OP_MAP_IDS: {
		long r = write_file("/proc/self/setgroups", "deny", 0);
		if (r >= 0)
			r = write_file("/proc/self/uid_map", text(s, 0), 0);
		return r < 0 ? r : write_file("/proc/self/gid_map", text(s, 1), 0);
	}
	case OP_IDS:
		return take_ids(s->a, s->b, !s->c);
	case OP_DROP_BOUNDING:
		return drop_bounding();
	case OP_DROP_CAPS:
		return drop_caps();
	case OP_PRCTL:
		return sys(__NR_prctl, s->a, s->b, 0, 0, 0);
	case OP_CHDIR:
		return sys(__NR_chdir, text(s, 0));
	case OP_PIVOT: {
		long r = sys(__NR_pivot_root, ".", ".");
		if (r >= 0)
			r = sys(__NR_umount2, ".", MNT_DETACH);
		return r < 0 ? r : sys(__NR_chdir, "/");
	}
	case OP_SECCOMP: {
		struct sock_fprog prog = {(u16)s->a, (void *)(s + 1)};
		return sys(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog);
	}
	case OP_CAPS:
		return keep_caps(s->a);
	case OP_REPLACE:
		return write_file(text(s, 0), text(s, 1), 1);
	}
	return -ENOSYS;
}

/* check walks the steps once, so that whoever runs them need not fear their sizes. */
static s32 check(struct request *q, u8 *steps, u64 have)
{
	if (q->version != WIRE_VERSION || q->bytes != have)
		return EBADMSG;
	u64 at = 0;
	for (u32 i = 0; i < q->steps; i++) {
		struct step *s = (struct step *)(steps + at);
		if (have - at < sizeof *s || s->size < sizeof *s || s->size % 8 || s->size > have - at)
			return EBADMSG;
		at += s->size;
	}
	return at == have ? 0 : EBADMSG;
}

#endif
