package cli

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// IgnoreFile is where a directory says what is not part of its code, in the patterns of
// .gitignore.
const IgnoreFile = ".brasaignore"

// never are the patterns that hold everywhere unless a directory's own file takes them back with
// "!": other tools' state, caches, and files that hold secrets by custom.
var never = []string{
	".git/", ".hg/", ".svn/", ".jj/", ".idea/", ".vscode/", ".DS_Store", "__pycache__/", "*.py[cod]",
	".venv/", "venv/", ".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".env", ".env.*", "*.swp", "*~",
	".#*", "4913", IgnoreFile,
}

// made are the directories that a build fills where the code lies, by a pattern of the file that
// says so. They may have gigabytes, and a build here makes what it needs of them anew.
var made = map[string][]string{"Cargo.toml": {"target"}, "pom.xml": {"target"}, "*.csproj": {"bin", "obj"}}

// Made returns the names of the directories in dir that a build of what lies in dir fills.
func Made(dir string) []string {
	var names []string
	for sign, list := range made {
		if found, err := filepath.Glob(filepath.Join(dir, sign)); err == nil && len(found) > 0 {
			names = append(names, list...)
		}
	}
	return names
}

// Ignore decides which paths below a directory are not part of its code.
type Ignore struct{ rules []rule }

type rule struct {
	parts    []string // of the pattern; "**" stands for any number of directories
	negative bool
	dirOnly  bool
}

// NewIgnore returns the rules for dir: the built-in ones, then those of its ignore file.
func NewIgnore(dir string) (*Ignore, error) {
	ig := &Ignore{}
	for _, p := range never {
		ig.add(p)
	}
	for _, name := range Made(dir) {
		ig.add("/" + name + "/")
	}
	f, err := os.Open(filepath.Join(dir, IgnoreFile))
	if errors.Is(err, fs.ErrNotExist) {
		return ig, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		ig.add(lines.Text())
	}
	return ig, lines.Err()
}

func (ig *Ignore) add(line string) {
	line = strings.TrimRight(line, " \t\r")
	if line == "" || strings.HasPrefix(line, "#") {
		return
	}
	var r rule
	line, r.negative = strings.CutPrefix(line, "!")
	line, r.dirOnly = strings.CutSuffix(line, "/")
	anchored := strings.Contains(line, "/")
	r.parts = strings.Split(strings.TrimPrefix(line, "/"), "/")
	if !anchored {
		r.parts = append([]string{"**"}, r.parts...)
	}
	ig.rules = append(ig.rules, r)
}

// Match says whether the path, slash-separated and relative to the directory, is ignored. Of
// several rules that match the last one counts. What is below an ignored directory is ignored
// too; callers that walk a tree need not ask for it.
func (ig *Ignore) Match(name string, dir bool) bool {
	parts := strings.Split(path.Clean(name), "/")
	for i := 1; i <= len(parts); i++ {
		ignored := false
		for _, r := range ig.rules {
			if (!r.dirOnly || dir || i < len(parts)) && match(r.parts, parts[:i]) {
				ignored = !r.negative
			}
		}
		if ignored {
			return true
		}
	}
	return false
}

func match(pattern, name []string) bool {
	for len(pattern) > 0 {
		if pattern[0] == "**" {
			for i := range len(name) + 1 {
				if match(pattern[1:], name[i:]) {
					return true
				}
			}
			return false
		}
		if len(name) == 0 {
			return false
		}
		if ok, err := path.Match(pattern[0], name[0]); err != nil || !ok {
			return false
		}
		pattern, name = pattern[1:], name[1:]
	}
	return len(name) == 0
}
