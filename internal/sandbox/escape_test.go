package sandbox

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

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
			for f in /etc/shadow /etc/gshadow /etc/sudoers /etc/ssh /root /home /boot /sys /var/lib /var/log /srv /mnt /opt /media /run/systemd /run/docker.sock /.dockerenv "$SECRET" /proc/1/root/etc/shadow /proc/1/cwd/root; do
				[ -e "$f" ] && echo "there: $f"
			done
			find / -xdev -name secret 2>/dev/null
			ls /run /var /tmp /dev/shm
			cat /proc/1/environ 2>/dev/null; ls /proc/1/fd 2>/dev/null
			ls /../../../../home /proc/self/root/../root 2>/dev/null
			true`, func(s *Spec) { s.Env = append(s.Env, "SECRET="+secret) })
		if got := o.ok(t); got != "/dev/shm:\n\n/run:\nempty\nempty-file\n\n/tmp:\n\n/var:\ntmp" {
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
			for f in /x /usr/x /usr/bin/sh /etc/x /etc/passwd /etc/hosts /bin/x /lib/x /dev/x /dev/null/x /run/x /run/empty/x /var/tmp/x /proc/x /proc/sys/kernel/hostname /proc/sys/kernel/core_pattern /proc/sys/vm/overcommit_memory /proc/sys/net/ipv4/ip_forward /proc/sysrq-trigger /proc/keys /proc/cmdline /proc/self/oom_score_adj /proc/self/uid_map /code/x; do
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
	dir := buildStatic(t, whoami)
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
