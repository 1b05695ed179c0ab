/* The rewinder: puts used processes back to the state they had when they were armed.
 *
 * It works from outside, on any program of a sandbox, with no help from it. While
 * a process runs it is not traced; each operation holds its threads, does what is
 * to be done and lets them go. What was written since is found by write protection
 * that the kernel lifts by itself (userfaultfd, WP_ASYNC) and tells about
 * (PAGEMAP_SCAN); what the kernel holds besides memory is compared, and when it
 * differs the process is killed: whoever asked puts another in its place.
 *
 * It runs as root outside the sandboxes and reads what hostile programs have in
 * memory. So nothing it reads there is trusted: sizes are bounded, each operation
 * has a deadline, and a process that is half put back never goes on. It keeps no
 * descriptor that would keep a connection or a file system of a dead sandbox alive
 * for longer than until it is told to forget it.
 *
 * Parts: rewind_store.h keeps pages, rewind_trace.h holds threads and has them make
 * system calls, rewind_state.h compares what the kernel keeps, rewind_memory.h does
 * memory; here are the operations in their order. */
#define SYS_MAIN "rewind_main"
#include "rewind_memory.h"

#include <linux/capability.h>
#include <linux/futex.h>
#include <linux/prctl.h>
#include <linux/resource.h>
#include <linux/sched.h>

#define SOCK 3 /* where the host puts its socket */
#define MAX_ARMED 16384
#define REST_WAIT 3000000ull /* ns for a program that is to be armed to come to rest; others wait meanwhile */
#define ARM_WORK 500000000ull
#define BACK_WORK 100000000ull /* a process that takes longer is cheaper to replace */
#define BACK_LAST 900000000ull /* the worker waits for a second */
#define AT_LAST 2000000000ull /* for arming, where the worker has patience: on a machine whose load is ten times its CPUs some do take half a second */

static struct armed *table[MAX_ARMED];
static u32 generation;
static long self_pidfd;

static struct armed draft; /* being armed */
static struct thread draft_threads[MAX_THREADS];
static struct fd_record draft_fds[MAX_FDS];
static struct vma draft_vmas[MAX_VMAS];
static struct kept_page draft_pages[MAX_PAGES];
static struct call draft_calls[MAX_ASKED];
static u8 draft_out[OUT_PAGES * PAGE];
static u8 draft_xstates[MAX_THREADS * MAX_XSTATE] __attribute__((aligned(64)));
static struct range draft_spans[MAX_VMAS];
static u8 draft_texts[MAX_FDS * 1024 + FD_TEXT + CONN_OPTIONS] __attribute__((aligned(8)));

static struct rewind_answer reply;
static u64 last_stamp;

static void stamp(u32 part)
{
	u64 t = now();
	reply.part[part] += (u32)(t - last_stamp);
	last_stamp = t;
}

/* tick interrupts waits from time to time. */
static void tick(int on)
{
	u64 us = on ? TICK / 1000 : 0, value[4] = {0, us, 0, us};
	sys(__NR_setitimer, 0, value, 0);
}

static void pause_ns(u64 ns)
{
	struct timespec_ t = {0, (s64)ns};
	sys(__NR_nanosleep, &t, 0);
}

/* --- Rest -------------------------------------------------------------------------------- */

/* waits_in says whether a system call only waits, so that beginning it anew is as
 * good as going on with it. */
static int waits_in(u64 nr)
{
	switch (nr) {
	case __NR_read:
	case __NR_readv:
	case __NR_recvfrom:
	case __NR_recvmsg:
	case __NR_ppoll:
	case __NR_pselect6:
	case __NR_epoll_pwait:
	case __NR_epoll_pwait2:
	case __NR_futex:
	case __NR_nanosleep:
	case __NR_clock_nanosleep:
	case __NR_rt_sigtimedwait:
	case __NR_rt_sigsuspend:
	case __NR_accept:
	case __NR_accept4:
	case 454 /* futex_wait */:
	case 449 /* futex_waitv */:
#if defined(__x86_64__)
	case __NR_poll:
	case __NR_select:
	case __NR_epoll_wait:
	case __NR_pause:
#endif
		return 1;
	}
	return 0;
}

/* at_rest says whether a stopped thread waits for something, and sets its
 * registers so that it begins to wait anew. */
static int at_rest(struct regs *r)
{
#if defined(__x86_64__)
	s64 nr = (s64)r->orig_ax, result = (s64)r->ax;
	if (nr < 0 || !waits_in((u64)nr) || r->cs != 0x33)
		return 0;
	if (result != -ERESTARTSYS && result != -ERESTARTNOHAND && result != -ERESTARTNOINTR &&
	    result != -ERESTART_RESTARTBLOCK && result != -EINTR)
		return 0;
	r->ax = (u64)nr;
	r->ip -= SYSCALL_BYTES;
	r->orig_ax = ~0ull;
	return 1;
#else
	/* The kernel has already set the registers for the call to begin anew. */
	return waits_in(r->x[8]);
#endif
}

static int quiet = 0;

static int look_quiet(s32 tid, void *data)
{
	(void)data;
	if (state_of(tid) != 'S')
		quiet = 0;
	return 0;
}

static int by_number(struct thread *t, u32 n, s32 tid)
{
	for (u32 i = 0; i < n; i++)
		if (t[i].tid == tid)
			return (int)i;
	return -1;
}

/* begin_rest holds all threads of a program that waits, and reads their registers.
 * It returns 0 when the program is not at rest, but may be soon. */
