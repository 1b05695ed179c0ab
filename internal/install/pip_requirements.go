package install

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// readRequirements reads a file of requirements and those that it includes with -r and -c, and writes
// their lines anew. It finds out what else they need, and whether everything has a hash.
func readRequirements(code fs.FS, name string, _ *runtimes.Plan) (*pythonNeeds, error) {
	r := &requirements{code: code, needs: &pythonNeeds{files: map[string][]byte{}}}
	if err := r.read(name, false, 0); err != nil {
		return nil, err
	}
	if r.count == 0 {
		return nil, nil
	}
	if len(r.needs.bare) == 0 {
		r.needs.lock = name
	}
	return r.needs, nil
}

type requirements struct {
	code   fs.FS
	needs  *pythonNeeds
	count  int
	wheels int64
}

// maxIncludes is how deep files of requirements may include each other.
const maxIncludes = 8

func (r *requirements) read(name string, constraints bool, depth int) error {
	if depth > maxIncludes {
		return faas.Errorf(faas.Invalid, op, "%s includes files too deep, or itself", name)
	}
	b, err := readSmall(r.code, name)
	if errors.Is(err, fs.ErrNotExist) {
		return faas.Errorf(faas.Invalid, op, "requirements include the file %s, which the code does not have", name)
	}
	if err != nil {
		return err
	}
	r.needs.files[name] = nil // it is being read
	text := strings.TrimPrefix(string(b), "\ufeff")
	if !utf8.ValidString(text) {
		return faas.Errorf(faas.Invalid, op, "%s is not UTF-8", name)
	}
	var lines strings.Builder
	for n, line := range logicalLines(text) { // they stay at their numbers, which errors of the tool name
		if line, err = r.line(name, n+1, line, constraints, depth); err != nil {
			return err
		}
		lines.WriteString(line + "\n")
	}
	r.needs.files[name] = []byte(lines.String())
	return nil
}

// line returns the line as it is handed on.
func (r *requirements) line(file string, n int, line string, constraints bool, depth int) (string, error) {
	if line == "" {
		return "", nil
	}
	where := fmt.Sprintf("%s line %d", file, n)
	if err := plainText(where, line); err != nil {
		return "", err
	}
	switch option, value := splitOption(line); option {
	case "":
	case "-r", "--requirement", "-c", "--constraint":
		at := path.Join(path.Dir(file), value)
		if !fs.ValidPath(at) || path.IsAbs(value) || strings.Contains(value, "://") {
			return "", faas.Errorf(faas.Invalid, op, "%s includes %q, which is not a file of the code", where, clip(value, 80))
		}
		flag := "-" + strings.TrimLeft(option, "-")[:1]
		if _, ok := r.needs.files[at]; !ok {
			if err := r.read(at, constraints || flag == "-c", depth+1); err != nil {
				return "", err
			}
		}
		return flag + " " + SourceDir + "/" + at, nil
	case "-e", "--editable":
		return "", faas.Errorf(faas.Invalid, op, "%s installs %q for development; the code is imported from where it lies", where, clip(value, 80)).
			WithFix("leave the line out")
	default:
		if err := checkOption(file, n, option, value); err != nil {
			return "", err
		}
		switch option {
		case "-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--no-index", "--trusted-host":
			r.needs.odd = true
		case noBinary:
			r.needs.built = append(r.needs.built, value)
		}
		return line, nil
	}
	if err := checkLine(file, n, line); err != nil {
		return "", err
	}
	built, err := checkPackage(where, line)
	if err != nil {
		return "", err
	}
	if built {
		r.needs.built = append(r.needs.built, requirementName(line))
	}
	if constraints {
		return line, nil
	}
	r.count++
	if strings.Contains(line, "://") {
		r.needs.odd = true
	}
	if localFile.MatchString(line) {
		r.needs.odd = true
		if err := r.wheel(file, n, strings.Fields(line)[0]); err != nil {
			return "", err
		}
	}
	if !hasHash(line) {
		r.needs.bare = append(r.needs.bare, requirementName(line))
	}
	return line, nil
}

