package contract

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// wasmProgram builds a program for WASI and compiles it as a deploy does; the result is what the
// code of such a function holds. The test binary must be one that serves modules.
var wasmProgram = sync.OnceValues(func() (map[string]string, error) {
	dir, err := os.MkdirTemp("", "brasa-contract-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	made := filepath.Join(dir, runtimes.WasmMade)
	if err := os.Mkdir(made, 0o755); err != nil {
		return nil, err
	}
	module := filepath.Join(dir, runtimes.WasmEntry)
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", module, "github.com/brasa-dev/brasa/internal/wasm/testdata/program")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	for _, cmd := range []*exec.Cmd{build, exec.Command("/proc/self/exe", runtimes.WasmCompile, module, made)} {
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return nil, err
		}
	}
	files := map[string]string{}
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		files[name] = string(b)
		return err
	})
	return files, err
})

// modules: a process for many calls, each in an instance of its own, which speaks as an executable
// does: its stdin is the request and its stdout the answer.
func (s *Suite) modules(t *testing.T) {
	s.Runtime(t, runtimes.Wasm)
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go command to build a program for WASI with")
	}
	files, err := wasmProgram()
	if err != nil {
		t.Fatal(err)
	}
	in := s.Start(t, runtimes.Wasm, Function{
		Files: files, Entry: runtimes.WasmEntry, Concurrency: 4, Response: 64 * faas.KiB,
		Env: map[string]string{"PLAIN": "value ✓"}, Secrets: map[string]string{"TOKEN": "secret"},
	})
	run := func(input string) *Answer { return in.Call(input) }

	run("cat\n"+`{"a": 1}`).Want(t, 200, typeJSON, `{"a": 1}`)
	run("cat\ntext ✓").Want(t, 200, typeText, "text ✓")
	run("cat\n\xff\x00").Want(t, 200, typeBytes, "\xff\x00")
	run("cat").Want(t, 200, typeText, "")
	big := strings.Repeat("x", 60<<10)
	run("cat\n"+big).Want(t, 200, typeText, big)
	run("files").Want(t, 200, typeText, "done")

	a := run("log")
	a.Want(t, 200, typeText, "out\n")
	if a.Log.Text(runtimes.Stderr) != "first\nlast\n" || a.Log.Text(runtimes.Stdout) != "" {
		t.Errorf("log = %q", a.Log.Text(""))
	}
	if e := run("exit").WantError(t, faas.Failed, "code 3", "broken pipe to nowhere"); !strings.Contains(e.Trace, "nowhere") {
		t.Errorf("trace = %q", e.Trace)
	}
	if e := run("yes").WantError(t, faas.Failed); e.Limit != "response_bytes" {
		t.Errorf("limit = %q in %v", e.Limit, e)
	}

	inv := in.Invocation([]byte("env"))
	inv.Method, inv.Path, inv.Query = "GET", "/a\nb", "x=() { :; }; echo bad"
	inv.Header = map[string][]string{"Content-Type": {"() { :; }; echo bad"}, "Proxy": {"http://evil"}}
	a = in.Do(t.Context(), inv)
	if a.Err != nil {
		t.Fatal(a.Err)
	}
	env := "\n" + string(a.Body)
	for _, want := range []string{"BRASA_INVOCATION_ID=" + string(inv.ID), "BRASA_FUNCTION=fn", "BRASA_NAMESPACE=ns", "BRASA_REVISION=0123456789abcdef",
		"BRASA_MEMORY_BYTES=268435456", "BRASA_DEADLINE_MS=", "HTTP_METHOD=GET", "HTTP_PATH=/a b", "HTTP_CONTENT_TYPE=\n", "PLAIN=value ✓", "TOKEN=secret"} {
		if !strings.Contains(env, "\n"+want) {
			t.Errorf("environment lacks %q:\n%s", want, env)
		}
	}
	if strings.Contains(env, "evil") || strings.Contains(env, "\nHOME=") {
		t.Errorf("the environment has what is not the call's:\n%s", env)
	}

	// Calls at once: none sees another's state, and one without an end holds up none.
	var wait sync.WaitGroup
	wait.Go(func() {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		inv := in.Invocation([]byte("spin"))
		inv.Deadline, _ = ctx.Deadline()
		in.Do(ctx, inv).WantError(t, faas.Timeout)
	})
	for range 3 {
		wait.Go(func() {
			for range 10 {
				run("count").Want(t, 200, typeJSON, "1")
			}
		})
	}
	wait.Wait()
	run("count").Want(t, 200, typeJSON, "1")
}
