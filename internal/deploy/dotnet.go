package deploy

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// buildDotNet publishes the project in src as a program that needs no .NET to run, and returns the
// directory that holds it.
//
// The SDK runs confined like a function, without a network, and so does what the project has it do:
// they see the source, the SDK and the packages that were got for it.
func (d *Deployer) buildDotNet(ctx context.Context, _ Request, plan *runtimes.Plan, deps *deps, dir, src string) (string, error) {
	const op = "build function"
	rt, err := d.cfg.Runtimes.Lookup(runtimes.DotNet)
	if err != nil {
		return "", err
	}
	if plan.Runtime == runtimes.Wasm {
		return "", faas.Errorf(faas.Unavailable, op, "source in .NET is not built for WebAssembly here").WithFix("build the module elsewhere and deploy that, or leave --language out")
	}
	work, out := filepath.Join(dir, "build"), filepath.Join(dir, "out")
	if err := copySource(src, work); err != nil {
		return "", err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return "", err
	}
	log := &install.Tail{Most: 64 << 10}
	spec := sandbox.Spec{
		Name: buildName(dir), Hostname: "build",
		Args: []string{"/bin/sh", "-ec", dotnetPublish, "sh", rt.Program, plan.Entry, install.DotNetPlatform(), runtimes.GoBinary},
		Env:  append(slices.Clone(install.DotNetEnv), "HOME=/tmp", "TMPDIR=/tmp", "PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"),
		Dir:  install.WorkDir + "/code", // where it was restored
		Mounts: []sandbox.Mount{
			{Source: work, Target: install.WorkDir + "/code", Writable: true}, // obj and bin lie beside the source
			{Source: out, Target: "/out", Writable: true},
		},
		Tmp: int64(faas.GiB), Memory: int64(d.cfg.Build.Memory), CPU: d.cfg.Build.CPU, PIDs: d.cfg.Build.PIDs, Files: 4096,
	}
	spec.Mounts = append(append(spec.Mounts, readable(rt.Tools)...), deps.mounts()...)
	if err := d.runBuild(ctx, spec, log); err != nil {
		if x := dotnetError.FindStringSubmatch(log.String()); x != nil {
			e := faas.AsError(err)
			return "", e.WithFix("%s", x[1])
		}
		return "", err
	}
	plan.Entry, plan.Handler = runtimes.GoBinary, ""
	return out, nil
}

// dotnetEntry finds the assembly of an action, which comes published: its main begins with the assembly's name.
func (a *action) dotnetEntry() error {
	const form = "Assembly::Namespace.Type::Method"
	parts := strings.Split(a.plan.Handler, "::")
	switch {
	case a.exists(actionFiles[runtimes.DotNet]):
		return faas.Errorf(faas.Invalid, opAction, "the code of an action in .NET must be a zip of what dotnet publish has made")
	case len(parts) != 3:
		return faas.Errorf(faas.Invalid, opAction, "main is %q; of an action in .NET it must have the form %s", a.plan.Handler, form)
	}
	a.plan.Entry = parts[0] + ".dll"
	if !a.exists(a.plan.Entry) {
		return faas.Errorf(faas.Invalid, opAction, "the archive does not include %s at its top", a.plan.Entry)
	}
	return nil
}

// The packages are asked for again, of those that are there: what that writes lies beside the source.
const dotnetPublish = `dotnet=$1 project=$2 platform=$3 name=$4
"$dotnet" restore "$project" --source /nuget --runtime "$platform" -p:SelfContained=true -p:PublishSingleFile=true
"$dotnet" publish "$project" --no-restore --configuration Release --runtime "$platform" --self-contained true \
	-p:PublishSingleFile=true -p:IncludeNativeLibrariesForSelfExtract=false -p:InvariantGlobalization=true -p:DebugType=none -o /out
for f in /out/*.runtimeconfig.json; do [ ! -e "$f" ] || rm "$f"; done
one=
for f in /out/*; do if [ -f "$f" ] && [ -x "$f" ] && [ "${f%.*}" = "$f" ]; then one=$f; fi; done
[ -n "$one" ] || { echo "error: the project makes no program: OutputType must be Exe"; exit 1; }
mv "$one" "/out/$name"`

var dotnetError = regexp.MustCompile(`(?m)^\S*\s*error:? (the project makes no program[^\n]*)$`)
