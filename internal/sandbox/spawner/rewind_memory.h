/* Memory: which mappings there are, which pages were written, and putting both back.
 *
 * A page of the snapshot is clean if it is present, in memory whose writes are
 * tracked, and still write-protected; the process cannot set that bit. Everything
 * else is written back. A private page that the snapshot does not have is given
 * back to the kernel, whatever mapping it lies in: so it does not matter by which
 * way it came there, and tracking only saves work. */
#ifndef BRASA_REWIND_MEMORY_H
#define BRASA_REWIND_MEMORY_H

#include "rewind_state.h"

#define MAX_VMAS 8192
#define MAX_PAGES (1u << 18) /* a gigabyte */
#define MAX_RANGES 16384
#define SCAN_REGIONS 16384
#define LAST_ADDRESS 0x7ffffffff000ull
/* Pages that the process gives back and takes again in each call cost it a fault
 * each time; up to so many are kept, as zeros, instead. */
#define MAX_STICKY 2048
/* A page that was dirty so often is left unprotected: it will be dirty again, and
 * protecting it costs twice. Every so many rewinds that is looked at anew. */
#define HOT 3
#ifndef RELEARN
#define RELEARN 64
#endif

static struct vma vmas_now[MAX_VMAS];
static u32 nvmas_now;

/* list_vmas reads the mappings of a stopped process. */
static int list_vmas(s32 maps, struct vma *to, u32 *count, u32 room)
{
	struct procmap_query_ q;
	u64 at = 0;
	u32 n = 0;
	for (;;) {
		memset(&q, 0, sizeof q);
		q.size = sizeof q;
		q.query_flags = MAP_OR_NEXT;
		q.query_addr = at;
		long r = sys(__NR_ioctl, maps, PROCMAP_QUERY_, &q);
		if (r == -ENOENT)
			break;
		if (r < 0)
			return fail2(r == -ESRCH ? REWIND_ENDED : bad, "its mappings cannot be read: errno", -r, "");
		if (q.vma_start >= LAST_ADDRESS)
			break; /* [vsyscall] */
		if (n == room)
			return refuse("it has too many mappings");
		struct vma *v = &to[n++];
		v->start = q.vma_start;
		v->end = q.vma_end;
		v->offset = q.vma_offset;
		v->inode = q.inode;
		v->device = (u64)q.dev_major << 32 | q.dev_minor;
		v->prot = (u32)q.vma_flags & 15;
		v->flags = q.vma_flags & MAP_SHARED_ ? VMA_SHARED : 0;
		at = q.vma_end;
		if (!(n & 255) && late() < 0)
			return -1;
	}
	*count = n;
	return 0;
}

static u64 hex(const u8 **p)
{
	u64 v = 0;
	for (;; ++*p) {
		u8 c = **p;
		if (c >= '0' && c <= '9')
			v = v << 4 | (u64)(c - '0');
		else if (c >= 'a' && c <= 'f')
			v = v << 4 | (u64)(c - 'a' + 10);
		else
			return v;
	}
}

/* judge_line takes what only smaps tells, line by line. Lines of a mapping begin
 * with its address, all others with a capital. */
