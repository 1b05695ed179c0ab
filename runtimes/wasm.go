package runtimes

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// Arguments with which the program that serves modules of WebAssembly is begun: to be a worker,
// and to compile the module in a file into a directory.
const (
	WasmWorker  = "brasa-wasm-worker"
	WasmCompile = "brasa-wasm-compile"
)

const (
	// WasmProgram is where sandboxes see that program.
	WasmProgram = BootDir + "/brasa"
	// WasmMade is the directory beside a module that holds what compiling it has made.
	WasmMade = ".brasa"
	// WasmRefused is the file in which the compiler says why it takes a module not: an object
	// with message and fix.
	WasmRefused = "refused.json"
	// WasmEntry is what a module is called that was built here.
	WasmEntry = "function.wasm"
)

// wasmOffered is set by OfferWasm before anything is discovered.
var wasmOffered string

// OfferWasm says that the program which is running is also one that serves modules: its main
// begins with package wasm's. It is called before Discover.
func OfferWasm() { wasmOffered = "/proc/self/exe" }

// WazeroVersion is the version of wazero that is linked in, which compiles and runs modules,
// without its "v"; "unknown" if the program was built without saying what is in it, as tests are.
func WazeroVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == "github.com/tetratelabs/wazero" {
				return strings.TrimPrefix(d.Version, "v")
			}
		}
	}
	return "unknown"
}

// findWasm looks at the program that serves modules: it is this one.
func findWasm(_ context.Context, cfg Config, dir string) (*Runtime, error) {
	file := orElse(cfg.Wasm, wasmOffered)
	if file == "" {
		return nil, fmt.Errorf("this program does not serve modules of WebAssembly")
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	name, err := filepath.EvalSymlinks(file)
	if err != nil {
		name = file // removed, or replaced, while it runs
	}
	readable := info.Mode()&0o005 == 0o005
	switch {
	case readable && file != wasmOffered:
	case readable && linkProgram(file, dir) == nil:
		file = filepath.Join(dir, programName)
	default:
		// Sandboxes have users of their own, who may not read it where it is; or it can't be linked.
		if file, err = copyProgram(file, dir); err != nil {
			return nil, fmt.Errorf("copy %s to where sandboxes can read it: %w", name, err)
		}
	}
	return &Runtime{Version: WazeroVersion(), Program: name, Style: StyleFrames, bootDir: file, boot: WasmProgram}, nil
}

const programName = "brasa"

// linkProgram gives the program another name in dir, under which it can still be mounted when it
// has been replaced by a newer one while it runs.
func linkProgram(from, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	to := filepath.Join(dir, programName)
	if err := os.Remove(to); err != nil && !os.IsNotExist(err) {
		return err
	}
	return unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW)
}

func copyProgram(from, dir string) (string, error) {
	in, err := os.Open(from)
	if err != nil {
		return "", err
	}
	defer in.Close()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	to := filepath.Join(dir, programName)
	out, err := os.OpenFile(to+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Chmod(0o755) // whatever the umask is
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(to+".new", to)
	}
	return to, err
}

// WasmCompiler returns the command that compiles the module in file into the directory out, both
// as the sandbox sees them, and what is mounted for it.
func (rt *Runtime) WasmCompiler(file, out string) (args []string, mounts []Mount) {
	return []string{WasmProgram, WasmCompile, file, out}, []Mount{{rt.bootDir, WasmProgram}}
}
