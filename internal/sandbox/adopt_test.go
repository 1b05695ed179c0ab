package sandbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// waiting starts a shell that does what it is told, line by line, and answers with what that
// printed. It has no code.
type waiting struct {
	*Sandbox
	t       testing.TB
	answers *bufio.Reader
}

func startWaiting(t testing.TB, h *Host, change ...func(*Spec)) *waiting {
	t.Helper()
	spec := Spec{
		Args: []string{"/bin/sh", "-c", `while read -r line <&3; do (eval "$line") 2>&1 | tr '\n' '|' >&3; echo >&3; done`},
		Env:  []string{"PATH=/usr/bin:/bin"}, Conn: true, Hostname: "stem",
	}
	for _, c := range change {
		c(&spec)
	}
	s := start(t, h, spec)
	must(t, s.Conn().SetDeadline(time.Now().Add(patience)))
	return &waiting{Sandbox: s, t: t, answers: bufio.NewReader(s.Conn())}
}

func (w *waiting) ask(command string) string {
	w.t.Helper()
	_, err := w.Conn().Write([]byte(command + "\n"))
	must(w.t, err)
	answer, err := w.answers.ReadString('\n')
	must(w.t, err)
	return strings.Trim(answer, "|\n")
}

func codeDir(t testing.TB, content string) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "file"), []byte(content), 0o644))
	return dir
}

func TestAdoptGivesWhatIsAsked(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		dir := codeDir(t, "content")
		w := startWaiting(t, h)
		if got := w.ask("ls /code; hostname; df -k /tmp /dev/shm | tail -n 2 | tr -s ' ' | cut -d' ' -f2"); got != "stem|65536|65536" {
			t.Fatalf("before: %q", got)
		}
		must(t, w.Adopt(context.Background(), Claim{
			Hostname: "pay", Tmp: 32 << 20, Memory: 96 << 20, CPU: 500, PIDs: 99,
			Mounts: []Mount{{Source: dir, Target: "/code"}, {Source: dir, Target: "/tmp/deep/er"}, {Source: filepath.Join(dir, "file"), Target: "/brasa/one"}},
		}))
		if len(w.Adopted()) < 3 {
			t.Errorf("steps %v", w.Adopted())
		}
		if got := w.ask("cat /code/file /tmp/deep/er/file /brasa/one; echo; hostname; grep 127.0.1.1 /etc/hosts; df -k /tmp /dev/shm | tail -n 2 | tr -s ' ' | cut -d' ' -f2"); got != "contentcontentcontent|pay|127.0.1.1 pay|32768|49152" {
			t.Errorf("after: %q", got)
		}
		if got := w.ask("(echo x >/code/x) 2>/dev/null || echo refused; (echo x >/etc/hosts) 2>/dev/null || echo refused; grep -c ' /code ro,nosuid,nodev' /proc/self/mountinfo"); got != "refused|refused|1" {
			t.Errorf("the code's mount: %q", got)
		}
		if h.layout != nil {
			if got := groupFile(t, w.Sandbox, "memory", "memory.limit_in_bytes", "memory.max"); got != fmt.Sprint(96<<20) {
				t.Errorf("memory limit %s", got)
			}
			if got := groupFile(t, w.Sandbox, "cpu", "cpu.cfs_quota_us", "cpu.max"); got != "50000" && got != "50000 100000" {
				t.Errorf("quota %s", got)
			}
			if got := groupFile(t, w.Sandbox, "pids", "pids.max", "pids.max"); got != "99" {
				t.Errorf("pids %s", got)
			}
		}
		// Again, for a successor: what it names is replaced, the rest stays, limits go up as well.
		must(t, w.Adopt(context.Background(), Claim{Memory: 200 << 20, Mounts: []Mount{{Source: codeDir(t, "other"), Target: "/code"}}}))
		if got := w.ask("cat /code/file /tmp/deep/er/file; echo; hostname; grep -c ' /code ' /proc/self/mountinfo"); got != "othercontent|pay|1" {
			t.Errorf("the second time: %q", got)
		}
		// And nothing to do is nothing done: the namespaces are not entered, no file is written.
		next, err := w.spec.claimed(Claim{Hostname: "pay", Memory: 200 << 20})
		must(t, err)
		if todo := w.errands(&next, nil, nil); len(todo) != 0 {
			t.Errorf("to be done for nothing: %v", todo[0].name)
		}
		must(t, w.Adopt(context.Background(), Claim{Hostname: "pay", Memory: 200 << 20}))
	})
}

