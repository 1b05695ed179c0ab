package sandbox

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// fixtures are the hostile and other programs the tests run, in C.
var fixtures = []string{nothing, forkBomb, threadBomb, memoryBomb, whoami, attacker, visible, pauser, rewindTrickster}

// buildStatic returns a directory that a sandbox can mount, with a C program built as main. Where
// BRASA_TEST_FIXTURES is set they are there already.
func buildStatic(t testing.TB, source string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "main")
	if built := os.Getenv("BRASA_TEST_FIXTURES"); built != "" {
		content, err := os.ReadFile(filepath.Join(built, fixtureName(source)))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(program, content, 0o755); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("needs gcc")
	}
	file := filepath.Join(t.TempDir(), "main.c")
	if err := os.WriteFile(file, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(gcc, "-O1", "-static", "-pthread", "-w", "-o", program, file).CombinedOutput(); err != nil {
		t.Skipf("gcc cannot link statically here: %s", out)
	}
	return dir
}

func fixtureName(source string) string {
	sum := sha256.Sum256([]byte(source))
	return hex.EncodeToString(sum[:8])
}

const nothing = "int main(void) { return 0; }"

const forkBomb = `#include <stdio.h>
#include <unistd.h>
#include <errno.h>
int main(void) {
	int n = 0;
	for (;;) { int pid = fork(); if (pid == 0) for (;;) pause(); if (pid < 0) break; n++; }
	printf("%d %d\n", n, errno == EAGAIN);
	return 0;
}`

const threadBomb = `#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
static void *sleeper(void *p) { for (;;) pause(); }
int main(void) { int n = 0; pthread_t t; while (n < 10000 && !pthread_create(&t, 0, sleeper, 0)) n++; printf("%d\n", n); return 0; }`

const memoryBomb = `#include <stdlib.h>
#include <string.h>
int main(void) { for (;;) { char *p = malloc(1 << 20); if (p) memset(p, 1, 1 << 20); } }`

const whoami = `#include <stdio.h>
#include <unistd.h>
int main(void) { printf("%d\n", geteuid() == 0); return 0; }`

