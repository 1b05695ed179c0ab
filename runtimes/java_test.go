package runtimes

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
)

func TestPlanJava(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		hints Hints
		entry string
		lacks string
	}{
		"file":      {map[string]string{"Hello.java": ""}, Hints{}, "Hello.java", ""},
		"files":     {map[string]string{"A.java": "", "B.java": ""}, Hints{}, "", ""},
		"maven":     {map[string]string{"pom.xml": "<dependency>", "src/main/java/a/B.java": ""}, Hints{}, "", "pom.xml"},
		"maven lib": {map[string]string{"pom.xml": "<dependency>", "src/main/java/a/B.java": "", "lib/c.jar": ""}, Hints{}, "", ""},
		"jar":       {map[string]string{"app.jar": "PK"}, Hints{}, "app.jar", ""},
		"unpacked":  {map[string]string{"META-INF/MANIFEST.MF": "", "a/B.class": ""}, Hints{}, "", ""},
		"classes":   {map[string]string{"B.class": "", "C.class": ""}, Hints{}, "", ""},
		"entry":     {map[string]string{"A.java": "", "B.java": "", "main.py": ""}, Hints{Entry: "B.java"}, "B.java", ""},
		"language":  {map[string]string{"A.java": "", "main.py": ""}, Hints{Language: "java"}, "A.java", ""},
	} {
		p, err := testRegistry().Plan(files(c.files), c.hints)
		if err != nil || p.Runtime != Java || p.Entry != c.entry || p.Lacks != c.lacks || p.Build {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

// A heap leaves room for what is not heap, and functions of the same heap share stems.
func TestJavaHeap(t *testing.T) {
	for memory, heap := range map[faas.Bytes]int64{
		32 * faas.MiB: 16, 128 * faas.MiB: 64, 256 * faas.MiB: 160, 512 * faas.MiB: 384, faas.GiB: 768,
	} {
		if got := javaHeap(memory); got != heap {
			t.Errorf("heap of %s is %d MiB, want %d", memory, got, heap)
		}
	}
	rt := &Runtime{Name: Java, Style: StyleFrames, Program: "/usr/bin/java", boot: "bootstrap.jar", bootDir: "/x"}
	rev := func(m faas.Bytes) *faas.Revision { return &faas.Revision{Limits: faas.Limits{Memory: m}} }
	a, _ := rt.Stem(rev(0))
	b, ok := rt.Stem(rev(faas.DefaultLimits().Memory))
	c, _ := rt.Stem(rev(faas.GiB))
	if !ok || a.Class != b.Class || a.Class == c.Class || slices.Equal(a.Args, c.Args) || !slices.Equal(a.Args, b.Args) {
		t.Errorf("classes %s, %s, %s", a.Class, b.Class, c.Class)
	}
	for _, s := range []Stem{a, c} {
		if !slices.Contains(s.Args, "-Dbrasa.rehearse=true") {
			t.Errorf("a stem that does not rehearse: %q", s.Args)
		}
	}
}

// Beside the bootstrap lies what a stem rehearses with, and a start of the server that finds the same
// leaves it as it is: an archive is for the file of that time.
func TestJavaBootstrapStays(t *testing.T) {
	dir := t.TempDir()
	if err := unpackJava(dir); err != nil {
		t.Fatal(err)
	}
	var before []os.FileInfo
	for _, name := range []string{"bootstrap.jar", "Sample.class", "Sample$Pair.class"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		before = append(before, info)
	}
	if err := unpackJava(dir); err != nil {
		t.Fatal(err)
	}
	for _, b := range before {
		if now, err := os.Stat(filepath.Join(dir, b.Name())); err != nil || !os.SameFile(b, now) || !now.ModTime().Equal(b.ModTime()) {
			t.Errorf("%s was written anew: %v", b.Name(), err)
		}
	}
	// A predecessor's is replaced, and has the same time as any other.
	if err := os.WriteFile(filepath.Join(dir, "bootstrap.jar"), []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unpackJava(dir); err != nil {
		t.Fatal(err)
	}
	now, err := os.Stat(filepath.Join(dir, "bootstrap.jar"))
	if err != nil || now.Size() != before[0].Size() || !now.ModTime().Equal(before[0].ModTime()) {
		t.Errorf("after an upgrade: %v, %v", now, err)
	}
}

// The best Java is one with a compiler, then the newest.
func TestJavaHomes(t *testing.T) {
	t.Setenv("JAVA_HOME", "")
	dir := t.TempDir()
	home := func(name, version string, programs ...string) string {
		h := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Join(h, "bin"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, p := range append(programs, "java") {
			if err := os.WriteFile(filepath.Join(h, "bin", p), nil, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(h, "release"), []byte("IMPLEMENTOR=\"x\"\nJAVA_VERSION=\""+version+"\"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return h
	}
	jre, jdk := home("jre", "25.0.1"), home("jdk", "17.0.15", "javac")
	if got := javaHomes(filepath.Join(jdk, "bin", "java")); len(got) != 1 || got[0].dir != jdk || got[0].feature != 17 || !got[0].compiler {
		t.Errorf("configured: %+v", got)
	}
	t.Setenv("JAVA_HOME", jre)
	if got := javaHomes(""); len(got) == 0 || got[0].dir != jre || got[0].compiler {
		t.Errorf("JAVA_HOME: %+v", got)
	}
	for version, feature := range map[string]int{"17.0.15": 17, "25": 25, "1.8.0_292": 8, "21-ea": 21, "": 0} {
		if got := javaFeature(version); got != feature {
			t.Errorf("feature of %q is %d, want %d", version, got, feature)
		}
	}
}
