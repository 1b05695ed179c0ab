package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
)

// The test binary is also the server that the tests kill.
func TestMain(m *testing.M) {
	if dir := os.Getenv("BRASA_CRASH_DATA"); dir != "" {
		if sandbox.NeedsReexec() { // an ordinary user's server, as cmd/brasa does it
			code, err := sandbox.Reexec(os.Args[1:])
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
			os.Exit(code)
		}
		if err := serveUntilKilled(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// serveUntilKilled runs a node, and kills it with no chance to clean up before the step that
// BRASA_CRASH_AT names.
func serveUntilKilled(dir string) error {
	cfg := Config{Data: dir, Listen: os.Getenv("BRASA_CRASH_LISTEN"), Prefix: os.Getenv("BRASA_CRASH_PREFIX")}
	d, err := New(cfg)
	if err != nil {
		return err
	}
	// "name#3" is the third time.
	at, nth, _ := strings.Cut(os.Getenv("BRASA_CRASH_AT"), "#")
	times, _ := strconv.ParseInt(nth, 10, 64)
	var seen atomic.Int64
	d.built = func(n *node) { control(n, dir) }
	d.step = func(name string) {
		if name == at && seen.Add(1) >= times {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // dead before this matters
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return d.Run(ctx)
}

// crashPrefix is this run's own: what another run on this machine has left, or is using, is not
// for these tests to find.
var crashPrefix = "c" + strconv.FormatInt(int64(os.Getpid()), 36)

// victim is a server in a process of its own.
type victim struct {
	cmd    *exec.Cmd
	client *api.Client
	dead   chan struct{}
}

func startVictim(t *testing.T, dir, at string) *victim {
	t.Helper()
	return startAs(t, os.Args[0], dir, at, nil)
}

// startAs runs the program, a copy of the test binary, as a user.
func startAs(t *testing.T, program, dir, at string, user *syscall.Credential) *victim {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	v := &victim{cmd: exec.Command(program), dead: make(chan struct{})}
	v.cmd.Env = append(os.Environ(), "BRASA_CRASH_DATA="+dir, "BRASA_CRASH_LISTEN="+addr, "BRASA_CRASH_AT="+at, "BRASA_CRASH_PREFIX="+crashPrefix)
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user}
	var log strings.Builder
	v.cmd.Stderr = &log
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = v.cmd.Wait()
		close(v.dead)
	}()
	t.Cleanup(v.kill)
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	open, err := api.NewClient("http://"+addr, "")
	if err != nil {
		t.Fatal(err)
	}
	for {
		if r, err := open.Ready(t.Context()); err == nil && r.Ready {
			break
		}
		select {
		case <-tick.C:
		case <-v.dead:
			if status, ok := v.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signal() == syscall.SIGKILL && strings.HasPrefix(at, "async: ") {
				return v // calls that waited took it there at once
			}
			t.Fatalf("the server ended before it was ready:\n%s", log.String())
		case <-deadline:
			t.Fatalf("the server was not ready within 30s:\n%s", log.String())
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "admin.key"))
	if err != nil {
		t.Fatal(err)
	}
	key := strings.TrimSpace(string(b))
	if v.client, err = api.NewClient("http://"+addr, key); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v *victim) kill() {
	_ = v.cmd.Process.Kill()
	<-v.dead
}

func (v *victim) deploy(ctx context.Context, answer string) error {
	code := "def main(args):\n    return " + strconv.Quote(answer) + "\n"
	_, err := v.client.Deploy(ctx, "default", "f", api.Spec{}, api.Code{Filename: "f.py", Reader: strings.NewReader(code)})
	return err
}

func (v *victim) answer(t *testing.T) string {
	t.Helper()
	r, err := v.client.Invoke(t.Context(), "default", "f", api.CallOptions{}, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Trim(string(r.Result), `"`)
}

func needSandboxes(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: the test counts what the kernel holds for the server")
	}
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("needs python3")
	}
}

// TestKillAtEveryStepOfADeploy kills the server before each step of a deploy, starts it again and
// looks: what was acknowledged is live, what was not may be live only if its one write was done,
// and nothing that the dead server made is left.
func TestKillAtEveryStepOfADeploy(t *testing.T) {
	needSandboxes(t)
	dir := t.TempDir()
	made := map[string]bool{} // network namespaces
	v := startVictim(t, dir, "")
	if err := v.deploy(t.Context(), "first"); err != nil {
		t.Fatal(err)
	}
	v.kill()
	acknowledged := "first"
	for i, at := range []string{"unpack", "detect", "store", "prove", "publish", "done"} {
		next := "v" + strconv.Itoa(i)
		v := startVictim(t, dir, at)
		if got := v.answer(t); got != acknowledged {
			t.Fatalf("before the kill at %s: %q is live, want %q", at, got, acknowledged)
		}
		maps.Copy(made, v.namespaces(t)) // of the instance that has answered
		err := v.deploy(t.Context(), next)
		if u, ok := errors.AsType[*api.Unreachable](err); !ok {
			t.Fatalf("kill at %s: the deploy ended with %v (%v), want a lost connection", at, err, u)
		}
		<-v.dead
		v = startVictim(t, dir, "")
		want := acknowledged
		if at == "done" { // its write was done; only the answer was lost
			want = next
		}
		if got := v.answer(t); got != want {
			t.Errorf("after the kill at %s: %q is live, want %q", at, got, want)
		}
		acknowledged = "after-" + next
		if err := v.deploy(t.Context(), acknowledged); err != nil {
			t.Errorf("after the kill at %s: deploy again: %v", at, err)
		}
		work, err := os.ReadDir(filepath.Join(dir, "deploy", "work"))
		work = slices.DeleteFunc(work, func(d os.DirEntry) bool { return strings.HasPrefix(d.Name(), "archive-") }) // of Java's classes, which this server is making
		if err != nil || len(work) > 0 {
			t.Errorf("after the kill at %s: work left behind: %v, %v", at, work, err)
		}
		v.kill()
	}
	nothingLeft(t, dir, made)
}

// TestKillWhileCallsRun kills the server with calls, background processes and a build-up of
// instances in flight.
func TestKillWhileCallsRun(t *testing.T) {
	needSandboxes(t)
	dir := t.TempDir()
	made := map[string]bool{} // network namespaces
	v := startVictim(t, dir, "")
	code := `
import subprocess, time
subprocess.Popen(["/bin/sh", "-c", "while :; do sleep 1; done"], start_new_session=True)
def main(args):
    print("in", flush=True)
    time.sleep(60)
`
	if _, err := v.client.Deploy(t.Context(), "default", "slow", api.Spec{Limits: &faas.Limits{Timeout: faas.Duration(time.Minute)}}, api.Code{Filename: "slow.py", Reader: strings.NewReader(code)}); err != nil {
		t.Fatal(err)
	}
	if err := v.deploy(t.Context(), "kept"); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for range 4 {
		go func() {
			_, _ = v.client.Invoke(ctx, "default", "slow", api.CallOptions{}, strings.NewReader("{}"))
		}()
	}
	waitFor(t, "four instances", func() bool { return len(sandboxed(t)) >= 4 })
	maps.Copy(made, v.namespaces(t))
	v.kill()
	waitFor(t, "every process of the dead server is gone", func() bool { return len(sandboxed(t)) == 0 })
	v = startVictim(t, dir, "")
	if got := v.answer(t); got != "kept" {
		t.Errorf("%q is live, want what was deployed", got)
	}
	v.kill()
	nothingLeft(t, dir, made)
}

// A victim's namespaces are remembered, since other tests make some of their own at the same time.
func (v *victim) namespaces(t *testing.T) map[string]bool {
	t.Helper()
	parents := map[string]string{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		if _, rest, ok := strings.Cut(string(b), ") "); ok {
			parents[strings.Split(file, "/")[2]] = strings.Fields(rest)[1]
		}
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for pid := range parents {
		for at := pid; at != "" && at != "0"; at = parents[at] {
			if at != strconv.Itoa(v.cmd.Process.Pid) {
				continue
			}
			f, err := os.Open("/proc/" + pid + "/ns/net")
			if err != nil {
				break // it has ended
			}
			// As long as it is open no other namespace of this machine gets its number.
			t.Cleanup(func() { _ = f.Close() })
			if to, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd()))); err == nil && to != own {
				out[to] = true
			}
			break
		}
	}
	return out
}

