// Package rust finds the program in a tree of Rust source.
//
// What it returns says where cargo is run and which of a crate's programs is meant; package deploy
// runs that in a sandbox, and package install gets what the crate depends on. Nothing here executes
// what it reads.
package rust

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Crate is a package of Rust with the program that is the function.
type Crate struct {
	Dir  string // with its Cargo.toml, below the tree, slash-separated; "." for the tree itself
	Root string // of its workspace, where Cargo.lock lies; Dir if it is in none
	Bin  string // name of the program
	Made []byte // a Cargo.toml for source that has none; else nil
}

const op = "build rust function"

// maxManifest bounds a Cargo.toml.
const maxManifest = 1 << 20

// madeName is what a crate is called that is made of a file of source.
const madeName = "function"

// manifest is the part of a Cargo.toml that says what its programs are.
type manifest struct {
	Package *struct {
		Name       string `toml:"name"`
		DefaultRun string `toml:"default-run"`
		Autobins   *bool  `toml:"autobins"`
	} `toml:"package"`
	Workspace *struct {
		Members []string `toml:"members"`
		Exclude []string `toml:"exclude"`
	} `toml:"workspace"`
	Bin []bin `toml:"bin"`
}

// bin is a program of a crate.
type bin struct {
	Name string `toml:"name"`
	Path string `toml:"path"` // below the crate
}

// Find finds the crate that entry names, a directory or a file below the tree or nothing, and its
// program. A fault of the source is faas.Invalid.
func Find(tree fs.FS, entry string) (*Crate, error) {
	dir, source := ".", ""
	if entry != "" {
		entry = path.Clean(entry)
		info, err := fs.Stat(tree, entry)
		if !fs.ValidPath(entry) || err != nil {
			return nil, faas.Errorf(faas.Invalid, op, "the code has no file %q", entry)
		}
		if dir = entry; !info.IsDir() {
			dir = path.Dir(entry)
			if path.Ext(entry) == ".rs" {
				source = entry
			}
		}
	}
	dir, m, err := nearest(tree, dir)
	if err != nil {
		return nil, err
	}
	if m == nil {
		if source == "" {
			return nil, faas.Errorf(faas.Invalid, op, "the code has no Cargo.toml").WithFix("begin a crate with cargo init, or say which file of source is the program with --entry")
		}
		return &Crate{Dir: ".", Root: ".", Bin: madeName, Made: fmt.Appendf(nil,
			"[package]\nname = %q\nversion = \"0.0.0\"\nedition = \"2021\"\n\n[[bin]]\nname = %q\npath = %q\n", madeName, madeName, source)}, nil
	}
	if m.Package == nil {
		return findMember(tree, dir, m)
	}
	c := &Crate{Dir: dir}
	if c.Bin, err = choose(tree, dir, m, source); err != nil {
		return nil, err
	}
	c.Root, err = workspaceOf(tree, dir, m)
	return c, err
}

// nearest reads the Cargo.toml of a directory, or of the nearest above; nil if there is none.
func nearest(tree fs.FS, dir string) (string, *manifest, error) {
	for {
		m, err := read(tree, dir)
		if m != nil || err != nil {
			return dir, m, err
		}
		if dir == "." {
			return ".", nil, nil
		}
		dir = path.Dir(dir)
	}
}

// read returns nil if the directory has no Cargo.toml.
func read(tree fs.FS, dir string) (*manifest, error) {
	name := path.Join(dir, "Cargo.toml")
	f, err := tree.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, faas.Errorf(faas.Invalid, op, "%s cannot be read", name)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(b) > maxManifest {
		return nil, faas.Errorf(faas.TooLarge, op, "%s is larger than %s", name, faas.Bytes(maxManifest))
	}
	m := &manifest{}
	if err := toml.Unmarshal(b, m); err != nil {
		return nil, faas.Errorf(faas.Invalid, op, "%s: %v", name, err)
	}
	return m, nil
}

// bins lists the programs of a crate as cargo finds them.
func bins(tree fs.FS, dir string, m *manifest) []bin {
	all := slices.Clone(m.Bin)
	for i, b := range all {
		if b.Path == "" {
			for _, try := range []string{"src/bin/" + b.Name + ".rs", "src/bin/" + b.Name + "/main.rs", "src/main.rs"} {
				if regular(tree, path.Join(dir, try)) {
					all[i].Path = try
					break
				}
			}
		}
	}
	if m.Package.Autobins != nil && !*m.Package.Autobins {
		return all
	}
	add := func(name, file string) {
		if regular(tree, path.Join(dir, file)) && !slices.ContainsFunc(all, func(b bin) bool { return b.Name == name || path.Clean(b.Path) == file }) {
			all = append(all, bin{name, file})
		}
	}
	add(m.Package.Name, "src/main.rs")
	entries, _ := fs.ReadDir(tree, path.Join(dir, "src/bin")) // mostly there is none
	for _, e := range entries {
		if e.IsDir() {
			add(e.Name(), "src/bin/"+e.Name()+"/main.rs")
		} else if name, ok := strings.CutSuffix(e.Name(), ".rs"); ok {
			add(name, "src/bin/"+e.Name())
		}
	}
	return all
}

