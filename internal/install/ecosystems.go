package install

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// ecosystems are the ways of each runtime, by its name, or by that of the source that is built to it.
// The first that finds a manifest is taken.
var ecosystems = map[string][]func(Tools) Ecosystem{
	runtimes.Python: {newPip},
	runtimes.Node:   {newNPM},
	runtimes.Go:     {newGoModules},
	runtimes.Rust:   {newCargo},
	runtimes.Ruby:   {newBundler},
	runtimes.PHP:    {newComposer},
	runtimes.DotNet: {newNuGet},
	runtimes.Java:   {newMaven},
}

// Tools are what there is to install with.
type Tools struct {
	Runtimes   *runtimes.Registry
	Registries Registries
}

// Program is a tool as a step's sandbox sees it.
type Program struct {
	Path   string          // in the sandbox
	Host   string          // on this machine
	Mounts []sandbox.Mount // what Path needs that the sandbox does not see anyway
}

// Program looks for a program of one file by the first of its names that is there: in the
// directories that every sandbox sees, then in the server's PATH, from where it is mounted alone.
func (t Tools) Program(names ...string) (Program, bool) {
	for _, name := range names {
		for _, dir := range []string{"/usr/local/bin", "/usr/bin", "/bin"} {
			p := filepath.Join(dir, name)
			if real, err := filepath.EvalSymlinks(p); err == nil && strings.HasPrefix(real, "/usr/") && executable(real) {
				return Program{Path: p, Host: p}, true
			}
		}
		for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
			real, err := filepath.EvalSymlinks(filepath.Join(dir, name))
			if err == nil && filepath.IsAbs(real) && executable(real) && !script(real) {
				at := ToolDir + "/" + name
				return Program{Path: at, Host: real, Mounts: []sandbox.Mount{{Source: real, Target: at}}}, true
			}
		}
	}
	return Program{}, false
}

func executable(p string) bool {
	info, err := os.Stat(p)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o001 != 0
}

// script says whether a program begins with #!: one outside of the sandbox's directories needs
// others beside it, such as the shim of a version manager.
func script(p string) bool {
	f, err := os.Open(p)
	if err != nil {
		return true
	}
	defer f.Close()
	head := make([]byte, 2)
	n, _ := f.Read(head)
	return n == 2 && string(head) == "#!"
}
