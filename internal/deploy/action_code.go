package deploy

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// actionFiles are what the one file of an action is called, by the language.
var actionFiles = map[string]string{
	runtimes.Python: "__main__.py", runtimes.Node: "index.js", runtimes.PHP: "index.php", runtimes.Ruby: "main.rb", runtimes.Go: "exec.go",
	runtimes.Rust: "lib.rs", runtimes.Swift: "main.swift", runtimes.DotNet: "action", runtimes.ActionLoop: actionEntry, NativeAction: actionEntry, runtimes.Java: "Main.java",
}

// actionJar is what the archive of an action in Java is called.
const actionJar = "action.jar"

func isArchive(head []byte) bool {
	return bytes.HasPrefix(head, []byte("PK\x03\x04")) || bytes.HasPrefix(head, []byte("PK\x05\x06")) || bytes.HasPrefix(head, []byte("\x1f\x8b"))
}

func isProgram(head []byte) bool {
	return bytes.HasPrefix(head, []byte("\x7fELF")) || bytes.HasPrefix(head, []byte("#!"))
}

// unpack lays the code out in src: an archive, but for the jar of Java, or one file.
func (a *action) unpack(ctx context.Context) error {
	if err := os.Mkdir(a.src, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(a.src)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := os.Open(a.sent)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, 512)
	n, err := io.ReadFull(f, head)
	if head = head[:n]; len(bytes.TrimSpace(head)) == 0 && err != nil {
		return faas.Errorf(faas.Invalid, opAction, noCode)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	language := strings.ToLower(a.req.Language)
	name := actionFiles[language]
	switch {
	case language == runtimes.Java && isArchive(head):
		return copyTo(root, actionJar, f)
	case isArchive(head):
		if err := artifact.Unpack(ctx, f, name, root, a.d.cfg.Unpack); err != nil {
			return err
		}
		if err := artifact.CheckLinks(root.FS()); err != nil {
			return err
		}
	case isProgram(head) && (language == runtimes.Go || language == runtimes.Rust || language == runtimes.Swift):
		name = actionEntry
		fallthrough
	default:
		if err := copyTo(root, name, f); err != nil {
			return err
		}
	}
	return a.markExec(root)
}

func copyTo(root *os.Root, name string, r io.Reader) error {
	w, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close(), root.Chmod(name, 0o644)) // whatever the umask is: the tree's digest counts it
}

// markExec makes what is run executable: an archive of another system has lost its mode.
func (a *action) markExec(root *os.Root) error {
	if err := markPrograms(root); err != nil {
		return err
	}
	if a.plan.Style() != runtimes.StyleFrames && a.exists(actionEntry) {
		return root.Chmod(actionEntry, 0o755)
	}
	return nil
}

// settleEntry finds what is run, by the names that OpenWhisk's runtimes look for.
func (a *action) settleEntry() error {
	p := a.plan
	need := func(name string) error {
		if !a.exists(name) {
			return faas.Errorf(faas.Invalid, opAction, "the archive does not include %s at its top", name)
		}
		p.Entry = name
		return nil
	}
	switch language := strings.ToLower(a.req.Language); language {
	case runtimes.Python, runtimes.PHP, runtimes.Ruby:
		return need(actionFiles[language])
	case runtimes.Node:
		return a.nodeEntry()
	case runtimes.Java:
		if p.Entry = actionJar; !a.exists(actionJar) {
			return faas.Errorf(faas.Invalid, opAction, "the code of an action in Java must be a jar")
		}
		return nil
	case runtimes.DotNet:
		return a.dotnetEntry()
	case runtimes.Go, runtimes.Rust, runtimes.Swift:
		if !a.exists(actionEntry) {
			return a.launch()
		}
		p.Source = ""
		return a.program()
	}
	if err := need(actionEntry); err != nil {
		return err
	}
	return a.program()
}

// nodeEntry finds the module of an action in Node.js. A handler may name it: "module.function".
func (a *action) nodeEntry() error {
	p := a.plan
	if module, _, ok := cutLast(p.Handler, "."); ok {
		for _, file := range []string{module, module + ".js", module + ".cjs", module + ".mjs", path.Join(module, "index.js")} {
			if a.exists(file) {
				p.Entry = file
				if file == module || strings.HasSuffix(file, "/index.js") { // which the name alone does not lead to
					_, p.Handler, _ = cutLast(p.Handler, ".")
				}
				return nil
			}
		}
	}
	if !a.exists("package.json") {
		if !a.exists("index.js") {
			return faas.Errorf(faas.Invalid, opAction, "an archive of an action in Node.js must contain package.json or index.js at its top")
		}
		p.Entry = "index.js"
		return nil
	}
	found, err := a.d.cfg.Runtimes.Plan(os.DirFS(a.src), runtimes.Hints{Language: runtimes.Node})
	if err != nil {
		return err
	}
	p.Entry = found.Entry
	return nil
}

