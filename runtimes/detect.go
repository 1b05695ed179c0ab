package runtimes

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Plan is what a tree of code was found to be and how it will be run.
type Plan struct {
	Runtime   string            // the language's name
	Version   string            // of its runtime on this host
	Entry     string            // file in the tree; for Go, its package's file or directory, or empty
	Handler   string            // name in the entry; empty: the default ones
	Command   []string          // what is run instead of the entry
	Build     bool              // it is source that must be built to a program first
	Source    string            // the language of that source, go, rust or dotnet, of which Runtime may be another, such as lines; empty: nothing to build
	Lacks     string            // file that names dependencies which are not in the tree; empty: none
	Env       map[string]string // from the manifest
	Secrets   []string          // the same
	Limits    faas.Limits       // the same
	Network   faas.Network      // the same
	Install   Install           // the same
	Conductor bool              // the same
	Prefetch  bool              // the same: an instance is made ready before a deploy ends
	Async     *faas.Async       // the same; nil: it says nothing
	Warm      []faas.WarmWindow // the same
	Why       string            // how it was found out, for people
}

// Style says how one talks to the plan's process.
func (p *Plan) Style() Style { return styleOf(p.Runtime) }

// Hints are what a person has said of their code. What they have not is found out.
type Hints struct {
	Language string
	Entry    string
	Handler  string
	Command  []string
}

const detectOp = "detect language"

// Detect finds out what a tree is. hint is a language, or empty.
func (r *Registry) Detect(tree fs.FS, hint string) (Plan, error) {
	return r.Plan(tree, Hints{Language: hint})
}

// Plan finds out what a tree is: by what the person said, then by its manifest (brasa.json),
// then by its files. If it could be several things the error names them and the flag that
// decides. A language that this host lacks is an error too.
func (r *Registry) Plan(tree fs.FS, h Hints) (Plan, error) {
	m, err := readManifest(tree)
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Env: m.Env, Secrets: m.Secrets, Limits: m.Limits, Network: m.Network, Install: m.Install, Prefetch: m.Prefetch, Conductor: m.Conductor, Async: m.Async, Warm: m.Warm}
	h.Language, h.Entry, h.Handler = orElse(h.Language, m.Language), orElse(h.Entry, m.Entry), orElse(h.Handler, m.Handler)
	if len(h.Command) == 0 {
		h.Command = m.Command
	}
	if a, ok := aliases[strings.ToLower(h.Language)]; ok {
		h.Language = a
	}
	if h.Language != "" && !slices.Contains(r.languages(), h.Language) {
		_, err := r.Lookup(h.Language)
		return Plan{}, err
	}
	if h.Language == Swift {
		return Plan{}, faas.Errorf(faas.Invalid, detectOp, "Swift is built here for actions of OpenWhisk alone").
			WithFix("compile the program and deploy it as an executable; or make it an action: wsk action create")
	}
	p.Handler, p.Command = h.Handler, h.Command
	switch {
	case len(h.Command) > 0:
		p.Runtime, p.Entry, p.Why = orElse(h.Language, Executable), h.Entry, "a command is given"
	case h.Entry != "":
		err = p.fromEntry(tree, h)
	default:
		err = p.fromTree(tree, h)
	}
	if err != nil {
		return Plan{}, err
	}
	if p.Runtime == DotNet {
		p.Source, p.Runtime = DotNet, dotNetRuntime(tree, p.Entry)
	}
	if p.Source == DotNet && p.Runtime == HTTPServer && p.Env[dotNetListens] == "" {
		p.Env = maps.Clone(p.Env)
		if p.Env == nil {
			p.Env = map[string]string{}
		}
		p.Env[dotNetListens] = fmt.Sprintf("http://127.0.0.1:%d", Port)
	}
	rt, err := r.Lookup(p.Runtime)
	if err != nil {
		return Plan{}, err
	}
	p.Version = rt.Version
	if p.Runtime == Go || p.Runtime == Rust {
		p.Source = p.Runtime
	}
	if p.Build = p.Source != ""; p.Build {
		from, err := r.Lookup(p.Source)
		if err != nil {
			return Plan{}, err
		}
		if p.Source == DotNet && from.Compiler == "" {
			return Plan{}, faas.Errorf(faas.Unavailable, detectOp, "this host has a runtime of .NET %s and no SDK, which projects are built with", from.Version).
				WithFix("install the SDK: https://dot.net/download; or publish the project elsewhere as a self-contained program and deploy that")
		}
	}
	if len(p.Command) == 0 && rt.Style != StyleFrames && !p.Build {
		if err := p.checkProgram(tree, rt); err != nil {
			return Plan{}, err
		}
	}
	p.Lacks = lacks(tree, p.Runtime)
	if info, err := fs.Stat(tree, "node_modules"); p.Runtime == Node && err == nil && info.IsDir() {
		p.Why += "; its node_modules is used as it is"
	}
	return p, nil
}

