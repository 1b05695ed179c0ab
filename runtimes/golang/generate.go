// Package golang makes a program of a function written in Go.
//
// Generate copies the source, finds the handler by parsing it, and adds a main and the
// bootstrap (the package in bootstrap/, copied into the function's own module so that nothing
// must be fetched). What it returns says how to build the result; package deploy runs that in a
// sandbox. Nothing here executes what it reads.
package golang

import (
	"embed"
	"fmt"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

//go:embed bootstrap/*.go
var bootstrap embed.FS

// Form is what a handler takes and returns.
type Form string

// Forms.
const (
	FormValue   Form = "value"   // a context, a value, both or neither; returns a value, an error, both or neither
	FormHTTP    Form = "http"    // func(http.ResponseWriter, *http.Request)
	FormProgram Form = "program" // package main with its own main: an executable, not a handler
)

// Options adjust Generate.
type Options struct {
	Handler string // name of the function; empty: Handle, Main and Handler are looked for
	Entry   string // file or directory of the function's package below the source; empty: found
	Go      string // the go command as the build sees it; empty: "go"
	Version string // of the toolchain, "1.26.1", for a module that is made here; empty: 1.23
	Output  string // path of the program as the build sees it
	Modules string // where modules lie that were got for the build, as it sees them; empty: there are none
	Mod     []byte // go.mod and go.sum as they were resolved, instead of the source's own; nil: these count
	Sum     []byte
}

// Build says how to build what Generate made.
type Build struct {
	Form    Form
	Handler string   // name of the function that was found; empty for FormProgram
	Package string   // directory of the function's package below the source, slash-separated
	Args    []string // the command, to be run in the directory that was generated
	Env     []string // to be added to PATH and a writable HOME
	Modules bool     // modules are required that are not in a vendor directory
}

// bootDir is where the bootstrap goes in the function's module, and mainDir the generated main
// of a function that is not itself in package main.
const (
	bootDir = "internal/brasaboot"
	mainDir = "internal/brasamain"
)

const op = "build go function"

// Generate reads the function's source in the directory src and writes what is to be built into
// dst, which must be empty. A fault of the source is faas.Invalid, with the place in it.
func Generate(src, dst string, o Options) (*Build, error) {
	if o.Go == "" {
		o.Go = "go"
	}
	// The source is a stranger's and this runs with the server's rights: what is read and written
	// stays below src and dst whatever links there are.
	in, err := os.OpenRoot(src)
	if err != nil {
		return nil, fmt.Errorf("read source: %w", err)
	}
	defer in.Close()
	p, err := findPackage(in, o)
	if err != nil {
		return nil, err
	}
	if err := os.CopyFS(dst, in.FS()); err != nil {
		return nil, fmt.Errorf("copy source: %w", err)
	}
	out, err := os.OpenRoot(dst)
	if err != nil {
		return nil, fmt.Errorf("copy source: %w", err)
	}
	defer out.Close()
	if err := pin(out, o); err != nil {
		return nil, err
	}
	module, requires, err := ensureModule(out, o.Version)
	if err != nil {
		return nil, err
	}
	b := &Build{Form: p.form, Handler: p.handler, Package: p.dir}
	target := "./" + p.dir
	if p.form != FormProgram {
		if err := addBootstrap(out, p.form); err != nil {
			return nil, err
		}
		if target, err = addMain(out, module, p); err != nil {
			return nil, err
		}
	}
	b.Args = []string{o.Go, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w"}
	b.Env = []string{"CGO_ENABLED=0", "GOTOOLCHAIN=local", "GOFLAGS=", "GOWORK=off", "GOTELEMETRY=off"}
	_, err = out.Stat("vendor/modules.txt")
	switch {
	case err == nil:
		b.Args = append(b.Args, "-mod=vendor")
		b.Env = append(b.Env, "GOPROXY=off")
	case requires:
		mode := "-mod=readonly"
		if o.Mod != nil || o.Modules == "" { // modules in the source alone, which go.sum does not speak of
			mode = "-mod=mod" // adds what is required indirectly
		}
		b.Args = append(b.Args, mode)
		// All hashes are compared with go.sum, or were when they were resolved.
		b.Env = append(b.Env, "GOPROXY=off", "GOSUMDB=off")
		if o.Modules != "" {
			b.Env = append(b.Env, "GOMODCACHE="+o.Modules)
		}
		b.Modules = true
	default:
		b.Args = append(b.Args, "-mod=mod")
		b.Env = append(b.Env, "GOPROXY=off")
	}
	b.Args = append(b.Args, "-o", o.Output, target)
	return b, nil
}

// pin puts what was resolved in the place of the source's own. The module keeps its name.
func pin(dst *os.Root, o Options) error {
	if o.Mod == nil {
		return nil
	}
	mod := o.Mod
	left := int64(maxSource)
	if own, err := readSource(dst, "go.mod", &left); err == nil {
		if m := moduleLine.FindSubmatch(own); m != nil {
			mod = moduleLine.ReplaceAllLiteral(mod, append([]byte("module "), m[1]...))
		}
	}
	if err := dst.WriteFile("go.mod", mod, 0o644); err != nil {
		return fmt.Errorf("write go.mod: %w", err)
	}
	if o.Sum == nil {
		return nil
	}
	if err := dst.WriteFile("go.sum", o.Sum, 0o644); err != nil {
		return fmt.Errorf("write go.sum: %w", err)
	}
	return nil
}

var (
	moduleLine  = regexp.MustCompile(`(?m)^\s*module\s+("[^"]+"|\S+)`)
	requireLine = regexp.MustCompile(`(?m)^\s*require[\s(]`)
)

// ensureModule returns the path of the module in dir and whether it requires others. A source
// without go.mod gets one.
func ensureModule(dst *os.Root, version string) (module string, requires bool, err error) {
	left := int64(maxSource)
	if _, err := dst.Lstat("go.mod"); os.IsNotExist(err) {
		language := "1.23" // the least that the bootstrap needs
		if v := strings.SplitN(version, ".", 3); len(v) >= 2 {
			language = v[0] + "." + v[1]
		}
		module = "function"
		return module, false, dst.WriteFile("go.mod", fmt.Appendf(nil, "module %s\n\ngo %s\n", module, language), 0o644)
	}
	content, err := readSource(dst, "go.mod", &left)
	if err != nil {
		return "", false, err
	}
	m := moduleLine.FindSubmatch(content)
	if m == nil {
		return "", false, faas.Errorf(faas.Invalid, op, "go.mod has no module line")
	}
	return strings.Trim(string(m[1]), `"`), requireLine.Match(content), nil
}

// addBootstrap copies the bootstrap, without what only programs of ours use; the part that needs
// net/http only where it is used, for that takes most of the time to compile.
func addBootstrap(dst *os.Root, form Form) error {
	if _, err := dst.Lstat(bootDir); err == nil {
		return faas.Errorf(faas.Invalid, op, "the source has a directory %s, which is the platform's", bootDir)
	}
	if err := dst.MkdirAll(bootDir, 0o755); err != nil {
		return fmt.Errorf("write bootstrap: %w", err)
	}
	files, err := fs.Glob(bootstrap, "bootstrap/*.go")
	if err != nil {
		return err
	}
	for _, name := range files {
		if base := path.Base(name); strings.HasSuffix(base, "_test.go") || base == "host.go" || base == "http.go" && form != FormHTTP {
			continue
		}
		content, err := bootstrap.ReadFile(name)
		if err != nil {
			return err
		}
		// The function's module may be written for a language older than the bootstrap's.
		content = append([]byte("//go:build go1.23\n\n"), content...)
		if err := dst.WriteFile(path.Join(bootDir, path.Base(name)), content, 0o644); err != nil {
			return fmt.Errorf("write bootstrap: %w", err)
		}
	}
	return nil
}

// addMain writes main and returns the package to build. A handler in package main can't be
// imported, so its main lies beside it.
func addMain(dst *os.Root, module string, p *found) (target string, err error) {
	adapter := map[Form]string{FormValue: "Value", FormHTTP: "HTTP"}[p.form]
	var dir, source string
	if p.name == "main" {
		dir = p.dir
		source = fmt.Sprintf("package main\n\nimport brasaboot %q\n\nfunc main() { brasaboot.Serve(brasaboot.%s(%s)) }\n",
			path.Join(module, bootDir), adapter, p.handler)
	} else {
		dir = mainDir
		source = fmt.Sprintf("package main\n\nimport (\n\tfunction %q\n\tbrasaboot %q\n)\n\nfunc main() { brasaboot.Serve(brasaboot.%s(function.%s)) }\n",
			path.Join(module, p.dir), path.Join(module, bootDir), adapter, p.handler)
		if !token.IsExported(p.handler) {
			return "", faas.Errorf(faas.Invalid, op, "%s: the handler %s must begin with a capital letter, for package %s is imported", p.place, p.handler, p.name)
		}
	}
	if err := dst.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("write main: %w", err)
	}
	// The name sorts and reads unlike any that a person would choose.
	if err := dst.WriteFile(path.Join(dir, "brasa_generated_main.go"), []byte(source), 0o644); err != nil {
		return "", fmt.Errorf("write main: %w", err)
	}
	return "./" + dir, nil
}
