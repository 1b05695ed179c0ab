package examples_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	_ "image/jpeg" // of the thumbnails
	_ "image/png"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/examples"
	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/faas"
)

// TestListFitsTheFolders checks the list against what lies there, without a server.
func TestListFitsTheFolders(t *testing.T) {
	var dirs []string
	for _, e := range examples.List() {
		dirs = append(dirs, e.Dir)
		if err := faas.ValidateName("function", e.Name); err != nil {
			t.Error(err)
		}
		readme, err := fs.ReadFile(examples.FS, path.Join(e.Dir, "README.md"))
		if err != nil {
			t.Errorf("%s: %v", e.Name, err)
		}
		want := []string{"# " + e.Name + "\n", "brasa deploy "}
		if e.Build == nil {
			want[1] = strings.Join(append([]string{"brasa deploy examples/" + e.Dir}, e.Flags()...), " ")
		}
		for _, w := range want {
			if !strings.Contains(string(readme), w) {
				t.Errorf("%s: the README lacks %q", e.Name, w)
			}
		}
		if e.About == "" || len(e.Calls) == 0 {
			t.Errorf("%s: it says nothing about itself, or is never called", e.Name)
		}
		for _, c := range e.Calls {
			if _, err := body(e, c); err != nil {
				t.Errorf("%s: %v", e.Name, err)
			}
			if c.Kind != "invoke" && c.Kind != "http" || c.Expect.Status == 0 {
				t.Errorf("%s: a call of kind %q that expects status %d", e.Name, c.Kind, c.Expect.Status)
			}
		}
	}
	entries, err := fs.ReadDir(examples.FS, ".")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range entries {
		if d.IsDir() && !slices.Contains(dirs, d.Name()) {
			t.Errorf("folder %s is not in examples.json", d.Name())
		}
	}
}

// TestArchiveKeepsScriptsExecutable looks at what a server would be sent.
func TestArchiveKeepsScriptsExecutable(t *testing.T) {
	for _, e := range examples.List() {
		b, err := e.Archive()
		if err != nil {
			t.Fatal(err)
		}
		again, err := e.Archive()
		if err != nil || !bytes.Equal(b, again) {
			t.Errorf("%s: the archive differs when it is made again", e.Name)
		}
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		for r := tar.NewReader(z); ; {
			h, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", e.Name, err)
			}
			if script := strings.HasSuffix(h.Name, ".sh"); script != (h.Mode == 0o755) && script {
				t.Errorf("%s: %s has mode %o", e.Name, h.Name, h.Mode)
			}
		}
	}
}

// TestExamples deploys every example and makes the calls of its list.
func TestExamples(t *testing.T) {
	s := startServer(t)
	for _, e := range examples.List() {
		t.Run(e.Name, func(t *testing.T) {
			s.deploy(t, e)
			for i, c := range e.Calls {
				got, err := s.call(t.Context(), e, c)
				if err != nil {
					t.Errorf("call %d: %v", i+1, err)
					continue
				}
				for _, problem := range check(c.Expect, got) {
					t.Errorf("call %d: %s\n%s", i+1, problem, clip(got.body))
				}
			}
		})
	}
}

// server is where the examples are tried.
type server struct {
	*api.Client
	key, namespace string
	subnet         string // of sandboxes with network; empty if it is not ours
}

// deploy puts an example's secrets and deploys it, and skips the test if the server can't have it.
func (s *server) deploy(t *testing.T, e examples.Example) *api.Outcome {
	t.Helper()
	spec := api.Spec{Public: &e.Public}
	for name, value := range e.Secrets {
		if _, err := s.PutSecret(t.Context(), s.namespace, name, value); err != nil {
			t.Fatal(err)
		}
		spec.Secrets = append(spec.Secrets, name)
	}
	code := api.Code{Filename: e.Dir + ".tar.gz"}
	if e.Build != nil {
		program, err := os.ReadFile(build(t, e))
		if err != nil {
			t.Fatal(err)
		}
		code = api.Code{Reader: bytes.NewReader(program), Filename: e.Name}
	} else {
		b, err := e.Archive()
		if err != nil {
			t.Fatal(err)
		}
		code.Reader = bytes.NewReader(b)
	}
	outcome, err := s.Deploy(t.Context(), s.namespace, e.Name, spec, code)
	if err != nil {
		if e := faas.AsError(err); e.Code == faas.Unavailable {
			t.Skipf("this server can't run it: %v; %s", err, e.Fix)
		}
		t.Fatalf("deploy: %v\n%s", err, faas.AsError(err).Trace)
	}
	return outcome
}

// build makes an example's executable in a directory of the test's.
func build(t *testing.T, e examples.Example) string {
	t.Helper()
	if _, err := exec.LookPath(e.Build[0]); err != nil {
		t.Skipf("%s is not installed", e.Build[0])
	}
	out := filepath.Join(t.TempDir(), e.Name)
	args := slices.Clone(e.Build[1:])
	for i, a := range args {
		if a == "$OUT" {
			args[i] = out
		}
	}
	cmd := exec.CommandContext(t.Context(), e.Build[0], args...)
	cmd.Dir = e.Dir
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(e.Build, " "), err, text)
	}
	return out
}