// fromEntry takes the file that the person named.
func (p *Plan) fromEntry(tree fs.FS, h Hints) error {
	entry := path.Clean(strings.TrimPrefix(h.Entry, "./"))
	info, err := fs.Stat(tree, entry)
	if !fs.ValidPath(entry) || err != nil {
		return faas.Errorf(faas.Invalid, detectOp, "the code has no file %q", clip(h.Entry))
	}
	p.Entry = entry
	if h.Language != "" {
		p.Runtime, p.Why = h.Language, "language and entry are given"
		if isBuiltFor(h.Language) {
			p.Source = sourceOf(tree, entry, info)
		}
		return nil
	}
	if info.IsDir() {
		if sourceOf(tree, entry, info) == Rust {
			p.Runtime, p.Why = Rust, "the entry is a directory with a Cargo.toml"
			return nil
		}
		p.Runtime, p.Why = Go, "the entry is a directory, as a Go package is"
		return nil
	}
	lang, why := languageOf(tree, entry)
	if lang == "" {
		return faas.Errorf(faas.Invalid, detectOp, "cannot tell the language of %s by its extension, first line or content", entry).WithFix("say it with --language")
	}
	p.Runtime, p.Why = lang, why
	return nil
}

// candidate is what a tree could be.
type candidate struct{ runtime, entry, why string }

// fromTree looks for what says the language of a whole tree, then for a file with a usual name,
// then for the only file there is.
func (p *Plan) fromTree(tree fs.FS, h Hints) error {
	files, err := topFiles(tree)
	if err != nil {
		return err
	}
	var have []candidate
	for _, find := range []func(fs.FS, []string) (candidate, bool, error){goTree, rustTree, dotNetTree, javaTree, nodeTree, pythonTree, rubyTree, phpTree} {
		c, ok, err := find(tree, files)
		if err != nil {
			return err
		}
		if ok && (c.runtime == Go || c.runtime == Rust || c.runtime == DotNet) && isBuiltFor(h.Language) {
			p.Source, c.runtime = c.runtime, h.Language // a program in Go that serves lines, or is built for WASI
		}
		if ok && (h.Language == "" || h.Language == c.runtime) {
			have = append(have, c)
		}
	}
	if len(have) == 0 {
		have = lonely(tree, files, h.Language)
	}
	switch len(have) {
	case 1:
		p.Runtime, p.Entry, p.Why = orElse(h.Language, have[0].runtime), have[0].entry, have[0].why
		if h.Language != "" && h.Language != have[0].runtime {
			p.Why = "the language is given"
		}
		return nil
	case 0:
		return nothing(files, h.Language)
	}
	return ambiguous(have)
}

// nothing makes the error of a tree that nothing is found in.
func nothing(files []string, language string) error {
	if slices.ContainsFunc(files, func(f string) bool { return f == "Dockerfile" || f == "Containerfile" }) {
		return faas.Errorf(faas.Invalid, detectOp, "the code is described by a Dockerfile, and images are not built here").
			WithFix("build it and deploy the image: docker build -t NAME . && docker save NAME -o image.tar && brasa deploy --image image.tar")
	}
	if slices.Contains(files, "oci-layout") || slices.Contains(files, "manifest.json") && slices.ContainsFunc(files, isLayer) {
		return faas.Errorf(faas.Invalid, detectOp, "this is an image, not code").WithFix("deploy it as one: brasa deploy NAME --image PATH")
	}
	switch {
	case len(files) == 0:
		return faas.Errorf(faas.Invalid, detectOp, "the code has no file at its top").WithFix("say which file is the function with --entry")
	case language != "":
		return faas.Errorf(faas.Invalid, detectOp, "cannot tell which file is the %s function; there are %s", language, some(files)).WithFix("%s", lackOf(language))
	}
	return faas.Errorf(faas.Invalid, detectOp, "cannot tell what the code is; looked for go.mod, Cargo.toml, package.json, .java files, main.py, index.js, main.rb, main.php, a single file of source and an executable, and found %s", some(files)).
		WithFix("say it with --language and --entry")
}

// isLayer says whether a file is called as those are that docker save writes: the configuration or a
// layer, by its digest.
func isLayer(name string) bool {
	name, _, _ = strings.Cut(strings.TrimPrefix(name, "sha256:"), ".")
	return len(name) == 64 && strings.Trim(name, "0123456789abcdef") == ""
}

// lackOf says what makes a file be taken for a function of a language.
func lackOf(language string) string {
	switch {
	case language == Wasm:
		return "build a module for WASI preview 1, or give the source of a program in Go or Rust; if it is there, say which file with --entry"
	case language == DotNet:
		return "bring a project (.csproj), or say where it is with --entry"
	case styleOf(language) != StyleFrames:
		return "begin it with a line such as #!/bin/sh, or say what runs it with --command; of several files say which with --entry"
	}
	return "if it is there, say which file with --entry; if the code is of another language, say that or leave --language out"
}

