package install_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/internal/store"
	"github.com/brasa-dev/brasa/runtimes"
)

// pyShop is a machine that installs what functions in Python name. Its sandboxes are real; the index
// is a directory.
type pyShop struct {
	host    *sandbox.Host
	rts     *runtimes.Registry
	rt      *runtimes.Runtime
	depot   *artifact.Depot
	dir     string
	version string
}

func newPyShop(t *testing.T) *pyShop {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: installations run in sandboxes of the initial user namespace")
	}
	s := &pyShop{dir: t.TempDir()}
	var err error
	if s.rts, err = runtimes.Discover(t.Context(), runtimes.Config{Dir: filepath.Join(s.dir, "runtimes")}); err != nil {
		t.Fatal(err)
	}
	if s.rt, err = s.rts.Lookup(runtimes.Python); err != nil {
		t.Skip(err)
	}
	s.host, err = sandbox.New(sandbox.Config{
		Dir: filepath.Join(s.dir, "sandbox"), RootDirs: s.rts.RootDirs(), Prefix: "piptest", NetPool: 1, CgroupPool: 1, EgressPool: 1,
		Egress: sandbox.EgressConfig{Allow: []netip.Prefix{netip.MustParsePrefix("10.213.0.0/16")}},
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
	})
	<-s.host.Ready()
	for _, f := range s.host.Features() {
		if f.Name == "egress" && !f.Have {
			t.Skip("sandboxes have no way out here: " + f.Detail)
		}
	}
	if s.depot, err = artifact.Open(artifact.Config{Objects: store.MemoryObjects(), Dir: filepath.Join(s.dir, "code")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.depot.Close() })
	return s
}

// installer returns a new one on the machine, with nothing installed yet.
func (s *pyShop) installer(t *testing.T, index string, adjust func(*install.Config)) *pyInstaller {
	t.Helper()
	cfg := install.Config{Depot: s.depot, Sandbox: s.host, Runtimes: s.rts, Dir: t.TempDir()}
	cfg.Registries.Python.Index = index
	if adjust != nil {
		adjust(&cfg)
	}
	i, err := install.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = i.Close() })
	return &pyInstaller{Installer: i, shop: s, dir: cfg.Dir}
}

type pyInstaller struct {
	*install.Installer
	shop *pyShop
	dir  string
}

func (i *pyInstaller) request(t *testing.T, files map[string]string, opt install.Options) install.Request {
	t.Helper()
	return install.Request{
		Namespace: "default", NamespaceUID: "ns1", Code: layOut(t, files), Options: opt,
		Plan: &runtimes.Plan{Runtime: runtimes.Python, Version: i.shop.rt.Version, Entry: "main.py"},
	}
}

func (i *pyInstaller) try(t *testing.T, files map[string]string, opt install.Options) (*install.Result, string, error) {
	t.Helper()
	var log bytes.Buffer
	req := i.request(t, files, opt)
	req.Log = &log
	res, err := i.Install(t.Context(), req)
	if faas.CodeOf(err) == faas.Unavailable && strings.Contains(err.Error(), "neither uv nor pip") {
		t.Skip(err)
	}
	if res != nil {
		t.Cleanup(res.Release)
	}
	return res, log.String(), err
}

func (i *pyInstaller) must(t *testing.T, files map[string]string, opt install.Options) *install.Result {
	t.Helper()
	res, log, err := i.try(t, files, opt)
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, faas.AsError(err).Trace, log)
	}
	if res == nil {
		t.Fatal("nothing was installed")
	}
	return res
}

// refuses fails the test unless the installation fails with the code and all of the words.
func (i *pyInstaller) refuses(t *testing.T, files map[string]string, opt install.Options, code faas.Code, limit string, words ...string) {
	t.Helper()
	_, log, err := i.try(t, files, opt)
	if err == nil {
		t.Fatalf("it was installed; want it refused for %q\n%s", words, log)
	}
	e := faas.AsError(err)
	if e.Code != code || e.Limit != limit {
		t.Errorf("code %v, limit %q, want %v, %q: %v\n%s", e.Code, e.Limit, code, limit, err, log)
	}
	for _, w := range words {
		if !strings.Contains(err.Error()+" "+e.Fix, w) {
			t.Errorf("%q (%s), want the words %q\n%s", err.Error(), e.Fix, w, log)
		}
	}
}

