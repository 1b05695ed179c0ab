package leak

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// wasmSource is a program for WASI that says what it finds of calls before it and leaves what it
// can; without words it draws.
const wasmSource = `package main

import (
	"crypto/rand"
	"fmt"
	mrand "math/rand"
	"os"
	"strings"
	"unsafe"
)

var left int
var kept []string

func main() {
	b := make([]byte, 4096)
	n, _ := os.Stdin.Read(b)
	if !strings.Contains(string(b[:n]), "look") {
		x := make([]byte, 16)
		rand.Read(x)
		fmt.Printf("%x%x", x, mrand.Uint64())
		return
	}
	// All of memory, for what looks like the mark of a call.
	marks := 0
	head := []byte("LEAK~MARK~")
	for i := range head {
		head[i] ^= 0x55
	}
	// Of each two neighbours one is no mark: its own request is cleared first.
	for i := 0; i < n; i++ {
		b[i] = 0
	}
	end := uintptr(pages()) << 16
	for at := uintptr(1024); at+26 < end; at++ {
		p := unsafe.Slice((*byte)(unsafe.Pointer(at)), 10)
		same := true
		for k := range head {
			if p[k] != head[k]^0x55 {
				same = false
				break
			}
		}
		if same {
			marks++
		}
	}
	err := os.WriteFile("/tmp/left", nil, 0o600)
	fmt.Printf("%d %d %d %v %v", left, len(kept), marks, os.Getenv("LEFT"), err == nil)
	left++
	os.Setenv("LEFT", "1")
	for i := 0; i < 2000; i++ {
		kept = append(kept, strings.Repeat(string([]byte{'L', 'E', 'A', 'K', '~', 'M', 'A', 'R', 'K', '~'})+"0123456789abcdef", 3))
	}
}
`

const wasmPages = `package main

import "unsafe"

// pages is how large memory is at least: behind the newest object there is none of interest.
func pages() uintptr {
	x := make([]byte, 1<<16)
	return (uintptr(unsafe.Pointer(&x[0])) + 1<<16) >> 16
}
`

func wasmProgram(t *testing.T, _ *machine) (map[string]string, string) {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go command to build a program for WASI with")
	}
	if made := compiled[runtimes.WasmEntry]; made != nil {
		return made, runtimes.WasmEntry
	}
	src, dir := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{"main.go": wasmSource, "pages.go": wasmPages, "go.mod": "module leaver\n\ngo 1.21\n"} {
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	made := filepath.Join(dir, runtimes.WasmMade)
	if err := os.Mkdir(made, 0o755); err != nil {
		t.Fatal(err)
	}
	module := filepath.Join(dir, runtimes.WasmEntry)
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", module, ".")
	build.Dir = src
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=-mod=mod", "GOWORK=off")
	for _, cmd := range []*exec.Cmd{build, exec.Command("/proc/self/exe", runtimes.WasmCompile, module, made)} {
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
		}
	}
	compiled[runtimes.WasmEntry] = readTree(t, dir)
	return compiled[runtimes.WasmEntry], runtimes.WasmEntry
}

// TestModulesBeginAnew shows that an instance of a module finds nothing of those before it in the same worker.
func TestModulesBeginAnew(t *testing.T) {
	m := newMachine(t, nil)
	files, entry := wasmProgram(t, m)
	rev := m.function(t, runtimes.Wasm, files, entry, nil)
	instances := map[string]int{}
	first := ""
	for i := range 60 {
		a, err := m.call(rev, map[string]any{"look": true, "note": markHead + newMark()})
		if err != nil {
			t.Fatal(err, a.log)
		}
		if !strings.HasPrefix(a.body, "0 0 ") || !strings.HasSuffix(a.body, " false") {
			t.Fatalf("call %d finds %q", i, a.body)
		}
		if first == "" {
			first = a.body
		}
		if a.body != first {
			t.Errorf("call %d finds %q, the first found %q", i, a.body, first)
		}
		instances[a.instance]++
	}
	t.Logf("%d workers; each call finds %q", len(instances), first)
	if len(instances) > 10 {
		t.Errorf("%d workers served 60 calls, so few were second ones", len(instances))
	}
}

// TestProgramsBeginAnew shows that a program that is started for each call finds nothing of those before it.
func TestProgramsBeginAnew(t *testing.T) {
	const script = `#!/bin/sh
cat >/dev/null
echo "$(ls /tmp /dev/shm | tr '\n' ' ')|$LEFT|$(umask)|$(cat /proc/[0-9]*/comm 2>/dev/null | grep -c sleep)|$(cat /proc/net/unix | wc -l)|$(ls /proc/self/fd | wc -l)|$(hostname)|$(cat /proc/sysvipc/shm | wc -l)|$(ulimit -n)"
echo left >/tmp/left; echo left >/dev/shm/left; umask 077; export LEFT=1; ulimit -n 50
(sleep 600; echo LEFT-PRINTED) >/dev/null 2>&1 </dev/null &
`
	m := newMachine(t, nil)
	for _, reuse := range []faas.Reuse{faas.ReuseFunction, faas.ReuseNever} {
		usual := map[string]string{}
		instances := map[string]bool{}
		for i := range 12 {
			name := fmt.Sprintf("%s%d", reuse, i%2)
			rev := m.function(t, runtimes.Executable, map[string]string{"f.sh": script}, "f.sh", func(r *faas.Revision) {
				r.Name.Function, r.Reuse, r.Env = name, reuse, map[string]string{"OWN": name}
			})
			a, err := m.call(rev, map[string]any{})
			if err != nil {
				t.Fatal(err, a.log)
			}
			if !strings.HasPrefix(a.body, "/dev/shm:  /tmp: |") || !strings.Contains(a.body, "||0022|") {
				t.Errorf("call %d finds %q", i, a.body)
			}
			if usual[name] == "" {
				usual[name] = a.body
			}
			if a.body != usual[name] || strings.Contains(a.log, "LEFT") {
				t.Errorf("call %d finds %q, the first found %q; its log: %s", i, a.body, usual[name], a.log)
			}
			if instances[a.instance] {
				t.Errorf("instance %s served twice", a.instance)
			}
			instances[a.instance] = true
		}
		t.Log(usual)
	}
}
