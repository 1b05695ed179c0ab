package install

import (
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/mod/modfile"

	"github.com/brasa-dev/brasa/internal/faas"
)

func TestGoNeeds(t *testing.T) {
	const sums = "a.example/m v1.0.0 h1:x=\na.example/m v1.0.0/go.mod h1:y=\n"
	for name, c := range map[string]struct {
		mod, sum string
		n        int
		missing  string
	}{
		"covered":         {"go 1.21\nrequire a.example/m v1.0.0\n", sums, 1, ""},
		"no sum":          {"go 1.21\nrequire a.example/m v1.0.0\n", "", 1, "a.example/m@v1.0.0"},
		"another version": {"go 1.21\nrequire a.example/m v1.0.1\n", sums, 1, "a.example/m@v1.0.1"},
		"half":            {"go 1.21\nrequire a.example/m v1.0.0\n", "a.example/m v1.0.0/go.mod h1:y=\n", 1, "a.example/m@v1.0.0"},
		"old":             {"go 1.16\nrequire a.example/m v1.0.0\n", sums, 1, "all that is required indirectly"},
		"instead":         {"go 1.21\nrequire b.example/m v1.9.0\nreplace b.example/m => a.example/m v1.0.0\n", sums, 1, ""},
		"in the code":     {"go 1.21\nrequire b.example/m v1.9.0\nreplace b.example/m => ./m\n", "", 0, ""},
		"nothing":         {"go 1.21\n", "", 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			text := "module x\n\n" + c.mod
			mod, err := modfile.Parse("go.mod", []byte(text), nil)
			if err != nil {
				t.Fatal(err)
			}
			m := &Manifest{Files: map[string][]byte{}}
			local, err := m.goReplaced(fstest.MapFS{"go.mod": {Data: []byte(text)}, "m/go.mod": {Data: []byte("module b.example/m\n")}}, mod)
			if err != nil {
				t.Fatal(err)
			}
			if n, missing := goNeeds(mod, local, c.sum); n != c.n || missing != c.missing {
				t.Errorf("needs %d, lacks %q; want %d, %q", n, missing, c.n, c.missing)
			}
		})
	}
}

func TestGoReplacementMustBeInTheCode(t *testing.T) {
	for _, dir := range []string{"../m", "./absent"} {
		mod, err := modfile.Parse("go.mod", []byte("module x\n\nrequire b.example/m v1.0.0\nreplace b.example/m => "+dir+"\n"), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = (&Manifest{Files: map[string][]byte{}}).goReplaced(fstest.MapFS{}, mod)
		if faas.CodeOf(err) != faas.Invalid || !strings.Contains(err.Error(), "b.example/m") {
			t.Errorf("replaced by %s: %v", dir, err)
		}
	}
}

// said is what a tool wrote, as it was seen to, and what is told of it.
type said struct {
	output string
	code   faas.Code
	words  []string // of the message or the fix
}

func explained(t *testing.T, x Explainer, lock string, cases map[string]said) {
	t.Helper()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			e := x.Explain(&Manifest{Lock: lock}, c.output)
			if e == nil {
				t.Fatal("it is not understood")
			}
			for _, w := range c.words {
				if !strings.Contains(e.Message()+" "+e.Fix, w) {
					t.Errorf("%q is not in %q, fix %q", w, e.Message(), e.Fix)
				}
			}
			if e.Code != c.code {
				t.Errorf("code %v; want %v", e.Code, c.code)
			}
		})
	}
	if e := x.Explain(&Manifest{}, "something else went wrong\n"); e != nil {
		t.Errorf("of what nobody knows it says %v", e)
	}
}

func TestGoExplains(t *testing.T) {
	explained(t, &goModules{}, "go.sum", map[string]said{
		"changed hash": {"verifying github.com/pkg/errors@v0.9.1: checksum mismatch\n\tdownloaded: h1:FE=\n\tgo.sum:     h1:FF=\n\nSECURITY ERROR\n", faas.Invalid, []string{"github.com/pkg/errors@v0.9.1", "go.sum", "restore"}},
		"no version":   {"go: github.com/rs/zerolog@v1.99.0: reading https://proxy.golang.org/github.com/rs/zerolog/@v/v1.99.0.info: 404 Not Found\n\tserver response: not found\n", faas.Invalid, []string{"v1.99.0", "github.com/rs/zerolog", "go list -m -versions"}},
		"no module":    {"go: github.com/x/y@v0.9.1: reading https://proxy.example/github.com/x/y/@v/v0.9.1.mod: 410 Gone\n", faas.Invalid, []string{"github.com/x/y", "registries.go.private"}},
		"newer Go":     {"go: go.mod requires go >= 1.99 (running go 1.26.8; GOTOOLCHAIN=local)\n", faas.Invalid, []string{"Go 1.99", "1.26.8", "go mod edit -go=1.26.8"}},
		"newer Go of":  {"go: a.example/m@v1.2.0 requires go >= 1.77 (running go 1.26.8; GOTOOLCHAIN=local)\n", faas.Invalid, []string{"Go 1.77"}},
		"login":        {"go: a.example/m@v1.0.0: reading https://u:xxxxx@proxy.example/a.example/m/@v/v1.0.0.info: 401 Unauthorized\n", faas.Unavailable, []string{"registries.go.proxy"}},
		"database":     {"go: a.example/m@v1.0.0: verifying module: a.example/m@v1.0.0: Get \"https://sum.golang.org/lookup/a\": dial tcp: lookup sum.golang.org: no such host\n", faas.Unavailable, []string{"registries.go.sum", "go mod tidy"}},
	})
}

func TestGoNamesOfModules(t *testing.T) {
	g := &goModules{}
	if err := g.check([]string{"github.com/google/uuid@v1.6.0", "golang.org/x/text", "gopkg.in/yaml.v3@latest"}); err != nil {
		t.Error(err)
	}
	for _, w := range []string{"-modfile=x", "--", "", "a b", "a@", "a@b@c", "$(x)", "../x"} {
		if err := g.check([]string{w}); faas.CodeOf(err) != faas.Invalid {
			t.Errorf("%q is taken: %v", w, err)
		}
	}
}
