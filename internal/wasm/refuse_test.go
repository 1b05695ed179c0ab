package wasm

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// refusal compiles a module and returns why it was refused.
func refusal(t *testing.T, module []byte) *Refused {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "fn.wasm")
	if err := os.WriteFile(file, module, 0o644); err != nil {
		t.Fatal(err)
	}
	err := compileTo(t.Context(), file, dir)
	r, ok := errors.AsType[*Refused](err)
	if !ok {
		t.Fatalf("compile: %v; want it refused", err)
	}
	if _, err := os.Stat(filepath.Join(dir, manifestFile)); err == nil {
		t.Error("a refused module has a manifest")
	}
	return r
}

func TestWhatIsNoModuleOfPreview1IsRefusedWithWhatToDo(t *testing.T) {
	importing := func(module, name string, kind byte) []byte {
		a := newAsm()
		v := a.typ(nil, nil)
		imp := append(appendName(appendName(nil, module), name), kind)
		switch kind {
		case kindMemory:
			imp = append(imp, 0, 1)
		case kindTable:
			imp = append(imp, 0x70, 0, 1)
		case kindGlobal:
			imp = append(imp, i32t, 0)
		default:
			imp = append(imp, byte(v))
		}
		a.imports = append(a.imports, imp)
		main := a.fn(nil, nil, 0)
		a.mem(1)
		a.export("_start", 0, main)
		return a.bytes()
	}
	with := func(change func(*asm)) []byte {
		a := newAsm()
		main := a.fn(nil, nil, 0)
		a.mem(1)
		a.export("_start", 0, main)
		change(a)
		return a.bytes()
	}
	for name, c := range map[string]struct {
		module       []byte
		message, fix string
	}{
		"text":         {[]byte("(module)\n\n"), "not a WebAssembly module", "GOOS=wasip1"},
		"empty":        {nil, "not a WebAssembly module", ""},
		"component":    {[]byte("\x00asm\x0d\x00\x01\x00\x07\x01"), "component", "wasm32-wasip1 instead of wasm32-wasip2"},
		"version 2":    {[]byte("\x00asm\x02\x00\x00\x00"), "version 2", ""},
		"cut short":    {tiny()[:40], "cannot be read", ""},
		"js":           {importing("gojs", "runtime.wasmExit", 0), `imports "runtime.wasmExit" from "gojs"`, "GOOS=wasip1"},
		"browser":      {importing("wbg", "__wbg_log", 0), `"__wbg_log" from "wbg"`, "wasm-bindgen"},
		"open symbol":  {importing("env", "sqrtf128", 0), `"sqrtf128" from "env"`, "left open"},
		"emscripten":   {importing("env", "emscripten_resize_heap", 0), "emscripten_resize_heap", "STANDALONE_WASM"},
		"memory":       {importing("env", "memory", kindMemory), `"memory" from "env"`, "--import-memory"},
		"its table":    {importing("env", "__indirect_function_table", kindTable), "from \"env\"", "--import-table"},
		"global":       {importing("env", "g", kindGlobal), "from \"env\"", ""},
		"older":        {importing("wasi_unstable", "fd_write", 0), "before preview 1", "newer toolchain"},
		"ours":         {importing(ourModule, ourCheck, 0), "which is not there", ""},
		"none such":    {importing(wasiModule, "fd_fly", 0), "no such function", ""},
		"other types":  {importing(wasiModule, "fd_write", 0), "other parameters", ""},
		"WASI global":  {importing(wasiModule, "fd_write", kindGlobal), "not a function", ""},
		"threads":      {with(func(a *asm) { a.memory = []byte{3, 1, 2} }), "between threads", "wasip1 instead of"},
		"wasm64":       {with(func(a *asm) { a.memory = []byte{4, 1} }), "64 bits", "wasm32"},
		"table":        {with(func(a *asm) { a.tables = [][]byte{append([]byte{0x70, 0}, appendU32(nil, maxTable+1)...)} }), "tables begin with", ""},
		"no _start":    {with(func(a *asm) { a.exports = a.exports[:1] }), "neither _start", "main"},
		"tail call":    {with(func(a *asm) { a.funcs[0].code = []byte{0x12, 0, 0x0b} }), "tail calls", ""},
		"invalid":      {with(func(a *asm) { a.funcs[0].code = []byte{opDrop, 0x0b} }), "not valid", ""},
		"our global":   {with(func(a *asm) { a.funcs[0].code = append(append(i32c(1), gset(0)...), 0x0b) }), "no global 0", ""},
		"our function": {with(func(a *asm) { a.funcs[0].code = append(callf(1), 0x0b) }), "no function 1", ""},
		"our type":     {with(func(a *asm) { a.funcs[0].code = append(i32c(0), 0x11, 1, 0, 0x0b) }), "no type 1", ""},
		"shape":        {with(func(a *asm) { a.funcs[0].typ = a.typ([]byte{i32t}, nil) }), "_start takes parameters", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := refusal(t, c.module)
			if !strings.Contains(r.Message, c.message) || !strings.Contains(r.Fix, c.fix) {
				t.Errorf("refused with %q and %q, want %q and %q", r.Message, r.Fix, c.message, c.fix)
			}
		})
	}
}

func TestAModuleLargerThanItsMemoryIsRefusedAtLoad(t *testing.T) {
	a := newAsm()
	main := a.fn(nil, nil, 0)
	a.mem(4096) // 256 MiB
	a.export("_start", 0, main)
	c, _ := process(t)
	spec := runtimes.SpecOf(revision(256*faas.MiB, 1), nil)
	spec.Code = compiled(t, a.bytes())
	_, err := c.Load(t.Context(), spec)
	e := faas.AsError(err)
	if err == nil || e.Code != faas.Failed || e.Limit != "memory_bytes" || !strings.Contains(e.Error(), "raise memory_bytes to 297MiB") {
		t.Errorf("load: %v (limit %q)", err, e.Limit)
	}
}

