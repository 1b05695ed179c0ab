package deploy_test

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// pythonShop returns a shop that can compile Python, and the interpreter.
func pythonShop(t *testing.T, adjust func(*deploy.Config)) (*shop, *runtimes.Runtime) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: builds run in sandboxes of the initial user namespace")
	}
	var python *runtimes.Runtime
	s := newShop(t, func(d *deploy.Config) {
		var err error
		if python, err = d.Runtimes.Lookup(runtimes.Python); err != nil {
			t.Skip(err)
		}
		sandboxed(t, d, "pytest")
		if adjust != nil {
			adjust(d)
		}
	})
	return s, python
}

func zipOf(t *testing.T, files map[string]string) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, content := range files {
		f, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// tree returns the files of a revision's code and their content.
func (s *shop) tree(t *testing.T, rev *faas.Revision) map[string]string {
	t.Helper()
	dir, release, err := s.depot.Tree(t.Context(), rev.Code)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	out := map[string]string{}
	err = fs.WalkDir(os.DirFS(dir), ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, p))
		out[p] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func bytecodeIn(files map[string]string) (names []string) {
	for name := range files {
		if strings.HasSuffix(name, ".pyc") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func TestPythonIsCompiledAtDeploy(t *testing.T) {
	s, python := pythonShop(t, nil)
	tag := fmt.Sprintf("cpython-%s", strings.Join(strings.Split(python.Version, ".")[:2], ""))
	sent := map[string]string{
		"main.py":                             "import lib\n\ndef main(args):\n    return args.get('a') in {'one', 'two', 'three', 'four', 'five'}\n",
		"lib.py":                              "X = 1\n",
		"__pycache__/lib." + tag + ".pyc":     "made elsewhere",
		"pkg/__init__.py":                     "",
		"vendor/dep/core.py":                  "def f(): return {'a': frozenset(('x', 'y', 'z'))}\n",
		"site-packages/other.py":              "Y = 2\n",
		"old.py":                              "print 'of another age'\n",
		"nul.py":                              "x = 1\x00\n",
		"deep.py":                             "x = " + strings.Repeat("(", 5000) + "\n",
		"blocked/part.py":                     "Z = 3\n",
		"blocked/__pycache__":                 "a file\n",
		"data.txt":                            "text\n",
		"tool.sh":                             "#!/bin/sh\n",
		"vendor/dep/__pycache__/core.cpython": "none of ours",
	}
	out, err := s.Deploy(t.Context(), request("code.zip", zipOf(t, sent)), nil)
	if err != nil {
		t.Fatal(err)
	}
	files := s.tree(t, out.Revision)
	want := []string{
		"__pycache__/lib." + tag + ".pyc", "__pycache__/main." + tag + ".pyc", "pkg/__pycache__/__init__." + tag + ".pyc",
		"site-packages/__pycache__/other." + tag + ".pyc", "vendor/dep/__pycache__/core." + tag + ".pyc",
	}
	if got := bytecodeIn(files); !slices.Equal(got, want) {
		t.Errorf("bytecode of %q, want %q", got, want)
	}
	for name, content := range sent {
		if files[name] != content && !strings.HasSuffix(name, ".pyc") {
			t.Errorf("%s is %q, want it as it was sent", name, files[name])
		}
	}
	if c := files["__pycache__/lib."+tag+".pyc"]; c == "made elsewhere" || len(c) < 16 || c[4:8] != "\x01\x00\x00\x00" {
		t.Errorf("lib's bytecode begins %q, want ours, which goes unchecked", c[:min(len(c), 16)])
	}

	// The revision is named by what is stored, so the same code must come out as the same.
	for range 3 {
		again, err := s.Deploy(t.Context(), request("code.zip", zipOf(t, sent)), nil)
		if err != nil || !again.Same {
			t.Fatalf("the same code again is another revision: %v", err)
		}
	}
}

func TestPythonThatCannotBeCompiledIsDeployedAsItIs(t *testing.T) {
	lines := strings.Repeat("x = [1, 2, 3]\n", 2000)
	for name, adjust := range map[string]func(*deploy.Config){
		"an interpreter that dies": func(d *deploy.Config) {
			d.Build = deploy.BuildLimits{Memory: 2 * faas.MiB, CPU: 1000, PIDs: 16, Timeout: time.Minute}
		},
		"no room for bytes": func(d *deploy.Config) { d.Unpack = artifact.Limits{Bytes: faas.Bytes(len(lines) + len(good) + 100)} },
		"no room for files": func(d *deploy.Config) { d.Unpack = artifact.Limits{Entries: 2} },
		"too little time": func(d *deploy.Config) {
			d.Build = deploy.BuildLimits{Memory: faas.GiB, CPU: 1000, PIDs: 16, Timeout: time.Microsecond}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := pythonShop(t, adjust)
			out, err := s.Deploy(t.Context(), request("f.py", good+lines), nil)
			if err != nil {
				t.Fatal(err)
			}
			if files := s.tree(t, out.Revision); len(files) != 1 || files["f.py"] != good+lines {
				t.Errorf("the code is %q, want the one file", slices.Sorted(maps.Keys(files)))
			}
		})
	}
}

func TestSmallAdHocCodeIsNotCompiledAhead(t *testing.T) {
	s, _ := pythonShop(t, nil)
	for _, c := range []struct {
		code string
		want int
	}{{good, 0}, {good + strings.Repeat("x = [1, 2, 3]\n", 6000), 1}} {
		rev, err := s.Stage(t.Context(), request("f.py", c.code))
		if err != nil {
			t.Fatal(err)
		}
		if got := bytecodeIn(s.tree(t, rev)); len(got) != c.want {
			t.Errorf("of %d bytes there is the bytecode %q, want %d", len(c.code), got, c.want)
		}
	}
}

// TestCompiledCodeIsImportedFaster imports a part of Python's own library, some 20,000 lines, from a
// deployed tree and from the same without its bytecode, turn by turn.
func TestCompiledCodeIsImportedFaster(t *testing.T) {
	s, python := pythonShop(t, nil)
	out, err := exec.Command(python.Program, "-I", "-S", "-c", "import os; print(os.path.dirname(os.__file__))").Output()
	if err != nil {
		t.Fatal(err)
	}
	library := strings.TrimSpace(string(out))
	sent, imports, lines := map[string]string{}, []string{}, 0
	for _, name := range []string{"_pydecimal", "argparse", "tarfile", "doctest", "inspect", "pickletools", "typing", "mailbox", "ipaddress", "subprocess"} {
		b, err := os.ReadFile(filepath.Join(library, name+".py"))
		if err != nil {
			continue // not in every version
		}
		imports = append(imports, "copy_"+name)
		sent["copy_"+name+".py"] = string(b)
		lines += bytes.Count(b, []byte("\n"))
	}
	sent["main.py"] = "import " + strings.Join(imports, ", ") + "\n" + good
	o, err := s.Deploy(t.Context(), request("code.zip", zipOf(t, sent)), nil)
	if err != nil {
		t.Fatal(err)
	}
	plain := t.TempDir()
	for name, content := range sent {
		if err := os.WriteFile(filepath.Join(plain, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	compiled, release, err := s.depot.Tree(t.Context(), o.Revision.Code)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	const script = "import sys, time\nfor m in sys.argv[2].split(', '): __import__(m[5:])\nsys.path.insert(0, sys.argv[1])\nbegin = time.perf_counter()\nimport main\nprint(time.perf_counter() - begin)\n"
	measure := func(dir string) (seconds float64) {
		out, err := exec.Command(python.Program, "-I", "-S", "-B", "-c", script, dir, strings.Join(imports, ", ")).CombinedOutput()
		if _, scan := fmt.Sscan(string(out), &seconds); err != nil || scan != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return seconds
	}
	fast, slow := measure(compiled), measure(plain)
	for range 2 {
		fast, slow = min(fast, measure(compiled)), min(slow, measure(plain))
	}
	t.Logf("%d lines: %.1f ms compiled, %.1f ms not, %.1f times", lines, fast*1000, slow*1000, slow/fast)
	if slow < 3*fast {
		t.Errorf("%d lines are imported in %.1f ms with bytecode and %.1f ms without, want a third or less", lines, fast*1000, slow*1000)
	}
}
