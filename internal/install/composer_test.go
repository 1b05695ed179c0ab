package install_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/runtimes"
)

// phpPackage is a package to be published for a test.
type phpPackage struct {
	name, version string
	manifest      map[string]any // besides name and version
	files         map[string]string
}

func greeter(version string) phpPackage {
	return phpPackage{"acme/greeter", version,
		map[string]any{"autoload": map[string]any{"psr-4": map[string]string{"Acme\\": "src/"}}, "require": map[string]string{"acme/polite": "^1.0"}},
		map[string]string{"src/Greeter.php": "<?php\nnamespace Acme;\nclass Greeter { const VERSION = '" + version + "'; static function hi($name) { return polite(\"Hello, $name\"); } }\n"}}
}

var politePHP = phpPackage{"acme/polite", "1.0.3", map[string]any{"autoload": map[string]any{"files": []string{"polite.php"}}},
	map[string]string{"polite.php": "<?php\nnamespace Acme;\nfunction polite($text) { return \"$text, please\"; }\n"}}

// publishPHP writes packages and what a repository says of them into dir; at is the address that it is
// served at. It returns what a lock says of each.
func publishPHP(t *testing.T, dir, at string, packages ...phpPackage) map[string]map[string]any {
	t.Helper()
	said, locked := map[string]map[string]any{}, map[string]map[string]any{}
	for _, p := range packages {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		manifest := map[string]any{"name": p.name, "version": p.version}
		for k, v := range p.manifest {
			manifest[k] = v
		}
		text, err := json.Marshal(manifest)
		if err != nil {
			t.Fatal(err)
		}
		files := map[string]string{"composer.json": string(text)}
		for name, text := range p.files {
			files[name] = text
		}
		for name, text := range files {
			if err := w.WriteHeader(&tar.Header{Name: "top/" + name, Mode: 0o644, Size: int64(len(text))}); err != nil {
				t.Fatal(err)
			}
			_, _ = w.Write([]byte(text))
		}
		_ = w.Close()
		file := strings.ReplaceAll(p.name, "/", "-") + "-" + p.version + ".tar"
		if err := os.WriteFile(filepath.Join(dir, file), b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		sum := sha1.Sum(b.Bytes())
		manifest["dist"] = map[string]string{"type": "tar", "url": at + file, "shasum": hex.EncodeToString(sum[:])}
		if said[p.name] == nil {
			said[p.name] = map[string]any{}
		}
		said[p.name][p.version] = manifest
		locked[p.name+" "+p.version] = manifest
	}
	index, err := json.Marshal(map[string]any{"packages": said})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "packages.json"), index, 0o644); err != nil {
		t.Fatal(err)
	}
	return locked
}

