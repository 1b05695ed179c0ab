package install_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/runtimes"
)

const netProject = `<Project Sdk="Microsoft.NET.Sdk"><PropertyGroup><OutputType>Exe</OutputType><TargetFramework>net8.0</TargetFramework></PropertyGroup>
<ItemGroup><PackageReference Include="Newtonsoft.Json" Version="13.0.3" /></ItemGroup></Project>`

// TestNuGetRestoresWhatAProjectNames from where everybody gets it, with what its program takes along.
func TestNuGetRestoresWhatAProjectNames(t *testing.T) {
	reg, err := runtimes.Discover(t.Context(), runtimes.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	rt, err := reg.Lookup(runtimes.DotNet)
	if err != nil {
		t.Skip(err)
	}
	if rt.Compiler == "" {
		t.Skip("this host has a runtime of .NET and no SDK")
	}
	reachable(t, "nuget.org", "https://api.nuget.org/v3/index.json")
	s := newScriptShop(t, runtimes.DotNet, nil)
	dir := layOut(t, map[string]string{"app.csproj": netProject, "Program.cs": ""})
	res, err := s.Install(t.Context(), install.Request{
		Namespace: "default", NamespaceUID: "ns1", Code: dir,
		Plan: &runtimes.Plan{Runtime: runtimes.Executable, Source: runtimes.DotNet, Entry: "app.csproj"},
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, faas.AsError(err).Trace)
	}
	defer res.Release()
	if _, err := os.Stat(filepath.Join(res.Dir, "newtonsoft.json", "13.0.3")); err != nil || !res.BuildOnly {
		t.Errorf("layer = %+v, %v, want the package, for building alone", res, err)
	}
}

// TestNoPasswordIsTakenForNuGet, because projects are code.
func TestNoPasswordIsTakenForNuGet(t *testing.T) {
	r := install.Registries{NuGet: install.NuGetSource{Source: "https://user:secret@packages.example/index.json"}}
	if err := r.Validate(); err == nil {
		t.Error("a password was taken")
	}
	r.NuGet.Source = "https://packages.example/index.json"
	if err := r.Validate(); err != nil {
		t.Error(err)
	}
}
