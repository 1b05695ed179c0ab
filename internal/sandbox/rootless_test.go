package sandbox

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// someone is an ordinary user without any rights.
const someone = 61234

// TestOrdinaryUser runs the tests below as an ordinary user: the first process is that user, the
// second its own root, as brasa serve does it.
func TestOrdinaryUser(t *testing.T) {
	switch os.Getenv("BRASA_TEST_USER") {
	case "first":
		if !NeedsReexec() {
			t.Fatal("NeedsReexec is false for an ordinary user")
		}
		os.Setenv("BRASA_TEST_USER", "second")
		code, err := Reexec(os.Args[1:])
		if err != nil {
			t.Fatal(err)
		}
		if code != 0 {
			t.Fatalf("second self: exit code %d", code)
		}
		return
	case "second":
		if NeedsReexec() {
			t.Fatal("NeedsReexec is true for the second self")
		}
		ordinaryUser(t)
		return
	}
	needRoot(t)
	if f := userNamespaces(); !f.Have {
		t.Skip(f.Detail)
	}
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
	home := filepath.Join(dir, "home")
	must(t, os.Mkdir(home, 0o700))
	must(t, os.Chown(home, someone, someone))
	attack := buildStatic(t, attacker)
	must(t, os.Rename(filepath.Join(attack, "main"), filepath.Join(dir, "main")))
	binary := filepath.Join(dir, "sandbox.test")
	self, err := os.Open("/proc/self/exe")
	must(t, err)
	copied, err := os.OpenFile(binary, os.O_CREATE|os.O_WRONLY, 0o755)
	must(t, err)
	_, err = io.Copy(copied, self)
	must(t, err)
	self.Close()
	must(t, copied.Close())
	cmd := exec.Command(binary, "-test.run=^TestOrdinaryUser$", "-test.v", "-test.timeout=5m")
	cmd.Dir = home
	cmd.Env = []string{"PATH=/usr/bin:/bin", "TMPDIR=" + home, "HOME=" + home, "BRASA_TEST_USER=first", "BRASA_TEST_ATTACK=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: someone, Gid: someone}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

func ordinaryUser(t *testing.T) {
	h := runHost(t, testConfig(t))
	if h.layout != nil && h.layout.has["memory"] {
		t.Log("this user has cgroups of its own")
	}
	t.Run("runs and is confined", func(t *testing.T) {
		o := shell(t, h, `id -un; id -u; cat /proc/self/uid_map | tr -s ' '; ls / /etc/shadow /home /root 2>/dev/null; (echo x >/etc/passwd) 2>/dev/null && echo wrote; (echo x >/proc/sys/net/ipv4/ip_forward) 2>/dev/null && echo wrote; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; echo [0-9]*; echo x >/dev/null && head -c1 /dev/urandom | wc -c`)
		got := o.ok(t)
		for _, want := range []string{"function\n1000\n 1000 0 1\n", "CapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2", "\n1"} {
			if !strings.Contains(got, want) {
				t.Errorf("want %q in %q", want, got)
			}
		}
		if strings.Contains(got, "wrote") || strings.Contains(got, "home") || strings.Contains(got, "shadow") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("forbidden calls", func(t *testing.T) {
		o := run(t, h, Spec{Args: []string{"/code/main"}, Mounts: []Mount{{Source: os.Getenv("BRASA_TEST_ATTACK"), Target: "/code"}}})
		for _, line := range strings.Split(o.ok(t), "\n") {
			// Pid 1 belongs to the same user here, and is deaf to what comes from inside.
			if strings.HasSuffix(line, " worked") && line != "kill pid 1 worked" {
				t.Error(line)
			}
		}
	})
	t.Run("waits for its program", func(t *testing.T) {
		box := startWait(t, h)
		must(t, box.Adopt(context.Background(), Claim{Hostname: "late", PIDs: 50, Mounts: []Mount{{Source: codeDir(t, "content"), Target: "/code"}}}))
		out, text := capture(t)
		must(t, box.Exec(context.Background(), Command{Args: []string{"/bin/sh", "-c", "id -u; pwd; cat file; hostname; grep -E 'CapEff|Seccomp:' /proc/self/status; ls /proc/$$/fd"}, Env: []string{"PATH=/usr/bin:/bin"}, Stdout: out}))
		out.Close()
		if got := <-text; got != "1000\n/code\ncontentlate\nCapEff:\t0000000000000000\nSeccomp:\t2\n0\n1\n2\n" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("root of its own", func(t *testing.T) {
		if !h.Features().Has(featureOverlay) {
			t.Skip("no overlay")
		}
		root, code := makeRoot(t, visible), codeDir(t, "content")
		o := run(t, h, Spec{Root: root, Args: []string{"/bin/prog", "list", "/", "/bin", "/code", "/usr"}, Mounts: []Mount{{Source: code, Target: "/code"}}})
		for _, want := range []string{"cwd /code\n", "/bin: prog\n", "/code: file\n", "/usr: No such file"} {
			if !strings.Contains(o.ok(t), want) {
				t.Errorf("want %q in %q", want, o.stdout)
			}
		}
		o = run(t, h, Spec{Root: root, Args: []string{"/bin/prog", "write", "/x", "/bin/prog", "/etc/passwd", "/etc/x"}})
		if strings.Contains(o.ok(t), "wrote") {
			t.Errorf("got %q", o.stdout)
		}
	})
	t.Run("connection, mounts, kill", func(t *testing.T) {
		dir := t.TempDir()
		s := start(t, h, Spec{Args: []string{"/bin/sh", "-c", "echo made >/out/made; " + descendants}, Env: []string{"PATH=/bin:/usr/bin"}, Conn: true, Mounts: []Mount{{Source: dir, Target: "/out", Writable: true}}})
		s.Conn().SetDeadline(time.Now().Add(patience))
		if _, err := s.Conn().Read(make([]byte, 3)); err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(filepath.Join(dir, "made")); string(text) != "made\n" {
			t.Errorf("writable mount: %q, %v", text, err)
		}
		pids, err := s.Processes()
		if err != nil || len(pids) < 3 {
			t.Errorf("processes %v, %v", pids, err)
		}
		s.Close()
		if e := s.Exit(); e.Signal != syscall.SIGKILL {
			t.Errorf("exit %+v", e)
		}
	})
	t.Run("memory is watched", func(t *testing.T) {
		o := run(t, h, Spec{Args: []string{"/usr/bin/python3", "-I", "-S", "-c", "import time\nx=bytearray(100<<20)\ntime.sleep(1000)"}, Memory: 64 << 20})
		if !o.exit.OOM || o.exit.Usage.MemoryPeak < 64<<20 {
			t.Errorf("100 MB with 64 MiB allowed: %+v", o.exit)
		}
		o = run(t, h, Spec{Args: []string{"/bin/sh", "-c", "head -c 40m /dev/zero >/tmp/x; head -c 40m /dev/zero >/tmp/y; sleep 1000"}, Env: []string{"PATH=/bin:/usr/bin"}, Memory: 64 << 20, Tmp: 100 << 20})
		if !o.exit.OOM {
			t.Errorf("80 MB in /tmp with 64 MiB allowed: %+v", o.exit)
		}
		// An orphan is nobody's child but pid 1's, and must be found there.
		o = run(t, h, Spec{Args: []string{"/usr/bin/python3", "-I", "-S", "-c", `
import os, time
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        x = bytearray(100<<20)
        time.sleep(1000)
    os._exit(0)
os.wait()
time.sleep(1000)`}, Memory: 64 << 20})
		if !o.exit.OOM {
			t.Errorf("100 MB in an orphan with 64 MiB allowed: %+v", o.exit)
		}
	})
	t.Run("processes are bounded", func(t *testing.T) {
		o := shell(t, h, `i=0; while [ $i -lt 60 ]; do sleep 100 & i=$((i+1)); done; echo all`, func(s *Spec) { s.PIDs = 20 })
		if strings.Contains(o.stdout, "all") {
			t.Errorf("sixty processes with 20 allowed: %q %q", o.stdout, o.stderr)
		}
	})
	t.Run("is adopted", func(t *testing.T) {
		dir := codeDir(t, "content")
		w := startWaiting(t, h, func(s *Spec) { s.PIDs = 100 })
		claim := Claim{Hostname: "pay", Tmp: 32 << 20, Memory: 96 << 20, CPU: 500, PIDs: 20, Mounts: []Mount{{Source: dir, Target: "/code"}, {Source: dir, Target: "/tmp/deep/er"}}}
		must(t, w.Adopt(context.Background(), claim))
		if got := w.ask("cat /code/file /tmp/deep/er/file; echo; hostname; grep 127.0.1.1 /etc/hosts; df -k /tmp /dev/shm | tail -n 2 | tr -s ' ' | cut -d' ' -f2; (echo x >/code/x) 2>/dev/null || echo refused"); got != "contentcontent|pay|127.0.1.1 pay|32768|49152|refused" {
			t.Errorf("got %q", got)
		}
		if got := w.ask("for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22; do sleep 100 >/dev/null 2>&1 & done; echo all"); strings.Contains(got, "all") {
			t.Errorf("22 processes with 20 allowed: %q", got)
		}
		w = startWaiting(t, h)
		must(t, w.Adopt(context.Background(), Claim{Memory: 64 << 20}))
		w.Conn().Write([]byte("head -c 40m /dev/zero >/tmp/x; head -c 40m /dev/zero >/dev/shm/y; sleep 1000\n"))
		if h.watcher != nil {
			w.Adopt(context.Background(), Claim{Memory: 32 << 20}) // less than there is: the watch ends it
			if e := w.Exit(); !e.OOM {
				t.Errorf("exit %+v", e)
			}
		}
		if !w.counted() {
			w := startWaiting(t, h, func(s *Spec) { s.PIDs = 20 })
			var no *UnsupportedError
			if err := w.Adopt(context.Background(), Claim{PIDs: 100}); !errors.As(err, &no) || no.Feature != featurePIDs {
				t.Errorf("got %v", err)
			}
		}
	})
	t.Run("zygotes are refused", func(t *testing.T) {
		_, err := h.StartZygote(context.Background(), ZygoteSpec{Name: "z", Args: []string{"/bin/true"}})
		var no *UnsupportedError
		if !errors.As(err, &no) || no.Fix == "" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("network is refused", func(t *testing.T) {
		_, err := h.Start(context.Background(), Spec{Name: "net", Args: []string{"/bin/true"}, Network: true})
		var no *UnsupportedError
		if !errors.As(err, &no) || no.Fix == "" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("features say so", func(t *testing.T) {
		f := h.Features()
		for _, name := range []string{featureUID, featureVeth, featureNftables} {
			if f.Has(name) {
				t.Errorf("%s is there", name)
			}
		}
		for _, x := range f {
			if !x.Have && (x.Lost == "" || x.Detail == "") {
				t.Errorf("%s does not say what is lost: %+v", x.Name, x)
			}
		}
	})
}
