package daemon

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/faas"
)

// compile builds the images' program, linked in the way that flags say.
func compile(t *testing.T, source string, flags ...string) []byte {
	t.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("needs gcc")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.c"), []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "main")
	if out, err := exec.Command(gcc, append([]string{"-O1", "-w", "-o", program, filepath.Join(dir, "main.c")}, flags...)...).CombinedOutput(); err != nil {
		t.Skipf("gcc cannot link this here: %s", out)
	}
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// makeImage makes an image of one layer. Names that end in a slash are directories.
func makeImage(t *testing.T, files map[string]string, config v1.Config, arch string) v1.Image {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for file, content := range files {
		h := &tar.Header{Name: file, Mode: 0o4755, Size: int64(len(content)), Typeflag: tar.TypeReg, Uid: 33}
		if link, ok := strings.CutPrefix(content, "-> "); ok {
			h.Typeflag, h.Linkname, h.Size, content = tar.TypeSymlink, link, 0, ""
		}
		if strings.HasSuffix(file, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		t.Fatal(err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", arch, config
	if image, err = mutate.ConfigFile(image, file); err != nil {
		t.Fatal(err)
	}
	return image
}

// saved is what docker save would write.
func saved(t *testing.T, image v1.Image) io.Reader {
	t.Helper()
	tag, err := name.NewTag("test.example/image:1")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := tarball.Write(tag, image, &b); err != nil {
		t.Fatal(err)
	}
	return &b
}

// imageRig deploys images and calls what comes of them.
type imageRig struct {
	*victim
	program string // linked statically
}

func startImages(t *testing.T) *imageRig {
	t.Helper()
	needSandboxes(t)
	r := &imageRig{program: string(compile(t, imageProgram, "-static"))}
	r.victim = startVictim(t, t.TempDir(), "")
	return r
}

func (r *imageRig) deploy(t *testing.T, function string, image v1.Image, spec api.Spec) (*api.Outcome, error) {
	t.Helper()
	public := true
	spec.Public = &public
	return r.client.Deploy(t.Context(), "default", function, spec, api.Code{Image: saved(t, image), ImageFile: function + ".tar"})
}

func (r *imageRig) mustDeploy(t *testing.T, function string, image v1.Image, spec api.Spec) *api.Outcome {
	t.Helper()
	out, err := r.deploy(t, function, image, spec)
	if err != nil {
		t.Fatalf("deploy %s: %v\n%s", function, err, faas.AsError(err).Trace)
	}
	return out
}

// get asks a function's own URL.
func (r *imageRig) get(t *testing.T, function, path string) string {
	t.Helper()
	res, err := http.Get(r.client.Server() + "/f/default/" + function + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (r *imageRig) invoke(t *testing.T, function, input string) (string, error) {
	t.Helper()
	s, err := r.client.InvokeRaw(t.Context(), "default", function, api.CallOptions{}, strings.NewReader(input))
	if err != nil {
		return "", err
	}
	defer s.Close()
	b, err := io.ReadAll(s)
	return string(b), err
}

func (r *imageRig) mustInvoke(t *testing.T, function, input string) string {
	t.Helper()
	got, err := r.invoke(t, function, input)
	if err != nil {
		t.Fatalf("invoke %s: %v\n%s", function, err, faas.AsError(err).Trace)
	}
	return got
}

func wants(t *testing.T, got string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("want %q in %q", w, got)
		}
	}
}

func ports(n ...string) map[string]struct{} {
	m := map[string]struct{}{}
	for _, p := range n {
		m[p+"/tcp"] = struct{}{}
	}
	return m
}

func TestImagesRun(t *testing.T) {
	r := startImages(t)
	files := func(more ...string) map[string]string {
		m := map[string]string{"bin/prog": r.program, "app/": "", "etc/passwd": "www-data:x:33:33::/:/bin/sh\n", "usr/bin/alias": "-> /bin/prog"}
		for i := 0; i < len(more); i += 2 {
			m[more[i]] = more[i+1]
		}
		return m
	}

	t.Run("server", func(t *testing.T) {
		image := makeImage(t, files(), v1.Config{
			Entrypoint: []string{"prog", "serve"}, Cmd: []string{"x", "y"}, Env: []string{"PATH=/nowhere:/bin", "A=image", "B=image"},
			WorkingDir: "/app", User: "33", ExposedPorts: ports("3000"),
		}, runtime.GOARCH)
		out := r.mustDeploy(t, "server", image, api.Spec{Env: map[string]string{"B": "own"}})
		if d := out.Detected; d.Language != "http" || !strings.Contains(d.Why, "3000") || out.Function.Active.Image == nil || out.Function.Active.Image.Reference != "server.tar" {
			t.Errorf("detected %+v, image %+v", d, out.Function.Active.Image)
		}
		wants(t, r.get(t, "server", "/a/b"), "/a/b", "own=1 cwd=/app A=image B=own PORT=3000 args=serve,x,y")
		wants(t, r.mustInvoke(t, "server", `{"n":1}`), `{"n":1}`)

		t.Run("again", func(t *testing.T) {
			again := r.mustDeploy(t, "server", image, api.Spec{Env: map[string]string{"B": "own"}})
			i := slices.IndexFunc(again.Steps, func(s api.Step) bool { return s.Image != nil })
			if !again.Same || i < 0 || !again.Steps[i].Image.Cached || again.Steps[i].Image.Layers != 1 || again.Steps[i].Image.Bytes == 0 {
				t.Errorf("same %v, steps %+v", again.Same, again.Steps)
			}
		})
		t.Run("shows nothing of the host", func(t *testing.T) {
			for _, q := range []string{"/show?/etc/shadow", "/show?/etc/os-release", "/show?/proc/1/root/etc/shadow", "/show?/proc/keys", "/list?/usr/lib", "/list?/home", "/list?/code", "/list?/sys"} {
				if got := r.get(t, "server", q); !strings.Contains(got, "No such file") && !strings.Contains(got, "Permission denied") && got != "/proc/keys: \n" {
					t.Errorf("%s: %q", q, got)
				}
			}
			names := strings.Fields(r.get(t, "server", "/list?/"))[1:]
			slices.Sort(names)
			if got := strings.Join(names, " "); got != "app bin dev etc proc tmp usr" {
				t.Errorf("the root has %s", got)
			}
			wants(t, r.get(t, "server", "/show?/etc/passwd"), "www-data:x:33:33", "function:x:11")
		})
		t.Run("cannot be written", func(t *testing.T) {
			for _, file := range []string{"/x", "/app/x", "/bin/prog", "/etc/passwd", "/etc/x", "/proc/sys/kernel/hostname"} {
				if got := r.get(t, "server", "/write?"+file); !strings.HasPrefix(got, "kept") {
					t.Errorf("got %q", got)
				}
			}
			wants(t, r.get(t, "server", "/write?/tmp/x"), "wrote /tmp/x")
		})
	})

	t.Run("port below 1024", func(t *testing.T) {
		r.mustDeploy(t, "fixed", makeImage(t, files(), v1.Config{Entrypoint: []string{"/bin/prog", "fixed"}, ExposedPorts: ports("80", "443")}, runtime.GOARCH), api.Spec{})
		wants(t, r.get(t, "fixed", "/"), "PORT=80")
	})

	t.Run("executable per call", func(t *testing.T) {
		image := makeImage(t, files(), v1.Config{Entrypoint: []string{"/usr/bin/alias"}, Cmd: []string{"serve"}}, runtime.GOARCH)
		out := r.mustDeploy(t, "exec", image, api.Spec{Command: []string{"exec", "/etc/hostname"}})
		if out.Detected.Language != "exec" {
			t.Errorf("detected %+v", out.Detected)
		}
		for range 2 {
			wants(t, r.mustInvoke(t, "exec", "question"), "own=1 cwd=/ ", "args=exec,/etc/hostname", "input=question", "/etc/hostname: No such file")
		}
	})

	t.Run("lines", func(t *testing.T) {
		image := makeImage(t, files(), v1.Config{Entrypoint: []string{"/bin/prog"}, Cmd: []string{"lines"}, Labels: map[string]string{"dev.brasa.language": "lines"}}, runtime.GOARCH)
		if out := r.mustDeploy(t, "lines", image, api.Spec{}); out.Detected.Language != "lines" {
			t.Errorf("detected %+v", out.Detected)
		}
		wants(t, r.mustInvoke(t, "lines", "{}"), "own=1")
	})

	t.Run("watchdog", func(t *testing.T) {
		image := makeImage(t, files("usr/bin/fwatchdog", r.program), v1.Config{Cmd: []string{"fwatchdog", "watchdog"}, Env: []string{"fprocess=x"}}, runtime.GOARCH)
		if out := r.mustDeploy(t, "watchdog", image, api.Spec{}); out.Detected.Language != "openfaas" {
			t.Errorf("detected %+v", out.Detected)
		}
		wants(t, r.get(t, "watchdog", "/"), "own=1")
	})

	t.Run("action", func(t *testing.T) {
		image := makeImage(t, files(), v1.Config{Entrypoint: []string{"/bin/prog", "action"}, Env: []string{"OW_EXECUTION_ENV=test"}}, runtime.GOARCH)
		if out := r.mustDeploy(t, "action", image, api.Spec{Env: map[string]string{"A": "own"}}); out.Detected.Language != "openwhisk" {
			t.Errorf("detected %+v", out.Detected)
		}
		reply, err := r.client.Invoke(t.Context(), "default", "action", api.CallOptions{}, strings.NewReader(`{"name":"Ada"}`))
		if err != nil {
			t.Fatal(err)
		}
		wants(t, string(reply.Result), `"value":{"name":"Ada"}`, `"action_name":"/default/action"`, `"activation_id":"`+string(reply.ID)+`"`, `"main":"main"`, `"A":"own"`, `"code":""`)
		waitFor(t, "the activation", func() bool {
			a, err := r.client.Activation(t.Context(), "default", string(reply.ID))
			if err == nil && (len(a.Logs) != 1 || a.Logs[0].Text != "a line of log") {
				t.Errorf("the log is %v", a.Logs)
			}
			return err == nil
		})
		if _, err := r.invoke(t, "action", `{"x":"fail"}`); faas.CodeOf(err) != faas.Failed || !strings.Contains(err.Error(), "it failed") {
			t.Errorf("a failure: %v", err)
		}
		wants(t, r.get(t, "action", "/?x=shape"), "shaped")
		wants(t, r.get(t, "action", "/?x=y"), `"value":{"x":"y"}`)

		t.Run("with code", func(t *testing.T) {
			code := api.Code{Image: saved(t, image), ImageFile: "action.tar", Filename: "hello.py", Reader: strings.NewReader("def main(args): return args")}
			if _, err := r.client.Deploy(t.Context(), "default", "coded", api.Spec{Handler: "other"}, code); err != nil {
				t.Fatal(err)
			}
			wants(t, r.mustInvoke(t, "coded", "{}"), `"code":"def main(args): return args"`, `"main":"other"`, `"binary":false`)
		})
		t.Run("that refuses its code", func(t *testing.T) {
			code := api.Code{Image: saved(t, image), ImageFile: "action.tar", Filename: "hello.py", Reader: strings.NewReader("refuse me")}
			_, err := r.client.Deploy(t.Context(), "default", "refused", api.Spec{}, code)
			if faas.CodeOf(err) != faas.Failed || !strings.Contains(err.Error(), "no such code") {
				t.Errorf("got %v", err)
			}
		})
	})

	t.Run("events", func(t *testing.T) {
		image := makeImage(t, files("lambda-entrypoint.sh", "#!/bin/prog events"), v1.Config{Entrypoint: []string{"/lambda-entrypoint.sh"}, Env: []string{"LAMBDA_TASK_ROOT=/var/task"}}, runtime.GOARCH)
		if out := r.mustDeploy(t, "events", image, api.Spec{Handler: "app.handler"}); out.Detected.Language != "lambda" {
			t.Errorf("detected %+v", out.Detected)
		}
		for range 2 {
			if got := r.mustInvoke(t, "events", `{"n":1}`); got != `{"got":{"n":1},"handler":"app.handler"}` {
				t.Errorf("got %q", got)
			}
		}
		wants(t, r.get(t, "events", "/p?q=1"), `"rawPath":"/p"`, `"queryStringParameters":{"q":"1"}`, `"method":"GET"`)
		_, err := r.invoke(t, "events", `{"x":"fail"}`)
		if e := faas.AsError(err); faas.CodeOf(err) != faas.Failed || !strings.Contains(e.Error(), "Kind: it failed") || e.Trace != "here" {
			t.Errorf("a failure: %v, trace %q", err, e.Trace)
		}
		if _, err := r.deploy(t, "broken", image, api.Spec{Env: map[string]string{"B": "broken"}}); faas.CodeOf(err) != faas.Failed || !strings.Contains(err.Error(), "no handler") {
			t.Errorf("a function that does not begin: %v", err)
		}
	})

	t.Run("code beside it", func(t *testing.T) {
		public := true
		image := makeImage(t, files(), v1.Config{Entrypoint: []string{"/bin/prog", "serve"}}, runtime.GOARCH)
		code := api.Code{Image: saved(t, image), ImageFile: "a.tar", Filename: "note.txt", Reader: strings.NewReader("beside")}
		if _, err := r.client.Deploy(t.Context(), "default", "beside", api.Spec{Language: "http", Command: []string{"z"}, Public: &public}, code); err != nil {
			t.Fatal(err)
		}
		wants(t, r.mustInvoke(t, "beside", "{}"), "args=serve,z", "PORT=8080")
		wants(t, r.get(t, "beside", "/show?/code/note.txt"), "/code/note.txt: beside")
		res, err := r.client.Function(t.Context(), "default", "beside")
		if err != nil || res.Active.Code == "" || res.Active.Image == nil {
			t.Errorf("the revision is %+v, %v", res.Active, err)
		}
	})

	t.Run("layout directory", func(t *testing.T) {
		dir := t.TempDir()
		image := makeImage(t, files(), v1.Config{Entrypoint: []string{"/bin/prog", "serve"}}, runtime.GOARCH)
		path, err := layout.Write(dir, empty.Index)
		if err != nil {
			t.Fatal(err)
		}
		if err := path.AppendImage(image); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.AddFS(os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.client.Deploy(t.Context(), "default", "layout", api.Spec{}, api.Code{Image: &b, ImageFile: "layout.tar"}); err != nil {
			t.Fatal(err)
		}
		wants(t, r.mustInvoke(t, "layout", "{}"), "own=1")
	})

	t.Run("dynamic program with its own library", func(t *testing.T) {
		dynamic := compile(t, imageProgram)
		image := makeImage(t, ownLibraries(t, dynamic), v1.Config{Entrypoint: []string{"/bin/prog", "serve"}}, runtime.GOARCH)
		r.mustDeploy(t, "dynamic", image, api.Spec{})
		wants(t, r.get(t, "dynamic", "/"), "own=1")
		r.mustDeploy(t, "dynamic", image, api.Spec{Language: "exec", Command: []string{"exec"}})
		lacking := ownLibraries(t, dynamic)
		for file := range lacking {
			if strings.Contains(file, "libc.so") {
				delete(lacking, file)
			}
		}
		_, err := r.deploy(t, "lacking", makeImage(t, lacking, v1.Config{Entrypoint: []string{"/bin/prog"}}, runtime.GOARCH), api.Spec{Language: "exec", Command: []string{"exec"}})
		if faas.CodeOf(err) != faas.Failed || !strings.Contains(err.Error(), "libc.so") {
			t.Errorf("without its library: %v", err)
		}
	})

	t.Run("what does not run", func(t *testing.T) { r.refused(t, files) })
}

// ownLibraries are the files of a tree that holds a dynamic program and all that it is linked to.
func ownLibraries(t *testing.T, program []byte) map[string]string {
	t.Helper()
	files := map[string]string{"bin/prog": string(program)}
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		b, err := io.ReadAll(p.Open())
		if err != nil {
			t.Fatal(err)
		}
		loader := strings.TrimRight(string(b), "\x00")
		content, err := os.ReadFile(loader)
		if err != nil {
			t.Fatal(err)
		}
		files[loader[1:]] = string(content)
		libraries, err := f.ImportedLibraries()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range libraries {
			found, _ := filepath.Glob("/usr/lib/*-linux-gnu/" + l)
			if len(found) == 0 {
				found, _ = filepath.Glob("/usr/lib*/" + l)
			}
			if len(found) == 0 {
				t.Skipf("this machine's %s is not where it is looked for", l)
			}
			if content, err = os.ReadFile(found[0]); err != nil {
				t.Fatal(err)
			}
			files["lib/"+l] = string(content)
		}
	}
	return files
}

// refused deploys images that cannot run, and looks at what is said of each.
func (r *imageRig) refused(t *testing.T, files func(...string) map[string]string) {
	foreign := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	serve := []string{"/bin/prog", "serve"}
	for _, c := range []struct {
		what   string
		files  map[string]string
		config v1.Config
		arch   string
		spec   api.Spec
		code   faas.Code
		want   []string
	}{
		{"another architecture", files(), v1.Config{Entrypoint: serve}, foreign, api.Spec{}, faas.Invalid, []string{foreign, runtime.GOARCH}},
		{"program of another machine", files("bin/other", "\x7fELF"+foreignHeader()), v1.Config{Entrypoint: []string{"/bin/other"}}, runtime.GOARCH, api.Spec{}, faas.Invalid, []string{"/bin/other", "program for", runtime.GOARCH}},
		{"no program", files(), v1.Config{}, runtime.GOARCH, api.Spec{}, faas.Invalid, []string{"neither an entrypoint nor a command", "--command"}},
		{"program that is not there", files(), v1.Config{Entrypoint: []string{"nginx"}}, runtime.GOARCH, api.Spec{}, faas.Invalid, []string{`no program "nginx" in its PATH`}},
		{"script without its interpreter", files("run.sh", "#!/bin/bash\n"), v1.Config{Entrypoint: []string{"/run.sh"}}, runtime.GOARCH, api.Spec{}, faas.Invalid, []string{"/run.sh is run by /bin/bash"}},
		{"no program at all", files("run.txt", "hello"), v1.Config{Entrypoint: []string{"/run.txt"}}, runtime.GOARCH, api.Spec{}, faas.Invalid, []string{"neither a program"}},
		{"wants to be root", files(), v1.Config{Entrypoint: []string{"/bin/prog", "proud"}}, runtime.GOARCH, api.Spec{}, faas.Crashed, []string{"code 1", "never root", "www-data"}},
		{"a language of the server", files(), v1.Config{Entrypoint: serve}, runtime.GOARCH, api.Spec{Language: "python"}, faas.Invalid, []string{"this server's own python"}},
		{"no language", files(), v1.Config{Entrypoint: serve}, runtime.GOARCH, api.Spec{Language: "cobol"}, faas.Invalid, []string{"cobol", "openwhisk"}},
		{"packages", files(), v1.Config{Entrypoint: serve}, runtime.GOARCH, api.Spec{With: []string{"requests"}}, faas.Invalid, []string{"nothing is installed into an image"}},
		{"a server that never listens", files(), v1.Config{Entrypoint: []string{"/bin/prog", "deaf"}}, runtime.GOARCH, api.Spec{Limits: &faas.Limits{Timeout: faas.Duration(time.Second)}}, faas.Timeout, []string{"did not listen on port 8080"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			_, err := r.deploy(t, "refused", makeImage(t, c.files, c.config, c.arch), c.spec)
			e := faas.AsError(err)
			if e == nil || e.Code != c.code {
				t.Fatalf("got %v, want %v", err, c.code)
			}
			wants(t, fmt.Sprint(e, " ", e.Fix, " ", e.Trace), c.want...)
		})
	}
	if _, err := r.client.Deploy(t.Context(), "default", "nowhere", api.Spec{Image: "127.0.0.1:1/no/such:1"}, api.Code{}); err == nil {
		t.Error("an image of no registry was deployed")
	}
	if _, err := r.client.Run(t.Context(), "default", api.Spec{Image: "x"}, api.Code{Filename: "f.py", Reader: strings.NewReader("def main(args): pass")}, api.CallOptions{}, nil); faas.CodeOf(err) != faas.Invalid {
		t.Errorf("an image was run once: %v", err)
	}
}

// foreignHeader is what follows the first bytes of a program for a processor that this is not.
func foreignHeader() string {
	var b bytes.Buffer
	b.Write([]byte{2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	machine := byte(elf.EM_S390)
	b.Write([]byte{2, 0, machine, 0, 1, 0, 0, 0})
	b.Write(make([]byte, 24))
	b.Write([]byte{0, 0, 0, 0, 64, 0, 56, 0, 0, 0, 64, 0, 0, 0, 0, 0})
	return b.String()
}
