package leak

import (
	_ "embed"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/brasa-dev/brasa/runtimes"
	javabuild "github.com/brasa-dev/brasa/runtimes/java"
)

//go:embed testdata/Leaver.java
var leaverJava string

// compileJava returns what a deploy would store of one class.
func compileJava(t *testing.T, m *machine, class, source string) map[string]string {
	t.Helper()
	rt, err := m.reg.Lookup(runtimes.Java)
	if err != nil {
		t.Skip(err)
	}
	if rt.Compiler == "" {
		t.Skip("this host's Java has no compiler")
	}
	if made := compiled[class]; made != nil {
		return made
	}
	src, work, out := t.TempDir(), t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(src, class+".java"), []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	_, _, mounts := rt.Command(nil)
	o := javabuild.Options{Javac: rt.Compiler, Boot: filepath.Join(mounts[0].Source, filepath.Base(runtimes.JavaBootstrap)), Lib: filepath.Join(src, "lib"), Output: out}
	b, err := javabuild.Generate(src, work, o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(b.Args[0], b.Args[1:]...)
	cmd.Dir = work
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, text)
	}
	if _, _, err := javabuild.Finish(src, out, o); err != nil {
		t.Fatal(err)
	}
	compiled[class] = readTree(t, out)
	return compiled[class]
}

// compiled are the classes that were built already.
var compiled = map[string]map[string]string{}

func readTree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	tree := os.DirFS(dir)
	err := fs.WalkDir(tree, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := fs.ReadFile(tree, name)
		files[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

var java = language{
	runtime: "java", scans: true,
	make: func(t *testing.T, m *machine, _ string) (map[string]string, string) {
		return compileJava(t, m, "Leaver", leaverJava), "Leaver.class"
	},
	things: []thing{
		{name: "a static", seenAs: "a static", marks: true},
		{name: "a thread local"}, // each call has a thread of its own
		{name: "a property", seenAs: "a property", marks: true},
		{name: "a property of security", seenAs: "a property of security"},
		{name: "a provider", seenAs: "providers"},
		{name: "the locale", seenAs: "the locale"},
		{name: "standard output", seenAs: "standard output"},
		{name: "standard input", seenAs: "standard input"},
		{name: "a logger", seenAs: "a logger"},
		{name: "a handler of URLs", seenAs: "a handler of URLs"},
		{name: "an authenticator", seenAs: "an authenticator"},
		{name: "the handler of exceptions", seenAs: "the handler of exceptions"},
		{name: "a thread", seenAs: "threads"},
		{name: "a thread that writes", seenAs: "threads"},
		{name: "a busy thread", seenAs: "threads"},
		{name: "a timer", seenAs: "a static"},
		{name: "an executor", seenAs: "a static"},
		{name: "work of the common pool", seenAs: "a static"},
		{name: "a shutdown hook"},
		{name: "the thread"},
		{name: "a class loader"},
		{name: "memory that is freed", marks: true},
		{name: "memory outside of the heap", marks: true},
		{name: "a string", marks: true},
		{name: "garbage"},
		{name: "a file in /tmp", seenAs: "files in /tmp", fate: replaced},
		{name: "a directory in /tmp", fate: replaced},
		{name: "a file in /dev/shm", seenAs: "files in /dev/shm", fate: replaced},
		{name: "a temporary file that is gone"},
		{name: "a file that is deleted on exit"},
		{name: "an open file", seenAs: "open files", fate: replaced},
		{name: "a listener", seenAs: "connections", fate: replaced},
		{name: "a mapped file", seenAs: "files in /tmp", fate: replaced},
		{name: "a child", fate: replaced, ends: true},
		{name: "a child that has ended", fate: either}, // the reaper's thread may be there yet
	},
}