static int judge_line(const u8 *line, u32 n, struct vma *vmas, u32 nvmas, s32 *at)
{
	if ((line[0] >= '0' && line[0] <= '9') || (line[0] >= 'a' && line[0] <= 'f')) {
		const u8 *p = line;
		u64 start = hex(&p);
		if (start >= LAST_ADDRESS) {
			*at = -2;
			return 0;
		}
		if (*at + 1 >= (s32)nvmas || vmas[*at + 1].start != start)
			return refuse("its mappings do not hold still");
		++*at;
		u32 end = n;
		while (end && line[end - 1] == ' ')
			end--;
		if (end >= 6 && line[end - 1] == ']')
			for (u32 i = end; i-- > 0;)
				if (line[i] == '[' && begins(line + i, "[v") && !vmas[*at].inode)
					vmas[*at].flags |= VMA_SPECIAL;
		return 0;
	}
	if (*at < 0 || !begins(line, "VmFlags:"))
		return 0;
	struct vma *v = &vmas[*at];
	int io = 0, may_write = 0, lock = 0, huge = 0;
	for (u32 i = 8; i + 2 < n; i += 3) {
		u8 x = line[i + 1], y = line[i + 2];
#define IS(a, b) (x == a && y == b)
		if (IS('i', 'o') || IS('p', 'f')) io = 1;
		else if (IS('m', 'w')) may_write = 1;
		else if (IS('l', 'o')) lock = 1;
		else if (IS('h', 't')) huge = 1;
		else if (IS('d', 'c')) v->flags |= VMA_DONTFORK;
		else if (IS('d', 'd')) v->flags |= VMA_DONTDUMP;
		else if (IS('n', 'r')) v->flags |= VMA_NORESERVE;
		else if (IS('n', 'h')) v->flags |= VMA_NOHUGE;
		else if (!(IS('r', 'd') || IS('w', 'r') || IS('e', 'x') || IS('s', 'h') || IS('m', 'r') || IS('m', 'e') || IS('m', 's') || IS('a', 'c') || IS('s', 'd') || IS('u', 'w')))
			v->flags |= VMA_ODD;
#undef IS
	}
	if (v->flags & VMA_SPECIAL)
		return 0;
	if (io || huge)
		return refuse("it has mapped a device or huge pages");
	if (lock)
		return refuse("it has locked memory");
	if (v->flags & VMA_SHARED && may_write)
		return refuse("it has shared memory that it can write");
	return 0;
}

static int judge_vmas(s32 proc, struct vma *vmas, u32 nvmas)
{
	s32 fd = open_at(proc, "smaps", 0), at = -1;
	if (fd < 0)
		return refuse("its mappings cannot be read");
	static u8 buffer[65536 + 1];
	u32 have = 0;
	int r = 0;
	for (;;) {
		long n = sys(__NR_read, fd, buffer + have, sizeof buffer - 1 - have);
		if (n < 0)
			r = refuse("its mappings cannot be read");
		if (n <= 0)
			break;
		have += (u32)n;
		u32 from = 0;
		for (u32 i = 0; i < have && r >= 0; i++)
			if (buffer[i] == '\n') {
				buffer[i] = 0;
				r = judge_line(buffer + from, i - from, vmas, nvmas, &at);
				from = i + 1;
			}
		if (r < 0 || late() < 0)
			break;
		if (!from && have == sizeof buffer - 1) {
			r = refuse("its mappings cannot be read");
			break;
		}
		for (u32 i = from; i < have; i++)
			buffer[i - from] = buffer[i];
		have -= from;
	}
	close_fd(fd);
	if (r >= 0 && at != (s32)nvmas - 1 && at != -2)
		return refuse("its mappings do not hold still");
	return verdict ? -1 : r;
}

/* --- Making mappings what they were ------------------------------------------------------ */

static struct call fixes[MAX_RANGES];
static u32 nfixes;

static int fix(u64 nr, u64 a, u64 b, u64 c, u64 d, u64 e)
{
	if (nfixes == MAX_RANGES)
		return refuse("its mappings changed too much");
	struct call *k = &fixes[nfixes++];
	memset(k, 0, sizeof *k);
	k->nr = nr;
	k->arg[0] = a;
	k->arg[1] = b;
	k->arg[2] = c;
	k->arg[3] = d;
	k->arg[4] = e;
	return 0;
}

static int failed(const struct call *k)
{
	/* where there is no guard there is none to remove, and it may lie where there never was one */
	return (s64)k->result < 0 && (s64)k->result > -4096 && !(k->nr == __NR_madvise && k->arg[2] == MADV_GUARD_REMOVE_);
}

static int run_fixes(struct armed *a, int must)
{
	for (u32 at = 0; at < nfixes; at += TABLE_CALLS) {
		u32 n = nfixes - at < TABLE_CALLS ? nfixes - at : (u32)TABLE_CALLS;
		if (run_batch(a->threads[0].tid, a->stub, &a->threads[0].regs, fixes + at, n) < 0)
			return -1;
		for (u32 i = at; must && i < at + n; i++)
			if (failed(&fixes[i]))
				return refuse_n("a mapping cannot be put back: errno", -(s64)fixes[i].result);
		if (late() < 0)
			return -1;
	}
	nfixes = 0;
	return 0;
}

