package sandbox

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

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

func TestForbiddenCallsAreRefused(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		dir := buildStatic(t, attacker)
		o := run(t, h, Spec{Args: []string{"/code/main"}, Mounts: []Mount{{Source: dir, Target: "/code"}}})
		lines := strings.Split(o.ok(t), "\n")
		if lines[len(lines)-1] != "end" || len(lines) < 60 {
			t.Fatalf("the attacker did not get through its list: %q", o.stdout)
		}
		for _, line := range lines[:len(lines)-1] {
			if strings.HasSuffix(line, " worked") {
				t.Error(line)
			}
		}
	})
}

func TestHostFilesAreNotThere(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("s3cret"), 0o644); err != nil {
		t.Fatal(err)
	}
	bothSpawners(t, func(t *testing.T, h *Host) {
		o := shell(t, h, `
			for f in /etc/shadow /etc/gshadow /etc/sudoers /etc/ssh /root /home /boot /sys /var/lib /var/log /srv /mnt /opt /work /run/systemd /run/docker.sock /.dockerenv "$SECRET" /proc/1/root/etc/shadow /proc/1/cwd/root; do
				[ -e "$f" ] && echo "there: $f"
			done
			find / -xdev -name secret 2>/dev/null
			ls /run /var /tmp /dev/shm
			cat /proc/1/environ 2>/dev/null; ls /proc/1/fd 2>/dev/null
			ls /../../../../work /proc/self/root/../root 2>/dev/null
			true`, func(s *Spec) { s.Env = append(s.Env, "SECRET="+secret) })
		if got := o.ok(t); got != "/dev/shm:\n\n/run:\nempty\n\n/tmp:\n\n/var:\ntmp" {
			t.Errorf("got %q", got)
		}
	})
}

func TestRootIsReadOnly(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		o := shell(t, h, `
			for f in /x /usr/x /usr/bin/sh /etc/x /etc/passwd /etc/hosts /bin/x /lib/x /dev/x /dev/null/x /run/x /run/empty/x /var/tmp/x /proc/x /proc/sys/kernel/hostname /proc/sys/kernel/core_pattern /proc/sys/vm/overcommit_memory /proc/sys/net/ipv4/ip_forward /proc/sysrq-trigger /proc/self/oom_score_adj /proc/self/uid_map /code/x; do
				(echo x >> "$f") 2>/dev/null && echo "wrote $f"
			done
			for f in /usr/bin/env /code /etc/passwd /dev/null; do
				chmod 777 $f 2>/dev/null && echo "chmod $f"
				rm -f $f 2>/dev/null && echo "rm $f"
			done
			mount | grep -v '^tmpfs on /tmp \|^tmpfs on /dev/shm \|^tmpfs on /etc/passwd \|^tmpfs on /etc/hosts ' | grep -v '(ro,'
			mount | grep -v nosuid
			true`, func(s *Spec) { s.Mounts = []Mount{{Source: dir, Target: "/code"}} })
		if got := o.ok(t); got != "" {
			t.Errorf("got %q", got)
		}
	})
}

func TestOwnProgramCannotBeOverwritten(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		o := shell(t, h, `
			readlink /proc/self/exe /proc/1/exe /proc/$$/exe
			for p in self 1 $$; do (echo x >> /proc/$p/exe) 2>/dev/null && echo "wrote $p"; done; true`)
		for _, line := range strings.Split(o.ok(t), "\n") {
			if !strings.HasPrefix(line, "/usr/bin/") {
				t.Errorf("got %q", line)
			}
		}
	})
}

func TestOnlyOwnProcessesAreSeen(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		neighbour := start(t, h, Spec{Args: []string{"/bin/sleep", "86399"}})
		o := shell(t, h, `cd /proc; echo [0-9]*; cat [0-9]*/cmdline | tr '\0' ' '; kill -9 -1 2>/dev/null; true`)
		if strings.Contains(o.stdout, "86399") {
			t.Errorf("a neighbour is seen: %q", o.stdout)
		}
		// Pid 1, which only reaps, and the shell, which is not 1.
		if pids, _, _ := strings.Cut(o.stdout, "\n"); !regexp.MustCompile(`^1 \d+$`).MatchString(pids) {
			t.Errorf("processes %q are seen", pids)
		}
		select {
		case <-neighbour.Done():
			t.Error("kill -1 reached a neighbour")
		default:
		}
	})
}

