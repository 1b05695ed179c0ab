package runtimes

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

var extensions = map[string]string{".py": Python, ".js": Node, ".mjs": Node, ".cjs": Node, ".go": Go, ".java": Java, ".jar": Java, ".class": Java, ".rs": Rust, ".csproj": DotNet, ".fsproj": DotNet, ".vbproj": DotNet, ".rb": Ruby, ".ru": Ruby, ".php": PHP}

// spoken is what people call what a file of source is written in.
var spoken = map[string]string{Python: "Python", Node: "JavaScript", Go: "Go", Java: "Java", Rust: "Rust", DotNet: "a project of .NET", Ruby: "Ruby", PHP: "PHP"}

// languageOf tells what a file is by its extension, first line or content.
func languageOf(tree fs.FS, name string) (language, why string) {
	if isTypeScript(name) {
		return Node, name + " is TypeScript by its extension"
	}
	if l := extensions[path.Ext(name)]; l != "" {
		return l, name + " is " + spoken[l] + " by its extension"
	}
	head := headOfFile(tree, name)
	switch {
	case bytes.HasPrefix(head, []byte("#!")):
		program := shebang(head)
		return Executable, name + " is run by " + program + ", which its first line says"
	case bytes.HasPrefix(head, []byte("\x00asm")):
		return Wasm, name + " is a module of WebAssembly by its first bytes"
	case bytes.HasPrefix(head, []byte(elf.ELFMAG)):
		return Executable, name + " is a program of this kind of system"
	case path.Ext(name) == ".wasm": // whose bytes are not those of one, which the compiler says
		return Wasm, name + " is WebAssembly by its extension"
	case path.Ext(name) == ".sh":
		return Executable, name + " is a shell script by its extension"
	}
	return "", ""
}

func headOfFile(tree fs.FS, name string) []byte {
	f, err := tree.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	head := make([]byte, 256)
	n, _ := io.ReadFull(f, head)
	return head[:n]
}

// shebang returns the interpreter that a script's first line names, without its directory.
func shebang(head []byte) string {
	line, _, _ := bytes.Cut(head[2:], []byte("\n"))
	fields := strings.Fields(string(line))
	if len(fields) == 0 {
		return ""
	}
	if path.Base(fields[0]) == "env" {
		for _, f := range fields[1:] {
			if !strings.HasPrefix(f, "-") && !strings.Contains(f, "=") {
				return path.Base(f)
			}
		}
	}
	return path.Base(fields[0])
}

var elfMachines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "riscv64": elf.EM_RISCV}

// checkProgram says whether an executable can run here, and finds the interpreter of a script:
// the one that its first line names may lie elsewhere on this host, and files of an archive need
// not be marked as executable.
func (p *Plan) checkProgram(tree fs.FS, rt *Runtime) error {
	file := CodeDir + "/" + p.Entry
	head := headOfFile(tree, p.Entry)
	switch {
	case bytes.HasPrefix(head, []byte(elf.ELFMAG)):
		return checkELF(tree, p.Entry)
	case bytes.HasPrefix(head, []byte("MZ")), bytes.HasPrefix(head, []byte("\xcf\xfa\xed\xfe")), bytes.HasPrefix(head, []byte("\xca\xfe\xba\xbe")):
		return faas.Errorf(faas.Invalid, detectOp, "%s is a program of another system; build it for linux/%s", p.Entry, runtime.GOARCH)
	case bytes.HasPrefix(head, []byte("#!")):
		if bytes.Contains(bytes.SplitN(head, []byte("\n"), 2)[0], []byte("\r")) {
			return faas.Errorf(faas.Invalid, detectOp, "%s has line ends of Windows, so that its first line names no program", p.Entry).WithFix("write it with line ends of Unix: sed -i 's/\\r$//' %s", p.Entry)
		}
		name := shebang(head)
		program := rt.others[name]
		if program == "" {
			return faas.Errorf(faas.Invalid, detectOp, "%s is run by %q, which this host does not have for functions; there are %s", p.Entry, clip(name), some(slices.Sorted(maps.Keys(rt.others))))
		}
		p.Command = []string{program, file}
		return nil
	}
	ext := map[string]string{".sh": "sh", ".py": "python3", ".js": "node", ".mjs": "node", ".cjs": "node", ".rb": "ruby", ".pl": "perl", ".php": "php"}[path.Ext(p.Entry)]
	if program := rt.others[ext]; ext != "" && program != "" {
		p.Command = []string{program, file}
		return nil
	}
	return faas.Errorf(faas.Invalid, detectOp, "%s is neither a program nor a script with a first line that names one", p.Entry).
		WithFix("begin it with a line such as #!/bin/sh, or say how it is run with --command")
}

// checkELF says whether a program is for this host's processor and brings what it is linked to.
func checkELF(tree fs.FS, name string) error {
	b, err := fs.ReadFile(tree, name)
	if err != nil {
		return fmt.Errorf("read program: %w", err)
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return faas.Errorf(faas.Invalid, detectOp, "%s begins like a program but is damaged: %v", name, err)
	}
	defer f.Close()
	if want := elfMachines[runtime.GOARCH]; want != 0 && f.Machine != want {
		return faas.Errorf(faas.Invalid, detectOp, "%s is a program for %s; this host is %s", name, strings.TrimPrefix(f.Machine.String(), "EM_"), runtime.GOARCH).
			WithFix("build it for linux/%s", runtime.GOARCH)
	}
	if f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return faas.Errorf(faas.Invalid, detectOp, "%s is no program but a %s", name, strings.ToLower(strings.TrimPrefix(f.Type.String(), "ET_")))
	}
	for _, prog := range f.Progs {
		if prog.Type != elf.PT_INTERP || prog.Filesz > 4096 {
			continue
		}
		interp, err := io.ReadAll(prog.Open())
		if err != nil {
			return faas.Errorf(faas.Invalid, detectOp, "%s begins like a program but is damaged: %v", name, err)
		}
		loader := strings.TrimRight(string(interp), "\x00")
		if strings.Contains(loader, "musl") && !exists(loader) {
			return faas.Errorf(faas.Invalid, detectOp, "%s is linked to musl, which this host does not have", name).WithFix("link it statically")
		}
	}
	return nil
}
