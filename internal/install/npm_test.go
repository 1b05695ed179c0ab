package install

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/brasa-dev/brasa/runtimes"
)

const (
	sum512 = "sha512-dMInicTPVE8d1e5otfwmmjlxkZoUpiVLwyeTdUsi/Caj/gfzzblBcCE5sRHV/AsjuCmxWrte2TNGSYuCeCq+0Q=="
	sum1   = "sha1-C/C+EltnAUrcsLCSHmLbe//hay4="
)

func found(t *testing.T, r Registries, opt Options, files map[string]string) *Manifest {
	t.Helper()
	tree := fstest.MapFS{}
	for name, text := range files {
		tree[name] = &fstest.MapFile{Data: []byte(text)}
	}
	m, err := newNPM(Tools{Registries: r}).Find(tree, &runtimes.Plan{Runtime: runtimes.Node, Version: "20.1.2"}, opt)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestWhatIsSharedByAll: a layer is every namespace's only if its lock pins public packages by strong
// hashes.
func TestWhatIsSharedByAll(t *testing.T) {
	lock := func(entry string) map[string]string {
		return map[string]string{
			"package.json":      `{"dependencies":{"@a/b":"1.0.0"}}`,
			"package-lock.json": `{"lockfileVersion":3,"packages":{"":{},"node_modules/@a/b":{"version":"1.0.0",` + entry + `},"node_modules/@a/b/node_modules/dev":{"dev":true,"version":"1.0.0"}}}`,
		}
	}
	public := `"resolved":"https://registry.npmjs.org/@a/b/-/b-1.0.0.tgz","integrity":"` + sum512 + `"`
	for name, c := range map[string]struct {
		files map[string]string
		r     NPMRegistry
		opt   Options
		want  bool
	}{
		"public and hashed":               {files: lock(public), want: true},
		"no address is the registry's":    {files: lock(`"integrity":"` + sum512 + `"`), want: true},
		"by way of a mirror":              {files: lock(public), r: NPMRegistry{Registry: "https://mirror.example"}, want: true},
		"no address, another registry":    {files: lock(`"integrity":"` + sum512 + `"`), r: NPMRegistry{Registry: "https://private.example"}},
		"no address, a scope's registry":  {files: lock(`"integrity":"` + sum512 + `"`), r: NPMRegistry{Scopes: []string{"@a=https://private.example#t"}}},
		"another scope's registry":        {files: lock(`"integrity":"` + sum512 + `"`), r: NPMRegistry{Scopes: []string{"@other=https://private.example"}}, want: true},
		"an address of somebody":          {files: lock(`"resolved":"https://else.example/b.tgz","integrity":"` + sum512 + `"`)},
		"a weak hash":                     {files: lock(`"resolved":"https://registry.npmjs.org/@a/b/-/b-1.0.0.tgz","integrity":"` + sum1 + `"`)},
		"no hash":                         {files: lock(`"resolved":"https://registry.npmjs.org/@a/b/-/b-1.0.0.tgz"`)},
		"packages besides":                {files: lock(public), opt: Options{With: []string{"c"}}},
		"no lock":                         {files: map[string]string{"package.json": `{"dependencies":{"a":"1"}}`}},
		"a lock of npm 6":                 {files: map[string]string{"package.json": `{"dependencies":{"a":"1"}}`, "package-lock.json": `{"lockfileVersion":1,"dependencies":{"a":{"version":"1.0.0","integrity":"` + sum512 + `","dependencies":{"b":{"version":"1.0.0","integrity":"` + sum512 + `"}}}}}`}, want: true},
		"a lock of npm 6 that lacks one":  {files: map[string]string{"package.json": `{"dependencies":{"a":"1"}}`, "package-lock.json": `{"lockfileVersion":1,"dependencies":{"a":{"version":"1.0.0","integrity":"` + sum512 + `","dependencies":{"b":{"version":"1.0.0"}}}}}`}},
		"a lock of pnpm":                  {files: map[string]string{"package.json": `{"dependencies":{"a":"1"}}`, "pnpm-lock.yaml": "lockfileVersion: '9.0'\npackages:\n\n  '@a/b@1.0.0':\n    resolution: {integrity: " + sum512 + "}\n"}, want: true},
		"a lock of pnpm with a tarball":   {files: map[string]string{"package.json": `{"dependencies":{"a":"1"}}`, "pnpm-lock.yaml": "lockfileVersion: '9.0'\npackages:\n\n  a@https://x.example/a.tgz:\n    resolution: {integrity: " + sum512 + ", tarball: https://x.example/a.tgz}\n"}},
		"a lock of Yarn 1":                {files: map[string]string{"package.json": `{"dependencies":{"a":"1"}}`, "yarn.lock": "# yarn lockfile v1\n\n\n\"@a/b@^1.0.0\", \"@a/b@^1.0.1\":\n  version \"1.0.1\"\n  resolved \"https://registry.yarnpkg.com/@a/b/-/b-1.0.1.tgz#0bf0\"\n  integrity " + sum512 + "\n  dependencies:\n    version \"2\"\n"}, want: true},
		"a lock of Yarn 1 without hashes": {files: map[string]string{"package.json": `{"dependencies":{"a":"1"}}`, "yarn.lock": "a@1:\n  version \"1.0.1\"\n  resolved \"https://registry.yarnpkg.com/a/-/a-1.0.1.tgz#0bf0\"\n"}},
		"a lock of Yarn 4":                {files: map[string]string{"package.json": `{"dependencies":{"a":"1"}}`, "yarn.lock": "# x\n\n__metadata:\n  version: 8\n  cacheKey: 10c0\n\n\"a@npm:1\":\n  version: 1.0.1\n  resolution: \"a@npm:1.0.1\"\n  checksum: 10c0/aa\n\n\"x@workspace:.\":\n  version: 0.0.0-use.local\n  resolution: \"x@workspace:.\"\n"}, want: true},
	} {
		m := found(t, Registries{NPM: c.r}, c.opt, c.files)
		if m == nil || m.Verified != c.want {
			t.Errorf("%s: %+v, want verified: %v", name, m, c.want)
		}
	}
}

// TestWhatDecidesIsRead: what does not decide what is installed makes no other layer, and no setting
// of the project's brings a registry, a credential or a program in.
func TestWhatDecidesIsRead(t *testing.T) {
	files := map[string]string{
		"package.json":      `{"name":"x","version":"2.0.0","scripts":{"postinstall":"evil"},"dependencies":{"a":"1"},"overrides":{"b":"2"},"pnpm":{"configDependencies":{"evil":"1"},"overrides":{"c":"3"}}}`,
		"package-lock.json": `{"name":"x","version":"2.0.0","lockfileVersion":3,"packages":{"":{"name":"x","version":"2.0.0","license":"MIT","dependencies":{"a":"1"}}}}`,
		"yarn.lock":         "a@1:\n  version \"1.0.0\"\n",
		".npmrc":            "registry=https://evil.example\n//evil.example/:_authToken=x\nignore-scripts=false\nlegacy-peer-deps = true\nnode-options=--require=/x\nhoist-pattern[]=${HOME}\nscript-shell=/x\rstrict-ssl=false\rhoist=true\rhttps-proxy=http://evil.example\n",
		".yarnrc.yml":       "yarnPath: evil.js\n", ".pnpmfile.cjs": "evil", "index.js": "",
	}
	m := found(t, Registries{}, Options{}, files)
	if m.Lock != "package-lock.json" || m.Runtime != "20" || !strings.Contains(m.Note, "yarn.lock") {
		t.Errorf("manifest %+v", m)
	}
	if rc := string(m.Files[".npmrc"]); rc != "legacy-peer-deps=true\nhoist=true\n" {
		t.Errorf(".npmrc is %q", rc)
	}
	if p := string(m.Files["package.json"]); strings.Contains(p, "evil") || strings.Contains(p, "2.0.0") || !strings.Contains(p, "overrides") {
		t.Errorf("package.json is %s", p)
	}
	for name := range m.Files {
		if name != "package.json" && name != "package-lock.json" && name != ".npmrc" {
			t.Errorf("%s is read", name)
		}
	}
	for from, to := range map[string]string{`"name":"x","version":"2.0.0"`: `"name":"y"`} {
		files["package.json"] = strings.ReplaceAll(files["package.json"], from, to)
		files["package-lock.json"] = strings.ReplaceAll(files["package-lock.json"], from, to)
	}
	other := found(t, Registries{}, Options{}, files)
	for _, name := range []string{"package.json", "package-lock.json"} {
		if string(other.Files[name]) != string(m.Files[name]) {
			t.Errorf("%s differs by the project's name:\n%s\n%s", name, other.Files[name], m.Files[name])
		}
	}
	files["package.json"] = `{"packageManager":"yarn@1.22.22","dependencies":{"a":"1"}}`
	if m := found(t, Registries{}, Options{}, files); m.Lock != "yarn.lock" {
		t.Errorf("packageManager asks for yarn, and %s is taken", m.Lock)
	}
}

func TestCredentialsAreWrittenAsToolsReadThem(t *testing.T) {
	a := npm{Tools{Registries: Registries{NPM: NPMRegistry{
		Registry: "https://me:pass@packages.example/npm", Scopes: []string{"@a=https://a.example/x#token-a", "@b=https://b.example"},
	}}}}.access()
	want := "\nregistry=https://packages.example/npm/\n//packages.example/npm/:_auth=bWU6cGFzcw==\n" +
		"\n@a:registry=https://a.example/x/\n//a.example/x/:_authToken=token-a\n\n@b:registry=https://b.example/\n"
	if got := string(a.Files["npmrc"]); got != want {
		t.Errorf("npmrc is\n%s\nwant\n%s", got, want)
	}
	for _, want := range []string{"npmAuthIdent: \"me:pass\"\n", "npmScopes:\n  \"a\":\n    npmRegistryServer: \"https://a.example/x\"\n    npmAuthToken: \"token-a\"\n", "  \"b\":\n"} {
		if got := string(a.Files["yarnrc.yml"]); !strings.Contains(got, want) {
			t.Errorf("yarnrc.yml is\n%s\nwant in it\n%s", got, want)
		}
	}
	if files := (npm{}).access().Files; files["npmrc"] != nil {
		t.Errorf("without a registry there is %q", files["npmrc"])
	}
}

func TestPackageOfAFile(t *testing.T) {
	for file, want := range map[string]string{
		"a/index.js": "a", "@s/a/lib/x.js": "@s/a", "a/node_modules/b/x.js": "a/node_modules/b", "a/node_modules/@s/b/x.js": "a/node_modules/@s/b",
		".bin/a": "", ".package-lock.json": "", ".pnpm/a@1/node_modules/a/x.js": ".pnpm/a@1/node_modules/a", "a/node_modules/.bin/x": "", "a/my_node_modules/x.js": "a",
	} {
		if got := packageDir(file); got != want {
			t.Errorf("%s is of %q, want %q", file, got, want)
		}
	}
}

// TestPackagesComeFromRegistriesAndTarballsAlone: Yarn runs what exec: names while it fetches, where the
// credentials of registries are; a tarball of the code may be a script.
func TestPackagesComeFromRegistriesAndTarballsAlone(t *testing.T) {
	berry := func(resolution string) string {
		return "# by yarn\n\n__metadata:\n  version: 8\n  cacheKey: 10c0\n\n\"b@x\":\n  version: 1.0.0\n  resolution: \"" + resolution + "\"\n  checksum: 10c0/de2e\n  languageName: node\n  linkType: hard\n"
	}
	const plain = `{"dependencies":{"b":"1.0.0"}}`
	for name, c := range map[string]struct {
		files map[string]string
		fine  bool
	}{
		"exec":                        {files: map[string]string{"package.json": `{"dependencies":{"b":"exec:./gen.tgz"}}`}},
		"exec, in the lock alone":     {files: map[string]string{"package.json": `{"dependencies":{"b":"1"},"resolutions":{"b":"exec:./gen.tgz"}}`, "yarn.lock": berry("b@exec:./gen.tgz#./gen.tgz::hash=ed8e70&locator=f%40workspace%3A.")}},
		"a directory, by Yarn":        {files: map[string]string{"package.json": plain, "yarn.lock": berry("b@file:/access#/access::hash=1&locator=f")}},
		"a tarball, by Yarn":          {files: map[string]string{"package.json": plain, "yarn.lock": berry("b@file:./gen.tgz#./gen.tgz::hash=1&locator=f")}, fine: true},
		"a directory, by Yarn 1":      {files: map[string]string{"package.json": plain, "yarn.lock": "# yarn lockfile v1\n\n\n\"b@1\", \"b@file:/access\":\n  version \"0.0.0\"\n"}},
		"a scoped one, by Yarn 1":     {files: map[string]string{"package.json": plain, "yarn.lock": "# yarn lockfile v1\n\n\n\"@a/b@file:../access\":\n  version \"0.0.0\"\n"}},
		"a path, by Yarn 1":           {files: map[string]string{"package.json": plain, "yarn.lock": "# yarn lockfile v1\n\n\nb@/access:\n  version \"0.0.0\"\n"}},
		"a package, by Yarn 1":        {files: map[string]string{"package.json": plain, "yarn.lock": "# yarn lockfile v1\n\n\n\"@a/b@^1.0.0\", \"@a/b@npm:c@2\":\n  version \"1.0.0\"\n  resolved \"https://registry.yarnpkg.com/b.tgz#1\"\n"}, fine: true},
		"a directory, by pnpm":        {files: map[string]string{"package.json": plain, "pnpm-lock.yaml": "lockfileVersion: '9.0'\npackages:\n\n  b@file:/access:\n    resolution: {directory: /access, type: directory}\n    dev: true\n"}},
		"a patch":                     {files: map[string]string{"package.json": plain, "yarn.lock": berry("b@patch:b@npm%3A1.0.0#./b.patch::hash=1&builtin<compat/x>")}},
		"a patch of Yarn's own":       {files: map[string]string{"package.json": plain, "yarn.lock": berry("b@patch:b@npm%3A1.0.0#optional!builtin<compat/resolve>::version=1.0.0&hash=c3c19d")}, fine: true},
		"git behind a tarball's name": {files: map[string]string{"package.json": `{"dependencies":{"b":"git+https://x.example/b.tgz"}}`}},
		"a script of npm's lock":      {files: map[string]string{"package.json": plain, "package-lock.json": `{"lockfileVersion":3,"packages":{"":{},"node_modules/b":{"version":"1.0.0","resolved":"exec:./b.js"}}}`}},
		"another name of npm's":       {files: map[string]string{"package.json": `{"dependencies":{"b":"npm:c@1.0.0"}}`}, fine: true},
		"an address":                  {files: map[string]string{"package.json": `{"dependencies":{"b":"https://x.example/b.tgz"}}`}, fine: true},
	} {
		tree := fstest.MapFS{"gen.tgz": &fstest.MapFile{Data: []byte("x")}}
		for f, text := range c.files {
			tree[f] = &fstest.MapFile{Data: []byte(text)}
		}
		_, err := newNPM(Tools{}).Find(tree, &runtimes.Plan{Runtime: runtimes.Node, Version: "20.1.2"}, Options{})
		if (err == nil) != c.fine {
			t.Errorf("%s: %v; want it taken: %t", name, err, c.fine)
		}
	}
	for name, integrity := range map[string]string{"none": "", "one that is none": "sha512-!", "an unknown one": "crc32-AAAA"} {
		lock := `{"lockfileVersion":3,"packages":{"":{},"node_modules/b":{"version":"1.0.0","integrity":"` + integrity + `"}}}`
		_, err := newNPM(Tools{}).Find(fstest.MapFS{"package.json": {Data: []byte(plain)}, "package-lock.json": {Data: []byte(lock)}},
			&runtimes.Plan{Runtime: runtimes.Node, Version: "20.1.2"}, Options{Strict: true})
		if err == nil || !strings.Contains(err.Error(), "without a hash") {
			t.Errorf("a hash is demanded, and there is %s: %v", name, err)
		}
	}
}
