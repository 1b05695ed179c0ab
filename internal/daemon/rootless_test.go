package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/faas"
)

// TestAnOrdinaryUserCanServe runs the server without root: functions run, limits hold by other
// means, and what can't be had is refused by name.
func TestAnOrdinaryUserCanServe(t *testing.T) {
	needSandboxes(t)
	const user = 12345
	dir, err := os.MkdirTemp("", "brasa-rootless-") // t.TempDir's parents are root's alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	program, data := filepath.Join(dir, "server"), filepath.Join(dir, "data")
	b, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, b, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{dir, data} {
		if err := os.Chown(p, user, user); err != nil {
			t.Fatal(err)
		}
	}
	v := startAs(t, program, data, "", &syscall.Credential{Uid: user, Gid: user})
	if err := v.deploy(t.Context(), "from an ordinary user"); err != nil {
		t.Fatal(err)
	}
	if got := v.answer(t); got != "from an ordinary user" {
		t.Errorf("answer %q", got)
	}
	run := func(code string, spec api.Spec) error {
		spec.Language = "python"
		_, err := v.client.Run(t.Context(), "default", spec, api.Code{Filename: "f.py", Reader: strings.NewReader(code)}, api.CallOptions{}, strings.NewReader("{}"))
		return err
	}
	bomb := "def main(args):\n    x = []\n    while True: x.append(bytearray(1 << 20))\n"
	if e := faas.AsError(run(bomb, api.Spec{Limits: &faas.Limits{Memory: 64 * faas.MiB}})); e == nil || e.Code != faas.Crashed || e.Limit != "memory_bytes" {
		t.Errorf("memory bomb: %v, want crashed by memory_bytes", e)
	}
	forks := "import os, time\ndef main(args):\n    while True:\n        if os.fork() == 0: time.sleep(60)\n"
	if e := faas.AsError(run(forks, api.Spec{Limits: &faas.Limits{PIDs: 32, Timeout: faas.Duration(5 * time.Second)}})); e == nil || e.Code.Fault() != "function" {
		t.Errorf("fork bomb: %v, want the function's fault", e)
	}
	threads := `
import threading, time
def main(args):
    n = 0
    try:
        while n < 1000:
            threading.Thread(target=time.sleep, args=(5,)).start()
            n += 1
    except RuntimeError:
        pass
    return n
`
	// All of them for itself: neither the server's nor its neighbours' are counted.
	r, err := v.client.Run(t.Context(), "default", api.Spec{Language: "python", Limits: &faas.Limits{PIDs: 40}},
		api.Code{Filename: "f.py", Reader: strings.NewReader(threads)}, api.CallOptions{}, strings.NewReader("{}"))
	if err != nil || string(r.Result) != "39" {
		t.Errorf("threads of a function with pids 40: %v, %v; want 39 beside the first", r, err)
	}
	for what, spec := range map[string]api.Spec{
		"network": {Network: "egress"}, "processor": {Limits: &faas.Limits{CPU: 500}},
	} {
		if e := faas.AsError(run("def main(args): return 1\n", spec)); e == nil || e.Code != faas.Unavailable || e.Fix == "" {
			t.Errorf("%s: %v, want it refused with a remedy", what, e)
		}
	}
	if got := v.answer(t); got != "from an ordinary user" {
		t.Errorf("after all that: answer %q", got)
	}
}
