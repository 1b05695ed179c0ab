package contract

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// Launcher starts the process of a revision.
type Launcher interface {
	// Start runs what rt.Command says for rev, with the code in the host directory code at
	// runtimes.CodeDir, env added to its environment, and rev's limits. A conn asks for the far
	// end of a unix stream socket as descriptor 3. The process is over at the end of the test.
	Start(t testing.TB, rt *runtimes.Runtime, rev *faas.Revision, code string, env map[string]string, conn bool) *Process
}

// Process is a running process.
type Process struct {
	Conn   net.Conn       // the near end of descriptor 3; nil if none was asked for
	Stdin  io.WriteCloser // its standard input
	Stdout io.Reader      // its standard output
	Stderr io.Reader      // its standard error
	Code   string         // where it sees its code
	Port   int            // what it was told to listen on, for StyleHTTP
	Dial   func(network, address string) (net.Conn, error)
	Wait   func() runtimes.Exit // blocks until it has ended; may be called again
	Kill   func()
}

// Plain starts processes without any confinement, by package os/exec. Paths inside a sandbox are
// replaced by the host's.
type Plain struct {
	// Stems asks for processes that don't know whose they will be until they are loaded, where a
	// runtime has such.
	Stems bool
}

// command is what rt.Command says, or for stems rt.Stem, where a process of the runtime can wait.
func command(rt *runtimes.Runtime, rev *faas.Revision, stems bool) (args, env []string, mounts []runtimes.Mount, stem bool) {
	if stems {
		if s, ok := rt.Stem(rev); ok && !s.Bare {
			return s.Args, s.Env, s.Mounts, true
		}
	}
	args, env, mounts = rt.Command(rev)
	return args, env, mounts, false
}

// Start is Launcher's.
func (l Plain) Start(t testing.TB, rt *runtimes.Runtime, rev *faas.Revision, code string, env map[string]string, conn bool) *Process {
	t.Helper()
	args, vars, mounts, stem := command(rt, rev, l.Stems)
	places := []string{runtimes.CodeDir, code}
	for _, m := range mounts {
		places = append(places, m.Target, m.Source)
	}
	inside := strings.NewReplacer(places...)
	for i, a := range args {
		if strings.HasPrefix(a, "/") {
			if p := inside.Replace(a); p != a {
				args[i] = p
			}
		}
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = code
	if stem {
		cmd.Dir = "/tmp"
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p := &Process{Code: code, Dial: net.Dial}
	for k, v := range env {
		vars = append(vars, k+"="+v)
	}
	if rt.Style == runtimes.StyleHTTP { // without a namespace of its own it needs a port of its own
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p.Port = l.Addr().(*net.TCPAddr).Port
		l.Close()
		for i, v := range vars {
			if strings.HasPrefix(v, "PORT=") {
				vars[i] = "PORT=" + strconv.Itoa(p.Port)
			}
		}
	}
	cmd.Env = vars
	var far *os.File
	if conn {
		p.Conn, far = socketPair(t)
		cmd.ExtraFiles = []*os.File{far}
	}
	p.Stdin, _ = cmd.StdinPipe()
	stdout, outW := pipe(t)
	stderr, errW := pipe(t)
	cmd.Stdout, cmd.Stderr = outW, errW
	p.Stdout, p.Stderr = stdout, stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %q: %v", args, err)
	}
	outW.Close()
	errW.Close()
	if far != nil {
		far.Close()
	}
	exited := sync.OnceValue(func() runtimes.Exit {
		_ = cmd.Wait()
		ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if ws.Signaled() {
			return runtimes.Exit{Signal: ws.Signal()}
		}
		return runtimes.Exit{Code: ws.ExitStatus()}
	})
	go exited()
	p.Wait = exited
	p.Kill = func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	t.Cleanup(func() {
		p.Kill()
		exited()
		if p.Conn != nil {
			p.Conn.Close()
		}
		stdout.Close()
		stderr.Close()
	})
	return p
}

func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return r, w
}

func socketPair(t testing.TB) (net.Conn, *os.File) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	near := os.NewFile(uintptr(fds[0]), "near")
	defer near.Close()
	conn, err := net.FileConn(near)
	if err != nil {
		t.Fatal(err)
	}
	return conn, os.NewFile(uintptr(fds[1]), "far")
}

// write lays source files out in a directory of the test.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// dialOf is the process's dial function as a runtimes.Dial.
func dialOf(p *Process) runtimes.Dial {
	return func(_ context.Context, network, address string) (net.Conn, error) { return p.Dial(network, address) }
}
