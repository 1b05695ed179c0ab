/* What the host says to the spawner and to zygotes, and back, over one SEQPACKET
 * socket each.
 *
 * Both ends run on one machine from one binary, so numbers are in the
 * machine's own order. internal/sandbox/wire.go and the zygotes of
 * runtimes/ hold the other copies of this page; wire_test.go holds them together.
 *
 * A request is a struct request, then its steps. A step is a struct step, then
 * its text: strings, each ended by a NUL, all padded to eight bytes. Steps are
 * run in order by the process that is being made; the first that fails ends it,
 * and the answer carries the errno and the step's index. The host knows what
 * the step was called. */
#ifndef BRASA_WIRE_H
#define BRASA_WIRE_H

#include "sys.h"

#define WIRE_VERSION 1
#define MAX_REQUEST (2 * 1024 * 1024)
#define MAX_FDS 64
#define MAX_NESTS 16384

enum kind {
	KIND_SETUP = 1,   /* run the steps in the spawner itself */
	KIND_NEST = 2,    /* run them in a new process, which then stays as pid 1 of its pid
			     namespace and reaps; its namespaces wait for a program */
	KIND_START = 3,   /* run them in a new process in a nest; they end in exec */
	KIND_DONE = 4,    /* answer to these; carries a pidfd to the last two when error is 0 */
	KIND_EXITED = 5,  /* a program has ended, and what is left in its nest is being killed */
	KIND_EMPTY = 6,   /* the nest is gone, with everything that was in it */
	KIND_ZYGOTE = 7,  /* run the steps in a new process beside the spawner, in no nest; they
			     end in exec. Answered like KIND_START; its end is not told */
	KIND_READY = 8,   /* a zygote's first word: it takes requests. With an error, a text
			     follows that says why it does not */
	KIND_FORK = 9,    /* to a zygote: clone a child, sibling of its own, into the pid namespace of
			     descriptor `nest`. It runs the steps, says the outcome on descriptor
			     `pid`, reads one byte from it and goes on as a program. Answered by
			     KIND_DONE with a pidfd, and the pid as the spawner sees it in `nest` */
	KIND_FORKED = 10, /* the process of descriptor 0 and `pid`, which a zygote has made, is the
			     program of the nest */
};

enum request_flag {
	REQUEST_BY_FD = 1, /* the steps are in the last descriptor, not in the message */
	REQUEST_COPY = 2,  /* do not share memory with the child (it will unshare a user namespace) */
};

struct request {
	u32 version;
	u32 kind;
	u64 id;
	u64 clone_flags;
	s32 cgroup; /* index of the descriptor for CLONE_INTO_CGROUP, or -1 */
	u32 flags;
	u32 steps;
	u32 bytes; /* of all steps */
	s32 nest;  /* KIND_START, KIND_FORKED: where */
	s32 pid;
	u64 made;  /* with nest: the id of the request that made it, as places are taken again */
};

struct answer {
	u32 version;
	u32 kind;
	u64 id;
	s32 nest; /* which one was made, or ended */
	s32 error;
	s32 step; /* index of the step that failed; -1: clone; -2: the request */
	s32 status; /* as wait4 gives it */
	u64 took;   /* ns from the request to the child's exec */
	u64 user_us, system_us, max_rss_kb;
};

enum op {
	OP_WRITE = 1,    /* fd a, text 0 */
	OP_ENTER,        /* the nest's namespaces a */
	OP_SETNS,        /* fd a, kind b */
	OP_UNSHARE,      /* flags a */
	OP_MOUNT,        /* source, target, type, data; flags a */
	OP_MOVE_MOUNT,   /* fd a, target */
	OP_FILE,         /* scratch path, target, content; mode a */
	OP_MKDIR,        /* path; mode a */
	OP_HOSTNAME,     /* name */
	OP_RLIMIT,       /* resource a, soft b, hard c */
	OP_MAP_IDS,      /* uid_map, gid_map */
	OP_IDS,          /* uid a, gid b */
	OP_DROP_BOUNDING,
	OP_DROP_CAPS,
	OP_PRCTL,        /* option a, value b */
	OP_CHDIR,        /* path */
	OP_PIVOT,        /* cwd becomes the root, the old one goes */
	OP_FDS,          /* a descriptors become 0, 1, ... a-1 in order from b; the rest is closed */
	OP_SECCOMP,      /* a instructions, eight bytes each */
	OP_EXEC,         /* a arguments, then b variables */
	OP_HOLD,         /* the last step of a nest: close everything, reap for ever */
	OP_CAPS,         /* keep the capabilities a, over exec too, and no others */
	OP_REPLACE,      /* path, content: of a file that is there */
	OP_WAIT,         /* executes the waiting program, which is descriptor a of those arranged */
};

enum step_flag {
	STEP_OPTIONAL = 1, /* a failure does not count */
};

/* What the waiting program (wait.c) is sent, once, on descriptor WAIT_SOCK. Behind it are the
 * directory, the arguments and the variables, each ended by a NUL; along come the program's
 * descriptors. It answers only if it cannot become the program, with an errno. */
#define WAIT_SOCK 3
#define MAX_COMMAND (64 * 1024) /* of the text */
#define MAX_STRINGS 4096        /* arguments and variables */

struct command {
	u32 version;
	u32 args;
	u32 env;
	u32 fds;
	u32 bytes; /* of the text */
	u32 pad;
};

struct step {
	u16 op;
	u16 flags;
	u32 size; /* with this header and the padding */
	u64 a, b, c;
};

#endif