// nothingLeft starts the server once more, since the next start is what cleans up, ends it
// properly and looks for what it or its dead predecessors, in whose namespaces processes were,
// may have left.
func nothingLeft(t *testing.T, dir string, namespaces map[string]bool) {
	t.Helper()
	v := startVictim(t, dir, "")
	maps.Copy(namespaces, v.namespaces(t))
	if len(namespaces) == 0 {
		t.Error("no process was in a network namespace of its own; the test shows nothing")
	}
	_ = v.cmd.Process.Signal(syscall.SIGTERM)
	<-v.dead
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), dir) {
		t.Errorf("mounts of the data folder are left:\n%s", mounts)
	}
	if left := sandboxed(t); len(left) > 0 {
		t.Errorf("processes left in control groups: %v", left)
	}
	if left := groups(); len(left) > 0 {
		t.Errorf("control groups left: %v", left)
	}
	waitFor(t, "no process is in a network namespace of the server's", func() bool {
		links, _ := filepath.Glob("/proc/[0-9]*/ns/net")
		for _, l := range links {
			if to, err := os.Readlink(l); err == nil && namespaces[to] {
				return false
			}
		}
		return true
	})
}

// sandboxed lists the processes in control groups of our prefix.
func sandboxed(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, g := range groups() {
		b, _ := os.ReadFile(filepath.Join(g, "cgroup.procs"))
		out = append(out, strings.Fields(string(b))...)
	}
	return out
}

func groups() []string {
	var out []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, e os.DirEntry, err error) error {
		if err == nil && e.IsDir() && slices.Contains(strings.Split(path, "/"), crashPrefix) {
			out = append(out, path)
		}
		return nil
	})
	return out
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 20s: %s", what)
		}
	}
}
