package faas

import (
	"encoding/json"
	"strings"
)

// MaxNameLength is the longest namespace, package or function name, in bytes; it is the
// length of a DNS label, so that every name can become one.
const MaxNameLength = 63

// Name is the full name of a function. Package may be empty.
type Name struct {
	Namespace string
	Package   string
	Function  string
}

// ParseName reads "function", "package/function" or "namespace/package/function" and, for the
// form with a leading slash, "/namespace/function" and "/namespace/package/function". What is
// absent is taken from the default namespace given.
func ParseName(s, namespace string) (Name, error) {
	var n Name
	if rest, ok := strings.CutPrefix(s, "/"); ok {
		parts := strings.Split(rest, "/")
		switch len(parts) {
		case 2:
			n = Name{Namespace: parts[0], Function: parts[1]}
		case 3:
			n = Name{Namespace: parts[0], Package: parts[1], Function: parts[2]}
		default:
			return n, Errorf(Invalid, "parse name", "%q is not a function's name: after a leading slash want namespace/function or namespace/package/function", clip(s))
		}
	} else {
		parts := strings.Split(s, "/")
		switch len(parts) {
		case 1:
			n = Name{Namespace: namespace, Function: parts[0]}
		case 2:
			n = Name{Namespace: namespace, Package: parts[0], Function: parts[1]}
		case 3:
			n = Name{Namespace: parts[0], Package: parts[1], Function: parts[2]}
		default:
			return n, Errorf(Invalid, "parse name", "%q is not a function's name: want function, package/function or namespace/package/function", clip(s))
		}
	}
	if n.Package == "" && strings.Count(strings.TrimPrefix(s, "/"), "/") == 2 {
		return n, ValidateName("package", "")
	}
	return n, n.Validate()
}

// Validate says whether every part is a legal name.
func (n Name) Validate() error {
	if err := ValidateName("namespace", n.Namespace); err != nil {
		return err
	}
	if n.Package != "" {
		if err := ValidateName("package", n.Package); err != nil {
			return err
		}
	}
	return ValidateName("function", n.Function)
}

// ValidateName is the one rule for names of every kind (namespace, package, function, secret,
// key): 1 to 63 letters, digits, '_', '-' or '.', beginning with a letter, a digit or '_' and
// not ending with a dot. It rules out path tricks ("..", "/", NUL, "%"), wildcards of the
// store's subjects, and names that look like flags. kind is said in the error.
func ValidateName(kind, s string) error {
	bad := func(why string) error {
		return Errorf(Invalid, "check name", "%s name %q %s; use 1 to %d letters, digits, '_', '-' or '.', beginning with a letter or digit", kind, clip(s), why, MaxNameLength)
	}
	if s == "" {
		return bad("is empty")
	}
	if len(s) > MaxNameLength {
		return bad("is too long")
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
		if !alnum && (i == 0 || c != '-' && c != '.') {
			return bad("has a character that is not allowed")
		}
	}
	if strings.HasSuffix(s, ".") || strings.Contains(s, "..") {
		return bad("has a dot at its end or two in a row")
	}
	return nil
}

// Path returns what the function is called inside its namespace: "function" or "package/function".
func (n Name) Path() string {
	if n.Package == "" {
		return n.Function
	}
	return n.Package + "/" + n.Function
}

// String returns the full name with slashes, the package left out when there is none.
func (n Name) String() string { return n.Namespace + "/" + n.Path() }

// MarshalJSON writes the full name as a string.
func (n Name) MarshalJSON() ([]byte, error) { return json.Marshal(n.String()) }

// UnmarshalJSON reads what MarshalJSON writes.
func (n *Name) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	p, err := ParseName("/"+s, "")
	if err != nil {
		return err
	}
	*n = p
	return nil
}

// Ref names a function and, if the caller pinned one, a revision of it.
type Ref struct {
	Name     Name
	Revision RevisionID // empty: the active one
}
