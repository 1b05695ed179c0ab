package install

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

func TestMarkers(t *testing.T) {
	env := markerEnv("3.11.7")
	env["platform_machine"] = "x86_64"
	env["extra"] = "socks"
	for marker, want := range map[string]bool{
		``:                           true,
		`python_version < "3.8"`:     false,
		`python_version >= '3.10'`:   true, // as a version, not as a text
		`python_version == "3.11"`:   true,
		`python_version != "3.11.*"`: false,
		`python_full_version < "3.11.8" and sys_platform == "linux"`:                            true,
		`sys_platform == "win32" or platform_system == "Linux"`:                                 true,
		`(sys_platform == "win32" or os_name == "nt") and python_version > "3"`:                 false,
		`platform_machine in "x86_64 AMD64" and implementation_name == "cpython"`:               true,
		`platform_machine not in "x86_64 AMD64"`:                                                false,
		`extra == "socks"`:                                                                      true,
		`"3.6" < python_version`:                                                                true,
		`python_version ~= "3.9"`:                                                               true,
		`python_version ~= "3.9.1"`:                                                             false,
		`platform_python_implementation != "PyPy" and (python_version < "4" or extra == "all")`: true,
	} {
		if got, err := marked(marker, env); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", marker, got, err, want)
		}
	}
	for _, wrong := range []string{`python_version <`, `nonsense == "x"`, `(python_version > "3"`, `python_version > "3" and`, `python_version "3"`, `python_version > "3")`} {
		if _, err := marked(wrong, env); err == nil {
			t.Errorf("%s is taken for a marker", wrong)
		}
	}
}

func linesOf(t *testing.T, files map[string]string) []string {
	t.Helper()
	tree := fstest.MapFS{}
	for name, text := range files {
		tree[name] = &fstest.MapFile{Data: []byte(text)}
	}
	needs, err := findPython(tree, &runtimes.Plan{Runtime: runtimes.Python, Version: "3.11.7", Entry: "main.py"})
	if err != nil {
		t.Fatal(err)
	}
	if needs == nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(needs.files[pipMain])), "\n")
}

