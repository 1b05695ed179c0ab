package runtimes

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Places inside a sandbox.
const (
	CodeDir = "/code"  // the function's code, read-only
	BootDir = "/brasa" // the runtime's bootstrap, read-only
)

// Style says how one talks to a runtime's process.
type Style uint8

// Styles.
const (
	StyleFrames Style = iota // frames over descriptor 3: Conn
	StyleExec                // a process per call: ExecCall
	StyleLines               // a line per call: Lines
	StyleHTTP                // a server on $PORT: HTTPConn
	StyleAction              // a server that is sent its function: Action
	StyleEvents              // a client that asks for its calls: Events
	StyleLoop                // a line per call, one call at a time: Loop
)

var styleNames = [...]string{StyleFrames: "frames", StyleExec: "exec", StyleLines: "lines", StyleHTTP: "http", StyleAction: "action", StyleEvents: "events", StyleLoop: "loop"}

// String returns the style's name.
func (s Style) String() string { return styleNames[s] }

// MarshalText writes the name.
func (s Style) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Runtime is a language at a version, as found on this host. It is fixed after Discover.
type Runtime struct {
	Name    string // python, node, go, java, ruby, php, rust, dotnet, swift, wasm, exec, lines, http
	Version string // "3.11.2"; empty where there is none
	Style   Style
	Program string // absolute path of the interpreter or toolchain, on the host and in the sandbox
	RootDir string // directory outside /usr that the program needs; empty: none
	// Compiler is the absolute path of what makes the program of source at deploy, where that is
	// another program; empty: there is none.
	Compiler string
	// Tools are what a build sees of the toolchain, where it is not among what every sandbox sees:
	// of Rust, whose programs need nothing of it when they run.
	Tools []Mount
	// Targets are what Rust can build for, the host's own platform first.
	Targets []string

	// Archive holds the classes that a process of the runtime would otherwise load at its start; nil:
	// there can be none.
	Archive *Archive

	bootDir string   // host directory, for wasm the program, that is mounted at BootDir; empty: none
	boot    string   // bootstrap's file in it
	zygote  string   // the zygote's file in it; empty: there is none
	args    []string // of the interpreter
	others  map[string]string
	reseeds error // see Reseeds
	plain   bool  // of .NET: it knows no cultures here
}

// Mount is a host directory that a sandbox needs, read-only.
type Mount struct{ Source, Target string }

// Port is what an HTTP function listens on; its sandbox has a network namespace of its own, so
// all can have the same.
const Port = 8080

// Command returns how the runtime's process is started: its arguments, its environment, and
// what is mounted besides the code at /code. For StyleFrames the environment of the function
// itself travels in LOAD, so that the process can be started before it is known whose it will
// be: rev may be nil, and Env holds no secret. For the other styles rev must be given, and the
// caller adds Environ. For StyleExec it is the command of one call.
func (rt *Runtime) Command(rev *faas.Revision) (args, env []string, mounts []Mount) {
	if rev != nil && rev.Image != nil {
		return slices.Clone(rev.Command), imageEnv(rev), nil
	}
	env = []string{"PATH=" + rt.path(), "HOME=/tmp", "TMPDIR=/tmp", "LANG=C.UTF-8", "LC_ALL=C.UTF-8"}
	switch {
	case rt.Name == Wasm:
		mounts = append(mounts, Mount{rt.bootDir, WasmProgram}) // one file
	case rt.bootDir != "":
		mounts = append(mounts, Mount{rt.bootDir, BootDir})
	}
	switch rt.Name {
	case Python:
		args = append([]string{rt.Program}, rt.args...)
		args = append(args, BootDir+"/"+rt.boot)
	case Node:
		var more []string
		args, more = rt.nodeCommand(rev)
		env = append(env, more...)
	case Java, DotNet:
		var memory faas.Bytes
		if rev != nil {
			memory = rev.Limits.Memory
		}
		command := rt.javaCommand
		if rt.Name == DotNet {
			command = rt.dotnetCommand
		}
		var more []string
		args, more = command(memory)
		env = append(env, more...)
	case Ruby, PHP:
		args = append([]string{rt.Program}, rt.args...)
		args = append(args, BootDir+"/"+rt.boot)
		if rt.Name == PHP {
			env = append(env, "PHP_INI_SCAN_DIR=") // php.ini of ours holds it all
		}
	case Wasm:
		args = []string{WasmProgram, WasmWorker}
	case Go:
		args = []string{CodeDir + "/" + entry(rev, GoBinary)}
	default:
		args = rt.command(rev)
	}
	switch rt.Style {
	case StyleHTTP, StyleAction:
		env = append(env, fmt.Sprintf("PORT=%d", Port))
	case StyleEvents:
		for k, v := range lambdaEnv(rev) {
			env = append(env, k+"="+v)
		}
	}
	return args, env, mounts
}

