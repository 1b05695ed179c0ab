package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/fsnotify/fsnotify"
)

// candidate is a file or directory that is taken for a function.
type candidate struct {
	name  string
	path  string // as the person wrote it, for print
	input string // file to try it with; may be empty
	seen  bool   // it was deployed in this run before
}

var (
	entryFile  = regexp.MustCompile(`^((main|index|handler|function|app|server)\.(py|js|mjs|cjs|ts|mts|cts|go|rs|rb|php|sh)|(__main__|lambda_function)\.py|(Main|Handler|Function|App)\.java|pom\.xml|build\.gradle(\.kts)?|brasa\.json|package\.json|go\.mod|requirements\.txt|pyproject\.toml|Pipfile|Cargo\.toml|Gemfile|composer\.json|.+\.csproj|main|handler|bootstrap)$`)
	sourceFile = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*\.(py|js|mjs|cjs|ts|mts|cts|go|java|rb|php|sh)$`)
	testFile   = regexp.MustCompile(`(^test_|_test\.|Tests?\.java$|\.test\.|\.spec\.|^conftest\.py$|^setup\.py$|_spec\.rb$|\.d\.[mc]?ts$|\.config\.)`)
)

// tree is the directory being watched.
type tree struct {
	root    string
	file    bool // root is one file
	ignore  *cli.Ignore
	watcher *fsnotify.Watcher
	known   map[string]candidate // by name
}

func newTree(root string) (*tree, error) {
	info, err := os.Stat(root)
	if err != nil {
		return nil, noSource(root, err)
	}
	t := &tree{root: filepath.Clean(root), file: !info.IsDir(), known: map[string]candidate{}}
	dir := t.root
	if t.file {
		dir = filepath.Dir(t.root)
	}
	if t.ignore, err = cli.NewIgnore(dir); err != nil {
		return nil, err
	}
	if t.watcher, err = fsnotify.NewWatcher(); err != nil {
		return nil, err
	}
	if t.file {
		err = t.watcher.Add(dir) // not the file: editors replace it
	} else {
		err = t.add(t.root)
	}
	if err != nil {
		_ = t.watcher.Close()
		return nil, err
	}
	return t, nil
}

// Close ends the watching.
func (t *tree) Close() { _ = t.watcher.Close() }

// add watches a directory and all below it that is not ignored.
func (t *tree) add(dir string) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone while we looked
		}
		if err != nil || !d.IsDir() {
			return err
		}
		if t.ignored(p, true) || filepath.Base(p) == "node_modules" || slices.Contains(cli.Made(filepath.Dir(p)), filepath.Base(p)) {
			return fs.SkipDir
		}
		return t.watcher.Add(p)
	})
}

func (t *tree) ignored(p string, dir bool) bool {
	rel, err := filepath.Rel(t.root, p)
	return err == nil && rel != "." && t.ignore.Match(filepath.ToSlash(rel), dir)
}

// functions looks for what is a function now.
func (t *tree) functions() []candidate {
	abs, err := filepath.Abs(t.root)
	if err != nil {
		abs = t.root
	}
	if t.file {
		return []candidate{{name: legalName(stem(filepath.Base(abs))), path: t.root}}
	}
	entries, _ := os.ReadDir(t.root) // a directory that is gone has no functions
	if isFunction(entries) {
		return []candidate{{name: legalName(filepath.Base(abs)), path: t.root, input: inputOf(t.root)}}
	}
	var out []candidate
	for _, d := range entries {
		p := filepath.Join(t.root, d.Name())
		switch {
		case t.ignored(p, d.IsDir()):
		case d.IsDir():
			if below, err := os.ReadDir(p); err == nil && isFunction(below) {
				out = append(out, candidate{name: legalName(d.Name()), path: p, input: inputOf(p)})
			}
		case d.Type().IsRegular() && sourceFile.MatchString(d.Name()) && !testFile.MatchString(d.Name()):
			out = append(out, candidate{name: legalName(stem(d.Name())), path: p})
		}
	}
	return slices.DeleteFunc(out, func(c candidate) bool { return c.name == "" })
}

func isFunction(entries []fs.DirEntry) bool {
	return slices.ContainsFunc(entries, func(d fs.DirEntry) bool { return !d.IsDir() && entryFile.MatchString(d.Name()) })
}

func inputOf(dir string) string {
	file := filepath.Join(dir, "input.json")
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
}

// settleTime is how long a directory must be quiet before its functions are deployed. An editor
// that saves makes its handful of events within a few milliseconds.
const settleTime = 25 * time.Millisecond

// watch reports what there is, then what changes and what goes, until ctx ends.
func (t *tree) watch(ctx context.Context, changed func([]candidate), gone func(candidate)) error {
	report := func(touched map[string]bool) {
		var list []candidate
		now := map[string]bool{}
		for _, c := range t.functions() {
			now[c.name] = true
			old, known := t.known[c.name]
			c.seen = known
			if !known || old.path != c.path || touches(touched, c.path) {
				list = append(list, c)
			}
			t.known[c.name] = c
		}
		for name, c := range t.known {
			if !now[name] {
				delete(t.known, name)
				gone(c)
			}
		}
		if len(list) > 0 {
			changed(list)
		}
	}
	report(nil)
	touched := map[string]bool{}
	quiet := time.NewTimer(time.Hour)
	quiet.Stop()
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err, ok := <-t.watcher.Errors:
			if !ok {
				return nil
			}
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				touched[t.root] = true // something changed; nobody knows what
				quiet.Reset(settleTime)
				continue
			}
			return cli.While(err, "watch %s", t.root)
		case e, ok := <-t.watcher.Events:
			if !ok {
				return nil
			}
			if e.Op == fsnotify.Chmod {
				continue
			}
			e.Name = filepath.Clean(e.Name) // in "." it begins with ./
			info, err := os.Lstat(e.Name)
			dir := err == nil && info.IsDir()
			if t.ignored(e.Name, dir) {
				continue
			}
			if dir && e.Has(fsnotify.Create) && !t.file {
				if err := t.add(e.Name); err != nil {
					return cli.While(err, "watch %s", e.Name)
				}
			}
			touched[e.Name] = true
			quiet.Reset(settleTime)
		case <-quiet.C:
			report(touched)
			touched = map[string]bool{}
		}
	}
}

// touches says whether one of the paths is the function's, lies in it or above it.
func touches(touched map[string]bool, path string) bool {
	for p := range touched {
		if p == path || path == "." || strings.HasPrefix(p, path+string(filepath.Separator)) {
			return true
		}
	}
	return false
}

// places find a file and a line in what languages print: Python's tracebacks, and the file:line
// of the others.
var (
	pythonPlace = regexp.MustCompile(`File "/code/([^"]+)", line (\d+)`)
	otherPlace  = regexp.MustCompile(`(?:/code/|\./|\b)([A-Za-z0-9_./-]+\.(?:js|mjs|cjs|ts|mts|cts|go|java|rs|rb|php|sh|py)):(\d+)`)
)