static int begin_rest(struct armed *a)
{
	quiet = 1;
	if (each_entry(a->task_dir, look_quiet, a) < 0)
		return fail2(REWIND_ENDED, "the program has ended", -1, "");
	if (!quiet)
		return 0;
	allow(ARM_WORK, AT_LAST);
	tick(1);
	if (stop_all(a->task_dir, 0, 0, 0) < 0)
		return -1;
	s32 leader = thread_index(a->pid);
	if (leader < 0 || ntids > MAX_THREADS)
		return refuse(leader < 0 ? "its first thread has ended" : "it has too many threads");
	tids[leader] = tids[0];
	tids[0] = a->pid;
	a->nthreads = ntids;
	for (u32 i = 0; i < ntids; i++) {
		struct thread *t = &draft_threads[i];
		memset(t, 0, sizeof *t);
		t->tid = tids[i];
		t->comm = -1;
		if (get_regs(t->tid, &t->regs) < 0)
			return refuse("registers cannot be read");
	}
	int rest = 1;
	for (u32 i = 0; i < ntids; i++) {
		struct regs r = draft_threads[i].regs;
		if (!at_rest(&r)) {
			rest = 0;
			continue;
		}
#if defined(__x86_64__)
		/* Calls that are never begun anew would tell the program of an interruption,
		 * and of one that goes on from a timeout we could no longer tell which it is. */
		if ((s64)draft_threads[i].regs.ax == -EINTR || (s64)draft_threads[i].regs.ax == -ERESTART_RESTARTBLOCK)
			set_regs(tids[i], &r);
#endif
	}
	if (!rest) {
		let_go();
		return 0;
	}
	for (u32 i = 0; i < ntids; i++)
		at_rest(&draft_threads[i].regs);
	return 1;
}

static int read_thread(struct armed *a, struct thread *t, u8 *room)
{
	char path[48];
	join(path, "", t->tid, "/comm");
	if ((t->comm = open_at(a->task_dir, path, 0)) < 0)
		return refuse("a thread has ended");
	struct iovec_ v = {room, MAX_XSTATE};
#if defined(__x86_64__)
	if (sys(__NR_ptrace, PTRACE_GETREGSET, t->tid, NT_XSTATE_, &v) < 0)
		return refuse("registers cannot be read");
#else
	struct iovec_ tls = {&t->tls, sizeof t->tls};
	if (sys(__NR_ptrace, PTRACE_GETREGSET, t->tid, NT_PRFPREG_, &v) < 0 ||
	    sys(__NR_ptrace, PTRACE_GETREGSET, t->tid, NT_ARM_TLS_, &tls) < 0)
		return refuse("registers cannot be read");
#endif
	t->xsize = (u32)v.len;
	t->xstate = room;
	if (sys(__NR_ptrace, PTRACE_GETSIGMASK_, t->tid, 8, &t->sigmask) < 0 || look_at_thread(t) < 0)
		return refuse("a thread cannot be looked at");
	while (t->filters < 64 && has_filter(t->tid, (u32)t->filters))
		t->filters++;
	if (t->filters == 64)
		return refuse("it has too many seccomp filters");
	if (pending(t->tid))
		return refuse("a signal is pending");
	if (t->tid != a->pid)
		for (u32 what = KCMP_FILES; what <= KCMP_SIGHAND; what++)
			if (sys(__NR_kcmp, a->pid, t->tid, what, 0, 0) != 0)
				return refuse("a thread has open files or signal handlers of its own");
	return 0;
}

static int write_thread(struct thread *t)
{
	struct iovec_ v = {t->xstate, t->xsize};
	if (set_regs(t->tid, &t->regs) < 0)
		return refuse("registers cannot be set");
#if defined(__x86_64__)
	if (sys(__NR_ptrace, PTRACE_SETREGSET, t->tid, NT_XSTATE_, &v) < 0)
		return refuse("registers cannot be set");
#else
	struct iovec_ tls = {&t->tls, sizeof t->tls};
	if (sys(__NR_ptrace, PTRACE_SETREGSET, t->tid, NT_PRFPREG_, &v) < 0 ||
	    sys(__NR_ptrace, PTRACE_SETREGSET, t->tid, NT_ARM_TLS_, &tls) < 0)
		return refuse("registers cannot be set");
#endif
	if (sys(__NR_ptrace, PTRACE_SETSIGMASK_, t->tid, 8, &t->sigmask) < 0)
		return refuse("signals cannot be unblocked");
	return 0;
}

/* --- Arming ------------------------------------------------------------------------------ */

static int exact_counts; /* /proc/<pid>/statm counts exactly */

