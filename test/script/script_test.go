// Package script tests the program as people use it: each .txtar file is a story, run with the
// real binary against a real server.
package script_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
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
)

// program is the binary under test.
var program string

// shared is the server that scripts use which start none of their own; each has a namespace to
// itself there.
var shared *server

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
		program = filepath.Join(dir, "brasa")
		build := exec.Command("go", "build", "-o", program, "github.com/brasa-dev/brasa/cmd/brasa")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build brasa: %v\n%s", err, out)
			return 1
		}
		shared, whyNot = startServer(filepath.Join(dir, "data"))
		if shared != nil {
			defer func() {
				if err := shared.stop(syscall.SIGTERM); err != nil {
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
			"exits":     exitsCmd,
			"start":     startCmd,
			"waitfor":   waitforCmd,
			"interrupt": interruptCmd,
			"save":      saveCmd,
			"replace":   replaceCmd,
		},
	})
}

func setup(env *testscript.Env) error {
	env.Setenv("PATH", filepath.Dir(program)+string(filepath.ListSeparator)+os.Getenv("PATH"))
	env.Setenv("HOME", env.WorkDir)
	env.Setenv("NO_COLOR", "1")
	env.Values[processesKey{}] = processes{}
	env.Defer(func() {
		for _, p := range env.Values[processesKey{}].(processes) {
			p.kill()
		}
	})
	if shared == nil {
		return nil // scripts that need it skip
	}
	// The script's name is a name for its namespace too; what is not allowed in one becomes a dash.
	namespace := regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(filepath.Base(env.WorkDir)), "-")
	namespace = strings.Trim(strings.TrimPrefix(namespace, "script-"), "-")
	create := exec.Command(program, "namespace", "create", namespace)
	create.Env = append(os.Environ(), "BRASA_SERVER="+shared.url, "BRASA_DATA="+shared.data)
	if out, err := create.CombinedOutput(); err != nil {
		return fmt.Errorf("make namespace %s: %w\n%s", namespace, err, out)
	}
	env.Setenv("BRASA_SERVER", shared.url)
	env.Setenv("BRASA_DATA", shared.data)
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
		return shared != nil && !strings.Contains(shared.text(), "have no way out"), nil
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

// server is a `brasa serve` of ours.
type server struct {
	*process
	url, data string
}

// startServer starts one and waits until it takes calls.
func startServer(data string, args ...string) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil { // the server takes the port over; a thief would show as an error
		return nil, err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, append([]string{"serve", "--listen", address, "--data", data}, args...)...)
	cmd.Env = append(os.Environ(), "NO_COLOR=1", "BRASA_PREFIX=t"+port)
	p, err := startProcess(cmd)
	if err != nil {
		return nil, err
	}
	s := &server{process: p, url: "http://" + address, data: data}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.ready(ctx); err != nil {
		p.kill()
		return nil, fmt.Errorf("%w; it said:\n%s", err, p.text())
	}
	return s, nil
}

func (s *server) ready(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/readyz", nil)
		if err != nil {
			return err
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.done:
			return fmt.Errorf("the server ended: %w", errors.Join(s.err))
		case <-tick.C:
		}
	}
}

// stop signals the server and wants it to end well.
func (s *server) stop(signal os.Signal) error {
	if err := s.cmd.Process.Signal(signal); err != nil {
		return err
	}
	select {
	case <-s.done:
	case <-time.After(time.Minute):
		s.kill()
		return fmt.Errorf("it did not end; it said:\n%s", s.text())
	}
	if s.err != nil {
		return fmt.Errorf("%w; it said:\n%s", s.err, s.text())
	}
	return nil
}

// process is a program that runs beside the script.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // good after done

	mu   sync.Mutex
	out  bytes.Buffer  // of stdout and stderr, guarded by mu
	more chan struct{} // closed and replaced when out grows, guarded by mu
}

// processes are those of one script, by name.
type processes map[string]*process

// processesKey is the key of processes among a script's values.
type processesKey struct{}

func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{}), more: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p, p
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with the program
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Write takes what the program writes.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.more)
	p.more = make(chan struct{})
	return p.out.Write(b)
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// waitFor returns when what was written matches.
func (p *process) waitFor(pattern *regexp.Regexp, within time.Duration) error {
	late := time.After(within)
	for {
		p.mu.Lock()
		more, found := p.more, pattern.Match(p.out.Bytes())
		p.mu.Unlock()
		if found {
			return nil
		}
		select {
		case <-more:
		case <-p.done:
			if pattern.MatchString(p.text()) {
				return nil
			}
			return fmt.Errorf("it ended without writing %q; it wrote:\n%s", pattern, p.text())
		case <-late:
			return fmt.Errorf("no %q within %s; it wrote:\n%s", pattern, within, p.text())
		}
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended already
	<-p.done
}

// server [ARG...] starts a server of the script's own and points the environment to it.
func serverCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("unsupported: ! server")
	}
	if whyNot != nil {
		ts.Fatalf("no server on this machine: %v", whyNot)
	}
	s, err := startServer(ts.MkAbs("data"), args...)
	ts.Check(err)
	ts.Value(processesKey{}).(processes)["server"] = s.process
	ts.Setenv("BRASA_SERVER", s.url)
	ts.Setenv("ADDRESS", strings.TrimPrefix(s.url, "http://"))
	ts.Setenv("BRASA_DATA", s.data)
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
	s := &server{process: p}
	switch strings.Join(args, " ") {
	case "kill":
		p.kill()
	case "int":
		ts.Check(s.stop(syscall.SIGINT))
	default:
		ts.Check(s.stop(syscall.SIGTERM))
	}
	ts.Check(os.WriteFile(ts.MkAbs("server.log"), []byte(p.text()), 0o600))
}

// exits CODE PROGRAM [ARG...] runs a program that must end with that exit code. What it wrote
// can be looked at with stdout and stderr, as after exec.
func exitsCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		got = e.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d\nstdout:\n%s\nstderr:\n%s", got, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// start NAME PROGRAM [ARG...] runs a program beside the script.
func startCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: start NAME PROGRAM [ARG...]")
	}
	path := args[1]
	if path == "brasa" {
		path = program
	}
	cmd := exec.Command(path, args[2:]...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "NO_COLOR", "BRASA_SERVER", "BRASA_DATA", "BRASA_NAMESPACE", "BRASA_PREFIX"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	p, err := startProcess(cmd)
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
	ts.Check(p.waitFor(pattern, 30*time.Second))
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
	ts.Check(p.cmd.Process.Signal(os.Interrupt))
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		ts.Fatalf("%s did not end; it wrote:\n%s", args[0], p.text())
	}
	if got := strconv.Itoa(p.cmd.ProcessState.ExitCode()); got != args[1] {
		ts.Fatalf("exit code %s, want %s; it wrote:\n%s", got, args[1], p.text())
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
