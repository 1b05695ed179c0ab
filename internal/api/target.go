package api

import (
	"net/http"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

// functionPrefix begins the path of every function's own URL.
const functionPrefix = "/f/"

// target is what a function's own URL says.
type target struct {
	namespace, name string
	path            string // below the function's URL, encoded as it was sent, with a leading slash
}

// parseTarget reads the path of a function's own URL as it was sent, encoded, without query. It
// is the only place where such a path is read. Namespace and name must be legal names as they
// stand: an escape, a dot segment, a ';' or an empty segment there is no name, so there is one
// way only to write the URL of a function, and none of them reaches another. What follows the
// name is the function's own affair and is not cleaned, whatever is in it.
func parseTarget(encoded string) (target, error) {
	rest, ok := strings.CutPrefix(encoded, functionPrefix)
	if !ok {
		return target{}, faas.Errorf(faas.NotFound, "find function", "%.120q is not a function's URL", encoded)
	}
	var t target
	t.namespace, rest, ok = strings.Cut(rest, "/")
	if !ok || faas.ValidateName("namespace", t.namespace) != nil {
		return target{}, badTarget(encoded)
	}
	t.name, t.path = rest, "/"
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		t.name, t.path = rest[:i], printable(rest[i:])
	}
	if faas.ValidateName("function", t.name) != nil {
		return target{}, badTarget(encoded)
	}
	return t, nil
}

func badTarget(encoded string) error {
	return faas.Errorf(faas.NotFound, "find function", "%.120q is not a function's URL", encoded).
		WithFix("write it as /f/NAMESPACE/NAME/...; names are written without escapes")
}

// EncodedPath returns the path of a request as it stood on the wire. URL.EscapedPath does not
// suffice: it writes a path with a stray byte anew, and then %2F and / are no longer told apart.
func EncodedPath(r *http.Request) string {
	if strings.HasPrefix(r.RequestURI, "/") {
		path, _, _ := strings.Cut(r.RequestURI, "?")
		return path
	}
	return r.URL.EscapedPath() // absolute form, or a request that did not come from a wire
}

// printable escapes the bytes that have no place in a URL, and leaves all others as they are.
func printable(s string) string {
	const hexDigits = "0123456789ABCDEF"
	stray := func(c byte) bool { return c <= ' ' || c >= 0x7f || strings.IndexByte("\"<>\\^`{|}", c) >= 0 }
	n := 0
	for i := 0; i < len(s); i++ {
		if stray(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	b := make([]byte, 0, len(s)+2*n)
	for i := 0; i < len(s); i++ {
		if c := s[i]; stray(c) {
			b = append(b, '%', hexDigits[c>>4], hexDigits[c&15])
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}