// locate returns the place in the function's code that an error is about, as file:line; "" if
// none is named.
func locate(text string, f candidate) string {
	if all := pythonPlace.FindAllStringSubmatch(text, -1); len(all) > 0 {
		last := all[len(all)-1] // the innermost call comes last
		return localPath(last[1], f) + ":" + last[2]
	}
	for _, m := range otherPlace.FindAllStringSubmatch(text, -1) {
		if !strings.Contains(m[1], "node_modules/") && !strings.HasPrefix(m[1], "node:") {
			return localPath(m[1], f) + ":" + m[2]
		}
	}
	return ""
}

// localPath returns the person's path of a file in the function's code.
func localPath(name string, f candidate) string {
	if info, err := os.Stat(f.path); err == nil && !info.IsDir() {
		return f.path
	}
	for _, dir := range []string{f.path, filepath.Join(f.path, f.name)} {
		if p := filepath.Join(dir, filepath.FromSlash(name)); exists(p) {
			return p
		}
	}
	return name
}

func exists(p string) bool {
	_, err := os.Stat(p)
	return err == nil
}

// localPaths replaces the places where the code lies in the sandbox by those where it lies here.
func localPaths(text string, f candidate) string {
	return codePath.ReplaceAllStringFunc(text, func(m string) string {
		return localPath(strings.TrimPrefix(m, "/code/"), f)
	})
}

var codePath = regexp.MustCompile(`/code/[A-Za-z0-9_./-]*[A-Za-z0-9_-]`)
