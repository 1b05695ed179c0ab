package java

import (
	"archive/zip"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/brasa-dev/brasa/internal/faas"
)

// ours are the class files of the bootstrap: real ones that need no compiler.
func ours(t testing.TB) fstest.MapFS {
	t.Helper()
	r, err := zip.OpenReader("bootstrap.jar")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out := fstest.MapFS{}
	for _, f := range r.File {
		if !strings.HasSuffix(f.Name, ".class") {
			continue
		}
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		out[f.Name] = &fstest.MapFile{Data: b}
	}
	return out
}

func TestClassFilesAreRead(t *testing.T) {
	c, err := readClass(ours(t)["sample/Sample.class"].Data)
	if err != nil || c.name != "Sample" || c.source != "Sample.java" {
		t.Fatalf("class = %+v, %v", c, err)
	}
	if name, ok := c.handler(Handlers); !ok || name != "main" {
		t.Errorf("handler = %q, %v, want main", name, ok)
	}
	main, err := readClass(ours(t)["brasa/Main.class"].Data)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := main.handler(Handlers); ok {
		t.Error("main(String[]) is taken for a handler")
	}
}

func FuzzReadClass(f *testing.F) {
	f.Add([]byte("\xca\xfe\xba\xbe"))
	for _, file := range ours(f) {
		f.Add(file.Data)
	}
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = readClass(b) })
}

func TestSettleFindsTheHandler(t *testing.T) {
	sample := ours(t)["sample/Sample.class"]
	tree := fstest.MapFS{"Sample.class": sample, "brasa/Main.class": ours(t)["brasa/Main.class"]}
	for _, c := range []struct{ entry, handler, wantEntry, wantHandler, words string }{
		{"", "", "Sample.class", "", ""},
		{"", "Sample::main", "Sample.class", "main", ""},
		{"", "Sample", "Sample.class", "", ""},
		{"Sample.java", "", "Sample.class", "", ""},
		{"src/main/java/Sample.java", "", "Sample.class", "", ""},
		{"", "brasa.Main", "", "", "main(String[])"},
		{"", "Absent::main", "", "", "no class Absent"},
		{"Other.java", "", "", "", "no class of that name"},
		{"", "absent", "", "", "no class has a method absent"},
		{"app.jar", "x.Y::z", "app.jar", "x.Y::z", ""},
	} {
		entry, handler, err := Settle(tree, Options{Entry: c.entry, Handler: c.handler})
		switch {
		case c.words != "":
			if faas.CodeOf(err) != faas.Invalid || (!strings.Contains(err.Error(), c.words) && !strings.Contains(err.Error(), "declares no class")) {
				t.Errorf("%+v: %v", c, err)
			}
		case err != nil || entry != c.wantEntry || handler != c.wantHandler:
			t.Errorf("%+v: %q, %q, %v", c, entry, handler, err)
		}
	}
}

func TestGenerateKeepsToItsDirectories(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	secret := filepath.Join(t.TempDir(), "Secret.java")
	if err := os.WriteFile(secret, []byte("class Secret {}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(src, "A.java"), []byte("class A {}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(src, "B.java")); err != nil {
		t.Fatal(err)
	}
	if _, err := Generate(src, dst, Options{Boot: "b", Output: "o"}); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadFile(filepath.Join(dst, argFile))
	if err != nil || !bytes.Equal(list, []byte("\"A.java\"\n")) {
		t.Errorf("compiled: %q, %v; want A.java alone", list, err)
	}
}