// wheel takes along a wheel that lies in the code. The tool starts beside the outermost file, and
// paths are meant from there.
func (r *requirements) wheel(file string, n int, p string) error {
	at := path.Clean(strings.TrimPrefix(p, "file:"))
	if !fs.ValidPath(at) {
		return faas.Errorf(faas.Invalid, op, "%s line %d names the file %q, which is not in the code", file, n, clip(p, 80))
	}
	f, err := r.code.Open(at)
	if err != nil {
		return faas.Errorf(faas.Invalid, op, "%s line %d names the file %q, which the code does not have", file, n, clip(p, 80))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxWheels+1-r.wheels))
	if err != nil {
		return faas.Errorf(faas.Invalid, op, "%s line %d names %q: %v", file, n, clip(p, 80), err)
	}
	if r.wheels += int64(len(b)); r.wheels > maxWheels {
		return faas.Errorf(faas.TooLarge, op, "the wheels that the code brings are larger than %s", faas.Bytes(maxWheels)).WithLimit("install_bytes")
	}
	r.needs.files[at] = b
	return nil
}

var localFile = regexp.MustCompile(`^(\./|\.\./|file:)?[^\s:;@<>=~!]*\.(whl|zip|tar\.gz)(\s|;|$)`)

// checkLine refuses what names the code itself, or a directory in it: none is copied to where
// packages are installed.
func checkLine(file string, n int, line string) error {
	where := file
	if n > 0 {
		where = file + " has a line that"
	}
	first := strings.Fields(line + " ")
	if len(first) == 0 {
		return nil
	}
	if p := first[0]; p == "." || strings.HasPrefix(p, ".[") || p == "./" || (strings.HasPrefix(p, "./") || strings.HasPrefix(p, "../") || strings.HasPrefix(p, "/")) && !localFile.MatchString(p) {
		return faas.Errorf(faas.Invalid, op, "%s names the directory %q; the code is imported from where it lies", where, clip(p, 80)).
			WithFix("leave it out, or build a wheel of it and name that: pip wheel --no-deps -w wheels %s", p)
	}
	return nil
}

var (
	comment = regexp.MustCompile(`(^|\s+)#.*$`)
	option  = regexp.MustCompile(`^(--?[a-zA-Z][a-zA-Z-]*)(?:[=\s]+(.*))?$`)
)

// logicalLines joins lines that end in a backslash and takes comments away, as pip does.
func logicalLines(text string) []string {
	var out []string
	joined := ""
	for line := range strings.SplitSeq(strings.ReplaceAll(text, "\r\n", "\n"), "\n") {
		if s, more := strings.CutSuffix(line, `\`); more && !strings.HasPrefix(strings.TrimSpace(line), "#") {
			joined += strings.TrimRight(s, " ") + " "
			out = append(out, "") // so that numbers stay
			continue
		}
		out = append(out, strings.TrimSpace(comment.ReplaceAllString(joined+line, "")))
		joined = ""
	}
	if joined != "" {
		out = append(out, strings.TrimSpace(comment.ReplaceAllString(joined, "")))
	}
	return out
}

// splitOption returns the option that a line is, empty if it names a package.
func splitOption(line string) (name, value string) {
	if m := option.FindStringSubmatch(line); m != nil {
		return m[1], strings.TrimSpace(m[2])
	}
	return "", ""
}

// pins returns the pinned versions of requirements without their hashes.
func pins(files map[string][]byte) []string {
	var out []string
	for _, content := range files {
		for _, line := range logicalLines(string(content)) {
			if name, _ := splitOption(line); name != "" || !strings.Contains(line, "==") {
				continue
			}
			line, _, _ = strings.Cut(line, "--hash")
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}
