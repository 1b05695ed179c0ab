package golang

import (
	"errors"
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/scanner"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

// found is the package of a function and the handler in it.
type found struct {
	dir     string // below the source, slash-separated; "." for the source itself
	name    string // of the package
	handler string
	form    Form
	place   string // file:line of the handler
}

// defaults are the handlers that are looked for, in this order.
var defaults = []string{"Handle", "Main", "Handler"}

// forms is what a person is told when a function has another form.
const forms = "func Handle(ctx context.Context, event T) (U, error), with or without any of the four, or func Handle(w http.ResponseWriter, r *http.Request)"

// findPackage finds the package that is the function: the one that Entry names, the one in the
// source's own directory, or the only one below it that has a handler or a main.
func findPackage(src *os.Root, o Options) (*found, error) {
	if o.Entry != "" {
		dir := path.Clean(filepath.ToSlash(o.Entry))
		if strings.HasSuffix(dir, ".go") {
			dir = path.Dir(dir)
		}
		if !fs.ValidPath(dir) {
			return nil, faas.Errorf(faas.Invalid, op, "entry %q is not a path below the source", o.Entry)
		}
		if info, err := src.Stat(filepath.FromSlash(dir)); err != nil || !info.IsDir() {
			return nil, faas.Errorf(faas.Invalid, op, "the source has no directory %s", dir)
		}
		return findHandler(src, dir, o.Handler)
	}
	dirs, err := packageDirs(src)
	if err != nil {
		return nil, err
	}
	switch {
	case len(dirs) == 0:
		return nil, faas.Errorf(faas.Invalid, op, "the source has no Go file")
	case dirs[0] == "." || len(dirs) == 1:
		return findHandler(src, dirs[0], o.Handler)
	}
	var have []*found
	for _, dir := range dirs {
		p, err := findHandler(src, dir, o.Handler)
		if err == nil {
			have = append(have, p)
		}
	}
	switch len(have) {
	case 0:
		return nil, faas.Errorf(faas.Invalid, op, "no package of the source has a handler; looked for %s in %s", wanted(o.Handler), strings.Join(dirs, ", "))
	case 1:
		return have[0], nil
	}
	names := make([]string, len(have))
	for i, p := range have {
		names[i] = p.dir
	}
	return nil, faas.Errorf(faas.Invalid, op, "several packages could be the function: %s", strings.Join(names, ", ")).
		WithFix("say which with --entry %s", names[0])
}

// packageDirs lists the directories that hold Go files which are built here, the source's own
// first, without vendor, testdata and hidden ones.
func packageDirs(src *os.Root) ([]string, error) {
	var dirs []string
	ctx := buildContext(src)
	err := fs.WalkDir(src.FS(), ".", func(rel string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			name := d.Name()
			if rel != "." && (name == "vendor" || name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !isSource(&ctx, path.Dir(rel), d.Name()) {
			return nil
		}
		if dir := path.Dir(rel); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
		return nil
	})
	slices.Sort(dirs) // "." sorts before every name that a directory of source has
	if err != nil {
		return nil, fmt.Errorf("look through source: %w", err)
	}
	return dirs, nil
}

// buildContext looks at files of src only; a link that leads out of it is an error.
func buildContext(src *os.Root) build.Context {
	ctx := build.Default
	ctx.CgoEnabled = false // as it will be built
	ctx.OpenFile = func(name string) (io.ReadCloser, error) {
		f, err := src.Open(name)
		if err != nil {
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{io.LimitReader(f, maxSource), f}, nil
	}
	return ctx
}

// maxSource bounds the source of one package that is parsed here, in the server: its syntax tree
// takes some forty times as much memory. The compiler has bounds of its own.
const maxSource = 8 << 20

// readSource reads a file of the package, and takes it off what is left for others.
func readSource(src *os.Root, name string, left *int64) ([]byte, error) {
	f, err := src.Open(name)
	if err != nil {
		return nil, faas.Errorf(faas.Invalid, op, "%s cannot be read; it may be a link that leads out of the source, or nowhere", name)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, *left+1))
	if err != nil {
		return nil, fmt.Errorf("read source: %w", err)
	}
	if *left -= int64(len(content)); *left < 0 {
		return nil, faas.Errorf(faas.TooLarge, op, "the Go files of %s are larger than %s together", path.Dir(name), faas.Bytes(maxSource)).
			WithFix("put tables into a file of their own and embed it")
	}
	return content, nil
}

// isSource says whether a file is compiled into the program.
func isSource(ctx *build.Context, dir, name string) bool {
	if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
		return false
	}
	match, err := ctx.MatchFile(dir, name)
	return match || err != nil // what cannot be read so far is reported by the parser
}

func wanted(handler string) string {
	if handler != "" {
		return "func " + handler
	}
	return "func " + strings.Join(defaults, ", func ")
}

// findHandler parses the package in a directory and finds its handler.
func findHandler(src *os.Root, dir, handler string) (*found, error) {
	entries, err := fs.ReadDir(src.FS(), dir)
	if err != nil {
		return nil, fmt.Errorf("read source: %w", err)
	}
	ctx := buildContext(src)
	files := token.NewFileSet()
	p := &found{dir: dir}
	left := int64(maxSource)
	funcs := make(map[string]*ast.FuncDecl)
	of := make(map[string]*ast.File)
	for _, e := range entries {
		if e.IsDir() || !isSource(&ctx, dir, e.Name()) {
			continue
		}
		name := path.Join(dir, e.Name())
		content, err := readSource(src, name, &left)
		if err != nil {
			return nil, err
		}
		f, err := parser.ParseFile(files, name, content, parser.SkipObjectResolution)
		if err != nil {
			return nil, syntaxError(err)
		}
		if p.name != "" && p.name != f.Name.Name {
			return nil, faas.Errorf(faas.Invalid, op, "%s: package %s, but other files of the directory are package %s", name, f.Name.Name, p.name)
		}
		p.name = f.Name.Name
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
				funcs[fn.Name.Name], of[fn.Name.Name] = fn, f
			}
		}
	}
	if p.name == "" {
		return nil, faas.Errorf(faas.Invalid, op, "%s has no Go file that is built on this platform", dir)
	}
	if p.name == "main" && funcs["main"] != nil {
		if handler != "" {
			return nil, faas.Errorf(faas.Invalid, op, "package main has its own func main, so its handler %s cannot be served; take func main away or the handler's name", handler)
		}
		p.form = FormProgram
		return p, nil
	}
	for _, name := range candidates(handler) {
		fn := funcs[name]
		if fn == nil {
			continue
		}
		pos := files.Position(fn.Pos())
		p.handler, p.place = name, fmt.Sprintf("%s:%d", pos.Filename, pos.Line)
		form, why := formOf(fn, of[name])
		if why != "" {
			return nil, faas.Errorf(faas.Invalid, op, "%s: func %s %s", p.place, name, why).WithFix("write it as %s", forms)
		}
		p.form = form
		return p, nil
	}
	var there []string
	for name := range funcs {
		if token.IsExported(name) {
			there = append(there, name)
		}
	}
	slices.Sort(there)
	has := "it has no exported function"
	if len(there) > 0 {
		has = "it has " + strings.Join(there[:min(len(there), 10)], ", ")
	}
	return nil, faas.Errorf(faas.Invalid, op, "package %s in %s has no handler; looked for %s, or func main in package main; %s", p.name, dir, wanted(handler), has).
		WithFix("write it as %s, or name yours with --handler", forms)
}

