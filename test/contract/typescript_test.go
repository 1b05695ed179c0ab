package contract

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/typescript"
	"github.com/brasa-dev/brasa/runtimes"
)

// asTypeScript takes a function's entry for TypeScript, which all JavaScript is, and runs what the
// compiler makes of it.
func asTypeScript(t testing.TB, language, dir string, f *Function) {
	t.Helper()
	if language != runtimes.Node {
		return
	}
	source := f.Entry
	if stem, ok := strings.CutSuffix(f.Entry, "js"); ok {
		source = stem + "ts"
		if err := os.Rename(filepath.Join(dir, f.Entry), filepath.Join(dir, source)); err != nil {
			t.Fatal(err)
		}
	}
	r := typescript.Compile(dir, source, "18.0.0")
	if len(r.Errors) > 0 {
		t.Fatalf("compile: %v", r.Errors)
	}
	for name, b := range map[string][]byte{r.Entry: r.Code, r.Entry + ".map": r.Map} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f.Entry = r.Entry
}

// TestTypeScript tells the stories of Node.js, with functions that were compiled.
func TestTypeScript(t *testing.T) {
	s := NewSuite(t, Plain{})
	s.Compile = asTypeScript
	s.Runtime(t, runtimes.Node)
	t.Run("values", func(t *testing.T) { s.values(t, runtimes.Node) })
	t.Run("failures", func(t *testing.T) { s.failures(t, runtimes.Node) })
	t.Run("streams", func(t *testing.T) { s.streams(t, runtimes.Node) })
	t.Run("requests", func(t *testing.T) { s.requests(t, runtimes.Node) })
	t.Run("logs", func(t *testing.T) { s.logs(t, runtimes.Node) })
	t.Run("concurrent", func(t *testing.T) { s.concurrent(t, runtimes.Node) })
	for _, story := range []loadStory{
		{name: "main", files: map[string]string{"main.ts": "interface Args { a: number }\nexport const main = (args: Args): Args => args;\n"}},
		{name: "default", files: map[string]string{"main.ts": "export default async function (args: object): Promise<object> { return args; }\n"}},
		{name: "event", files: map[string]string{"main.ts": "export async function handler(event: { json(): Promise<unknown> }) { return event.json(); }\n"}},
		{name: "named handler", handler: "work", files: map[string]string{"main.ts": "export const work = <T,>(args: T): T => args;\n"}},
		{name: "script", files: map[string]string{"main.ts": "function main(args: object): object { return args; }\n"}},
		{name: "assigned", files: map[string]string{"main.ts": "declare const module: any;\nmodule.exports = { main: (args: object): object => args };\n"}},
		{name: "export assignment", files: map[string]string{"main.ts": "import util = require('util');\nexport = (args: object): object => util.isDeepStrictEqual({}, args) ? null! : args;\n"}},
		{name: "module", entry: "main.mts", files: map[string]string{"main.mts": "import { one } from './part.mjs';\nexport const main = (args: object) => one(args);\n", "part.mts": "export const one = <T,>(a: T): T => a;\n"}},
		{name: "reads beside itself", entry: "src/main.ts", files: map[string]string{"src/main.ts": "import { readFileSync } from 'fs';\nexport const main = () => JSON.parse(readFileSync(__dirname + '/a.json', 'utf8'));\n", "src/a.json": `{"a":1}`}},
		{name: "throws", files: map[string]string{"main.ts": "type X = { y: number };\n\nconst x: X = null!;\nexport const main = x.y;\n"}, code: faas.Failed, words: []string{"TypeError"}, trace: "main.ts:4:23"},
		{name: "throws in module", entry: "main.mts", files: map[string]string{"main.mts": "import './part.mjs';\nexport const main = 1;\n", "part.mts": "enum Long { a, b,\n c }\nlet z: any;\n\nz.f(Long.c);\n"}, code: faas.Failed, words: []string{"TypeError"}, trace: "part.mts:5:3"},
	} {
		t.Run("load/"+story.name, func(t *testing.T) {
			f := Function{Files: story.files, Entry: story.entry, Handler: story.handler}
			if f.Entry == "" {
				f.Entry = "main.ts"
			}
			in := s.Boot(t, runtimes.Node, f)
			err := in.Load(nil)
			if story.code == faas.OK {
				if err != nil {
					t.Fatalf("load: %v\n%s", err, faas.AsError(err).Trace)
				}
				in.Call(`{"a":1}`).Want(t, 200, typeJSON, `{"a":1}`)
				return
			}
			a := &Answer{Err: err, Log: in.Own}
			if e := a.WantError(t, story.code, story.words...); !strings.Contains(e.Trace, story.trace) || strings.Contains(e.Trace, "bootstrap") || strings.Contains(e.Trace, "main.cjs") {
				t.Errorf("trace = %q, want %q in it", e.Trace, story.trace)
			}
		})
	}
	t.Run("stack in a call", func(t *testing.T) {
		in := s.Start(t, runtimes.Node, Function{Entry: "main.ts", Files: map[string]string{
			"main.ts":     "import { fail } from './lib/fail';\nexport async function main(args: { a: number }) {\n  await null;\n  console.log(new Error('for the log').stack);\n  return fail(args.a);\n}\n",
			"lib/fail.ts": "\n\nexport function fail(n: number): never {\n  throw new RangeError(`no ${n}`);\n}\n",
		}})
		a := in.Call(`{"a":1}`)
		e := a.WantError(t, faas.Failed, "no 1")
		for _, want := range []string{"at fail (", "lib/fail.ts:4:9)", "main.ts:5:10)"} {
			if !strings.Contains(e.Trace, want) {
				t.Errorf("trace = %q, want %q in it", e.Trace, want)
			}
		}
		if log := a.Log.Text(""); !strings.Contains(log, "main.ts:4:15") {
			t.Errorf("the function sees the stack %q, want main.ts:4:15", log)
		}
	})
}
