package install_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
)

// TestComposerTakesPackagesFromRegistriesAndTheCodeAlone: what a manifest or a lock says of where packages
// are copies no directory of the step's, and runs none of the programs that Composer knows.
func TestComposerTakesPackagesFromRegistriesAndTheCodeAlone(t *testing.T) {
	s, home, dir := withShelf(t, "secret-word")
	publishPHP(t, dir, home.url, politePHP)
	lock := func(dist string) string {
		return `{"packages": [{"name": "x/y", "version": "1.0.0", ` + dist + `, "type": "library"}], "packages-dev": [], "aliases": [], "minimum-stability": "stable", "stability-flags": [], "platform": [], "platform-dev": []}`
	}
	const wants = `{"require": {"x/y": "*"}}`
	repo := func(r string) string { return `{"require": {"x/y": "*"}, "repositories": [` + r + `]}` }
	for name, files := range map[string]map[string]string{
		"a directory, in the lock":           {"composer.json": wants, "composer.lock": lock(`"dist": {"type": "path", "url": "/access", "reference": "1"}`)},
		"where Composer has its settings":    {"composer.json": wants, "composer.lock": lock(`"dist": {"type": "path", "url": "/tmp/composer", "reference": "1"}`)},
		"a file, in the lock":                {"composer.json": wants, "composer.lock": lock(`"dist": {"type": "file", "url": "file:///access/config.json", "reference": "1"}`)},
		"a path without a scheme":            {"composer.json": wants, "composer.lock": lock(`"dist": {"type": "file", "url": "/access/config.json", "reference": "1"}`)},
		"a directory, written twice":         {"composer.json": wants, "composer.lock": lock(`"dist": {"type": "path", "url": "/access", "reference": "1"}, "Dist": {"type": "zip", "url": "https://x.example/y.zip"}`)},
		"a directory, by a package's words":  {"composer.json": repo(`{"type": "package", "package": {"name": "x/y", "version": "1.0.0", "dist": {"type": "path", "url": "/access"}}}`)},
		"the same, by a list of them":        {"composer.json": repo(`{"type": "package", "package": [{"name": "x/y", "version": "1.0.0", "dist": {"type": "path", "url": "/access"}}]}`)},
		"a directory, as a repository":       {"composer.json": repo(`{"type": "path", "url": "/access", "options": {"versions": {"x/y": "1.0"}}}`)},
		"the same, written twice":            {"composer.json": repo(`{"type": "path", "url": "/access", "Type": "vcs", "URL": "https://x.example"}`)},
		"a repository that lies in the code": {"composer.json": repo(`{"type": "path", "url": "./r"}, {"type": "vcs", "url": "./r"}`), "r/HEAD": "ref: refs/heads/main\n", "r/config": "[core]\n\tfsmonitor = /src/x\n"},
		"a program for repositories":         {"composer.json": repo(`{"type": "hg", "url": "https://x.example/y"}`)},
		"another of these, in the lock":      {"composer.json": wants, "composer.lock": lock(`"source": {"type": "hg", "url": "https://x.example/y", "reference": "1"}`)},
	} {
		t.Run(name, func(t *testing.T) {
			res, log, err := s.install(t, files, install.Options{})
			if faas.CodeOf(err) != faas.Invalid {
				t.Errorf("got %v, want it refused as invalid\n%s", err, log)
			}
			if strings.Contains(log, "secret-word") {
				t.Errorf("the log has the password:\n%s", log)
			}
			if res == nil {
				return
			}
			_ = filepath.WalkDir(res.Dir, func(p string, e os.DirEntry, err error) error {
				if err == nil && e.Type().IsRegular() {
					if b, _ := os.ReadFile(p); strings.Contains(string(b), "secret-word") {
						t.Errorf("the layer's %s holds the password", p)
					}
				}
				return err
			})
		})
	}
}
