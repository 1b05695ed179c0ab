package contract

import (
	"context"
	"fmt"

	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// TestSandboxed runs the whole suite in real sandboxes: what every runtime promises must hold
// with the limits, the filter of system calls and the read-only root in place.
func TestSandboxed(t *testing.T) { NewSuite(t, &sandboxed{host: newHost(t)}).Run(t) }

// TestSandboxedStems runs it with sandboxes that stood ready before they were given the code.
func TestSandboxedStems(t *testing.T) { NewSuite(t, &sandboxed{host: newHost(t), stems: true}).Run(t) }

func newHost(t testing.TB) *sandbox.Host {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: sandboxes are made in the initial user namespace")
	}
	dir := t.TempDir()
	reg, err := runtimes.Discover(t.Context(), runtimes.Config{Dir: filepath.Join(dir, "runtimes")})
	if err != nil {
		t.Fatal(err)
	}
	host, err := sandbox.New(sandbox.Config{Dir: filepath.Join(dir, "sandbox"), RootDirs: reg.RootDirs(), Prefix: "ctest", EgressPool: -1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- host.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = host.Close()
	})
	select {
	case <-host.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	return host
}

// sandboxed starts processes as package worker does.
type sandboxed struct {
	host  *sandbox.Host
	stems bool
	forks bool // of stems that can be had by a fork
	n     atomic.Int64

	mu      sync.Mutex
	zygotes map[string]*sandbox.Zygote // by class; guarded by mu
}

// zygote returns what stems of a revision are forked from.
func (l *sandboxed) zygote(t testing.TB, rt *runtimes.Runtime, rev *faas.Revision) *sandbox.Zygote {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	s, _ := rt.Stem(rev)
	if z := l.zygotes[s.Class]; z != nil {
		return z
	}
	spec := sandbox.ZygoteSpec{Name: s.Class, Args: s.Zygote, Env: s.Env}
	for _, m := range s.Mounts {
		spec.Mounts = append(spec.Mounts, sandbox.Mount{Source: m.Source, Target: m.Target})
	}
	z, err := l.host.StartZygote(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if l.zygotes == nil {
		l.zygotes = map[string]*sandbox.Zygote{}
	}
	l.zygotes[s.Class] = z // it ends with the host
	return z
}

func (l *sandboxed) Start(t testing.TB, rt *runtimes.Runtime, rev *faas.Revision, code string, env map[string]string, conn bool) *Process {
	t.Helper()
	args, vars, mounts, stem := command(rt, rev, l.stems)
	for k, v := range env {
		vars = append(vars, k+"="+v)
	}
	limits := rev.Limits.Fill(faas.DefaultLimits())
	spec := sandbox.Spec{
		Name: fmt.Sprintf("contract-%d", l.n.Add(1)), Args: args, Env: vars, Dir: runtimes.CodeDir,
		Mounts: []sandbox.Mount{{Source: code, Target: runtimes.CodeDir}},
		Tmp:    int64(limits.Tmp), Memory: int64(limits.Memory), CPU: limits.CPU, PIDs: limits.PIDs, Conn: conn,
	}
	if stem {
		spec.Dir, spec.Mounts = "/tmp", nil
	}
	if stem && l.forks {
		spec.Zygote, spec.Args = l.zygote(t, rt, rev), nil
	}
	for _, m := range mounts {
		spec.Mounts = append(spec.Mounts, sandbox.Mount{Source: m.Source, Target: m.Target})
	}
	ends := make([][2]*os.File, 3) // ours, theirs
	for i := range ends {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = [2]*os.File{r, w}
		if i == 0 {
			ends[i] = [2]*os.File{w, r}
		}
		ends[i][1].Fd() // makes the process's end blocking, as programs expect
	}
	spec.Stdin, spec.Stdout, spec.Stderr = ends[0][1], ends[1][1], ends[2][1]
	box, err := l.host.Start(t.Context(), spec)
	for _, e := range ends {
		_ = e[1].Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = box.Close()
		for _, e := range ends {
			_ = e[0].Close()
		}
	})
	if stem {
		err := box.Adopt(t.Context(), sandbox.Claim{Mounts: []sandbox.Mount{{Source: code, Target: runtimes.CodeDir}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	p := &Process{
		Stdin: ends[0][0], Stdout: ends[1][0], Stderr: ends[2][0], Code: runtimes.CodeDir, Port: runtimes.Port, Kill: box.Kill,
		Wait: func() runtimes.Exit {
			x := box.Exit()
			return runtimes.Exit{Code: x.Code, Signal: x.Signal, OOM: x.OOM}
		},
		Dial: func(network, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			return box.Dial(ctx, network, address)
		},
	}
	if conn {
		p.Conn = box.Conn()
	}
	return p
}
