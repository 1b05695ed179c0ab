package cli_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/brasa-dev/brasa/internal/cli"
)

func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func names(t *testing.T, archive []byte) []string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeDir {
			out = append(out, h.Name)
		}
	}
}

func TestPackLeavesOutWhatIsNotCode(t *testing.T) {
	dir := tree(t, map[string]string{
		"main.py": "x", "lib/a.py": "x", "lib/a.pyc": "x", "lib/__pycache__/a.bin": "x", ".git/HEAD": "x", ".env": "SECRET=1",
		"build/out.o": "x", "docs/readme.md": "x", "docs/keep.md": "x", "deep/er/build/y": "x", "top.txt": "x", "deep/top.txt": "x",
		"venv/bin/python": "x", "node_modules/x/index.js": "x",
		cli.IgnoreFile: "# what is not code\nbuild/\ndocs/*\n!docs/keep.md\n/top.txt\n",
	})
	var b bytes.Buffer
	p, err := cli.Pack(dir, &b)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"deep/top.txt", "docs/keep.md", "lib/a.py", "main.py", "node_modules/x/index.js"}
	if got := names(t, b.Bytes()); !slices.Equal(got, want) {
		t.Errorf("packed %q, want %q", got, want)
	}
	if p.Files != len(want) || p.Bytes != 5 {
		t.Errorf("got %+v, want %d files and 5 bytes", p, len(want))
	}
}

func TestPackMakesTheSameBytesOfTheSameFiles(t *testing.T) {
	files := map[string]string{"b": "2", "a": "1", "d/c": "3"}
	var first, second bytes.Buffer
	if _, err := cli.Pack(tree(t, files), &first); err != nil {
		t.Fatal(err)
	}
	if _, err := cli.Pack(tree(t, files), &second); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two archives of the same files differ")
	}
}

func TestPackKeepsTheExecutableBit(t *testing.T) {
	dir := tree(t, map[string]string{"run": "#!/bin/sh\n"})
	if err := os.Chmod(filepath.Join(dir, "run"), 0o755); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := cli.Pack(dir, &b); err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	h, err := tar.NewReader(z).Next()
	if err != nil || h.Mode != 0o755 {
		t.Errorf("got mode %o, %v; want 755", h.Mode, err)
	}
}

func TestPackRefusesWhatTheServerWouldRefuse(t *testing.T) {
	for _, c := range []struct {
		name, want string
		make       func(string) error
	}{
		{"absolute link", "outside the directory", func(p string) error { return os.Symlink("/etc/passwd", p) }},
		{"link upwards", "outside the directory", func(p string) error { return os.Symlink("../../x", p) }},
		{"pipe", "no file, directory or link", func(p string) error { return syscall.Mkfifo(p, 0o600) }},
	} {
		dir := tree(t, map[string]string{"main.py": "x"})
		if err := c.make(filepath.Join(dir, "odd")); err != nil {
			t.Fatal(err)
		}
		_, err := cli.Pack(dir, io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "odd") {
			t.Errorf("%s: got %v, want an error with the file's name and %q", c.name, err, c.want)
		}
	}
	dir := tree(t, map[string]string{"d/main.py": "x"})
	if err := os.Symlink("../d/main.py", filepath.Join(dir, "d", "alias.py")); err != nil {
		t.Fatal(err)
	}
	if _, err := cli.Pack(dir, io.Discard); err != nil {
		t.Errorf("a link inside the directory: %v", err)
	}
	if _, err := cli.Pack(t.TempDir(), io.Discard); err == nil {
		t.Error("an empty directory was packed")
	}
}

func TestPackLeavesOutWhatABuildMade(t *testing.T) {
	for sign, want := range map[string][]string{
		"Cargo.toml": {"Cargo.toml", "src/target/kept"},
		"pom.xml":    {"pom.xml", "src/target/kept"},
		"main.py":    {"main.py", "src/target/kept", "target/big"},
	} {
		var b bytes.Buffer
		if _, err := cli.Pack(tree(t, map[string]string{sign: "x", "target/big": "x", "src/target/kept": "x"}), &b); err != nil {
			t.Fatal(err)
		}
		if got := names(t, b.Bytes()); !slices.Equal(got, want) {
			t.Errorf("beside %s: packed %q, want %q", sign, got, want)
		}
	}
}
