// Package brasa_test holds the repository to its own rules: which package imports which, and that
// each says what it is.
package brasa_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite testdata/imports.txt from the code")

const module = "github.com/brasa-dev/brasa"

type goPackage struct {
	ImportPath string
	Dir        string
	Doc        string
	Imports    []string
	GoFiles    []string
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Doc,Imports,GoFiles", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// TestImportsMatchTheMap holds the arrows between our packages to a file that is read in review:
// a new arrow is a decision, and shows as a line.
func TestImportsMatchTheMap(t *testing.T) {
	var b strings.Builder
	for _, p := range packages(t) {
		var ours []string
		for _, i := range p.Imports {
			if rest, ok := strings.CutPrefix(i, module+"/"); ok {
				ours = append(ours, strings.TrimPrefix(rest, "internal/"))
			}
		}
		slices.Sort(ours)
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module+"/"), "internal/")
		if len(p.GoFiles) > 0 {
			fmt.Fprintf(&b, "%s: %s\n", name, strings.Join(ours, " "))
		}
	}
	golden := filepath.Join("testdata", "imports.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(b.String(), "\n")); diff != "" {
		t.Errorf("the arrows between packages have changed (-want +got); if that is meant: go test . -run Imports -update\n%s", diff)
	}
}

// floors are the packages from the ground up. A package imports only what lies on a lower floor.
var floors = [][]string{
	{"faas", "sandbox", "dashboard", "typescript"},
	{"store"},
	{"catalog", "policy", "queue", "journal", "artifact", "runtimes", "auth", "telemetry"},
	{"install", "image", "registry"},
	{"dispatch", "worker", "deploy", "wasm"},
	{"openfaas", "trigger", "cluster"},
	{"api", "openwhisk"},
	{"gateway", "bench", "cli"},
	{"daemon"},
}

// TestArrowsPointDown checks the order itself, which the golden file alone would let slip.
func TestArrowsPointDown(t *testing.T) {
	floor := map[string]int{}
	for n, names := range floors {
		for _, name := range names {
			floor[name] = n
		}
	}
	place := func(path string) (string, int, bool) {
		rest, ok := strings.CutPrefix(path, module+"/")
		if !ok {
			return "", 0, false
		}
		top, _, _ := strings.Cut(strings.TrimPrefix(rest, "internal/"), "/")
		n, ok := floor[top]
		return top, n, ok
	}
	for _, p := range packages(t) {
		from, n, ok := place(p.ImportPath)
		if !ok {
			continue
		}
		for _, i := range p.Imports {
			if to, m, ok := place(i); ok && to != from && m >= n {
				t.Errorf("%s (floor %d) imports %s (floor %d): arrows point down", from, n, to, m)
			}
		}
	}
}

// TestEveryPackageSaysWhatItIs asks for a package comment everywhere.
func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}
