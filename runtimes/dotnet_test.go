package runtimes

import (
	"fmt"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
)

// TestDotNetSaysWhatToInstall where there is no SDK, though what it builds could run.
func TestDotNetSaysWhatToInstall(t *testing.T) {
	r := testRegistry()
	delete(r.found, DotNet)
	r.missing[DotNet] = "no dotnet in PATH"
	_, err := r.Detect(files(map[string]string{"app.csproj": `<Project Sdk="Microsoft.NET.Sdk"/>`, "Program.cs": ""}), "")
	e := faas.AsError(err)
	if e == nil || e.Code != faas.Unavailable || !strings.Contains(e.Fix, "dot.net") {
		t.Errorf("without .NET: %v (%+v), want Unavailable and where to get one", err, e)
	}
	r.found[DotNet] = &Runtime{Name: DotNet, Version: "8.0.11"} // published assemblies run with it
	_, err = r.Detect(files(map[string]string{"app.csproj": `<Project Sdk="Microsoft.NET.Sdk"/>`, "Program.cs": ""}), "")
	if e = faas.AsError(err); e == nil || e.Code != faas.Unavailable || !strings.Contains(e.Message(), "no SDK") || !strings.Contains(e.Fix, "dot.net") {
		t.Errorf("without an SDK: %v (%+v), want Unavailable and where to get one", err, e)
	}
}

// TestAServerOfDotNetListens where the platform looks for it, unless it is told otherwise.
func TestAServerOfDotNetListens(t *testing.T) {
	r := testRegistry()
	tree := map[string]string{"app.csproj": `<Project Sdk="Microsoft.NET.Sdk.Web"/>`}
	p, err := r.Detect(files(tree), "")
	if want := fmt.Sprintf("http://127.0.0.1:%d", Port); err != nil || p.Source != DotNet || p.Env[dotNetListens] != want {
		t.Errorf("plan = %+v, %v, want it to listen at %s", p, err, want)
	}
	tree["brasa.json"] = `{"env": {"ASPNETCORE_URLS": "http://[::]:8080"}}`
	if p, err = r.Detect(files(tree), ""); err != nil || p.Env[dotNetListens] != "http://[::]:8080" {
		t.Errorf("plan = %+v, %v, want what the code says", p, err)
	}
}

func TestWhatADotnetListsLastIsTaken(t *testing.T) {
	list := []byte("Microsoft.AspNetCore.App 8.0.11 [/usr/lib/dotnet/shared/Microsoft.AspNetCore.App]\nMicrosoft.NETCore.App 6.0.36 [/usr/lib/dotnet/shared/Microsoft.NETCore.App]\nMicrosoft.NETCore.App 8.0.11 [/a b/shared/Microsoft.NETCore.App]\n")
	if v, dir := lastListed(list, "Microsoft.NETCore.App "); v != "8.0.11" || dir != "/a b/shared/Microsoft.NETCore.App" {
		t.Errorf("%q in %q", v, dir)
	}
	if v, dir := lastListed(nil, ""); v != "" || dir != "" {
		t.Errorf("nothing is %q in %q", v, dir)
	}
}

// Processes of .NET wait for functions of their bound of memory, which they take at their start.
func TestStemsOfDotNet(t *testing.T) {
	rt := &Runtime{Name: DotNet, Style: styleOf(DotNet), Program: "/usr/lib/dotnet/dotnet", bootDir: "/boot", boot: dotnetDLL, plain: true}
	of := func(memory faas.Bytes) Stem {
		s, ok := rt.Stem(&faas.Revision{Limits: faas.Limits{Memory: memory}})
		if !ok || s.Bare {
			t.Fatalf("stem %+v, %t", s, ok)
		}
		return s
	}
	small, large := of(128*faas.MiB), of(512*faas.MiB)
	if small.Class == large.Class || small.Class != of(128*faas.MiB).Class {
		t.Errorf("classes %q and %q", small.Class, large.Class)
	}
	env := strings.Join(small.Env, " ")
	if want := fmt.Sprintf("DOTNET_GCHeapHardLimit=%x ", 64<<20); !strings.Contains(env, want) || !strings.Contains(env, dotnetCultures) {
		t.Errorf("environment %q, want %q and %q in it", env, want, dotnetCultures)
	}
	if args := strings.Join(small.Args, " "); args != "/usr/lib/dotnet/dotnet /brasa/bootstrap.dll rehearse" {
		t.Errorf("command %q", args)
	}
	if args, _, _ := rt.Command(&faas.Revision{}); len(args) != 2 {
		t.Errorf("a process that is waited for rehearses: %q", args)
	}
}

// A toolchain where sandboxes have a directory of their own is not there, and ends no server.
func TestARuntimeThatNoSandboxSees(t *testing.T) {
	for dir, want := range map[string]bool{"": true, "/opt/dotnet": true, "/tmp/dotnet": false, "/tmpfs": true, "/proc/1": false} {
		if err := checkRoot(&Runtime{RootDir: dir}); (err == nil) != want {
			t.Errorf("%q: %v", dir, err)
		}
	}
}
