package install_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/internal/store"
	"github.com/brasa-dev/brasa/runtimes"
)

// scriptShop installs what functions in Ruby or PHP name, in real sandboxes.
type scriptShop struct {
	*install.Installer
	host *sandbox.Host
	rt   *runtimes.Runtime
}

func newScriptShop(t *testing.T, language string, adjust func(*install.Config)) *scriptShop {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: installations run in sandboxes of the initial user namespace")
	}
	dir := t.TempDir()
	reg, err := runtimes.Discover(t.Context(), runtimes.Config{Dir: filepath.Join(dir, "runtimes")})
	if err != nil {
		t.Fatal(err)
	}
	s := &scriptShop{}
	if s.rt, err = reg.Lookup(language); err != nil {
		t.Skip(err)
	}
	s.host, err = sandbox.New(sandbox.Config{
		Dir: filepath.Join(dir, "sandbox"), RootDirs: reg.RootDirs(), Prefix: language + "test", NetPool: 1, CgroupPool: 1, EgressPool: 1,
		Egress: sandbox.EgressConfig{Allow: []netip.Prefix{netip.MustParsePrefix(registryNet)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.host.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		<-done
		_ = s.host.Close()
	})
	<-s.host.Ready()
	for _, f := range s.host.Features() {
		if f.Name == "egress" && !f.Have {
			t.Skip("sandboxes have no way out here: " + f.Detail)
		}
	}
	depot, err := artifact.Open(artifact.Config{Objects: store.MemoryObjects(), Dir: filepath.Join(dir, "code")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = depot.Close() })
	cfg := install.Config{Depot: depot, Sandbox: s.host, Runtimes: reg, Dir: filepath.Join(dir, "install"), Limits: install.Limits{Timeout: time.Minute}}
	if adjust != nil {
		adjust(&cfg)
	}
	if s.Installer, err = install.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// install lays the files out and installs what they name.
func (s *scriptShop) install(t *testing.T, files map[string]string, opt install.Options) (*install.Result, string, error) {
	t.Helper()
	var log bytes.Buffer
	res, err := s.Install(t.Context(), install.Request{
		Namespace: "default", NamespaceUID: "ns1", Code: layOut(t, files), Options: opt, Log: &log,
		Plan: &runtimes.Plan{Runtime: s.rt.Name, Version: s.rt.Version},
	})
	if faas.CodeOf(err) == faas.Unavailable && strings.Contains(err.Error(), "this host has") {
		t.Skip(err)
	}
	if res != nil {
		t.Cleanup(res.Release)
	}
	return res, log.String(), err
}

func (s *scriptShop) must(t *testing.T, files map[string]string, opt install.Options) *install.Result {
	t.Helper()
	res, log, err := s.install(t, files, opt)
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, faas.AsError(err).Trace, log)
	}
	if res == nil {
		t.Fatal("nothing was installed")
	}
	return res
}

// refuses fails the test unless the installation fails with the code and all of the words.
func (s *scriptShop) refuses(t *testing.T, files map[string]string, opt install.Options, code faas.Code, words ...string) {
	t.Helper()
	_, log, err := s.install(t, files, opt)
	if err == nil {
		t.Fatalf("it was installed; want it refused for %q\n%s", words, log)
	}
	e := faas.AsError(err)
	if e.Code != code {
		t.Errorf("code %v, want %v: %v\n%s", e.Code, code, err, log)
	}
	for _, w := range words {
		if !strings.Contains(err.Error()+" "+e.Fix, w) {
			t.Errorf("%q (%s), want the words %q", err.Error(), e.Fix, w)
		}
	}
}

func layOut(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// call has a function of its own process answer one call with the layer in place, and returns what
// it answers.
func (s *scriptShop) call(t *testing.T, res *install.Result, entry string, files map[string]string) string {
	t.Helper()
	limits := faas.DefaultLimits()
	rev := &faas.Revision{
		ID: "0123456789abcdef", Name: faas.Name{Namespace: "ns", Function: "fn"}, Runtime: s.rt.Name, Entry: entry, Limits: limits,
		Layers: []faas.Layer{{Digest: "sha256:0", Target: res.Target}}, Env: res.Env,
	}
	args, env, mounts := s.rt.Command(rev)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	spec := sandbox.Spec{
		Name: "call", Args: args, Env: env, Dir: runtimes.CodeDir, Memory: int64(limits.Memory), Conn: true, Stdout: w, Stderr: w, Tmp: 16 << 20,
		Mounts: []sandbox.Mount{{Source: layOut(t, files), Target: runtimes.CodeDir}, {Source: res.Dir, Target: res.Target}},
	}
	for _, m := range mounts {
		spec.Mounts = append(spec.Mounts, sandbox.Mount{Source: m.Source, Target: m.Target})
	}
	box, err := s.host.Start(t.Context(), spec)
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	said := &bytes.Buffer{}
	go func() { _, _ = io.Copy(said, r) }()
	conn := runtimes.NewConn(box.Conn(), runtimes.Options{})
	defer conn.Close()
	if _, err := conn.Hello(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Load(t.Context(), runtimes.SpecOf(rev, nil)); err != nil {
		t.Fatalf("%v\n%s", err, faas.AsError(err).Trace)
	}
	now := time.Now()
	answer, err := conn.RoundTrip(t.Context(), &faas.Invocation{
		ID: faas.NewID(now), Kind: faas.KindInvoke, Body: faas.NewBytesBody([]byte("{}")), Length: 2, Deadline: now.Add(time.Minute), Attempt: 1,
		Header: map[string][]string{},
	}, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, faas.AsError(err).Trace)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// shelf serves a directory at an address that sandboxes reach, to whoever comes with its password,
// if it has one.
type shelf struct {
	url      string
	password string

	mu    sync.Mutex
	asked []string // guarded by mu
}

func newShelf(t *testing.T, dir, password string) *shelf {
	t.Helper()
	l := listenBeside(t)
	s := &shelf{url: "http://" + l.Addr().String() + "/", password: password}
	files := http.FileServer(http.Dir(dir))
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, req.URL.Path)
		s.mu.Unlock()
		if _, p, _ := req.BasicAuth(); p != s.password {
			http.Error(w, "who is there?", http.StatusUnauthorized)
			return
		}
		files.ServeHTTP(w, req)
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return s
}

// times counts how often a path was asked for.
func (s *shelf) times(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, p := range s.asked {
		if p == path {
			n++
		}
	}
	return n
}

// reachable skips a test where a public registry cannot be reached.
func reachable(t *testing.T, name, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Skipf("%s cannot be reached: %v", name, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Skipf("%s cannot be reached: it answers %s", name, resp.Status)
	}
}
