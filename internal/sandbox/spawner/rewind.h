/* What the host says to the rewinder and back, over one SEQPACKET socket, and
 * what the kernel's headers of older distributions do not say yet.
 *
 * Both ends run on one machine from one binary, so numbers are in the machine's
 * own order. internal/sandbox/rewind_wire.go is the other copy of the first
 * part; rewind_wire_test.go holds the two together. */
#ifndef BRASA_REWIND_H
#define BRASA_REWIND_H

#include "sys.h"

#define REWIND_VERSION 1

enum rewind_op {
	REWIND_ARM = 1, /* descriptors: pidfd of the program, then pids.current of its cgroup if there is one */
	REWIND_BACK = 2,
	REWIND_DROP = 3, /* forget it; there is no answer */
};

enum rewind_status {
	REWIND_OK = 0,
	REWIND_NOT = 1,     /* it cannot be armed; it goes on as it was */
	REWIND_CHANGED = 2, /* it cannot be put back; it has been killed */
	REWIND_UNABLE = 3,  /* this kernel cannot */
	REWIND_ENDED = 4,   /* the program has ended */
	REWIND_BUSY = 5,    /* it is not at rest; it goes on as it was */
};

struct rewind_request {
	u32 version;
	u32 op;
	u64 id;
	s32 pid;    /* of the program, in the rewinder's pid namespace */
	s32 nest;   /* of pid 1 of its namespace */
	u32 handle; /* REWIND_BACK, REWIND_DROP: as answered to REWIND_ARM */
	u32 spare;
};

struct rewind_answer {
	u32 version;
	u32 status;
	u64 id;
	u32 handle;
	u32 pages;    /* written back or given back */
	u64 took;     /* ns */
	u64 snapshot; /* bytes that only this snapshot holds, in pages and tables */
	u32 kept;     /* pages in the snapshot */
	u32 threads;
	u32 wide; /* 1 if all of memory was looked through for private pages */
	u32 spare;
	u32 part[8]; /* ns: stop, maps, scan, state, batch, write, protect, go */
	char why[160];
};

/* --- the kernel -------------------------------------------------------------------------- */

#define EPERM 1
#define ENOENT 2
#define ESRCH 3
#define EINTR 4
#define EBADF 9
#define EAGAIN 11
#define ENOMEM 12
#define EFAULT 14
#define EINVAL 22

#define ERESTARTSYS 512
#define ERESTARTNOINTR 513
#define ERESTARTNOHAND 514
#define ERESTART_RESTARTBLOCK 516

#define AT_FDCWD (-100)
#define O_CLOEXEC 02000000
#define O_PATH 010000000
#define O_RDWR 2
#define O_NONBLOCK 04000
#if defined(__aarch64__)
#define O_DIRECTORY 040000
#define O_NOFOLLOW 0100000
#else
#define O_DIRECTORY 0200000
#define O_NOFOLLOW 0400000
#endif

struct iovec_ { void *base; u64 len; };
struct msghdr_ {
	void *name; u32 namelen; u32 pad0;
	struct iovec_ *iov; u64 iovlen;
	void *control; u64 controllen;
	s32 flags; s32 pad1;
};
struct cmsghdr_ { u64 len; s32 level; s32 type; };
struct timespec_ { s64 sec, nsec; };
#define SOL_SOCKET_ 1
#define SCM_RIGHTS_ 1
#define MSG_NOSIGNAL_ 0x4000
#define MSG_TRUNC_ 0x20
#define MSG_CTRUNC_ 8
#define MSG_DONTWAIT_ 0x40
#define MSG_CMSG_CLOEXEC_ 0x40000000

/* linux/fs.h of 6.7 and 6.11 */
#define PROCMAP_QUERY_ 0xc0686611ul
#define MAP_READ 1
#define MAP_WRITE 2
#define MAP_EXEC 4
#define MAP_SHARED_ 8
#define MAP_OR_NEXT 0x10
struct procmap_query_ {
	u64 size, query_flags, query_addr;
	u64 vma_start, vma_end, vma_flags, vma_page_size, vma_offset, inode;
	u32 dev_major, dev_minor, name_size, build_id_size;
	u64 name_addr, build_id_addr;
};

#define PAGEMAP_SCAN_ 0xc0606610ul
#define PG_WPALLOWED 1
#define PG_WRITTEN 2
#define PG_FILE 4
#define PG_PRESENT 8
#define PG_SWAPPED 16
#define PG_PFNZERO 32
#define SCAN_WP_MATCHING 1
struct page_region_ { u64 start, end, categories; };
struct pm_scan_arg_ {
	u64 size, flags, start, end, walk_end, vec, vec_len, max_pages;
	u64 inverted, mask, anyof, ret;
};

/* linux/userfaultfd.h of 6.7 */
#define UFFD_USER_MODE_ONLY_ 1
#define UFFDIO_API_ 0xc018aa3ful
#define UFFDIO_REGISTER_ 0xc020aa00ul
#define UFFD_API_ 0xaa
#define UFFD_PAGEFAULT_FLAG_WP_ (1ull << 0)
#define UFFD_WP_UNPOPULATED_ (1ull << 13)
#define UFFD_WP_ASYNC_ (1ull << 15)
#define UFFD_REGISTER_MODE_WP_ 2
struct uffdio_api_ { u64 api, features, ioctls; };
struct uffdio_register_ { u64 start, len, mode, ioctls; };

#define MADV_DONTNEED_ 4
#define MADV_DONTFORK_ 10
#define MADV_NOHUGEPAGE_ 15
#define MADV_DONTDUMP_ 16
#define MADV_GUARD_REMOVE_ 103

#define PTRACE_EVENT_STOP_ 128
#define PTRACE_GETSIGMASK_ 0x420a
#define PTRACE_SETSIGMASK_ 0x420b
#define PTRACE_PEEKSIGINFO_ 0x4209
#define PTRACE_SECCOMP_GET_FILTER_ 0x420c
#define PTRACE_GET_RSEQ_ 0x420f
struct rseq_conf_ { u64 at; u32 size, signature, flags, pad; };

#define KCMP_FILE 0
#define KCMP_FILES 2
#define KCMP_FS 3
#define KCMP_SIGHAND 4

#define PAGE 4096ull

#endif