func regular(tree fs.FS, name string) bool {
	info, err := fs.Stat(tree, name)
	return err == nil && info.Mode().IsRegular()
}

// choose returns the name of the program that is meant.
func choose(tree fs.FS, dir string, m *manifest, source string) (string, error) {
	all := bins(tree, dir, m)
	if source != "" {
		for _, b := range all {
			if path.Join(dir, b.Path) == source {
				return b.Name, nil
			}
		}
		return "", faas.Errorf(faas.Invalid, op, "%s is not the source of a program of the crate %s; there are %s", source, m.Package.Name, some(dir, all)).
			WithFix("leave --entry out, or name one of these")
	}
	switch {
	case len(all) == 1:
		return all[0].Name, nil
	case len(all) == 0:
		return "", faas.Errorf(faas.Invalid, op, "the crate %s is a library and has no program", m.Package.Name).
			WithFix("write src/main.rs: fn main reads the request from stdin and writes the answer to stdout")
	case m.Package.DefaultRun != "":
		return m.Package.DefaultRun, nil
	}
	return "", faas.Errorf(faas.Invalid, op, "the crate %s has several programs: %s", m.Package.Name, some(dir, all)).
		WithFix("say which with --entry %s, or with default-run in Cargo.toml", path.Join(dir, all[0].Path))
}

func some(dir string, all []bin) string {
	var names []string
	for _, b := range all {
		names = append(names, path.Join(dir, b.Path))
	}
	if len(names) == 0 {
		return "none"
	}
	if len(names) > 8 {
		names = append(names[:8], fmt.Sprintf("%d more", len(names)-8))
	}
	return strings.Join(names, ", ")
}

// findMember finds the only crate of a workspace that has a program.
func findMember(tree fs.FS, root string, m *manifest) (*Crate, error) {
	if m.Workspace == nil {
		return nil, faas.Errorf(faas.Invalid, op, "%s has neither a package nor a workspace", path.Join(root, "Cargo.toml"))
	}
	var have []*Crate
	for _, dir := range members(tree, root, m) {
		member, err := read(tree, dir)
		if err != nil {
			return nil, err
		}
		if member == nil || member.Package == nil {
			continue
		}
		if name, err := choose(tree, dir, member, ""); err == nil {
			have = append(have, &Crate{Dir: dir, Root: root, Bin: name})
		}
	}
	switch len(have) {
	case 1:
		return have[0], nil
	case 0:
		return nil, faas.Errorf(faas.Invalid, op, "no member of the workspace has a program, or one that is meant").WithFix("say which file is the program's with --entry")
	}
	var names []string
	for _, c := range have {
		names = append(names, c.Dir)
	}
	return nil, faas.Errorf(faas.Invalid, op, "several members of the workspace have programs: %s", strings.Join(names, ", ")).WithFix("say which with --entry %s", names[0])
}

// members lists the directories of a workspace's members.
func members(tree fs.FS, root string, m *manifest) []string {
	var dirs []string
	for _, pattern := range m.Workspace.Members {
		found, err := fs.Glob(tree, path.Join(root, pattern))
		if err != nil {
			continue // cargo says so
		}
		for _, dir := range found {
			excluded := slices.ContainsFunc(m.Workspace.Exclude, func(x string) bool { return path.Join(root, x) == dir })
			if !excluded && !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs
}

// workspaceOf returns the root of the workspace that a crate belongs to: its own, or one above that
// lists it.
func workspaceOf(tree fs.FS, dir string, own *manifest) (string, error) {
	if own.Workspace != nil || dir == "." {
		return dir, nil
	}
	for at := path.Dir(dir); ; at = path.Dir(at) {
		m, err := read(tree, at)
		if err != nil {
			return "", err
		}
		if m != nil && m.Workspace != nil {
			// Members need not be listed that others depend on by their path; what is excluded is not one.
			if slices.ContainsFunc(m.Workspace.Exclude, func(x string) bool { return path.Join(at, x) == dir }) {
				return dir, nil
			}
			return at, nil
		}
		if at == "." {
			return dir, nil
		}
	}
}

// Names lists the names of all crates in a tree, apart from what a build has made there.
func Names(tree fs.FS) ([]string, error) {
	var names []string
	err := fs.WalkDir(tree, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && name == "target" {
			return fs.SkipDir
		}
		if e.Name() != "Cargo.toml" || e.IsDir() {
			return nil
		}
		m, err := read(tree, path.Dir(name))
		if err != nil || m == nil || m.Package == nil {
			return nil // cargo says what is wrong with one that it reads
		}
		if m.Package.Name != "" && !slices.Contains(names, m.Package.Name) {
			names = append(names, m.Package.Name)
		}
		return nil
	})
	return names, err
}
