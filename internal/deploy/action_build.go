package deploy

import (
	"context"
	_ "embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// Actions in Go, Rust and Swift are functions that a program around them calls: it speaks ActionLoop, is laid
// beside them here, and built with them.

//go:embed launcher/launcher.go.txt
var goLauncher string

//go:embed launcher/launcher.rs.txt
var rustLauncher string

// goLauncherFile is the file of the program around an action in Go.
const goLauncherFile = "brasa_launcher.go"

// builder returns what is done to the code of an action before it is stored, or nil.
func (a *action) builder() builder {
	d := a.d
	switch {
	case a.plan.Source == runtimes.Go:
		return d.buildGo
	case a.plan.Source == runtimes.Rust:
		return d.buildRust
	case a.plan.Source == runtimes.Swift:
		return d.buildSwift
	case a.plan.Runtime == runtimes.Python && d.cfg.Sandbox != nil:
		return d.compilePython
	case a.plan.Runtime == runtimes.Node && d.cfg.Sandbox != nil:
		return d.buildNode
	}
	return nil
}

// launch lays the program around the source of an action.
func (a *action) launch() error {
	if a.d.cfg.Sandbox == nil {
		return faas.Errorf(faas.Unavailable, opAction, "this server builds nothing")
	}
	a.plan.Build = true
	a.plan.Env[runtimes.LoopAck] = "1"
	launch := a.launchRust
	switch a.plan.Source {
	case runtimes.Go:
		launch = a.launchGo
	case runtimes.Swift:
		launch = a.launchSwift
	}
	err := launch()
	a.plan.Handler = "" // what is built is the program around it
	return err
}

// goPlaces are where an archive may have its package main.
var goPlaces = []string{".", "main", "src", "src/main"}

func (a *action) launchGo() error {
	dir, own, err := a.findGo()
	if err != nil {
		return err
	}
	a.plan.Entry = dir
	if own { // it is the program itself
		return nil
	}
	name, err := exportedName(a.plan.Handler)
	if err != nil {
		return err
	}
	a.plan.Entry = path.Join(dir, goLauncherFile)
	return os.WriteFile(filepath.Join(a.src, filepath.FromSlash(a.plan.Entry)), []byte(strings.ReplaceAll(goLauncher, "ACTION", name)), 0o644)
}

// findGo returns the directory of the package main, and whether it has a main of its own.
func (a *action) findGo() (dir string, own bool, err error) {
	for _, dir := range goPlaces {
		files, err := filepath.Glob(filepath.Join(a.src, filepath.FromSlash(dir), "*.go"))
		if err != nil {
			return "", false, err
		}
		is := false
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
			if parsed == nil || parsed.Name == nil {
				return "", false, faas.Errorf(faas.Failed, "build function", "%s: %v", filepath.Base(file), err)
			}
			// What can't be parsed is for the compiler to say.
			is = is || parsed.Name.Name == "main"
			for _, d := range parsed.Decls {
				own = own || isMain(d)
			}
		}
		if is {
			return dir, own, nil
		}
	}
	return "", false, faas.Errorf(faas.Invalid, opAction, "the code has no package main at its top or in %s", strings.Join(goPlaces[1:], ", "))
}

func isMain(d ast.Decl) bool {
	f, ok := d.(*ast.FuncDecl)
	return ok && f.Recv == nil && f.Name.Name == "main"
}

// exportedName makes of an action's main the name of a function: with a capital, as it is exported.
func exportedName(name string) (string, error) {
	if !token.IsIdentifier(name) {
		return "", faas.Errorf(faas.Invalid, opAction, "%q is no name of a function", name)
	}
	r, n := utf8.DecodeRuneInString(name)
	return string(unicode.ToUpper(r)) + name[n:], nil
}

var (
	rustName   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	rustSingle = "[package]\nname = \"actions\"\nversion = \"0.1.0\"\nedition = \"2018\"\n\n[dependencies]\nserde = { version = \"1\", features = [\"derive\"] }\nserde_derive = \"1\"\nserde_json = \"1\"\n"
	rustAround = "[package]\nname = \"brasa-action\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[[bin]]\nname = \"brasa-action\"\npath = \"main.rs\"\n\n[dependencies]\nserde_json = \"1\"\nactions = { path = \"actions\", package = %q }\n"
)

// launchRust makes the code the crate "actions" of a crate that is the program.
func (a *action) launchRust() error {
	if !rustName.MatchString(a.plan.Handler) {
		return faas.Errorf(faas.Invalid, opAction, "%q is no name of a function", a.plan.Handler)
	}
	root, err := os.OpenRoot(a.src)
	if err != nil {
		return err
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	if err := root.Mkdir(".actions", 0o755); err != nil {
		return faas.Errorf(faas.Invalid, opAction, "the archive has a file .actions, which has no place there")
	}
	for _, e := range entries {
		if err := root.Rename(e.Name(), ".actions/"+e.Name()); err != nil {
			return err
		}
	}
	if err := root.Rename(".actions", "actions"); err != nil {
		return err
	}
	name := "actions"
	switch text, err := root.ReadFile("actions/Cargo.toml"); {
	case err == nil:
		var m struct {
			Package struct {
				Name string `toml:"name"`
			} `toml:"package"`
		}
		if err := toml.Unmarshal(text, &m); err != nil || m.Package.Name == "" {
			return faas.Errorf(faas.Invalid, opAction, "Cargo.toml names no package: %v", err)
		}
		name = m.Package.Name
	case len(entries) == 1 && entries[0].Name() == actionFiles[runtimes.Rust]:
		if err := root.Mkdir("actions/src", 0o755); err != nil {
			return err
		}
		if err := root.Rename("actions/lib.rs", "actions/src/lib.rs"); err != nil {
			return err
		}
		if err := root.WriteFile("actions/Cargo.toml", []byte(rustSingle), 0o644); err != nil {
			return err
		}
	default:
		return faas.Errorf(faas.Invalid, opAction, "the archive does not include Cargo.toml at its top")
	}
	if err := root.WriteFile("Cargo.toml", fmt.Appendf(nil, rustAround, name), 0o644); err != nil {
		return err
	}
	return root.WriteFile("main.rs", []byte(strings.ReplaceAll(rustLauncher, "ACTION", a.plan.Handler)), 0o644)
}

// need gets what a build can't do without.
func (a *action) need(ctx context.Context) (err error) {
	a.deps, err = a.d.install(ctx, a.req, a.plan, a.src, a.steps)
	return err
}
