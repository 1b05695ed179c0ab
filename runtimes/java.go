package runtimes

import (
	"archive/zip"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	_ "embed"

	"github.com/brasa-dev/brasa/internal/faas"
)

//go:embed java/bootstrap.jar
var javaBootstrap []byte

// JavaBootstrap is where the build of a function finds what its source may name.
const JavaBootstrap = BootDir + "/bootstrap.jar"

// oldestJava is the first version whose class files the bootstrap's own are.
const oldestJava = 17

// javaFlags are for a process that boots ahead of need, lives in little memory and answers at
// once.
var javaFlags = []string{
	// Messages of the virtual machine would come out as lines of the function.
	"-Xlog:disable", "-Xlog:all=off",
	"-XX:+UnlockDiagnosticVMOptions",
	// The archive of the JDK's own classes where it was made for, or its every page becomes this
	// process's own: 6 MB.
	"-XX:ArchiveRelocationMode=0",
	// One collector without threads; a compiler that is quick and has one thread, which stays.
	"-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UseDynamicNumberOfCompilerThreads",
	"-XX:ReservedCodeCacheSize=32m", "-Xms8m", "-XX:NewSize=3m",
	// No files in /tmp, no thread that comes when another process asks.
	"-XX:-UsePerfData", "-XX:+DisableAttachMechanism",
	// What wakes up by the clock does so once a minute instead of several times a second, so that a
	// process at rest is at rest.
	"-XX:GuaranteedSafepointInterval=0", "-XX:AsyncDeflationInterval=60000",
	// Reflection without code made at run time: the handler's call is the only one that matters.
	"-Dsun.reflect.inflationThreshold=2147483647", "-Djdk.reflect.useNativeAccessorOnly=true",
	"-Dfile.encoding=UTF-8",
}

// javaHome is a directory with a Java in it.
type javaHome struct {
	dir      string
	feature  int // 17 of 17.0.15; 0: not said
	compiler bool
}

// findJava finds the newest Java, one with a compiler before those without.
func findJava(ctx context.Context, cfg Config, dir string) (*Runtime, error) {
	why := fmt.Errorf("no java in JAVA_HOME, /usr/lib/jvm or PATH")
	for _, h := range javaHomes(cfg.Java) {
		program := filepath.Join(h.dir, "bin", "java")
		out, err := probe(ctx, program, "-XX:TieredStopAtLevel=1", "--version") // "openjdk 17.0.15 2025-04-15"
		if err != nil {
			why = err
			continue
		}
		words := strings.Fields(string(out))
		if len(words) < 2 {
			why = fmt.Errorf("ask %s for its version: %q", program, clip(string(out)))
			continue
		}
		if feature := javaFeature(words[1]); feature < oldestJava {
			why = fmt.Errorf("%s is Java %s; %d or newer is needed", program, clip(words[1]), oldestJava)
			continue
		}
		if err := unpackJava(dir); err != nil {
			return nil, fmt.Errorf("unpack bootstrap: %w", err)
		}
		rt := &Runtime{
			Version: words[1], Program: program, RootDir: rootOf(h.dir), Style: StyleFrames,
			bootDir: dir, boot: "bootstrap.jar", args: javaFlags,
		}
		if h.compiler {
			rt.Compiler = filepath.Join(h.dir, "bin", "javac")
		}
		rt.Archive = newArchive(rt, javaFeature(words[1]), javaBootstrap)
		return rt, nil
	}
	return nil, why
}

// javaSample is where the bootstrap has the classes that a stem rehearses with.
const javaSample = "sample/"

// unpackJava lays out the bootstrap, and the sample beside it: most functions are classes in a directory,
// and a stem that has loaded one of those does it sooner.
func unpackJava(dir string) error {
	if err := unpackSettled(dir, "bootstrap.jar", javaBootstrap); err != nil {
		return err
	}
	jar, err := zip.NewReader(bytes.NewReader(javaBootstrap), int64(len(javaBootstrap)))
	if err != nil {
		return err
	}
	for _, f := range jar.File {
		name, of := strings.CutPrefix(f.Name, javaSample)
		if !of || path.Ext(name) != ".class" {
			continue
		}
		b, err := fs.ReadFile(jar, f.Name)
		if err != nil {
			return err
		}
		if err := unpackSettled(dir, name, b); err != nil {
			return err
		}
	}
	return nil
}

