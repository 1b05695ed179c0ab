package install_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/internal/store"
	"github.com/brasa-dev/brasa/runtimes"
)

// nodeShop installs what functions in Node.js name, in real sandboxes.
type nodeShop struct {
	*install.Installer
	host     *sandbox.Host
	runtimes *runtimes.Registry
	node     *runtimes.Runtime
	dir      string
}

func newNodeShop(t *testing.T, adjust func(*install.Config)) *nodeShop {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: installations run in sandboxes of the initial user namespace")
	}
	s := &nodeShop{dir: t.TempDir()}
	var err error
	if s.runtimes, err = runtimes.Discover(t.Context(), runtimes.Config{Dir: filepath.Join(s.dir, "runtimes")}); err != nil {
		t.Fatal(err)
	}
	if s.node, err = s.runtimes.Lookup(runtimes.Node); err != nil {
		t.Skip(err)
	}
	host, err := sandbox.New(sandbox.Config{
		Dir: filepath.Join(s.dir, "sandbox"), RootDirs: s.runtimes.RootDirs(), Prefix: fmt.Sprintf("n%x", os.Getpid()&0xffffff), NetPool: 1, CgroupPool: 1, EgressPool: 1,
		Egress: sandbox.EgressConfig{Allow: []netip.Prefix{netip.MustParsePrefix(registryNet)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.host = host
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- host.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		<-done
		_ = host.Close()
	})
	<-host.Ready()
	for _, f := range host.Features() {
		if f.Name == "egress" && !f.Have {
			t.Skip("sandboxes have no way out here: " + f.Detail)
		}
	}
	depot, err := artifact.Open(artifact.Config{Objects: store.MemoryObjects(), Dir: filepath.Join(s.dir, "code")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = depot.Close() })
	cfg := install.Config{Depot: depot, Sandbox: host, Runtimes: s.runtimes, Dir: filepath.Join(s.dir, "install")}
	if adjust != nil {
		adjust(&cfg)
	}
	if s.Installer, err = install.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// realNPM skips a test where the public registry cannot be reached.
func realNPM(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://registry.npmjs.org/lodash/4.17.21", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Skipf("the npm registry cannot be reached: %v", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Skipf("the npm registry cannot be reached: it answers %s", resp.Status)
	}
}

// install lays the files out and installs what they name.
func (s *nodeShop) install(t *testing.T, files map[string]string, opt install.Options) (*install.Result, string, error) {
	t.Helper()
	code := t.TempDir()
	for name, text := range files {
		p := filepath.Join(code, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	res, err := s.Install(t.Context(), install.Request{
		Namespace: "default", NamespaceUID: "ns1", Code: code, Options: opt, Log: &log,
		Plan: &runtimes.Plan{Runtime: runtimes.Node, Version: s.node.Version, Entry: "index.js"},
	})
	if res != nil {
		t.Cleanup(res.Release)
	}
	return res, log.String(), err
}

func (s *nodeShop) must(t *testing.T, files map[string]string, opt install.Options) *install.Result {
	t.Helper()
	res, log, err := s.install(t, files, opt)
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, faas.AsError(err).Trace, log)
	}
	if res == nil {
		t.Fatal("nothing was installed")
	}
	return res
}

// run runs a script as a function would: in a sandbox, with the layer where it is at a call.
func (s *nodeShop) run(t *testing.T, layer, name, script string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o644); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	box, err := s.host.Start(t.Context(), sandbox.Spec{
		Name: "run", Args: []string{s.node.Program, "/code/" + name}, Memory: 512 << 20, Stdout: w, Stderr: w,
		Mounts: []sandbox.Mount{{Source: dir, Target: "/code"}, {Source: layer, Target: "/node_modules"}},
	})
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	<-box.Done()
	if x := box.Exit(); x.Code != 0 || x.Signal != 0 {
		t.Fatalf("%s\n%s", x, out)
	}
	return strings.TrimSpace(string(out))
}

