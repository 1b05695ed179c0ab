package deploy_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/internal/store"
	"github.com/brasa-dev/brasa/runtimes"
)

// prover says what a test wants; sandboxes have tests of their own.
type prover struct{ err error }

func (p *prover) Prove(context.Context, *faas.Revision) (faas.Proof, error) {
	return faas.Proof{}, p.err
}

type shop struct {
	*deploy.Deployer
	catalog *catalog.Catalog
	depot   *artifact.Depot
	prover  *prover
	dir     string
}

func newShop(t *testing.T, adjust func(*deploy.Config)) *shop {
	t.Helper()
	dir := t.TempDir()
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	s := &shop{prover: &prover{}, dir: dir}
	var err error
	if s.catalog, err = catalog.Open(t.Context(), catalog.Config{Store: store.Memory(), Secrets: store.Memory(), Key: key}); err != nil {
		t.Fatal(err)
	}
	if s.depot, err = artifact.Open(artifact.Config{Objects: store.MemoryObjects(), Dir: filepath.Join(dir, "code")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.depot.Close() })
	reg, err := runtimes.Discover(t.Context(), runtimes.Config{Dir: filepath.Join(dir, "runtimes")})
	if err != nil {
		t.Fatal(err)
	}
	cfg := deploy.Config{Catalog: s.catalog, Depot: s.depot, Runtimes: reg, Prover: s.prover, Dir: filepath.Join(dir, "deploy")}
	if adjust != nil {
		adjust(&cfg)
	}
	if s.Deployer, err = deploy.New(cfg); err != nil {
		t.Fatal(err)
	}
	return s
}

func request(filename, code string) deploy.Request {
	return deploy.Request{
		Name: faas.Name{Namespace: "default", Function: "f"}, Filename: filename, Code: strings.NewReader(code),
	}
}

const good = "def main(args):\n    return 1\n"