static int same_backing(const struct vma *was, const struct vma *is, u64 at)
{
	if (was->inode != is->inode || was->device != is->device || (was->prot ^ is->prot) & MAP_SHARED_)
		return 0;
	return !was->inode || at - was->start + was->offset == at - is->start + is->offset;
}

static int protection(u32 prot)
{
	return (prot & MAP_READ ? 1 : 0) | (prot & MAP_WRITE ? 2 : 0) | (prot & MAP_EXEC ? 4 : 0);
}

/* compare_vmas walks both lists and notes what is to be done in fixes. It returns
 * how many differences there are. */
static int compare_vmas(struct armed *a)
{
	u32 i = 0, k = 0;
	u64 at = 0;
	int differences = 0;
	while (i < a->nvmas || k < nvmas_now) {
		struct vma *was = i < a->nvmas ? &a->vmas[i] : 0, *is = k < nvmas_now ? &vmas_now[k] : 0;
		if (was && at < was->start && is && at < is->start)
			at = was->start < is->start ? was->start : is->start;
		else if (was && !is && at < was->start)
			at = was->start;
		else if (is && !was && at < is->start)
			at = is->start;
		int in_was = was && at >= was->start, in_is = is && at >= is->start;
		u64 end = ~0ull;
		if (was)
			end = in_was ? was->end : was->start;
		if (is && (in_is ? is->end : is->start) < end)
			end = in_is ? is->end : is->start;
		if (in_was && in_is && same_backing(was, is, at)) {
			if (was->prot != is->prot) {
				differences++;
				if (was->flags & (VMA_SPECIAL | VMA_SHARED))
					return refuse("a mapping of the kernel's or a shared one");
				if (fix(__NR_mprotect, at, end - at, (u64)protection(was->prot), 0, 0) < 0)
					return -1;
			}
		} else if (in_was || in_is) {
			differences++;
			if (in_is && is->flags & VMA_SHARED)
				return refuse("shared memory"); /* also what asynchronous input and output makes */
			if (in_is && fix(__NR_munmap, at, end - at, 0, 0, 0) < 0)
				return -1;
			if (in_was) {
				if (was->inode || was->flags & (VMA_SPECIAL | VMA_SHARED | VMA_ODD | VMA_STUB))
					return refuse("a mapping of a file is gone");
				/* private, anonymous, fixed, no reservation of swap */
				u64 flags = 0x22 | 0x10 | (was->flags & VMA_NORESERVE ? 0x4000 : 0);
				if (fix(__NR_mmap, at, end - at, (u64)protection(was->prot), flags, ~0ull) < 0)
					return -1;
				if (was->flags & VMA_DONTFORK && fix(__NR_madvise, at, end - at, MADV_DONTFORK_, 0, 0) < 0)
					return -1;
				if (was->flags & VMA_DONTDUMP && fix(__NR_madvise, at, end - at, MADV_DONTDUMP_, 0, 0) < 0)
					return -1;
				if (was->flags & VMA_NOHUGE && fix(__NR_madvise, at, end - at, MADV_NOHUGEPAGE_, 0, 0) < 0)
					return -1;
			}
		}
		at = end;
		if (was && at >= was->end)
			i++;
		if (is && at >= is->end)
			k++;
	}
	return differences;
}

static int track(struct armed *a, u64 start, u64 end)
{
	struct uffdio_register_ r = {start, end - start, UFFD_REGISTER_MODE_WP_, 0};
	return (int)sys(__NR_ioctl, a->uffd, UFFDIO_REGISTER_, &r);
}

/* still_special says whether the kernel's own mappings are still the kernel's: a program can put
 * another mapping in the place of the one that holds code, which looks the same but for its name. */
