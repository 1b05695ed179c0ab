package install

import (
	"context"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// nuget gets the packages that a project of .NET names, and the parts of .NET that its program takes
// along. The compiler, which has no network, reads them as its packages; a call sees nothing of them.
// A project is code, so the step that reads it has no credentials.
type nuget struct{ tools Tools }

func newNuGet(t Tools) Ecosystem { return &nuget{t} }

// Name returns "nuget".
func (n *nuget) Name() string { return "nuget" }

const (
	// NuGetTarget is where a build sees the packages.
	NuGetTarget = "/nuget"
	// nugetProject says in the manifest's files which project is meant.
	nugetProject = ".brasa/project"
	nugetPublic  = "https://api.nuget.org/v3/index.json"
)

// DotNetPlatform is what .NET calls this machine.
func DotNetPlatform() string {
	arch := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	return "linux-" + arch
}

// nugetFiles decide beside projects what is installed.
var nugetFiles = []string{
	"packages.lock.json", "Directory.Packages.props", "Directory.Build.props", "Directory.Build.targets", "global.json", "nuget.config", "NuGet.config", "NuGet.Config",
}

// Find takes the project that the plan names and those that lie beside it. Also one without packages
// needs what its program takes along.
func (n *nuget) Find(code fs.FS, plan *runtimes.Plan, opt Options) (*Manifest, error) {
	if len(opt.With) > 0 {
		return nil, faas.Errorf(faas.Invalid, op, "packages of .NET are named in the project alone").WithFix("dotnet add package %s, and deploy again", opt.With[0])
	}
	rt, err := n.tools.Runtimes.Lookup(runtimes.DotNet)
	if err != nil {
		return nil, err
	}
	m := &Manifest{Files: map[string][]byte{nugetProject: []byte(plan.Entry)}, From: plan.Entry, Runtime: rt.Version}
	err = fs.WalkDir(code, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && name != "." && (strings.HasPrefix(e.Name(), ".") || e.Name() == "bin" || e.Name() == "obj") {
			return fs.SkipDir
		}
		switch {
		case !e.Type().IsRegular():
			return nil
		case slices.Contains(nugetFiles, e.Name()), slices.Contains([]string{".csproj", ".fsproj", ".vbproj"}, path.Ext(name)):
			m.Files[name], err = readSmall(code, name)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if lock := path.Join(path.Dir(plan.Entry), "packages.lock.json"); m.Files[lock] != nil {
		m.Lock = lock // it has a hash of each, but what a project adds to its sources nobody knows: no Verified
	} else if opt.Strict {
		return nil, faas.Errorf(faas.Invalid, op, "hashes are demanded, and there is no packages.lock.json").WithFix("dotnet restore --use-lock-file, and send it along")
	}
	return m, nil
}

// Plan has the SDK restore the project.
func (n *nuget) Plan(_ context.Context, m *Manifest, _ Options) (*Job, error) {
	rt, err := n.tools.Runtimes.Lookup(runtimes.DotNet)
	if err != nil {
		return nil, err
	}
	job := &Job{Tool: "dotnet " + rt.Version, Target: NuGetTarget, BuildOnly: true, Packages: nugetPackages}
	for _, t := range rt.Tools {
		job.Mounts = append(job.Mounts, sandbox.Mount{Source: t.Source, Target: t.Target})
	}
	source, locked := nugetPublic, ""
	if s := n.tools.Registries.NuGet.Source; s != "" {
		source, job.Origin = s, redact(s)
		if dir, ok := strings.CutPrefix(s, "file://"); ok {
			job.Access.Mounts = []sandbox.Mount{{Source: dir, Target: "/feed"}}
			source = "/feed"
		}
	}
	if m.Lock != "" {
		locked = "--locked-mode"
	}
	job.Steps = []JobStep{{
		Name: "restore", Dir: WorkDir, Network: true, Env: DotNetEnv,
		Args: []string{"/bin/sh", "-ec", nugetRestore, "sh", rt.Program, string(m.Files[nugetProject]), source, DotNetPlatform(), locked},
	}}
	if ca := n.tools.Registries.CABundle(); ca != nil {
		job.Access.Files = map[string][]byte{path.Base(CAFile): ca}
		job.Access.Env = append(job.Access.Env, "SSL_CERT_FILE="+CAFile)
	}
	return job, nil
}

// DotNetEnv is the environment of the SDK while it restores and builds.
var DotNetEnv = []string{
	"NUGET_PACKAGES=" + NuGetTarget, "DOTNET_CLI_TELEMETRY_OPTOUT=1", "DOTNET_NOLOGO=1", "DOTNET_SKIP_FIRST_TIME_EXPERIENCE=1",
	"DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1", "DOTNET_GENERATE_ASPNET_CERTIFICATE=false", "DOTNET_CLI_USE_MSBUILD_SERVER=0", "MSBUILDDISABLENODEREUSE=1",
}

const nugetRestore = `dotnet=$1 project=$2 source=$3 platform=$4 locked=$5
cp -r ` + SourceDir + `/. code; chmod -R u+w code; cd code
"$dotnet" restore "$project" --source "$source" --runtime "$platform" -p:SelfContained=true -p:PublishSingleFile=true $locked`

// nugetPackages lists the packages in a directory of NuGet's.
func nugetPackages(dir string) ([]Package, error) {
	found, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil {
		return nil, err
	}
	var all []Package
	for _, p := range found {
		if info, err := os.Lstat(p); err == nil && info.IsDir() {
			all = append(all, Package{Name: filepath.Base(filepath.Dir(p)), Version: filepath.Base(p), Bytes: bytesBelow(p)})
		}
	}
	return all, nil
}

var (
	nugetNone    = regexp.MustCompile(`error NU110[123]: (?:Unable to (?:find|resolve) (?:a stable )?(?:package|')\s*'?([^\s'.]+(?:\.[^\s'.]+)*)'?[^\n]*)`)
	nugetStale   = regexp.MustCompile(`error NU1004`)
	nugetSum     = regexp.MustCompile(`error NU1403: ([^\n]*)`)
	nugetTargets = regexp.MustCompile(`error NETSDK1045: ([^\n]*)`)
)

// Explain knows what NuGet writes.
func (n *nuget) Explain(_ *Manifest, output string) *faas.Error {
	if x := nugetSum.FindStringSubmatch(output); x != nil {
		return faas.Errorf(faas.Invalid, op, "a package has another hash than packages.lock.json says: %s", clip(x[1], 200)).
			WithFix("restore packages.lock.json from your history, or make it anew: dotnet restore --force-evaluate")
	}
	if nugetStale.MatchString(output) {
		return faas.Errorf(faas.Invalid, op, "packages.lock.json does not fit the project").WithFix("dotnet restore --use-lock-file -r %s, and deploy again", DotNetPlatform())
	}
	if x := nugetNone.FindStringSubmatch(output); x != nil {
		return faas.Errorf(faas.Invalid, op, "no source has a package that fits %s", x[1]).WithFix("mend its name or version in the project: dotnet package search %s", x[1])
	}
	if x := nugetTargets.FindStringSubmatch(output); x != nil {
		return faas.Errorf(faas.Unavailable, op, "the project wants a newer .NET than this host has: %s", clip(x[1], 200)).
			WithFix("have the operator install that SDK, or lower TargetFramework")
	}
	return nil
}