func requirements(lines ...string) map[string]string {
	return map[string]string{"requirements.txt": strings.Join(lines, "\n") + "\n"}
}

func TestPythonPackages(t *testing.T) {
	s := newPyShop(t)
	x := newPyIndex(t)
	small := x.wheel(t, "small", "1.0", map[string]string{"small/__init__.py": "VALUE = 1\n", "small/data.txt": "text"})
	x.wheel(t, "small", "1.1", map[string]string{"small/__init__.py": "VALUE = 11\n"})
	x.add(t, "tall", "tall-2.0-py3-none-any.whl", wheelOf(t, "tall", "2.0", map[string]string{"tall.py": "import small\n"}, "small<1.1"), "")

	t.Run("what requirements name is a layer, once", func(t *testing.T) {
		i := s.installer(t, x.url(), nil)
		res := i.must(t, requirements("tall", "# a comment"), install.Options{})
		if res.Cached || res.Layer == nil || res.Layer.Target != "/deps" || res.Manifest != "requirements.txt" {
			t.Errorf("%+v", res)
		}
		var names []string
		for _, p := range res.Packages {
			names = append(names, p.Name+" "+p.Version)
			if p.Bytes == 0 {
				t.Errorf("%s has no size", p.Name)
			}
		}
		slices.Sort(names)
		if !slices.Equal(names, []string{"small 1.0", "tall 2.0"}) {
			t.Errorf("packages %v", names)
		}
		compiled, _ := filepath.Glob(filepath.Join(res.Dir, "small", "__pycache__", "__init__.*.pyc"))
		if len(compiled) != 1 {
			t.Fatalf("bytecode %v, want one file", compiled)
		}
		if b, err := os.ReadFile(compiled[0]); err != nil || b[4] != 1 {
			t.Errorf("the bytecode's flags are % x, %v; want it unchecked", b[:8], err)
		}
		again := i.must(t, requirements("tall", "# a comment"), install.Options{})
		if !again.Cached || again.Layer.Digest != res.Layer.Digest {
			t.Errorf("again: %+v; want the same layer without an installation", again)
		}
		other := i.request(t, requirements("tall", "# a comment"), install.Options{})
		other.NamespaceUID = "ns2"
		theirs, err := i.Install(t.Context(), other)
		if err != nil {
			t.Fatal(err)
		}
		defer theirs.Release()
		if theirs.Cached {
			t.Error("another namespace got a layer that no hash vouches for")
		}
	})

	t.Run("a layer that the depot has lost is made anew", func(t *testing.T) {
		i := s.installer(t, x.url(), nil)
		res := i.must(t, requirements("small==1.1"), install.Options{})
		lost := res.Layer.Digest
		files, err := filepath.Glob(filepath.Join(i.dir, "layers", "ns1", "*.json"))
		if err != nil || len(files) != 1 {
			t.Fatal(files, err)
		}
		b, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		gone := "sha256:" + strings.Repeat("0", 64)
		if err := os.WriteFile(files[0], bytes.ReplaceAll(b, []byte(lost), []byte(gone)), 0o600); err != nil {
			t.Fatal(err)
		}
		if again := i.must(t, requirements("small==1.1"), install.Options{}); again.Cached || again.Layer.Digest != lost {
			t.Errorf("%+v; want it installed again", again)
		}
	})

	t.Run("a layer stays while it is named or was used lately", func(t *testing.T) {
		i := s.installer(t, x.url(), nil)
		kept := i.must(t, requirements("small==1.0"), install.Options{}).Layer.Digest
		collect := func(live, namespace bool) (left int) {
			t.Helper()
			if err := i.Collect(func(d faas.Digest) bool { return live && d == kept }, func(string) bool { return namespace }); err != nil {
				t.Fatal(err)
			}
			files, _ := filepath.Glob(filepath.Join(i.dir, "layers", "*", "*.json"))
			return len(files)
		}
		lives := 0
		if err := i.Live(func(d faas.Digest) { lives++ }); err != nil || lives != 1 || collect(false, true) != 1 {
			t.Errorf("a layer used lately is not live: %d, %v", lives, err)
		}
		files, _ := filepath.Glob(filepath.Join(i.dir, "layers", "*", "*.json"))
		ago := time.Now().Add(-25 * time.Hour)
		if err := os.Chtimes(files[0], ago, ago); err != nil {
			t.Fatal(err)
		}
		if collect(true, true) != 1 {
			t.Error("a layer that a revision names is gone")
		}
		if collect(false, true) != 0 {
			t.Error("a layer that nobody names or uses is kept")
		}
		i.must(t, requirements("small==1.0"), install.Options{})
		if collect(true, false) != 0 {
			t.Error("a layer of a namespace that is no more is kept")
		}
	})

	t.Run("named beside the code, with a lock that has hashes", func(t *testing.T) {
		i := s.installer(t, x.url(), nil)
		res := i.must(t, requirements("small==1.0 --hash=sha256:"+small), install.Options{With: []string{"tall"}})
		if len(res.Packages) != 2 {
			t.Errorf("packages %v, want small and tall", res.Packages)
		}
		i.refuses(t, nil, install.Options{With: []string{"--index-url=http://evil"}}, faas.Invalid, "", "names no package")
		i.refuses(t, requirements("small==1.0 --hash=sha256:"+small), install.Options{With: []string{"tall"}, Strict: true}, faas.Invalid, "", "hashes are demanded", "tall")
	})

	t.Run("what a script says of itself", func(t *testing.T) {
		i := s.installer(t, x.url(), nil)
		res := i.must(t, map[string]string{"main.py": "# /// script\n# requires-python = \">=3.8\"\n# dependencies = [\n#   \"small>1\",\n# ]\n# ///\nimport small\n"}, install.Options{})
		if res.Manifest != "main.py" || len(res.Packages) != 1 || res.Packages[0].Version != "1.1" {
			t.Errorf("%+v", res)
		}
		i.refuses(t, map[string]string{"main.py": "# /// script\n# requires-python = \">=4\"\n# dependencies = [\"small\"]\n# ///\n"}, install.Options{}, faas.Invalid, "", ">=4")
	})

	t.Run("nothing is named", func(t *testing.T) {
		i := s.installer(t, x.url(), nil)
		for name, files := range map[string]map[string]string{
			"no manifest":    {"main.py": "x = 1\n"},
			"only comments":  requirements("# nothing"),
			"brought along":  {"requirements.txt": "small\n", "vendor/small.py": ""},
			"a tool's table": {"pyproject.toml": "[tool.black]\nline-length = 100\n"},
		} {
			if res, _, err := i.try(t, files, install.Options{}); res != nil || err != nil {
				t.Errorf("%s: %+v, %v; want nothing", name, res, err)
			}
		}
	})

	t.Run("wrong input", func(t *testing.T) { wrongPythonInput(t, s, x, small) })
	t.Run("hostile packages", func(t *testing.T) { hostilePython(t, s, x) })
	t.Run("at once", func(t *testing.T) { pythonAtOnce(t, s, x) })
	t.Run("credentials", func(t *testing.T) { pythonCredentials(t, s, x) })
}