/* open_process opens what is read again and again. */
static int open_process(struct armed *a)
{
	char path[64];
	join(path, "/proc/", a->pid, "");
	a->proc = open_at(AT_FDCWD, path, O_DIRECTORY);
	/* The number was the program's when the host looked; if it still lives, it is still. */
	if (a->proc < 0 || sys(__NR_pidfd_send_signal, a->pidfd, 0, 0, 0) < 0)
		return fail2(REWIND_ENDED, "the program has ended", -1, "");
	if (a->nest > 0 && a->pids_current < 0) {
		join(path, "/proc/", a->nest, "/task/");
		u32 n = (u32)length(path);
		decimal(path + n, (u64)a->nest);
		join(path + length(path), "/children", -1, "");
		a->nest_children = open_at(AT_FDCWD, path, 0);
	}
	a->task_dir = open_at(a->proc, "task", O_DIRECTORY);
	a->fd_dir = open_at(a->proc, "fd", O_DIRECTORY);
	a->maps = open_at(a->proc, "maps", 0);
	a->pagemap = open_at(a->proc, "pagemap", 0);
	a->mem = open_at(a->proc, "mem", O_RDWR);
	a->timers = open_at(a->proc, "timers", 0);
	a->sockets = open_at(a->proc, "net/sockstat", 0);
	a->statm = exact_counts ? open_at(a->proc, "statm", 0) : -1;
	a->tmp = open_at(a->proc, "root/tmp", O_DIRECTORY | O_NOFOLLOW);
	a->shm = open_at(a->proc, "root/dev/shm", O_DIRECTORY | O_NOFOLLOW);
	if (a->task_dir < 0 || a->fd_dir < 0 || a->maps < 0 || a->pagemap < 0 || a->mem < 0 || a->tmp < 0 || a->shm < 0)
		return refuse("its place in /proc cannot be read");
	if (a->timers < 0)
		return fail2(REWIND_UNABLE, "the kernel has no CONFIG_CHECKPOINT_RESTORE", -1, "");
	/* These show the namespace of whoever opens them. */
	if (sys(__NR_setns, a->pidfd, CLONE_NEWIPC) < 0)
		return refuse("its IPC namespace cannot be entered");
	static const char *const ipc[IPC_FILES] = {"/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg"};
	for (u32 i = 0; i < IPC_FILES; i++)
		a->ipc[i] = open_at(AT_FDCWD, ipc[i], 0);
	long fs = sys(__NR_fsopen, "mqueue", 1 /* CLOEXEC */);
	if (fs >= 0) {
		if (sys(__NR_fsconfig, fs, 6 /* CREATE */, 0, 0, 0) >= 0) {
			long mount = sys(__NR_fsmount, fs, 1, 0);
			if (mount >= 0) {
				a->mqueue = open_at((s32)mount, ".", O_DIRECTORY);
				sys(__NR_close, mount);
			}
		}
		sys(__NR_close, fs);
	}
	if (sys(__NR_setns, self_pidfd, CLONE_NEWIPC) < 0)
		sys(__NR_exit_group, 1); /* the next would be looked at with this one's eyes */
	for (u32 i = 0; i < IPC_FILES; i++)
		if (a->ipc[i] < 0)
			return refuse("its IPC objects cannot be listed");
	if (fs >= 0 && a->mqueue < 0)
		return refuse("its message queues cannot be listed");
	return 0;
}

static int look_at_places(struct armed *a)
{
	if (!empty(a->tmp))
		return refuse("there are files in /tmp");
	if (!empty(a->shm))
		return refuse("there are files in /dev/shm");
	char path[PATH_SIZE];
	long size = sys(__NR_readlinkat, a->proc, "cwd", path, sizeof path);
	if (size > 0 && size < (long)sizeof path)
		memcpy(a->cwd_path, path, (u64)size); /* the rest of it is zero */
	if (where(a->proc, a->cwd) < 0 || free_of(a->tmp, a->tmp_free) < 0 || free_of(a->shm, a->shm_free) < 0)
		return refuse("its directories cannot be looked at");
	for (u32 i = 0; i < IPC_FILES; i++) {
		long n = read_whole(a->ipc[i], scratch, sizeof scratch);
		u32 lines = 0;
		for (long k = 0; k < n; k++)
			lines += scratch[k] == '\n';
		if (n < 0 || lines > 1)
			return refuse("it has System V IPC objects");
		a->ipc_size[i] = (u64)n;
	}
	if (a->mqueue >= 0 && !empty(a->mqueue))
		return refuse("it has message queues");
	a->connections = connections(a->sockets);
	if (sys(__NR_pread64, a->timers, scratch, 64, 0) != 0)
		return refuse("it has timers");
	struct collecting c = {a, draft_fds, 0, draft_texts, 0, sizeof draft_texts};
	int r = each_entry(a->fd_dir, collect_fd, &c);
	a->nfds = c.n;
	a->texts_size = c.used;
	if (r < 0)
		return verdict ? -1 : refuse("its open files cannot be listed");
	return compare_conn(a) < 0 ? -1 : 0;
}

/* plant maps the stub into the process. */
static int plant(struct armed *a)
{
	struct thread *t = &a->threads[0];
	u8 code[8];
	u64 instruction = REG_IP(&t->regs);
	if (vm_read(a->pid, code, instruction, SYSCALL_BYTES) != SYSCALL_BYTES || !syscall_at(code))
		return refuse("it waits in code of an odd kind");
	if (block_signals(t->tid) < 0)
		return refuse("signals cannot be blocked");
	u64 map[6] = {0, STUB_PAGES * PAGE, 3, 0x22, ~0ull, 0};
	long at = single_call(t->tid, &t->regs, instruction, __NR_mmap, map);
	if (at < 0 && at > -4096)
		return refuse_n("memory cannot be mapped in it: errno", -at);
	a->stub = (u64)at;
	u64 size = (u64)(stub_end - stub_begin);
	if (vm_write(a->pid, STUB_CODE(a->stub), stub_begin, size) != (long)size)
		return refuse("memory of ours in it cannot be written");
	u64 guard[6] = {a->stub, PAGE, 5, 0, 0, 0};
	long r = single_call(t->tid, &t->regs, instruction, __NR_mprotect, guard);
	return r < 0 ? refuse_n("memory of ours in it cannot be made executable: errno", -r) : 0;
}

static void unplant(struct armed *a)
{
	struct thread *t = &a->threads[0];
	u64 unmap[6] = {a->stub, STUB_PAGES * PAGE, 0, 0, 0, 0};
	if (a->stub)
		single_call(t->tid, &t->regs, REG_IP(&t->regs), __NR_munmap, unmap);
	a->stub = 0;
}

static int ask_one(struct armed *a, u64 nr, u64 arg, s64 *result)
{
	struct call c;
	u32 n = 0;
	ask(&c, &n, nr, arg, 0, 0, 0);
	if (run_batch(a->pid, a->stub, &a->threads[0].regs, &c, 1) < 0)
		return -1;
	*result = (s64)c.result;
	return 0;
}