// Each lock comes to the requirements of this machine: those of other machines, of development and of
// extras that nobody asked for are left out.
func TestLocksBecomeRequirements(t *testing.T) {
	uv := `version = 1
requires-python = ">=3.9"
[[package]]
name = "app"
version = "0.1.0"
source = { virtual = "." }
dependencies = [
  { name = "requests", extra = ["socks"] },
  { name = "colorama", marker = "sys_platform == 'win32'" },
  { name = "forked", version = "2.0", marker = "python_full_version >= '3.10'" },
  { name = "forked", version = "1.0", marker = "python_full_version < '3.10'" },
]
[package.dev-dependencies]
dev = [{ name = "pytest" }]
[[package]]
name = "requests"
version = "2.32.3"
source = { registry = "https://pypi.org/simple" }
dependencies = [{ name = "idna" }]
sdist = { url = "https://x/requests.tar.gz", hash = "sha256:aa" }
wheels = [{ url = "https://x/requests.whl", hash = "sha256:bb" }]
[package.optional-dependencies]
socks = [{ name = "pysocks" }]
[[package]]
name = "idna"
version = "3.7"
source = { registry = "https://pypi.org/simple" }
wheels = [{ url = "https://x/idna.whl", hash = "sha256:cc" }]
[[package]]
name = "pysocks"
version = "1.7.1"
source = { registry = "https://pypi.org/simple" }
wheels = [{ url = "https://x/pysocks.whl", hash = "sha256:dd" }]
[[package]]
name = "pytest"
version = "8.0"
source = { registry = "https://pypi.org/simple" }
[[package]]
name = "colorama"
version = "0.4"
source = { registry = "https://pypi.org/simple" }
[[package]]
name = "forked"
version = "1.0"
source = { registry = "https://pypi.org/simple" }
[[package]]
name = "forked"
version = "2.0"
source = { registry = "https://pypi.org/simple" }
wheels = [{ url = "https://x/forked.whl", hash = "sha256:ee" }]
`
	want := []string{"forked==2.0 --hash=sha256:ee", "idna==3.7 --hash=sha256:cc", "pysocks==1.7.1 --hash=sha256:dd", "requests==2.32.3 --hash=sha256:aa --hash=sha256:bb"}
	if got := linesOf(t, map[string]string{"uv.lock": uv, "pyproject.toml": "[project]\nname='app'\n"}); !slices.Equal(got, want) {
		t.Errorf("uv.lock: %q, want %q", got, want)
	}
	poetry := `[[package]]
name = "Requests"
version = "2.32.3"
files = [{file = "requests.whl", hash = "sha256:bb"}]
[package.dependencies]
idna = ">=2.5,<4"
PySocks = {version = ">=1.5.6", optional = true, markers = "extra == \"socks\""}
colorama = {version = "*", markers = "sys_platform == \"win32\""}
[package.extras]
socks = ["PySocks (>=1.5.6,!=1.5.7)"]
[[package]]
name = "idna"
version = "3.7"
files = [{file = "idna.whl", hash = "sha256:cc"}]
[[package]]
name = "pysocks"
version = "1.7.1"
files = [{file = "pysocks.whl", hash = "sha256:dd"}]
[[package]]
name = "pytest"
version = "8.0"
[metadata]
python-versions = "^3.9"
`
	project := "[tool.poetry.dependencies]\npython = \"^3.9\"\nrequests = {version = \"^2\", extras = [\"socks\"]}\n[tool.poetry.group.dev.dependencies]\npytest = \"*\"\n"
	want = []string{"idna==3.7 --hash=sha256:cc", "pysocks==1.7.1 --hash=sha256:dd", "requests==2.32.3 --hash=sha256:bb"}
	if got := linesOf(t, map[string]string{"poetry.lock": poetry, "pyproject.toml": project}); !slices.Equal(got, want) {
		t.Errorf("poetry.lock: %q, want %q", got, want)
	}
	if got := linesOf(t, map[string]string{"poetry.lock": poetry, "pyproject.toml": "[project]\nname='app'\ndependencies = [\"requests[socks]>=2\"]\n"}); !slices.Equal(got, want) {
		t.Errorf("poetry.lock of a project: %q, want %q", got, want)
	}
	pipfile := `{"_meta": {"sources": [{"url": "https://pypi.org/simple"}]}, "default": {
		"idna": {"version": "==3.7", "hashes": ["sha256:cc"]},
		"colorama": {"version": "==0.4", "hashes": ["sha256:ff"], "markers": "sys_platform == 'win32'"}}, "develop": {"pytest": {"version": "==8"}}}`
	want = []string{"idna==3.7 --hash=sha256:cc"}
	if got := linesOf(t, map[string]string{"Pipfile.lock": pipfile}); !slices.Equal(got, want) {
		t.Errorf("Pipfile.lock: %q, want %q", got, want)
	}
	if got := linesOf(t, map[string]string{"pyproject.toml": "[project]\nname='app'\ndependencies = [\"idna>3\"]\n[project.optional-dependencies]\nx = [\"y\"]\n"}); !slices.Equal(got, []string{"idna>3"}) {
		t.Errorf("pyproject.toml: %q", got)
	}
}

