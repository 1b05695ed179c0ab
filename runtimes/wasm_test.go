package runtimes

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTheProgramThatServesModulesMayBeReplaced(t *testing.T) {
	OfferWasm()
	defer func() { wasmOffered = "" }()
	dir := t.TempDir()
	for range 2 { // the second time there is one from an earlier start
		r, err := Discover(t.Context(), Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		rt, err := r.Lookup(Wasm)
		if err != nil {
			t.Fatal(err)
		}
		_, mounts := rt.WasmCompiler("/src/f.wasm", "/out")
		// What is under /proc ends to be mountable when the file loses its last name.
		if len(mounts) != 1 || filepath.Dir(mounts[0].Source) != filepath.Join(dir, Wasm) {
			t.Fatalf("mounts %+v; want a name of the platform's own", mounts)
		}
		have, err := os.Stat(mounts[0].Source)
		if err != nil {
			t.Fatal(err)
		}
		self, err := os.Stat("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		if have.Size() != self.Size() || have.Mode().Perm()&0o005 != 0o005 {
			t.Errorf("%s is %d bytes, mode %s; the program that runs is %d", mounts[0].Source, have.Size(), have.Mode(), self.Size())
		}
	}
}