// javaHomes lists where a Java may be, the best first: what is configured alone, else JAVA_HOME,
// then by whether there is a compiler, then by version.
func javaHomes(configured string) []javaHome {
	var homes []javaHome
	add := func(dir string) {
		real, err := filepath.EvalSymlinks(dir)
		if err != nil || !filepath.IsAbs(real) || !exists(filepath.Join(real, "bin", "java")) ||
			slices.ContainsFunc(homes, func(h javaHome) bool { return h.dir == real }) {
			return
		}
		h := javaHome{dir: real, compiler: exists(filepath.Join(real, "bin", "javac"))}
		release, _ := os.ReadFile(filepath.Join(real, "release"))
		for line := range strings.Lines(string(release)) {
			if v, ok := strings.CutPrefix(line, "JAVA_VERSION="); ok {
				h.feature = javaFeature(strings.Trim(v, "\"\r\n"))
			}
		}
		homes = append(homes, h)
	}
	// A program named java is mostly a link into its home.
	program := func(p string) {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			add(filepath.Dir(filepath.Dir(real)))
		}
	}
	if configured != "" {
		program(configured)
		return homes
	}
	if home := os.Getenv("JAVA_HOME"); home != "" {
		add(home)
	}
	chosen := len(homes)
	for _, pattern := range []string{"/usr/lib/jvm/*", "/opt/java/*", "/opt/jdk*"} {
		found, _ := filepath.Glob(pattern) // the patterns are well formed
		for _, d := range found {
			add(d)
		}
	}
	for _, p := range candidates("", "java") {
		program(p)
	}
	slices.SortStableFunc(homes[chosen:], func(a, b javaHome) int {
		if a.compiler != b.compiler {
			if a.compiler {
				return -1
			}
			return 1
		}
		return cmp.Compare(b.feature, a.feature)
	})
	return homes
}

// javaFeature returns 17 of "17.0.15" and 8 of "1.8.0"; 0 if it is no version.
func javaFeature(version string) int {
	version = strings.TrimPrefix(version, "1.")
	if i := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		version = version[:i]
	}
	n, _ := strconv.Atoi(version)
	return n
}

// javaHeap is how large the heap may grow, in MiB. The rest is for classes, compiled code,
// stacks and buffers, which take 40 MiB of a small function and more of one with many classes.
func javaHeap(memory faas.Bytes) int64 {
	m := int64(memory / faas.MiB)
	return max(min(max(m-96, m/2), m*3/4), 16)
}

// javaCommand returns how Java is started for a memory limit; 0 is the default's.
func (rt *Runtime) javaCommand(memory faas.Bytes) (args, env []string) {
	if memory == 0 {
		memory = faas.DefaultLimits().Memory
	}
	args = append([]string{rt.Program}, rt.args...)
	if flag := rt.Archive.flag(); flag != "" {
		args = append(args, flag)
	}
	args = append(args, fmt.Sprintf("-Xmx%dm", javaHeap(memory)), "-jar", BootDir+"/"+rt.boot)
	// One arena of malloc serves so few threads and keeps no pages for others.
	return args, []string{"MALLOC_ARENA_MAX=1"}
}

// javaStem is how a stem for a revision is started. Java takes the bound of its heap at the
// start only, so functions of the same bound share stems.
func (rt *Runtime) javaStem(rev *faas.Revision) Stem {
	var memory faas.Bytes
	if rev != nil {
		memory = rev.Limits.Memory
	}
	if memory == 0 {
		memory = faas.DefaultLimits().Memory
	}
	s := Stem{Class: fmt.Sprintf("%s-%d", rt.Name, javaHeap(memory))}
	s.Args, s.Env, s.Mounts = rt.Command(&faas.Revision{Limits: faas.Limits{Memory: memory}})
	// It has the time to rehearse a call, which one that is waited for has not.
	s.Args = slices.Insert(s.Args, 1, "-Dbrasa.rehearse=true")
	return s
}

// javaTree looks for source of Java, a build's description of it, or a jar that was unpacked.
func javaTree(tree fs.FS, files []string) (candidate, bool, error) {
	var source, jars []string
	for _, f := range files {
		switch path.Ext(f) {
		case ".java":
			source = append(source, f)
		case ".jar":
			jars = append(jars, f)
		}
	}
	has := func(name string) bool { _, err := fs.Stat(tree, name); return err == nil }
	switch {
	case len(source) == 1:
		return candidate{Java, source[0], source[0] + " is Java by its extension"}, true, nil
	case len(source) > 1:
		return candidate{Java, "", source[0] + " is Java by its extension"}, true, nil
	case has("src/main/java"):
		return candidate{Java, "", "src/main/java says that it is Java"}, true, nil
	case slices.Contains(files, "pom.xml"), slices.Contains(files, "build.gradle"), slices.Contains(files, "build.gradle.kts"):
		return candidate{Java, "", "its build file says that it is Java"}, true, nil
	case len(jars) == 1:
		return candidate{Java, jars[0], jars[0] + " is a jar by its extension"}, true, nil
	case has("META-INF/MANIFEST.MF"):
		return candidate{Java, "", "META-INF/MANIFEST.MF says that it is a jar"}, true, nil
	}
	for _, f := range files {
		if path.Ext(f) == ".class" {
			return candidate{Java, "", f + " is a class of Java by its extension"}, true, nil
		}
	}
	return candidate{}, false, nil
}

// javaLacks names the build file whose dependencies are not in the tree.
func javaLacks(tree fs.FS) string {
	if found, _ := fs.Glob(tree, "lib/*.jar"); len(found) > 0 {
		return ""
	}
	for name, mark := range map[string]string{"pom.xml": "<dependency>", "build.gradle": "implementation", "build.gradle.kts": "implementation"} {
		if b, err := readSmall(tree, name); err == nil && strings.Contains(string(b), mark) {
			return name
		}
	}
	return ""
}
