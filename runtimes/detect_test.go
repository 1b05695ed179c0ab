package runtimes

import (
	"encoding/binary"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/brasa-dev/brasa/internal/faas"
)

// testRegistry has every language, whatever this host has.
func testRegistry() *Registry {
	r := &Registry{found: map[string]*Runtime{}, missing: map[string]string{}, programs: map[string]string{"sh": "/usr/bin/sh", "python3": "/usr/bin/python3", "node": "/usr/bin/node"}}
	for _, n := range names {
		r.found[n.name] = &Runtime{Name: n.name, Version: "1", Style: styleOf(n.name), others: r.programs}
		r.found[n.name].Compiler = "/usr/bin/" + n.name
	}
	return r
}

func files(m map[string]string) fstest.MapFS {
	tree := fstest.MapFS{}
	for name, content := range m {
		tree[name] = &fstest.MapFile{Data: []byte(content), Mode: 0o644}
	}
	return tree
}

// program returns the head of an ELF file for a machine.
func program(machine uint16) string {
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	binary.LittleEndian.PutUint16(b[16:], 2) // ET_EXEC
	binary.LittleEndian.PutUint16(b[18:], machine)
	binary.LittleEndian.PutUint32(b[20:], 1)
	binary.LittleEndian.PutUint16(b[52:], 64)
	return string(b)
}

var here = map[string]uint16{"amd64": 62, "arm64": 183}[runtime.GOARCH]

