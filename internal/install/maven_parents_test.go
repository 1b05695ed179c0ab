package install_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/runtimes"
)

// TestAParentBringsNoProgramsAlong: Maven would load its extensions beside the registry's password.
func TestAParentBringsNoProgramsAlong(t *testing.T) {
	if _, err := exec.LookPath("mvn"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	parent := func(name, above, rest string) {
		t.Helper()
		at := filepath.Join(dir, "org", "x", name, "1")
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		if above != "" {
			above = "<parent><groupId>org.x</groupId><artifactId>" + above + "</artifactId><version>1</version></parent>"
		}
		text := "<project><modelVersion>4.0.0</modelVersion>" + above + "<groupId>org.x</groupId><artifactId>" + name + "</artifactId><version>1</version><packaging>pom</packaging>" + rest + "</project>"
		if err := os.WriteFile(filepath.Join(at, name+"-1.pom"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const plugin = "<plugin><groupId>org.y</groupId><artifactId>z</artifactId>"
	parent("extends", "", "<build><extensions><extension><groupId>org.y</groupId><artifactId>evil</artifactId><version>1</version></extension></extensions></build>")
	parent("above", "extends", "")
	parent("manages", "", "<build><pluginManagement><plugins>"+plugin+"<extensions>${yes}</extensions></plugin></plugins></pluginManagement></build>")
	parent("lists", "manages", "<build><plugins>"+plugin+"</plugin></plugins></build>")
	parent("changes", "", "<build><pluginManagement><plugins><plugin><artifactId>maven-dependency-plugin</artifactId><dependencies><dependency><groupId>org.y</groupId></dependency></dependencies></plugin></plugins></pluginManagement></build>")
	home := newShelf(t, dir, "secret-word")
	s := newScriptShop(t, runtimes.Java, func(c *install.Config) {
		c.Registries.Maven = install.MavenMirror{Mirror: home.url, User: "user", Password: "secret-word"}
	})
	pom := func(name string) map[string]string {
		return map[string]string{"A.java": "class A {}", "pom.xml": "<project><modelVersion>4.0.0</modelVersion><parent><groupId>org.x</groupId><artifactId>" + name + "</artifactId><version>1</version></parent><artifactId>a</artifactId></project>"}
	}
	for _, name := range []string{"above", "lists", "changes"} {
		s.refuses(t, pom(name), install.Options{}, faas.Invalid, "org.x:", "extensions", "not run")
	}
	s.refuses(t, pom("absent"), install.Options{}, faas.Invalid, "no registry has the parent org.x:absent:1")
	if home.times("/org/y/evil/1/evil-1.pom")+home.times("/org/y/z/maven-metadata.xml") > 0 {
		t.Errorf("an extension was asked for: %q", home.asked)
	}
	// One that brings none is looked at by Maven, which wants its plugin next.
	if _, log, err := s.install(t, pom("manages"), install.Options{}); err == nil || strings.Contains(err.Error(), "extensions of Maven") || !strings.Contains(log, "maven-dependency-plugin") {
		t.Errorf("a parent that does no harm: %v\n%s", err, log)
	}
}
