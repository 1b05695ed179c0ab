package java

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Options say what a person said of their code.
type Options struct {
	Entry   string   // source or class file; empty: found
	Handler string   // "method", "pkg.Class::method" or "pkg.Class"; empty: found
	Javac   string   // the compiler as the build sees it; empty: "javac"
	Boot    string   // the bootstrap's jar as the build sees it
	Lib     string   // the code's directory of jars, lib, as the build sees it
	Deps    []string // directories of jars that were installed for the code, as the build sees them
	Version string   // of the compiler
	Process bool     // annotation processors among them are run
	Output  string   // the directory for classes as the build sees it
}

// Build says how to compile what Generate made.
type Build struct {
	Args []string // the command
	Lib  bool     // the code brings jars in lib
}

const op = "build java function"

// argFile is javac's list of files: a command line could be too short for it.
const argFile = "javac.files"

// Handlers are the names that are looked for when none is given, in this order.
var Handlers = []string{"main", "handle", "handler"}

// usual are names of the class that is meant if several could be.
var usual = []string{"Main", "Handler", "Function", "App"}

// roots are the directories in which source and resources lie, apart from the top.
var roots = []string{"src/main/java", "src/main/resources"}

var publicType = regexp.MustCompile(`(?m)^\s*public\s+(?:(?:final|abstract|sealed|non-sealed|strictfp)\s+)*(?:class|record|enum|interface)\s+([A-Za-z_$][\w$]*)`)

// HasSource says whether a tree holds Java source.
func HasSource(tree fs.FS) (bool, error) {
	files, err := sources(tree)
	return len(files) > 0, err
}

// sources lists a tree's source files, but not its tests.
func sources(tree fs.FS) ([]string, error) {
	var files []string
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || name == "src/test" || name == "target" || name == "build" || name == "lib") {
			return fs.SkipDir
		}
		if d.Type().IsRegular() && path.Ext(name) == ".java" && d.Name() != "module-info.java" {
			files = append(files, name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read source: %w", err)
	}
	return files, nil
}

// Generate copies the source files of the directory src into dst, which must be empty, with
// the compiler's list of them. A fault of the source is faas.Invalid.
func Generate(src, dst string, o Options) (*Build, error) {
	// The source is a stranger's and this runs with the server's rights: what is read and written
	// stays below src and dst whatever links there are.
	in, err := os.OpenRoot(src)
	if err != nil {
		return nil, fmt.Errorf("read source: %w", err)
	}
	defer in.Close()
	out, err := os.OpenRoot(dst)
	if err != nil {
		return nil, fmt.Errorf("copy source: %w", err)
	}
	defer out.Close()
	files, err := sources(in.FS())
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, faas.Errorf(faas.Invalid, op, "the code has no .java file")
	}
	var list strings.Builder
	for _, name := range files {
		b, err := in.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read source: %w", err)
		}
		if strings.ContainsAny(name, "\"\\\n\r") {
			return nil, faas.Errorf(faas.Invalid, op, "the file's name %q cannot be given to javac", name)
		}
		to := name
		// Code from a clipboard or standard input has no name of its own.
		if m := publicType.FindSubmatch(b); len(files) == 1 && m != nil {
			to = path.Join(path.Dir(name), string(m[1])+".java")
		}
		if err := out.MkdirAll(path.Dir(to), 0o755); err != nil {
			return nil, fmt.Errorf("copy source: %w", err)
		}
		if err := out.WriteFile(to, b, 0o644); err != nil {
			return nil, fmt.Errorf("copy source: %w", err)
		}
		fmt.Fprintf(&list, "\"%s\"\n", to)
	}
	if err := out.WriteFile(argFile, []byte(list.String()), 0o644); err != nil {
		return nil, fmt.Errorf("copy source: %w", err)
	}
	build := &Build{}
	classPath := o.Boot
	if info, err := in.Stat("lib"); err == nil && info.IsDir() {
		build.Lib = true
		classPath += ":" + o.Lib + "/*"
	}
	for _, dir := range o.Deps {
		classPath += ":" + dir + "/*"
	}
	if o.Javac == "" {
		o.Javac = "javac"
	}
	// Text is put together by StringBuilder: through invokedynamic the first of each shape costs a
	// cold call a part of a millisecond. Annotation processors are programs of the code's choice, which
	// is what Maven runs too; those of a lib that was put together by hand are not meant.
	processors := "-proc:none"
	if o.Process {
		processors = "-proc:full"
		if major, _, _ := strings.Cut(o.Version, "."); len(major) < 2 || major < "21" { // which do so unless told otherwise
			processors = "-Xlint:-options"
		}
	}
	build.Args = []string{
		o.Javac, "-J-XX:TieredStopAtLevel=1", "-J-XX:+UseSerialGC", "-J-XX:-UsePerfData", "-encoding", "UTF-8", "-g", "-parameters", "-nowarn", processors,
		"-XDstringConcat=inline", "-cp", classPath, "-d", o.Output, "@" + argFile,
	}
	return build, nil
}