// A layer's key changes with all that decides what is in it, and with nothing else.
func TestKeys(t *testing.T) {
	m := func() *Manifest {
		return &Manifest{Ecosystem: "pip", Files: map[string][]byte{"requirements.txt": []byte("a\n")}, Runtime: "3.11"}
	}
	j := func() *Job { return &Job{Tool: "pip 23", Target: "/deps"} }
	base := keyOf(m(), j(), Options{})
	seen := map[string]string{base: "nothing"}
	for name, change := range map[string]func(*Manifest, *Job, *Options){
		"the file":    func(m *Manifest, _ *Job, _ *Options) { m.Files["requirements.txt"] = []byte("b\n") },
		"its name":    func(m *Manifest, _ *Job, _ *Options) { m.Files = map[string][]byte{"other.txt": []byte("a\n")} },
		"the version": func(m *Manifest, _ *Job, _ *Options) { m.Runtime = "3.12" },
		"the tool":    func(_ *Manifest, j *Job, _ *Options) { j.Tool = "uv 1" },
		"the origin":  func(_ *Manifest, j *Job, _ *Options) { j.Origin = "https://x" },
		"with":        func(_ *Manifest, _ *Job, o *Options) { o.With = []string{"c"} },
		"scripts":     func(_ *Manifest, _ *Job, o *Options) { o.Scripts = true },
		"strict":      func(_ *Manifest, _ *Job, o *Options) { o.Strict = true },
	} {
		mm, jj, oo := m(), j(), Options{}
		change(mm, jj, &oo)
		key := keyOf(mm, jj, oo)
		if other, ok := seen[key]; ok {
			t.Errorf("a change of %s has the key of a change of %s", name, other)
		}
		seen[key] = name
	}
	same := m()
	same.Note, same.From = "two were there", "x"
	if keyOf(same, &Job{Tool: "pip 23", Target: "/deps", Access: Access{Env: []string{"TOKEN=1"}}}, Options{}) != base {
		t.Error("a note or a credential changes the key")
	}
}

// A log is kept with its beginning and its end, whatever was written, and goes with its age, its
// namespace, and those before it when they are too many.
func TestBuildLogsAreBounded(t *testing.T) {
	dir := t.TempDir()
	builds, err := OpenBuilds(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := builds.Begin("ns1", "f")
	if b.ID() != "" {
		t.Error("a build has an id before it wrote anything")
	}
	for n := range 9000 {
		fmt.Fprintf(b, "%06d %s\n", n, strings.Repeat("x", 1000))
	}
	b.End(faas.Errorf(faas.Failed, "install", "it failed"))
	info, log, err := builds.Log("ns1", string(b.ID())[:12])
	if err != nil || info.Outcome != "failed" || info.Message != "it failed" {
		t.Fatalf("%+v, %v", info, err)
	}
	text, err := io.ReadAll(log)
	_ = log.Close()
	if err != nil {
		t.Fatal(err)
	}
	if s := string(text); len(s) > int(logHead+logTail)+100 || !strings.HasPrefix(s, "000000 ") || !strings.Contains(s, "\n008999 ") || !strings.Contains(s, "bytes are left out") {
		t.Errorf("the log has %d bytes; want its beginning and its end, and a mark between", len(s))
	}
	if _, _, err := builds.Log("ns2", string(b.ID())); faas.CodeOf(err) != faas.NotFound {
		t.Errorf("another namespace reads it: %v", err)
	}
	open := builds.Begin("ns1", "g")
	_, _ = open.Write([]byte("begun\n"))
	again, err := OpenBuilds(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if all, err := again.List("ns1"); err != nil || len(all) != 2 || all[0].Outcome != "unavailable" {
		t.Errorf("after a restart: %+v, %v; want the open one cut off", all, err)
	}
	old := info
	old.ID, old.Began = faas.NewID(time.Now().Add(-8*24*time.Hour)), time.Now().Add(-8*24*time.Hour)
	if err := writeInfo(filepath.Join(dir, "ns1", string(old.ID)+".json"), old); err != nil {
		t.Fatal(err)
	}
	if err := again.Collect(func(uid string) bool { return uid == "ns1" }); err != nil {
		t.Fatal(err)
	}
	if all, _ := again.List("ns1"); len(all) != 2 {
		t.Errorf("%d builds, want the old one gone", len(all))
	}
	if err := again.Collect(func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if all, _ := again.List("ns1"); len(all) != 0 {
		t.Errorf("%d builds of a namespace that is no more", len(all))
	}
}
