/* Objects of the kernel that a process has descriptors of, and memory that V8 keeps from children.
 *
 * After a fork both processes have the same pipes and epolls, so that one would wake the other and
 * hear what that did. A child gets objects of its own under the same numbers, in the state in which
 * they were: then nothing in its memory need be told. Which there are is found out in JavaScript
 * (forkable in bootstrap.js), once; a kind that is not known here is a reason not to fork. */
#ifndef BRASA_OBJECTS_H
#define BRASA_OBJECTS_H

#include "../../../internal/sandbox/spawner/steps.h"

enum object_kind { OBJECT_KEEP = 1, OBJECT_EVENT, OBJECT_PIPE, OBJECT_EPOLL, OBJECT_WATCH };

struct object {
	u32 kind;
	s32 fd;     /* of a pipe the end to read from; of a watch the epoll */
	s32 other;  /* of a pipe the end to write to; of a watch what is watched */
	u32 flags;  /* as open has them */
	u32 more;   /* of a pipe the other end's flags; of a watch the events */
	u32 pad;
	u64 value;  /* of an event the count; of a watch the data */
};
#define MAX_OBJECTS 128
static struct object objects[MAX_OBJECTS];
static u32 nobjects;

#define O_NONBLOCK_ 04000
#define EFD_SEMAPHORE_ 1

static long take_place(long fd, s32 place, u32 flags)
{
	if (fd < 0 || fd == place)
		return fd;
	long r = sys(__NR_dup3, fd, place, flags & O_CLOEXEC);
	sys(__NR_close, fd);
	return r;
}

static long own_pipe(struct object *o)
{
	s32 ends[2], waiting = 0;
	long r = sys(__NR_pipe2, ends, O_CLOEXEC);
	if (r < 0)
		return r;
	/* What lies in it says something: libuv has a lock that is a byte in a pipe. */
	r = sys(__NR_ioctl, o->fd, 0x541b /* FIONREAD */, &waiting);
	if (r >= 0 && waiting > 0) {
		r = sys(__NR_tee, o->fd, ends[1], waiting, 2 /* SPLICE_F_NONBLOCK */);
		if (r >= 0 && r != waiting)
			r = -EINVAL;
	}
	for (int i = 0; i < 2 && r >= 0; i++)
		if ((i ? o->more : o->flags) & O_NONBLOCK_)
			r = sys(__NR_fcntl, ends[i], 4 /* F_SETFL */, O_NONBLOCK_);
	if (r >= 0)
		r = take_place(ends[0], o->fd, o->flags);
	return r < 0 ? r : take_place(ends[1], o->other, o->more);
}

static long own_object(struct object *o)
{
	switch (o->kind) {
	case OBJECT_KEEP:
		return 0;
	case OBJECT_EVENT:
		return take_place(sys(__NR_eventfd2, o->value, o->flags & (O_NONBLOCK_ | EFD_SEMAPHORE_)), o->fd, o->flags);
	case OBJECT_PIPE:
		return own_pipe(o);
	case OBJECT_EPOLL:
		return take_place(sys(__NR_epoll_create1, 0), o->fd, o->flags);
	case OBJECT_WATCH: {
		struct { u32 events; u64 data; }
#if defined(__x86_64__)
		__attribute__((packed))
#endif
		event = {o->more, o->value};
		return sys(__NR_epoll_ctl, o->fd, 1 /* EPOLL_CTL_ADD */, o->other, &event);
	}
	}
	return -EINVAL;
}

static int holds(struct object *o, s32 fd)
{
	return o->kind != OBJECT_WATCH && (o->fd == fd || (o->kind == OBJECT_PIPE && o->other == fd));
}

/* close_others closes all descriptors from first on but those of objects, and the gate. */
static long close_others(s32 first, s32 gate)
{
	for (;;) {
		s32 next = gate >= first ? gate : 0x7fffffff; /* the lowest that stays */
		for (u32 i = 0; i < nobjects; i++) {
			struct object *o = &objects[i];
			for (int end = 0; end < 2; end++) {
				s32 fd = end ? o->other : o->fd;
				if (holds(o, fd) && fd >= first && fd < next)
					next = fd;
			}
		}
		if (next > first) {
			long r = sys(__NR_close_range, first, next - 1, 0);
			if (r < 0)
				return r;
		}
		if (next == 0x7fffffff)
			return 0;
		first = next + 1;
	}
}

/* own_objects gives this process objects of its own. */
static long own_objects(void)
{
	for (u32 i = 0; i < nobjects; i++) {
		long r = own_object(&objects[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

/* --- Memory --- */

static u64 hex(const char **p)
{
	u64 n = 0;
	for (;; (*p)++) {
		if (**p >= '0' && **p <= '9')
			n = n << 4 | (u64)(**p - '0');
		else if (**p >= 'a' && **p <= 'f')
			n = n << 4 | (u64)(**p - 'a' + 10);
		else
			return n;
	}
}

#define MAX_RANGES 8192
static struct range { u64 from, to; } ranges[MAX_RANGES];

/* share_memory has children inherit what V8 told the kernel not to give them: its heap, which is
 * of use to a child that goes on as this process. It returns why it could not; 0 if it could. */
static const char *share_memory(void)
{
	static char text[65536];
	u32 n = 0;
	u64 from = 0, to = 0;
	long have = 0, got, fd = sys(__NR_openat, AT_FDCWD, "/proc/self/smaps", O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return "it can't read of its own memory in /proc";
	while ((got = sys(__NR_read, fd, text + have, sizeof text - 1 - (u64)have)) > 0) {
		have += got;
		text[have] = 0;
		char *line = text, *end;
		for (; (end = line); line = end + 1) {
			while (*end && *end != '\n')
				end++;
			if (!*end)
				break;
			const char *p = line;
			if ((*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'f')) {
				from = hex(&p);
				p++;
				to = hex(&p);
				if (p[2] == 'w' && p[4] == 's') {
					sys(__NR_close, fd);
					return "it has memory that it would share with its children";
				}
			} else if (line[0] == 'V' && line[1] == 'm' && line[2] == 'F') {
				for (p = line + 8; p + 2 < end; p++) {
					if (p[0] != ' ' || p[1] != 'd' || p[2] != 'c')
						continue;
					if (n == MAX_RANGES) {
						sys(__NR_close, fd);
						return "its memory is in too many pieces";
					}
					ranges[n++] = (struct range){from, to};
				}
			}
		}
		long rest = text + have - line;
		for (long i = 0; i < rest; i++)
			text[i] = line[i];
		have = rest;
	}
	sys(__NR_close, fd);
	if (got < 0)
		return "it can't read of its own memory in /proc";
	for (u32 i = 0; i < n; i++)
		if (sys(__NR_madvise, ranges[i].from, ranges[i].to - ranges[i].from, 11 /* MADV_DOFORK */) < 0)
			return "the kernel does not give its memory to children";
	return 0;
}

#endif
