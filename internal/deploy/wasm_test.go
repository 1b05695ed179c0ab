package deploy_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/typescript"
	"github.com/brasa-dev/brasa/internal/wasm"
	"github.com/brasa-dev/brasa/runtimes"
)

func TestMain(m *testing.M) {
	wasm.Main(os.Args) // this binary is what compiles modules, as brasa itself is
	typescript.Main(os.Args)
	os.Exit(m.Run())
}

// nothing is a module whose _start does nothing.
const nothing = "\x00asm\x01\x00\x00\x00" + "\x01\x04\x01\x60\x00\x00" + "\x03\x02\x01\x00" + "\x05\x03\x01\x00\x01" +
	"\x07\x13\x02\x06memory\x02\x00\x06_start\x00\x00" + "\x0a\x04\x01\x02\x00\x0b"

func TestAModuleIsCompiledInASandbox(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: builds run in sandboxes of the initial user namespace")
	}
	hasGo := false
	s := newShop(t, func(d *deploy.Config) {
		_, err := d.Runtimes.Lookup(runtimes.Go)
		hasGo = err == nil
		sandboxed(t, d, "wtest")
	})

	out, err := s.Deploy(t.Context(), request("f.wasm", nothing), nil)
	if err != nil {
		t.Fatal(err)
	}
	rev := out.Revision
	if rev.Runtime != runtimes.Wasm || rev.Entry != "f.wasm" || rev.Limits.Concurrency != 4 || !strings.Contains(out.Detected.Why, "WebAssembly") {
		t.Errorf("revision %+v, %q", rev, out.Detected.Why)
	}
	path, release, err := s.depot.Tree(t.Context(), rev.Code)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if b, err := os.ReadFile(filepath.Join(path, rev.Entry)); err != nil || string(b) != nothing {
		t.Errorf("the module is stored as %q, %v", b, err)
	}
	compiled, err := filepath.Glob(filepath.Join(path, runtimes.WasmMade, "code", "*", "*"))
	if err != nil || len(compiled) != 1 {
		t.Errorf("compiled code: %v, %v; want one file", compiled, err)
	}
	for _, f := range append(compiled, filepath.Join(path, runtimes.WasmMade, "module.wasm")) {
		if info, err := os.Stat(f); err != nil || info.Mode()&0o004 == 0 {
			t.Errorf("a function's user cannot read %s: %v, %v", f, info, err)
		}
	}

	_, err = s.Deploy(t.Context(), request("f.wasm", "\x00asm\x0d\x00\x01\x00"), nil)
	e := faas.AsError(err)
	if err == nil || e.Code != faas.Invalid || !strings.Contains(e.Error(), "component") || !strings.Contains(e.Fix, "wasm32-wasip1") {
		t.Errorf("a component: %v, fix %q", err, e.Fix)
	}
	_, err = s.Deploy(t.Context(), request("f.wasm", "no module at all"), nil)
	if e := faas.AsError(err); err == nil || e.Code != faas.Invalid || !strings.Contains(e.Error(), "not a WebAssembly module") {
		t.Errorf("no module: %v", err)
	}

	clean := request("f.wasm", nothing)
	clean.State = faas.StatePristine
	if out, err = s.Deploy(t.Context(), clean, nil); err != nil {
		t.Errorf("a module is pristine anyway: %v", err)
	} else if n := out.Revision.Limits.Concurrency; n != 4 {
		t.Errorf("%d calls of a pristine module at once, want 4: they see nothing of each other", n)
	}
	if rev, err = s.Stage(t.Context(), request("f.wasm", nothing)); err != nil {
		t.Errorf("run a module once: %v", err)
	} else if rev.Limits.Concurrency != 1 {
		t.Errorf("%d calls at once of a module that is called once", rev.Limits.Concurrency)
	}

	source := request("f.go", "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Print(1) }\n")
	source.Language = "wasm"
	if !hasGo {
		t.Skip("no Go toolchain")
	}
	out, err = s.Deploy(t.Context(), source, nil)
	if err != nil {
		t.Fatal(err)
	}
	if rev := out.Revision; rev.Runtime != runtimes.Wasm || rev.Entry != runtimes.WasmEntry {
		t.Errorf("a program in Go: %+v", rev)
	}
	source = request("f.go", "package main\n\nfunc Main() string { return \"\" }\n")
	source.Language = "wasm"
	_, err = s.Deploy(t.Context(), source, nil)
	if e := faas.AsError(err); err == nil || e.Code != faas.Invalid || !strings.Contains(e.Fix, "func main") {
		t.Errorf("a handler in Go: %v", err)
	}
}
