package install_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"html"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// pyIndex is a directory that is an index of Python packages.
type pyIndex struct {
	dir   string
	links map[string][]string // by package
}

func newPyIndex(t *testing.T) *pyIndex {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return &pyIndex{dir: dir, links: map[string][]string{}}
}

func (x *pyIndex) url() string { return "file://" + x.dir }

// add puts a file there and returns its hash. yanked, if not empty, is why it was withdrawn.
func (x *pyIndex) add(t *testing.T, project, file string, content []byte, yanked string) string {
	t.Helper()
	sum := sha256.Sum256(content)
	hash := hex.EncodeToString(sum[:])
	dir := filepath.Join(x.dir, project)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	attribute := ""
	if yanked != "" {
		attribute = ` data-yanked="` + html.EscapeString(yanked) + `"`
	}
	x.links[project] = append(x.links[project], fmt.Sprintf(`<a href="%s#sha256=%s"%s>%s</a>`, file, hash, attribute, file))
	page := "<!DOCTYPE html><html><body>\n" + strings.Join(x.links[project], "<br>\n") + "\n</body></html>\n"
	for name, b := range map[string][]byte{file: content, "index.html": []byte(page)} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return hash
}

// wheel adds a wheel of pure Python with the files given, and returns its hash.
func (x *pyIndex) wheel(t *testing.T, project, version string, files map[string]string) string {
	t.Helper()
	return x.add(t, project, project+"-"+version+"-py3-none-any.whl", wheelOf(t, project, version, files), "")
}

// wheelOf makes a wheel. A file's content may be "size:N", for so many zeros.
func wheelOf(t *testing.T, project, version string, files map[string]string, needs ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	info := project + "-" + version + ".dist-info/"
	all := map[string]string{
		info + "METADATA": "Metadata-Version: 2.1\nName: " + project + "\nVersion: " + version + "\n",
		info + "WHEEL":    "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
	}
	for _, n := range needs {
		all[info+"METADATA"] += "Requires-Dist: " + n + "\n"
	}
	for name, text := range files {
		all[name] = text
	}
	record := ""
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		record += name + ",,\n"
	}
	all[info+"RECORD"] = record + info + "RECORD,,\n"
	for _, name := range append(names, info+"RECORD") {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		var size int
		if n, _ := fmt.Sscanf(all[name], "size:%d", &size); n == 1 {
			zeros := make([]byte, 1<<20)
			for ; size > 0 && err == nil; size -= len(zeros) {
				_, err = w.Write(zeros[:min(size, len(zeros))])
			}
		} else {
			_, err = w.Write([]byte(all[name]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// source adds a package that has to be built, by a backend that lies in it and runs hook first.
func (x *pyIndex) source(t *testing.T, project, version, hook string) string {
	t.Helper()
	backend := `
import os, zipfile
def _hook(out):
    pass
` + hook + `
def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    out = {}
    _hook(out)
    name = "` + project + "-" + version + `-py3-none-any.whl"
    info = "` + project + "-" + version + `.dist-info/"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as z:
        z.writestr("` + project + `.py", "SEEN = %r\n" % (out,))
        z.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: ` + project + `\nVersion: ` + version + `\n")
        z.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr(info + "RECORD", "` + project + `.py,,\n")
    return name
`
	root := project + "-" + version + "/"
	return x.add(t, project, project+"-"+version+".tar.gz", tarOf(t, map[string]string{
		root + "PKG-INFO":       "Metadata-Version: 2.1\nName: " + project + "\nVersion: " + version + "\n",
		root + "pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n[project]\nname = \"" + project + "\"\nversion = \"" + version + "\"\n",
		root + "backend.py":     backend,
	}), "")
}

func tarOf(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(files[name])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// serveWithPassword serves a directory to who has the password, and counts those who had it.
func serveWithPassword(t *testing.T, l net.Listener, dir, password string) *atomic.Int32 {
	t.Helper()
	var asked atomic.Int32
	files := http.FileServer(http.Dir(dir))
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, p, _ := r.BasicAuth(); p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="index"`)
			http.Error(w, "who is there?", http.StatusUnauthorized)
			return
		}
		asked.Add(1)
		files.ServeHTTP(w, r)
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return &asked
}