// lockOf has npm write a lock.
func lockOf(t *testing.T, manifest string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "package.json"), []byte(manifest), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "npm", "install", "--package-lock-only", "--no-audit", "--no-fund")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("npm writes no lock here: %v\n%s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const (
	someManifest = `{"name":"one","dependencies":{"lodash":"4.17.21","nanoid":"5.0.9","@sindresorhus/is":"7.0.1","express":"4.21.2"},"devDependencies":{"left-pad":"1.3.0"}}`
	someScript   = `
import _ from 'lodash';
import { nanoid } from 'nanoid';
import is from '@sindresorhus/is';
import { createRequire } from 'node:module';
const require = createRequire(import.meta.url);
let dev = 'there';
try { require('left-pad'); } catch { dev = 'absent'; }
console.log(JSON.stringify([_.chunk([1, 2, 3], 2), nanoid(9).length, is(1), typeof require('express')(), dev]));
`
	// fewManifest has what differs between layouts: a package that is CommonJS, one that is a module, a
	// scope, a package that another one needs, one that is for development.
	fewManifest = `{"name":"few","dependencies":{"lodash":"4.17.21","nanoid":"5.0.9","@sindresorhus/is":"7.0.1","send":"1.1.0"},"devDependencies":{"left-pad":"1.3.0"}}`
	someAnswer  = `[[[1,2],[3]],9,"number","function","absent"]`
)

func TestNPMInstallsWhatALockNames(t *testing.T) {
	realNPM(t)
	s := newNodeShop(t, nil)
	lock := lockOf(t, someManifest)
	res := s.must(t, map[string]string{"package.json": someManifest, "package-lock.json": lock}, install.Options{Strict: true})
	if res.Cached || res.Layer == nil || res.Layer.Target != "/node_modules" {
		t.Errorf("result %+v, want a new layer at /node_modules", res)
	}
	if got := s.run(t, res.Dir, "index.mjs", someScript); got != someAnswer {
		t.Errorf("the function says %s, want %s", got, someAnswer)
	}
	if p := res.Packages[0]; p.Name != "lodash" || p.Version != "4.17.21" || p.Bytes < faas.MiB {
		t.Errorf("the heaviest package is %+v, want lodash", p)
	}
	for _, p := range res.Packages {
		if p.Name == "" || p.Version == "" || strings.Contains(p.Name, "node_modules") {
			t.Errorf("a package is %+v", p)
		}
	}
	if entries, _ := filepath.Glob(filepath.Join(res.Dir, ".brasa*")); len(entries) > 0 {
		t.Errorf("left behind: %v", entries)
	}
	// Another function with the same packages differs in what does not decide.
	other := strings.Replace(someManifest, `"name":"one"`, `"name":"two","version":"9.9.9","scripts":{"test":"true"}`, 1)
	again := s.must(t, map[string]string{"package.json": other, "package-lock.json": lockOf(t, other)}, install.Options{Strict: true})
	if !again.Cached || again.Layer.Digest != res.Layer.Digest {
		t.Errorf("the same lock in another function is installed anew: %+v", again)
	}
}

func TestNPMResolvesWhatNoLockNames(t *testing.T) {
	realNPM(t)
	s := newNodeShop(t, nil)
	res := s.must(t, map[string]string{"package.json": `{"dependencies":{"lodash":"^4.17.0"}}`}, install.Options{})
	if got := s.run(t, res.Dir, "index.js", `console.log(require('lodash').VERSION.split('.')[0])`); got != "4" {
		t.Errorf("it says %s, want 4", got)
	}
	if res.Note == "" {
		t.Error("nobody is told that there is no lock")
	}
	// A list of packages needs no manifest at all.
	res = s.must(t, map[string]string{"index.js": ""}, install.Options{With: []string{"nanoid@5.0.9", "@sindresorhus/is"}})
	if got := s.run(t, res.Dir, "index.mjs", `import { nanoid } from 'nanoid'; import is from '@sindresorhus/is'; console.log(nanoid(3).length, is(''))`); got != "3 string" {
		t.Errorf("it says %s", got)
	}
	if res, _, err := s.install(t, map[string]string{"package.json": `{"type":"module"}`}, install.Options{}); res != nil || err != nil {
		t.Errorf("code without dependencies: %+v, %v; want nothing", res, err)
	}
	if res, _, err := s.install(t, map[string]string{"package.json": someManifest, "node_modules/lodash/index.js": ""}, install.Options{}); res != nil || err != nil {
		t.Errorf("code with node_modules: %+v, %v; want nothing", res, err)
	}
}