func ambiguous(have []candidate) error {
	var names []string
	same := true
	for _, c := range have {
		same = same && c.runtime == have[0].runtime
		names = append(names, fmt.Sprintf("%s (%s)", c.entry, c.runtime))
	}
	flag := "--language " + have[0].runtime
	if same {
		flag = "--entry " + have[0].entry
	}
	return faas.Errorf(faas.Invalid, detectOp, "the code could be several things: %s", some(names)).WithFix("say which, as in %s", flag)
}

func some(names []string) string {
	const most = 8
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

// topFiles lists the regular files at the top of a tree, without hidden ones.
func topFiles(tree fs.FS) ([]string, error) {
	entries, err := fs.ReadDir(tree, ".")
	if err != nil {
		return nil, fmt.Errorf("read code: %w", err)
	}
	var files []string
	for _, e := range entries {
		if e.Type().IsRegular() && !strings.HasPrefix(e.Name(), ".") {
			files = append(files, e.Name())
		}
	}
	return files, nil
}

func goTree(tree fs.FS, files []string) (candidate, bool, error) {
	if slices.Contains(files, "go.mod") {
		return candidate{Go, "", "go.mod says that it is Go"}, true, nil
	}
	for _, f := range files {
		if strings.HasSuffix(f, ".go") && !strings.HasSuffix(f, "_test.go") {
			return candidate{Go, "", f + " is Go by its extension"}, true, nil
		}
	}
	return candidate{}, false, nil
}

var nodeNames = []string{"index", "main", "handler", "function", "app", "server"}

func nodeTree(tree fs.FS, files []string) (candidate, bool, error) {
	if slices.Contains(files, "package.json") {
		entry, err := packageEntry(tree, files)
		if err != nil || entry != "" {
			return candidate{Node, entry, "package.json says that it is Node.js"}, err == nil, err
		}
	}
	for _, name := range nodeNames {
		for _, suffix := range []string{".js", ".mjs", ".cjs"} {
			if slices.Contains(files, name+suffix) {
				return candidate{Node, name + suffix, name + suffix + " is JavaScript by its extension"}, true, nil
			}
		}
	}
	c, ok := typeScriptTree(tree, files)
	return c, ok, nil
}

var pythonNames = []string{"main", "__main__", "handler", "function", "app", "index", "lambda_function"}

func pythonTree(tree fs.FS, files []string) (candidate, bool, error) {
	why := ""
	for _, f := range []string{"requirements.txt", "pyproject.toml", "Pipfile", "setup.py"} {
		if slices.Contains(files, f) {
			why = f + " says that it is Python"
			break
		}
	}
	for _, name := range pythonNames {
		if slices.Contains(files, name+".py") {
			return candidate{Python, name + ".py", orElse(why, name+".py is Python by its extension")}, true, nil
		}
	}
	if why == "" {
		return candidate{}, false, nil
	}
	only := slices.DeleteFunc(slices.Clone(files), func(f string) bool { return !strings.HasSuffix(f, ".py") || f == "setup.py" })
	if len(only) == 1 {
		return candidate{Python, only[0], why}, true, nil
	}
	return candidate{}, false, nil
}

// lonely finds the files whose own form says what they are. Of source files the only one counts;
// if there is none, executables do.
func lonely(tree fs.FS, files []string, language string) []candidate {
	var sources, programs []candidate
	for _, f := range files {
		lang, why := languageOf(tree, f)
		switch {
		case lang == "":
		case language != "" && styleOf(language) != StyleFrames && language != Rust && language != DotNet:
			programs = append(programs, candidate{language, f, why})
		case language != "" && lang != language:
		case lang == Executable:
			programs = append(programs, candidate{lang, f, why})
		default:
			sources = append(sources, candidate{lang, f, why})
		}
	}
	if len(sources) > 0 {
		return sources
	}
	if len(programs) > 1 {
		for _, usual := range []string{"main", "bootstrap", "run", "function", "handler", "server", "app"} {
			for _, c := range programs {
				if c.entry == usual || strings.TrimSuffix(c.entry, path.Ext(c.entry)) == usual {
					return []candidate{c}
				}
			}
		}
	}
	return programs
}

var topModule = regexp.MustCompile(`(?m)^\s*[A-Za-z0-9]`)

// lacks names the file of dependencies whose directory is missing.
func lacks(tree fs.FS, language string) string {
	has := func(name string) bool {
		_, err := fs.Stat(tree, name)
		return !errors.Is(err, fs.ErrNotExist)
	}
	switch language {
	case Java:
		return javaLacks(tree)
	case Python:
		b, err := fs.ReadFile(tree, "requirements.txt")
		if err == nil && topModule.Match(b) && !has("vendor") && !has("site-packages") {
			return "requirements.txt"
		}
	case Node:
		if m, err := readPackage(tree); err == nil && len(m.Dependencies) > 0 && !has("node_modules") {
			return "package.json"
		}
	}
	return ""
}
