package install

import (
	"cmp"
	"fmt"
	"regexp"
	"runtime"
	"strconv"
	"strings"
)

// pythonFits says whether a version of Python is one that a specifier such as ">=3.9,<4" takes. What
// is not understood is left to the tool.
func pythonFits(version, specifier string) bool {
	for part := range strings.SplitSeq(specifier, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		n := strings.IndexFunc(part, func(r rune) bool { return !strings.ContainsRune("<>=!~", r) })
		if n <= 0 {
			continue
		}
		if !compareVersions(version, part[:n], strings.TrimSpace(part[n:])) {
			return false
		}
	}
	return true
}

// compareVersions does what PEP 440 says of versions that are numbers with dots.
func compareVersions(have, operator, want string) bool {
	if prefix, ok := strings.CutSuffix(want, ".*"); ok {
		p := numbers(prefix)
		h := numbers(have)
		for len(h) < len(p) {
			h = append(h, 0)
		}
		same := order(h[:len(p)], p) == 0
		return operator == "!=" && !same || operator != "!=" && same
	}
	c := order(numbers(have), numbers(want))
	switch operator {
	case "==", "===":
		return c == 0
	case "!=":
		return c != 0
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	case ">=":
		return c >= 0
	case "~=":
		w, h := numbers(want), numbers(have)
		if len(w) < 2 {
			return false
		}
		for len(h) < len(w)-1 {
			h = append(h, 0)
		}
		return c >= 0 && order(h[:len(w)-1], w[:len(w)-1]) == 0
	}
	return true
}

// numbers reads the numbers at the beginning of a version.
func numbers(version string) []int {
	var out []int
	for part := range strings.SplitSeq(version, ".") {
		end := strings.IndexFunc(part, func(r rune) bool { return r < '0' || r > '9' })
		if end < 0 {
			end = len(part)
		}
		n, err := strconv.Atoi(part[:end])
		if err != nil {
			break
		}
		out = append(out, n)
		if end < len(part) {
			break
		}
	}
	return out
}

func order(a, b []int) int {
	for i := range max(len(a), len(b)) {
		x, y := 0, 0
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if c := cmp.Compare(x, y); c != 0 {
			return c
		}
	}
	return 0
}

// markerEnv are the variables of markers (https://packaging.python.org/en/latest/specifications/dependency-specifiers/)
// on this machine.
func markerEnv(version string) map[string]string {
	machines := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}
	return map[string]string{
		"os_name": "posix", "sys_platform": "linux", "platform_system": "Linux", "platform_machine": orElse(machines[runtime.GOARCH], runtime.GOARCH),
		"platform_python_implementation": "CPython", "implementation_name": "cpython",
		"python_version": minor(version), "python_full_version": version, "implementation_version": version,
		"extra": "", "platform_release": "", "platform_version": "",
	}
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// marked says whether a marker such as `python_version < "3.8" and sys_platform == "win32"` holds.
// An empty one does. One that cannot be read is an error.
func marked(marker string, env map[string]string) (bool, error) {
	p := &markerParser{rest: marker, env: env}
	if p.peek() == "" {
		return true, nil
	}
	v, err := p.or()
	if err == nil && p.peek() != "" {
		err = p.wrong()
	}
	return v, err
}

type markerParser struct {
	rest string
	env  map[string]string
}

var markerToken = regexp.MustCompile(`^\s*(\(|\)|<=|>=|===|==|~=|!=|<|>|"[^"]*"|'[^']*'|[A-Za-z_.]+|$)`)

func (p *markerParser) peek() string {
	if m := markerToken.FindStringSubmatch(p.rest); m != nil {
		return m[1]
	}
	return p.rest
}

func (p *markerParser) next() string {
	m := markerToken.FindStringSubmatch(p.rest)
	if m == nil {
		return ""
	}
	p.rest = p.rest[len(m[0]):]
	return m[1]
}

func (p *markerParser) wrong() error {
	return fmt.Errorf("a marker is not understood at %q", clip(p.rest, 60))
}

func (p *markerParser) or() (bool, error) {
	v, err := p.and()
	for err == nil && p.peek() == "or" {
		p.next()
		var w bool
		w, err = p.and()
		v = v || w
	}
	return v, err
}

func (p *markerParser) and() (bool, error) {
	v, err := p.atom()
	for err == nil && p.peek() == "and" {
		p.next()
		var w bool
		w, err = p.atom()
		v = v && w
	}
	return v, err
}

func (p *markerParser) atom() (bool, error) {
	if p.peek() == "(" {
		p.next()
		v, err := p.or()
		if err == nil && p.next() != ")" {
			err = p.wrong()
		}
		return v, err
	}
	left, version, err := p.value()
	if err != nil {
		return false, err
	}
	operator := p.next()
	if operator == "not" && p.peek() == "in" {
		operator = "not " + p.next()
	}
	right, version2, err := p.value()
	if err != nil {
		return false, err
	}
	switch operator {
	case "in":
		return strings.Contains(right, left), nil
	case "not in":
		return !strings.Contains(right, left), nil
	case "==", "!=", "<", "<=", ">", ">=", "~=", "===":
		if version || version2 {
			return compareVersions(left, operator, right), nil
		}
		switch operator {
		case "==", "===":
			return left == right, nil
		case "!=":
			return left != right, nil
		}
		return false, nil // no order is defined for other texts
	}
	return false, p.wrong()
}

// value reads a variable or a text, and says whether it is a variable that holds a version.
func (p *markerParser) value() (text string, version bool, err error) {
	t := p.next()
	if len(t) >= 2 && (t[0] == '"' || t[0] == '\'') {
		return t[1 : len(t)-1], false, nil
	}
	v, ok := p.env[t]
	if !ok {
		return "", false, p.wrong()
	}
	return v, strings.HasSuffix(t, "_version") && t != "platform_version", nil
}