static int still_special(struct armed *a)
{
	for (u32 i = 0; i < a->nvmas; i++) {
		struct vma *v = &a->vmas[i];
		if (!(v->flags & VMA_SPECIAL))
			continue;
		static u8 name[256];
		struct procmap_query_ q;
		memset(&q, 0, sizeof q);
		name[0] = 0;
		q.size = sizeof q;
		q.query_addr = v->start;
		q.name_size = sizeof name;
		q.name_addr = (u64)name;
		if (sys(__NR_ioctl, a->maps, PROCMAP_QUERY_, &q) < 0 || q.vma_start != v->start || q.vma_end != v->end ||
		    !q.name_size || !begins(name, "[v"))
			return refuse("a mapping of the kernel's or a shared one");
	}
	return 0;
}

/* restore_vmas makes the list of mappings what it was. */
static int restore_vmas(struct armed *a)
{
	for (u32 tries = 0; tries < 3; tries++) {
		if (list_vmas(a->maps, vmas_now, &nvmas_now, MAX_VMAS) < 0)
			return -1;
		nfixes = 0;
		int n = compare_vmas(a);
		if (n <= 0)
			return n < 0 ? n : still_special(a);
		if (!tries) {
			/* The end of the heap is moved by its own call, which unmaps and maps. */
			nfixes = 0;
			if (fix(__NR_brk, a->brk, 0, 0, 0, 0) < 0 || run_fixes(a, 0) < 0)
				return -1;
			continue;
		}
		if (run_fixes(a, 1) < 0)
			return -1;
		/* What was made again is not tracked. */
		for (u32 i = 0; i < a->nvmas; i++)
			if (a->vmas[i].flags & VMA_REGISTERED)
				track(a, a->vmas[i].start, a->vmas[i].end); /* else it is written back each time */
	}
	return refuse("its mappings cannot be put back");
}

/* --- Pages ------------------------------------------------------------------------------- */

static struct page_region_ regions[SCAN_REGIONS];

/* scan reads what private pages there are from *at on; it returns the number of
 * regions and moves *at on. */
static long scan(s32 pagemap, u64 *at, u64 end)
{
	struct pm_scan_arg_ s;
	memset(&s, 0, sizeof s);
	s.size = sizeof s;
	s.start = *at;
	s.end = end;
	s.vec = (u64)regions;
	s.vec_len = SCAN_REGIONS;
	s.inverted = PG_FILE;
	s.mask = PG_FILE;
	s.anyof = PG_PRESENT | PG_SWAPPED;
	s.ret = PG_WPALLOWED | PG_WRITTEN | PG_PRESENT | PG_SWAPPED | PG_PFNZERO;
	long n = sys(__NR_ioctl, pagemap, PAGEMAP_SCAN_, &s);
	/* The kernel collects 512 regions at a time, and once it had to begin anew walk_end stays
	 * there, though it went on to the end: what lies behind would be found a second time. */
	*at = n == SCAN_REGIONS ? regions[n - 1].end : end;
	return n;
}

/* protect makes writes to private pages of a range be noticed again. */
static long protect(s32 pagemap, u64 start, u64 end)
{
	static struct page_region_ some[256];
	while (start < end) {
		struct pm_scan_arg_ s;
		memset(&s, 0, sizeof s);
		s.size = sizeof s;
		s.flags = SCAN_WP_MATCHING;
		s.start = start;
		s.end = end;
		/* Without a place for regions the kernel protects also what is not there. */
		s.vec = (u64)some;
		s.vec_len = 256;
		s.inverted = PG_FILE;
		/* Only where it is tracked: elsewhere the bit would be set and mean nothing, and
		 * would lie once that memory is tracked. */
		s.mask = PG_FILE | PG_PRESENT | PG_WRITTEN | PG_WPALLOWED;
		s.ret = PG_WRITTEN;
		long n = sys(__NR_ioctl, pagemap, PAGEMAP_SCAN_, &s);
		if (n < 0)
			return n;
		if (s.walk_end <= start)
			return -EINVAL;
		start = s.walk_end;
	}
	return 0;
}

