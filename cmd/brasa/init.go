package main

import (
	"embed"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/spf13/cobra"
)

//go:embed all:templates
var templates embed.FS

// templateOf maps what people call a language to the template's directory.
var templateOf = map[string]string{
	"python": "python", "py": "python", "python3": "python",
	"node": "node", "nodejs": "node", "javascript": "node", "js": "node",
	"typescript": "typescript", "ts": "typescript",
	"go": "go", "golang": "go",
	"java": "java",
	"rust": "rust", "rs": "rust",
	"ruby": "ruby", "rb": "ruby",
	"php":  "php",
	"wasm": "wasm", "webassembly": "wasm", "wasi": "wasm",
	"exec": "exec", "shell": "exec", "sh": "exec", "bash": "exec",
	"http": "http", "server": "http",
}

// templateNames are the ones that help lists.
var templateNames = []string{"python", "node", "typescript", "go", "java", "rust", "ruby", "php", "wasm", "exec", "http"}

func newInit(a *app) *cobra.Command {
	var language string
	c := &cobra.Command{
		Use:     "init [NAME] -l LANG",
		Aliases: []string{"new", "create"},
		Short:   "Begin a function: its code and an input to try it with",
		Long: `Write a directory with two files: a function that works, and an input to try it with. What is
there already is never overwritten. Languages: python, node, typescript, go, java, rust, ruby,
php, wasm (a program in Go; any that compiles to WASI works the same way), exec (a shell script;
any program works the same way), http (a server). For wasm and http there is a brasa.json too,
which says what the code is, and for rust a Cargo.toml.`,
		Example: `  brasa init hello -l python
  brasa init pay -l go && brasa deploy pay`,
		Args: atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			name := "hello"
			if len(args) > 0 {
				name = args[0]
			}
			return a.init(name, language)
		},
	}
	c.Flags().StringVarP(&language, "language", "l", "", "`LANG`: "+strings.Join(templateNames, ", "))
	completeFlag(c, "language", cobra.FixedCompletions(templateNames, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) init(name, language string) error {
	if language == "" {
		return cli.Usagef("the language is missing").WithFix("brasa init %s -l python   (or %s)", name, strings.Join(templateNames[1:], ", "))
	}
	template, ok := templateOf[strings.ToLower(language)]
	if !ok {
		e := cli.Usagef("there is no template for %q", language)
		if meant := cli.Suggest(language, templateNames); meant != "" {
			return e.WithFix("did you mean -l %s?", meant)
		}
		return e.WithFix("-l %s", strings.Join(templateNames, ", "))
	}
	base := filepath.Base(filepath.Clean(name))
	if err := faas.ValidateName("function", base); err != nil {
		return err
	}
	files, err := fs.Glob(templates, path.Join("templates", template, "*"))
	if err != nil {
		return err
	}
	var written []string
	for _, f := range files {
		target := filepath.Join(name, strings.TrimSuffix(path.Base(f), ".txt"))
		if _, err := os.Lstat(target); err == nil {
			return faas.Errorf(faas.Conflict, "", "%s exists already; nothing was written", target).WithFix("choose another name: brasa init NAME -l %s", language)
		}
		written = append(written, target)
	}
	if err := os.MkdirAll(name, 0o755); err != nil {
		return err
	}
	for i, f := range files {
		if err := writeNew(written[i], f); err != nil {
			return err
		}
	}
	return a.out.Data(map[string]any{"name": base, "files": written}, func(w io.Writer) error {
		for _, f := range written {
			if _, err := fmt.Fprintln(w, f); err != nil {
				return err
			}
		}
		input := written[slices.IndexFunc(written, func(f string) bool { return filepath.Base(f) == "input.json" })]
		brasa, _ := selfCommand()
		a.out.Say("next:  %s deploy %s\n       %s invoke %s -d @%s\nor, while you write:  %s dev", brasa, name, brasa, base, input, brasa)
		return nil
	})
}

// writeNew writes a file of a template where none is.
func writeNew(target, template string) error {
	text, err := templates.ReadFile(template)
	if err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if strings.HasPrefix(string(text), "#!") {
		mode = 0o755
	}
	f, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}
