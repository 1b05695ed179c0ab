package install_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/runtimes"
)

// mirror is a registry of our own, where sandboxes reach it.
func mirror(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	s := &httptest.Server{Listener: listenBeside(t), Config: &http.Server{Handler: handler}}
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

func zipped(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, text := range files {
		f, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = f.Write([]byte(text)) // into memory
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestGoAsksTheProxyThatIsConfigured(t *testing.T) {
	const mod = "module m.example/x\n\ngo 1.21\n"
	module := zipped(t, map[string]string{"m.example/x@v1.0.0/go.mod": mod, "m.example/x@v1.0.0/x.go": "package x\n"})
	answers := map[string][]byte{
		"/m.example/x/@v/list": []byte("v1.0.0\n"), "/m.example/x/@v/v1.0.0.info": []byte(`{"Version":"v1.0.0"}`),
		"/m.example/x/@v/v1.0.0.mod": []byte(mod), "/m.example/x/@v/v1.0.0.zip": module,
	}
	var asked atomic.Int32
	url := mirror(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		b, ok := answers[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(b)
	})
	s := newScriptShop(t, runtimes.Go, func(c *install.Config) {
		c.Registries.Go = install.GoProxy{Proxy: url, Private: "m.example/*"}
	})
	files := map[string]string{"go.mod": "module f\n\ngo 1.21\n\nrequire m.example/x v1.0.0\n", "f.go": "package f\n"}
	res := s.must(t, files, install.Options{})
	if !res.BuildOnly || res.Layer != nil || len(res.Packages) != 1 || res.Packages[0].Name != "m.example/x" || res.Packages[0].Version != "v1.0.0" || res.Note == "" {
		t.Errorf("result %+v", res)
	}
	sum, err := os.ReadFile(filepath.Join(res.Dir, install.ResolvedDir, "go.sum"))
	if err != nil || strings.Count(string(sum), "m.example/x v1.0.0") != 2 {
		t.Fatalf("what was resolved: %s, %v", sum, err)
	}
	if again := s.must(t, files, install.Options{}); !again.Cached || again.Key != res.Key {
		t.Errorf("the same once more: %+v", again)
	}

	// With the hashes that came of it another namespace finds the layer; its own name does not count.
	files["go.sum"] = string(sum)
	if res = s.must(t, files, install.Options{Strict: true}); res.Cached {
		t.Error("the layer with hashes was there before")
	}
	n := asked.Load()
	other, err := s.Install(t.Context(), install.Request{
		Namespace: "other", NamespaceUID: "ns2", Options: install.Options{Strict: true}, Plan: &runtimes.Plan{Runtime: runtimes.Go},
		Code: layOut(t, map[string]string{"go.mod": strings.Replace(files["go.mod"], "module f", "module g", 1), "go.sum": files["go.sum"], "f.go": "package g\n"}),
	})
	if err != nil || !other.Cached || asked.Load() != n {
		t.Errorf("another namespace: %+v, %v, asked %d times more", other, err, asked.Load()-n)
	}
	if other != nil {
		other.Release()
	}

	files["go.sum"] = strings.Replace(files["go.sum"], "h1:", "h1:AAAA", 1)
	s.refuses(t, files, install.Options{}, faas.Invalid, "m.example/x@v1.0.0", "go.sum")
	delete(files, "go.sum")
	files["go.mod"] = strings.Replace(files["go.mod"], "v1.0.0", "v1.1.0", 1)
	s.refuses(t, files, install.Options{}, faas.Invalid, "v1.1.0", "m.example/x")
}

// crate returns the archive of a crate, and the line of the index that tells of it.
func crate(t *testing.T, name, version string, yanked bool) (archive []byte, line string) {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for file, text := range map[string]string{
		"Cargo.toml": fmt.Sprintf("[package]\nname = %q\nversion = %q\nedition = \"2021\"\n", name, version), "src/lib.rs": "",
	} {
		if err := w.WriteHeader(&tar.Header{Name: name + "-" + version + "/" + file, Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write([]byte(text)) // into memory
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b.Bytes())
	return b.Bytes(), fmt.Sprintf(`{"name":%q,"vers":%q,"deps":[],"cksum":%q,"features":{},"yanked":%v}`+"\n", name, version, hex.EncodeToString(sum[:]), yanked)
}

func TestCargoAsksTheRegistryThatIsConfigured(t *testing.T) {
	good, line := crate(t, "private-thing", "1.0.0", false)
	gone, taken := crate(t, "private-thing", "1.1.0", true)
	const token = "sesame-open"
	var url string
	var stolen atomic.Bool
	url = mirror(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/evil/config.json":
			fmt.Fprintf(w, `{"dl":"%s/evil/dl","auth-required":true}`, url)
		case strings.HasPrefix(r.URL.Path, "/evil/"):
			if r.Header.Get("Authorization") != "" {
				stolen.Store(true)
			}
			w.WriteHeader(http.StatusUnauthorized)
		case r.Header.Get("Authorization") != token:
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/config.json":
			fmt.Fprintf(w, `{"dl":"%s/dl","auth-required":true}`, url)
		case r.URL.Path == "/pr/iv/private-thing":
			_, _ = w.Write([]byte(line + taken))
		case r.URL.Path == "/dl/private-thing/1.0.0/download":
			_, _ = w.Write(good)
		case r.URL.Path == "/dl/private-thing/1.1.0/download":
			_, _ = w.Write(gone)
		default:
			http.NotFound(w, r)
		}
	})
	registry := install.CargoRegistry{Registry: "sparse+" + url + "/", Token: token}
	s := newScriptShop(t, runtimes.Rust, func(c *install.Config) { c.Registries.Cargo = registry })
	manifest := func(version string) map[string]string {
		return map[string]string{"Cargo.toml": "[package]\nname = \"f\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[dependencies]\nprivate-thing = \"" + version + "\"\n", "src/main.rs": "fn main() {}\n"}
	}
	files := manifest("1")
	res := s.must(t, files, install.Options{})
	if !res.BuildOnly || len(res.Packages) != 1 || res.Packages[0].Name != "private-thing" || res.Packages[0].Version != "1.0.0" {
		t.Errorf("result %+v", res)
	}
	// The build finds crates by the same configuration, in which there is no token; nor is it anywhere else.
	if err := filepath.WalkDir(res.Dir, func(p string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		if b, err := os.ReadFile(p); err != nil || bytes.Contains(b, []byte(token)) {
			t.Errorf("%s holds the token, or %v", p, err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(res.Dir, "config.toml")); err != nil || !strings.Contains(string(b), url) {
		t.Errorf("config %s, %v", b, err)
	}

	lock, err := os.ReadFile(filepath.Join(res.Dir, install.ResolvedDir, "Cargo.lock"))
	if err != nil {
		t.Fatal(err)
	}
	files["Cargo.lock"] = string(lock)
	if res = s.must(t, files, install.Options{Strict: true}); res.Manifest != "Cargo.lock" {
		t.Errorf("decided by %s", res.Manifest)
	}
	at := strings.Index(files["Cargo.lock"], "checksum = \"") + len("checksum = \"")
	files["Cargo.lock"] = files["Cargo.lock"][:at] + strings.Repeat("0", 64) + files["Cargo.lock"][at+64:]
	s.refuses(t, files, install.Options{}, faas.Invalid, "private-thing 1.0.0", "Cargo.lock")
	s.refuses(t, manifest("=1.1.0"), install.Options{}, faas.Invalid, "1.1.0", "private-thing", "yanked")
	s.refuses(t, manifest("7"), install.Options{}, faas.Invalid, "private-thing", "1.0.0")

	// The code's own configuration names another registry by the server's name, in other capitals.
	for _, name := range []string{"mirror", "Mirror", "m\u0131rror"} {
		evil := manifest("1")
		evil["Cargo.toml"] = strings.Replace(evil["Cargo.toml"], `"1"`, `{ version = "1", registry = "`+name+`" }`, 1)
		evil[".cargo/config.toml"] = fmt.Sprintf("[registries.%q]\nindex = \"sparse+%s/evil/\"\n", name, url)
		s.refuses(t, evil, install.Options{}, faas.Invalid, "another name")
	}
	if stolen.Load() {
		t.Error("another registry was sent the token")
	}
}
