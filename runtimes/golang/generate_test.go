package golang

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
)

func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestGenerateFindsTheHandler(t *testing.T) {
	for name, c := range map[string]struct {
		files   map[string]string
		options Options
		form    Form
		handler string
		pkg     string
		main    string // where the generated main lies; empty: none
		arg     string // that the command has
	}{
		"main form":          {map[string]string{"f.go": "package main\nfunc Main(args map[string]any) map[string]any { return args }"}, Options{}, FormValue, "Main", ".", "brasa_generated_main.go", "./."},
		"event form":         {map[string]string{"f.go": "package f\nimport c \"context\"\nfunc Handle(ctx c.Context, e struct{}) (int, error) { return 0, nil }"}, Options{}, FormValue, "Handle", ".", "internal/brasamain/brasa_generated_main.go", "./internal/brasamain"},
		"nothing at all":     {map[string]string{"f.go": "package f\nfunc Handle() {}"}, Options{}, FormValue, "Handle", ".", "internal/brasamain/brasa_generated_main.go", ""},
		"http form":          {map[string]string{"f.go": "package f\nimport . \"fmt\"\nimport \"net/http\"\nvar _ = Sprint\nfunc Handle(w http.ResponseWriter, r *http.Request) {}"}, Options{}, FormHTTP, "Handle", ".", "internal/brasamain/brasa_generated_main.go", ""},
		"http, renamed":      {map[string]string{"f.go": "package f\nimport h \"net/http\"\nfunc Handler(w h.ResponseWriter, r *h.Request) {}"}, Options{}, FormHTTP, "Handler", ".", "internal/brasamain/brasa_generated_main.go", ""},
		"program":            {map[string]string{"f.go": "package main\nfunc main() {}\nfunc Handle() {}"}, Options{}, FormProgram, "", ".", "", "./."},
		"named":              {map[string]string{"f.go": "package f\nfunc Handle() {}\nfunc Work() {}"}, Options{Handler: "Work"}, FormValue, "Work", ".", "internal/brasamain/brasa_generated_main.go", ""},
		"named with package": {map[string]string{"f.go": "package f\nfunc Work() {}"}, Options{Handler: "f.Work"}, FormValue, "Work", ".", "internal/brasamain/brasa_generated_main.go", ""},
		"in a directory":     {map[string]string{"go.mod": "module x.y/z\n", "lib/l.go": "package lib\nfunc Help() {}", "fn/f.go": "package fn\nfunc Handle() {}"}, Options{}, FormValue, "Handle", "fn", "internal/brasamain/brasa_generated_main.go", ""},
		"entry":              {map[string]string{"go.mod": "module x.y/z\n", "a/f.go": "package a\nfunc Handle() {}", "b/f.go": "package main\nfunc Handle() {}"}, Options{Entry: "b/f.go"}, FormValue, "Handle", "b", "b/brasa_generated_main.go", "./b"},
		"tests and tags":     {map[string]string{"f.go": "package f\nfunc Handle() {}", "f_test.go": "package f_test\nsyntax error", "f_windows.go": "package other", "g.go": "//go:build ignore\n\npackage main\nfunc main() {}"}, Options{}, FormValue, "Handle", ".", "internal/brasamain/brasa_generated_main.go", ""},
		"vendored":           {map[string]string{"go.mod": "module z\nrequire a.b/c v1.0.0\n", "f.go": "package f\nfunc Handle() {}", "vendor/modules.txt": "", "vendor/a.b/c/c.go": "package c"}, Options{}, FormValue, "Handle", ".", "internal/brasamain/brasa_generated_main.go", "-mod=vendor"},
	} {
		t.Run(name, func(t *testing.T) {
			dst := t.TempDir()
			c.options.Output = "/out/x"
			b, err := Generate(tree(t, c.files), dst, c.options)
			if err != nil {
				t.Fatal(err)
			}
			if b.Form != c.form || b.Handler != c.handler || b.Package != c.pkg || b.Modules {
				t.Errorf("build = %+v", b)
			}
			if c.arg != "" && !slices.Contains(b.Args, c.arg) {
				t.Errorf("command %q lacks %q", b.Args, c.arg)
			}
			if c.main != "" {
				if _, err := os.Stat(filepath.Join(dst, c.main)); err != nil {
					t.Error(err)
				}
			}
			_, err = os.Stat(filepath.Join(dst, bootDir, "http.go"))
			if (err == nil) != (c.form == FormHTTP) {
				t.Errorf("net/http's part of the bootstrap: %v", err)
			}
			if _, err := os.Stat(filepath.Join(dst, "go.mod")); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestGenerateSaysWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		files   map[string]string
		options Options
		words   []string
	}{
		"no file":           {map[string]string{"readme": ""}, Options{}, []string{"no Go file"}},
		"no handler":        {map[string]string{"f.go": "package f\nfunc Other() {}"}, Options{}, []string{"func Handle, func Main, func Handler", "it has Other"}},
		"absent":            {map[string]string{"f.go": "package f\nfunc Handle() {}"}, Options{Handler: "Absent"}, []string{"func Absent", "it has Handle"}},
		"syntax":            {map[string]string{"lib/f.go": "package f\n\nfunc Handle() {\n\treturn (\n}\n"}, Options{}, []string{"lib/f.go:5:"}},
		"three arguments":   {map[string]string{"f.go": "package f\nfunc Handle(a, b, c int) {}"}, Options{}, []string{"f.go:2", "takes 3 arguments"}},
		"no context":        {map[string]string{"f.go": "package f\nfunc Handle(a, b int) {}"}, Options{}, []string{"must be a context.Context"}},
		"three results":     {map[string]string{"f.go": "package f\nfunc Handle() (a, b int, err error) { return }"}, Options{}, []string{"returns 3 values"}},
		"second no error":   {map[string]string{"f.go": "package f\nfunc Handle() (a, b int) { return }"}, Options{}, []string{"must be an error"}},
		"http with result":  {map[string]string{"f.go": "package f\nimport \"net/http\"\nfunc Handle(w http.ResponseWriter, r *http.Request) error { return nil }"}, Options{}, []string{"must return nothing"}},
		"generic":           {map[string]string{"f.go": "package f\nfunc Handle[T any](t T) {}"}, Options{}, []string{"type parameters"}},
		"variadic":          {map[string]string{"f.go": "package f\nfunc Handle(t ...int) {}"}, Options{}, []string{"variadic"}},
		"two packages":      {map[string]string{"a.go": "package a", "b.go": "package b"}, Options{}, []string{"package b", "package a"}},
		"several":           {map[string]string{"a/f.go": "package a\nfunc Handle() {}", "b/f.go": "package b\nfunc Handle() {}"}, Options{}, []string{"a, b"}},
		"method only":       {map[string]string{"f.go": "package f\ntype T int\nfunc (T) Handle() {}"}, Options{}, []string{"no handler"}},
		"entry outside":     {map[string]string{"f.go": "package f\nfunc Handle() {}"}, Options{Entry: "../x"}, []string{"not a path"}},
		"entry absent":      {map[string]string{"f.go": "package f\nfunc Handle() {}"}, Options{Entry: "x"}, []string{"no directory x"}},
		"small letter":      {map[string]string{"f.go": "package f\nfunc work() {}"}, Options{Handler: "work"}, []string{"capital letter"}},
		"handler beside it": {map[string]string{"f.go": "package main\nfunc main() {}\nfunc Work() {}"}, Options{Handler: "Work"}, []string{"its own func main"}},
		"no module line":    {map[string]string{"go.mod": "go 1.22\n", "f.go": "package f\nfunc Handle() {}"}, Options{}, []string{"no module line"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Generate(tree(t, c.files), t.TempDir(), c.options)
			if faas.CodeOf(err) != faas.Invalid {
				t.Fatalf("err = %v, want Invalid", err)
			}
			for _, w := range c.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("err = %q, want %q", err, w)
				}
			}
		})
	}
}