func TestPlan(t *testing.T) {
	for name, c := range map[string]struct {
		files   map[string]string
		hints   Hints
		runtime string
		entry   string
		command string
		why     string
	}{
		"python file":          {map[string]string{"hello.py": ""}, Hints{}, Python, "hello.py", "", "by its extension"},
		"net program":          {map[string]string{"app.csproj": `<Project Sdk="Microsoft.NET.Sdk"/>`, "Program.cs": ""}, Hints{}, Executable, "app.csproj", "", "app.csproj says"},
		"net server":           {map[string]string{"app.csproj": `<Project Sdk="Microsoft.NET.Sdk.Web"/>`, "Program.cs": ""}, Hints{}, HTTPServer, "app.csproj", "", "app.csproj says"},
		"net lines":            {map[string]string{"app.csproj": `<Project Sdk="Microsoft.NET.Sdk"/>`}, Hints{Language: "lines"}, JSONLines, "app.csproj", "", ""},
		"net by its entry":     {map[string]string{"a/app.csproj": `<Project Sdk="Microsoft.NET.Sdk"/>`}, Hints{Entry: "a/app.csproj"}, Executable, "a/app.csproj", "", ""},
		"ruby file":            {map[string]string{"hello.rb": ""}, Hints{}, Ruby, "hello.rb", "", "by its extension"},
		"ruby gems":            {map[string]string{"Gemfile": "", "Gemfile.lock": "", "work.rb": ""}, Hints{}, Ruby, "work.rb", "", "Gemfile says"},
		"ruby application":     {map[string]string{"Gemfile": "", "config.ru": "", "app.rb": ""}, Hints{}, Ruby, "config.ru", "", "Gemfile says"},
		"php file":             {map[string]string{"hello.php": ""}, Hints{}, PHP, "hello.php", "", "by its extension"},
		"php packages":         {map[string]string{"composer.json": "{}", "index.php": "", "other.php": ""}, Hints{}, PHP, "index.php", "", "composer.json says"},
		"php by its language":  {map[string]string{"a.php": "", "main.py": ""}, Hints{Language: "php"}, PHP, "a.php", "", ""},
		"python tree":          {map[string]string{"main.py": "", "lib.py": ""}, Hints{}, Python, "main.py", "", "main.py is Python"},
		"python requirements":  {map[string]string{"app.py": "", "requirements.txt": "", "README": ""}, Hints{}, Python, "app.py", "", "requirements.txt"},
		"python odd":           {map[string]string{"odd.py": "", "pyproject.toml": ""}, Hints{}, Python, "odd.py", "", "pyproject.toml"},
		"node file":            {map[string]string{"hello.mjs": ""}, Hints{}, Node, "hello.mjs", "", ""},
		"node main":            {map[string]string{"package.json": `{"main":"./lib/x"}`, "lib/x.js": "", "index.js": ""}, Hints{}, Node, "lib/x.js", "", "package.json"},
		"node exports":         {map[string]string{"package.json": `{"exports":{".":{"import":"./m.mjs","require":"./m.cjs"}}}`, "m.mjs": ""}, Hints{}, Node, "m.mjs", "", ""},
		"node index":           {map[string]string{"package.json": `{}`, "index.js": "", "other.js": ""}, Hints{}, Node, "index.js", "", ""},
		"go file":              {map[string]string{"f.go": ""}, Hints{}, Go, "", "", ""},
		"go module":            {map[string]string{"go.mod": "", "cmd/x/main.go": ""}, Hints{}, Go, "", "", "go.mod"},
		"go server":            {map[string]string{"go.mod": ""}, Hints{Language: "http"}, HTTPServer, "", "", ""},
		"crate":                {map[string]string{"Cargo.toml": "", "src/main.rs": ""}, Hints{}, Rust, "", "", "Cargo.toml"},
		"crate as server":      {map[string]string{"Cargo.toml": "", "src/main.rs": ""}, Hints{Language: "http"}, HTTPServer, "", "", ""},
		"crate as module":      {map[string]string{"Cargo.toml": "", "src/main.rs": ""}, Hints{Language: "wasm"}, Wasm, "", "", ""},
		"crate below":          {map[string]string{"api/Cargo.toml": "", "x.txt": ""}, Hints{Entry: "api"}, Rust, "api", "", "Cargo.toml"},
		"rust file":            {map[string]string{"hello.rs": ""}, Hints{}, Rust, "hello.rs", "", "by its extension"},
		"rust main":            {map[string]string{"main.rs": "", "lib.rs": ""}, Hints{Language: "lines"}, JSONLines, "main.rs", "", ""},
		"rust program":         {map[string]string{"Cargo.toml": "", "src/bin/a.rs": ""}, Hints{Entry: "src/bin/a.rs"}, Rust, "src/bin/a.rs", "", ""},
		"script":               {map[string]string{"run": "#!/usr/bin/env -S sh -e\n"}, Hints{}, Executable, "run", "/usr/bin/sh /code/run", "first line"},
		"shell by extension":   {map[string]string{"x.sh": "echo"}, Hints{}, Executable, "x.sh", "/usr/bin/sh /code/x.sh", ""},
		"program":              {map[string]string{"f": program(here)}, Hints{}, Executable, "f", "", "program"},
		"program of several":   {map[string]string{"f": program(here), "main": program(here)}, Hints{}, Executable, "main", "", ""},
		"language":             {map[string]string{"main.py": "", "index.js": ""}, Hints{Language: "nodejs"}, Node, "index.js", "", ""},
		"lines in python":      {map[string]string{"main.py": ""}, Hints{Language: "lines"}, JSONLines, "main.py", "/usr/bin/python3 /code/main.py", ""},
		"entry":                {map[string]string{"a.py": "", "b.py": ""}, Hints{Entry: "./b.py"}, Python, "b.py", "", ""},
		"command":              {map[string]string{"x": ""}, Hints{Language: "http", Command: []string{"node", "x"}}, HTTPServer, "", "node x", ""},
		"command alone":        {map[string]string{"x": ""}, Hints{Command: []string{"./x"}}, Executable, "", "./x", ""},
		"manifest":             {map[string]string{"brasa.json": `{"language":"python","entry":"b.py","handler":"go","limits":{"memory_bytes":67108864}}`, "a.py": "", "b.py": ""}, Hints{}, Python, "b.py", "", ""},
		"flag over manifest":   {map[string]string{"brasa.json": `{"entry":"b.py"}`, "a.py": "", "b.py": ""}, Hints{Entry: "a.py"}, Python, "a.py", "", ""},
		"Dockerfile beside it": {map[string]string{"Dockerfile": "", "main.py": ""}, Hints{}, Python, "main.py", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := testRegistry().Plan(files(c.files), c.hints)
			if err != nil {
				t.Fatal(err)
			}
			if p.Runtime != c.runtime || p.Entry != c.entry || strings.Join(p.Command, " ") != c.command || !strings.Contains(p.Why, c.why) {
				t.Errorf("plan = %+v", p)
			}
		})
	}
}