// program checks that an executable can be run here, and finds out whether it says when it is ready.
func (a *action) program() error {
	root, err := os.OpenRoot(a.src)
	if err != nil {
		return err
	}
	defer root.Close()
	found, err := a.d.cfg.Runtimes.Plan(root.FS(), runtimes.Hints{Language: a.plan.Runtime, Entry: actionEntry})
	if err != nil {
		return err
	}
	a.plan.Entry, a.plan.Command = actionEntry, found.Command
	if a.plan.Runtime == runtimes.ActionLoop && mentions(root.FS(), runtimes.LoopAck) {
		a.plan.Env[runtimes.LoopAck] = "1"
	}
	return nil
}

// maxLook is how much of an action's files is looked through.
const maxLook = 64 << 20

// mentions says whether a file of the tree has the word in it. A program that says when it is ready asks
// for the variable that tells it to, by its name.
func mentions(tree fs.FS, word string) bool {
	left := int64(maxLook)
	found := errors.New("found")
	err := fs.WalkDir(tree, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if left -= info.Size(); left < 0 {
			return fs.SkipAll
		}
		b, err := fs.ReadFile(tree, name)
		if err == nil && bytes.Contains(b, []byte(word)) {
			err = found
		}
		return err
	})
	return err == found
}

// Packages that OpenWhisk's images bring, and that code relies on without bringing them itself.
var (
	// Of the versions that the images have: later ones of redis and uuid are called in another way.
	nodeBrings = map[string]string{
		"openwhisk": "openwhisk", "body-parser": "body-parser@1.18.3", "express": "express@4.16.4",
		"serialize-error": "serialize-error@3.0.0", "redis": "redis@2.8.0", "uuid": "uuid@3.3.0",
	}
	pythonBrings = map[string]string{
		"requests": "requests", "httplib2": "httplib2", "simplejson": "simplejson", "bs4": "beautifulsoup4", "lxml": "lxml",
		"dateutil": "python-dateutil", "kafka": "kafka-python", "scrapy": "scrapy", "twisted": "twisted", "netifaces": "netifaces",
	}
	pythonImports = regexp.MustCompile(`(?m)^\s*(?:import|from)\s+(\w+)`)
)

// install gets what the code names in a manifest and does not bring, and what OpenWhisk's images have. An
// action that misses something is told so where it is called: no failure here is one of the deploy.
func (a *action) install(ctx context.Context) error {
	req := *a.req
	switch a.plan.Runtime {
	case runtimes.Node:
		if _, err := os.Stat(filepath.Join(a.src, "node_modules")); err == nil {
			return nil
		}
		req.Install.With = append(slices.Clone(req.Install.With), a.nodeLacks()...)
	case runtimes.Python:
		if _, err := os.Stat(filepath.Join(a.src, "virtualenv")); err == nil {
			return nil
		}
		req.Install.With = append(slices.Clone(req.Install.With), a.pythonLacks()...)
	case runtimes.Java:
		if bringsGson(filepath.Join(a.src, actionJar)) {
			return nil
		}
		req.Install.With = append(slices.Clone(req.Install.With), gson)
	default:
		if a.plan.Source == "" || a.plan.Source == runtimes.Swift { // whose packages the archive brings
			return nil
		}
		return a.need(ctx)
	}
	deps, err := a.d.install(ctx, &req, a.plan, a.src, a.steps)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		a.d.cfg.Logger.Log(ctx, slog.LevelWarn, "packages of an action are not installed", "function", req.Name.String(), "error", err)
	}
	a.deps = deps
	return nil
}

// gson is what methods of actions in Java take and return, which OpenWhisk's image brings.
const gson = "com.google.code.gson:gson:2.11.0"

func bringsGson(jar string) bool {
	z, err := zip.OpenReader(jar)
	if err != nil {
		return false
	}
	defer z.Close()
	return slices.ContainsFunc(z.File, func(f *zip.File) bool { return f.Name == "com/google/gson/JsonObject.class" })
}

func (a *action) nodeLacks() (names []string) {
	var manifest struct {
		Dependencies map[string]any `json:"dependencies"`
	}
	if b, err := os.ReadFile(filepath.Join(a.src, "package.json")); err == nil {
		_ = json.Unmarshal(b, &manifest) // one that can't be read names nothing
	}
	_, _ = eachFile(a.src, func(p string, size faas.Bytes) error { // what can't be read lacks nothing
		if ext := path.Ext(p); ext != ".js" && ext != ".cjs" && ext != ".mjs" || size > maxPython {
			return nil
		}
		b, err := os.ReadFile(p)
		for _, m := range required.FindAllSubmatch(b, -1) {
			module, _, _ := strings.Cut(string(m[1]), "/")
			name := nodeBrings[module]
			if name != "" && manifest.Dependencies[module] == nil && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		return err
	})
	return names
}

func (a *action) pythonLacks() (names []string) {
	_, _ = eachFile(a.src, func(p string, size faas.Bytes) error {
		if path.Ext(p) != ".py" || size > maxPython {
			return nil
		}
		b, err := os.ReadFile(p)
		for _, m := range pythonImports.FindAllSubmatch(b, -1) {
			module := string(m[1])
			name := pythonBrings[module]
			if name == "" || slices.Contains(names, name) || a.exists(module+".py") || a.exists(module+"/__init__.py") {
				continue
			}
			names = append(names, name)
		}
		return err
	})
	slices.Sort(names)
	return names
}