func wrongPythonInput(t *testing.T, s *pyShop, x *pyIndex, small string) {
	x.add(t, "gone", "gone-1.0-py3-none-any.whl", wheelOf(t, "gone", "1.0", map[string]string{"gone.py": ""}), "leaks the moon")
	x.add(t, "alien", "alien-1.0-cp311-cp311-win_amd64.whl", wheelOf(t, "alien", "1.0", map[string]string{"alien.py": ""}), "")
	x.add(t, "fickle", "fickle-1.0-py3-none-any.whl", wheelOf(t, "fickle", "1.0", map[string]string{"fickle.py": ""}, "small==1.1"), "")
	x.add(t, "outside", "outside-1.0-py3-none-any.whl", wheelOf(t, "outside", "1.0", map[string]string{"../../../tmp/outside.py": "x = 1"}), "")
	i := s.installer(t, x.url(), nil)
	for _, c := range []struct {
		name  string
		files map[string]string
		opt   install.Options
		words []string
	}{
		{"no such version", requirements("small==99.9"), install.Options{}, []string{"small==99.9"}},
		{"no such package", requirements("no-such-package"), install.Options{}, []string{"no-such-package", "check its name"}},
		{"versions that do not go together", requirements("fickle", "small==1.0"), install.Options{}, []string{"go together", "small"}},
		{"another hash", requirements("small==1.0 --hash=sha256:" + strings.Repeat("1", 64)), install.Options{}, []string{"small", small[:12], "111111111111"}},
		{"withdrawn", requirements("gone==1.0"), install.Options{}, []string{"gone==1.0", "withdrawn", "leaks the moon"}},
		{"another machine", requirements("alien"), install.Options{}, []string{"alien"}},
		{"another machine's wheel brought along", map[string]string{"requirements.txt": "./alien-1.0-cp311-cp311-win_amd64.whl\n", "alien-1.0-cp311-cp311-win_amd64.whl": string(wheelOf(t, "alien", "1.0", nil))}, install.Options{}, []string{"alien"}},
		{"the code itself", requirements("-e ."), install.Options{}, []string{"line 1", "leave the line out"}},
		{"a directory", requirements("small", "./lib"), install.Options{}, []string{"./lib"}},
		{"a file that is not there", requirements("-r more.txt"), install.Options{}, []string{"more.txt"}},
		{"a file outside", requirements("-r ../../etc/passwd"), install.Options{}, []string{"etc/passwd"}},
		{"a circle", map[string]string{"requirements.txt": "-r a/b.txt\n", "a/b.txt": "-r ../nowhere.txt\n"}, install.Options{}, []string{"nowhere.txt"}},
		{"no hash though demanded", requirements("small==1.0"), install.Options{Strict: true}, []string{"small", "hashes are demanded"}},
		{"a lock that lacks one", map[string]string{"uv.lock": "version = 1\n[[package]]\nname = \"p\"\nsource = { virtual = \".\" }\ndependencies = [{ name = \"small\" }]\n"}, install.Options{}, []string{"small", "lock again"}},
		{"a lock that is none", map[string]string{"uv.lock": "version = ["}, install.Options{}, []string{"uv.lock"}},
		{"no such option", requirements("--frobnicate yes", "small"), install.Options{}, []string{"requirements.txt"}},
	} {
		t.Run(c.name, func(t *testing.T) { i.refuses(t, c.files, c.opt, faas.Invalid, "", c.words...) })
	}
	if left, err := os.ReadDir(filepath.Join(i.dir, "work")); err != nil || len(left) > 0 {
		t.Errorf("work left behind: %v, %v", left, err)
	}
	if kept, _ := filepath.Glob(filepath.Join(i.dir, "layers", "*", "*.json")); len(kept) > 0 {
		t.Errorf("layers were kept of what failed: %v", kept)
	}
}