/* fetch_uffd has the process make a userfaultfd, takes it and has it closed there. */
static int fetch_uffd(struct armed *a)
{
	s64 fd, r;
	if (ask_one(a, __NR_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY_, &fd) < 0)
		return -1;
	if (fd < 0)
		return fail2(fd == -EPERM ? REWIND_UNABLE : bad, "userfaultfd: errno", -fd, "");
	a->uffd = (s32)sys(__NR_pidfd_getfd, a->pidfd, fd, 0);
	if (ask_one(a, __NR_close, (u64)fd, &r) < 0)
		return -1;
	if (a->uffd < 0)
		return refuse_n("pidfd_getfd: errno", -a->uffd);
	struct uffdio_api_ api = {UFFD_API_, UFFD_PAGEFAULT_FLAG_WP_ | UFFD_WP_UNPOPULATED_ | UFFD_WP_ASYNC_, 0};
	if (sys(__NR_ioctl, a->uffd, UFFDIO_API_, &api) < 0)
		return fail2(REWIND_UNABLE, "userfaultfd cannot track writes", -1, "");
	return 0;
}

static int question(struct armed *a)
{
	s64 brk, mask;
	if (ask_one(a, __NR_brk, 0, &brk) < 0 || ask_one(a, __NR_umask, 0, &mask) < 0)
		return -1;
	a->brk = (u64)brk;
	a->ncalls = questions(a->calls, STUB_OUT(a->stub), a->brk, (u64)mask);
	if (!a->ncalls)
		return refuse("too many questions");
	/* Twice: the first puts the mask back, the second is what will be answered. */
	for (u32 i = 0; i < 2; i++)
		if (run_batch(a->pid, a->stub, &a->threads[0].regs, a->calls, a->ncalls) < 0)
			return -1;
	if (vm_read(a->pid, a->out, STUB_OUT(a->stub), OUT_PAGES * PAGE) != (long)(OUT_PAGES * PAGE))
		return refuse("memory of ours in it cannot be read");
	u64 *timer = (u64 *)(a->out + 64 * SIGACTION_SIZE + SIGSTACK_SIZE);
	for (u32 i = 0; i < 12; i++)
		if (timer[i])
			return refuse("it has an interval timer");
	return 0;
}

/* keep_pages copies all private pages into the store. */
static int keep_pages(struct armed *a)
{
	static u8 pages[64 * PAGE];
	u64 at = 0;
	while (at < LAST_ADDRESS) {
		long n = scan(a->pagemap, &at, LAST_ADDRESS);
		if (n < 0)
			return fail2(REWIND_UNABLE, "PAGEMAP_SCAN: errno", -n, "");
		for (long k = 0; k < n; k++) {
			struct page_region_ g = regions[k];
			struct vma *v = vma_of(a, g.start);
			if (g.categories & PG_PFNZERO || (v && v->flags & VMA_STUB && g.start >= a->stub && g.end <= a->stub + STUB_PAGES * PAGE))
				continue;
			while (g.start < g.end) {
				u64 size = g.end - g.start < sizeof pages ? g.end - g.start : sizeof pages;
				v = vma_of(a, g.start);
				if (!v || v->flags & VMA_SPECIAL)
					return refuse("it has changed the kernel's pages");
				if (g.start >= a->stub && g.start < a->stub + STUB_PAGES * PAGE) {
					g.start += PAGE;
					continue;
				}
				if (g.start < a->stub && g.start + size > a->stub)
					size = a->stub - g.start;
				if (g.start + size > v->end)
					size = v->end - g.start;
				if (sys(__NR_pread64, a->mem, pages, size, g.start) != (long)size)
					return refuse("its memory cannot be read");
				for (u64 i = 0; i < size; i += PAGE) {
					u32 id = a->npages < MAX_PAGES ? store_put(pages + i) : NO_PAGE;
					if (id == NO_PAGE)
						return refuse("it has too much memory");
					a->pages[a->npages++] = (struct kept_page){g.start + i, id, 0, !v->inode};
				}
				v->flags |= VMA_REGISTERED;
				g.start += size;
			}
			if (late() < 0)
				return -1;
		}
	}
	find_spans(a, a->spans, &a->nspans);
	for (u32 i = 0; i < a->nvmas; i++) {
		struct vma *v = &a->vmas[i];
		if (!(v->flags & VMA_REGISTERED))
			continue;
		/* Tracking saves work, and that is all it does: what the kernel will not
		 * track is written back each time. */
		if (track(a, v->start, v->end) < 0)
			v->flags &= ~(u32)VMA_REGISTERED;
		else if (protect(a->pagemap, v->start, v->end) < 0)
			return fail2(REWIND_UNABLE, "writes cannot be tracked", -1, "");
	}
	return 0;
}

/* set_apart makes an address a border between entries of our list: the kernel may
 * have joined our mapping with the program's next to it. */
static void set_apart(struct armed *a, u64 at)
{
	for (u32 i = 0; i < a->nvmas; i++) {
		struct vma *v = &a->vmas[i];
		if (v->start >= at || v->end <= at)
			continue;
		for (u32 k = a->nvmas++; k > i; k--)
			a->vmas[k] = a->vmas[k - 1];
		v->end = at;
		v[1].start = at;
		v[1].offset += v->inode ? at - v->start : 0;
		return;
	}
}

static void release(struct armed *a)
{
	for (u32 i = 0; i < a->nthreads; i++)
		close_fd(a->threads[i].comm);
	for (u32 i = 0; i < a->nfds; i++) {
		close_fd(a->fds[i].info);
		close_fd(a->fds[i].copy);
	}
	for (u32 i = 0; i < a->npages; i++)
		store_drop(a->pages[i].id);
	for (u32 i = 0; i < IPC_FILES; i++)
		close_fd(a->ipc[i]);
	s32 rest[] = {a->pidfd, a->proc, a->task_dir, a->fd_dir, a->maps, a->pagemap, a->mem, a->timers,
		a->pids_current, a->nest_children, a->tmp, a->shm, a->statm, a->mqueue, a->sockets, a->uffd};
	for (u32 i = 0; i < sizeof rest / sizeof *rest; i++)
		close_fd(rest[i]);
	u64 size = a->block_size;
	if (size)
		sys(__NR_munmap, a, size);
}

