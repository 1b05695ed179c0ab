package openwhisk

import (
	"strings"
	"unicode"

	"github.com/brasa-dev/brasa/internal/faas"
)

// maxName is the longest name of an entity, in characters.
const maxName = 256

// validName says whether OpenWhisk takes a name: a word character first, then word characters, spaces
// and any of @ . - &, and no space at the end.
func validName(s string) bool {
	n := 0
	last := ' '
	for _, r := range s {
		word := r == '_' || r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r))
		if !word && (n == 0 || !strings.ContainsRune(" @.-&", r)) {
			return false
		}
		last = r
		n++
	}
	return n > 0 && n <= maxName && last != ' '
}

// path is the name of an entity with where it is: namespace, package if there is one, name. They are
// OpenWhisk's names.
type path struct {
	namespace, pkg, name string
}

// parsePath reads a fully qualified name, "/ns/name" or "/ns/pkg/name", or one that is relative to the
// caller's namespace: "name", "pkg/name". "_" is the caller's namespace.
func parsePath(s, own string) (path, bool) {
	p := path{namespace: own}
	parts := strings.Split(strings.TrimPrefix(s, "/"), "/")
	if strings.HasPrefix(s, "/") || len(parts) == 3 {
		if len(parts) < 2 {
			return path{}, false
		}
		if parts[0] != "_" {
			p.namespace = parts[0]
		}
		parts = parts[1:]
	}
	switch len(parts) {
	case 1:
		p.name = parts[0]
	case 2:
		p.pkg, p.name = parts[0], parts[1]
	default:
		return path{}, false
	}
	if !validName(p.namespace) || p.pkg != "" && !validName(p.pkg) || !validName(p.name) {
		return path{}, false
	}
	return p, true
}

// String is the path without a leading slash: "ns/name" or "ns/pkg/name".
func (p path) String() string {
	if p.pkg == "" {
		return p.namespace + "/" + p.name
	}
	return p.namespace + "/" + p.pkg + "/" + p.name
}

// space is the namespace with the package, as records show it: "ns" or "ns/pkg".
func (p path) space() string {
	if p.pkg == "" {
		return p.namespace
	}
	return p.namespace + "/" + p.pkg
}

// function is the name in the catalog.
func (p path) function() faas.Name {
	n := faas.Name{Namespace: faas.NativeName(p.namespace), Function: faas.NativeName(p.name)}
	if p.pkg != "" {
		n.Package = faas.NativeName(p.pkg)
	}
	return n
}