func composerLock(t *testing.T, packages ...map[string]any) string {
	t.Helper()
	b, err := json.Marshal(map[string]any{
		"content-hash": "0", "packages": packages, "packages-dev": []any{}, "aliases": []any{}, "minimum-stability": "stable",
		"stability-flags": map[string]any{}, "prefer-stable": false, "prefer-lowest": false, "platform": map[string]any{}, "platform-dev": map[string]any{},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const (
	greetComposer = `{"require": {"php": ">=8.1", "acme/greeter": "^1.0"}, "require-dev": {"acme/nosuch": "^1"}, "autoload": {"psr-4": {"App\\": "src/"}, "files": ["src/help.php"]}}`
	greetApp      = "<?php\nnamespace App;\nclass Shop { static function open() { return \\Acme\\Greeter::hi('Ada') . help(); } }\n"
)

func withShelf(t *testing.T, password string) (*scriptShop, *shelf, string) {
	t.Helper()
	dir := t.TempDir()
	home := newShelf(t, dir, password)
	s := newScriptShop(t, runtimes.PHP, func(c *install.Config) {
		c.Registries.PHP.Repository = home.url
		if password != "" {
			c.Registries.PHP.Repository = strings.Replace(home.url, "http://", "http://user:"+password+"@", 1)
		}
	})
	return s, home, dir
}

// TestComposerInstallsWhatAManifestNames with and without a lock, and calls the function.
func TestComposerInstallsWhatAManifestNames(t *testing.T) {
	s, home, dir := withShelf(t, "")
	locked := publishPHP(t, dir, home.url, greeter("1.1.0"), greeter("1.2.0"), politePHP, phpPackage{"acme/other", "2.0.0", map[string]any{"autoload": map[string]any{"files": []string{"other.php"}}}, map[string]string{"other.php": "<?php const OTHER = 2;\n"}})
	files := map[string]string{
		"composer.json": strings.Replace(greetComposer, `, "require-dev": {"acme/nosuch": "^1"}`, "", 1), "src/Shop.php": greetApp, "src/help.php": "<?php\nnamespace App;\nfunction help() { return '!'; }\n",
		"main.php": "<?php function main() { return [App\\Shop::open(), Acme\\Greeter::VERSION]; }\n",
	}
	res := s.must(t, files, install.Options{})
	if res.Cached || res.Note == "" || len(res.Packages) != 2 || res.Packages[0].Bytes == 0 {
		t.Errorf("first = %+v, want two packages and a word on the lock", res)
	}
	if got := s.call(t, res, "main.php", files); got != `["Hello, Ada, please!","1.2.0"]` {
		t.Errorf("answer = %q", got)
	}
	// Where its own classes are does not make another layer of it.
	files["composer.json"] = strings.Replace(files["composer.json"], `"App\\": "src/"`, `"App\\": ["src/", "more/"]`, 1)
	if again := s.must(t, files, install.Options{}); !again.Cached {
		t.Error("the same was installed twice")
	}
	files["composer.json"], files["composer.lock"] = greetComposer, composerLock(t, locked["acme/greeter 1.1.0"], locked["acme/polite 1.0.3"])
	if got := s.call(t, s.must(t, files, install.Options{}), "main.php", files); got != `["Hello, Ada, please!","1.1.0"]` {
		t.Errorf("answer = %q, want the version of the lock", got)
	}
	with := map[string]string{"main.php": "<?php function main() { return OTHER; }\n"}
	if got := s.call(t, s.must(t, with, install.Options{With: []string{"acme/other:^2.0"}}), "main.php", with); got != "2" {
		t.Errorf("answer = %q", got)
	}
}

// TestComposerTakesWhatTheCodeBrings: directories that the manifest names.
func TestComposerTakesWhatTheCodeBrings(t *testing.T) {
	s, _, dir := withShelf(t, "")
	publishPHP(t, dir, "http://localhost/")
	files := map[string]string{
		"composer.json":              `{"require": {"acme/polite": "*"}, "repositories": [{"type": "path", "url": "packages/*"}]}`,
		"packages/polite/polite.php": politePHP.files["polite.php"], "packages/polite/composer.json": `{"name": "acme/polite", "version": "1.0.3", "autoload": {"files": ["polite.php"]}}`,
		"main.php": "<?php function main() { return Acme\\polite('Yes'); }\n",
	}
	if got := s.call(t, s.must(t, files, install.Options{}), "main.php", files); got != "Yes, please" {
		t.Errorf("answer = %q", got)
	}
	// Only its own classes: a loader, and nothing to be got.
	own := map[string]string{"composer.json": `{"autoload": {"psr-4": {"App\\": "src"}}}`, "src/One.php": "<?php namespace App; class One { const ONE = 1; }", "main.php": "<?php function main() { return App\\One::ONE; }\n"}
	if got := s.call(t, s.must(t, own, install.Options{}), "main.php", own); got != "1" {
		t.Errorf("answer = %q", got)
	}
	for name, files := range map[string]map[string]string{
		"with its packages in vendor": {"composer.json": greetComposer, "vendor/autoload.php": "<?php"},
		"that only wants a PHP":       {"composer.json": `{"require": {"php": ">=8.1"}}`},
	} {
		if res, _, err := s.install(t, files, install.Options{}); res != nil || err != nil {
			t.Errorf("code %s: %+v, %v, want nothing", name, res, err)
		}
	}
}

// TestComposerSaysWhatIsWrong with a manifest, a lock or a repository.
func TestComposerSaysWhatIsWrong(t *testing.T) {
	s, home, dir := withShelf(t, "")
	locked := publishPHP(t, dir, home.url, greeter("1.2.0"), politePHP,
		phpPackage{"acme/heavy", "1.0.0", map[string]any{"require": map[string]string{"ext-nosuch": "*"}}, nil},
		phpPackage{"acme/old", "1.0.0", map[string]any{"require": map[string]string{"php": "<8.0"}}, nil})
	one := func(name, version string) map[string]string {
		return map[string]string{"composer.json": fmt.Sprintf(`{"require": {%q: %q}}`, name, version)}
	}
	none := install.Options{}
	s.refuses(t, one("acme/greeter", "^7.0"), none, faas.Invalid, "acme/greeter", "1.2.0")
	s.refuses(t, one("acme/nosuch", "*"), none, faas.Invalid, "acme/nosuch")
	s.refuses(t, one("acme/heavy", "*"), none, faas.Unavailable, "extension nosuch", "apt-get install php-nosuch")
	s.refuses(t, one("acme/old", "*"), none, faas.Invalid, "wants PHP <8.0", s.rt.Version)
	s.refuses(t, map[string]string{"composer.json": "{"}, none, faas.Invalid, "composer.json")
	s.refuses(t, one("acme/polite", "*"), install.Options{Strict: true}, faas.Invalid, "hashes are demanded")
	s.refuses(t, nil, install.Options{With: []string{"--working-dir=/"}}, faas.Invalid, "names no package")

	lock := func(change func(dist map[string]string)) map[string]string {
		p := map[string]any{}
		for k, v := range locked["acme/polite 1.0.3"] {
			p[k] = v
		}
		dist := map[string]string{}
		for k, v := range p["dist"].(map[string]string) {
			dist[k] = v
		}
		change(dist)
		p["dist"] = dist
		return map[string]string{"composer.json": `{"require": {"acme/polite": "*"}}`, "composer.lock": composerLock(t, p)}
	}
	s.refuses(t, lock(func(d map[string]string) { d["shasum"] = strings.Repeat("5a", 20) }), none, faas.Invalid, "another hash than composer.lock says")
	s.refuses(t, lock(func(d map[string]string) { d["url"] = home.url + "gone.tar" }), none, faas.Invalid, "no longer where composer.lock says")
	s.must(t, lock(func(map[string]string) {}), install.Options{Strict: true})
}

// TestComposerScriptsSeeNoCredentials: they run only when asked for, and after what has them.
func TestComposerScriptsSeeNoCredentials(t *testing.T) {
	s, home, dir := withShelf(t, "secret-word")
	publishPHP(t, dir, home.url, politePHP)
	files := map[string]string{
		"composer.json": `{"require": {"acme/polite": "*"}, "scripts": {"post-install-cmd": "(env; cat /access/* /tmp/composer/*; true) > /deps/ran 2>/dev/null"}}`,
		"main.php":      "<?php function main() { return Acme\\polite('Yes'); }\n",
	}
	res := s.must(t, files, install.Options{})
	if got := s.call(t, res, "main.php", files); got != "Yes, please" {
		t.Errorf("answer = %q", got)
	}
	if _, err := os.Stat(filepath.Join(res.Dir, "ran")); err == nil {
		t.Error("a script ran that nobody asked for")
	}
	res = s.must(t, files, install.Options{Scripts: true})
	if b, err := os.ReadFile(filepath.Join(res.Dir, "ran")); err != nil || !strings.Contains(string(b), "COMPOSER_HOME=") {
		t.Errorf("the script that was asked for left %q, %v", b, err)
	}
	_ = filepath.WalkDir(res.Dir, func(p string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if b, _ := os.ReadFile(p); strings.Contains(string(b), "secret-word") {
				t.Errorf("the layer's %s holds the password", p)
			}
		}
		return err
	})
}

// TestComposerInstallsFromPackagist: Monolog from where everybody gets it.
func TestComposerInstallsFromPackagist(t *testing.T) {
	reachable(t, "Packagist", "https://repo.packagist.org/packages.json")
	s := newScriptShop(t, runtimes.PHP, nil)
	files := map[string]string{"composer.json": `{"require": {"monolog/monolog": "^3.0"}}`, "main.php": "<?php function main() { return Monolog\\Level::Error->getName(); }\n"}
	if got := s.call(t, s.must(t, files, install.Options{}), "main.php", files); got != "ERROR" {
		t.Errorf("answer = %q", got)
	}
}
