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