static void *carve(u8 **from, const void *what, u64 size)
{
	u8 *to = *from;
	u64 *t = (u64 *)to;
	const u64 *f = what;
	for (u64 i = 0; i < (size + 7) / 8; i++)
		t[i] = f[i];
	*from += (size + 63) & ~63ull;
	return to;
}

/* settle moves the draft into memory of its own size. */
static struct armed *settle(struct armed *d)
{
	u64 xstates = 0, room = d->npages + MAX_STICKY;
	for (u32 i = 0; i < d->nthreads; i++)
		xstates += (d->threads[i].xsize + 63) & ~63u;
	u64 size = sizeof *d + d->nthreads * sizeof *d->threads + d->nfds * sizeof *d->fds + d->nvmas * sizeof *d->vmas +
		   room * sizeof *d->pages + d->ncalls * sizeof *d->calls + sizeof draft_out + xstates + d->texts_size + d->nvmas * sizeof *d->spans + 12 * 64;
	size = (size + PAGE - 1) & ~(PAGE - 1);
	u8 *p = reserve(size);
	if (!p)
		return 0;
	struct armed *a = carve(&p, d, sizeof *d);
	a->block_size = size;
	a->room = (u32)room;
	a->threads = carve(&p, d->threads, d->nthreads * sizeof *d->threads);
	a->fds = carve(&p, d->fds, d->nfds * sizeof *d->fds);
	a->vmas = carve(&p, d->vmas, d->nvmas * sizeof *d->vmas);
	a->calls = carve(&p, d->calls, d->ncalls * sizeof *d->calls);
	a->spans = carve(&p, d->spans, d->nvmas * sizeof *d->spans);
	a->out = carve(&p, d->out, sizeof draft_out);
	for (u32 i = 0; i < d->nthreads; i++)
		a->threads[i].xstate = carve(&p, d->threads[i].xstate, d->threads[i].xsize);
	a->texts = carve(&p, draft_texts, d->texts_size);
	for (u32 i = 0; i < d->nfds; i++)
		if (d->fds[i].text)
			a->fds[i].text = a->texts + (d->fds[i].text - draft_texts);
	a->pages = carve(&p, d->pages, d->npages * sizeof *d->pages);
	return a;
}

static s32 free_slot(void)
{
	for (s32 i = 0; i < MAX_ARMED; i++)
		if (!table[i])
			return i;
	return -1;
}

/* take_state does all of arming that is done while the process stands still. */
static int take_state(struct armed *a)
{
	for (u32 i = 0; i < a->nthreads; i++)
		if (read_thread(a, &a->threads[i], draft_xstates + (u64)i * MAX_XSTATE) < 0)
			return -1;
	a->children = family(a);
	if (a->children != (s64)a->nthreads)
		return refuse("it has child processes");
	if (look_at_places(a) < 0 || plant(a) < 0)
		return -1;
	if (list_vmas(a->maps, a->vmas, &a->nvmas, MAX_VMAS - 2) < 0 || judge_vmas(a->proc, a->vmas, a->nvmas) < 0)
		return -1;
	set_apart(a, a->stub);
	set_apart(a, a->stub + STUB_PAGES * PAGE);
	for (u32 i = 0; i < a->nvmas; i++)
		if (a->vmas[i].start < a->stub + STUB_PAGES * PAGE && a->vmas[i].end > a->stub)
			a->vmas[i].flags |= VMA_STUB;
	if (fetch_uffd(a) < 0 || question(a) < 0 || wipe_stub(a->pid, a->stub) < 0 || compare_fds(a) < 0)
		return -1;
	return keep_pages(a);
}

static void op_arm(struct rewind_request *q, s32 pidfd, s32 pids_current)
{
	struct armed *a = &draft;
	memset(a, 0, sizeof *a);
	a->pid = q->pid;
	a->nest = q->nest;
	a->pidfd = pidfd;
	a->pids_current = pids_current;
	s32 *none[] = {&a->proc, &a->task_dir, &a->fd_dir, &a->maps, &a->pagemap, &a->mem, &a->timers, &a->nest_children,
		&a->tmp, &a->shm, &a->statm, &a->mqueue, &a->sockets, &a->uffd, &a->ipc[0], &a->ipc[1], &a->ipc[2]};
	for (u32 i = 0; i < sizeof none / sizeof *none; i++)
		*none[i] = -1;
	a->threads = draft_threads;
	a->fds = draft_fds;
	a->vmas = draft_vmas;
	a->pages = draft_pages;
	a->calls = draft_calls;
	a->out = draft_out;
	a->spans = draft_spans;
	bad = REWIND_NOT;
	u64 patience = now() + REST_WAIT;
	allow(ARM_WORK, AT_LAST);
	s32 slot = free_slot();
	int r = slot < 0 ? refuse("too many processes are armed") : open_process(a);
	while (r >= 0) {
		r = begin_rest(a);
		if (r)
			break;
		r = now() > patience ? fail2(REWIND_BUSY, "it is not at rest: a thread is running", -1, "") : 0;
		pause_ns(500000);
	}
	if (r > 0) {
		allow(ARM_WORK, AT_LAST);
		tick(1);
		r = take_state(a);
		struct armed *kept = r < 0 ? 0 : settle(a);
		if (r >= 0 && !kept)
			r = refuse("out of memory");
		if (r < 0) {
			/* as if nothing had been: what failed is told, what follows is not */
			unplant(a);
			for (u32 i = 0; i < a->nthreads; i++)
				if (a->threads[i].xsize)
					write_thread(&a->threads[i]);
				else
					set_regs(a->threads[i].tid, &a->threads[i].regs);
		} else {
			for (u32 i = 0; i < a->nthreads && r >= 0; i++)
				r = write_thread(&kept->threads[i]);
			a = kept;
			a->handle = (u32)slot | ++generation << 14;
			table[slot] = a;
			reply.handle = a->handle;
			reply.kept = a->npages;
			reply.threads = a->nthreads;
			reply.snapshot = a->block_size + (u64)a->npages * PAGE;
		}
	}
	/* Threads that are held and do not stop cannot be let go: then it must end. */
	int stuck = 0;
	for (u32 i = 0; i < ntids; i++)
		stuck |= !stopped[i];
	if (let_go() < 0 || stuck)
		sys(__NR_pidfd_send_signal, a->pidfd, SIGKILL, 0, 0);
	if (r < 0 && a == &draft)
		release(a);
}

