package deploy

import (
	"context"
	"os"
	"path"
	"path/filepath"
	"regexp"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
	"github.com/brasa-dev/brasa/runtimes/java"
)

// buildJava compiles the Java function in src and returns the directory of its classes. What
// was compiled elsewhere stays as it is, and its handler is looked for.
//
// The compiler runs confined like a function, without a network: it sees the source, the JDK and
// the bootstrap's jar, whose names the source may use.
func (d *Deployer) buildJava(ctx context.Context, _ Request, plan *runtimes.Plan, _ *deps, dir, src string) (string, error) {
	root, err := os.OpenRoot(src)
	if err != nil {
		return "", err
	}
	defer root.Close()
	o := java.Options{Entry: plan.Entry, Handler: plan.Handler, Boot: runtimes.JavaBootstrap, Lib: "/jars", Output: "/out"}
	source, err := java.HasSource(root.FS())
	if err != nil {
		return "", err
	}
	if !source || path.Ext(plan.Entry) == ".jar" || path.Ext(plan.Entry) == ".class" {
		plan.Entry, plan.Handler, err = java.Settle(root.FS(), o)
		return src, err
	}
	rt, err := d.cfg.Runtimes.Lookup(runtimes.Java)
	if err != nil {
		return "", err
	}
	if rt.Compiler == "" {
		return "", faas.Errorf(faas.Unavailable, "build function", "this host has Java %s without a compiler, which can run classes and not build source", rt.Version).
			WithFix("install a JDK on the host: apt-get install default-jdk-headless; or compile the code and deploy its jar")
	}
	o.Javac = rt.Compiler
	work, out := filepath.Join(dir, "build"), filepath.Join(dir, "out")
	for _, p := range []string{work, out} {
		if err := os.MkdirAll(p, 0o755); err != nil {
			return "", err
		}
	}
	b, err := java.Generate(src, work, o)
	if err != nil {
		return "", err
	}
	_, _, boot := rt.Command(nil)
	mounts := []sandbox.Mount{{Source: work, Target: "/src"}, {Source: out, Target: "/out", Writable: true}}
	mounts = append(mounts, readable(boot)...)
	if b.Lib {
		mounts = append(mounts, sandbox.Mount{Source: filepath.Join(src, "lib"), Target: o.Lib})
	}
	log := &tail{most: 64 << 10}
	spec := sandbox.Spec{
		Name: buildName(dir), Hostname: "build",
		Args: b.Args, Env: []string{"HOME=/tmp", "PATH=/usr/bin:/bin", "LANG=C.UTF-8", "LC_ALL=C.UTF-8"}, Dir: "/src", Mounts: mounts,
		Tmp: int64(faas.GiB), Memory: int64(d.cfg.Build.Memory), CPU: d.cfg.Build.CPU, PIDs: d.cfg.Build.PIDs, Files: 4096,
	}
	if err := d.runBuild(ctx, spec, log); err != nil {
		if m := absentPackage.FindStringSubmatch(log.String()); m != nil && faas.CodeOf(err) == faas.Failed {
			return "", faas.AsError(err).WithFix("nothing is installed for a function; bring the jar that has %s in lib/: mvn dependency:copy-dependencies -DoutputDirectory=lib", m[1])
		}
		return "", err
	}
	plan.Entry, plan.Handler, err = java.Finish(src, out, o)
	return out, err
}

// absentPackage is how javac says that a package is not on its class path.
var absentPackage = regexp.MustCompile(`error: package ([\w.]+) does not exist`)
