// Package script tests the program as people use it: each .txtar file is a story, run with the
// real binary against a real server.
package script_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/brasa-dev/brasa/test/program"
)

// binary is the path of the program under test.
var binary string

// shared is the server that scripts use which start none of their own; each has a namespace to
// itself there.
var shared *program.Server

// whyNot says why there is no server on this machine.
var whyNot error

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "brasa-script-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "brasa")
		build := exec.Command("go", "build", "-o", binary, "github.com/brasa-dev/brasa/cmd/brasa")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build brasa: %v\n%s", err, out)
			return 1
		}
		shared, whyNot = program.Serve(binary, filepath.Join(dir, "data"))
		if shared != nil {
			defer func() {
				if err := shared.Stop(syscall.SIGTERM); err != nil {
					fmt.Fprintln(os.Stderr, "stop the shared server:", err)
				}
			}()
		}
		return m.Run()
	}())
}

func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           ".",
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Setup:         setup,
		Condition:     condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"server":    serverCmd,
			"stop":      stopCmd,
			"exits":     program.Exits,
			"start":     startCmd,
			"waitfor":   waitforCmd,
			"interrupt": interruptCmd,
			"save":      saveCmd,
			"replace":   replaceCmd,
		},
	})
}

func setup(env *testscript.Env) error {
	env.Setenv("PATH", filepath.Dir(binary)+string(filepath.ListSeparator)+os.Getenv("PATH"))
	env.Setenv("HOME", env.WorkDir)
	env.Setenv("NO_COLOR", "1")
	env.Values[processesKey{}] = processes{}
	env.Defer(func() {
		for _, p := range env.Values[processesKey{}].(processes) {
			p.Kill()
		}
	})
	if shared == nil {
		return nil // scripts that need it skip
	}
	// The script's name is a name for its namespace too; what is not allowed in one becomes a dash.
	namespace := regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(filepath.Base(env.WorkDir)), "-")
	namespace = strings.Trim(strings.TrimPrefix(namespace, "script-"), "-")
	if _, err := shared.Ask("namespace", "create", namespace); err != nil {
		return err
	}
	env.Setenv("BRASA_SERVER", shared.URL)
	env.Setenv("BRASA_DATA", shared.Data)
	env.Setenv("BRASA_NAMESPACE", namespace)
	return nil
}

func condition(cond string) (bool, error) {
	switch cond {
	case "server":
		return shared != nil, nil
	case "root":
		return os.Geteuid() == 0, nil
	case "egress":
		return shared != nil && !strings.Contains(shared.Text(), "have no way out"), nil
	}
	if address, ok := strings.CutPrefix(cond, "reach:"); ok {
		return reach(address), nil
	}
	return false, fmt.Errorf("unknown condition %q", cond)
}

// reach says whether something answers at https://address, asked once for all scripts.
func reach(address string) bool {
	ask, _ := reached.LoadOrStore(address, sync.OnceValue(func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address, nil)
		if err != nil {
			return false
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		_ = res.Body.Close()
		return res.StatusCode < http.StatusInternalServerError
	}))
	return ask.(func() bool)()
}

var reached sync.Map // of func() bool by address

// processes are those of one script, by name.
type processes map[string]*program.Process

// processesKey is the key of processes among a script's values.
type processesKey struct{}

// server [ARG...] starts a server of the script's own and points the environment to it.
func serverCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("unsupported: ! server")
	}
	if whyNot != nil {
		ts.Fatalf("no server on this machine: %v", whyNot)
	}
	s, err := program.Serve(binary, ts.MkAbs("data"), args...)
	ts.Check(err)
	ts.Value(processesKey{}).(processes)["server"] = s.Process
	ts.Setenv("BRASA_SERVER", s.URL)
	ts.Setenv("ADDRESS", strings.TrimPrefix(s.URL, "http://"))
	ts.Setenv("BRASA_DATA", s.Data)
	ts.Setenv("BRASA_NAMESPACE", "default")
}

// stop [kill|int|term] ends the server of the script's own.
func stopCmd(ts *testscript.TestScript, neg bool, args []string) {
	all := ts.Value(processesKey{}).(processes)
	p := all["server"]
	if p == nil || neg {
		ts.Fatalf("there is no server to stop")
	}
	delete(all, "server")
	s := &program.Server{Process: p}
	switch strings.Join(args, " ") {
	case "kill":
		p.Kill()
	case "int":
		ts.Check(s.Stop(syscall.SIGINT))
	default:
		ts.Check(s.Stop(syscall.SIGTERM))
	}
	ts.Check(os.WriteFile(ts.MkAbs("server.log"), []byte(p.Text()), 0o600))
}

// start NAME PROGRAM [ARG...] runs a program beside the script.
func startCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: start NAME PROGRAM [ARG...]")
	}
	path := args[1]
	if path == "brasa" {
		path = binary
	}
	cmd := exec.Command(path, args[2:]...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "NO_COLOR", "BRASA_SERVER", "BRASA_DATA", "BRASA_NAMESPACE", "BRASA_PREFIX"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	p, err := program.Start(cmd)
	ts.Check(err)
	ts.Value(processesKey{}).(processes)[args[0]] = p
}

// waitfor NAME PATTERN waits until a program beside the script has written something.
func waitforCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: waitfor NAME PATTERN")
	}
	p := ts.Value(processesKey{}).(processes)[args[0]]
	if p == nil {
		ts.Fatalf("no program %q was started", args[0])
	}
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	ts.Check(p.WaitFor(pattern, 30*time.Second))
}

// interrupt NAME CODE sends Ctrl-C to a program beside the script, which must end with the code.
func interruptCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: interrupt NAME CODE")
	}
	p := ts.Value(processesKey{}).(processes)[args[0]]
	if p == nil {
		ts.Fatalf("no program %q was started", args[0])
	}
	code, err := p.Ends(os.Interrupt, 30*time.Second)
	ts.Check(err)
	if got := strconv.Itoa(code); got != args[1] {
		ts.Fatalf("exit code %s, want %s; it wrote:\n%s", got, args[1], p.Text())
	}
}

// save NAME PATTERN sets an environment variable to what the pattern's group matches in stdout,
// or in stderr if it is not there.
func saveCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: save NAME PATTERN")
	}
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	for _, text := range []string{ts.ReadFile("stdout"), ts.ReadFile("stderr")} {
		if m := pattern.FindStringSubmatch(text); len(m) == 2 {
			ts.Setenv(args[0], m[1])
			return
		}
	}
	ts.Fatalf("nothing matches %q", args[1])
}

// replace FILE OLD NEW edits a file as an editor does: a new file takes the old one's place.
func replaceCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: replace FILE OLD NEW")
	}
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s does not contain %q", args[0], args[1])
	}
	file := ts.MkAbs(args[0])
	ts.Check(os.WriteFile(file+".new", []byte(strings.Replace(text, args[1], args[2], 1)), 0o644))
	ts.Check(os.Rename(file+".new", file))
}