/* --- Rewinding --------------------------------------------------------------------------- */

static int end_extra_threads(struct armed *a)
{
	u32 extra = 0;
	for (u32 i = 0; i < ntids;) {
		s32 tid = tids[i], status;
		if (by_number(a->threads, a->nthreads, tid) >= 0) {
			i++;
			continue;
		}
		if (++extra > MAX_EXTRA_THREADS)
			return refuse("it has started too many threads");
		struct regs r = a->threads[0].regs;
		for_stub(&r, STUB_CODE(a->stub) + (u64)(stub_exit - stub_begin), 0, 0);
		if (block_signals(tid) < 0 || set_regs(tid, &r) < 0)
			return refuse("a thread cannot be ended");
		for (u32 tries = 0;; tries++) {
			if (sys(__NR_ptrace, PTRACE_CONT, tid, 0, 0) < 0)
				return refuse("a thread cannot be ended");
			stopped[i] = 0;
			long w = wait_for(tid, &status);
			if (w == tid && !STOPPED(status))
				break;
			stopped[i] = 1;
			/* signals that came before are dropped, one by one */
			if (w != tid || tries > 16 || set_regs(tid, &r) < 0)
				return refuse("a thread cannot be ended");
		}
		tids[i] = tids[--ntids];
		stopped[i] = stopped[ntids];
	}
	return ntids == a->nthreads ? 0 : refuse("a thread has ended");
}

/* The kernel writes into a thread's rseq area which CPU it runs on, and may not do
 * so again until that changes. So what it says there now stays. */
static struct { u64 low, pad0; u32 pad1, node, cid, pad2; } rseq_now[MAX_THREADS], rseq_then[MAX_THREADS];

static long read_rseq(struct armed *a, void *to)
{
	u32 n = 0;
	for (u32 i = 0; i < a->nthreads && n < VECTOR; i++)
		if (a->threads[i].rseq.at)
			there[n++] = (struct iovec_){(void *)a->threads[i].rseq.at, 32};
	here[0] = (struct iovec_){to, (u64)n * 32};
	long r = n ? sys(__NR_process_vm_readv, a->pid, here, 1, there, n, 0) : 0;
	return r == (long)n * 32 ? (long)n : 0;
}

static void keep_rseq(struct armed *a, long n)
{
	if (!n || read_rseq(a, rseq_then) != n)
		return;
	for (u32 i = 0, k = 0; i < a->nthreads && k < n; i++) {
		u64 at = a->threads[i].rseq.at;
		if (!at)
			continue;
		if (rseq_now[k].low != rseq_then[k].low)
			vm_write(a->pid, at, &rseq_now[k].low, 8);
		if (rseq_now[k].node != rseq_then[k].node || rseq_now[k].cid != rseq_then[k].cid)
			vm_write(a->pid, at + 20, &rseq_now[k].node, 8);
		k++;
	}
}

/* restore_handlers sets signal handlers and the signal stack where they differ. A
 * C library sets some for itself when a program makes its first thread. */
static int restore_handlers(struct armed *a, u8 *out)
{
	u64 at = STUB_OUT(a->stub);
	int differ = 0;
	for (u64 sig = 1; sig <= 64; sig++, at += SIGACTION_SIZE) {
		u8 *was = a->out + (sig - 1) * SIGACTION_SIZE, *is = out + (sig - 1) * SIGACTION_SIZE;
		if (same_bytes(was, is, SIGACTION_SIZE))
			continue;
		differ = 1;
		for (u32 i = 0; i < SIGACTION_SIZE; i++)
			is[i] = was[i];
		if (fix(__NR_rt_sigaction, sig, at, 0, 8, 0) < 0)
			return -1;
	}
	u8 *was = a->out + 64 * SIGACTION_SIZE, *is = out + 64 * SIGACTION_SIZE;
	if (!same_bytes(was, is, SIGSTACK_SIZE)) {
		differ = 1;
		for (u32 i = 0; i < SIGSTACK_SIZE; i++)
			is[i] = was[i];
		if (fix(__NR_sigaltstack, at, 0, 0, 0, 0) < 0)
			return -1;
	}
	if (differ && vm_write(a->pid, STUB_OUT(a->stub), out, OUT_PAGES * PAGE) != (long)(OUT_PAGES * PAGE))
		return refuse("memory of ours in it cannot be written");
	return 0;
}

/* restore_place takes the program back to its directory, which it names as it did. */
static int restore_place(struct armed *a)
{
	u64 at = STUB_OUT(a->stub) + OUT_PAGES * PAGE - PATH_SIZE;
	if (!a->moved)
		return 0;
	if (vm_write(a->pid, at, a->cwd_path, PATH_SIZE) != (long)PATH_SIZE)
		return refuse("memory of ours in it cannot be written");
	return fix(__NR_chdir, at, 0, 0, 0, 0);
}

