package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/charmbracelet/x/term"
)

// languages are the ones that a function can be in, as help lists them.
var languages = []string{"python", "node", "typescript", "go", "java", "rust", "ruby", "php", "dotnet", "wasm", "exec", "lines", "http", "actionloop", "openwhisk", "openfaas", "lambda"}

// languageHint says how the language of code without a file name is said.
var languageHint = "-l " + languages[0] + " (or " + strings.Join(languages[1:], ", ") + ")"

// extensions are the names that source without a file gets, so that the server sees what it is.
// Source of a module of WebAssembly is Go; other languages are compiled elsewhere.
var extensions = map[string]string{
	"python": "main.py", "python3": "main.py", "py": "main.py",
	"node": "main.js", "nodejs": "main.js", "javascript": "main.js", "js": "main.js",
	"typescript": "main.ts", "ts": "main.ts",
	"go": "main.go", "golang": "main.go",
	"ruby": "main.rb", "rb": "main.rb", "php": "main.php",
	"rust": "main.rs", "rs": "main.rs",
	"java": "Main.java", "jvm": "Main.java", "jdk": "Main.java",
	"wasm": "main.go", "wasi": "main.go", "webassembly": "main.go", "wasip1": "main.go",
	"exec": "main", "lines": "main", "http": "main",
	"shell": "main.sh", "sh": "main.sh", "bash": "main.sh",
}

// source is code on its way to the server.
type source struct {
	api.Code
	name   string // that a function of it would get
	what   string // for people
	close  func()
	failed func() error            // the reason for which reading it failed, if it did
	again  func() (*source, error) // opens the same once more; nil: it can be read but once
}

// openSource opens what a path names: a file, a directory, which is packed while it is sent, or
// "-" for stdin.
func openSource(path, language string) (*source, error) {
	if path == "-" {
		return openStdin(language)
	}
	src, err := openPath(path)
	if err == nil {
		src.again = func() (*source, error) { return openPath(path) }
	}
	return src, err
}

func openPath(path string) (*source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, noSource(path, err)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return packSource(path, filepath.Base(abs)), nil
	}
	if !info.Mode().IsRegular() {
		return nil, cli.Usagef("%s is no file and no directory", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	base := filepath.Base(abs)
	name := stem(base)
	switch name {
	case "main", "index", "handler", "function", "__main__": // say nothing; the directory does
		name = filepath.Base(filepath.Dir(abs))
	}
	return &source{
		Code: api.Code{Reader: f, Filename: base}, name: legalName(name), what: path,
		close: func() { _ = f.Close() }, failed: func() error { return nil },
	}, nil
}

func noSource(path string, err error) error {
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	e := cli.Usagef("there is no file or directory %s", path)
	if meant := similarFile(path); meant != "" {
		return e.WithFix("did you mean %s?", meant)
	}
	return e.WithFix("make one with: brasa init NAME -l python")
}

// similarFile returns the file beside path whose name is nearly the same; "" if there is none.
func similarFile(path string) string {
	var names []string
	entries, _ := os.ReadDir(filepath.Dir(path)) // without a directory there is nothing to suggest
	for _, d := range entries {
		names = append(names, d.Name())
	}
	meant := cli.Suggest(filepath.Base(path), names)
	if meant == "" {
		return ""
	}
	return filepath.Join(filepath.Dir(path), meant)
}

func packSource(dir, base string) *source {
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { // ends when the directory is packed or r is closed
		_, err := cli.Pack(dir, w)
		done <- err // before the pipe breaks, so that failed sees it
		_ = w.CloseWithError(err)
	}()
	var err error
	return &source{
		Code: api.Code{Reader: r, Filename: base + ".tar.gz"}, name: legalName(base), what: dir + string(filepath.Separator),
		close: func() {
			_ = r.Close()
		},
		failed: func() error {
			select {
			case err = <-done:
			default:
			}
			if errors.Is(err, io.ErrClosedPipe) {
				return nil // the server had heard enough; it says why
			}
			return err
		},
	}
}

// openStdin takes code from stdin. Archives, modules and scripts with a #! line say themselves what
// they are; anything else needs its language said.
func openStdin(language string) (*source, error) {
	if term.IsTerminal(os.Stdin.Fd()) {
		return nil, cli.Usagef("stdin is a terminal, so there is no code to read").WithFix("cat main.py | brasa deploy - -l python --name hello")
	}
	in := bufio.NewReader(os.Stdin)
	head, err := in.Peek(4)
	if len(head) == 0 && err != nil {
		return nil, cli.Usagef("stdin is empty, so there is no code")
	}
	filename := extensions[language]
	switch {
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		filename = "code.zip"
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		filename = "code.tar.gz"
	case bytes.Equal(head, []byte("\x00asm")):
		filename = "main.wasm"
	case filename != "":
	case bytes.HasPrefix(head, []byte("#!")), bytes.Equal(head, []byte("\x7fELF")):
		filename = "main"
	case language == "":
		return nil, cli.Usagef("code from stdin has no file name, so its language must be said").WithFix("%s", languageHint)
	default:
		filename = "main"
	}
	return &source{
		Code: api.Code{Reader: in, Filename: filename}, what: "stdin",
		close: func() {}, failed: func() error { return nil },
	}, nil
}

// stem returns a file's name without what says its kind.
func stem(base string) string {
	for _, ext := range []string{".tar.gz", ".tgz"} {
		if s, ok := strings.CutSuffix(base, ext); ok {
			return s
		}
	}
	if s := strings.TrimSuffix(base, filepath.Ext(base)); s != "" {
		return s
	}
	return base
}

// legalName makes a function's name of a file's; "" if nothing is left.
func legalName(s string) string {
	legal := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '-':
			return r
		}
		return '-'
	}, s)
	legal = strings.Trim(legal, "-")
	return legal[:min(len(legal), 63)]
}