func TestProcessStateIsStripped(t *testing.T) {
	t.Setenv("BRASA_TEST_SECRET", "s3cret")
	leak, err := os.Open("/etc/hostname") // without close-on-exec, as a careless library would
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	bothSpawners(t, func(t *testing.T, h *Host) {
		o := shell(t, h, `
			grep -E '^(NoNewPrivs|Seccomp|CapInh|CapPrm|CapEff|CapBnd|CapAmb|Groups|SigIgn|SigBlk):' /proc/self/status | tr -s '\t ' '  '
			ls /proc/self/fd
			env | sort
			ulimit -c; ulimit -n; umask
			hostname; cat /proc/sys/kernel/hostname
			cat /proc/self/cgroup | cut -d: -f3 | sort -u
			id -u
			for f in keys cmdline partitions kallsyms; do wc -c < /proc/$f; done`, func(s *Spec) { s.Hostname = "box-1" })
		lines := strings.Split(o.ok(t), "\n")
		for i := range lines {
			lines[i] = strings.TrimSpace(lines[i])
		}
		got := strings.Join(lines, "\n")
		none := "0000000000000000"
		for _, want := range []string{
			"SigBlk: " + none + "\nSigIgn: " + none,
			"CapInh: " + none + "\nCapPrm: " + none + "\nCapEff: " + none + "\nCapBnd: " + none + "\nCapAmb: " + none,
			"NoNewPrivs: 1\nSeccomp: 2",
			"\n0\n1\n2\n3\nHOME=/tmp\nPATH=/usr/local/bin:/usr/bin:/bin\nPWD=/tmp\n0\n1024\n0022\nbox-1\nbox-1\n/\n", // 3 is ls's own
		} {
			if !strings.Contains(got, want) {
				t.Errorf("want %q in %q", want, got)
			}
		}
		if !strings.HasSuffix(got, "\n0\n0\n0\n0") {
			t.Errorf("files of /proc are not masked: %q", got)
		}
	})
}

func TestSetUserIDProgramsGainNothing(t *testing.T) {
	needRoot(t)
	dir := buildStatic(t, `#include <stdio.h>
#include <unistd.h>
int main(void) { printf("%d\n", geteuid() == 0); return 0; }`)
	if err := os.Chmod(filepath.Join(dir, "main"), 0o6755); err != nil {
		t.Fatal(err)
	}
	bothSpawners(t, func(t *testing.T, h *Host) {
		o := run(t, h, Spec{Args: []string{"/bin/sh", "-c", "/code/main; cp /code/main /tmp/copy; chmod 6755 /tmp/copy; /tmp/copy"}, Env: []string{"PATH=/bin"}, Mounts: []Mount{{Source: dir, Target: "/code"}}})
		if got := o.ok(t); got != "0\n0" {
			t.Errorf("got %q", got)
		}
	})
}

func TestUserIDsAreDistinct(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		seen := map[int]bool{}
		for range 8 {
			s := start(t, h, Spec{Args: []string{"/bin/sleep", "1000"}})
			if s.UID() < 0x42000000 || seen[s.UID()] {
				t.Errorf("user id %d is not this sandbox's own", s.UID())
			}
			seen[s.UID()] = true
		}
	})
}

func TestNothingIsShared(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		first := `echo x >/tmp/x; echo x >/dev/shm/x; (echo x >/var/tmp/x) 2>/dev/null; ipcmk -M 4096 >/dev/null; ipcs -m | grep -c 0x`
		if got := shell(t, h, first).ok(t); got != "1" {
			t.Fatalf("the first sandbox sees %q shared memory segments of its own", got)
		}
		if got := shell(t, h, `ls /tmp /dev/shm /var/tmp; ipcs -m | grep -c 0x; true`).ok(t); got != "/dev/shm:\n\n/tmp:\n\n/var/tmp:\n0" {
			t.Errorf("the second sandbox sees %q", got)
		}
	})
}
