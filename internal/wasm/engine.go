package wasm

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"golang.org/x/sys/cpu"

	"github.com/brasa-dev/brasa/runtimes"
)

// What the compiler leaves beside the module.
const (
	moduleFile   = "module.wasm"
	manifestFile = "manifest.json"
	codeDir      = "code"
)

// format is the version of what rewrite makes. Another one's module is made anew.
const format = 1

// manifest says for what the compiled code is good.
type manifest struct {
	Format int    `json:"format"`
	Wazero string `json:"wazero"`
	Arch   string `json:"arch"`
	CPU    string `json:"cpu"`  // digest of what the processor has beyond its architecture
	Size   int64  `json:"size"` // of the module as it was deployed
}

// processor tells processors apart: the compiler uses what this one has.
func processor() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%+v %+v", cpu.X86, cpu.ARM64))
	return hex.EncodeToString(sum[:8])
}

// engine is wazero with the functions that modules may import.
type engine struct {
	runtime wazero.Runtime
	hosts   map[string]map[string]api.FunctionDefinition // by module and name
}

// newEngine makes an engine; cache may be nil. A module's memory may grow to pages.
func newEngine(ctx context.Context, cache wazero.CompilationCache, pages uint32) (*engine, error) {
	config := wazero.NewRuntimeConfigCompiler().WithDebugInfoEnabled(false).WithMemoryLimitPages(pages)
	if cache != nil {
		config = config.WithCompilationCache(cache)
	}
	e := &engine{runtime: wazero.NewRuntimeWithConfig(ctx, config), hosts: map[string]map[string]api.FunctionDefinition{}}
	wasi := e.runtime.NewHostModuleBuilder(wasiModule)
	wasi_snapshot_preview1.NewFunctionExporter().ExportFunctions(wasi)
	i32 := api.ValueTypeI32
	override := func(name string, f api.GoModuleFunc, params ...api.ValueType) {
		wasi.NewFunctionBuilder().WithGoModuleFunction(f, params, []api.ValueType{i32}).Export(name)
	}
	// The environment is another for each call, and instances are made before there is one.
	override("environ_sizes_get", environSizesGet, i32, i32)
	override("environ_get", environGet, i32, i32)
	ours := e.runtime.NewHostModuleBuilder(ourModule)
	ours.NewFunctionBuilder().WithGoFunction(api.GoFunc(check), []api.ValueType{i32}, nil).Export(ourCheck)
	for name, b := range map[string]wazero.HostModuleBuilder{wasiModule: wasi, ourModule: ours} {
		c, err := b.Compile(ctx)
		if err != nil {
			return nil, err
		}
		e.hosts[name] = c.ExportedFunctions()
		if _, err := e.runtime.InstantiateModule(ctx, c, wazero.NewModuleConfig().WithName(name)); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// compile compiles a rewritten module and says what is wrong with it.
func (e *engine) compile(ctx context.Context, binary []byte) (wazero.CompiledModule, error) {
	c, err := e.runtime.CompileModule(experimental.WithCompilationWorkers(ctx, runtime.GOMAXPROCS(0)), binary)
	if err != nil {
		return nil, err
	}
	for _, f := range c.ImportedFunctions() {
		module, name, _ := f.Import()
		have := e.hosts[module][name]
		if have == nil || !sameTypes(have.ParamTypes(), f.ParamTypes()) || !sameTypes(have.ResultTypes(), f.ResultTypes()) {
			return nil, refuse("build with a toolchain for WASI preview 1 as it was published", "the module imports %q from %q with other parameters or results than it has", clip(name), clip(module))
		}
	}
	return c, nil
}

func sameTypes(a, b []api.ValueType) bool { return string(a) == string(b) }

// convention is how a module is called.
type convention uint8

const (
	command convention = iota // _start, once per call
	reactor                   // handle, with the body in memory
)

// conventionOf finds out how a module wants to be called.
func conventionOf(c wazero.CompiledModule) (convention, error) {
	have := c.ExportedFunctions()
	is := func(name string, params, results []api.ValueType) bool {
		f := have[name]
		return f != nil && sameTypes(f.ParamTypes(), params) && sameTypes(f.ResultTypes(), results)
	}
	i32, i64 := api.ValueTypeI32, api.ValueTypeI64
	switch {
	case is("_start", nil, nil):
		return command, nil
	case have["_start"] != nil:
		return 0, refuse(fixTarget, "the module's _start takes parameters or returns results; that of a WASI command does not")
	case have["handle"] == nil:
		return 0, refuse("build a program with a main function; for Go leave out -buildmode=c-shared, for Rust build a binary and not a library",
			"the module exports neither _start, as programs do, nor handle")
	case !is("handle", []api.ValueType{i32, i32}, []api.ValueType{i64}):
		return 0, refuse("export handle(ptr: i32, len: i32) -> i64", "the module's handle does not take two i32 and return an i64")
	case !is("alloc", []api.ValueType{i32}, []api.ValueType{i32}):
		return 0, refuse("export alloc(len: i32) -> i32, which handle's input is written to", "the module exports handle, but no alloc that takes an i32 and returns an i32")
	case have["_initialize"] != nil && !is("_initialize", nil, nil):
		return 0, refuse(fixTarget, "the module's _initialize takes parameters or returns results")
	case c.ExportedMemories()["memory"] == nil:
		return 0, refuse("export the memory under the name memory", "the module exports handle, but not its memory")
	}
	return reactor, nil
}

// maxModule is how large a module may be; compiling one takes some fifty times that.
const maxModule = 64 << 20

func readModule(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxModule+1))
	if err == nil && len(b) > maxModule {
		err = refuse("leave out what is not needed; wasm-opt -Oz and wasm-strip make it smaller", "the module is larger than %d MiB", maxModule>>20)
	}
	return b, err
}

