package deploy_test

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

func actionRequest(language, code string) deploy.Request {
	return deploy.Request{
		Name: faas.Name{Namespace: "default", Package: "pkg", Function: "f"}, Language: language, Code: strings.NewReader(code),
		Contract: faas.ContractOpenWhisk, Unproved: true,
		Params: map[string]json.RawMessage{"a": json.RawMessage(`{"b":1}`)},
		Origin: &faas.Origin{Dialect: "openwhisk", Document: json.RawMessage(`{"version":"0.0.3"}`)},
		Env:    map[string]string{"any name at all": "x"},
	}
}

func (s *shop) source(t *testing.T, rev *faas.Revision) string {
	t.Helper()
	r, err := s.Source(t.Context(), rev)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAnActionKeepsItsCodeAsItWasSent(t *testing.T) {
	s := newShop(t, nil)
	archive := zipOf(t, map[string]string{"__main__.py": good, "lib/x.py": "x = 1\n"})
	for _, code := range []string{good, archive, "def main(:\n", "PK\x03\x04 no archive"} {
		out, err := s.Deploy(t.Context(), actionRequest(runtimes.Python, code), nil)
		if err != nil {
			t.Fatalf("%.20q: %v", code, err)
		}
		_, rev, err := s.catalog.Resolve(faas.Ref{Name: out.Revision.Name})
		if err != nil || rev.ID != out.Revision.ID {
			t.Fatalf("%.20q is not active: %v", code, err)
		}
		if got := s.source(t, rev); got != code {
			t.Errorf("%.20q came back as %.20q", code, got)
		}
		if rev.Contract != faas.ContractOpenWhisk || string(rev.Params["a"]) != `{"b":1}` || string(rev.Origin.Document) != `{"version":"0.0.3"}` || rev.Env["any name at all"] != "x" {
			t.Errorf("revision %+v", rev)
		}
		if rev.Handler != "main" || rev.Entry != "__main__.py" && rev.Broken == "" {
			t.Errorf("handler %q of %q", rev.Handler, rev.Entry)
		}
	}
}

func TestAnActionThatCannotBeBuiltIsPublished(t *testing.T) {
	s := newShop(t, nil)
	for name, c := range map[string]struct{ language, code, want string }{
		"no code":      {runtimes.Python, "", "no code"},
		"no archive":   {runtimes.Node, "PK\x03\x04 no archive", ""},
		"no entry":     {runtimes.Python, zipOf(t, map[string]string{"main.py": good}), "__main__.py"},
		"no module":    {runtimes.Node, zipOf(t, map[string]string{"lib.js": ""}), "index.js"},
		"no program":   {runtimes.ActionLoop, zipOf(t, map[string]string{"run": "#!/bin/sh\n"}), "exec"},
		"other system": {deploy.NativeAction, "MZ\x90 of another system", "another system"},
		"no main.rb":   {runtimes.Ruby, zipOf(t, map[string]string{"a.rb": ""}), "main.rb"},
	} {
		out, err := s.Deploy(t.Context(), actionRequest(c.language, c.code), nil)
		if err != nil {
			t.Errorf("%s: %v; want it published", name, err)
			continue
		}
		if rev := out.Revision; rev.Broken == "" || !strings.Contains(rev.Broken, c.want) || rev.Code != "" {
			t.Errorf("%s: broken by %q, code %q; want %q", name, rev.Broken, rev.Code, c.want)
		}
		proved := actionRequest(c.language, c.code)
		proved.Unproved = false
		if _, err := s.Deploy(t.Context(), proved, nil); err == nil {
			t.Errorf("%s: published although it was to be proved", name)
		}
	}
}

// Item 76: the error names the image.
func TestAnActionOfAnImageThatCannotBeHadIsPublished(t *testing.T) {
	s := newShop(t, nil)
	req := actionRequest("", "text")
	req.Image = &deploy.Source{Reference: "nowhere.invalid/no/image:1"}
	out, err := s.Deploy(t.Context(), req, nil)
	if err != nil {
		t.Fatal(err)
	}
	if rev := out.Revision; !strings.Contains(rev.Broken, "nowhere.invalid/no/image:1") || s.source(t, rev) != "text" || rev.Runtime != runtimes.OpenWhisk {
		t.Errorf("revision %+v", rev)
	}
}

func TestWhatIsWrongWithARequestForAnActionIsSaid(t *testing.T) {
	s := newShop(t, nil)
	for name, c := range map[string]struct {
		adjust func(*deploy.Request)
		want   faas.Code
	}{
		"a language that there is not": {func(r *deploy.Request) { r.Language = "cobol" }, faas.Invalid},
		"no language":                  {func(r *deploy.Request) { r.Language = "" }, faas.Invalid},
		"no main class":                {func(r *deploy.Request) { r.Language = runtimes.Java }, faas.Invalid},
		"another contract":             {func(r *deploy.Request) { r.Contract = "lambda" }, faas.Invalid},
		"unproved and native":          {func(r *deploy.Request) { r.Contract = "" }, faas.Invalid},
		"a variable of the platform's": {func(r *deploy.Request) { r.Env = map[string]string{"LD_PRELOAD": "x"} }, faas.Invalid},
		"large parameters": {func(r *deploy.Request) {
			r.Params = map[string]json.RawMessage{"a": json.RawMessage(`"` + strings.Repeat("x", 4<<20) + `"`)}
		}, faas.TooLarge},
		"a large origin": {func(r *deploy.Request) { r.Origin.Document = json.RawMessage(`"` + strings.Repeat("x", 4<<20) + `"`) }, faas.TooLarge},
		"a large limit":  {func(r *deploy.Request) { r.Limits.Memory = 1 << 50 }, faas.Invalid},
	} {
		req := actionRequest(runtimes.Python, good)
		c.adjust(&req)
		if _, err := s.Deploy(t.Context(), req, nil); faas.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestOnlyAProgramThatKnowsOfItIsAskedToAcknowledgeItsStart(t *testing.T) {
	s := newShop(t, nil)
	for code, want := range map[string]string{
		"#!/bin/sh\nread line\n": "", "#!/bin/sh\n[ -n \"$__OW_WAIT_FOR_ACK\" ] && echo '{\"ok\":true}' >&3\n": "1",
		zipOf(t, map[string]string{"exec": "#!/bin/sh\n. /code/lib\n", "lib": "__OW_WAIT_FOR_ACK"}): "1",
	} {
		out, err := s.Deploy(t.Context(), actionRequest(runtimes.ActionLoop, code), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := out.Revision.Env[runtimes.LoopAck]; got != want || out.Revision.Broken != "" {
			t.Errorf("%.60q: %q, want %q; %s", code, got, want, out.Revision.Broken)
		}
		info, err := os.Stat(filepath.Join(s.laid(t, out.Revision), "exec"))
		if err != nil || info.Mode()&0o111 == 0 {
			t.Errorf("%.60q can't be executed: %v", code, err)
		}
	}
}

// laid returns where a revision's code lies on this machine.
func (s *shop) laid(t *testing.T, rev *faas.Revision) string {
	t.Helper()
	dir, release, err := s.depot.Tree(t.Context(), rev.Code)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return dir
}