// body returns what a call sends.
func body(e examples.Example, c examples.Call) ([]byte, error) {
	switch {
	case c.File != "":
		return fs.ReadFile(examples.FS, path.Join(e.Dir, c.File))
	case c.Body != "":
		return []byte(c.Body), nil
	}
	return c.Input, nil
}

// got is an answer.
type got struct {
	status      int
	contentType string
	body        []byte
}

func (s *server) call(ctx context.Context, e examples.Example, c examples.Call) (got, error) {
	b, err := body(e, c)
	if err != nil {
		return got{}, err
	}
	if c.Kind == "invoke" {
		return s.invoke(ctx, e, c, b)
	}
	method := c.Method
	if method == "" {
		method = http.MethodGet
		if b != nil {
			method = http.MethodPost
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, s.URL(s.namespace, e.Name)+c.Path, bytes.NewReader(b))
	if err != nil {
		return got{}, err
	}
	for k, v := range c.Headers {
		r.Header.Set(k, v)
	}
	if c.Sign != "" {
		r.Header.Set("X-Signature", sign(b, e.Secrets[c.Sign], time.Now()))
	}
	if !e.Public {
		r.Header.Set("Authorization", "Bearer "+s.key)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return got{}, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	return got{res.StatusCode, res.Header.Get("Content-Type"), answer}, err
}

func (s *server) invoke(ctx context.Context, e examples.Example, c examples.Call, b []byte) (got, error) {
	var input io.Reader
	if b != nil {
		input = bytes.NewReader(b)
	}
	reply, err := s.Invoke(ctx, s.namespace, e.Name, api.CallOptions{ContentType: c.Headers["Content-Type"]}, input)
	if err != nil {
		return got{}, fmt.Errorf("%w\n%s", err, faas.AsError(err).Trace)
	}
	g := got{reply.Status, reply.ContentType, reply.Result}
	var text string
	if json.Unmarshal(reply.Result, &text) == nil {
		g.body = []byte(text)
		if reply.Encoding == "base64" {
			if g.body, err = base64.StdEncoding.DecodeString(text); err != nil {
				return got{}, err
			}
		}
	}
	return g, nil
}

// sign makes the header that the webhook example wants.
func sign(body []byte, secret string, now time.Time) string {
	at := fmt.Sprint(now.Unix())
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(at + "."))
	mac.Write(body)
	return "t=" + at + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// check says what about an answer is not as expected.
func check(want examples.Expect, got got) (problems []string) {
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if got.status != want.Status {
		bad("status %d, want %d", got.status, want.Status)
	}
	if !strings.HasPrefix(got.contentType, want.ContentType) {
		bad("content type %q, want %q", got.contentType, want.ContentType)
	}
	if want.Equals != "" && string(got.body) != want.Equals {
		bad("want the body %q", want.Equals)
	}
	for _, s := range want.Contains {
		if !bytes.Contains(got.body, []byte(s)) {
			bad("the body lacks %q", s)
		}
	}
	for _, s := range want.Lacks {
		if bytes.Contains(got.body, []byte(s)) {
			bad("the body has %q", s)
		}
	}
	if want.Picture != "" {
		cfg, _, err := image.DecodeConfig(bytes.NewReader(got.body))
		if size := fmt.Sprintf("%dx%d", cfg.Width, cfg.Height); err != nil || size != want.Picture {
			bad("a picture of %s (%v), want %s", size, err, want.Picture)
		}
	}
	if want.JSON != nil {
		var w, g any
		if err := errors.Join(json.Unmarshal(want.JSON, &w), json.Unmarshal(got.body, &g)); err != nil {
			bad("compare JSON: %v", err)
		} else if where := missing(w, g, "body"); where != "" {
			bad("%s", where)
		}
	}
	return problems
}

// missing says where got lacks a value of want; "" if nowhere.
func missing(want, got any, at string) string {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return fmt.Sprintf("%s is no object", at)
		}
		for k, v := range w {
			if where := missing(v, g[k], at+"."+k); where != "" {
				return where
			}
		}
		return ""
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) < len(w) || len(w) == 0 && len(g) > 0 {
			return fmt.Sprintf("%s is not a list like %v", at, w)
		}
		for i := range w {
			if where := missing(w[i], g[i], fmt.Sprintf("%s[%d]", at, i)); where != "" {
				return where
			}
		}
		return ""
	}
	if want != got {
		return fmt.Sprintf("%s is %v, want %v", at, got, want)
	}
	return ""
}

func clip(b []byte) string {
	if len(b) > 1000 {
		return fmt.Sprintf("%.1000q… (%d bytes)", b, len(b))
	}
	return fmt.Sprintf("%q", b)
}
