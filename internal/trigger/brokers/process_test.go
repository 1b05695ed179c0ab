package brokers_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger"
	"github.com/brasa-dev/brasa/internal/trigger/brokers"
	"github.com/brasa-dev/brasa/internal/trigger/triggertest"
)

// atEnd is what is done when all tests are over.
var atEnd []func()

func TestMain(m *testing.M) {
	code := m.Run()
	for _, f := range atEnd {
		f()
	}
	os.Exit(code)
}

// process is a server that a test started. It dies with the tests, however they end.
type process struct {
	cmd  *exec.Cmd
	out  syncBuffer
	done chan struct{}
}

// start starts one, as another user if uid is not 0.
func start(t testing.TB, uid, gid uint32, dir, name string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if uid != 0 {
		p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	}
	begun := make(chan error)
	go func() {
		// The kernel sends the signal when the thread ends that began the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := p.cmd.Start()
		begun <- err
		if err == nil {
			_ = p.cmd.Wait() // it is killed
		}
	}()
	if err := <-begun; err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // or it is dead already
	<-p.done
}

// syncBuffer takes what a process writes.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// freePort is one that nobody listens at.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// bodies are how often functions were called with each body.
func bodies(calls []triggertest.Call) map[string]int {
	times := map[string]int{}
	for _, c := range calls {
		times[c.Body]++
	}
	return times
}

// wantStatus waits until a trigger's status tells of an error with all the words, and of no secret.
func wantStatus(t *testing.T, h *triggertest.House, name string, words ...string) {
	t.Helper()
	var last string
	defer func() {
		if t.Failed() {
			t.Logf("the status says: %s", last)
		}
	}()
	triggertest.Until(t, fmt.Sprintf("a status that says %q", words), func() bool {
		last = h.Manager.Status(catalog.DefaultNamespace, name).Error
		for _, w := range words {
			if !strings.Contains(last, w) {
				return false
			}
		}
		return true
	})
	if strings.Contains(last, "p4ss") || strings.Contains(last, "s3cret") {
		t.Errorf("the status tells a password: %s", last)
	}
}

// memory is a State.
// wantPassed waits until a trigger says that so many events were passed over, the last for a reason.
func wantPassed(t *testing.T, h *triggertest.House, name string, events int64, why string) {
	t.Helper()
	is := func() trigger.Passed { return h.Manager.Status(catalog.DefaultNamespace, name).Passed }
	for end := time.Now().Add(20 * time.Second); is().Events < events; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			break
		}
	}
	if p := is(); p.Events != events || !strings.Contains(p.Why, why) || p.Last.IsZero() {
		t.Errorf("%s passed over %+v; want %d, with %q", name, p, events, why)
	}
}

type memory struct{ b []byte }

func (m *memory) Get(context.Context) ([]byte, error)   { return m.b, nil }
func (m *memory) Put(_ context.Context, b []byte) error { m.b = b; return nil }

// wantDialed runs a source with a Dial that refuses, and sees that it is asked for the address.
func wantDialed(t *testing.T, kind, config, address string) {
	t.Helper()
	for _, k := range brokers.Kinds() {
		if k.Name != kind {
			continue
		}
		asked := ""
		refusal := faas.Errorf(faas.Denied, "connect", "it is private").WithFix("open it with triggers.allow")
		source, err := k.New(trigger.Outside{
			Trigger: &faas.Trigger{Namespace: "n", Name: "t", UID: "u", Source: &faas.Source{Kind: kind, Secrets: []string{"S"}}},
			Secret:  func(context.Context, string) (string, error) { return "user:p4ss", nil },
			State:   &memory{},
			Dial: func(_ context.Context, _, a string) (net.Conn, error) {
				asked = a
				return nil, refusal
			},
		}, []byte(config))
		if err != nil {
			t.Fatal(err)
		}
		err = source.Run(t.Context(), func(context.Context, faas.Event) (trigger.Fired, error) {
			t.Error("an event")
			return trigger.Fired{}, nil
		})
		if asked != address {
			t.Errorf("asked for %q, want %q", asked, address)
		}
		if err == nil || !strings.Contains(err.Error(), "it is private") || !strings.Contains(err.Error(), "triggers.allow") || strings.Contains(err.Error(), "p4ss") {
			t.Errorf("got %v, want the refusal and its remedy", err)
		}
		return
	}
	t.Fatalf("there is no kind %s", kind)
}
