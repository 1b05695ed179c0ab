package runtimes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	_ "embed"

	"github.com/brasa-dev/brasa/internal/faas"
)

//go:embed dotnet/bootstrap.dll
var dotnetBootstrap []byte

//go:embed dotnet/bootstrap.runtimeconfig.json
var dotnetSettings []byte

// dotnetDLL is the bootstrap. It is made for the oldest runtime that there is, and any later one takes it.
const dotnetDLL = "bootstrap.dll"

// dotnetCultures is the variable that has .NET do without the library of what people write in which country,
// which it otherwise ends for where there is none.
const dotnetCultures = "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1"

// errDotNetGenerator is why a process of .NET is replaced where others are put back.
var errDotNetGenerator = errors.New("the generators of random numbers that .NET code has made can't be given a new start")

// findDotNet finds .NET: a runtime, which published assemblies are run by, and an SDK where there is one. Projects
// are built with that, and bring all that they need along.
func findDotNet(ctx context.Context, cfg Config, dir string) (*Runtime, error) {
	why := fmt.Errorf("no dotnet in DOTNET_ROOT, /usr/bin, /usr/local/bin or PATH")
	var places []string
	if root := os.Getenv("DOTNET_ROOT"); root != "" {
		places = append(places, filepath.Join(root, "dotnet"))
	}
	var best *Runtime
	for _, p := range append(append(places, candidates("", "dotnet")...), "/usr/share/dotnet/dotnet", "/usr/lib/dotnet/dotnet", "/usr/local/share/dotnet/dotnet") {
		if !exists(p) {
			continue
		}
		rt, err := dotnetOf(ctx, p)
		if err != nil {
			why = err
			continue
		}
		if best == nil || rt.Compiler != "" {
			best = rt
		}
		if best.Compiler != "" {
			break
		}
	}
	if best == nil {
		return nil, why
	}
	for name, content := range map[string][]byte{dotnetDLL: dotnetBootstrap, "bootstrap.runtimeconfig.json": dotnetSettings} {
		if err := unpackSettled(dir, name, content); err != nil {
			return nil, fmt.Errorf("unpack bootstrap: %w", err)
		}
	}
	best.bootDir, best.boot, best.reseeds = dir, dotnetDLL, errDotNetGenerator
	out, err := probe(ctx, best.Program, filepath.Join(dir, dotnetDLL), "version")
	if err != nil {
		best.plain = true
		if out, err = probe(ctx, "/usr/bin/env", dotnetCultures, best.Program, filepath.Join(dir, dotnetDLL), "version"); err != nil {
			return nil, err
		}
		cfg.Logger.Info("dotnet runs without knowledge of cultures, as the host has no ICU")
	}
	if best.Compiler == "" {
		best.Version = string(out)
	}
	return best, nil
}

// dotnetOf asks a dotnet what it has. The program itself may be a link, or a shim, to one that lies elsewhere.
func dotnetOf(ctx context.Context, p string) (*Runtime, error) {
	out, err := probe(ctx, p, "--list-runtimes") // "Microsoft.NETCore.App 8.0.11 [/usr/lib/dotnet/shared/Microsoft.NETCore.App]", a line each
	if err != nil {
		return nil, err
	}
	_, core := lastListed(out, "Microsoft.NETCore.App ")
	if core == "" {
		return nil, fmt.Errorf("%s has no runtime", p)
	}
	root, err := filepath.EvalSymlinks(filepath.Dir(filepath.Dir(core)))
	if err != nil {
		return nil, err
	}
	rt := &Runtime{Style: styleOf(DotNet), Program: filepath.Join(root, "dotnet"), RootDir: rootOf(root)}
	if out, err = probe(ctx, p, "--list-sdks"); err != nil { // "8.0.404 [/usr/lib/dotnet/sdk]", a line each
		return nil, err
	}
	if version, sdk := lastListed(out, ""); sdk != "" {
		rt.Version, rt.Compiler = version, rt.Program
	}
	return rt, nil
}

// lastListed returns the version and the directory of the last line that begins so: the newest.
func lastListed(list []byte, prefix string) (version, dir string) {
	for line := range strings.Lines(string(list)) {
		if line, found := strings.CutPrefix(strings.TrimSpace(line), prefix); found {
			if v, at, found := strings.Cut(line, " ["); found {
				version, dir = v, strings.TrimSuffix(at, "]")
			}
		}
	}
	return version, dir
}

// dotnetHeap is how large the heap of objects may grow, in MiB. The rest is for compiled code, stacks and
// what assemblies take, which is some 50 MiB of a small function.
func dotnetHeap(memory faas.Bytes) int64 {
	if memory == 0 {
		memory = faas.DefaultLimits().Memory
	}
	m := int64(memory / faas.MiB)
	return max(min(max(m-64, m/2), m*3/4), 16)
}

// dotnetCommand returns how .NET is started for a memory limit; 0 is the default's. Settings are known by
// another prefix to runtimes before .NET 6.
func (rt *Runtime) dotnetCommand(memory faas.Bytes) (args, env []string) {
	for _, prefix := range []string{"DOTNET_", "COMPlus_"} {
		env = append(env,
			fmt.Sprintf("%sGCHeapHardLimit=%x", prefix, dotnetHeap(memory)<<20),
			prefix+"EnableDiagnostics=0") // no socket in /tmp, and no thread that listens at it
	}
	if rt.plain {
		env = append(env, dotnetCultures)
	}
	return []string{rt.Program, BootDir + "/" + rt.boot}, env
}

// dotnetStem is how a stem for a revision is started. The bound of the heap is taken at the start only, so
// functions of the same bound share stems.
func (rt *Runtime) dotnetStem(rev *faas.Revision) Stem {
	s := Stem{Class: fmt.Sprintf("%s-%d", rt.Name, dotnetHeap(rev.Limits.Memory))}
	s.Args, s.Env, s.Mounts = rt.Command(&faas.Revision{Limits: faas.Limits{Memory: rev.Limits.Memory}})
	s.Args = append(s.Args, "rehearse") // it has the time, which one that is waited for has not
	return s
}

// dotNetListens is the variable that says where a server of ASP.NET listens.
const dotNetListens = "ASPNETCORE_URLS"

// isProject says whether a file describes a project of .NET.
func isProject(name string) bool {
	return slices.Contains([]string{".csproj", ".fsproj", ".vbproj"}, path.Ext(name))
}

func dotNetTree(_ fs.FS, files []string) (candidate, bool, error) {
	for _, f := range files {
		if isProject(f) {
			return candidate{DotNet, f, f + " says that it is .NET"}, true, nil
		}
	}
	return candidate{}, false, nil
}

// dotNetRuntime says how the program of a project is run: one that is made of the web's SDK listens.
func dotNetRuntime(tree fs.FS, project string) string {
	text, err := fs.ReadFile(tree, project)
	if err == nil && bytes.Contains(text, []byte(`Sdk="Microsoft.NET.Sdk.Web"`)) {
		return HTTPServer
	}
	return Executable
}