// pip refuses a wheel that leads out of its directory, uv leaves out what does. Either way nothing of
// it is written beside the layer.
func wheelThatLeadsOut(t *testing.T, i *pyInstaller) {
	res, log, err := i.try(t, requirements("outside"), install.Options{})
	if err != nil {
		if faas.CodeOf(err) != faas.Invalid || !strings.Contains(err.Error(), "outside") {
			t.Errorf("%v; want it refused\n%s", err, log)
		}
	} else if _, err := os.Stat(filepath.Join(res.Dir, "outside.py")); err == nil {
		t.Error("the layer has what was meant for elsewhere")
	}
	for _, at := range []string{"/tmp", i.dir, filepath.Dir(i.dir)} {
		if _, err := os.Stat(filepath.Join(at, "outside.py")); err == nil {
			t.Errorf("it wrote to %s", at)
		}
	}
}

func hostilePython(t *testing.T, s *pyShop, x *pyIndex) {
	x.wheel(t, "bomb", "1.0", map[string]string{"bomb/zeros.bin": "size:314572800"})
	x.source(t, "nosy", "1.0", `
def _hook(out):
    out["env"] = sorted(os.environ)
    out["data"] = os.path.exists("`+s.dir+`")
    out["home"] = os.listdir("/root") if os.path.exists("/root") else []
    try:
        open("/src/planted", "w")
        out["source"] = "written"
    except OSError as e:
        out["source"] = "refused"
`)
	x.source(t, "endless", "1.0", "def _hook(out):\n    import time\n    while True: time.sleep(1)\n")
	x.source(t, "glutton", "1.0", "def _hook(out):\n    out['x'] = bytearray(3 << 29)\n    out['x'][::4096] = b'x' * len(out['x'][::4096])\n")
	x.source(t, "hoard", "1.0", `
def _hook(out):
    f = open("/scratch/hidden", "wb")
    os.unlink("/scratch/hidden")
    for i in range(400):
        f.write(os.urandom(1 << 20))
    f.flush()
    import time
    time.sleep(60)
`)
	x.source(t, "delver", "1.0", "def _hook(out):\n    import time\n    for n in range(5000):\n        os.mkdir('directory'); os.chdir('directory')\n    open('hoard', 'wb').write(b'x' * (128 << 20))\n    time.sleep(60)\n")
	x.source(t, "crumbs", "1.0", "def _hook(out):\n    import time\n    os.mkdir('/scratch/crumbs')\n    for n in range(20000): open('/scratch/crumbs/%d' % n, 'w').close()\n    time.sleep(60)\n")
	x.source(t, "forker", "1.0", "def _hook(out):\n    import time\n    for i in range(10000):\n        if os.fork() == 0: time.sleep(60)\n")
	tight := func(c *install.Config) {
		c.Limits = install.Limits{Bytes: 64 * faas.MiB, Memory: 512 * faas.MiB, Timeout: 30 * time.Second, PIDs: 64}
	}
	i := s.installer(t, x.url(), tight)
	scripts := install.Options{Scripts: true}
	t.Run("a wheel that leads out", func(t *testing.T) { wheelThatLeadsOut(t, i) })
	t.Run("an archive bomb", func(t *testing.T) {
		i.refuses(t, requirements("bomb"), install.Options{}, faas.TooLarge, "install_bytes", "64MiB")
	})
	t.Run("its code does not run unless asked for", func(t *testing.T) {
		i.refuses(t, requirements("nosy"), install.Options{}, faas.Invalid, "", "nosy", "--install-scripts")
	})
	t.Run("its code sees nothing of the server's", func(t *testing.T) {
		res := i.must(t, requirements("nosy"), scripts)
		b, err := os.ReadFile(filepath.Join(res.Dir, "nosy.py"))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"'data': False", "'home': []", "'source': 'refused'"} {
			if !strings.Contains(string(b), want) {
				t.Errorf("it saw %s; want %s", b, want)
			}
		}
		if strings.Contains(string(b), "BRASA") {
			t.Errorf("it saw %s; want nothing of ours", b)
		}
	})
	t.Run("one that never ends", func(t *testing.T) {
		i := s.installer(t, x.url(), func(c *install.Config) { c.Limits.Timeout = 4 * time.Second })
		i.refuses(t, requirements("endless"), scripts, faas.Failed, "build_timeout", "longer than")
	})
	t.Run("one that takes all memory", func(t *testing.T) {
		i.refuses(t, requirements("glutton"), scripts, faas.Failed, "build_memory", "memory")
	})
	t.Run("one that hides what it writes", func(t *testing.T) {
		i.refuses(t, requirements("hoard"), scripts, faas.TooLarge, "install_bytes")
	})
	t.Run("one that hides what it writes deeper than paths go", func(t *testing.T) {
		i.refuses(t, requirements("delver"), scripts, faas.TooLarge, "install_entries", "deep")
	})
	t.Run("one that makes files without bytes", func(t *testing.T) {
		i := s.installer(t, x.url(), func(c *install.Config) { c.Limits.Entries, c.Limits.Timeout = 1000, time.Minute })
		i.refuses(t, requirements("crumbs"), scripts, faas.TooLarge, "install_entries", "4000 files")
	})
	t.Run("one that forks on and on", func(t *testing.T) {
		i := s.installer(t, x.url(), func(c *install.Config) { c.Limits.PIDs, c.Limits.Timeout = 64, 6*time.Second })
		_, _, err := i.try(t, requirements("forker"), scripts)
		if code := faas.CodeOf(err); code != faas.Failed && code != faas.Invalid {
			t.Errorf("%v; want it failed", err)
		}
	})
	if left, err := os.ReadDir(filepath.Join(i.dir, "work")); err != nil || len(left) > 0 {
		t.Errorf("work left behind: %v, %v", left, err)
	}
}

