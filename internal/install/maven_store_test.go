package install

import (
	"archive/zip"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/runtimes"
)

// What lays classes out uncompressed changes nothing else, and leaves what is no jar.
func TestJarsAreStoredUncompressed(t *testing.T) {
	reg, err := runtimes.Discover(t.Context(), runtimes.Config{Dir: filepath.Join(t.TempDir(), "runtimes")})
	if err != nil {
		t.Fatal(err)
	}
	rt, err := reg.Lookup(runtimes.Java)
	if err != nil || rt.Compiler == "" {
		t.Skip("this host has no JDK")
	}
	dir := t.TempDir()
	when := time.Date(2021, 2, 3, 4, 5, 6, 0, time.UTC)
	class := bytes.Repeat([]byte("class "), 1000)
	content := []struct {
		name string
		data []byte
	}{{"META-INF/", nil}, {"META-INF/MANIFEST.MF", []byte("Manifest-Version: 1.0\nMulti-Release: true\n")}, {"a/B.class", class}, {"META-INF/versions/21/a/B.class", class}, {"words.txt", class}}
	var jar bytes.Buffer
	w := zip.NewWriter(&jar)
	for _, c := range content {
		f, err := w.CreateHeader(&zip.FileHeader{Name: c.name, Method: zip.Deflate, Modified: when})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(c.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"a.jar": jar.Bytes(), "broken.jar": []byte("no jar"), "notes.txt": []byte("x")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(t.TempDir(), "Store.java")
	if err := os.WriteFile(program, storeProgram, 0o644); err != nil {
		t.Fatal(err)
	}
	run := func() []byte {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), rt.Program, program, dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		b, err := os.ReadFile(filepath.Join(dir, "a.jar"))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	made := run()
	z, err := zip.NewReader(bytes.NewReader(made), int64(len(made)))
	if err != nil {
		t.Fatal(err)
	}
	if len(z.File) != len(content) {
		t.Fatalf("%d entries, want %d", len(z.File), len(content))
	}
	for i, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil || f.Name != content[i].name || !bytes.Equal(b, content[i].data) || !f.Modified.Equal(when) {
			t.Errorf("%s: %d bytes of %s, %v; want %d of %s", f.Name, len(b), f.Modified, err, len(content[i].data), when)
		}
		if stored := f.Method == zip.Store; stored != (filepath.Ext(f.Name) == ".class" || f.FileInfo().IsDir()) {
			t.Errorf("%s has method %d", f.Name, f.Method)
		}
	}
	if again := run(); !bytes.Equal(again, made) {
		t.Error("the same jar gives other bytes the second time")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 3 {
		t.Errorf("%v, %v; want the three files that were there", left, err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "broken.jar")); err != nil || string(b) != "no jar" {
		t.Errorf("what is no jar became %q, %v", b, err)
	}
}
