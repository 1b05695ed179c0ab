package importer

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// notes collects what is noted.
type notes []string

func (n *notes) note(format string, args ...any) { *n = append(*n, fmt.Sprintf(format, args...)) }

func TestWhatTheTargetDoesNotHaveIsTold(t *testing.T) {
	im := &importing{
		kinds: map[string]kind{
			"nodejs:20": {Kind: "nodejs:20", Default: true}, "nodejs:default": {Kind: "nodejs:20", Default: true}, "nodejs:10": {Kind: "nodejs:10", Deprecated: true},
		},
		limits: map[string]bounds{"timeout": {100, 300000}, "memory": {128, 512}, "instances": {}},
		report: Report{Source: "old"},
	}
	for _, test := range []struct{ kind, want, note string }{
		{"nodejs:20", "nodejs:20", ""},
		{"nodejs:14", "nodejs:20", "nodejs:14"},
		{"nodejs:10", "nodejs:20", "nodejs:10"},
		{"ballerina:0.990", "", ""},
	} {
		var said notes
		d := document{Exec: &execution{Kind: test.kind, Image: "of/the-kind"}}
		err := im.action(&d, said.note)
		if test.want == "" {
			if !errors.Is(err, errNoKind) {
				t.Errorf("%s: %v, want no kind", test.kind, err)
			}
			continue
		}
		if err != nil || d.Exec.Kind != test.want || d.Exec.Image != "" || strings.Contains(strings.Join(said, ""), "is not run") != (test.note != "") {
			t.Errorf("%s becomes %+v with notes %q and error %v", test.kind, d.Exec, said, err)
		}
	}

	var said notes
	d := document{
		Exec:        &execution{Kind: "sequence", Components: []string{"/old/a", "/old/p/b", "/other/p/c", "/whisk.system/utils/echo"}},
		Annotations: []keyValue{{Key: "exec", Value: json.RawMessage(`"sequence"`)}, {Key: "provide-api-key", Value: json.RawMessage("false")}},
	}
	if err := im.action(&d, said.note); err != nil {
		t.Fatal(err)
	}
	if want := []string{"/_/a", "/_/p/b", "/other/p/c", "/whisk.system/utils/echo"}; !slices.Equal(d.Exec.Components, want) {
		t.Errorf("components %q, want %q", d.Exec.Components, want)
	}
	if len(said) != 1 || !strings.Contains(said[0], "/other/p/c") || len(d.Annotations) != 1 {
		t.Errorf("notes %q, annotations %v", said, d.Annotations)
	}

	said = nil
	limits := map[string]int{"timeout": 600000, "memory": 64, "logs": 10, "instances": 7}
	im.cut(limits, said.note)
	if limits["timeout"] != 300000 || limits["memory"] != 128 || limits["logs"] != 10 || limits["instances"] != 7 || len(said) != 2 {
		t.Errorf("limits %v, notes %q", limits, said)
	}
}

// An action of a time before the annotation was given its namespace's key.
func TestOldActionsKeepTheirKey(t *testing.T) {
	im := &importing{kinds: map[string]kind{"nodejs:20": {Kind: "nodejs:20"}}}
	d := document{Exec: &execution{Kind: "nodejs:20"}}
	var said notes
	if err := im.action(&d, said.note); err != nil || len(d.Annotations) != 1 || string(d.Annotations[0].Value) != "true" {
		t.Errorf("annotations %v, %v", d.Annotations, err)
	}
}

func TestSequencesComeAfterTheirSteps(t *testing.T) {
	im := &importing{report: Report{Source: "old"}}
	got := im.ordered(map[string][]string{"a": {"/old/p/z", "/old/plain"}, "p/z": {"/old/q"}, "q": {"/other/a"}, "r": nil})
	if want := []string{"q", "p/z", "a", "r"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestEncryptedParametersAreLeftOut(t *testing.T) {
	var d document
	if err := json.Unmarshal([]byte(`{"parameters":[{"key":"a","value":1,"encryption":null},{"key":"b","value":"x","encryption":"aes-128"},{"key":"c","value":2,"init":true}]}`), &d); err != nil {
		t.Fatal(err)
	}
	var said notes
	d.withoutEncrypted(said.note)
	if got := compact(t, d.Parameters); got != `[{"key":"a","value":1},{"key":"c","value":2,"init":true}]` || len(said) != 1 || !strings.Contains(said[0], `"b"`) {
		t.Errorf("parameters %s, notes %q", got, said)
	}
}

func TestRulesNameTheirPartsInEitherForm(t *testing.T) {
	for _, text := range []string{`"/ns/p/a"`, `{"path":"ns/p","name":"a"}`} {
		var r reference
		if err := json.Unmarshal([]byte(text), &r); err != nil || r.Path != "ns/p" || r.Name != "a" || compact(t, r) != `"/ns/p/a"` {
			t.Errorf("%s is %+v, %v", text, r, err)
		}
	}
	if err := json.Unmarshal([]byte(`"plain"`), new(reference)); err == nil {
		t.Error("a plain name is taken")
	}
}

func compact(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