// Finish adds to the classes in dst the jars and resources of src, and returns the entry and the
// handler of the function.
func Finish(src, dst string, o Options) (entry, handler string, err error) {
	in, err := os.OpenRoot(src)
	if err != nil {
		return "", "", fmt.Errorf("read source: %w", err)
	}
	defer in.Close()
	out, err := os.OpenRoot(dst)
	if err != nil {
		return "", "", fmt.Errorf("copy resources: %w", err)
	}
	defer out.Close()
	err = fs.WalkDir(in.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || name == "src/test" || name == "target" || name == "build") {
			return fs.SkipDir
		}
		ext := path.Ext(name)
		if !d.Type().IsRegular() || ext == ".java" || ext == ".class" && !strings.HasPrefix(name, "lib/") {
			return nil
		}
		to := name
		for _, root := range roots {
			to = strings.TrimPrefix(to, root+"/")
		}
		if _, err := out.Lstat(to); err == nil {
			return nil
		}
		return copyFile(in, out, name, to)
	})
	if err != nil {
		return "", "", fmt.Errorf("copy resources: %w", err)
	}
	return Settle(out.FS(), o)
}

func copyFile(in, out *os.Root, from, to string) error {
	if err := out.MkdirAll(path.Dir(to), 0o755); err != nil {
		return err
	}
	r, err := in.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := out.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}

// Settle finds the entry and the handler in a tree of classes, or of a jar. The entry is a class
// file or a jar; the handler is as it was given, or the name of a method.
func Settle(tree fs.FS, o Options) (entry, handler string, err error) {
	if path.Ext(o.Entry) == ".jar" {
		return o.Entry, o.Handler, nil // what is in it shows when it is proved
	}
	classes, err := readClasses(tree)
	if err != nil {
		return "", "", err
	}
	named, method := split(o.Handler, classes)
	if named != "" {
		c := classes[classFile(named)]
		if c == nil {
			if inJars(tree) {
				return "", o.Handler, nil
			}
			return "", "", faas.Errorf(faas.Invalid, op, "the code has no class %s; there are %s", named, some(names(classes)))
		}
		if err := check(c, method); err != nil {
			return "", "", err
		}
		return classFile(named), method, nil
	}
	wanted := Handlers
	if method != "" {
		wanted = []string{method}
	}
	if o.Entry != "" {
		file, c := entryClass(o.Entry, classes, wanted)
		if c == nil {
			return "", "", faas.Errorf(faas.Invalid, op, "%s declares no class of that name; there are %s", o.Entry, some(names(classes))).
				WithFix("name the class with --handler CLASS::METHOD")
		}
		if err := check(c, method); err != nil {
			return "", "", err
		}
		return file, method, nil
	}
	if main := manifestMain(tree); main != "" && classes[classFile(main)] != nil {
		if _, ok := classes[classFile(main)].handler(wanted); ok {
			return classFile(main), method, nil
		}
	}
	var have []string
	for file, c := range classes {
		if _, ok := c.handler(wanted); ok && !strings.Contains(c.name, "$") && c.flags&(accInterface|accAbstract) == 0 {
			have = append(have, file)
		}
	}
	slices.Sort(have)
	if len(have) > 1 {
		for _, u := range usual {
			i := slices.IndexFunc(have, func(f string) bool { return strings.TrimSuffix(path.Base(f), ".class") == u })
			if i >= 0 {
				return have[i], method, nil
			}
		}
	}
	switch len(have) {
	case 1:
		return have[0], method, nil
	case 0:
		return "", "", faas.Errorf(faas.Invalid, op, "no class has a method %s that can be a handler; there are %s", strings.Join(wanted, ", "), some(names(classes))).
			WithFix("write public static Object main(Map<String, Object> args), or name the method with --handler CLASS::METHOD")
	}
	first := strings.ReplaceAll(strings.TrimSuffix(have[0], ".class"), "/", ".")
	m, _ := classes[have[0]].handler(wanted)
	return "", "", faas.Errorf(faas.Invalid, op, "several classes have a method that can be the handler: %s", some(have)).
		WithFix("say which, as in --handler %s::%s", first, m)
}