func TestADeployMakesTheRevisionActive(t *testing.T) {
	s := newShop(t, nil)
	out, err := s.Deploy(t.Context(), request("f.py", good), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !out.Created || out.Revision.Runtime != "python" || out.Revision.Entry != "f.py" || out.Detected.Why == "" {
		t.Errorf("outcome %+v", out)
	}
	_, rev, err := s.catalog.Resolve(faas.Ref{Name: out.Revision.Name})
	if err != nil || rev.ID != out.Revision.ID {
		t.Fatalf("active is %v, %v", rev, err)
	}
	again, err := s.Deploy(t.Context(), request("f.py", good), nil)
	if err != nil || !again.Same || again.Created || again.Revision.ID != out.Revision.ID {
		t.Errorf("the same once more: %+v, %v; want the same revision", again, err)
	}
	work, err := os.ReadDir(filepath.Join(s.dir, "deploy", "work"))
	if err != nil || len(work) > 0 {
		t.Errorf("work left behind: %v, %v", work, err)
	}
}

func TestADeployThatCannotLoadLeavesTheOldRevisionLive(t *testing.T) {
	s := newShop(t, nil)
	old, err := s.Deploy(t.Context(), request("f.py", good), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.prover.err = faas.Errorf(faas.Failed, "load function", "no module named nowhere")
	_, err = s.Deploy(t.Context(), request("f.py", "import nowhere\n"), nil)
	e := faas.AsError(err)
	if e == nil || e.Code != faas.Failed || !strings.Contains(e.Error(), "nowhere") || !strings.Contains(e.Fix, old.Revision.ID.Short()) {
		t.Errorf("error %v, fix %q; want the function's own error and what stays live", err, e.Fix)
	}
	if _, rev, err := s.catalog.Resolve(faas.Ref{Name: old.Revision.Name}); err != nil || rev.ID != old.Revision.ID {
		t.Errorf("live is %v, %v; want the old one", rev, err)
	}
}

func TestBadRequestsAreRefusedBeforeAnythingIsStored(t *testing.T) {
	for _, c := range []struct {
		name  string
		req   func(*deploy.Request)
		code  faas.Code
		limit string
		says  string
	}{
		{"unknown language", func(r *deploy.Request) { r.Language = "cobol" }, faas.Invalid, "", "cobol"},
		{"unknown extension", func(r *deploy.Request) { r.Filename = "f.xyz" }, faas.Invalid, "", ""},
		{"name traversal", func(r *deploy.Request) { r.Name.Function = "../f" }, faas.Invalid, "", "../f"},
		{"namespace traversal", func(r *deploy.Request) { r.Name.Namespace = ".." }, faas.Invalid, "", ""},
		{"no code", func(r *deploy.Request) { r.Code = nil }, faas.Invalid, "", "no code"},
		{"memory over the ceiling", func(r *deploy.Request) { r.Limits.Memory = 1 << 50 }, faas.Invalid, "memory_bytes", "memory_bytes"},
		{"negative timeout", func(r *deploy.Request) { r.Limits.Timeout = -1 }, faas.Invalid, "timeout_ms", ""},
		{"linker variable", func(r *deploy.Request) { r.Env = map[string]string{"LD_PRELOAD": "x"} }, faas.Invalid, "", "LD_PRELOAD"},
		{"our variable", func(r *deploy.Request) { r.Env = map[string]string{"BRASA_X": "x"} }, faas.Invalid, "", "BRASA_X"},
		{"variable with NUL", func(r *deploy.Request) { r.Env = map[string]string{"X": "a\x00b"} }, faas.Invalid, "", "NUL"},
		{"too much environment", func(r *deploy.Request) { r.Env = map[string]string{"X": strings.Repeat("x", 1<<20)} }, faas.TooLarge, "env_bytes", ""},
		{"missing secret", func(r *deploy.Request) { r.Secrets = []string{"TOKEN"} }, faas.Invalid, "", "TOKEN"},
		{"unknown network", func(r *deploy.Request) { r.Network = "host" }, faas.Invalid, "", "host"},
		{"unknown reuse", func(r *deploy.Request) { r.Reuse = "always" }, faas.Invalid, "", "always"},
		{"entry outside", func(r *deploy.Request) { r.Entry = "../../etc/passwd" }, faas.Invalid, "", ""},
		{"concurrency of processes", func(r *deploy.Request) {
			r.Filename, r.Code, r.Limits.Concurrency = "f.sh", strings.NewReader("#!/bin/sh\ncat\n"), 5
		}, faas.Invalid, "concurrency", ""},
		{"a clean process for several calls", func(r *deploy.Request) { r.State, r.Limits.Concurrency = faas.StatePristine, 4 }, faas.Invalid, "concurrency", "pristine"},
		{"a process of its own for several calls", func(r *deploy.Request) { r.Reuse, r.Limits.Concurrency = faas.ReuseNever, 4 }, faas.Invalid, "concurrency", "never"},
		{"others' process, kept", func(r *deploy.Request) { r.Reuse, r.State = faas.ReuseTenant, faas.StateKept }, faas.Invalid, "", "clean state"},
		{"other namespaces' process", func(r *deploy.Request) { r.Reuse = faas.ReuseAny }, faas.Denied, "", "does not allow"},
		{"code over the limit", func(r *deploy.Request) { r.Code = strings.NewReader(strings.Repeat("#", 2<<20)) }, faas.TooLarge, "code_bytes", ""},
		{"archive with traversal", func(r *deploy.Request) { r.Filename, r.Code = "f.tar.gz", tarball("../f.py", good) }, faas.Invalid, "", "../f.py"},
		{"archive with an absolute path", func(r *deploy.Request) { r.Filename, r.Code = "f.zip", zipped("/etc/f.py", good) }, faas.Invalid, "", "/etc/f.py"},
		{"archive with a device", func(r *deploy.Request) { r.Filename, r.Code = "f.tar.gz", device() }, faas.Invalid, "", "null"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newShop(t, func(d *deploy.Config) { d.Unpack.Bytes = faas.MiB })
			r := request("f.py", good)
			c.req(&r)
			_, err := s.Deploy(t.Context(), r, nil)
			e := faas.AsError(err)
			if e == nil {
				t.Fatal("it was deployed")
			}
			if e.Code != c.code || e.Limit != c.limit || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v (code %v, limit %q), want %v, limit %q, saying %q", err, faas.CodeOf(err), e.Limit, c.code, c.limit, c.says)
			}
			if n := len(s.catalog.Functions("default")); n > 0 {
				t.Errorf("%d functions exist", n)
			}
		})
	}
}

