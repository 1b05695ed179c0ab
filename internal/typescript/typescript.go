// Package typescript makes JavaScript of a function in TypeScript.
//
// The files of the code become one, by esbuild, as the project's tsconfig.json says; packages stay
// outside and are loaded as ever. One file, because what TypeScript lets a program write is not what
// Node.js finds at a call: imports without an extension, aliases (paths), files of JSON. It also loads
// faster than many. It lies where its entry lay, so that what the code reads beside itself is there.
// Types are left out, not checked.
//
// Source can name any file as an import, so the compiler is run in a sandbox: Main is called there, by
// package deploy, and sees the code alone.
package typescript

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/evanw/esbuild/pkg/api"
)

// Arg is the argument with which the program that compiles is begun; four follow: the directory of
// the code, the entry in it, the version of Node.js, and the directory that gets what is made.
const Arg = "brasa-typescript"

// Files that the compiler leaves in its directory.
const (
	ResultFile = "result.json"
	CodeFile   = "code"
	MapFile    = "map"
)

// Result is what became of a compilation.
type Result struct {
	Entry    string       `json:"entry"` // where the file belongs in the code, beside its source
	Errors   []Diagnostic `json:"errors,omitempty"`
	Warnings []Diagnostic `json:"warnings,omitempty"`

	Code []byte `json:"-"`
	Map  []byte `json:"-"`
}

// Diagnostic is something that the compiler has to say.
type Diagnostic struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`   // from 1
	Column int    `json:"column,omitempty"` // from 1
	Text   string `json:"text"`
	Source string `json:"source,omitempty"` // the line
}

// String returns file:line:column: text.
func (d Diagnostic) String() string {
	if d.File == "" {
		return d.Text
	}
	return fmt.Sprintf("%s:%d:%d: %s", d.File, d.Line, d.Column, d.Text)
}

// Main compiles and does not return, if the arguments ask for it. It is called first of all in main.
func Main(args []string) {
	if len(args) < 2 || args[1] != Arg {
		return
	}
	if len(args) != 6 {
		os.Exit(64)
	}
	if err := compileTo(args[2], args[3], args[4], args[5]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func compileTo(code, entry, node, out string) error {
	r := Compile(code, entry, node)
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{ResultFile: b, CodeFile: r.Code, MapFile: r.Map} {
		if err := os.WriteFile(filepath.Join(out, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Is says whether a file is TypeScript by its name. Declarations are not: nothing runs in them.
func Is(name string) bool {
	for _, ext := range []string{".ts", ".mts", ".cts", ".tsx"} {
		if strings.HasSuffix(name, ext) {
			return !strings.HasSuffix(strings.TrimSuffix(name, ext), ".d")
		}
	}
	return false
}

// Compile makes one file of an entry and of what it imports from the directory code. It reads
// whatever file the source names.
//
// Whether that is an ECMAScript module follows the rules of Node.js for its source: by its extension,
// then by "type" in package.json. A file that these make CommonJS, but that has await at its top or
// import.meta, is a module nevertheless; there is no other way to run it.
func Compile(code, entry, node string) Result {
	module, settled := formatOf(code, entry)
	r := compile(code, entry, node, module)
	if !module && !settled && needsModule(r) {
		r = compile(code, entry, node, true)
	}
	return r
}

// formatOf says whether the entry is an ECMAScript module, and whether that cannot be otherwise.
func formatOf(code, entry string) (module, settled bool) {
	switch path.Ext(entry) {
	case ".mts":
		return true, true
	case ".cts":
		return false, true
	}
	for dir := path.Dir(entry); ; dir = path.Dir(dir) {
		b, err := os.ReadFile(filepath.Join(code, filepath.FromSlash(dir), "package.json"))
		var m struct{ Type string }
		if err == nil && json.Unmarshal(b, &m) == nil {
			return m.Type == "module", m.Type != ""
		}
		if dir == "." {
			return false, false
		}
	}
}

// needsModule says whether what was found in a file is for modules only.
func needsModule(r Result) bool {
	for _, d := range append(r.Errors, r.Warnings...) {
		if strings.Contains(d.Text, "Top-level await") || strings.Contains(d.Text, `"import.meta" is not available`) {
			return true
		}
	}
	return false
}

func compile(code, entry, node string, module bool) Result {
	format, ext := api.FormatCommonJS, ".cjs"
	if module {
		format, ext = api.FormatESModule, ".mjs"
	}
	out := strings.TrimSuffix(entry, path.Ext(entry)) + ext
	if _, err := os.Lstat(filepath.Join(code, out)); err == nil { // another file's name
		out = entry + ext
	}
	built := api.Build(api.BuildOptions{
		EntryPoints: []string{filepath.Join(code, filepath.FromSlash(entry))}, AbsWorkingDir: code, Outfile: filepath.Join(code, filepath.FromSlash(out)),
		Bundle: true, Packages: api.PackagesExternal, Platform: api.PlatformNode, Format: format,
		Engines: []api.Engine{{Name: api.EngineNode, Version: node}},
		// A script may define its handler and export nothing.
		TreeShaking: api.TreeShakingFalse,
		// The map lies beside the file without being named in it: Node.js would read it at each start,
		// and the bootstrap does when there is an error.
		Sourcemap: api.SourceMapExternal, SourcesContent: api.SourcesContentExclude,
		Charset: api.CharsetUTF8, LogLevel: api.LogLevelSilent, LogLimit: 50,
	})
	r := Result{Entry: out, Errors: diagnostics(built.Errors), Warnings: diagnostics(built.Warnings)}
	for _, f := range built.OutputFiles {
		if strings.HasSuffix(f.Path, ".map") {
			r.Map = f.Contents
		} else {
			r.Code = f.Contents
		}
	}
	return r
}

func diagnostics(all []api.Message) []Diagnostic {
	var out []Diagnostic
	for _, m := range all {
		d := Diagnostic{Text: m.Text}
		if l := m.Location; l != nil {
			d.File, d.Line, d.Column, d.Source = l.File, l.Line, l.Column+1, l.LineText
		}
		out = append(out, d)
	}
	return out
}