// The source is a stranger's: neither what is read nor what is written may follow its links out.
func TestGenerateFollowsNoLinkOut(t *testing.T) {
	outside := tree(t, map[string]string{"secret": "package function // topsecret\n", "dir/keep": ""})
	for name, target := range map[string]string{
		"x.go": "secret", "go.mod": "new", "brasa_generated_main.go": "secret", "internal": "dir", "vendor": "dir", "internal/brasamain": "dir",
	} {
		src := tree(t, map[string]string{"f.go": "package main\nfunc Handle() {}\n"})
		link := filepath.Join(src, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(outside, target), link); err != nil {
			t.Fatal(err)
		}
		if _, err := Generate(src, t.TempDir(), Options{Output: "/out/x"}); err != nil && strings.Contains(err.Error(), "topsecret") {
			t.Errorf("%s: %v", name, err)
		}
		for file, want := range map[string]string{"secret": "package function // topsecret\n", "dir/keep": ""} {
			if got, err := os.ReadFile(filepath.Join(outside, file)); err != nil || string(got) != want {
				t.Errorf("%s: %s is %q, %v", name, file, got, err)
			}
		}
		for dir, want := range map[string]int{".": 2, "dir": 1} {
			if got, err := os.ReadDir(filepath.Join(outside, dir)); err != nil || len(got) != want {
				t.Errorf("%s: %s has %v, %v", name, dir, got, err)
			}
		}
	}
}

func TestGenerateBoundsWhatItParses(t *testing.T) {
	src := tree(t, map[string]string{"f.go": "package f\nfunc Handle() {}\nvar _ = []int{" + strings.Repeat("1,", maxSource/2) + "}\n"})
	if _, err := Generate(src, t.TempDir(), Options{}); faas.CodeOf(err) != faas.TooLarge {
		t.Errorf("err = %v, want TooLarge", err)
	}
}