// split cuts a handler into its class and its method.
func split(handler string, classes map[string]*class) (class, method string) {
	h := strings.NewReplacer("::", ".", ":", ".", "#", ".").Replace(handler)
	if h != "" && classes[classFile(h)] != nil {
		return h, ""
	}
	if i := strings.LastIndexByte(h, '.'); i > 0 {
		return h[:i], h[i+1:]
	}
	return "", h
}

// entryClass returns the class that a source or class file is the file of.
func entryClass(entry string, classes map[string]*class, wanted []string) (string, *class) {
	if path.Ext(entry) == ".class" {
		return entry, classes[entry]
	}
	stem := strings.TrimSuffix(entry, ".java")
	var best string
	for file, c := range classes {
		// The longest class name that the path ends with: the file may lie below src/main/java.
		own := strings.TrimSuffix(file, ".class")
		if (stem == own || strings.HasSuffix(stem, "/"+own)) && len(file) > len(best) && c != nil {
			best = file
		}
	}
	if best != "" {
		return best, classes[best]
	}
	for file, c := range classes { // a file with a class of another name
		if _, ok := c.handler(wanted); ok && c.source == path.Base(entry) && (best == "" || file < best) {
			best = file
		}
	}
	if best == "" && len(classes) == 1 { // one that came without a name and was given its class's
		for file := range classes {
			best = file
		}
	}
	return best, classes[best]
}

// check says whether a class has the method, or one of the usual ones if method is empty.
func check(c *class, method string) error {
	wanted := Handlers
	if method != "" {
		wanted = []string{method}
	}
	if _, ok := c.handler(wanted); ok {
		return nil
	}
	if method != "" {
		return nil // it may have it from a class above; the bootstrap says if not
	}
	var there []string
	for _, m := range c.methods {
		if m.name[0] != '<' && m.flags&accSynthetic == 0 {
			there = append(there, m.name)
		}
	}
	e := faas.Errorf(faas.Invalid, op, "%s has none of the methods main, handle or handler; it has %s", c.name, some(there))
	if slices.Contains(there, "main") {
		e = faas.Errorf(faas.Invalid, op, "%s has main(String[]), where a program begins, and no handler", c.name)
	}
	return e.WithFix("write public static Object main(Map<String, Object> args), or name the method with --handler CLASS::METHOD")
}

func readClasses(tree fs.FS) (map[string]*class, error) {
	classes := map[string]*class{}
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (name == "lib" || name == "META-INF/versions") {
			return fs.SkipDir
		}
		if !d.Type().IsRegular() || path.Ext(name) != ".class" {
			return nil
		}
		if info, err := d.Info(); err != nil || info.Size() > maxClass {
			return err
		}
		b, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		c, err := readClass(b)
		if err != nil {
			return faas.Errorf(faas.Invalid, op, "%s: %v", name, err)
		}
		if name == classFile(c.name) { // others can't be loaded from where they lie
			classes[name] = &c
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read classes: %w", err)
	}
	return classes, nil
}

// manifestMain returns the Main-Class of a jar that was unpacked.
func manifestMain(tree fs.FS) string {
	b, err := fs.ReadFile(tree, "META-INF/MANIFEST.MF")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "Main-Class:"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func inJars(tree fs.FS) bool {
	found, _ := fs.Glob(tree, "lib/*.jar")
	return len(found) > 0
}

func classFile(name string) string { return strings.ReplaceAll(name, ".", "/") + ".class" }

func names(classes map[string]*class) []string {
	var out []string
	for _, c := range classes {
		if !strings.Contains(c.name, "$") {
			out = append(out, c.name)
		}
	}
	slices.Sort(out)
	return out
}

func some(names []string) string {
	const most = 8
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > most:
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}