// A hostile program makes each call with arguments that would work for root. It prints one line
// per call: the name, and the errno or "worked".
const attacker = `
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/uio.h>
#include <unistd.h>
#define TRY(name, call) do { errno = 0; long r = (long)(call); printf("%s %s\n", name, r >= 0 ? "worked" : strerrorname_np(errno)); fflush(stdout); } while (0)
static int nothing(void *p) { return 0; }
static char stack[65536];
int main(void) {
	char buf[4096] = {0};
	union bpf_attr attr; memset(&attr, 0, sizeof attr);
	attr.map_type = BPF_MAP_TYPE_ARRAY; attr.key_size = 4; attr.value_size = 4; attr.max_entries = 1;
	struct perf_event_attr pe; memset(&pe, 0, sizeof pe); pe.size = sizeof pe; pe.type = PERF_TYPE_SOFTWARE;
	TRY("mount", mount("tmpfs", "/tmp", "tmpfs", 0, 0));
	TRY("umount", umount2("/proc", MNT_DETACH));
	TRY("pivot_root", syscall(SYS_pivot_root, "/tmp", "/tmp"));
	TRY("chroot", chroot("/tmp"));
	TRY("open_tree", syscall(SYS_open_tree, -100, "/", 1));
	TRY("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
	TRY("move_mount", syscall(SYS_move_mount, -100, "/tmp", -100, "/code", 0));
	TRY("mount_setattr", syscall(SYS_mount_setattr, -100, "/", 0, buf, 32));
	TRY("unshare user", unshare(CLONE_NEWUSER));
	TRY("unshare net", unshare(CLONE_NEWNET));
	TRY("unshare mnt", unshare(CLONE_NEWNS));
	TRY("clone user", clone(nothing, stack + sizeof stack, CLONE_NEWUSER | SIGCHLD, 0));
	TRY("clone pid", clone(nothing, stack + sizeof stack, CLONE_NEWPID | SIGCHLD, 0));
	TRY("clone time", unshare(0x80));
	TRY("clone3", syscall(SYS_clone3, buf, 88));
	TRY("setns", setns(open("/proc/self/ns/net", O_RDONLY), 0));
	TRY("sethostname", sethostname("evil", 4));
	TRY("ptrace", ptrace(PTRACE_TRACEME, 0, 0, 0));
	TRY("process_vm_readv", syscall(SYS_process_vm_readv, getpid(), buf, 0, buf, 0, 0));
	TRY("process_vm_writev", syscall(SYS_process_vm_writev, getpid(), buf, 0, buf, 0, 0));
	TRY("kcmp", syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 0));
	TRY("pidfd_getfd", syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, getpid(), 0), 1, 0));
	TRY("bpf", syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof attr));
	TRY("perf_event_open", syscall(SYS_perf_event_open, &pe, 0, -1, -1, 0));
	TRY("keyctl", syscall(SYS_keyctl, 0, -3, 1));
	TRY("add_key", syscall(SYS_add_key, "user", "k", "v", 1, -3));
	TRY("request_key", syscall(SYS_request_key, "user", "k", 0, 0));
	TRY("userfaultfd", syscall(SYS_userfaultfd, 1));
	TRY("io_uring_setup", syscall(SYS_io_uring_setup, 8, buf));
	TRY("fanotify_init", syscall(SYS_fanotify_init, 0, 0));
	TRY("name_to_handle_at", syscall(SYS_name_to_handle_at, -100, "/", buf, buf + 200, 0));
	TRY("open_by_handle_at", syscall(SYS_open_by_handle_at, -100, buf, 0));
	TRY("init_module", syscall(SYS_init_module, buf, 1, ""));
	TRY("finit_module", syscall(SYS_finit_module, 0, "", 0));
	TRY("kexec_load", syscall(SYS_kexec_load, 0, 0, 0, 0));
	TRY("reboot", syscall(SYS_reboot, 0xfee1dead, 672274793, 0, 0));
	TRY("swapon", syscall(SYS_swapon, "/tmp/x", 0));
	TRY("acct", syscall(SYS_acct, 0));
	TRY("syslog", syscall(SYS_syslog, 3, buf, sizeof buf));
	TRY("settimeofday", syscall(SYS_settimeofday, 0, buf));
	TRY("clock_settime", syscall(SYS_clock_settime, 0, buf));
	TRY("quotactl", syscall(SYS_quotactl, 0, 0, 0, 0));
	TRY("personality", syscall(SYS_personality, 0x0040000));
	TRY("memfd_secret", syscall(447, 0));
	TRY("mknod dev", mknod("/tmp/mem", S_IFCHR | 0666, (1 << 8) | 1));
	TRY("socket packet", socket(AF_PACKET, SOCK_RAW, 0));
	TRY("socket raw", socket(AF_INET, SOCK_RAW, 1));
	TRY("socket vsock", socket(40, SOCK_STREAM, 0));
	TRY("socket alg", socket(38, SOCK_SEQPACKET, 0));
	TRY("socket netfilter", socket(AF_NETLINK, SOCK_RAW, 12));
	TRY("socket audit", socket(AF_NETLINK, SOCK_RAW, 9));
	TRY("tiocsti", ioctl(0, 0x5412, "x"));
	TRY("tiocsti high bits", syscall(SYS_ioctl, 0, 0x100005412UL, "x"));
	TRY("setuid root", setresuid(0, 0, 0));
	TRY("setgid root", setresgid(0, 0, 0));
	TRY("setgroups", syscall(SYS_setgroups, 0, 0));
	TRY("kill pid 1", kill(1, 9));
	TRY("iopl", syscall(SYS_iopl, 3));
	TRY("x32 getpid", syscall(0x40000000 | SYS_getpid));
	TRY("nice up", setpriority(0, 0, -5));
	struct sched_param sp = {1};
	TRY("realtime", sched_setscheduler(0, SCHED_FIFO, &sp));
	printf("end\n");
	return 0;
}
`
