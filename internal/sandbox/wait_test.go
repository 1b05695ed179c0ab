package sandbox

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// startWait starts a sandbox that waits for its program.
func startWait(t testing.TB, h *Host, change ...func(*Spec)) *Sandbox {
	t.Helper()
	spec := Spec{Wait: true, Hostname: "stem"}
	for _, c := range change {
		c(&spec)
	}
	return start(t, h, spec)
}

// A program that comes to a waiting sandbox is as confined as one that is started, in every
// respect the kernel tells of.
func TestWaitedIsAsConfinedAsStarted(t *testing.T) {
	h := startHost(t)
	mounts := pythonMounts(t, testBootstrap)
	args, env := []string{testPython, "-I", "/brasa/bootstrap.py"}, []string{"LANG=C.UTF-8"}
	spec := Spec{Hostname: "same", Mounts: mounts, Memory: 256 << 20, CPU: 700, PIDs: 77, Tmp: 32 << 20, Args: args, Env: env}
	started := startScripted(t, h, spec)

	box := startWait(t, h)
	must(t, box.Adopt(context.Background(), Claim{Hostname: "same", Mounts: mounts, Memory: 256 << 20, CPU: 700, PIDs: 77, Tmp: 32 << 20}))
	must(t, box.Exec(context.Background(), Command{Args: args, Env: env, Conn: true}))
	must(t, box.Conn().SetDeadline(time.Now().Add(patience)))
	waited := &scripted{box, t, bufio.NewReader(box.Conn())}

	var want, got map[string]any
	started.do(portrait, &want)
	waited.do(portrait, &got)
	text := func(s *scripted, m map[string]any) []string { // the user differs by design
		// They are told by age; whichever came first, none covers another.
		slices.SortFunc(m["mounts"].([]any), func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		b, err := json.MarshalIndent(m, "", " ")
		must(t, err)
		return strings.Split(strings.ReplaceAll(string(b), fmt.Sprint(s.UID()), "UID"), "\n")
	}
	a, b := text(started, want), text(waited, got)
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			t.Fatalf("line %d differs; started:\n%s\nwaited for:\n%s", i, strings.Join(a[max(0, i-5):min(len(a), i+10)], "\n"), strings.Join(b[max(0, i-5):min(len(b), i+10)], "\n"))
		}
	}
	if status := got["status"].(map[string]any); status["Seccomp"].([]any)[0] != "2" || status["CapBnd"].([]any)[0] != "0000000000000000" {
		t.Errorf("seccomp %v, bounding set %v", status["Seccomp"], status["CapBnd"])
	}
	// What the portrait does not tell: environment, arguments, and the name of what is run.
	const own = `out = [open("/proc/self/" + f, "rb").read().decode("latin1") for f in ("environ", "cmdline")] + [sorted(os.listdir("/proc/self/fd"))]`
	var wantOwn, gotOwn []any
	started.do("import os\n"+own, &wantOwn)
	waited.do("import os\n"+own, &gotOwn)
	if fmt.Sprint(gotOwn) != fmt.Sprint(wantOwn) {
		t.Errorf("got %q, want %q", gotOwn, wantOwn)
	}
}

// What waits is confined before anything comes to it, and small.
func TestWaitingIsConfined(t *testing.T) {
	h := startHost(t)
	box := startWait(t, h)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", box.PID()))
	must(t, err)
	for _, line := range []string{"Seccomp:\t2", "NoNewPrivs:\t1", "CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000", "Groups:\t \n", fmt.Sprintf("Uid:\t%d\t%d", box.UID(), box.UID())} {
		if !strings.Contains(string(status), line) {
			t.Errorf("no %q in\n%s", line, status)
		}
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) { // it has only just begun
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", box.PID()))
		must(t, err)
		if len(fds) == 4 { // /dev/null and its socket
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d descriptors are open", len(fds))
		}
	}
	if box.group != nil {
		u, err := box.Usage()
		must(t, err)
		if u.Memory > 1<<20 {
			t.Errorf("it holds %d bytes", u.Memory)
		}
		t.Logf("it holds %d bytes", u.Memory)
	}
}