static struct { u64 at; u32 page; } dirty[MAX_PAGES];
static u32 ndirty;
static struct range giving[MAX_RANGES];
static u8 giving_guards[MAX_RANGES];
static u32 ngiving;

static int give(u64 start, u64 end, int guard)
{
	if (ngiving && giving[ngiving - 1].end == start && giving_guards[ngiving - 1] == guard) {
		giving[ngiving - 1].end = end;
		return 0;
	}
	if (ngiving == MAX_RANGES)
		return refuse("it has touched too much memory");
	giving_guards[ngiving] = (u8)guard;
	giving[ngiving++] = (struct range){start, end};
	return 0;
}

static void mark(struct armed *a, u32 i)
{
	dirty[ndirty].at = a->pages[i].at;
	dirty[ndirty++].page = i;
}

static struct vma *vma_of(struct armed *a, u64 at)
{
	u32 low = 0, high = a->nvmas;
	while (low < high) {
		u32 mid = (low + high) / 2;
		if (a->vmas[mid].end <= at)
			low = mid + 1;
		else
			high = mid;
	}
	return low < a->nvmas && a->vmas[low].start <= at ? &a->vmas[low] : 0;
}

static u32 next_kept;
static u64 private_pages;
static u32 looked_wide;
static u32 untracked; /* pages of the snapshot lie where tracking has been lost */

/* find_in_span compares the private pages of a part of memory with those of the
 * snapshot. Parts are looked at in the order of their addresses. */
static int find_in_span(struct armed *a, u64 at, u64 last)
{
	u64 stub_end_at = a->stub + STUB_PAGES * PAGE;
	u32 next = next_kept;
	while (at < last) {
		long n = scan(a->pagemap, &at, last);
		if (n < 0)
			return refuse_n("its pages cannot be looked at: errno", -n);
		if (late() < 0)
			return -1;
		for (long k = 0; k < n; k++) {
			if ((regions[k].categories & (PG_PRESENT | PG_PFNZERO)) == PG_PRESENT)
				private_pages += (regions[k].end - regions[k].start) / PAGE;
			u64 page = regions[k].start, end = regions[k].end, c = regions[k].categories;
			int clean = (c & (PG_WPALLOWED | PG_PRESENT | PG_WRITTEN)) == (PG_WPALLOWED | PG_PRESENT);
			while (page < end) {
				/* pages of the snapshot before this one are gone */
				while (next < a->npages && a->pages[next].at < page) {
					if (!(a->pages[next].id == ZERO_PAGE && a->pages[next].anon))
						mark(a, next);
					next++;
				}
				if (next < a->npages && a->pages[next].at == page) {
					untracked |= !(c & PG_WPALLOWED);
					if (clean)
						a->pages[next].heat = 0;
					else if (!(c & PG_PFNZERO && a->pages[next].id == ZERO_PAGE))
						mark(a, next);
					next++;
					page += PAGE;
					continue;
				}
				u64 until = end;
				if (next < a->npages && a->pages[next].at < until)
					until = a->pages[next].at;
				if (page >= a->stub && page < stub_end_at) {
					page = until < stub_end_at ? until : stub_end_at;
					continue;
				}
				if (page < a->stub && until > a->stub)
					until = a->stub;
				if (!(c & PG_PFNZERO) && (c & PG_PRESENT || c & PG_WRITTEN) &&
				    give(page, until, !(c & PG_PRESENT)) < 0)
					return -1;
				page = until;
			}
		}
	}
	next_kept = next;
	return 0;
}

static int rest_is_gone(struct armed *a)
{
	for (u32 next = next_kept; next < a->npages; next++)
		if (!(a->pages[next].id == ZERO_PAGE && a->pages[next].anon))
			mark(a, next);
	return 0;
}

/* anonymous says how many private pages a stopped process has, by the kernel's own
 * count; -1 if that is not exact, which it is since 6.18 at the latest. It does not
 * count what lies in swap, where a process can send a page of its own. */