func TestPlanSaysWhatIsUnclear(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		hints Hints
		words []string // of message and fix
	}{
		"two languages":      {map[string]string{"main.py": "", "index.js": ""}, Hints{}, []string{"main.py (python)", "index.js (node)", "--language"}},
		"two files":          {map[string]string{"a.py": "", "b.py": ""}, Hints{}, []string{"a.py", "b.py", "--entry a.py"}},
		"nothing":            {map[string]string{"README.md": ""}, Hints{}, []string{"README.md", "--language"}},
		"empty":              {map[string]string{}, Hints{}, []string{"no file"}},
		"Dockerfile":         {map[string]string{"Dockerfile": "FROM x"}, Hints{}, []string{"images are not built here", "docker build"}},
		"other architecture": {map[string]string{"f": program(243)}, Hints{}, []string{"RISCV", runtime.GOARCH}},
		"damaged program":    {map[string]string{"f": "\x7fELF"}, Hints{}, []string{"damaged"}},
		"program of Windows": {map[string]string{"f.exe": "MZ"}, Hints{Language: "exec", Entry: "f.exe"}, []string{"another system"}},
		"Windows lines":      {map[string]string{"f": "#!/bin/sh\r\n"}, Hints{}, []string{"line ends of Windows"}},
		"no such shell":      {map[string]string{"f": "#!/usr/bin/fish\n"}, Hints{}, []string{`"fish"`}},
		"no entry":           {map[string]string{"f.py": ""}, Hints{Entry: "g.py"}, []string{"g.py"}},
		"entry outside":      {map[string]string{"f.py": ""}, Hints{Entry: "../f.py"}, []string{"../f.py"}},
		"unknown language":   {map[string]string{"f.py": ""}, Hints{Language: "cobol"}, []string{"cobol", "python, node, go"}},
		"bad manifest":       {map[string]string{"brasa.json": `{"langage":"python"}`}, Hints{}, []string{"langage"}},
		"bad network":        {map[string]string{"brasa.json": `{"network":"all"}`}, Hints{}, []string{"all"}},
		"reserved variable":  {map[string]string{"brasa.json": `{"env":{"LD_PRELOAD":"x"}}`}, Hints{}, []string{"LD_PRELOAD"}},
		"package's main":     {map[string]string{"package.json": `{"main":"dist/x.js"}`, "index.js": ""}, Hints{}, []string{"dist/x.js", "--entry"}},
		"bad package":        {map[string]string{"package.json": `{`}, Hints{}, []string{"package.json"}},
		"wrong language":     {map[string]string{"main.py": ""}, Hints{Language: "node"}, []string{"node function", "main.py"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := testRegistry().Plan(files(c.files), c.hints)
			if faas.CodeOf(err) != faas.Invalid {
				t.Fatalf("err = %v, want Invalid", err)
			}
			text := err.Error() + " " + faas.AsError(err).Fix
			for _, w := range c.words {
				if !strings.Contains(text, w) {
					t.Errorf("err = %q, want %q", text, w)
				}
			}
		})
	}
}

