package runtimes

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// RustWasm is what Rust calls WASI preview 1.
const RustWasm = "wasm32-wasip1"

// findRust finds the toolchain: the one that the command chooses, for a rustc in PATH may be the
// shim of rustup, which needs its user's home.
func findRust(ctx context.Context, cfg Config, _ string) (*Runtime, error) {
	why := fmt.Errorf("no rustc in PATH or ~/.cargo/bin")
	more := []string{"/usr/local/cargo/bin/rustc"}
	if home, err := os.UserHomeDir(); err == nil {
		more = append(more, filepath.Join(home, ".cargo", "bin", "rustc"))
	}
	for _, p := range append(candidates("", "rustc"), more...) {
		if !exists(p) {
			continue
		}
		rt, err := rustOf(ctx, p)
		if err == nil {
			return rt, nil
		}
		why = err
	}
	return nil, why
}

func rustOf(ctx context.Context, rustc string) (*Runtime, error) {
	out, err := probe(ctx, rustc, "--print", "sysroot")
	if err != nil {
		return nil, err
	}
	root, err := filepath.EvalSymlinks(strings.TrimSpace(string(out)))
	if err != nil {
		return nil, err
	}
	rt := &Runtime{Style: styleOf(Rust), Program: filepath.Join(root, "bin", "cargo"), Compiler: filepath.Join(root, "bin", "rustc")}
	if !exists(rt.Program) || !exists(rt.Compiler) {
		return nil, fmt.Errorf("the toolchain in %s has no cargo", root)
	}
	if out, err = probe(ctx, rt.Compiler, "-vV"); err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "release":
			rt.Version = value
		case "host":
			rt.Targets = []string{value}
		}
	}
	if rt.Version == "" || len(rt.Targets) == 0 {
		return nil, fmt.Errorf("ask %s for its version: %q", rt.Compiler, clip(string(out)))
	}
	if dir := rootOf(root); dir != "" {
		rt.Tools = []Mount{{dir, dir}}
	}
	// A target is there if its standard library is.
	libs, _ := filepath.Glob(filepath.Join(root, "lib", "rustlib", "*", "lib", "libstd-*.rlib")) // the pattern is well formed
	for _, lib := range libs {
		if target := filepath.Base(filepath.Dir(filepath.Dir(lib))); !slices.Contains(rt.Targets, target) {
			rt.Targets = append(rt.Targets, target)
		}
	}
	return rt, nil
}

// isBuiltFor says whether source in another language is built for this one.
func isBuiltFor(language string) bool {
	return language == Executable || language == JSONLines || language == HTTPServer || language == ActionLoop || language == Wasm
}

// sourceOf says in which language a file or a directory is source that is built to a program;
// empty: in none.
func sourceOf(tree fs.FS, name string, info fs.FileInfo) string {
	if !info.IsDir() {
		switch {
		case path.Ext(name) == ".go":
			return Go
		case path.Ext(name) == ".rs", path.Base(name) == "Cargo.toml":
			return Rust
		case isProject(name):
			return DotNet
		}
		return ""
	}
	if _, err := fs.Stat(tree, path.Join(name, "Cargo.toml")); err == nil {
		return Rust
	}
	return Go
}

// rustTree looks for a crate, or a file of source that is to be one.
func rustTree(tree fs.FS, files []string) (candidate, bool, error) {
	if slices.Contains(files, "Cargo.toml") {
		return candidate{Rust, "", "Cargo.toml says that it is Rust"}, true, nil
	}
	var source []string
	for _, f := range files {
		if path.Ext(f) == ".rs" {
			source = append(source, f)
		}
	}
	switch {
	case slices.Contains(source, "main.rs"):
		return candidate{Rust, "main.rs", "main.rs is Rust by its extension"}, true, nil
	case len(source) == 1:
		return candidate{Rust, source[0], source[0] + " is Rust by its extension"}, true, nil
	}
	return candidate{}, false, nil
}