static s64 anonymous(s32 statm)
{
	u8 text[128];
	s64 v[3] = {0, 0, 0};
	u64 host[16] = {0}; /* struct sysinfo */
	if (sys(__NR_sysinfo, host) < 0 || host[8] /* totalswap */)
		return -1;
	long n = statm < 0 ? -1 : sys(__NR_pread64, statm, text, sizeof text, 0);
	u32 k = 0;
	for (long i = 0; i < n && k < 3; i++) {
		if (text[i] >= '0' && text[i] <= '9')
			v[k] = v[k] * 10 + text[i] - '0';
		else
			k++;
	}
	return k == 3 ? v[1] - v[2] : -1;
}

/* Mappings of files with fewer pages than these are not worth leaving out. */
#define SMALL_VMA (32 * PAGE)

/* find_spans lists the parts of memory in which there are, or are likely to be,
 * private pages. */
static void find_spans(struct armed *a, struct range *to, u32 *n)
{
	u32 k = 0;
	for (u32 i = 0; i < a->nvmas; i++) {
		struct vma *v = &a->vmas[i];
		int has = v->flags & (VMA_REGISTERED | VMA_STUB | VMA_LIKELY) || (v->prot & MAP_WRITE && !(v->flags & VMA_SHARED));
		if (!has && (v->end - v->start > SMALL_VMA || v->flags & VMA_SPECIAL))
			continue;
		/* Nothing but holes lies between: there are no pages to look at. */
		if (k && i && to[k - 1].end == a->vmas[i - 1].end)
			to[k - 1].end = v->end;
		else
			to[k++] = (struct range){v->start, v->end};
	}
	*n = k;
}

/* find_changes compares all private pages with those of the snapshot. Looking at
 * a mapped file's pages, of which there are many, is what costs most. So only
 * those parts are looked at where private pages are to be expected; when there
 * are more of them than were found there, they are looked for everywhere. */
static int find_changes(struct armed *a)
{
	untracked = 0;
	s64 count = anonymous(a->statm);
	next_kept = ndirty = ngiving = 0;
	private_pages = 0;
	looked_wide = 0;
	for (u32 i = 0; count >= 0 && i < a->nspans; i++)
		if (find_in_span(a, a->spans[i].start, a->spans[i].end) < 0)
			return -1;
	if (count >= 0 && (u64)count == private_pages)
		return rest_is_gone(a);
	next_kept = ndirty = ngiving = 0;
	private_pages = 0;
	looked_wide = 1;
	if (find_in_span(a, 0, LAST_ADDRESS) < 0)
		return -1;
	/* Where there were some there will be some: a heap that grows in each call. */
	int more = 0;
	for (u32 i = 0; i < ngiving; i++) {
		struct vma *v = vma_of(a, giving[i].start);
		if (v && !(v->flags & (VMA_LIKELY | VMA_REGISTERED))) {
			v->flags |= VMA_LIKELY;
			more = 1;
		}
	}
	if (more)
		find_spans(a, a->spans, &a->nspans);
	return rest_is_gone(a);
}

/* give_back notes the calls that discard what the snapshot does not have. */
static int give_back(void)
{
	for (u32 i = 0; i < ngiving; i++) {
		if (fix(__NR_madvise, giving[i].start, giving[i].end - giving[i].start, MADV_DONTNEED_, 0, 0) < 0)
			return -1;
		if (giving_guards[i] && fix(__NR_madvise, giving[i].start, giving[i].end - giving[i].start, MADV_GUARD_REMOVE_, 0, 0) < 0)
			return -1;
	}
	return 0;
}

#define VECTOR 512
static struct iovec_ here[VECTOR], there[VECTOR];

static int flush_writes(struct armed *a, u32 *nh, u32 *nt, u64 *bytes)
{
	if (!*nh)
		return 0;
	long n = sys(__NR_process_vm_writev, a->pid, here, *nh, there, *nt, 0);
	if (n != (long)*bytes)
		return refuse_n("memory cannot be written back: errno", n < 0 ? -n : EFAULT);
	*nh = *nt = 0;
	*bytes = 0;
	return late();
}