func TestPlanNamesMissingDependencies(t *testing.T) {
	p, err := testRegistry().Plan(files(map[string]string{"main.py": "", "requirements.txt": "# all\nrequests\n"}), Hints{})
	if err != nil || p.Lacks != "requirements.txt" {
		t.Errorf("python lacks %q, %v", p.Lacks, err)
	}
	p, err = testRegistry().Plan(files(map[string]string{"main.py": "", "requirements.txt": "requests\n", "vendor/x.py": ""}), Hints{})
	if err != nil || p.Lacks != "" {
		t.Errorf("python with vendor lacks %q, %v", p.Lacks, err)
	}
	p, err = testRegistry().Plan(files(map[string]string{"index.js": "", "package.json": `{"dependencies":{"x":"1"}}`}), Hints{})
	if err != nil || p.Lacks != "package.json" {
		t.Errorf("node lacks %q, %v", p.Lacks, err)
	}
}

func TestLookup(t *testing.T) {
	r := testRegistry()
	delete(r.found, Node)
	r.missing[Node] = "no node anywhere"
	if rt, err := r.Lookup("Py"); err != nil || rt.Name != Python {
		t.Errorf("Py = %v, %v", rt, err)
	}
	if _, err := r.Lookup("cobol"); faas.CodeOf(err) != faas.Invalid {
		t.Errorf("cobol = %v, want Invalid", err)
	}
	if _, err := r.Lookup("node"); faas.CodeOf(err) != faas.Unavailable || !strings.Contains(err.Error(), "no node anywhere") || faas.AsError(err).Fix == "" {
		t.Errorf("node = %v, want Unavailable with a fix", err)
	}
	if n := len(r.Runtimes()); n != len(names) {
		t.Errorf("%d runtimes, want %d", n, len(names))
	}
}

