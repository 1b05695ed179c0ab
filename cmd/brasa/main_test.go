package main

import (
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func TestEveryCommandExplainsItself(t *testing.T) {
	walk(newRoot(newApp(nil)), func(c *cobra.Command) {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short help %q; want a phrase without a full stop", c.CommandPath(), c.Short)
		}
		if c.HasParent() && !c.HasSubCommands() && c.Example == "" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for line := range strings.Lines(c.Example) {
			if line != "\n" && (!strings.HasPrefix(line, "  ") || !strings.Contains(line, "brasa ")) {
				t.Errorf("%s: example %q is not indented or runs no brasa", c.CommandPath(), line)
			}
		}
	})
}

// A key or a secret in a flag shows in ps and in the shell's history.
func TestNoFlagTakesASecret(t *testing.T) {
	walk(newRoot(newApp(nil)), func(c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			for _, word := range []string{"key", "value", "password", "token"} {
				if f.Name == word {
					t.Errorf("%s takes --%s", c.CommandPath(), f.Name)
				}
			}
		})
	})
}

func TestFlagsHaveOneEnvironmentVariableEach(t *testing.T) {
	seen := map[string]string{}
	root := newRoot(newApp(nil))
	walk(root, func(c *cobra.Command) {
		c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			name := envOf(c, f)
			if name == "" || f.Name == "help" || f.Name == "listen" || f.Name == "config" {
				return // listen and config mean the same wherever they stand
			}
			if other, ok := seen[name]; ok {
				t.Errorf("%s is --%s of %s and of %s", name, f.Name, c.CommandPath(), other)
			}
			seen[name] = c.CommandPath()
		})
	})
	if f := root.PersistentFlags().Lookup("key-file"); envOf(root, f) != "BRASA_KEY_FILE" {
		t.Errorf("--key-file is %s", envOf(root, f))
	}
}

func TestEveryErrorCodeHasItsPage(t *testing.T) {
	pages := map[string]int{}
	for _, p := range topics {
		pages[p.code] = p.exit
	}
	for code := faas.OK + 1; !strings.HasPrefix(code.String(), "code("); code++ {
		if exit, ok := pages[code.String()]; !ok || exit != cli.ExitOf(code) {
			t.Errorf("brasa help %s: there %v, exit code %d; want %d", code, ok, exit, cli.ExitOf(code))
		}
	}
}

