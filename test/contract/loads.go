package contract

import (
	"maps"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// loadStory is code that does not come to its handler, or only just.
type loadStory struct {
	name    string
	files   map[string]string
	entry   string
	handler string
	code    faas.Code // OK: it loads
	words   []string  // of the error
	trace   string    // what its trace holds
}

var loadStories = map[string][]loadStory{
	runtimes.Python: {
		{name: "raises", files: map[string]string{"main.py": "import json\nx = {}['absent']\n"}, code: faas.Failed, words: []string{"KeyError", "absent"}, trace: `main.py", line 2`},
		{name: "syntax", files: map[string]string{"main.py": "def main(args):\n  return (\n"}, code: faas.Failed, words: []string{"SyntaxError"}, trace: `main.py", line 2`},
		{name: "missing handler", files: map[string]string{"main.py": "def other(args): pass\n"}, code: faas.Failed, words: []string{"main, handle or handler", "it defines other"}},
		{name: "named handler missing", handler: "absent", files: map[string]string{"main.py": "def other(args): pass\n"}, code: faas.Failed, words: []string{"no function absent", "other"}},
		{name: "missing file", entry: "absent.py", files: map[string]string{"main.py": ""}, code: faas.Failed, words: []string{"absent.py"}},
		{name: "missing module", files: map[string]string{"main.py": "import nosuchmodule\n"}, code: faas.Failed, words: []string{"ModuleNotFoundError", "nosuchmodule"}, trace: "main.py"},
		{name: "exits", files: map[string]string{"main.py": "import sys\nsys.exit(4)\n"}, code: faas.Failed, words: []string{"sys.exit(4)"}},
		{name: "dies", files: map[string]string{"main.py": "import os\nos._exit(4)\n"}, code: faas.Crashed},
		{name: "too many arguments", files: map[string]string{"main.py": "def main(a, b, c): pass\n"}, code: faas.Failed, words: []string{"at most two"}},
		{name: "named handler", handler: "work", files: map[string]string{"main.py": "def work(args): return args\n"}},
		{name: "file and function", handler: "lib.work.run", files: map[string]string{"main.py": "1/0", "lib/work.py": "def run(args): return args\n"}},
		{name: "package", entry: "app/main.py", files: map[string]string{"app/__init__.py": "", "app/main.py": "from .part import main\n", "app/part.py": "def main(args): return args\n"}},
		{name: "vendored", files: map[string]string{"main.py": "import one, two\ndef main(args): return args\n", "vendor/one.py": "", "site-packages/two.py": ""}},
		{name: "odd name", entry: "my-func.py", files: map[string]string{"my-func.py": "def main(args): return args\n"}},
		{name: "name of the library's", entry: "json.py", files: map[string]string{"json.py": "def main(args): return args\n"}},
		{name: "object", files: map[string]string{"main.py": "class C:\n  def __call__(self, args): return args\nmain = C()\n"}},
		{name: "partial", files: map[string]string{"main.py": "import functools\ndef f(x, args): return args\nmain = functools.partial(f, 1)\n"}},
		{name: "lambda", files: map[string]string{"main.py": "main = lambda args: args\n"}},
	},
	runtimes.Node: {
		{name: "throws", files: map[string]string{"main.js": "require('fs');\nnull.x;\n"}, code: faas.Failed, words: []string{"TypeError"}, trace: "main.js:2"},
		{name: "throws in module", entry: "main.mjs", files: map[string]string{"main.mjs": "import 'fs';\nnull.x;\n"}, code: faas.Failed, words: []string{"TypeError"}, trace: "main.mjs:2"},
		{name: "syntax", files: map[string]string{"main.js": "exports.main = () => {\n  return (\n"}, code: faas.Failed, words: []string{"SyntaxError"}, trace: "main.js:"},
		{name: "syntax in module", entry: "main.mjs", files: map[string]string{"main.mjs": "export const main = () => {\n  return ( ;\n}\n"}, code: faas.Failed, words: []string{"SyntaxError"}, trace: "main.mjs:2"},
		{name: "missing handler", files: map[string]string{"main.js": "exports.other = () => 1;\n"}, code: faas.Failed, words: []string{"main, handle or handler", "it exports other"}},
		{name: "named handler missing", handler: "absent", files: map[string]string{"main.js": "exports.other = () => 1;\n"}, code: faas.Failed, words: []string{"no function absent", "other"}},
		{name: "missing file", entry: "absent.js", files: map[string]string{"main.js": ""}, code: faas.Failed, words: []string{"absent.js"}},
		{name: "missing module", files: map[string]string{"main.js": "require('nosuchmodule');\n"}, code: faas.Failed, words: []string{"nosuchmodule"}, trace: "main.js"},
		{name: "exits", files: map[string]string{"main.js": "process.exit(4);\n"}, code: faas.Crashed},
		{name: "named handler", handler: "work", files: map[string]string{"main.js": "exports.work = (args) => args;\n"}},
		{name: "file and function", handler: "lib/work.run", files: map[string]string{"main.js": "null.x", "lib/work.js": "exports.run = (args) => args;\n"}},
		{name: "module", entry: "main.mjs", files: map[string]string{"main.mjs": "export const main = async (args) => args;\n"}},
		{name: "module by its syntax", files: map[string]string{"main.js": "export default (args) => args;\n"}},
		{name: "module by its package", files: map[string]string{"package.json": `{"type":"module"}`, "main.js": "import 'fs';\nawait 1;\nexport default async function (args) { return args; }\n"}},
		{name: "function as module", files: map[string]string{"main.js": "module.exports = async (event, context) => event.json();\n"}},
		{name: "script", files: map[string]string{"main.js": "function main(args) { return args; }\n"}},
		{name: "dependency", files: map[string]string{"main.js": "const one = require('one');\nexports.main = one;\n", "node_modules/one/index.js": "module.exports = (args) => args;\n"}},
		{name: "common by its name", entry: "main.cjs", files: map[string]string{"package.json": `{"type":"module"}`, "main.cjs": "exports.main = (args) => args;\n"}},
	},
	runtimes.PHP: {
		{name: "throws", files: map[string]string{"main.php": "<?php\nthrow new DomainException('not now');\n"}, code: faas.Failed, words: []string{"DomainException", "not now"}, trace: "main.php:2"},
		{name: "syntax", files: map[string]string{"main.php": "<?php\nfunction main(array $args) {\n  return (;\n}\n"}, code: faas.Failed, words: []string{"ParseError"}, trace: "main.php:3"},
		{name: "fatal", files: map[string]string{"main.php": "<?php\nclass A extends A {}\ninterface I { function f(); }\nif (1) { class B implements I {} }\n"}, code: faas.Failed, words: []string{"\"A\" not found"}, trace: "main.php:2"},
		{name: "declared twice", files: map[string]string{"main.php": "<?php\nrequire 'a.php';\nfunction f() {}\n", "a.php": "<?php function f() {}\n"}, code: faas.Failed, words: []string{"Cannot redeclare f()"}, trace: "a.php:1"},
		{name: "missing handler", files: map[string]string{"main.php": "<?php function other($args) {}\n"}, code: faas.Failed, words: []string{"main, handle or handler", "it defines other"}},
		{name: "named handler missing", handler: "absent", files: map[string]string{"main.php": "<?php function other($args) {}\n"}, code: faas.Failed, words: []string{"no function absent", "other"}},
		{name: "named as one of PHP's own", handler: "phpinfo", files: map[string]string{"main.php": "<?php function other($args) {}\n"}, code: faas.Failed, words: []string{"no function phpinfo", "other"}},
		{name: "missing file", entry: "absent.php", files: map[string]string{"main.php": ""}, code: faas.Failed, words: []string{"absent.php"}},
		{name: "missing include", files: map[string]string{"main.php": "<?php\nrequire 'nosuch.php';\n"}, code: faas.Failed, words: []string{"nosuch.php"}, trace: "main.php:2"},
		{name: "missing class", files: map[string]string{"main.php": "<?php\nNoSuchClass::make();\n"}, code: faas.Failed, words: []string{"NoSuchClass"}, trace: "main.php:2"},
		{name: "exits", files: map[string]string{"main.php": "<?php exit(4);\n"}, code: faas.Failed, words: []string{"called exit"}},
		{name: "dies", files: map[string]string{"main.php": "<?php posix_kill(getmypid(), 9);\n"}, code: faas.Crashed},
		{name: "too many arguments", files: map[string]string{"main.php": "<?php function main($a, $b, $c) {}\n"}, code: faas.Failed, words: []string{"at most two"}},
		{name: "named handler", handler: "work", files: map[string]string{"main.php": "<?php function work($args) { return $args; }\n"}},
		{name: "file and function", handler: "lib/work.run", files: map[string]string{"main.php": "<?php throw new Exception;", "lib/work.php": "<?php function run($args) { return $args; }\n"}},
		{name: "namespace", files: map[string]string{"main.php": "<?php\nnamespace App\\Jobs;\nfunction main(array $args): array { return $args; }\n"}},
		{name: "class and method", handler: "App\\Echoes::run", files: map[string]string{"main.php": "<?php\nnamespace App;\nclass Echoes { public static function run(array $args) { return $args; } }\n"}},
		{name: "object's method", handler: "Echoes@run", files: map[string]string{"main.php": "<?php class Echoes { private array $x = []; public function run(array $args) { return $args + $this->x; } }\n"}},
		{name: "closure", files: map[string]string{"main.php": "<?php return static fn (array $args): array => $args;\n"}},
		{name: "object", files: map[string]string{"main.php": "<?php return new class { public function __invoke($event) { return $event; } };\n"}},
		{name: "event as its arguments", files: map[string]string{"main.php": "<?php function handler($event, $context) { return ['a' => $event['a'] ?? 0]; }\n"}},
		{name: "array of a handler", files: map[string]string{"main.php": "<?php function handle(array $event) { return $event; }\n"}},
		{name: "text", files: map[string]string{"main.php": "<?php function handle(string $body) { return json_decode($body); }\n"}},
		{name: "no argument", files: map[string]string{"main.php": "<?php function main() { return ['a' => 1]; }\n"}},
		{name: "include", files: map[string]string{"main.php": "<?php require 'lib/one.php'; require __DIR__ . '/two.php'; function main($args) { return ONE . TWO === '12' ? $args : null; }\n", "lib/one.php": "<?php const ONE = 1;", "two.php": "<?php const TWO = 2;"}},
		{name: "buffers ended", files: map[string]string{"main.php": "<?php while (ob_get_level()) ob_end_clean(); function main($args) { return $args; }\n"}},
		{name: "response of PSR-7", files: map[string]string{"main.php": "<?php\nclass Reply {\n function getStatusCode() { return 200; }\n function getHeaders() { return ['content-type' => ['application/json']]; }\n function getBody() { return '{\"a\":1}'; }\n}\nfunction main($args) { return new Reply; }\n"}},
		{name: "Composer's", files: map[string]string{"main.php": "<?php function main($args) { return LOADED ? $args : null; }\n", "vendor/autoload.php": "<?php const LOADED = true;"}},
	},
	runtimes.Ruby: {
		{name: "raises", files: map[string]string{"main.rb": "require \"json\"\nx = {}.fetch(\"absent\")\n"}, code: faas.Failed, words: []string{"KeyError", "absent"}, trace: "main.rb:2"},
		{name: "syntax", files: map[string]string{"main.rb": "def main(args)\n  return (\n"}, code: faas.Failed, words: []string{"SyntaxError"}, trace: "main.rb:"},
		{name: "missing handler", files: map[string]string{"main.rb": "def other(args) = 1\n"}, code: faas.Failed, words: []string{"main, handle or handler", "it defines other"}},
		{name: "named handler missing", handler: "absent", files: map[string]string{"main.rb": "def other(args) = 1\n"}, code: faas.Failed, words: []string{"no method absent", "other"}},
		{name: "named as one of Ruby's own", handler: "open", files: map[string]string{"main.rb": "def other(args) = 1\n"}, code: faas.Failed, words: []string{"no method open", "other"}},
		{name: "missing file", entry: "absent.rb", files: map[string]string{"main.rb": ""}, code: faas.Failed, words: []string{"absent.rb"}},
		{name: "missing library", files: map[string]string{"main.rb": "require \"nosuchlibrary\"\n"}, code: faas.Failed, words: []string{"LoadError", "nosuchlibrary"}, trace: "main.rb:1"},
		{name: "exits", files: map[string]string{"main.rb": "exit 4\n"}, code: faas.Failed, words: []string{"exit(4)"}},
		{name: "dies", files: map[string]string{"main.rb": "exit! 4\n"}, code: faas.Crashed},
		{name: "too many arguments", files: map[string]string{"main.rb": "def main(a, b, c) = a\n"}, code: faas.Failed, words: []string{"at most two"}},
		{name: "named handler", handler: "work", files: map[string]string{"main.rb": "def work(args) = args\n"}},
		{name: "file and method", handler: "lib/work.run", files: map[string]string{"main.rb": "1/0", "lib/work.rb": "def run(args) = args\n"}},
		{name: "file, class and method", handler: "work.Jobs::Echo.run", files: map[string]string{"main.rb": "1/0", "work.rb": "module Jobs\n  class Echo\n    def self.run(event:, context:) = event\n  end\nend\n"}},
		{name: "keywords", handler: "lambda_handler", files: map[string]string{"main.rb": "def lambda_handler(event:, context:) = { a: event[\"a\"], }\n"}},
		{name: "no argument", files: map[string]string{"main.rb": "def main = { a: 1 }\n"}},
		{name: "library of its own", files: map[string]string{"main.rb": "require \"one\"\nrequire \"two\"\nrequire_relative \"three/four\"\ndef main(args) = FOUR ? args : nil\n", "lib/one.rb": "", "two.rb": "", "three/four.rb": "FOUR = 4\n"}},
		{name: "odd name", entry: "my-func.rb", files: map[string]string{"my-func.rb": "def main(args) = args\n"}},
		{name: "name of the library's", entry: "logger.rb", files: map[string]string{"logger.rb": "def main(args) = args\n"}},
		{name: "file that comes before the library", files: map[string]string{"main.rb": "require \"uri\"\ndef main(args) = URI_IS_MINE ? args : nil\n", "uri.rb": "URI_IS_MINE = true\n"}},
		{name: "lambda", handler: "ECHO", files: map[string]string{"main.rb": "ECHO = ->(args) { args }\n"}},
		{name: "object", handler: "ECHO", files: map[string]string{"main.rb": "class Echo\n  def call(args) = args\nend\nECHO = Echo.new\n"}},
		{name: "Rack application", handler: "App", files: map[string]string{"main.rb": "require \"json\"\nclass App\n  def self.call(env) = [200, { \"Content-Type\" => \"application/json\" }, [env[\"rack.input\"].read]]\nend\n"}},
		{name: "Rack application that streams", handler: "APP", files: map[string]string{"main.rb": "APP = ->(env) { [200, { \"content-type\" => \"application/json\" }, ->(out) { out << '{\"a\"'; out.write(\":1}\"); out.close }] }\n"}},
	},
	runtimes.Java: {
		{name: "throws", entry: "Throws.java", files: map[string]string{"Throws.java": "class Throws {\n static { Object o = null; o.hashCode(); }\n static Object main(java.util.Map<String, Object> args) { return args; }\n}\n"}, code: faas.Failed, words: []string{"NullPointerException"}, trace: "Throws.java:2"},
		{name: "throws in constructor", entry: "Constructor.java", files: map[string]string{"Constructor.java": "class Constructor {\n Constructor() { throw new IllegalStateException(\"not now\"); }\n Object main(java.util.Map<String, Object> args) { return args; }\n}\n"}, code: faas.Failed, words: []string{"IllegalStateException", "not now"}, trace: "Constructor.java:2"},
		{name: "missing handler", entry: "Lacks.java", files: map[string]string{"Lacks.java": "class Lacks { static Object other() { return 1; } }\n"}, code: faas.Failed, words: []string{"main, handle or handler", "it has other"}},
		{name: "program", entry: "Program.java", files: map[string]string{"Program.java": "class Program { public static void main(String[] args) { } }\n"}, code: faas.Failed, words: []string{"main(String[])"}},
		{name: "named handler missing", entry: "Lacks2.java", handler: "absent", files: map[string]string{"Lacks2.java": "class Lacks2 { static Object other() { return 1; } }\n"}, code: faas.Failed, words: []string{"no method absent", "other"}},
		{name: "missing class", entry: "Lacks3.java", handler: "app.Absent::main", files: map[string]string{"Lacks3.java": "class Lacks3 { static Object other() { return 1; } }\n"}, code: faas.Failed, words: []string{"no class app.Absent"}},
		{name: "missing file", entry: "Absent.java", files: map[string]string{"Lacks4.java": "class Lacks4 { }"}, code: faas.Failed, words: []string{"Absent.class"}},
		{name: "too many arguments", entry: "Three.java", files: map[string]string{"Three.java": "class Three { static Object main(String a, String b, String c) { return 1; } }\n"}, code: faas.Failed, words: []string{"at most two"}},
		{name: "exits", entry: "Exits.java", files: map[string]string{"Exits.java": "class Exits { static { System.exit(4); } static Object main() { return 1; } }\n"}, code: faas.Crashed},
		{name: "named handler", entry: "Named.java", handler: "work", files: map[string]string{"Named.java": "class Named { static Object work(java.util.Map<String, Object> args) { return args; } }\n"}},
		{name: "class and method", entry: "Other.java", handler: "app.Work::run", files: map[string]string{"Other.java": "class Other { static { System.exit(4); } }", "app/Work.java": "package app;\npublic class Work { public Object run(java.util.Map<String, Object> args) { return args; } }\n"}},
		{name: "package", entry: "app/Main.java", files: map[string]string{"app/Main.java": "package app;\nclass Main extends Part { }\n", "app/Part.java": "package app;\nclass Part { static Object main(java.util.Map<String, Object> args) { return args; } }\n"}},
		{name: "record", entry: "Records.java", files: map[string]string{"Records.java": "class Records { record In(int a) {} record Out(long a) {}\n static Out main(In in) { return new Out(in.a()); } }\n"}},
		{name: "object", entry: "Objects.java", files: map[string]string{"Objects.java": "class Objects { static class T { private Integer a; public int getA() { return a; } }\n static T main(T in, brasa.Context c) { return in; } }\n"}},
		{name: "resource", entry: "Resource.java", files: map[string]string{"Resource.java": "class Resource { static Object main(java.util.Map<String, Object> args) throws Exception { return brasa.Json.parse(Resource.class.getResourceAsStream(\"data/a.json\").readAllBytes()); } }\n", "data/a.json": `{"a": 1}`}},
		{name: "lambda and stream", entry: "Lambda.java", files: map[string]string{"Lambda.java": "import java.util.*;\nimport java.util.stream.*;\nclass Lambda { static Object main(Map<String, Object> args) { return args.entrySet().stream().collect(Collectors.toMap(e -> e.getKey(), e -> e.getValue())); } }\n"}},
	},
	runtimes.Go: {
		{name: "struct", files: map[string]string{"f.go": "package f\n\ntype T struct{ A int `json:\"a\"` }\n\nfunc Handle(t T) (T, error) { return t, nil }\n"}},
		{name: "init panics", files: map[string]string{"f.go": "package main\n\nfunc init() { panic(\"in init\") }\n\nfunc Main(args map[string]any) map[string]any { return args }\n"}, code: faas.Crashed},
	},
}

// together puts the files of all stories into one tree: a compiler that starts for each would
// take longer than all the rest.
func together(stories []loadStory) map[string]string {
	all := map[string]string{}
	for _, story := range stories {
		maps.Copy(all, story.files)
	}
	return all
}

// loads: code that fails before its handler says why, and where.
func (s *Suite) loads(t *testing.T, language string) {
	for _, story := range loadStories[language] {
		t.Run(story.name, func(t *testing.T) {
			f := Function{Files: story.files, Entry: story.entry, Handler: story.handler}
			if language == runtimes.Java {
				f.Files = together(loadStories[language])
			}
			if f.Entry == "" {
				f.Entry = map[string]string{runtimes.Python: "main.py", runtimes.Node: "main.js", runtimes.Ruby: "main.rb", runtimes.PHP: "main.php", runtimes.Java: "Main.java"}[language]
			}
			if story.code != faas.OK {
				if language == runtimes.Go { // a program that dies at once does not even say hello
					return
				}
				in := s.Boot(t, language, f)
				err := in.Load(nil)
				a := &Answer{Err: err, Log: in.Own}
				e := a.WantError(t, story.code, story.words...)
				if !strings.Contains(e.Trace, story.trace) || strings.Contains(e.Trace, "bootstrap") {
					t.Errorf("trace = %q, want %q in it and no frame of ours", e.Trace, story.trace)
				}
				return
			}
			in := s.Start(t, language, f)
			in.Call(`{"a":1}`).Want(t, 200, typeJSON, `{"a":1}`)
		})
	}
	t.Run("prints", func(t *testing.T) {
		code := map[string]string{runtimes.Python: "print('while loading')\ndef main(args): return args\n", runtimes.Node: "console.log('while loading'); exports.main = (args) => args;\n", runtimes.Ruby: "puts \"while loading\"\ndef main(args) = args\n", runtimes.PHP: "<?php echo \"while loading\\n\"; function main($args) { return $args; }\n", runtimes.Java: "class Main { static { System.out.println(\"while loading\"); } static Object main(java.util.Map<String, Object> args) { return args; } }\n"}[language]
		if code == "" {
			t.Skip("a program prints before it speaks")
		}
		name := map[string]string{runtimes.Python: "main.py", runtimes.Node: "main.js", runtimes.Ruby: "main.rb", runtimes.PHP: "main.php", runtimes.Java: "Main.java"}[language]
		in := s.Start(t, language, Function{Files: map[string]string{name: code}, Entry: name})
		in.Own.Await(t, "while loading")
		if a := in.Call(`{}`); a.Log.Text("") != "" {
			t.Errorf("the first call got the lines of loading: %q", a.Log.Text(""))
		}
	})
}
