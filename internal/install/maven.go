package install

import (
	"archive/zip"
	"bytes"
	"context"
	_ "embed"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// maven gets the jars that a pom.xml depends on. Only its dependencies are looked at: what the build
// runs besides, plugins and extensions, is programs of the code's choice, which are given no way to
// the registry and its credentials. The source is compiled against the jars by package deploy.
type maven struct{ tools Tools }

func newMaven(t Tools) Ecosystem { return &maven{t} }

// Name returns "maven".
func (m *maven) Name() string { return "maven" }

const (
	// mavenTarget is where functions find their jars.
	mavenTarget = "/deps"
	// MavenProvided is the directory below it of jars that the source is compiled against, and that
	// are not on the class path of a call.
	MavenProvided = "provided"
	// mavenPlugin is what copies jars: the first version that works with all Mavens from 3.6 on.
	mavenPlugin = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
	// mavenConf is a file at /src.
	mavenConf = ".brasa/m2.conf"
	// mavenParents is a program of ours at /src.
	mavenParents = ".brasa/Parents.java"
	// mavenStore is another.
	mavenStore  = ".brasa/Store.java"
	mavenPublic = "https://repo.maven.apache.org/maven2/"
)

//go:embed maven_parents.java
var parentsProgram []byte

//go:embed maven_store.java
var storeProgram []byte

// Find takes the pom.xml of code that has source, unless lib holds its jars.
func (m *maven) Find(code fs.FS, plan *runtimes.Plan, opt Options) (*Manifest, error) {
	for _, c := range opt.With {
		if !mavenWith.MatchString(c) {
			return nil, faas.Errorf(faas.Invalid, op, "%q names no artifact", clip(c, 120)).WithFix("write group:artifact:version, as in --with com.google.code.gson:gson:2.11.0")
		}
	}
	jars, _ := fs.Glob(code, "lib/*.jar") // the pattern is well formed
	built := path.Ext(plan.Entry) == ".jar" || path.Ext(plan.Entry) == ".class"
	text, err := readSmall(code, "pom.xml")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil || len(jars) > 0 || built {
		if len(opt.With) == 0 {
			return nil, gradleAlone(code, len(jars) > 0 || built)
		}
		text = []byte("<project><modelVersion>4.0.0</modelVersion><groupId>g</groupId><artifactId>function</artifactId><version>1</version></project>")
	}
	pom, err := readPOM(text)
	if err != nil {
		return nil, err
	}
	switch {
	case pom.modules:
		return nil, faas.Errorf(faas.Invalid, op, "pom.xml is of a project of several modules").
			WithFix("deploy the module alone; or build it where the code lies, mvn package, and deploy the jar that has its dependencies in it")
	case !pom.needs && len(opt.With) == 0:
		return nil, nil
	case opt.Strict:
		return nil, faas.Errorf(faas.Invalid, op, "hashes are demanded, and a pom.xml has none").WithFix("bring the jars in lib: mvn dependency:copy-dependencies -DoutputDirectory=lib")
	}
	less, err := pom.add(opt.With)
	if err != nil {
		return nil, err
	}
	man := &Manifest{Files: map[string][]byte{"pom.xml": less}, Runtime: plan.Version}
	if pom.build {
		man.Note = "of pom.xml the dependencies count; its plugins are not run: what they make is made where the code lies, and the jar deployed"
	}
	return man, nil
}

// gradleAlone refuses a build that only Gradle can read.
func gradleAlone(code fs.FS, resolved bool) error {
	if resolved {
		return nil
	}
	for _, name := range []string{"build.gradle", "build.gradle.kts"} {
		text, err := readSmall(code, name)
		if err == nil && gradleDependency.Match(text) {
			return faas.Errorf(faas.Unavailable, op, "%s is a program that says what the code depends on, and Gradle is not run here", name).
				WithFix("build a jar that has its dependencies in it (the plugin com.gradleup.shadow: gradle shadowJar) and deploy build/libs/NAME-all.jar; or copy the jars of runtimeClasspath into lib; or name them with --with group:artifact:version")
		}
	}
	return nil
}

var (
	mavenWith        = regexp.MustCompile(`^[A-Za-z0-9_.-]+:[A-Za-z0-9_.-]+:[A-Za-z0-9_.+-]+$`)
	gradleDependency = regexp.MustCompile(`(?m)^\s*(?:implementation|api|compile|runtimeOnly|compileOnly|annotationProcessor)[\s(]`)
)

// Plan has Maven's plugin for it copy the jars. Maven is begun by its Java, not by its script, whose
// configuration lies where no sandbox sees it.
func (m *maven) Plan(_ context.Context, man *Manifest, _ Options) (*Job, error) {
	rt, err := m.tools.Runtimes.Lookup(runtimes.Java)
	if err != nil {
		return nil, err
	}
	home, launcher := mavenHome()
	if home == "" {
		return nil, faas.Errorf(faas.Unavailable, op, "this host has no Maven, which gets what pom.xml depends on").
			WithFix("install it on the host: apt-get install maven; or bring the jars in lib: mvn dependency:copy-dependencies -DoutputDirectory=lib")
	}
	r := m.tools.Registries
	job := &Job{
		Tool: "maven " + mavenVersion(home) + ", " + mavenPlugin[strings.IndexByte(mavenPlugin, ':')+1:], Target: mavenTarget, Packages: mavenPackages,
		Files: map[string][]byte{mavenConf: []byte("main is org.apache.maven.cli.MavenCli from plexus.core\n\n[plexus.core]\noptionally ${maven.home}/lib/ext/*.jar\nload ${maven.home}/lib/*.jar\n")},
	}
	seen := home
	if !strings.HasPrefix(home, "/usr/") {
		seen = ToolDir + "/maven"
		job.Mounts = append(job.Mounts, sandbox.Mount{Source: home, Target: seen})
	}
	args := []string{
		rt.Program, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Xshare:auto", "-classpath", seen + "/boot/" + launcher,
		"-Dclassworlds.conf=" + SourceDir + "/" + mavenConf, "-Dmaven.home=" + seen, "-Dmaven.conf=" + SourceDir + "/.brasa", "-Dmaven.multiModuleProjectDirectory=" + WorkDir,
		"-Duser.home=" + WorkDir, "-Dorg.slf4j.simpleLogger.showThreadName=false", "-Dorg.slf4j.simpleLogger.showLogName=false", "-Dorg.slf4j.simpleLogger.showDateTime=false",
		"-Dstyle.color=never", "-Djava.awt.headless=true",
	}
	run := func(name, scope, dir string, network bool) {
		step := JobStep{Name: name, Dir: WorkDir, Network: network}
		step.Args = append([]string{}, args...)
		if network {
			step.Args = append(step.Args, trust(job, r)...)
		}
		step.Args = append(step.Args, "org.codehaus.plexus.classworlds.launcher.Launcher",
			"-B", "-ntp", "-C", "-f", SourceDir+"/pom.xml", "-Dmaven.repo.local="+WorkDir+"/m2")
		switch {
		case !network:
			step.Args = append(step.Args, "-o")
		case r.Maven.Mirror != "":
			step.Args = append(step.Args, "-s", AccessDir+"/settings.xml")
		}
		step.Args = append(step.Args, mavenPlugin+":copy-dependencies", "-DoutputDirectory="+dir, "-DincludeScope="+scope, "-Dmdep.prependGroupId=true")
		job.Steps = append(job.Steps, step)
	}
	if r.Maven.Mirror != "" {
		job.Origin = redact(r.Maven.Mirror)
		if job.Access.Files == nil {
			job.Access.Files = map[string][]byte{}
		}
		job.Access.Files["settings.xml"] = mavenMirror(r.Maven)
	}
	p, err := readPOM(man.Files["pom.xml"])
	if err == nil && p.parent {
		job.Files[mavenParents] = parentsProgram
		look := []string{rt.Program, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Djava.awt.headless=true"}
		look = append(look, trust(job, r)...)
		look = append(look, SourceDir+"/"+mavenParents, SourceDir+"/pom.xml", WorkDir+"/m2", AccessDir+"/settings.xml", mavenPublic)
		job.Steps = append(job.Steps, JobStep{Name: "look at the parents of pom.xml", Dir: WorkDir, Network: true, Args: look})
	}
	run("download", "runtime", mavenTarget, true)
	if err == nil && p.provided {
		run("download what is provided", "provided", mavenTarget+"/"+MavenProvided, true)
	}
	if rt.Compiler != "" {
		job.Files[mavenStore] = storeProgram
		job.Steps = append(job.Steps, JobStep{Name: "lay out classes uncompressed", Dir: WorkDir, Args: []string{
			rt.Program, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData", SourceDir + "/" + mavenStore, mavenTarget,
		}})
	}
	return job, nil
}

// trust gives Java the certificates that registries are trusted by, and returns its options for it.
func trust(job *Job, r Registries) []string {
	ca := r.CABundle()
	if ca == nil {
		return nil
	}
	if job.Access.Files == nil {
		job.Access.Files = map[string][]byte{}
	}
	job.Access.Files["trust.jks"] = keyStore(ca)
	return []string{"-Djavax.net.ssl.trustStore=" + AccessDir + "/trust.jks", "-Djavax.net.ssl.trustStoreType=JKS", "-Djavax.net.ssl.trustStorePassword=" + keyStorePassword}
}

// mavenMirror is the settings.xml that has all repositories asked of one.
func mavenMirror(m MavenMirror) []byte {
	var b bytes.Buffer
	text := func(s string) string {
		var e bytes.Buffer
		_ = xml.EscapeText(&e, []byte(s)) // a Buffer takes all
		return e.String()
	}
	fmt.Fprintf(&b, "<settings><mirrors><mirror><id>mirror</id><mirrorOf>*</mirrorOf><url>%s</url></mirror></mirrors>", text(m.Mirror))
	if m.User != "" || m.Password != "" {
		fmt.Fprintf(&b, "<servers><server><id>mirror</id><username>%s</username><password>%s</password></server></servers>", text(m.User), text(m.Password))
	}
	b.WriteString("</settings>\n")
	return b.Bytes()
}

// mavenHome finds a Maven, and the name of what begins it.
func mavenHome() (home, launcher string) {
	try := []string{os.Getenv("MAVEN_HOME"), os.Getenv("M2_HOME")}
	for _, dir := range append([]string{"/usr/bin", "/usr/local/bin"}, filepath.SplitList(os.Getenv("PATH"))...) {
		if real, err := filepath.EvalSymlinks(filepath.Join(dir, "mvn")); err == nil {
			try = append(try, filepath.Dir(filepath.Dir(real)))
		}
	}
	for _, dir := range append(try, "/usr/share/maven") {
		if dir == "" || !filepath.IsAbs(dir) {
			continue
		}
		found, _ := filepath.Glob(filepath.Join(dir, "boot", "plexus-classworlds*.jar")) // the pattern is well formed
		if len(found) > 0 {
			return dir, filepath.Base(found[0])
		}
	}
	return "", ""
}

// mavenVersion reads it from the jar of its core; "" if that does not say.
func mavenVersion(home string) string {
	found, _ := filepath.Glob(filepath.Join(home, "lib", "maven-core*.jar")) // the pattern is well formed
	for _, jar := range found {
		z, err := zip.OpenReader(jar)
		if err != nil {
			continue
		}
		b, err := fs.ReadFile(z, "META-INF/maven/org.apache.maven/maven-core/pom.properties")
		_ = z.Close() // only read
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(line), "version="); ok {
				return v
			}
		}
	}
	return ""
}

// mavenPackages lists the jars.
func mavenPackages(dir string) ([]Package, error) {
	var all []Package
	for _, pattern := range []string{"*.jar", MavenProvided + "/*.jar"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			info, err := os.Lstat(f)
			if err != nil {
				return nil, err
			}
			p := Package{Name: strings.TrimSuffix(filepath.Base(f), ".jar"), Bytes: faas.Bytes(info.Size())}
			if at := jarVersion.FindStringIndex(p.Name); at != nil {
				p.Name, p.Version = p.Name[:at[0]], p.Name[at[0]+1:]
			}
			all = append(all, p)
		}
	}
	return all, nil
}

var jarVersion = regexp.MustCompile(`-\d`)