// A shim that needs its user's home, as pyenv's does, is seen through.
func TestDiscoverSeesThroughShims(t *testing.T) {
	real := inUsr("python3")
	if real == "" {
		t.Skip("no python3 in /usr")
	}
	shim := t.TempDir() + "/python3"
	if err := os.WriteFile(shim, []byte("#!/bin/sh\nexec "+real+" \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	r, err := Discover(t.Context(), Config{Dir: t.TempDir(), Python: shim})
	if err != nil {
		t.Fatal(err)
	}
	rt, err := r.Lookup(Python)
	if err != nil || !strings.HasPrefix(rt.Program, "/usr/") || rt.RootDir != "" {
		t.Errorf("python = %+v, %v, want the one in /usr", rt, err)
	}
	args, env, mounts := rt.Command(nil)
	if args[0] != rt.Program || len(mounts) != 1 || mounts[0].Target != BootDir || len(env) == 0 {
		t.Errorf("command = %q %q %v", args, env, mounts)
	}
	for _, f := range []string{"bootstrap.py", "bootstrap.pyc"} {
		info, err := os.Stat(mounts[0].Source + "/" + f)
		if err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("%s: %v, %v", f, info, err)
		}
	}
}

func TestPlanSaysWhatIsBuilt(t *testing.T) {
	for name, c := range map[string]struct {
		files  map[string]string
		hints  Hints
		source string
	}{
		"go":             {map[string]string{"go.mod": ""}, Hints{}, Go},
		"go as lines":    {map[string]string{"go.mod": ""}, Hints{Language: "lines"}, Go},
		"go for wasm":    {map[string]string{"a/main.go": "", "b/main.go": ""}, Hints{Language: "wasm", Entry: "a"}, Go},
		"rust":           {map[string]string{"Cargo.toml": ""}, Hints{}, Rust},
		"rust for wasm":  {map[string]string{"main.rs": ""}, Hints{Language: "wasm", Entry: "main.rs"}, Rust},
		"rust as server": {map[string]string{"Cargo.toml": ""}, Hints{Language: "http"}, Rust},
		"python":         {map[string]string{"main.py": ""}, Hints{}, ""},
		"module":         {map[string]string{"f.wasm": "\x00asm"}, Hints{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := testRegistry().Plan(files(c.files), c.hints)
			if err != nil || p.Source != c.source || p.Build != (c.source != "") {
				t.Errorf("plan = %+v, %v; want source %q", p, err, c.source)
			}
		})
	}
	r := testRegistry()
	delete(r.found, Rust)
	if _, err := r.Plan(files(map[string]string{"Cargo.toml": ""}), Hints{Language: "http"}); faas.CodeOf(err) != faas.Unavailable {
		t.Errorf("a crate without cargo: %v", err)
	}
}

func TestTypeScriptIsFound(t *testing.T) {
	reg, err := Discover(t.Context(), Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reg.Lookup(Node); err != nil {
		t.Skip(err)
	}
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	for name, c := range map[string]struct {
		tree  fstest.MapFS
		entry string
	}{
		"one file":              {fstest.MapFS{"hello.ts": file("")}, "hello.ts"},
		"a usual name":          {fstest.MapFS{"handler.mts": file(""), "other.ts": file("")}, "handler.mts"},
		"in src":                {fstest.MapFS{"tsconfig.json": file("{}"), "src/index.ts": file("")}, "src/index.ts"},
		"what main is built of": {fstest.MapFS{"package.json": file(`{"main":"dist/app/run.js"}`), "src/app/run.ts": file("")}, "src/app/run.ts"},
		"built already":         {fstest.MapFS{"package.json": file(`{"main":"dist/run.js"}`), "src/run.ts": file(""), "dist/run.js": file("")}, "dist/run.js"},
		"JavaScript first":      {fstest.MapFS{"index.js": file(""), "index.ts": file("")}, "index.js"},
		"no declaration":        {fstest.MapFS{"hello.ts": file(""), "global.d.ts": file("")}, "hello.ts"},
	} {
		p, err := reg.Detect(c.tree, "")
		if err != nil || p.Runtime != Node || p.Entry != c.entry {
			t.Errorf("%s: %s by %s, %v; want %s", name, p.Entry, p.Runtime, err, c.entry)
		}
	}
	if p, err := reg.Detect(fstest.MapFS{"index.ts": file(""), "node_modules/a/index.js": file("")}, "typescript"); err != nil || !strings.Contains(p.Why, "node_modules is used as it is") {
		t.Errorf("with node_modules: %q, %v", p.Why, err)
	}
}

// What people deploy by mistake is told apart from what nobody can tell.
func TestWhatTheCodeIsNot(t *testing.T) {
	layer := strings.Repeat("0123456789abcdef", 4)
	for _, x := range []struct {
		name, language string
		tree           map[string]string
		want, fix      string
	}{
		{"an OCI layout", "", map[string]string{"oci-layout": "{}", "index.json": "{}"}, "this is an image", "--image"},
		{"what docker save wrote", "", map[string]string{"manifest.json": "[]", layer + ".json": "{}", layer + ".tar.gz": ""}, "this is an image", "--image"},
		{"a web application's manifest", "", map[string]string{"manifest.json": "{}", "a.txt": ""}, "cannot tell what the code is", "--language"},
		{"Python that is called Node.js", Node, map[string]string{"hello.py": "def main(args): pass"}, "cannot tell which file is the node function", "leave --language out"},
		{"a file that is called .NET", DotNet, map[string]string{"hello.py": "def main(args): pass"}, "cannot tell which file", "bring a project"},
	} {
		_, err := testRegistry().Plan(files(x.tree), Hints{Language: x.language})
		e := faas.AsError(err)
		if e == nil || e.Code != faas.Invalid || !strings.Contains(e.Message(), x.want) || !strings.Contains(e.Fix, x.fix) {
			t.Errorf("%s: got %v, fix %q; want %q and a fix with %q", x.name, err, e.Fix, x.want, x.fix)
		}
	}
}