func pythonAtOnce(t *testing.T, s *pyShop, x *pyIndex) {
	x.wheel(t, "slow", "1.0", map[string]string{"slow.py": "x = 1\n"})
	var begun atomic.Int32
	gate := make(chan struct{})
	i := s.installer(t, x.url(), func(c *install.Config) {
		c.Fault = func(moment string) {
			if moment == "begun" {
				begun.Add(1)
				<-gate
			}
		}
	})
	first, cancel := context.WithCancel(t.Context())
	begins := make(chan struct{})
	var joined sync.WaitGroup
	results := make([]*install.Result, 5)
	errs := make([]error, 5)
	for n := range results {
		ctx := t.Context()
		if n == 0 {
			ctx = first
		} else {
			<-begins // the first is the one that begins it
		}
		req := i.request(t, requirements("slow"), install.Options{})
		req.Progress = func(install.Progress) {}
		joined.Go(func() { results[n], errs[n] = i.Install(ctx, req) })
		if n == 0 {
			for begun.Load() == 0 {
				time.Sleep(time.Millisecond)
			}
			close(begins)
		}
	}
	// Who began it goes away; it goes on for the others. That they have joined shows in nothing but
	// that none of them begins another.
	time.Sleep(100 * time.Millisecond)
	cancel()
	time.Sleep(10 * time.Millisecond)
	close(gate)
	joined.Wait()
	if !errors.Is(errs[0], context.Canceled) {
		t.Errorf("the one that went away got %v", errs[0])
	}
	for n := 1; n < len(results); n++ {
		if errs[n] != nil {
			t.Errorf("caller %d: %v", n, errs[n])
			continue
		}
		defer results[n].Release()
		if results[n].Layer.Digest != results[1].Layer.Digest {
			t.Errorf("caller %d has another layer", n)
		}
	}
	if n := begun.Load(); n != 1 {
		t.Errorf("%d installations, want 1", n)
	}

	// Nobody waits any more: it ends, and the next begins anew.
	x.wheel(t, "left", "1.0", map[string]string{"left.py": "x = 1\n"})
	x.source(t, "lasting", "1.0", "def _hook(out):\n    import time\n    time.sleep(600)\n")
	alone, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	req := i.request(t, requirements("lasting"), install.Options{Scripts: true})
	if _, err := i.Install(alone, req); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the caller's own deadline", err)
	}
	for range 500 {
		left, err := os.ReadDir(filepath.Join(i.dir, "work"))
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("an installation goes on that nobody waits for")
}

