// Package openwhisk tests the dialect of OpenWhisk as its users meet it: each .txtar file is a
// story, told by OpenWhisk's own clients (wsk, wskdeploy, the libraries for Node.js and Go) and by
// plain requests, to the real binary's server.
//
// A line "# items: 16 17" in a file names the behaviours of the contract that it shows. The program
// in folder items prints which of them nothing shows.
package openwhisk_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/brasa-dev/brasa/test/program"
)

var (
	// binaries is the folder of the programs under test and of the clients.
	binaries string
	// shared is the server of the scripts that start none of their own; each has a subject to itself there.
	shared *program.Server
	// whyNot says why there is no server on this machine.
	whyNot error
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "brasa-openwhisk-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binaries = filepath.Join(dir, "bin")
		modules = filepath.Join(dir, "node")
		if err := build(".", "brasa", "github.com/brasa-dev/brasa/cmd/brasa"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if shared, whyNot = program.Serve(brasa(), filepath.Join(dir, "data")); shared != nil {
			defer func() {
				if err := shared.Stop(syscall.SIGTERM); err != nil {
					fmt.Fprintln(os.Stderr, "stop the shared server:", err)
				}
			}()
		}
		return m.Run()
	}())
}

// brasa is the path of the program under test.
func brasa() string { return filepath.Join(binaries, "brasa") }

// makeSubject makes a subject with a namespace of its name, and returns its UUID:KEY.
func makeSubject(at *program.Server, name string) (string, error) {
	return at.Ask("subject", "create", name, "-o", "name")
}

func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: ".", Setup: setup, Condition: condition, Cmds: commands})
}

// setup gives a script a subject of its own and has the clients know it.
func setup(env *testscript.Env) error {
	env.Setenv("PATH", binaries+string(filepath.ListSeparator)+os.Getenv("PATH"))
	env.Setenv("HOME", env.WorkDir)
	env.Setenv("NO_COLOR", "1")
	env.Setenv("DOTNET", dotnetSDK())
	env.Setenv("NODE_PATH", filepath.Join(modules, "node_modules"))
	s := &story{env: env, name: scriptName(env.WorkDir), keys: map[string]string{}}
	env.Values[storyKey{}] = s
	env.Defer(s.end)
	if shared == nil {
		return nil // scripts that need it skip
	}
	return s.use(shared)
}

var told sync.Map // of how often each script was told again, *atomic.Int64, by name

// scriptName is a script's name as a name of a subject: what is not allowed in one becomes a dash.
func scriptName(workDir string) string {
	name := regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(filepath.Base(workDir)), "-")
	name = "ow-" + strings.Trim(strings.TrimPrefix(name, "script-"), "-") // a subject's name is not short
	if n, again := told.LoadOrStore(name, new(atomic.Int64)); again {     // with -count
		name += "-" + strconv.FormatInt(n.(*atomic.Int64).Add(1), 10)
	}
	return name
}

func condition(cond string) (bool, error) {
	switch cond {
	case "server":
		return shared != nil, nil
	case "inside": // functions get to the server
		return shared != nil && !strings.Contains(shared.Text(), "have no way out"), nil
	case "wsk", "wskdeploy", "goclient", "npm", "dotnet":
		return clients[cond]() == nil, nil
	}
	if program, ok := strings.CutPrefix(cond, "kind:"); ok {
		return hasKind(program)
	}
	return false, fmt.Errorf("unknown condition %q", cond)
}

// hasKind says whether this machine runs actions of a family.
func hasKind(family string) (bool, error) {
	program := map[string]string{"nodejs": "node", "python": "python3", "go": "go", "java": "javac", "php": "php", "ruby": "ruby", "rust": "cargo", "swift": "swiftc"}[family]
	if program == "" {
		return false, fmt.Errorf("unknown family %q", family)
	}
	_, err := exec.LookPath(program)
	return err == nil, nil
}

// storyKey is the key of the story among a script's values.
type storyKey struct{}

// story is a script on its way.
type story struct {
	env  *testscript.Env
	name string
	own  *program.Server   // its own server, if it started one
	at   *program.Server   // the one that it talks to
	keys map[string]string // UUID:KEY by the name of a subject, "" its own
	last answer
}

func (s *story) end() {
	if s.own != nil {
		s.own.Kill()
	}
}

// use points the script and its clients to a server, with a new subject there.
func (s *story) use(at *program.Server) error {
	key, err := makeSubject(at, s.name)
	if err != nil {
		return err
	}
	s.keys[""] = key
	s.env.Setenv("AUTH", key)
	s.env.Setenv("NAMESPACE", s.name)
	s.env.Setenv("BRASA_NAMESPACE", s.name)
	return s.point(at)
}

// point points the script and its clients to a server that knows its subject.
func (s *story) point(at *program.Server) error {
	s.at = at
	s.env.Setenv("BRASA_SERVER", at.URL)
	s.env.Setenv("BRASA_DATA", at.Data)
	s.env.Setenv("APIHOST", at.URL)
	props := fmt.Sprintf("APIHOST=%s\nAUTH=%s\nNAMESPACE=_\n", at.URL, s.keys[""])
	return os.WriteFile(filepath.Join(s.env.WorkDir, ".wskprops"), []byte(props), 0o600)
}