// groupFile reads a file of the sandbox's group, by its name on v1 or v2.
func groupFile(t *testing.T, s *Sandbox, controller, v1, v2 string) string {
	t.Helper()
	l := s.group.layout
	if !l.has[controller] {
		t.Skipf("no cgroup for %s", controller)
	}
	file := filepath.Join(s.group.dirs[0], v2)
	if l.version == 1 {
		file = filepath.Join(l.parents[controller], filepath.Base(s.group.dirs[0]), v1)
	}
	text, err := os.ReadFile(file)
	must(t, err)
	return strings.TrimSpace(string(text))
}

// The server must not change: its threads come home from where they have been.
func TestAdoptLeavesTheServerWhereItIs(t *testing.T) {
	h := startHost(t)
	before, err := os.Hostname()
	must(t, err)
	w := startWaiting(t, h)
	for i := range 20 {
		must(t, w.Adopt(context.Background(), Claim{Hostname: fmt.Sprintf("h%d", i)}))
	}
	seen := map[string]int{}
	tasks, err := filepath.Glob("/proc/self/task/*/ns/uts")
	must(t, err)
	for _, task := range tasks {
		if link, err := os.Readlink(task); err == nil {
			seen[link]++
		}
	}
	inside, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/uts", w.PID()))
	must(t, err)
	waitFor(t, "threads to come home", func() bool {
		for _, task := range tasks {
			if link, err := os.Readlink(task); err == nil && link == inside {
				return false
			}
		}
		return true
	})
	if after, _ := os.Hostname(); after != before {
		t.Errorf("the server's host name is %q, was %q", after, before)
	}
}

// A mount below /tmp is replaced where it is, not where a link of the program's leads.
func TestAdoptReplacesBelowTmp(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		w := startWaiting(t, h)
		w.ask("mkdir /tmp/a") // its own, so that it can move it
		for _, content := range []string{"one", "two"} {
			must(t, w.Adopt(context.Background(), Claim{Mounts: []Mount{{Source: codeDir(t, content), Target: "/tmp/x"}, {Source: codeDir(t, content), Target: "/tmp/a/shm"}}}))
			if got := w.ask("cat /tmp/x/file /tmp/a/shm/file; echo; grep -c ' /tmp/[ax]' /proc/self/mountinfo"); got != content+content+"|2" {
				t.Errorf("got %q", got)
			}
		}
		if got := w.ask("mv /tmp/a /tmp/b && ln -s /dev /tmp/a; ls -d /tmp/a/shm"); got != "/tmp/a/shm" {
			t.Fatalf("got %q", got)
		}
		err := w.Adopt(context.Background(), Claim{Mounts: []Mount{{Source: codeDir(t, "three"), Target: "/tmp/a/shm"}}})
		if !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
			t.Errorf("got %v", err)
		}
		if got := w.ask("grep -c ' /dev/shm ' /proc/self/mountinfo"); got != "1" {
			t.Errorf("/dev/shm is mounted %s times", got)
		}
	})
}

// Links that a program laid on the way of a mount are not followed.
// What one claim mounted and the next has no use for is taken away.
func TestAdoptDropsMounts(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		w := startWaiting(t, h)
		must(t, w.Adopt(context.Background(), Claim{Mounts: []Mount{{Source: codeDir(t, "one"), Target: "/code"}, {Source: codeDir(t, "packages"), Target: "/deps"}}}))
		if got := w.ask("cat /code/file /deps/file"); got != "onepackages" {
			t.Fatalf("got %q", got)
		}
		must(t, w.Adopt(context.Background(), Claim{Mounts: []Mount{{Source: codeDir(t, "two"), Target: "/code"}}, Drop: []string{"/deps"}}))
		if got := w.ask("cat /code/file; ls /deps; grep -c ' /deps ' /proc/self/mountinfo"); got != "two|0" && got != "two0" {
			t.Errorf("got %q, want the packages gone", got)
		}
		must(t, w.Adopt(context.Background(), Claim{Mounts: []Mount{{Source: codeDir(t, "others"), Target: "/deps"}}}))
		if got := w.ask("cat /deps/file"); got != "others" {
			t.Errorf("got %q, want others", got)
		}
	})
}