// heapMiB is how large V8 may let its heap grow: a quarter is left for the program itself and
// for buffers, so that a leak ends as an error of JavaScript with a trace more often than as a
// kill.
func heapMiB(memory faas.Bytes) int64 { return max(int64(memory/faas.MiB)*3/4, 16) }

func entry(rev *faas.Revision, otherwise string) string {
	if rev == nil || rev.Entry == "" {
		return otherwise
	}
	return rev.Entry
}

// command returns what is run for a revision of an executable: its command, or its entry by the
// interpreter that its name asks for, or its entry itself.
func (rt *Runtime) command(rev *faas.Revision) []string {
	if len(rev.Command) > 0 {
		args := slices.Clone(rev.Command)
		switch {
		case strings.HasPrefix(args[0], "./"):
			args[0] = CodeDir + args[0][1:]
		case !strings.Contains(args[0], "/"):
			if p := rt.others[args[0]]; p != "" {
				args[0] = p
			}
		case !strings.HasPrefix(args[0], "/"):
			args[0] = CodeDir + "/" + args[0]
		}
		return args
	}
	file := CodeDir + "/" + rev.Entry
	if rev.Handler != "" && rt.others[rev.Handler] != "" {
		return []string{rt.others[rev.Handler], file}
	}
	return []string{file}
}

func (rt *Runtime) path() string {
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, dir := range slices.Sorted(maps.Keys(dirs(rt.others))) {
		path = dir + ":" + path
	}
	return path
}

func dirs(programs map[string]string) map[string]bool {
	out := make(map[string]bool)
	for _, p := range programs {
		if dir := p[:strings.LastIndexByte(p, '/')]; !strings.HasPrefix(dir, "/usr/bin") && !strings.HasPrefix(dir, "/bin") {
			out[dir] = true
		}
	}
	return out
}

// reservedEnv names variables that a function may not set for itself because they would change
// how the runtime starts or what the platform says of a call.
var reservedEnv = map[string]bool{"PORT": true}

// CheckEnv says whether a name may be a variable of a function's environment.
func CheckEnv(name string) error {
	for i := 0; i < len(name); i++ {
		c := name[i]
		if !(c == '_' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || i > 0 && c >= '0' && c <= '9') {
			return faas.Errorf(faas.Invalid, "check environment", "%q is not a variable's name: use letters, digits and '_', not beginning with a digit", clip(name))
		}
	}
	switch {
	case name == "" || len(name) > 255:
		return faas.Errorf(faas.Invalid, "check environment", "a variable's name must have 1 to 255 characters")
	case reservedEnv[name] || strings.HasPrefix(name, "BRASA_") || strings.HasPrefix(name, "LD_") || strings.HasPrefix(name, "BASH_FUNC_"):
		return faas.Errorf(faas.Invalid, "check environment", "the variable %s is the platform's to set", name)
	}
	return nil
}

// Environ returns the environment of a revision's function: what it was deployed with, the
// secrets it names, and what the platform says of it. A secret wins over a variable of its name.
func Environ(rev *faas.Revision, secrets map[string]string) map[string]string {
	env := make(map[string]string, len(rev.Env)+len(secrets)+4)
	maps.Copy(env, rev.Env)
	maps.Copy(env, secrets)
	if rev.Contract == faas.ContractOpenWhisk && rev.Limits.Concurrency > 1 {
		env["__OW_ALLOW_CONCURRENT"] = "true"
	}
	env["BRASA_NAMESPACE"] = rev.Name.Namespace
	env["BRASA_FUNCTION"] = rev.Name.Path()
	env["BRASA_REVISION"] = string(rev.ID)
	env["BRASA_MEMORY_BYTES"] = fmt.Sprint(int64(rev.Limits.Memory))
	return env
}