/* write_back writes the dirty pages. */
static int write_back(struct armed *a)
{
	u32 nh = 0, nt = 0;
	u64 bytes = 0;
	struct vma *v = 0;
	for (u32 i = 0; i < ndirty; i++) {
		u64 at = dirty[i].at;
		u8 *from = page_at(a->pages[dirty[i].page].id);
		if (!v || at < v->start || at >= v->end)
			v = vma_of(a, at);
		if (!v)
			return refuse("a mapping is gone");
		if (!(v->prot & MAP_WRITE)) {
			if (sys(__NR_pwrite64, a->mem, from, PAGE, at) != (long)PAGE)
				return refuse("memory cannot be written back");
			continue;
		}
		if (nt && (u64)there[nt - 1].base + there[nt - 1].len == at && there[nt - 1].len < 64 * PAGE)
			there[nt - 1].len += PAGE;
		else
			there[nt++] = (struct iovec_){(void *)at, PAGE};
		if (nh && (u8 *)here[nh - 1].base + here[nh - 1].len == from)
			here[nh - 1].len += PAGE;
		else
			here[nh++] = (struct iovec_){from, PAGE};
		bytes += PAGE;
		if ((nt == VECTOR || nh == VECTOR) && flush_writes(a, &nh, &nt, &bytes) < 0)
			return -1;
	}
	return flush_writes(a, &nh, &nt, &bytes);
}

/* protect_again protects what was written back, except what will be written again. */
static int protect_again(struct armed *a)
{
	/* A mapping that was made anew in the same place looks the same, but is not tracked. */
	for (u32 i = 0; untracked && i < a->nvmas; i++)
		if (a->vmas[i].flags & VMA_REGISTERED && track(a, a->vmas[i].start, a->vmas[i].end) < 0)
			a->vmas[i].flags &= ~(u32)VMA_REGISTERED;
	int relearn = a->rewinds % RELEARN == RELEARN - 1;
	u64 start = 0, end = 0;
	long r = 0;
	for (u32 i = 0; i < ndirty && r >= 0; i++) {
		struct kept_page *p = &a->pages[dirty[i].page];
		if (relearn)
			p->heat = HOT - 1;
		else if (p->heat < 0xffff)
			p->heat++;
		if (p->heat >= HOT)
			continue;
		if (p->at == end) {
			end += PAGE;
			continue;
		}
		if (end)
			r = protect(a->pagemap, start, end);
		start = p->at;
		end = start + PAGE;
	}
	if (end && r >= 0)
		r = protect(a->pagemap, start, end);
	return r < 0 ? refuse_n("memory cannot be protected: errno", -r) : 0;
}

/* settle_sticky lets pages stay that were given back twice in a row, as zeros. */
static void settle_sticky(struct armed *a)
{
	static u64 fresh[MAX_STICKY];
	u32 n = 0;
	for (u32 i = 0, k = 0; i < ngiving && n < MAX_STICKY; i++) {
		struct vma *v = vma_of(a, giving[i].start);
		while (k < a->ngiven && a->given[k].end <= giving[i].start)
			k++;
		if (!v || v->inode || giving_guards[i] || !(v->prot & MAP_WRITE))
			continue;
		for (u32 m = k; m < a->ngiven && a->given[m].start < giving[i].end; m++) {
			u64 from = giving[i].start > a->given[m].start ? giving[i].start : a->given[m].start;
			u64 to = giving[i].end < a->given[m].end ? giving[i].end : a->given[m].end;
			for (; from < to && n < MAX_STICKY && from < v->end; from += PAGE)
				fresh[n++] = from;
		}
	}
	if (n > a->room - a->npages)
		n = a->room - a->npages;
	if (n) {
		u32 from = a->npages, to = a->npages + n, left = n;
		a->npages = to;
		while (left) {
			if (from && a->pages[from - 1].at > fresh[left - 1])
				a->pages[--to] = a->pages[--from];
			else
				a->pages[--to] = (struct kept_page){fresh[--left], ZERO_PAGE, HOT, 1};
		}
	}
	a->ngiven = 0;
	for (u32 i = 0; i < ngiving && a->ngiven < sizeof a->given / sizeof *a->given; i++)
		a->given[a->ngiven++] = giving[i];
}

#endif
