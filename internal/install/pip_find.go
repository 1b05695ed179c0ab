package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// pythonNeeds is what Python code was found to need.
type pythonNeeds struct {
	from  string            // the file that says so
	lock  string            // the same, if it pins all versions by hashes
	files map[string][]byte // requirements.txt with what it includes, or pipMain
	bare  []string          // what has no hash
	odd   bool              // something comes from elsewhere than the registry
	built []string          // what has to be built, which runs its code
	note  string
}

func (n *pythonNeeds) hashed() bool { return n.lock != "" && len(n.bare) == 0 }

const (
	maxManifest = 8 << 20   // of one file that names packages; locks of large projects have some megabytes
	maxWheels   = 256 << 20 // of wheels that the code brings
)

// findPython looks for what names the packages of Python code.
func findPython(code fs.FS, plan *runtimes.Plan) (*pythonNeeds, error) {
	for _, dir := range []string{"vendor", "site-packages"} {
		if info, err := fs.Stat(code, dir); err == nil && info.IsDir() {
			return nil, nil
		}
	}
	var have []string
	var found *pythonNeeds
	for _, way := range []struct {
		file string
		read func(fs.FS, string, *runtimes.Plan) (*pythonNeeds, error)
	}{
		{"uv.lock", readUVLock}, {"poetry.lock", readPoetryLock}, {"requirements.txt", readRequirements},
		{"Pipfile.lock", readPipfileLock}, {"pyproject.toml", readPyproject},
	} {
		if _, err := fs.Stat(code, way.file); err != nil {
			continue
		}
		if found != nil {
			have = append(have, way.file)
			continue
		}
		needs, err := way.read(code, way.file, plan)
		if err != nil {
			return nil, err
		}
		if needs != nil && len(needs.files) > 0 {
			found = needs
			found.from = way.file
		}
	}
	if found == nil {
		return readScript(code, plan)
	}
	if len(have) > 0 && (found.from == "requirements.txt" || have[0] != "pyproject.toml" || len(have) > 1) {
		found.note = found.from + " counts; " + strings.Join(have, ", ") + " is there too"
	}
	return found, nil
}

// readSmall reads a file that has no business to be large.
func readSmall(code fs.FS, name string) ([]byte, error) {
	f, err := code.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err == nil && len(b) > maxManifest {
		err = faas.Errorf(faas.TooLarge, op, "%s is larger than %s", name, faas.Bytes(maxManifest))
	}
	return b, err
}

// lined makes needs of lines that have been put into the form of requirements.
func lined(lines []string, hashed bool, from string) (*pythonNeeds, error) {
	if len(lines) == 0 {
		return nil, nil
	}
	n := &pythonNeeds{files: map[string][]byte{pipMain: []byte(strings.Join(lines, "\n") + "\n")}}
	if hashed {
		n.lock = from
	}
	for _, l := range lines {
		built, err := checkPackage("what "+from+" names", l)
		if err != nil {
			return nil, err
		}
		if built {
			n.built = append(n.built, requirementName(l))
		}
		if !hasHash(l) {
			n.bare = append(n.bare, requirementName(l))
		}
		if strings.Contains(l, "://") {
			n.odd = true
		}
	}
	return n, nil
}

// project is what pyproject.toml says of what a project needs.
type project struct {
	Project struct {
		Dependencies []string `toml:"dependencies"`
		Requires     string   `toml:"requires-python"`
	} `toml:"project"`
	Tool struct {
		Poetry struct {
			Dependencies map[string]any `toml:"dependencies"`
		} `toml:"poetry"`
	} `toml:"tool"`
}

func projectOf(code fs.FS, name string) (*project, error) {
	b, err := readSmall(code, name)
	if err != nil {
		return nil, err
	}
	doc := &project{}
	if err := toml.Unmarshal(b, doc); err != nil {
		return nil, faas.Errorf(faas.Invalid, op, "%s: %v", name, err)
	}
	return doc, nil
}

// readPyproject takes the dependencies of the project itself. What is only for its development or
// an extra is left out.
func readPyproject(code fs.FS, name string, plan *runtimes.Plan) (*pythonNeeds, error) {
	doc, err := projectOf(code, name)
	if err != nil {
		return nil, err
	}
	if len(doc.Project.Dependencies) > 0 && !pythonFits(plan.Version, doc.Project.Requires) {
		return nil, wrongPython(name, doc.Project.Requires, plan.Version)
	}
	lines := doc.Project.Dependencies
	for _, l := range lines {
		if err := checkLine(name, 0, l); err != nil {
			return nil, err
		}
	}
	if len(lines) == 0 {
		for dep := range doc.Tool.Poetry.Dependencies {
			if dep != "python" {
				return nil, faas.Errorf(faas.Invalid, op, "%s has dependencies for Poetry, and there is no poetry.lock", name).WithFix("lock them: poetry lock")
			}
		}
	}
	return lined(lines, false, name)
}

// scriptBlock is how a script says what it needs: https://packaging.python.org/en/latest/specifications/inline-script-metadata/
var scriptBlock = regexp.MustCompile(`(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$`)

// readScript reads the inline metadata of the entry.
func readScript(code fs.FS, plan *runtimes.Plan) (*pythonNeeds, error) {
	if path.Ext(plan.Entry) != ".py" {
		return nil, nil
	}
	b, err := readSmall(code, plan.Entry)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b = bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
	var text []byte
	for _, m := range scriptBlock.FindAllSubmatch(b, -1) {
		if string(m[1]) != "script" {
			continue
		}
		if text != nil {
			return nil, faas.Errorf(faas.Invalid, op, "%s has more than one block of script metadata", plan.Entry)
		}
		for line := range bytes.Lines(m[2]) {
			line = bytes.TrimPrefix(line, []byte("#"))
			text = append(text, bytes.TrimPrefix(line, []byte(" "))...)
		}
	}
	if text == nil {
		return nil, nil
	}
	var doc struct {
		Dependencies   []string `toml:"dependencies"`
		RequiresPython string   `toml:"requires-python"`
	}
	if err := toml.Unmarshal(text, &doc); err != nil {
		return nil, faas.Errorf(faas.Invalid, op, "the script metadata of %s: %v", plan.Entry, err)
	}
	for _, l := range doc.Dependencies {
		if err := checkLine(plan.Entry, 0, l); err != nil {
			return nil, err
		}
	}
	if !pythonFits(plan.Version, doc.RequiresPython) {
		return nil, wrongPython(plan.Entry, doc.RequiresPython, plan.Version)
	}
	n, err := lined(doc.Dependencies, false, plan.Entry)
	if n != nil {
		n.from = plan.Entry
	}
	return n, err
}

// requirementName returns the package that a line of requirements names.
func requirementName(line string) string {
	line = strings.TrimSpace(line)
	end := strings.IndexAny(line, "[<>=!~;@ \t(")
	if end < 0 {
		return line
	}
	return line[:end]
}

// some lists a few names.
func some(names []string) string {
	const most = 5
	if n := len(names); n > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", n-most)
	}
	return strings.Join(names, ", ")
}