func candidates(handler string) []string {
	if handler == "" {
		return defaults
	}
	// "file.Func" and "pkg.Func" name the function by their last part.
	return []string{handler[strings.LastIndexAny(handler, ".:")+1:]}
}

// formOf says what form a function has, or why it has none.
func formOf(fn *ast.FuncDecl, f *ast.File) (Form, string) {
	if fn.Type.TypeParams != nil {
		return "", "has type parameters, which nothing would fill in"
	}
	in, out := types(fn.Type.Params), types(fn.Type.Results)
	for _, t := range in {
		if _, variadic := t.(*ast.Ellipsis); variadic {
			return "", "is variadic"
		}
	}
	switch {
	case len(in) == 2 && is(in[0], f, "net/http", "ResponseWriter") && isPointer(in[1], f, "net/http", "Request"):
		if len(out) != 0 {
			return "", "is of the form of net/http and must return nothing"
		}
		return FormHTTP, ""
	case len(in) > 2:
		return "", fmt.Sprintf("takes %d arguments; at most two are given: a context and a value", len(in))
	case len(in) == 2 && !is(in[0], f, "context", "Context"):
		return "", "takes two arguments, of which the first must be a context.Context"
	case len(out) > 2:
		return "", fmt.Sprintf("returns %d values; at most two are taken: a value and an error", len(out))
	case len(out) == 2 && !isError(out[1]):
		return "", "returns two values, of which the second must be an error"
	}
	return FormValue, ""
}

// types lists the type of each parameter; several names with one type count each.
func types(fields *ast.FieldList) []ast.Expr {
	var out []ast.Expr
	if fields == nil {
		return nil
	}
	for _, f := range fields.List {
		for range max(len(f.Names), 1) {
			out = append(out, f.Type)
		}
	}
	return out
}

// is says whether a type is name of the package imported from importPath, under whatever name.
func is(t ast.Expr, f *ast.File, importPath, name string) bool {
	sel, ok := t.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	pkg, ok := sel.X.(*ast.Ident)
	if !ok || sel.Sel.Name != name {
		return false
	}
	for _, i := range f.Imports {
		if strings.Trim(i.Path.Value, "\"`") == importPath {
			if i.Name != nil && i.Name.Name == pkg.Name || i.Name == nil && path.Base(importPath) == pkg.Name {
				return true
			}
		}
	}
	return false
}

func isPointer(t ast.Expr, f *ast.File, importPath, name string) bool {
	star, ok := t.(*ast.StarExpr)
	return ok && is(star.X, f, importPath, name)
}

func isError(t ast.Expr) bool {
	id, ok := t.(*ast.Ident)
	return ok && id.Name == "error"
}

// syntaxError makes an error of the first few that the parser found.
func syntaxError(err error) error {
	var list scanner.ErrorList
	if !errors.As(err, &list) {
		return &faas.Error{Code: faas.Invalid, Op: op, Err: err}
	}
	var lines []string
	for i, e := range list {
		if i == 5 {
			lines = append(lines, fmt.Sprintf("and %d more", len(list)-5))
			break
		}
		lines = append(lines, e.Error())
	}
	return faas.Errorf(faas.Invalid, op, "%s", strings.Join(lines, "\n"))
}
