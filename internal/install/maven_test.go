package install

import (
	"bytes"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

const aPOM = `<?xml version="1.0" encoding="UTF-8"?>
<!-- ours -->
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>com.example</groupId><artifactId>pay</artifactId><version>1.2</version>
  <packaging>bundle</packaging>
  <dependencies>
    <dependency><groupId>com.google.code.gson</groupId><artifactId>gson</artifactId><version>2.11.0</version></dependency>
  </dependencies>
  <build><extensions><extension><artifactId>evil</artifactId></extension></extensions><plugins><plugin/></plugins></build>
  <profiles><profile><id>p</id><build><plugins><plugin><artifactId>evil</artifactId></plugin></plugins></build></profile></profiles>
</project>
`

func TestMavenSeesDependenciesAlone(t *testing.T) {
	m := &maven{}
	find := func(pom string, with ...string) string {
		t.Helper()
		man, err := m.Find(fstest.MapFS{"pom.xml": {Data: []byte(pom)}}, &runtimes.Plan{}, Options{With: with})
		if err != nil {
			t.Fatal(err)
		}
		return string(man.Files["pom.xml"])
	}
	text := find(aPOM)
	if strings.Contains(text, "evil") || strings.Contains(text, "bundle") || !strings.Contains(text, "<artifactId>gson</artifactId><version>2.11.0</version>") {
		t.Errorf("Maven sees\n%s", text)
	}
	// In another charset its parts are where they are all the same.
	old := strings.Replace(strings.Replace(aPOM, "UTF-8", "ISO-8859-1", 1), "<!-- ours -->", "<!-- "+strings.Repeat("\xe9", 400)+" -->", 1)
	if text := find(old); strings.Contains(text, "evil") || !strings.Contains(text, "gson") || strings.Contains(text, "8859") {
		t.Errorf("of a pom in ISO-8859-1 Maven sees\n%s", text)
	}
	// What it is called decides nothing, unless it speaks of itself.
	if other := find(strings.Replace(aPOM, ">pay<", ">other<", 1)); other != text {
		t.Errorf("another name makes another layer:\n%s", other)
	}
	if own := find(strings.Replace(aPOM, "2.11.0", "${project.version}", 1)); !strings.Contains(own, ">pay<") || !strings.Contains(own, ">1.2<") {
		t.Errorf("a project that refers to itself lost its name:\n%s", own)
	}
	if more := find(aPOM, "org.x:y:1"); !strings.Contains(more, "<artifactId>y</artifactId>") {
		t.Errorf("with another:\n%s", more)
	}
	if alone := find("<project><modelVersion>4.0.0</modelVersion></project>", "org.x:y:1"); !strings.HasSuffix(alone, "<dependencies><dependency><groupId>org.x</groupId><artifactId>y</artifactId><version>1</version></dependency></dependencies></project>") {
		t.Errorf("with one alone:\n%s", alone)
	}
}

func TestMavenFindsNothingOrSaysWhy(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		plan  runtimes.Plan
		opt   Options
		code  faas.Code
		words string
	}{
		"no dependency": {map[string]string{"pom.xml": "<project><artifactId>a</artifactId></project>"}, runtimes.Plan{}, Options{}, faas.OK, ""},
		"jars in lib":   {map[string]string{"pom.xml": aPOM, "lib/gson.jar": ""}, runtimes.Plan{}, Options{}, faas.OK, ""},
		"a jar":         {map[string]string{"pom.xml": aPOM, "app.jar": ""}, runtimes.Plan{Entry: "app.jar"}, Options{}, faas.OK, ""},
		"no build file": {map[string]string{"Main.java": ""}, runtimes.Plan{}, Options{}, faas.OK, ""},
		"gradle alone":  {map[string]string{"build.gradle": "plugins {}\n"}, runtimes.Plan{}, Options{}, faas.OK, ""},
		"gradle":        {map[string]string{"build.gradle.kts": "dependencies {\n    implementation(\"a:b:1\")\n}\n"}, runtimes.Plan{}, Options{}, faas.Unavailable, "shadowJar"},
		"modules":       {map[string]string{"pom.xml": "<project><modules><module>a</module></modules></project>"}, runtimes.Plan{}, Options{}, faas.Invalid, "several modules"},
		"no xml":        {map[string]string{"pom.xml": "<project><a></project>"}, runtimes.Plan{}, Options{}, faas.Invalid, "pom.xml:"},
		"no project":    {map[string]string{"pom.xml": "<settings/>"}, runtimes.Plan{}, Options{}, faas.Invalid, "no project"},
		"strict":        {map[string]string{"pom.xml": aPOM}, runtimes.Plan{}, Options{Strict: true}, faas.Invalid, "hashes are demanded"},
		"no artifact":   {map[string]string{"pom.xml": aPOM}, runtimes.Plan{}, Options{With: []string{"-Dx=y"}}, faas.Invalid, "names no artifact"},
	} {
		t.Run(name, func(t *testing.T) {
			tree := fstest.MapFS{}
			for n, text := range c.files {
				tree[n] = &fstest.MapFile{Data: []byte(text)}
			}
			man, err := (&maven{}).Find(tree, &c.plan, c.opt)
			if c.code == faas.OK {
				if man != nil || err != nil {
					t.Errorf("found %v, %v", man, err)
				}
				return
			}
			if e := faas.AsError(err); e == nil || e.Code != c.code || !strings.Contains(e.Message()+e.Fix, c.words) {
				t.Errorf("error %v; want %v with %q", err, c.code, c.words)
			}
		})
	}
}

