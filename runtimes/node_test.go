package runtimes_test

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// node is a Node.js of this host with its bootstrap laid out.
type node struct {
	*runtimes.Runtime
	dir string // where BootDir is on the host
}

func findNode(t testing.TB) node {
	t.Helper()
	dir := t.TempDir()
	reg, err := runtimes.Discover(t.Context(), runtimes.Config{Dir: dir, Node: os.Getenv("BRASA_TEST_NODE")})
	if err != nil {
		t.Fatal(err)
	}
	rt, err := reg.Lookup(runtimes.Node)
	if err != nil {
		t.Skip(err)
	}
	return node{rt, filepath.Join(dir, runtimes.Node)}
}

// command returns a command of the runtime as it is on the host.
func (n node) command(args, env []string) *exec.Cmd {
	for i, a := range args {
		args[i] = strings.Replace(a, runtimes.BootDir, n.dir, 1)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env, cmd.Stderr, cmd.Dir = env, os.Stderr, "/tmp"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// stem starts a stem, loads the function in dir, and returns its connection.
func (n node) stem(t testing.TB, dir, seed string) *runtimes.Conn {
	t.Helper()
	s, _ := n.Stem(&faas.Revision{Limits: faas.Limits{Memory: 256 * faas.MiB}})
	return n.start(t, s.Args, s.Env, dir, seed)
}

func (n node) start(t testing.TB, args, env []string, dir, seed string) *runtimes.Conn {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	near, far := os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
	defer near.Close()
	defer far.Close()
	c, err := net.FileConn(near)
	if err != nil {
		t.Fatal(err)
	}
	cmd := n.command(args, env)
	cmd.ExtraFiles = []*os.File{far}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	conn := runtimes.NewConn(c, runtimes.Options{})
	t.Cleanup(func() {
		_ = conn.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := conn.Hello(t.Context()); err != nil {
		t.Fatal(err)
	}
	spec := specOf(dir)
	spec.Seed = seed
	if _, err := conn.Load(t.Context(), spec); err != nil {
		t.Fatal(err, faas.AsError(err).Trace)
	}
	return conn
}

func specOf(dir string) runtimes.Spec {
	spec := runtimes.SpecOf(&faas.Revision{Name: faas.Name{Namespace: "ns", Function: "fn"}, Entry: "index.js"}, nil)
	spec.Code = dir
	return spec
}

// call calls with a JSON input and returns the answer; a seed says that the process was put back.
func call(t testing.TB, conn *runtimes.Conn, input, seed string) string {
	t.Helper()
	now := time.Now()
	res, err := conn.RoundTrip(t.Context(), &faas.Invocation{
		ID: faas.NewID(now), Kind: faas.KindInvoke, Body: faas.NewBytesBody([]byte(input)), Length: int64(len(input)),
		Deadline: now.Add(time.Minute), Attempt: 1, Seed: seed,
	}, nil)
	if err != nil {
		t.Fatal(err, faas.AsError(err).Trace)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func lay(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// look is a module that tells all that a module can see of how it was loaded.
const look = `exports.look = () => ({ at: new Error('here').stack.split('\n')[1].trim(), args: args.length, that: that === first,
  file: __filename, dir: __dirname, main: require.main && require.main.id, parent: module.parent && module.parent.filename, paths: module.paths, id: module.id,
  children: module.children.map((m) => m.filename), loaded: module.loaded, keys: Object.keys(require), resolveKeys: Object.keys(require.resolve),
  extensions: Object.keys(require.extensions), cache: Object.keys(require.cache).filter((f) => !f.includes('bootstrap')), resolved: require.resolve('one'), builtin: require.resolve('fs'),
  looked: require.resolve.paths('one'), relative: require.resolve.paths('./one'), text: String(inner), sloppy: inner.call(undefined) === globalThis,
  names: [require.name, require.length, module.constructor.name, exports.look.name] });
const args = arguments, that = this, first = exports; function inner() { /* a comment ✓ */ return this; }
`

var packed = map[string]string{
	"package.json": `{"main": "index.js"}`,
	"index.js": `const one = require('one'); const again = require('./lib/again'); const data = require('./data.json');
const late = () => require('./lib/late'); const strict = require('./lib/strict'); const scoped = require('@scope/two/sub');
let missing; try { require('absent'); } catch (e) { missing = [e.code, e.message.split('\n')[0]]; }
let broken; try { require('./lib/broken'); } catch (e) { broken = [e.name, e.message, e.stack.includes('broken.js:2')]; }
let thrown; try { require('./lib/throws'); } catch (e) { thrown = [e.message, e.stack.split('\n')[1].trim(), Object.keys(require.cache).some((f) => f.includes('throws'))]; }
exports.main = async () => ({
  one: one.look(), again: again.look(), data, missing, broken, thrown, late: late(), cycle: require('./lib/a').b.seen, hash: require('./lib/hash'), bom: require('./lib/bom'),
  strict, imported: (await one.load()).default, esm: (await import('esm')).answer, utf: require('./lib/utf'), scoped,
  argv: process.argv.slice(1), execArgv: process.execArgv, globals: Object.getOwnPropertyNames(globalThis).sort(), cwd: process.cwd(), env: Object.keys(process.env).sort(),
  listeners: process.eventNames().map(String), modules: module.children.map((m) => m.filename), first: new Error('first').stack.split('\n')[1].trim(),
}); exports.where = new Error('top').stack.split('\n')[1].trim();
`,
	"data.json":                                    `{"n": 1}`,
	"lib/again.js":                                 look,
	"lib/late.js":                                  "module.exports = 'late';",
	"lib/broken.js":                                "exports.a = 1;\nconst = 2;",
	"lib/throws.js":                                "\n  throw new Error('thrown');",
	"lib/a.js":                                     "exports.begun = true; exports.b = require('./b'); exports.done = true;",
	"lib/b.js":                                     "exports.seen = { ...require('./a') };",
	"lib/hash.js":                                  "#!/usr/bin/env node\nmodule.exports = new Error('x').stack.split('\\n')[1].trim();",
	"lib/bom.js":                                   "\ufeffmodule.exports = 'bom';",
	"lib/strict.js":                                "'use strict';\nmodule.exports = (function () { return this === undefined; })();",
	"lib/utf.js":                                   "module.exports = 'é ✓ \\u{1F600} 😀';",
	"lib/escape.js":                                "}); globalThis.escaped = true; (function () {",
	"node_modules/one/package.json":                `{"name": "one", "exports": {".": {"require": "./lib/index.js"}, "./value": "./value.mjs"}}`,
	"node_modules/one/lib/index.js":                look + "exports.load = () => import('one/value'); try { require('../../../lib/escape'); } catch (e) { exports.escape = e.name; }\n",
	"node_modules/one/value.mjs":                   "export default 'value';",
	"node_modules/esm/package.json":                `{"name": "esm", "type": "module", "main": "index.js"}`,
	"node_modules/esm/index.js":                    "export const answer = 42;",
	"node_modules/@scope/two/package.json":         `{"name": "@scope/two"}`,
	"node_modules/@scope/two/sub/index.js":         "module.exports = require('../private');",
	"node_modules/@scope/two/private/it.cjs":       "module.exports = 'private';",
	"node_modules/@scope/two/private/package.json": `{"main": "it.cjs"}`,
}

// surroundings is a function that tells all that it can see of the process it is in.
const surroundings = `
const before = { cache: Object.keys(require.cache), paths: Object.keys(require('module')._pathCache), env: { ...process.env }, argv: process.argv, execArgv: process.execArgv,
  cwd: process.cwd(), title: process.title, umask: process.umask(), exitCode: String(process.exitCode), main: require.main.filename, mainChildren: require.main.children.length,
  listeners: process.eventNames().map((n) => [String(n), process.listenerCount(n)]), handles: process._getActiveHandles().length, resources: process.getActiveResourcesInfo(),
  globals: Reflect.ownKeys(globalThis).map(String), random: Math.random.toString(), memory: Buffer.poolSize, console: Reflect.ownKeys(console).map(String).sort(),
  load: require('module')._load.name, out: process.stdout.listenerCount('error'), writable: process.stdout.writableLength, process: Object.keys(process).sort(),
  prototypes: [Object, Array, Buffer, Promise, Function, Error].map((c) => [Reflect.ownKeys(c).length, Reflect.ownKeys(c.prototype).length]), files: require('fs').readdirSync('/proc/self/fd').length };
exports.main = () => before;
`

// TestStemLeavesNothing shows that a function can't tell a process that rehearsed from one that did not.
func TestStemLeavesNothing(t *testing.T) {
	n := findNode(t)
	dir := t.TempDir()
	lay(t, dir, map[string]string{"index.js": surroundings})
	args, env, _ := n.Command(&faas.Revision{Limits: faas.Limits{Memory: 256 * faas.MiB}})
	want := call(t, n.start(t, args, env, dir, ""), "{}", "")
	if got := call(t, n.stem(t, dir, ""), "{}", ""); got != want {
		t.Errorf("a stem shows\n%s\na process of the function's own\n%s", got, want)
	}
}

// TestWithoutNative shows that a processor for which there is no addon has stems all the same, and
// that a process which can't be given new randomness serves no call that needs it.
func TestWithoutNative(t *testing.T) {
	n := findNode(t)
	if err := os.Remove(filepath.Join(n.dir, "native.node")); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	lay(t, dir, map[string]string{"index.js": "exports.main = () => 1;"})
	seed := strings.Repeat("ab", 32)
	conn := n.stem(t, dir, seed)
	if got := call(t, conn, "{}", ""); got != "1" {
		t.Errorf("answer = %s, want 1", got)
	}
	_, err := conn.RoundTrip(t.Context(), &faas.Invocation{ID: faas.NewID(time.Now()), Kind: faas.KindInvoke, Body: faas.NewBytesBody(nil), Attempt: 1, Seed: seed}, nil)
	if faas.CodeOf(err) != faas.Crashed {
		t.Errorf("a call after a rewind: %v, want the process to end", err)
	}
}

// TestPack shows that a function can't tell whether it was packed.
func TestPack(t *testing.T) {
	n := findNode(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	lay(t, dir, packed)
	plain := call(t, n.stem(t, dir, ""), "{}", "")

	out := t.TempDir()
	spec, err := json.Marshal(specOf(dir))
	if err != nil {
		t.Fatal(err)
	}
	lay(t, out, map[string]string{"spec": string(spec)})
	args, env, _ := n.Command(&faas.Revision{Limits: faas.Limits{Memory: 256 * faas.MiB}})
	if b, err := n.command(append(args, "pack", out), env).Output(); err != nil {
		t.Fatal(err, string(b))
	}
	pack, err := os.ReadFile(filepath.Join(out, "pack"))
	if os.IsNotExist(err) {
		t.Skip("this Node.js is too old for packs")
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"lib/again.js", "lib/strict.js", "one/lib/index.js", "private/it.cjs"} {
		if !strings.Contains(string(pack), name+`",`) {
			t.Errorf("%s is not in the pack", name)
		}
	}
	lay(t, dir, map[string]string{runtimes.NodePack: string(pack)})
	for _, file := range []string{"lib/again.js", "node_modules/one/lib/index.js"} {
		// What lies in the pack is what runs: the files themselves are not read.
		lay(t, dir, map[string]string{file: "throw new Error('read')"})
	}
	if got := call(t, n.stem(t, dir, ""), "{}", ""); got != plain {
		t.Errorf("packed:\n%s\nas sent:\n%s", got, plain)
	}

	// Code that V8 does not take, or that is damaged, is compiled from the source.
	const magic = "\xde\xc0" // V8's, in the third and fourth byte
	if !strings.Contains(string(pack), magic) {
		t.Fatal("the pack holds no code of V8")
	}
	spoiled := strings.ReplaceAll(string(pack), magic, "\xde\xc1")
	lay(t, dir, map[string]string{runtimes.NodePack: spoiled})
	if got := call(t, n.stem(t, dir, ""), "{}", ""); got != plain {
		t.Errorf("with code that is refused:\n%s\nas sent:\n%s", got, plain)
	}
	lay(t, dir, map[string]string{"lib/again.js": packed["lib/again.js"], "node_modules/one/lib/index.js": packed["node_modules/one/lib/index.js"]})
	lay(t, dir, map[string]string{runtimes.NodePack: strings.Replace(string(pack), `"node":"v`, `"node":"w`, 1)})
	if got := call(t, n.stem(t, dir, ""), "{}", ""); got != plain {
		t.Errorf("with another version's pack:\n%s\nas sent:\n%s", got, plain)
	}
}

// TestNativeIsOfItsSource shows that the committed addons are what native.c gives, where the
// compilers that built them are.
func TestNativeIsOfItsSource(t *testing.T) {
	out, err := exec.Command("node/native/build.sh", "-check").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