func TestAdoptFollowsNoLink(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		w := startWaiting(t, h)
		if got := w.ask("ln -s /etc /tmp/a; ln -s /proc /tmp/b; echo ok"); got != "ok" {
			t.Fatal(got)
		}
		for _, target := range []string{"/tmp/a/ssl", "/tmp/a", "/tmp/b/self"} {
			err := w.Adopt(context.Background(), Claim{Mounts: []Mount{{Source: codeDir(t, "x"), Target: target}}})
			var failed *StepError
			if !errors.As(err, &failed) || failed.Step != "mount "+target || !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
				t.Errorf("%s: %v", target, err)
			}
		}
	})
}

func TestAdoptFailures(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		ctx := context.Background()
		t.Run("nonsense", func(t *testing.T) {
			w := startWaiting(t, h)
			dir := codeDir(t, "x")
			for _, c := range []Claim{
				{Hostname: "a b"},
				{Mounts: []Mount{{Source: dir, Target: "/usr"}}},
				{Mounts: []Mount{{Source: dir, Target: "/proc/self"}}},
				{Mounts: []Mount{{Source: dir, Target: "code"}}},
				{Mounts: []Mount{{Source: dir, Target: "/code"}, {Source: dir, Target: "/code/"}}},
				{Mounts: []Mount{{Source: dir + "/none", Target: "/code"}}},
			} {
				if err := w.Adopt(ctx, c); err == nil {
					t.Errorf("%+v was taken", c)
				}
			}
		})
		t.Run("ended", func(t *testing.T) {
			w := startWaiting(t, h)
			w.Kill()
			<-w.Done()
			claim := Claim{Hostname: "late", Mounts: []Mount{{Source: codeDir(t, "x"), Target: "/code"}}}
			if err := w.Adopt(ctx, claim); err == nil {
				t.Error("a dead sandbox was adopted")
			}
			w.Close()
			if err := w.Adopt(ctx, claim); !errors.Is(err, errGone) {
				t.Errorf("a closed sandbox: %v", err)
			}
		})
		t.Run("ends meanwhile", func(t *testing.T) {
			dir := codeDir(t, "x")
			for range 20 {
				w := startWaiting(t, h)
				killed := make(chan struct{})
				go func() { defer close(killed); w.Kill() }()
				w.Adopt(ctx, Claim{Hostname: "race", Mounts: []Mount{{Source: dir, Target: "/code"}}}) // either way
				<-killed
				w.Close()
				if err := w.Adopt(ctx, Claim{Mounts: []Mount{{Source: dir, Target: "/code"}}}); err == nil {
					t.Fatal("a closed sandbox was adopted")
				}
			}
		})
		t.Run("context", func(t *testing.T) {
			w := startWaiting(t, h)
			ended, cancel := context.WithCancel(ctx)
			cancel()
			if err := w.Adopt(ended, Claim{Hostname: "late"}); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			if got := w.ask("hostname"); got != "stem" {
				t.Errorf("hostname %q", got)
			}
		})
		t.Run("files too large for the new /tmp", func(t *testing.T) {
			w := startWaiting(t, h)
			w.ask("head -c 8m /dev/zero >/tmp/x")
			var failed *StepError
			if err := w.Adopt(ctx, Claim{Tmp: 1 << 20}); !errors.As(err, &failed) || failed.Step != "resize /tmp" {
				t.Errorf("got %v", err)
			}
		})
		t.Run("limit is refused", func(t *testing.T) {
			w := startWaiting(t, h)
			if h.layout == nil || !h.layout.has["memory"] {
				t.Skip("no memory cgroup")
			}
			w.ask("head -c 40m /dev/zero >/tmp/x")
			if err := w.Adopt(ctx, Claim{Memory: 8 << 20}); !errors.Is(err, unix.EBUSY) {
				t.Errorf("got %v", err)
			}
		})
	})
}

// Errands of many at once all get done.
func TestAdoptAtOnce(t *testing.T) {
	h := startHost(t)
	dir := codeDir(t, "content")
	ended := make(chan error, 40)
	for i := range cap(ended) {
		w := startWaiting(t, h)
		go func() {
			ended <- w.Adopt(context.Background(), Claim{Hostname: fmt.Sprintf("h%d", i), Mounts: []Mount{{Source: dir, Target: "/code"}}})
		}()
		t.Cleanup(func() {
			if got := w.ask("hostname; cat /code/file"); got != fmt.Sprintf("h%d|content", i) {
				t.Errorf("%d: got %q", i, got)
			}
		})
	}
	for range cap(ended) {
		must(t, <-ended)
	}
}