// toolLock has another program write its lock.
func toolLock(t *testing.T, manifest, lock string, command ...string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "package.json"), []byte(manifest), 0o644); err != nil {
		t.Fatal(err)
	}
	if lock == "yarn.lock" { // else newer Yarns look for a project above
		if err := os.WriteFile(filepath.Join(dir, lock), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "npm", append([]string{"exec", "--yes"}, command...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "YARN_NODE_LINKER=node-modules", "YARN_ENABLE_TELEMETRY=0", "YARN_ENABLE_IMMUTABLE_INSTALLS=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("%v writes no lock here: %v\n%s", command, err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, lock))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{"package.json": manifest, lock: string(b)}
}

func TestNPMInstallsLocksOfPNPMAndYarn(t *testing.T) {
	realNPM(t)
	s := newNodeShop(t, nil)
	for _, c := range []struct {
		name, lock, tool string
		command          []string
		outOfSync        string
	}{
		{"pnpm", "pnpm-lock.yaml", "pnpm 10.", []string{"--", "pnpm@10.34.8", "install", "--lockfile-only"}, "of one mind"},
		{"yarn 1", "yarn.lock", "yarn 1.", []string{"--", "yarn@1.22.22", "install", "--ignore-scripts", "--non-interactive"}, "of one mind"},
		{"yarn 4.9", "yarn.lock", "@yarnpkg/cli-dist 4.9", []string{"--package=@yarnpkg/cli-dist@4.9.1", "--", "yarn", "install", "--mode=update-lockfile"}, "of one mind"},
		{"yarn 4.18", "yarn.lock", "@yarnpkg/cli-dist 4.18", []string{"--package=@yarnpkg/cli-dist@4.18.1", "--", "yarn", "install", "--mode=update-lockfile"}, "of one mind"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := toolLock(t, fewManifest, c.lock, c.command...)
			res := s.must(t, files, install.Options{Strict: true})
			if !strings.HasPrefix(res.Tool, c.tool) {
				t.Errorf("it was installed by %s, want %s", res.Tool, c.tool)
			}
			if got := s.run(t, res.Dir, "index.mjs", strings.ReplaceAll(someScript, "express')()", "send')")); got != someAnswer {
				t.Errorf("the function says %s, want %s", got, someAnswer)
			}
			if p := res.Packages[0]; p.Name != "lodash" {
				t.Errorf("the heaviest package is %+v", p)
			}
			files["package.json"] = strings.Replace(fewManifest, `"lodash"`, `"is-odd":"3.0.1","lodash"`, 1)
			_, log, err := s.install(t, files, install.Options{})
			if e := faas.AsError(err); err == nil || e.Code != faas.Invalid || !strings.Contains(e.Error(), c.outOfSync) {
				t.Errorf("a lock that lacks a package: %v\n%s", err, log)
			}
		})
	}
}

// tgz is a package of one file and its manifest, and its hash.
func tgz(t *testing.T, manifest string, files map[string]string) ([]byte, string) {
	t.Helper()
	dir := t.TempDir()
	files["package.json"] = manifest
	for name, text := range files {
		if err := os.MkdirAll(filepath.Join(dir, "package"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "package", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, "p.tgz")
	if b, err := exec.CommandContext(t.Context(), "tar", "-czf", out, "-C", dir, "package").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha512.Sum512(b)
	return b, "sha512-" + base64.StdEncoding.EncodeToString(sum[:])
}

// homeward is a package that calls an address when it is installed, and leaves what it found.
const homeward = `
const http = require('http'), fs = require('fs');
const seen = { access: fs.existsSync('/access') && fs.readdirSync('/access').length > 0, env: Object.entries(process.env).filter(([k, v]) => /secret.token/.test(v)).map(([k]) => k), rc: '' };
for (const f of ['/node_modules/.brasa/.npmrc', '/scratch/.npmrc', '/scratch/npmrc', '/src/.npmrc']) { try { seen.rc += fs.readFileSync(f, 'utf8'); } catch {} }
const done = () => { fs.writeFileSync('seen.json', JSON.stringify(seen)); };
http.get(process.env.HOMEWARD || 'http://HOST/called', (res) => { seen.called = res.statusCode; res.resume(); done(); }).on('error', (e) => { seen.error = e.code; done(); });
`

func TestInstallScriptsRunOnlyWhenAskedForAndWithoutCredentials(t *testing.T) {
	registry := newRegistry(t)
	s := newNodeShop(t, func(c *install.Config) {
		c.Registries.NPM = install.NPMRegistry{Registry: registry.url, Token: "secret-token"}
	})
	registry.publish(t, "homeward", "1.0.0", `{"name":"homeward","version":"1.0.0","scripts":{"postinstall":"node call.js"}}`,
		map[string]string{"call.js": strings.ReplaceAll(homeward, "HOST", registry.addr), "index.js": "module.exports = 'here'"})
	files := map[string]string{"package.json": `{"dependencies":{"homeward":"1.0.0"}}`}
	res := s.must(t, files, install.Options{})
	if !registry.authorized {
		t.Fatal("the registry was not asked with its token, so the rest shows nothing")
	}
	if _, err := os.Stat(filepath.Join(res.Dir, "homeward", "seen.json")); err == nil || registry.called {
		t.Error("a package's script ran that nobody asked for")
	}
	if got := s.run(t, res.Dir, "index.js", `console.log(require('homeward'))`); got != "here" {
		t.Errorf("it says %s", got)
	}
	res = s.must(t, files, install.Options{Scripts: true})
	b, err := os.ReadFile(filepath.Join(res.Dir, "homeward", "seen.json"))
	if err != nil {
		t.Fatal(err)
	}
	var seen struct {
		Access bool
		Env    []string
		RC     string
		Called int
		Error  string
	}
	if err := json.Unmarshal(b, &seen); err != nil {
		t.Fatal(err)
	}
	if seen.Access || len(seen.Env) > 0 || strings.Contains(seen.RC, "secret-token") {
		t.Errorf("a script sees the registry's credentials: %+v", seen)
	}
	if seen.Called != http.StatusOK || !registry.called {
		t.Errorf("a script has no way out: %+v", seen)
	}
	whole := false
	_ = filepath.WalkDir(res.Dir, func(p string, _ os.DirEntry, _ error) error {
		if b, err := os.ReadFile(p); err == nil && bytes.Contains(b, []byte("secret-token")) {
			whole = true
		}
		return nil
	})
	if whole {
		t.Error("the token is in the layer")
	}
}

func TestNPMSaysWhatIsWrong(t *testing.T) {
	registry := newRegistry(t)
	registry.publish(t, "one", "1.0.0", `{"name":"one","version":"1.0.0"}`, map[string]string{"index.js": ""})
	registry.publish(t, "picky", "1.0.0", `{"name":"picky","version":"1.0.0","engines":{"node":">=99"}}`, map[string]string{"index.js": ""})
	registry.publish(t, "fails", "1.0.0", `{"name":"fails","version":"1.0.0","scripts":{"postinstall":"echo no good; exit 3"}}`, map[string]string{"index.js": ""})
	s := newNodeShop(t, func(c *install.Config) { c.Registries.NPM.Registry = registry.url })
	lock := func(integrity string) string {
		return fmt.Sprintf(`{"name":"x","lockfileVersion":3,"requires":true,"packages":{"":{"name":"x","dependencies":{"one":"1.0.0"}},"node_modules/one":{"version":"1.0.0","resolved":"%sone/-/one-1.0.0.tgz"%s}}}`, registry.url, integrity)
	}
	wrong := `,"integrity":"sha512-` + strings.Repeat("A", 86) + `=="`
	right := `,"integrity":"` + registry.integrity["one@1.0.0"] + `"`
	for _, c := range []struct {
		name       string
		files      map[string]string
		opt        install.Options
		code       faas.Code
		says, fix  string
		unreported bool // it is found out before a tool runs
	}{
		{"no such version", map[string]string{"package.json": `{"dependencies":{"one":"^7.0.0"}}`}, install.Options{}, faas.Invalid, "one@^7.0.0", "choose a version", false},
		{"no such package", map[string]string{"package.json": `{"dependencies":{"nowhere":"1.0.0"}}`}, install.Options{}, faas.Invalid, "nowhere", "spelling", false},
		{"another hash", map[string]string{"package.json": `{"dependencies":{"one":"1.0.0"}}`, "package-lock.json": lock(wrong)}, install.Options{}, faas.Invalid, "one@1.0.0", "do not use it", false},
		{"out of sync", map[string]string{"package.json": `{"dependencies":{"one":"1.0.0","picky":"1.0.0"}}`, "package-lock.json": lock(right)}, install.Options{}, faas.Invalid, "picky@1.0.0", "write the lock anew", false},
		{"another engine", map[string]string{"package.json": `{"dependencies":{"picky":"1.0.0"}}`, ".npmrc": "engine-strict=true\n"}, install.Options{}, faas.Invalid, ">=99", "engine-strict", false},
		{"a script that fails", map[string]string{"package.json": `{"dependencies":{"fails":"1.0.0"}}`}, install.Options{Scripts: true}, faas.Failed, "script of fails", "--install-scripts", false},
		{"strict without a lock", map[string]string{"package.json": `{"dependencies":{"one":"1.0.0"}}`}, install.Options{Strict: true}, faas.Invalid, "strict", "lock", true},
		{"strict without a hash", map[string]string{"package.json": `{"dependencies":{"one":"1.0.0"}}`, "package-lock.json": lock("")}, install.Options{Strict: true}, faas.Invalid, "one@1.0.0", "anew", true},
		{"a workspace", map[string]string{"package.json": `{"workspaces":["a"],"dependencies":{"one":"1.0.0"}}`}, install.Options{}, faas.Invalid, "workspaces", "node_modules", true},
		{"a directory", map[string]string{"package.json": `{"dependencies":{"one":"file:../one"}}`}, install.Options{}, faas.Invalid, "directory", "npm pack", true},
		{"a repository", map[string]string{"package.json": `{"dependencies":{"one":"someone/one"}}`}, install.Options{}, faas.Invalid, "git", "tarball", true},
		{"an option for a name", map[string]string{"index.js": ""}, install.Options{With: []string{"--registry=http://x"}}, faas.Invalid, "no name", "lodash", true},
		{"a tarball that is not there", map[string]string{"package.json": `{"dependencies":{"one":"file:one.tgz"}}`}, install.Options{}, faas.Invalid, "one.tgz", "", true},
		{"a lock that is none", map[string]string{"package.json": `{"dependencies":{"one":"1.0.0"}}`, "package-lock.json": "<<<<<<<"}, install.Options{}, faas.Invalid, "package-lock.json", "anew", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, log, err := s.install(t, c.files, c.opt)
			e := faas.AsError(err)
			if err == nil || e.Code != c.code || !strings.Contains(e.Error(), c.says) || !strings.Contains(e.Fix, c.fix) {
				t.Fatalf("error %v, fix %q; want %s with %q and %q\n%s", err, e.Fix, c.code, c.says, c.fix, log)
			}
			if !c.unreported && e.Trace == "" {
				t.Error("the last lines of the tool are missing")
			}
		})
	}
	_, _, err := s.install(t, map[string]string{"package.json": `{"dependencies":{"one":"1.0.0"}}`, "package-lock.json": lock(right)}, install.Options{Strict: true})
	if err != nil {
		t.Errorf("with the right hash: %v", err)
	}
	registry.close()
	_, log, err := s.install(t, map[string]string{"package.json": `{"dependencies":{"one":"1.0.0"},"overrides":{}}`}, install.Options{})
	if e := faas.AsError(err); err == nil || e.Code != faas.Unavailable {
		t.Errorf("without a registry: %v\n%s", err, log)
	}
}

func TestATarballThatUnpacksToTooMuchIsStopped(t *testing.T) {
	s := newNodeShop(t, func(c *install.Config) { c.Limits.Bytes = 32 * faas.MiB })
	small, sum := tgz(t, `{"name":"one","version":"1.0.0"}`, map[string]string{"index.js": "module.exports = 1"})
	bomb, bombSum := tgz(t, `{"name":"one","version":"1.0.0"}`, map[string]string{"index.js": strings.Repeat("\x00", 200<<20), "noise": noise()})
	files := func(b []byte, sum string) map[string]string {
		return map[string]string{
			"package.json": `{"dependencies":{"one":"file:one.tgz"}}`, "one.tgz": string(b),
			"package-lock.json": fmt.Sprintf(`{"name":"x","lockfileVersion":3,"requires":true,"packages":{"":{"name":"x","dependencies":{"one":"file:one.tgz"}},"node_modules/one":{"version":"1.0.0","resolved":"file:one.tgz","integrity":%q}}}`, sum),
		}
	}
	res := s.must(t, files(small, sum), install.Options{Strict: true})
	if got := s.run(t, res.Dir, "index.js", `console.log(require('one'))`); got != "1" {
		t.Errorf("a package beside the code says %s", got)
	}
	_, _, err := s.install(t, files(bomb, bombSum), install.Options{})
	if e := faas.AsError(err); err == nil || e.Limit != "install_bytes" {
		t.Errorf("a bomb of %d bytes: %v, want install_bytes\n%s", len(bomb), err, e.Trace)
	}
	if left, _ := os.ReadDir(filepath.Join(s.dir, "install", "work")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// noise is what does not get smaller when it is packed: npm itself stops archives that do so by more
// than a thousand times.
func noise() string {
	b := make([]byte, 1<<20)
	_, _ = rand.Read(b)
	return string(b)
}
