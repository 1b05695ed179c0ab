package deploy_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// Processes of Java are started with an archive that their virtual machine accepts, it is found again
// after a restart, and one that was cut short or spoiled is not used.
func TestJavaArchiveIsMadeFoundAndMadeAnew(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: builds run in sandboxes of the initial user namespace")
	}
	var dir string
	var rt *runtimes.Runtime
	s := newShop(t, func(d *deploy.Config) {
		var err error
		if rt, err = d.Runtimes.Lookup(runtimes.Java); err != nil {
			t.Skip(err)
		}
		dir = filepath.Join(filepath.Dir(d.Dir), "runtimes")
		sandboxed(t, d, "jatest")
	})
	used := func(rt *runtimes.Runtime) string {
		t.Helper()
		how, _ := rt.Stem(&faas.Revision{})
		i := slices.IndexFunc(how.Args, func(a string) bool { return strings.Contains(a, "=/brasa/classes-") })
		if i < 0 {
			return ""
		}
		return filepath.Join(dir, "java", how.Args[i][strings.LastIndex(how.Args[i], "/")+1:])
	}
	again := func() *runtimes.Runtime {
		t.Helper()
		reg, err := runtimes.Discover(t.Context(), runtimes.Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		rt, err := reg.Lookup(runtimes.Java)
		if err != nil {
			t.Fatal(err)
		}
		return rt
	}

	if file := used(rt); file != "" {
		t.Fatalf("before one was made, %s is used", file)
	}
	if err := s.ArchiveJava(t.Context()); err != nil {
		t.Fatal(err)
	}
	file := used(rt)
	before, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if found := used(again()); found != file {
		t.Errorf("after a restart %q is used, want %q", found, file)
	}
	if err := s.ArchiveJava(t.Context()); err != nil { // it fits
		t.Fatal(err)
	}
	if now, err := os.Stat(file); err != nil || !os.SameFile(before, now) || !now.ModTime().Equal(before.ModTime()) {
		t.Errorf("one that fits was made anew: %v", err)
	}

	// Spoiled inside: its sums don't fit.
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 256<<10), before.Size()/2); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.ArchiveJava(t.Context()); err != nil {
		t.Fatal(err)
	}
	file = used(rt)
	// By its bytes, since a new file may get the number that the old one had.
	made, err := os.ReadFile(file)
	if err != nil || bytes.Contains(made, make([]byte, 256<<10)) {
		t.Errorf("a spoiled one is still there: %v", err)
	}

	if err := os.Truncate(file, 64<<10); err != nil {
		t.Fatal(err)
	}
	if found := used(again()); found != "" {
		t.Errorf("%s was cut short and is used", found)
	}
}

// Where no archive can be made, Java goes on without one, and the reason can be had.
func TestJavaGoesOnWithoutArchive(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: builds run in sandboxes of the initial user namespace")
	}
	var rt *runtimes.Runtime
	s := newShop(t, func(d *deploy.Config) {
		var err error
		if rt, err = d.Runtimes.Lookup(runtimes.Java); err != nil {
			t.Skip(err)
		}
		d.Build.PIDs = 2 // too few for Java's threads
		sandboxed(t, d, "jbtest")
	})
	if err := s.ArchiveJava(t.Context()); err == nil {
		t.Fatal("an archive was made with two tasks")
	}
	if there, why := rt.Archive.State(); there || why == nil {
		t.Errorf("there is one: %v, because %v; want none, and a reason", there, why)
	}
	how, ok := rt.Stem(&faas.Revision{})
	if !ok || slices.ContainsFunc(how.Args, func(a string) bool { return strings.Contains(a, "classes-") }) {
		t.Errorf("a stem is started by %q", how.Args)
	}
}