func TestMavenExplains(t *testing.T) {
	explained(t, &maven{}, "", map[string]said{
		"no version": {"ERROR Failed to execute goal on project function: Could not resolve dependencies for project g:function:jar:1: Could not find artifact org.apache.commons:commons-lang3:jar:99.0 in central (https://repo.maven.apache.org/maven2) -> [Help 1]\n", faas.Invalid, []string{"org.apache.commons:commons-lang3", "99.0"}},
		"hash":       {"ERROR Could not transfer artifact a.b:c:jar:1.0 from/to central (https://x): Checksum validation failed, expected 00 but is 11\n", faas.Invalid, []string{"a.b:c", "another hash"}},
		"login":      {"ERROR Could not transfer artifact a.b:c:pom:1.0 from/to mirror (https://x): status code: 401, reason phrase: Unauthorized (401)\n", faas.Unavailable, []string{"registries.maven.user"}},
		"unnumbered": {"[ERROR] 'dependencies.dependency.version' for a.b:c:jar is missing. @ line 3\n", faas.Invalid, []string{"a.b:c", "<version>"}},
		"parent":     {"[FATAL] Non-resolvable parent POM for g:a:1: Could not find artifact g:parent:pom:1 in central (https://x) and 'parent.relativePath' points at wrong local POM\n", faas.Invalid, []string{"g:parent:pom:1"}},
	})
}

// Java reads the key store that is made without it.
func TestKeyStoreIsReadByJava(t *testing.T) {
	bundle := (Registries{}).CABundle()
	if bundle == nil {
		t.Skip("this host has no bundle of certificates")
	}
	keytool, err := exec.LookPath("keytool")
	if err != nil {
		t.Skip("there is no keytool, which belongs to Java")
	}
	certs := 0
	for rest := bundle; ; certs++ {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
	}
	file := filepath.Join(t.TempDir(), "trust.jks")
	if err := os.WriteFile(file, keyStore(bundle), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(keytool, "-list", "-storetype", "JKS", "-keystore", file, "-storepass", keyStorePassword).CombinedOutput()
	if err != nil || bytes.Count(out, []byte("trustedCertEntry")) != certs {
		t.Errorf("%v; want %d certificates:\n%.1000s", err, certs, out)
	}
}
