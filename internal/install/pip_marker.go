package install

import (
	"cmp"
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
