package install

import (
	"archive/zip"
	"bytes"
	"context"
	_ "embed"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"

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

// pom is what counts of a pom.xml here.
type pom struct {
	text     []byte
	cuts     [][2]int64 // of text: what does not
	needs    bool       // it depends on something, or may by its parent
	build    bool       // it says how it is built
	modules  bool
	parent   bool
	provided bool
	deps     int64 // where <dependencies> ends in text; 0: there is none
	end      int64 // where the project ends
	own      map[string][2]int64
	refers   bool // to its own names
}

// readPOM finds the parts of a pom.xml by their places, so that what stays is as it was.
func readPOM(text []byte) (*pom, error) {
	text, err := inUTF8(text)
	if err != nil {
		return nil, err
	}
	p := &pom{text: text, own: map[string][2]int64{}}
	p.refers = bytes.Contains(text, []byte("${project.")) || bytes.Contains(text, []byte("${pom.")) || bytes.Contains(text, []byte("${version}"))
	d := xml.NewDecoder(bytes.NewReader(text))
	var at []string
	var begins []int64
	for {
		before := d.InputOffset()
		t, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, faas.Errorf(faas.Invalid, op, "pom.xml: %v", err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			at, begins = append(at, t.Name.Local), append(begins, before)
		case xml.CharData:
			if strings.Join(at, "/") == "project/dependencies/dependency/scope" && strings.TrimSpace(string(t)) == "provided" {
				p.provided = true
			}
		case xml.EndElement:
			if len(at) == 0 {
				break // the decoder says so
			}
			begin, after := begins[len(begins)-1], d.InputOffset()
			p.element(strings.Join(at, "/"), begin, before, after)
			at, begins = at[:len(at)-1], begins[:len(begins)-1]
		}
	}
	if p.end == 0 {
		return nil, faas.Errorf(faas.Invalid, op, "pom.xml has no project")
	}
	return p, nil
}

// element is told of each element when it ends: where it begins, where its end tag begins and ends.
func (p *pom) element(name string, begin, inner, after int64) {
	switch name {
	case "project":
		p.end = inner
	case "project/build", "project/profiles/profile/build":
		p.build = p.build || bytes.Contains(p.text[begin:after], []byte("<plugin>"))
		p.cuts = append(p.cuts, [2]int64{begin, after})
	case "project/reporting", "project/profiles/profile/reporting", "project/distributionManagement", "project/profiles/profile/distributionManagement",
		"project/name", "project/description", "project/url", "project/licenses", "project/developers", "project/contributors", "project/scm",
		"project/issueManagement", "project/ciManagement", "project/inceptionYear", "project/organization", "project/mailingLists", "project/packaging":
		p.cuts = append(p.cuts, [2]int64{begin, after})
	case "project/modules/module":
		p.modules = true
	case "project/parent":
		p.parent, p.needs = true, true
	case "project/dependencies/dependency", "project/profiles/profile/dependencies/dependency":
		p.needs = true
	case "project/dependencies":
		p.deps = inner
	case "project/artifactId", "project/version":
		p.own[path.Base(name)] = [2]int64{begin, after}
	}
}

// add returns the pom less what does not count, with other artifacts besides. A project that does
// not refer to its own names loses them, so that functions with the same dependencies share a layer.
func (p *pom) add(with []string) ([]byte, error) {
	var more strings.Builder
	for _, c := range with {
		f := strings.Split(c, ":")
		fmt.Fprintf(&more, "<dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version></dependency>", f[0], f[1], f[2])
	}
	type edit struct {
		from, to int64
		text     string
	}
	var edits []edit
	for _, c := range p.cuts {
		edits = append(edits, edit{c[0], c[1], ""})
	}
	if !p.refers {
		for tag, at := range p.own {
			edits = append(edits, edit{at[0], at[1], "<" + tag + ">" + map[string]string{"artifactId": "function", "version": "1"}[tag] + "</" + tag + ">"})
		}
	}
	switch {
	case more.Len() == 0:
	case p.deps > 0:
		edits = append(edits, edit{p.deps, p.deps, more.String()})
	default:
		edits = append(edits, edit{p.end, p.end, "<dependencies>" + more.String() + "</dependencies>"})
	}
	var out []byte
	for at := int64(0); ; {
		next := edit{from: int64(len(p.text)), to: -1}
		for _, e := range edits {
			if e.from >= at && e.from < next.from {
				next = e
			}
		}
		out = append(out, p.text[at:next.from]...)
		if next.to < 0 {
			break
		}
		out = append(out, next.text...)
		at = next.to
		edits = drop(edits, next)
	}
	return out, nil
}

func drop[T comparable](all []T, one T) []T {
	for i, e := range all {
		if e == one {
			return append(all[:i:i], all[i+1:]...)
		}
	}
	return all
}

var xmlDeclaration = regexp.MustCompile(`^\s*<\?xml[^>]*?\sencoding\s*=\s*["']([A-Za-z0-9._-]+)["'][^>]*\?>`)

// inUTF8 returns a pom in UTF-8 and without a declaration of another charset: what is cut out of it is
// found by its place, which must be the same for us and for Maven.
func inUTF8(text []byte) ([]byte, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	x := xmlDeclaration.FindSubmatchIndex(text)
	charset := "utf-8"
	if x != nil {
		charset = strings.ToLower(string(text[x[2]:x[3]]))
		text = text[x[1]:]
	}
	switch charset {
	case "utf-8", "us-ascii":
	case "iso-8859-1", "windows-1252":
		wide := make([]rune, len(text))
		for i, c := range text {
			wide[i] = rune(c)
		}
		text = []byte(string(wide))
	default:
		return nil, faas.Errorf(faas.Invalid, op, "pom.xml: the charset %q is not read", charset).WithFix("write it in UTF-8")
	}
	if !utf8.Valid(text) || bytes.Contains(text, []byte("<!DOCTYPE")) {
		return nil, faas.Errorf(faas.Invalid, op, "pom.xml is not UTF-8, or has a document type").WithFix("write it in UTF-8, without <!DOCTYPE>")
	}
	return text, nil
}

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