static int back_in_place(struct armed *a)
{
	u64 is[2];
	if (a->moved && (where(a->proc, is) < 0 || is[0] != a->cwd[0] || is[1] != a->cwd[1]))
		return refuse("the current directory"); /* another one has its name now */
	return 0;
}

/* links_of returns how many links a directory has; one of /proc/<pid>/task has two and one for
 * each thread. */
static u32 links_of(s32 dir_fd)
{
	u8 statx[256];
	return sys(__NR_statx, dir_fd, "", 0x1000 /* AT_EMPTY_PATH */, 4 /* NLINK */, statx) < 0 ? 0 : *(u32 *)(statx + 16);
}

static int put_back(struct armed *a)
{
	static struct call answers[MAX_ASKED + MAX_RANGES];
	static u8 out[OUT_PAGES * PAGE];
	/* To stop very many takes long where their share of the processors is small, and others wait. */
	if (links_of(a->task_dir) > 2 + a->nthreads + MAX_EXTRA_THREADS)
		return refuse("it has started too many threads");
	if (stop_all(a->task_dir, a->threads, a->nthreads, 1) < 0)
		return -1;
	if (end_extra_threads(a) < 0)
		return -1;
	if (family(a) != a->children)
		return refuse("child processes");
	for (u32 i = 0; i < a->nthreads; i++)
		if (compare_thread(&a->threads[i]) < 0)
			return -1;
	stamp(0);
	if (compare_places(a) < 0 || compare_fds(a) < 0)
		return -1;
	stamp(3);
	struct thread *t = &a->threads[0];
	if (block_signals(t->tid) < 0)
		return refuse("signals cannot be blocked");
	if (restore_vmas(a) < 0)
		return -1;
	stamp(1);
	if (find_changes(a) < 0)
		return -1;
	stamp(2);
	/* One batch: the questions, and behind them what is to be given back. */
	nfixes = 0;
	if (give_back() < 0)
		return -1;
	if (wipe_stub(a->pid, a->stub) < 0)
		return -1;
	u32 with = nfixes < TABLE_CALLS - a->ncalls ? nfixes : (u32)(TABLE_CALLS - a->ncalls);
	for (u32 i = 0; i < a->ncalls; i++)
		answers[i] = a->calls[i];
	for (u32 i = 0; i < with; i++)
		answers[a->ncalls + i] = fixes[i];
	if (run_batch(t->tid, a->stub, &t->regs, answers, a->ncalls + with) < 0)
		return -1;
	if (vm_read(a->pid, out, STUB_OUT(a->stub), sizeof out) != (long)sizeof out)
		return refuse("memory of ours in it cannot be read");
	/* What is not given back would be there for the next call. */
	for (u32 i = a->ncalls; i < a->ncalls + with; i++)
		if (failed(&answers[i]))
			return refuse_n("memory cannot be given back: errno", -(s64)answers[i].result);
	for (u32 i = with; i < nfixes; i++)
		fixes[i - with] = fixes[i];
	nfixes -= with;
	if (run_fixes(a, 1) < 0 || restore_handlers(a, out) < 0)
		return -1;
	if (compare_answers(a->calls, a->out, answers, out, a->ncalls, STUB_OUT(a->stub)) < 0)
		return -1;
	if (restore_place(a) < 0)
		return -1;
	if (run_fixes(a, 1) < 0 || back_in_place(a) < 0 || wipe_stub(a->pid, a->stub) < 0)
		return -1;
	stamp(4);
	long n = read_rseq(a, rseq_now);
	if (write_back(a) < 0)
		return -1;
	keep_rseq(a, n);
	stamp(5);
	if (protect_again(a) < 0)
		return -1;
	stamp(6);
	reply.pages = ndirty;
	for (u32 i = 0; i < ngiving; i++)
		reply.pages += (u32)((giving[i].end - giving[i].start) / PAGE);
	settle_sticky(a);
	a->rewinds++;
	for (u32 i = 0; i < a->nthreads; i++)
		if (write_thread(&a->threads[i]) < 0)
			return -1;
	return 0;
}

/* reap takes the ends of threads that were held when their process was killed. It
 * says whether there are some left. */
static int reap(void)
{
	s32 status;
	for (;;) {
		long r = sys(__NR_wait4, -1, &status, __WALL | WNOHANG, 0);
		if (r <= 0)
			return r == 0;
		if (STOPPED(status))
			sys(__NR_kill, r, SIGKILL); /* held by us, so the number is still its own */
	}
}

static struct armed *find(u32 handle)
{
	struct armed *a = table[handle & (MAX_ARMED - 1)];
	return a && a->handle == handle ? a : 0;
}

static void forget(struct armed *a)
{
	table[a->handle & (MAX_ARMED - 1)] = 0;
	release(a);
}

static void op_back(struct rewind_request *q)
{
	struct armed *a = find(q->handle);
	bad = REWIND_CHANGED;
	if (!a) {
		fail2(REWIND_ENDED, "it is not armed", -1, "");
		return;
	}
	allow(BACK_WORK, BACK_LAST);
	tick(1);
	int r = put_back(a);
	long gone = r < 0 ? 0 : let_go();
	if (gone < 0) /* what runs again may at once end the process */
		r = refuse_n("it ended when it was let go: errno", -gone);
	if (r < 0) {
		/* It never runs on half put back. */
		sys(__NR_pidfd_send_signal, a->pidfd, SIGKILL, 0, 0);
		u64 until = now() + 2000000;
		while (reap() && now() < until)
			pause_ns(50000);
		ntids = 0;
		forget(a);
		return;
	}
	reply.handle = a->handle;
	reply.threads = a->nthreads;
	reply.kept = a->npages;
	reply.snapshot = a->block_size;
	reply.wide = looked_wide;
	stamp(7);
}

