package deploy

import (
	"context"
	_ "embed"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

//go:embed launcher/launcher.swift.txt
var swiftLauncher string

// swiftWhisk is what an action calls its platform by. It needs the library for HTTP, which takes time to load, so only
// those have it that name it.
//
//go:embed launcher/whisk.swift.txt
var swiftWhisk string

const (
	swiftManifest  = "Package.swift"
	swiftWhiskFile = "_Whisk.swift"
	swiftProduct   = "Action" // of a package, as OpenWhisk has it
)

var (
	swiftName  = regexp.MustCompile(`^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$`)
	swiftCalls = regexp.MustCompile(`\bWhisk\s*\.\s*(invoke|trigger|createTrigger|createRule)\b|\bWhiskError\b`)
)

// launchSwift adds the program around an action to its main.swift, the one file whose statements are run. Its place is
// Sources, as the package manager has it; what has no manifest may have it at its top.
func (a *action) launchSwift() error {
	if !swiftName.MatchString(a.plan.Handler) {
		return faas.Errorf(faas.Invalid, opAction, "%q is no name of a function", a.plan.Handler)
	}
	root, err := os.OpenRoot(a.src)
	if err != nil {
		return err
	}
	defer root.Close()
	main, err := swiftMain(root.FS())
	if err != nil {
		return err
	}
	text, err := root.ReadFile(main)
	if err != nil {
		return err
	}
	calls := false
	err = fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || calls || !e.Type().IsRegular() || path.Ext(name) != ".swift" {
			return err
		}
		source, err := root.ReadFile(name)
		calls = calls || swiftCalls.Match(source)
		return err
	})
	if err != nil {
		return err
	}
	if calls {
		if err := root.WriteFile(path.Join(path.Dir(main), swiftWhiskFile), []byte(swiftWhisk), 0o644); err != nil {
			return err
		}
	}
	a.plan.Entry = main
	return root.WriteFile(main, []byte(string(text)+"\n"+strings.ReplaceAll(swiftLauncher, "ACTION", a.plan.Handler)), 0o644)
}

// swiftMain finds the file main.swift of an action.
func swiftMain(tree fs.FS) (string, error) {
	places := []string{"Sources/main.swift"}
	if _, err := fs.Stat(tree, swiftManifest); err != nil {
		places = append(places, actionFiles[runtimes.Swift])
	}
	more, err := fs.Glob(tree, "Sources/*/main.swift")
	if err != nil {
		return "", err
	}
	for _, p := range append(places, more...) {
		if info, err := fs.Stat(tree, p); err == nil && info.Mode().IsRegular() {
			return p, nil
		}
	}
	return "", faas.Errorf(faas.Invalid, opAction, "the archive includes neither %s nor a program exec at its top", places[0])
}

// buildSwift compiles the code of an action, with the program around it, and returns the directory that holds the
// program alone.
//
// The compiler runs confined like a function, without a network, and so do a package's manifest and plug-ins: they see
// the source, the toolchain and their own namespace's cache of compiled headers, which is what a poisoned entry could
// reach.
func (d *Deployer) buildSwift(ctx context.Context, req Request, plan *runtimes.Plan, deps *deps, dir, src string) (string, error) {
	rt, err := d.cfg.Runtimes.Lookup(runtimes.Swift)
	if err != nil {
		return "", err
	}
	work, out := filepath.Join(dir, "build"), filepath.Join(dir, "out")
	cache, err := d.buildDirs("swiftcache", req.Name.Namespace, out)
	if err != nil {
		return "", err
	}
	if err := copySource(src, work); err != nil {
		return "", err
	}
	script := swiftCompile
	if _, err := os.Stat(filepath.Join(src, swiftManifest)); err == nil {
		script = swiftPackage
	}
	bin := path.Dir(rt.Compiler)
	log := &install.Tail{Most: 64 << 10}
	spec := sandbox.Spec{
		Name: buildName(dir), Hostname: "build",
		Args: []string{"/bin/sh", "-ec", script, "sh", bin, path.Dir(plan.Entry), actionEntry, swiftProduct},
		Env:  []string{"HOME=/tmp", "TMPDIR=/tmp", "PATH=" + bin + ":/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"},
		Dir:  "/src",
		Mounts: []sandbox.Mount{
			{Source: work, Target: "/src", Writable: true},
			{Source: out, Target: "/out", Writable: true},
			{Source: cache, Target: "/cache", Writable: true},
		},
		Tmp: int64(faas.GiB), Memory: int64(d.cfg.Build.Memory), CPU: d.cfg.Build.CPU, PIDs: d.cfg.Build.PIDs, Files: 4096,
	}
	spec.Mounts = append(spec.Mounts, deps.mounts()...)
	if err := d.runBuild(ctx, spec, log); err != nil {
		if swiftRemote.MatchString(log.String()) && faas.CodeOf(err) == faas.Failed {
			e := faas.AsError(err)
			return "", faas.Errorf(e.Code, e.Op, "packages are not got here: bring them in the archive, as .package(path:), or compile the action elsewhere and send the program as exec; %s", e.Message())
		}
		return "", err
	}
	plan.Entry, plan.Handler = actionEntry, ""
	return out, nil
}

// Code that was written for older versions of the language is compiled as theirs.
const (
	swiftCompile = `bin=$1 dir=$2 name=$3 product=$4
find "$dir" -name '*.swift' >/tmp/files
"$bin/swiftc" -O -swift-version 5 -suppress-warnings -module-cache-path /cache -module-name "$product" -o "/out/$name" @/tmp/files`
	swiftPackage = `bin=$1 name=$3 product=$4
"$bin/swift-build" -c release --disable-sandbox --scratch-path /tmp/build -Xswiftc -module-cache-path -Xswiftc /cache
[ -f "/tmp/build/release/$product" ] || { echo "error: the package has no executable product $product"; exit 1; }
cp "/tmp/build/release/$product" "/out/$name"`
)

// swiftRemote is how the package manager says that it can't get a package.
var swiftRemote = regexp.MustCompile(`(?i)failed to clone|unable to access 'http|could not resolve host|error: .*(?:git|fetch)`)