func TestWaitedProgramGetsWhatItIsTold(t *testing.T) {
	h := startHost(t)
	t.Run("code, limits and descriptors", func(t *testing.T) {
		box := startWait(t, h)
		must(t, box.Adopt(context.Background(), Claim{Hostname: "pay", Mounts: []Mount{{Source: codeDir(t, "content"), Target: "/code"}}}))
		in, feed, err := os.Pipe()
		must(t, err)
		fmt.Fprintln(feed, "input") // before, as ends made by os.Pipe don't block
		feed.Close()
		out, outText := capture(t)
		errw, errText := capture(t)
		must(t, box.Exec(context.Background(), Command{
			Args:  []string{"/bin/sh", "-c", `read a; echo "$a $1 $V $(pwd) $(cat /code/file) $(hostname 2>/dev/null || cat /proc/sys/kernel/hostname)"; echo err >&2; echo conn >&3; exit 7`, "sh", "two words"},
			Env:   []string{"PATH=/usr/bin:/bin", "V=a=b c"},
			Stdin: in, Stdout: out, Stderr: errw, Conn: true,
		}))
		for _, f := range []*os.File{in, out, errw} {
			f.Close()
		}
		if got := <-outText; got != "input two words a=b c /code content pay\n" {
			t.Errorf("stdout %q", got)
		}
		if got := <-errText; got != "err\n" {
			t.Errorf("stderr %q", got)
		}
		line, err := bufio.NewReader(box.Conn()).ReadString('\n')
		if err != nil || line != "conn\n" {
			t.Errorf("conn %q %v", line, err)
		}
		if e := box.Exit(); e.Code != 7 {
			t.Errorf("exit %v", e)
		}
	})
	t.Run("in the directory of the code", func(t *testing.T) {
		box := startWait(t, h)
		must(t, box.Adopt(context.Background(), Claim{Mounts: []Mount{{Source: codeDir(t, "content"), Target: "/code"}}}))
		out, text := capture(t)
		must(t, box.Exec(context.Background(), Command{Args: []string{"/bin/cat", "file"}, Dir: "/code", Stdout: out}))
		out.Close()
		if got := <-text; got != "content" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("no environment", func(t *testing.T) {
		box := startWait(t, h)
		out, text := capture(t)
		must(t, box.Exec(context.Background(), Command{Args: []string{"/usr/bin/env"}, Stdout: out}))
		out.Close()
		if got := <-text; got != "" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("as much as fits", func(t *testing.T) {
		box := startWait(t, h)
		long := Command{Args: []string{"/bin/echo", strings.Repeat("x", maxCommand)}}
		if err := box.Exec(context.Background(), long); !errors.Is(err, ErrTooLong) {
			t.Errorf("got %v", err)
		}
		long.Args[1] = long.Args[1][:maxCommand-len("/tmp/")-len("/bin/echo ")-1]
		if !long.Fits() {
			long.Dir = "/tmp"
		}
		out, text := capture(t)
		long.Dir, long.Stdout = "/tmp", out
		if !long.Fits() {
			t.Fatal("it should fit")
		}
		must(t, box.Exec(context.Background(), long))
		out.Close()
		if got := <-text; len(got) != len(long.Args[1])+1 {
			t.Errorf("%d bytes came", len(got))
		}
	})
	t.Run("many", func(t *testing.T) {
		box := startWait(t, h)
		c := Command{Args: []string{"/bin/sh", "-c", `echo $#`, "sh"}}
		for len(c.Args) < maxStrings-1 {
			c.Args = append(c.Args, "a")
		}
		c.Env = []string{"A=b"}
		out, text := capture(t)
		c.Stdout = out
		must(t, box.Exec(context.Background(), c))
		out.Close()
		if got := <-text; got != fmt.Sprintln(maxStrings-1-4) {
			t.Errorf("got %q", got)
		}
	})
}

func TestWaitEndsBadly(t *testing.T) {
	h := startHost(t)
	t.Run("no such program", func(t *testing.T) {
		box := startWait(t, h)
		err := box.Exec(context.Background(), Command{Args: []string{"/code/none"}})
		var step *StepError
		if !errors.As(err, &step) || step.Step != "exec /code/none" || !errors.Is(err, unix.ENOENT) {
			t.Errorf("got %v", err)
		}
		if e := box.Exit(); e.Code != 127 {
			t.Errorf("exit %v", e)
		}
	})
	t.Run("no program at all", func(t *testing.T) {
		file := filepath.Join(codeDir(t, "content"), "file")
		must(t, os.Chmod(file, 0o755))
		box := startWait(t, h)
		must(t, box.Adopt(context.Background(), Claim{Mounts: []Mount{{Source: filepath.Dir(file), Target: "/code"}}}))
		if err := box.Exec(context.Background(), Command{Args: []string{"/code/file"}}); !errors.Is(err, unix.ENOEXEC) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no such directory", func(t *testing.T) {
		if err := startWait(t, h).Exec(context.Background(), Command{Args: []string{"/bin/true"}, Dir: "/nowhere"}); !errors.Is(err, unix.ENOENT) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("ended", func(t *testing.T) {
		box := startWait(t, h)
		box.Kill()
		<-box.Done()
		if err := box.Exec(context.Background(), Command{Args: []string{"/bin/true"}}); err == nil {
			t.Error("a program was started in a sandbox that had ended")
		}
	})
	t.Run("twice", func(t *testing.T) {
		box := startWait(t, h)
		c := Command{Args: []string{"/bin/sleep", "100"}}
		must(t, box.Exec(context.Background(), c))
		if err := box.Exec(context.Background(), c); err == nil {
			t.Error("a second program was started")
		}
	})
	t.Run("nothing waits", func(t *testing.T) {
		box := start(t, h, Spec{Args: []string{"/bin/sleep", "100"}})
		if err := box.Exec(context.Background(), Command{Args: []string{"/bin/true"}}); err == nil {
			t.Error("a second program was started")
		}
	})
	t.Run("it never comes", func(t *testing.T) {
		box := startWait(t, h)
		box.Close() // returns
		if box := startWait(t, h); true {
			must(t, unix.PidfdSendSignal(box.proc.program, unix.SIGSTOP, nil, 0))
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			defer cancel()
			if err := box.Exec(ctx, Command{Args: []string{"/bin/true"}}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		}
	})
	t.Run("without the spawner", func(t *testing.T) {
		h := startHost(t, func(c *Config) { c.GoInit = true })
		_, err := h.Start(context.Background(), Spec{Name: "w", Wait: true})
		if _, ok := errors.AsType[*UnsupportedError](err); !ok {
			t.Errorf("got %v", err)
		}
	})
}