// compileTo compiles the module in the file and leaves the result in the directory out.
func compileTo(ctx context.Context, file, out string) error {
	b, err := readModule(file)
	if err != nil {
		return err
	}
	m, err := rewrite(b)
	if err != nil {
		return err
	}
	cache, err := wazero.NewCompilationCacheWithDir(filepath.Join(out, codeDir))
	if err != nil {
		return err
	}
	defer cache.Close(ctx)
	e, err := newEngine(ctx, cache, 1<<16)
	if err != nil {
		return err
	}
	defer e.runtime.Close(ctx)
	c, err := e.compile(ctx, m.binary)
	if err != nil {
		if _, told := errors.AsType[*Refused](err); told {
			return err
		}
		return refuse(fixTarget, "the module is not valid: %v", err)
	}
	if _, err := conventionOf(c); err != nil {
		return err
	}
	about, err := json.Marshal(manifest{format, runtimes.WazeroVersion(), runtime.GOARCH, processor(), int64(len(b))})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, moduleFile), m.binary, 0o644); err != nil {
		return err
	}
	// Last: what has no manifest is not used.
	return os.WriteFile(filepath.Join(out, manifestFile), about, 0o644)
}

// loaded is a module that is ready to be instantiated.
type loaded struct {
	engine   *engine
	compiled wazero.CompiledModule
	how      convention
	starts   bool   // it has code that runs when it is instantiated
	least    uint64 // bytes its memory begins with
	data     uint64 // bytes that each instance gets copied
	code     uint64 // bytes of compiled code and of the module
	cached   bool   // it was not compiled here
}

// load reads what the compiler left in the code directory dir for the module entry. What it can't
// use it makes anew, which takes its time but is not wrong.
func load(ctx context.Context, dir, entry string) (*loaded, error) {
	l, err := loadCompiled(ctx, dir, entry)
	if err == nil {
		return l, nil
	}
	b, rerr := readModule(filepath.Join(dir, entry))
	if rerr != nil {
		return nil, rerr
	}
	m, rerr := rewrite(b)
	if rerr != nil {
		return nil, rerr
	}
	return instantiable(ctx, nil, m.binary)
}

func loadCompiled(ctx context.Context, dir, entry string) (*loaded, error) {
	made := filepath.Join(dir, runtimes.WasmMade)
	about, err := os.ReadFile(filepath.Join(made, manifestFile))
	if err != nil {
		return nil, err
	}
	var have manifest
	if err := json.Unmarshal(about, &have); err != nil {
		return nil, err
	}
	info, err := os.Stat(filepath.Join(dir, entry))
	if err != nil {
		return nil, err
	}
	if want := (manifest{format, runtimes.WazeroVersion(), runtime.GOARCH, processor(), info.Size()}); have != want {
		return nil, fmt.Errorf("compiled for %+v, want %+v", have, want)
	}
	b, err := readModule(filepath.Join(made, moduleFile))
	if err != nil {
		return nil, err
	}
	cache, err := wazero.NewCompilationCacheWithDir(filepath.Join(made, codeDir))
	if err != nil {
		return nil, err
	}
	return instantiable(ctx, cache, b)
}

func instantiable(ctx context.Context, cache wazero.CompilationCache, binary []byte) (*loaded, error) {
	e, err := newEngine(ctx, cache, 1<<16)
	if err != nil {
		return nil, err
	}
	c, err := e.compile(ctx, binary)
	if err != nil {
		return nil, err
	}
	l := &loaded{engine: e, compiled: c, cached: cache != nil}
	if l.how, err = conventionOf(c); err != nil {
		return nil, err
	}
	var m module
	if err := m.split(binary[8:]); err != nil {
		return nil, err
	}
	if err := m.memories(); err != nil {
		return nil, err
	}
	l.starts = m.has[secStart]
	l.least = uint64(m.minPages) * pageSize
	l.data = uint64(len(m.section[secData]))
	l.code = uint64(len(binary)) + 6*uint64(len(m.section[secCode]))
	return l, nil
}

// config is what all instances of a module have in common.
func (l *loaded) config(name string) wazero.ModuleConfig {
	return wazero.NewModuleConfig().WithName("").WithStartFunctions().WithArgs(name).
		WithSysWalltime().WithSysNanotime().WithRandSource(rand.Reader).WithOsyield(runtime.Gosched)
}
