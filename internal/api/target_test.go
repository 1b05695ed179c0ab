package api

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
)

func TestAFunctionsURLHasOneForm(t *testing.T) {
	for in, want := range map[string]target{
		"/f/green/pay":                    {"green", "pay", "/"},
		"/f/green/pay/":                   {"green", "pay", "/"},
		"/f/green/pay/a/b":                {"green", "pay", "/a/b"},
		"/f/green/pay//a//":               {"green", "pay", "//a//"},
		"/f/green/pay/../../blue/pay":     {"green", "pay", "/../../blue/pay"},
		"/f/green/pay/%2e%2e/x":           {"green", "pay", "/%2e%2e/x"},
		"/f/green/pay/a%2Fb;c=d":          {"green", "pay", "/a%2Fb;c=d"},
		"/f/green/pay/%00":                {"green", "pay", "/%00"},
		"/f/green/pay/\xff \x7f\"<":       {"green", "pay", "/%FF%20%7F%22%3C"},
		"/f/green/pay.v2/x":               {"green", "pay.v2", "/x"},
		"/f/green/pay/.well-known/thing?": {"green", "pay", "/.well-known/thing?"},
	} {
		got, err := parseTarget(in)
		if err != nil || got != want {
			t.Errorf("parseTarget(%q) = %+v, %v, want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "/", "/f", "/f/", "/f/green", "/f/green/", "/f//pay", "/f/green//pay", "//f/green/pay", "/F/green/pay",
		"/f/../v1/whoami", "/f/./green/pay", "/f/green/..", "/f/green/../blue/pay", "/f/green/%70ay", "/f/%67reen/pay",
		"/f/green/pay;x", "/f/green;x/pay", "/f/green/pay%2fx", "/f/green/pay%00", "/f/green/pay x", "/f/green/pa\\y",
		"/f/green/-pay", "/f/green/" + strings.Repeat("a", 64), "/f/gr\u00e9en/pay", "/f/green/pay.", "/v1/namespaces",
	} {
		if got, err := parseTarget(in); faas.CodeOf(err) != faas.NotFound {
			t.Errorf("parseTarget(%q) = %+v, %v, want not found", in, got, err)
		}
	}
}

// Whatever the path, what is called is what stands in it before anything is decoded, and the
// function gets the rest unchanged but for bytes that no URL may have.
func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"/f/green/pay", "/f/green/pay/a%2Fb//../;x", "/f/%2e%2e/pay", "/f/green/pay/\xff", "/f/a/b/%", "/f//"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := parseTarget(in)
		if err != nil {
			return
		}
		if faas.ValidateName("namespace", got.namespace) != nil || faas.ValidateName("function", got.name) != nil {
			t.Fatalf("%q names %+v", in, got)
		}
		head := "/f/" + got.namespace + "/" + got.name
		rest, ok := strings.CutPrefix(in, head)
		if !ok || rest != "" && rest[0] != '/' {
			t.Fatalf("%q was read as %+v", in, got)
		}
		if rest == "" {
			rest = "/"
		}
		if printable(got.path) != got.path {
			t.Fatalf("%q has bytes that no URL may have", got.path)
		}
		if again, err := parseTarget(head + got.path); err != nil || again != got {
			t.Fatalf("%q is read as %+v at first and %+v then", in, got, again)
		}
		a, aerr := url.PathUnescape(rest)
		b, berr := url.PathUnescape(got.path)
		if (aerr == nil) != (berr == nil) || a != b {
			t.Fatalf("%q means %q, the function gets %q", in, a, b)
		}
	})
}

func TestThePathIsThatOfTheWire(t *testing.T) {
	for _, s := range []string{"/f/a/b/c%2Fd", "/f/a/b//c/../d", "/f/a/b/%zz"} {
		r := &http.Request{RequestURI: s + "?q=/x", URL: &url.URL{Path: "/other"}}
		if got := EncodedPath(r); got != s {
			t.Errorf("EncodedPath of %q = %q", s, got)
		}
	}
	r := &http.Request{RequestURI: "http://host/f/a/b", URL: &url.URL{Path: "/f/a/b"}}
	if got := EncodedPath(r); got != "/f/a/b" {
		t.Errorf("EncodedPath of the absolute form = %q", got)
	}
}
