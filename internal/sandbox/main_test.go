package sandbox

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// TestMain moves the whole run into a network namespace of its own, so that no test, whatever it
// forgets, changes the machine's forwarding or filter rules.
func TestMain(m *testing.M) {
	const mark = "BRASA_TEST_OWN_NETWORK"
	if os.Getpid() == 1 {
		vmInit()
	}
	if os.Geteuid() != 0 || os.Getenv(mark) != "" {
		os.Exit(m.Run())
	}
	// Ignored signals pass on to children. Some shells ignore one of the C library's own, and no
	// sandbox may inherit that.
	ignore := struct {
		handler, flags, restorer uintptr
		mask                     uint64
	}{handler: 1} // SIG_IGN
	const sigCancel = 32
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, sigCancel, uintptr(unsafe.Pointer(&ignore)), 0, unsafe.Sizeof(ignore.mask), 0, 0); errno != 0 {
		panic(errno)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), mark+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	runtime.LockOSThread() // the death signal is tied to the thread that forks
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			os.Exit(exit.ExitCode())
		}
		os.Exit(m.Run()) // no right to: the tests that need it skip
	}
}

// patience bounds waits in tests; it is never part of what is asserted.
const patience = 60 * time.Second

var prefixes atomic.Int32

// testConfig returns a configuration that meets no other host's.
func testConfig(t testing.TB) Config {
	n := prefixes.Add(1)
	return Config{
		Dir:    t.TempDir(),
		Prefix: "t" + base36(os.Getpid()) + base36(int(n)),
		Logger: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
}

func base36(n int) string {
	const digits = "0123456789abcdefghijklmnopqrstuvwxyz"
	var b []byte
	for n > 0 {
		b = append(b, digits[n%36])
		n /= 36
	}
	return string(b)
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimSpace(b))
	return len(b), nil
}

// needRoot skips where the test's promise needs the machine's root.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 || !mapsManyIDs("/proc/self/uid_map", 0x42000000, 60000) || !capable(21 /* CAP_SYS_ADMIN */) {
		t.Skip("needs root with CAP_SYS_ADMIN")
	}
}

// startHost runs a host until the test ends.
func startHost(t testing.TB, change ...func(*Config)) *Host {
	t.Helper()
	needRoot(t)
	cfg := testConfig(t)
	for _, c := range change {
		c(&cfg)
	}
	return runHost(t, cfg)
}

func runHost(t testing.TB, cfg Config) *Host {
	t.Helper()
	h, err := New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Errorf("Run did not end")
		}
	})
	select {
	case <-h.Ready():
	case err := <-ended:
		ended <- err
		t.Fatalf("Run ended: %v", err)
	case <-time.After(patience):
		t.Fatalf("the host did not become ready")
	}
	return h
}

var names atomic.Int64

// uniqueName returns a sandbox name not used before in this test binary.
func uniqueName() string { return "s" + base36(int(names.Add(1))+36) }

// outcome is what a program did.
type outcome struct {
	stdout, stderr string
	exit           Exit
}

// start starts a program; the test closes it at its end.
func start(t testing.TB, h *Host, spec Spec) *Sandbox {
	t.Helper()
	if spec.Name == "" {
		spec.Name = uniqueName()
	}
	s, err := h.Start(context.Background(), spec)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// run runs a program to its end.
func run(t testing.TB, h *Host, spec Spec) outcome {
	t.Helper()
	out, outR := capture(t)
	errw, errR := capture(t)
	spec.Stdout, spec.Stderr = out, errw
	s := start(t, h, spec)
	out.Close()
	errw.Close()
	o := outcome{stdout: <-outR, stderr: <-errR}
	select {
	case <-s.Done():
	case <-time.After(patience):
		t.Fatalf("the program did not end; stdout %q stderr %q", o.stdout, o.stderr)
	}
	o.exit = s.Exit()
	s.Close()
	return o
}

// capture returns a file to write to and where all that was written arrives once it is closed.
func capture(t testing.TB) (*os.File, <-chan string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	text := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(r)
		r.Close()
		text <- string(b)
	}()
	return w, text
}

// shell runs a script with the sandbox's /bin/sh.
func shell(t testing.TB, h *Host, script string, change ...func(*Spec)) outcome {
	t.Helper()
	spec := Spec{Args: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp"}}
	for _, c := range change {
		c(&spec)
	}
	return run(t, h, spec)
}

// ok fails the test unless the program exited with 0, and returns what it printed.
func (o outcome) ok(t testing.TB) string {
	t.Helper()
	if o.exit.Code != 0 {
		t.Fatalf("%v; stdout %q stderr %q", o.exit, o.stdout, o.stderr)
	}
	return strings.TrimSpace(o.stdout)
}

// bothSpawners runs a test with the embedded spawner and with its stand-in in Go.
func bothSpawners(t *testing.T, test func(t *testing.T, h *Host)) {
	for name, goInit := range map[string]bool{"spawner": false, "go": true} {
		t.Run(name, func(t *testing.T) {
			test(t, startHost(t, func(c *Config) { c.GoInit = goInit }))
		})
	}
}