/* --- Serving ----------------------------------------------------------------------------- */

static void say(void)
{
	struct iovec_ iov = {&reply, sizeof reply};
	struct msghdr_ m;
	memset(&m, 0, sizeof m);
	m.iov = &iov;
	m.iovlen = 1;
	long r;
	do
		r = sys(__NR_sendmsg, SOCK, &m, MSG_NOSIGNAL_);
	while (r == -EINTR);
	if (r < 0)
		sys(__NR_exit_group, 0);
}

static void serve(struct rewind_request *q, s32 *fds, u32 nfds)
{
	memset(&reply, 0, sizeof reply);
	reply.version = REWIND_VERSION;
	reply.id = q->id;
	verdict = 0;
	why[0] = 0;
	ntids = 0;
	u64 begin = last_stamp = now();
	if (q->op == REWIND_DROP) {
		struct armed *a = find(q->handle);
		if (a)
			forget(a);
	} else if (q->op == REWIND_ARM && nfds >= 1) {
		op_arm(q, fds[0], nfds > 1 ? fds[1] : -1);
		nfds = nfds > 2 ? nfds - 2 : 0; /* kept, or closed */
		fds += 2;
	} else if (q->op == REWIND_BACK) {
		op_back(q);
	}
	tick(0);
	for (u32 i = 0; i < nfds; i++)
		close_fd(fds[i]);
	if (q->op == REWIND_DROP)
		return;
	reply.status = verdict;
	for (u32 i = 0; i < sizeof why; i++)
		reply.why[i] = why[i];
	reply.took = now() - begin;
	say();
}

static void receive(void)
{
	static struct rewind_request q;
	struct { struct cmsghdr_ head; s32 fd[4]; } control;
	struct iovec_ iov = {&q, sizeof q};
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
	u32 nfds = 0;
	if (m.controllen >= sizeof control.head && control.head.type == SCM_RIGHTS_)
		nfds = (u32)((control.head.len - sizeof control.head) / sizeof(s32));
	if (n != sizeof q || q.version != REWIND_VERSION || m.flags & (MSG_TRUNC_ | MSG_CTRUNC_))
		sys(__NR_exit_group, 1);
	serve(&q, control.fd, nfds);
}

#if defined(__x86_64__)
void rewind_restore(void);
__asm__(".text\nrewind_restore:\n	mov $15, %eax\n	syscall\n");
#endif

static void ring(int signal) { (void)signal; }

/* shed gives up the rights that are not needed here. */
static void shed(void)
{
	struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2];
	u64 keep = 1ull << CAP_SYS_PTRACE | 1ull << CAP_SYS_ADMIN | 1ull << CAP_KILL | 1ull << CAP_DAC_OVERRIDE |
		   1ull << CAP_DAC_READ_SEARCH | 1ull << 40 /* CAP_CHECKPOINT_RESTORE */;
	if (sys(__NR_capget, &head, data) < 0)
		return;
	for (u32 i = 0; i < 2; i++) {
		data[i].permitted &= (u32)(keep >> (32 * i));
		data[i].effective &= (u32)(keep >> (32 * i));
		data[i].inheritable = 0;
	}
	sys(__NR_capset, &head, data);
	sys(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static int at_least(const char *release, u64 major, u64 minor)
{
	u64 v[2] = {0, 0};
	for (u32 k = 0; k < 2; k++, release++)
		for (; *release >= '0' && *release <= '9'; release++)
			v[k] = v[k] * 10 + (u64)(*release - '0');
	return v[0] > major || (v[0] == major && v[1] >= minor);
}

__attribute__((used)) void rewind_main(void)
{
	struct { void (*handler)(int); u64 flags; void (*restorer)(void); u64 mask; } act = {0, 0, 0, 0};
	for (int sig = 1; sig <= 64; sig++)
		sys(__NR_rt_sigaction, sig, &act, 0, 8);
	act.handler = ring;
#if defined(__x86_64__)
	act.flags = 0x04000000; /* SA_RESTORER */
	act.restorer = rewind_restore;
#endif
	sys(__NR_rt_sigaction, SIGALRM, &act, 0, 8);
	u64 none = 0, limit[2];
	sys(__NR_rt_sigprocmask, SIG_SETMASK, &none, 0, 8);
	sys(__NR_prctl, PR_SET_NAME, "brasa-rewinder", 0, 0, 0);
	if (sys(__NR_prlimit64, 0, RLIMIT_NOFILE, 0, limit) >= 0) {
		limit[0] = limit[1];
		sys(__NR_prlimit64, 0, RLIMIT_NOFILE, limit, 0);
	}
	struct { char sysname[65], nodename[65], release[65], version[65], machine[65], domain[65]; } name;
	if (sys(__NR_uname, &name) >= 0)
		exact_counts = at_least(name.release, 6, 18);
	sys(__NR_setpriority, 0, 0, -10); /* what it does is short, and somebody waits for it */
	shed();
	self_pidfd = sys(__NR_pidfd_open, sys(__NR_getpid), 0);
	if (self_pidfd < 0 || store_open() < 0)
		sys(__NR_exit_group, 1);
	int left = 0;
	for (;;) {
		struct { s32 fd; u16 events, revents; } p = {SOCK, 1, 0};
		struct timespec_ soon = {0, 10000000};
		sys(__NR_ppoll, &p, 1, left ? &soon : 0, 0, 8);
		left = reap();
		if (p.revents)
			receive();
		if (verdict)
			left = reap();
	}
}