// What the compiler left is read, and nothing of it is believed that is not for this very program.
func TestCompiledCodeOfAnotherVersionIsNotUsed(t *testing.T) {
	dir := compiled(t, tiny())
	made := filepath.Join(dir, runtimes.WasmMade)
	check := func(what string, cached bool) {
		t.Helper()
		l, err := load(t.Context(), dir, "fn.wasm")
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if l.cached != cached {
			t.Errorf("%s: compiled code used: %v, want %v", what, l.cached, cached)
		}
		p := newPool(l, "fn", &limits{memory: 1 << 20, response: 1 << 20}, 1)
		if a := do(t.Context(), p, ""); a.out != "hi" {
			t.Errorf("%s: answer %q, %v", what, a.out, a.err)
		}
	}
	check("as compiled", true)
	manifest, err := os.ReadFile(filepath.Join(made, manifestFile))
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(made, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, change := range []string{`"wazero":"`, `"arch":"`, `"cpu":"`, `"format":1`} {
		write(manifestFile, bytes.Replace(manifest, []byte(change), []byte(change+"0"), 1))
		check("other "+change, false)
	}
	write(manifestFile, []byte("no json"))
	check("broken manifest", false)
	write(manifestFile, manifest)
	files, err := filepath.Glob(filepath.Join(made, codeDir, "*", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no compiled code: %v, %v", files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 0xff
		if err := os.WriteFile(f, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	check("damaged code", false)
	if err := os.RemoveAll(made); err != nil {
		t.Fatal(err)
	}
	check("nothing compiled", false)
}

// start runs code while it is instantiated, which belongs to the call too.
func TestAModulesStartRunsWithItsCall(t *testing.T) {
	a := newAsm()
	w := a.wasi("fd_write", i32t, i32t, i32t, i32t)
	first := a.fn(nil, nil, 0, write(w, 1, 0))
	main := a.fn(nil, nil, 0, write(w, 1, 0))
	a.mem(1)
	a.start = first
	a.export("_start", 0, main)
	a.put(0, iovec(16, 2))
	a.put(16, "hi")
	p := ready(t, a.bytes(), 256*faas.MiB, 1)
	if a := do(t.Context(), p, ""); a.out != "hihi" {
		t.Errorf("answer %q, %v", a.out, a.err)
	}
	b := newAsm()
	b.start = b.fn(nil, nil, 0, forever())
	main = b.fn(nil, nil, 0)
	b.mem(1)
	b.export("_start", 0, main)
	p = ready(t, b.bytes(), 256*faas.MiB, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 1)
	defer cancel()
	if a := do(ctx, p, ""); a.err == nil {
		t.Error("a start without an end has ended")
	}
}

// echoReactor answers with its input in reverse order of nothing: as it came.
func echoReactor(answer ...[]byte) []byte {
	a := newAsm()
	g := a.global(1024)
	alloc := a.fn([]byte{i32t}, []byte{i32t}, 0, gget(g), gget(g), lget(0), ops(opAdd), gset(g))
	if len(answer) == 0 { // ptr << 32 | len
		answer = [][]byte{lget(0), ops(0xad), []byte{0x42, 32}, ops(0x86), lget(1), ops(0xad, 0x84)}
	}
	handle := a.fn([]byte{i32t, i32t}, []byte{i64t}, 0, answer...)
	a.mem(2)
	a.export("alloc", 0, alloc)
	a.export("handle", 0, handle)
	return a.bytes()
}

func TestAReactorHandlesWhatIsWrittenToItsMemory(t *testing.T) {
	p := ready(t, echoReactor(), 256*faas.MiB, 1)
	for _, input := range []string{"", "hello", strings.Repeat("x", 100000)} {
		if a := do(t.Context(), p, input); a.err != nil || a.out != input {
			t.Errorf("%d bytes in: %d bytes out, %v", len(input), len(a.out), a.err)
		}
	}
	do(t.Context(), p, strings.Repeat("x", 2*pageSize)).fault(t, "no room")
	p = ready(t, echoReactor([]byte{0x42, 0x7f}), 256*faas.MiB, 1) // -1: all ones
	do(t.Context(), p, "x").fault(t, "not all in its memory")
	p = ready(t, echoReactor(ops(opUnreachable)), 256*faas.MiB, 1)
	do(t.Context(), p, "x").fault(t, "unreachable")
}

// Whatever the bytes are, reading them ends with an error or with a module that the compiler
// takes or refuses in its turn.
func FuzzRewrite(f *testing.F) {
	f.Add(tiny())
	f.Add(villain())
	f.Add(witness())
	f.Add(echoReactor())
	f.Add(spin(10))
	f.Fuzz(func(t *testing.T, module []byte) {
		m, err := rewrite(module)
		if err != nil {
			if _, told := errors.AsType[*Refused](err); !told {
				t.Fatalf("error %v is not told to people", err)
			}
			return
		}
		if len(m.binary) > 100*len(module)+1000 {
			t.Errorf("%d bytes became %d", len(module), len(m.binary))
		}
		// What was valid stays valid, and code that was not does not become so. What is wrong with
		// sections that are left out, or their order, is mended.
		ctx := context.Background()
		r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithMemoryLimitPages(1<<16))
		defer r.Close(ctx)
		_, before := r.CompileModule(ctx, module)
		_, after := r.CompileModule(ctx, m.binary)
		mended := before != nil && !strings.Contains(before.Error(), "function[") && !strings.Contains(before.Error(), "code")
		if (before == nil) != (after == nil) && !mended {
			t.Errorf("before: %v; after: %v", before, after)
		}
	})
}
