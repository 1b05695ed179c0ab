package runtimes

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// findDotNet finds an SDK of .NET. Programs are built with it to bring all that they need along, so
// none is needed to run them.
func findDotNet(ctx context.Context, _ Config, _ string) (*Runtime, error) {
	why := fmt.Errorf("no dotnet in /usr/bin, /usr/local/bin or PATH")
	for _, p := range append(candidates("", "dotnet"), "/usr/share/dotnet/dotnet", "/usr/lib/dotnet/dotnet", "/usr/local/share/dotnet/dotnet") {
		if !exists(p) {
			continue
		}
		out, err := probe(ctx, p, "--list-sdks") // "8.0.404 [/usr/lib/dotnet/sdk]", a line each
		if err != nil {
			why = err
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		version, at, found := strings.Cut(lines[len(lines)-1], " [")
		if !found {
			why = fmt.Errorf("%s has no SDK, which source is built with", p)
			continue
		}
		root, err := filepath.EvalSymlinks(filepath.Dir(strings.TrimSuffix(strings.TrimSpace(at), "]")))
		if err != nil {
			why = err
			continue
		}
		rt := &Runtime{Version: version, Style: styleOf(DotNet), Program: filepath.Join(root, "dotnet")}
		if dir := rootOf(root); dir != "" {
			rt.Tools = []Mount{{dir, dir}}
		}
		return rt, nil
	}
	return nil, why
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