// pythonCredentials installs from an index that wants a password, which nothing may hold afterwards.
func pythonCredentials(t *testing.T, s *pyShop, x *pyIndex) {
	const password = "correct-horse-battery"
	l := listenBeside(t)
	asked := serveWithPassword(t, l, x.dir, password)
	i := s.installer(t, "http://user:"+password+"@"+l.Addr().String()+"/", nil)
	res, log, err := i.try(t, requirements("tall"), install.Options{})
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	if asked.Load() == 0 {
		t.Error("nobody came with the password")
	}
	if strings.Contains(log, password) {
		t.Errorf("the log has the password:\n%s", log)
	}
	for _, dir := range []string{res.Dir, i.dir} {
		err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(name)
			if bytes.Contains(b, []byte(password)) {
				t.Errorf("%s has the password", name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	wrong := s.installer(t, "http://user:wrong@"+l.Addr().String()+"/", nil)
	if _, log, err := wrong.try(t, requirements("tall"), install.Options{}); err == nil || strings.Contains(err.Error()+log, "wrong@") {
		t.Errorf("with a wrong password: %v\n%s", err, log)
	}
	host, _, _ := net.SplitHostPort(l.Addr().String())
	closed := s.installer(t, "http://"+host+":9/", nil)
	_, _, err = closed.try(t, requirements("tall"), install.Options{})
	if e := faas.AsError(err); e == nil || e.Code != faas.Unavailable || !strings.Contains(e.Fix, "egress.allow") {
		t.Errorf("an index out of reach: %v; want it unavailable, and the key egress.allow", err)
	}
}
