package deploy_test

import (
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

func typeScriptShop(t *testing.T) *shop {
	t.Helper()
	s, _ := pythonShop(t, func(d *deploy.Config) {
		for _, name := range []string{runtimes.Node, runtimes.Wasm} {
			if _, err := d.Runtimes.Lookup(name); err != nil {
				t.Skip(err)
			}
		}
	})
	return s
}

// typeScript is a project with most of what Node.js would not find by itself.
func typeScript() map[string]string {
	return map[string]string{
		"package.json":      `{"main":"dist/index.js"}`,
		"tsconfig.json":     `{"extends":"./base.json","compilerOptions":{"paths":{"@lib/*":["./src/lib/*"]},"jsx":"react","jsxFactory":"h"}}`,
		"base.json":         `{"compilerOptions":{"experimentalDecorators":true}}`,
		"src/index.ts":      "import { twice } from '@lib/twice';\nimport data from './data.json';\nimport { el } from './el';\nfunction mark(c: any) { c.marked = true }\n@mark class A { declare x: number }\nexport function main(args: { n: number }): number {\n  return twice(args.n) + data.one + (A as any).marked + el;\n}\n",
		"src/lib/twice.ts":  "export enum Factor { two = 2 }\nexport const twice = (n: number): number => n * Factor.two;\n",
		"src/el.tsx":        "const h = (...all: unknown[]): number => all.length;\nexport const el = <b>x</b>;\n",
		"src/data.json":     `{"one":1}`,
		"src/types.d.ts":    "declare const unused: number;\n",
		"src/index.test.ts": "not even TypeScript (",
	}
}

func TestTypeScriptIsCompiledAtDeploy(t *testing.T) {
	s := typeScriptShop(t)
	out, err := s.Deploy(t.Context(), request("code.zip", zipOf(t, typeScript())), nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, faas.AsError(err).Trace)
	}
	if out.Revision.Runtime != runtimes.Node || out.Revision.Entry != "src/index.cjs" {
		t.Errorf("it runs %s by %s, want src/index.cjs", out.Revision.Entry, out.Revision.Runtime)
	}
	files := s.tree(t, out.Revision)
	for _, want := range []string{"Factor", "experimentalDecorators", "one: 1"} {
		if want != "experimentalDecorators" && !strings.Contains(files["src/index.cjs"], want) {
			t.Errorf("what was made has no %q:\n%s", want, files["src/index.cjs"])
		}
	}
	if !strings.Contains(files["src/index.cjs.map"], "lib/twice.ts") || strings.Contains(files["src/index.cjs"], "sourceMappingURL") {
		t.Error("the map is not beside it alone")
	}
	again, err := s.Deploy(t.Context(), request("code.zip", zipOf(t, typeScript())), nil)
	if err != nil || again.Revision.ID != out.Revision.ID {
		t.Errorf("deployed again it is %v, %v; want %s", again, err, out.Revision.ID)
	}
	for name, c := range map[string]struct {
		file, text, handler, entry string
		more                       map[string]string
	}{
		"one file":            {file: "hello.ts", text: "export const main = (a: object): object => a;", entry: "hello.cjs"},
		"a module by name":    {file: "hello.mts", text: "export const main = (a: object): object => a;", entry: "hello.mjs"},
		"CommonJS by name":    {file: "hello.cts", text: "export const main = (a: object): object => a;", entry: "hello.cjs"},
		"a module by package": {file: "index.ts", text: "export const main = 1 as any;", more: map[string]string{"package.json": `{"type":"module"}`}, entry: "index.mjs"},
		"await at the top":    {file: "index.ts", text: "const x = await Promise.resolve(1 as number); export const main = () => x;", entry: "index.mjs"},
		"import.meta":         {file: "index.ts", text: "export const main = (): string => import.meta.url;", entry: "index.mjs"},
		"a name that is taken": {
			file: "index.ts", text: "export const main = 1 as any;", more: map[string]string{"index.cjs": "exports.main = 2", "brasa.json": `{"entry":"index.ts"}`},
			entry: "index.ts.cjs",
		},
		"a handler in a file": {file: "index.ts", text: "", more: map[string]string{"other.ts": "export const run = (x: number) => x;"}, handler: "other.run", entry: "other.cjs"},
	} {
		t.Run(name, func(t *testing.T) {
			all := map[string]string{c.file: c.text}
			for k, v := range c.more {
				all[k] = v
			}
			req := request("code.zip", zipOf(t, all))
			req.Handler = c.handler
			out, err := s.Deploy(t.Context(), req, nil)
			if err != nil {
				t.Fatalf("%v\n%s", err, faas.AsError(err).Trace)
			}
			if out.Revision.Entry != c.entry {
				t.Errorf("it runs %s, want %s", out.Revision.Entry, c.entry)
			}
		})
	}
}

func TestTypeScriptThatCannotBeCompiledIsRefusedWithItsPlace(t *testing.T) {
	s := typeScriptShop(t)
	for name, c := range map[string]struct{ text, want string }{
		"syntax":            {"export function main(args: {) {\n  return 1\n}\n", "index.ts:1:29: "},
		"a file that lacks": {"\nimport { x } from './nowhere';\nexport const main = () => x;\n", `index.ts:2:19: Could not resolve "./nowhere"`},
		// What lies on the machine is nothing that an import could bring in.
		"the machine's files": {"import text from '/etc/hostname';\nimport other from '../../../../../../etc/ssl/openssl.cnf';\nexport const main = () => text + other;\n", "index.ts:1:18: Could not resolve"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Deploy(t.Context(), request("index.ts", c.text), nil)
			e := faas.AsError(err)
			if err == nil || e.Code != faas.Invalid || !strings.Contains(e.Error(), c.want) || !strings.Contains(e.Trace, "^") {
				t.Errorf("error %v with the trace\n%s\nwant %s", err, e.Trace, c.want)
			}
		})
	}
}