func tarball(name, content string) *bytes.Reader {
	return tarOf(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}, content)
}

func device() *bytes.Reader {
	return tarOf(&tar.Header{Name: "null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3}, "")
}

func tarOf(h *tar.Header, content string) *bytes.Reader {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	err := w.WriteHeader(h)
	_, werr := w.Write([]byte(content))
	if err := errors.Join(err, werr, w.Close(), z.Close()); err != nil {
		panic(err)
	}
	return bytes.NewReader(b.Bytes())
}

func zipped(name, content string) *bytes.Reader {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.Create(name)
	if err == nil {
		_, err = f.Write([]byte(content))
	}
	if err := errors.Join(err, w.Close()); err != nil {
		panic(err)
	}
	return bytes.NewReader(b.Bytes())
}

func TestAnArchiveOfOneFolderIsTakenByItsContents(t *testing.T) {
	s := newShop(t, nil)
	r := request("project.tar.gz", "")
	r.Code = tarball("project-main/main.py", good)
	out, err := s.Deploy(t.Context(), r, nil)
	if err != nil || out.Revision.Entry != "main.py" {
		t.Errorf("%+v, %v; want main.py at the top", out, err)
	}
}

// Lifting a folder's contents moves its links one level up, and what they lead to with them: here
// to a file of the server's beside its work directory.
func TestALinkOutOfALiftedFolderIsRefused(t *testing.T) {
	s := newShop(t, nil)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	source := "package function\n\nfunc Handle() {}\n"
	for _, h := range []*tar.Header{
		{Name: "a/main.go", Mode: 0o644, Size: int64(len(source))},
		{Name: "a/x.go", Typeflag: tar.TypeSymlink, Linkname: "../later/x.go"},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			_, _ = w.Write([]byte(source))
		}
	}
	_ = w.Close()
	r := request("a.tar", "")
	r.Code = &b
	_, err := s.Deploy(t.Context(), r, nil)
	if faas.CodeOf(err) != faas.Invalid || !strings.Contains(err.Error(), "x.go") {
		t.Errorf("got %v, want the link refused", err)
	}
}

func TestAScriptSentWithoutItsModeIsExecutable(t *testing.T) {
	s := newShop(t, nil)
	out, err := s.Deploy(t.Context(), request("count", "#!/bin/sh\nwc -w\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	path, release, err := s.depot.Tree(t.Context(), out.Revision.Code)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	info, err := os.Stat(filepath.Join(path, "count"))
	if err != nil || info.Mode()&0o111 == 0 {
		t.Errorf("mode %v, %v; want it executable", info.Mode(), err)
	}
}

func TestTheRequestWinsOverTheManifest(t *testing.T) {
	s := newShop(t, nil)
	if _, err := s.catalog.PutSecret(t.Context(), "default", "TOKEN", []byte("x")); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, content := range map[string]string{
		"main.py":    good,
		"brasa.json": `{"env": {"A": "manifest", "B": "manifest"}, "secrets": ["TOKEN"], "network": "egress", "limits": {"memory_bytes": 67108864, "timeout_ms": 5000}}`,
	} {
		f, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = f.Write([]byte(content))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r := request("f.zip", b.String())
	r.Env = map[string]string{"A": "request"}
	r.Limits.Timeout = faas.Duration(time.Second)
	out, err := s.Deploy(t.Context(), r, nil)
	if err != nil {
		t.Fatal(err)
	}
	rev := out.Revision
	if rev.Env["A"] != "request" || rev.Env["B"] != "manifest" || rev.Network != faas.NetworkEgress || rev.Limits.Memory != 64*faas.MiB ||
		rev.Limits.Timeout.D() != time.Second || len(rev.Secrets) != 1 || rev.Limits.PIDs == 0 {
		t.Errorf("revision %+v", rev)
	}
}

func TestAdHocCodeIsStagedOnceAndPublishedNever(t *testing.T) {
	s := newShop(t, nil)
	stage := func(code string) *faas.Revision {
		t.Helper()
		r := deploy.Request{Name: faas.Name{Namespace: "default"}, Language: "python", Code: strings.NewReader(code)}
		rev, err := s.Stage(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return rev
	}
	a, b, c := stage(good), stage(good), stage(good+"#\n")
	if a != b {
		t.Error("the same code was prepared twice")
	}
	if a.ID == c.ID {
		t.Error("different code has the same revision")
	}
	if a.State != faas.StatePristine {
		t.Errorf("reuse %q; ad-hoc code must not see another call's state", a.Reuse)
	}
	if n := len(s.catalog.Functions("default")); n > 0 {
		t.Errorf("%d functions exist", n)
	}
	live := map[faas.Digest]bool{}
	s.Live(func(d faas.Digest) { live[d] = true })
	if !live[a.Code] || !live[c.Code] {
		t.Error("staged code may be collected")
	}
}

func TestConcurrencyWithoutBeingAsked(t *testing.T) {
	const server = "#!/bin/sh\nexec cat\n"
	for _, c := range []struct {
		name  string
		reuse faas.Reuse
		state faas.State
		stage bool
		want  int
	}{
		{"a server", "", "", false, 100},
		{"a pristine server", "", faas.StatePristine, false, 1},
		{"a server for one call", faas.ReuseNever, "", false, 1},
		{"a server that is called once", "", "", true, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newShop(t, nil)
			r := request("f.sh", server)
			r.Language, r.Reuse, r.State = "http", c.reuse, c.state
			var rev *faas.Revision
			var err error
			if c.stage {
				rev, err = s.Stage(t.Context(), r)
			} else {
				var out *deploy.Outcome
				if out, err = s.Deploy(t.Context(), r, nil); err == nil {
					rev = out.Revision
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			if rev.Limits.Concurrency != c.want {
				t.Errorf("%d calls at once, want %d", rev.Limits.Concurrency, c.want)
			}
		})
	}
}

// sandboxed gives a shop sandboxes to build in, until the test's end.
func sandboxed(t *testing.T, d *deploy.Config, prefix string) {
	t.Helper()
	host, err := sandbox.New(sandbox.Config{Dir: filepath.Join(t.TempDir(), "sandbox"), RootDirs: d.Runtimes.RootDirs(), Prefix: prefix, NetPool: 1, CgroupPool: 1, EgressPool: -1})
	if err != nil {
		t.Fatal(err)
	}
	d.Sandbox = host
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- host.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		<-done
		_ = host.Close()
	})
	<-host.Ready()
}

func TestGoSourceIsBuiltInASandbox(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: builds run in sandboxes of the initial user namespace")
	}
	var dir string
	s := newShop(t, func(d *deploy.Config) {
		dir = d.Dir
		if _, err := d.Runtimes.Lookup(runtimes.Go); err != nil {
			t.Skip(err)
		}
		sandboxed(t, d, "dtest")
	})

	_, err := s.Deploy(t.Context(), request("f.go", "package main\n\nfunc Main(args map[string]any) (any, error) { return undefined, nil }\n"), nil)
	if e := faas.AsError(err); e == nil || e.Code != faas.Failed || !strings.Contains(err.Error(), "f.go:3") || !strings.Contains(err.Error(), "undefined") {
		t.Errorf("code that does not compile: %v; want the compiler's word with file and line", err)
	}
	_, err = s.Deploy(t.Context(), request("f.go", "package main\n\nfunc helper() {}\n"), nil)
	if e := faas.AsError(err); e == nil || e.Code != faas.Invalid || !strings.Contains(err.Error(), "Main") {
		t.Errorf("code without a handler: %v; want the names that were looked for", err)
	}
	out, err := s.Deploy(t.Context(), request("f.go", "package main\n\nfunc Main(args map[string]any) (any, error) { return args, nil }\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	// A namespace of the same name that is made later is another's, and has another cache.
	ns, err := s.catalog.Namespace("default")
	if err != nil {
		t.Fatal(err)
	}
	if caches, err := os.ReadDir(filepath.Join(dir, "gocache")); err != nil || len(caches) != 1 || caches[0].Name() != ns.UID {
		t.Errorf("caches %v, %v; want one called by the namespace's UID", caches, err)
	}
	path, release, err := s.depot.Tree(t.Context(), out.Revision.Code)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	entries, err := os.ReadDir(path)
	if err != nil || len(entries) != 1 || entries[0].Name() != out.Revision.Entry {
		t.Errorf("the code is %v, %v; want the program alone", entries, err)
	}
	if out.Revision.Handler != "Main" {
		t.Errorf("handler %q, want Main", out.Revision.Handler)
	}
}

// Compilers and what they run write to the server's disk: a build that writes without end is ended, and
// what it has left in its namespace's cache goes.
func TestABuildThatFillsTheDiskIsEnded(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: builds run in sandboxes of the initial user namespace")
	}
	var dir string
	s := newShop(t, func(d *deploy.Config) {
		dir = d.Dir
		if _, err := d.Runtimes.Lookup(runtimes.Go); err != nil {
			t.Skip(err)
		}
		sandboxed(t, d, "dfull")
		d.Build = deploy.DefaultBuildLimits()
		d.Build.Bytes = 128 * faas.KiB // the compiled runtime alone is larger
	})
	_, err := s.Deploy(t.Context(), request("f.go", "package main\n\nfunc Main(args map[string]any) (any, error) { return args, nil }\n"), nil)
	if e := faas.AsError(err); e == nil || e.Code != faas.TooLarge || e.Limit != "build_bytes" {
		t.Errorf("got %v, want it refused for its size on the disk", err)
	}
	if caches, err := os.ReadDir(filepath.Join(dir, "gocache")); err != nil || len(caches) > 0 {
		t.Errorf("caches %v, %v; want what it wrote gone", caches, err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "work")); err != nil || len(left) > 0 {
		t.Errorf("work left behind: %v, %v", left, err)
	}
}

func TestBuildCachesGoWithTheirNamespaces(t *testing.T) {
	s := newShop(t, nil)
	keep, err := s.catalog.CreateNamespace(t.Context(), "keep")
	if err != nil {
		t.Fatal(err)
	}
	gone, err := s.catalog.CreateNamespace(t.Context(), "gone")
	if err != nil {
		t.Fatal(err)
	}
	cache := func(uid string) string { return filepath.Join(s.dir, "deploy", "gocache", uid) }
	for _, uid := range []string{keep.UID, gone.UID} {
		if err := os.MkdirAll(filepath.Join(cache(uid), "00"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.catalog.DeleteNamespace(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	if err := s.CollectCaches(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(cache(keep.UID)); err != nil {
		t.Errorf("the cache of a namespace that is there: %v", err)
	}
	if _, err := os.Stat(cache(gone.UID)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the cache of a deleted namespace is still there: %v", err)
	}
}