func TestTheAdminKeyStaysOnThisMachine(t *testing.T) {
	dir := t.TempDir()
	key := "brasa_0123456789ab_" + strings.Repeat("0123456789abcdef", 4)
	if err := os.WriteFile(adminKey(dir), []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("BRASA_KEY", "")
	a := newApp(nil)
	a.data = dir
	for server, want := range map[string]string{
		"http://127.0.0.1:8080": key, "http://localhost:1": key, "http://[::1]:8080": key,
		"https://example.com": "", "http://10.0.0.1:8080": "", "http://127.0.0.1.example.com": "",
	} {
		u, err := url.Parse(server)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := a.key(u); err != nil || got != want {
			t.Errorf("key for %s: got %q, %v; want %q", server, got, err, want)
		}
	}
	t.Setenv("BRASA_KEY", "mine")
	if got, _ := a.key(&url.URL{Host: "example.com"}); got != "mine" {
		t.Errorf("with BRASA_KEY: got %q", got)
	}
	t.Setenv("BRASA_KEY", "")
	if err := os.Chmod(adminKey(dir), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := a.key(&url.URL{Host: "localhost"}); faas.CodeOf(err) != faas.Denied {
		t.Errorf("a key that others can read: got %v, want denied", err)
	}
}

func TestSplitCommand(t *testing.T) {
	for in, want := range map[string][]string{
		"":                             nil,
		"./server --quiet":             {"./server", "--quiet"},
		`sh -c 'echo "a b"'`:           {"sh", "-c", `echo "a b"`},
		`a "b \"c\" d" e\ f ''`:        {"a", `b "c" d`, "e f", ""},
		`["python3", "app.py", "a b"]`: {"python3", "app.py", "a b"},
	} {
		if got, err := splitCommand(in); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: got %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{`"open`, `back\`, `[1]`} {
		if got, err := splitCommand(in); err == nil {
			t.Errorf("%q: got %q, want an error", in, got)
		}
	}
}

func TestParseCPU(t *testing.T) {
	for in, want := range map[string]int{"": 0, "1": 1000, "0.5": 500, "250m": 250, "2.5": 2500} {
		if got, err := parseCPU(in); err != nil || got != want {
			t.Errorf("%q: got %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"0", "-1", "x", "NaN", "1e99", "Inf"} {
		if got, err := parseCPU(in); err == nil {
			t.Errorf("%q: got %d, want an error", in, got)
		}
	}
}

func TestEnvironmentOfFilesAndFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "env")
	text := "# comment\nexport A=1\n\nB = \"two words\" \nC='$HOME'\nD=x=y\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("FROM_SHELL", "shell")
	flags := specFlags{envFiles: []string{file}, env: []string{"A=flag", "FROM_SHELL", "EMPTY="}}
	got, err := flags.environment()
	want := map[string]string{"A": "flag", "B": "two words", "C": "$HOME", "D": "x=y", "FROM_SHELL": "shell", "EMPTY": ""}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	for _, bad := range []specFlags{{env: []string{"=x"}}, {env: []string{"NOT_IN_THIS_SHELL"}}, {envFiles: []string{"/no/such/file"}}} {
		if got, err := bad.environment(); err == nil {
			t.Errorf("%+v: got %q, want an error", bad, got)
		}
	}
}

func TestWhen(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]string{
		"10m": "2026-11-23T11:50:00Z", "2d": "2026-11-21T12:00:00Z", "0.5d": "2026-11-23T00:00:00Z",
		"2026-11-01": "2026-11-01T00:00:00Z", "2026-11-01 10:30": "2026-11-01T10:30:00Z", "09:15": "2026-11-23T09:15:00Z",
		"2026-11-23T01:02:03+01:00": "2026-11-23T00:02:03Z",
	} {
		got, err := when("since", in, now)
		if err != nil || got.UTC().Format(time.RFC3339) != want {
			t.Errorf("%q: got %v, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"yesterday", "-5m", "5", "25:00"} {
		if got, err := when("since", in, now); err == nil {
			t.Errorf("%q: got %v, want an error", in, got)
		}
	}
}

func TestAFunctionsNameComesFromItsFile(t *testing.T) {
	for in, want := range map[string]string{
		"hello.py": "hello", "my function.js": "my-function", "shop.tar.gz": "shop", "a.b.zip": "a-b", "größe.py": "gr--e", ".hidden": "hidden", "-x-.sh": "x",
	} {
		if got := legalName(stem(in)); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
	dir := filepath.Join(t.TempDir(), "pay")
	write(t, dir, "main.py", "shop.py")
	for file, want := range map[string]string{"main.py": "pay", "shop.py": "shop", ".": "pay"} {
		src, err := openSource(filepath.Join(dir, file), "")
		if err != nil {
			t.Fatal(err)
		}
		src.close()
		if src.name != want {
			t.Errorf("%s: got %q, want %q", file, src.name, want)
		}
	}
}

func write(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatDevTakesForFunctions(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "hello.py", "test_hello.py", "notes.md", ".secret.py", "pay/index.js", "pay/input.json",
		"lib/helper.py", "node_modules/x/index.js", "venv/main.py", "sum.go", "sum_test.go",
		"shout.ts", "shout.d.ts", "greet.rb", "greet_spec.rb", "page.php", "crate/Cargo.toml", "crate/src/main.rs", "crate/target/main.rs",
		"net/Net.csproj", "net/Program.cs", "net/obj/main")
	tree, err := newTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	var got []string
	for _, f := range tree.functions() {
		got = append(got, f.name+" "+strings.TrimPrefix(f.path, dir+"/")+" "+strings.TrimPrefix(f.input, dir+"/"))
	}
	want := []string{"crate crate ", "greet greet.rb ", "hello hello.py ", "net net ", "page page.php ", "pay pay pay/input.json", "shout shout.ts ", "sum sum.go "}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, p := range tree.watcher.WatchList() {
		if base := filepath.Base(p); base == "target" || base == "obj" || base == "node_modules" {
			t.Errorf("%s is watched, which builds fill", p)
		}
	}
	write(t, dir, "main.py")
	if all := tree.functions(); len(all) != 1 || all[0].path != dir {
		t.Errorf("with a main.py: got %+v, want the directory alone", all)
	}
}

func TestWatchReportsASaveAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "hello.py", "pay/index.js", "notes.md")
	tree, err := newTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	changed, gone := make(chan []candidate, 10), make(chan candidate, 10)
	done := make(chan error, 1)
	go func() {
		done <- tree.watch(t.Context(), func(c []candidate) { changed <- c }, func(c candidate) { gone <- c })
	}()
	defer func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	defer tree.Close()
	next := func(want ...string) {
		t.Helper()
		select {
		case list := <-changed:
			var got []string
			for _, c := range list {
				got = append(got, c.name)
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("reported %q, want %q", got, want)
			}
		case <-t.Context().Done():
		}
	}
	next("hello", "pay") // what there is at the start
	write(t, dir, "notes.md")
	write(t, dir, "hello.py")
	next("hello")
	// As editors save: a new file takes the old one's place.
	write(t, dir, "pay/.index.js.swp")
	if err := os.Rename(filepath.Join(dir, "pay/.index.js.swp"), filepath.Join(dir, "pay/index.js")); err != nil {
		t.Fatal(err)
	}
	next("pay")
	write(t, dir, "later/main.py")
	next("later")
	write(t, dir, "later/lib/a.py")
	next("later")
	if err := os.Remove(filepath.Join(dir, "hello.py")); err != nil {
		t.Fatal(err)
	}
	if c := <-gone; c.name != "hello" {
		t.Errorf("gone: %+v, want hello", c)
	}
}

// brasa dev alone watches ".", where names of files come with ./ in front and those of functions without.
func TestWatchReportsASaveInTheCurrentDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, ".", "hello.py", "pay/index.js")
	tree, err := newTree(".")
	if err != nil {
		t.Fatal(err)
	}
	changed, done := make(chan []candidate, 10), make(chan error, 1)
	go func() {
		done <- tree.watch(t.Context(), func(c []candidate) { changed <- c }, func(candidate) {})
	}()
	<-changed // what there is at the start
	for _, f := range []string{"hello.py", "pay/index.js"} {
		write(t, ".", f)
		select {
		case list := <-changed:
			if len(list) != 1 || list[0].path != strings.TrimSuffix(f, "/index.js") {
				t.Errorf("%s was saved; reported %+v", f, list)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s was saved; nothing was reported", f)
		}
	}
	tree.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestLocateNamesFileAndLineHere(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "pay/main.py", "pay/lib/index.js", "one.py")
	pay, one := candidate{name: "pay", path: filepath.Join(dir, "pay")}, candidate{name: "one", path: filepath.Join(dir, "one.py")}
	for _, c := range []struct {
		text string
		f    candidate
		want string
	}{
		{"Traceback (most recent call last):\n  File \"/code/main.py\", line 3, in main\n  File \"/code/main.py\", line 9, in helper\nKeyError: 'x'", pay, dir + "/pay/main.py:9"},
		{"File \"/usr/lib/python3/json.py\", line 1", pay, ""},
		{"TypeError: x\n    at f (/code/node_modules/y/a.js:1:2)\n    at main (/code/lib/index.js:12:7)\n    at node:internal/x.js:4", pay, dir + "/pay/lib/index.js:12"},
		{"./main.go:7:2: undefined: x", pay, "main.go:7"},
		{"index.ts:1:42: Expected identifier but found \"}\"", pay, "index.ts:1"},
		{"main.rb:3: syntax error, unexpected end-of-input", pay, "main.rb:3"},
		{"File \"/code/one.py\", line 2", one, dir + "/one.py:2"},
		{"no place at all", one, ""},
	} {
		if got := locate(c.text, c.f); got != c.want {
			t.Errorf("%q: got %q, want %q", c.text, got, c.want)
		}
	}
	if got, want := localPaths("in /code/main.py: /code/none.py", pay), "in "+dir+"/pay/main.py: none.py"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTemplatesAreFewFilesAndNeverOverwrite(t *testing.T) {
	t.Chdir(t.TempDir())
	a, _ := forTerminal(true)
	for _, language := range templateNames {
		name := "f-" + language
		if err := a.init(name, language); err != nil {
			t.Fatal(err)
		}
		want := 2
		switch language {
		case "http", "wasm":
			want = 3 // what it is to be cannot be seen in its source, so brasa.json says it
		case "typescript", "rust":
			want = 3 // its own tools don't do without tsconfig.json or Cargo.toml
		}
		entries, err := os.ReadDir(name)
		if err != nil || len(entries) != want {
			t.Errorf("%s: %d files, %v; want %d", language, len(entries), err, want)
		}
		if !slices.ContainsFunc(entries, func(d fs.DirEntry) bool { return d.Name() == "input.json" }) || !isFunction(entries) {
			t.Errorf("%s: %v; want an entry that dev knows and an input", language, entries)
		}
		if err := a.init(name, language); faas.CodeOf(err) != faas.Conflict {
			t.Errorf("%s again: got %v, want a conflict", language, err)
		}
	}
	if err := a.init("../x/..", "python"); err == nil {
		t.Error(`the name ".." was taken`)
	}
}
