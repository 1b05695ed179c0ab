package api

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
)

func TestJSONThatTwoReadersReadDifferentlyIsRefused(t *testing.T) {
	for _, s := range []string{
		`{"a":1,"a":2}`, `{"a":{"b":1,"b":1}}`, `[{"a":1,"\u0061":2}]`, "{\"a\":\"\xff\"}", `{"a":1} {"b":2}`, `{"a":1}x`,
		`{"a":NaN}`, `{'a':1}`, `{"a":1,}`, `{"a":01}`, ``, ` `, `{`, `{"a"`, `[1,2`, "\ufeff{}",
		strings.Repeat("[", 33) + strings.Repeat("]", 33), strings.Repeat(`{"a":`, 100_000),
	} {
		var v any
		if err := strict([]byte(s), &v); err == nil {
			t.Errorf("%.60q is taken as %v", s, v)
		}
	}
	for _, s := range []string{`{"a":1,"b":{"a":2},"c":[{"a":1},{"a":1}]}`, `"x"`, ` null `, strings.Repeat("[", 32) + strings.Repeat("]", 32)} {
		var v any
		if err := strict([]byte(s), &v); err != nil {
			t.Errorf("%.60q: %v", s, err)
		}
	}
}

func FuzzStrict(f *testing.F) {
	f.Add([]byte(`{"a":[1,{"b":null}],"c":"\u0000"}`))
	f.Add([]byte(`{"a":1,"a":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var v any
		if strict(b, &v) == nil && !json.Valid(b) {
			t.Fatalf("%q is taken", b)
		}
	})
}

func TestAnAnswerBecomesAJSONValue(t *testing.T) {
	for _, c := range []struct{ body, contentType, want, encoding string }{
		{`{"a": 1}`, "application/json", `{"a":1}`, ""},
		{"{\n\"a\": 1\n}", "", `{"a":1}`, ""},
		{`{"a":1}`, "application/problem+json; charset=utf-8", `{"a":1}`, ""},
		{`{"a":1}`, "text/plain", `"{\"a\":1}"`, ""},
		{`{"a": NaN}`, "application/json", `"{\"a\": NaN}"`, ""},
		{"hello", "text/plain; charset=utf-8", `"hello"`, ""},
		{"", "text/plain", `null`, ""},
		{"\xff\x00", "application/json", `"/wA="`, "base64"},
		{"\"\xff\"", "application/json", `"Iv8i"`, "base64"},
		{"x", ";;;", `"x"`, ""},
	} {
		got, encoding := value([]byte(c.body), c.contentType)
		if string(got) != c.want || encoding != c.encoding {
			t.Errorf("value(%q, %q) = %s, %q, want %s, %q", c.body, c.contentType, got, encoding, c.want, c.encoding)
		}
	}
}

func TestHeadersOfThePlatformAndTheConnectionDoNotReachAFunction(t *testing.T) {
	const key = "brasa_0123456789ab_x"
	r := &http.Request{Host: "example.org", RemoteAddr: "192.0.2.7:99", Header: http.Header{
		"Accept": {"a", "b"}, "Authorization": {"Basic abc", "bearer " + key}, "Brasa-Invocation-Id": {"forged"}, "Brasa_outcome": {"x"},
		"Connection": {"keep-alive, X-Hop"}, "Content-Length": {"9"}, "Expect": {"100-continue"}, "Forwarded": {"for=1"}, "Keep-Alive": {"1"},
		"Proxy": {"http://evil"}, "Proxy-Authorization": {"x"}, "Te": {"trailers"}, "Trailer": {"X"}, "Transfer-Encoding": {"chunked"},
		"Upgrade": {"h2c"}, "X-Forwarded-For": {"1.2.3.4"}, "X_forwarded_for": {"1.2.3.4"}, "X-Forwarded-Anything": {"1"}, "X-Hop": {"1"}, "X-Real-Ip": {"1"}, "X-Mine": {"1"},
	}}
	want := http.Header{
		"Accept": {"a", "b"}, "Authorization": {"Basic abc"}, "Host": {"example.org"}, "X-Mine": {"1"}, HeaderInvocationID: {"id"},
		"X-Forwarded-For": {"192.0.2.7"}, "X-Forwarded-Host": {"example.org"}, "X-Forwarded-Proto": {"http"},
	}
	if got := incoming(r, "id", false); !reflect.DeepEqual(got, want) {
		t.Errorf("a public function gets %v, want %v", got, want)
	}
	delete(want, "Authorization")
	if got := incoming(r, "id", true); !reflect.DeepEqual(got, want) {
		t.Errorf("a function behind a key gets %v, want %v", got, want)
	}
	r.Header["Connection"] = []string{"Upgrade"}
	if got := incoming(r, "id", false); got.Get("Upgrade") != "h2c" || got.Get("Connection") != "Upgrade" {
		t.Errorf("a request to upgrade arrives as %v", got)
	}
}

func TestAnswersHeadersAreEncodedAnew(t *testing.T) {
	got := http.Header{}
	err := outgoing(got, http.Header{
		"content-type": {"text/html"}, "Set-Cookie": {"a=1", "b=2"}, "Connection": {"X-Hop"}, "X-Hop": {"1"}, "Transfer-Encoding": {"chunked"},
		"Content-Length": {"3"}, "brasa-outcome": {"ok"}, "Upgrade": {"x"}, "Trailer": {"x"},
	}, false)
	want := http.Header{"Content-Type": {"text/html"}, "Set-Cookie": {"a=1", "b=2"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, h := range []http.Header{
		{"X": {"a\r\nSet-Cookie: x=1"}}, {"X": {"a\nb"}}, {"X\r\nY": {"a"}}, {"X Y": {"a"}}, {"": {"a"}}, {"X": {"a\x00"}}, {"X:": {"a"}},
	} {
		if err := outgoing(http.Header{}, h, false); faas.CodeOf(err) != faas.Failed {
			t.Errorf("%q: %v, want failed", h, err)
		}
	}
}

func TestNamesOfFiles(t *testing.T) {
	for in, want := range map[string]string{"": "", "a.py": "a.py", "dir/a.py": "a.py", `C:\x\a.py`: "a.py", "../../etc/passwd": "passwd", "ä.py": "ä.py"} {
		if got, err := filename(in); err != nil || got != want {
			t.Errorf("filename(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"/", ".", "..", "a/..", "a\x00b", "a\nb", strings.Repeat("a", 256), "\xff"} {
		if got, err := filename(in); err == nil {
			t.Errorf("filename(%q) = %q, want an error", in, got)
		}
	}
}
