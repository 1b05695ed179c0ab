package deploy

import (
	"archive/zip"
	"context"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
	"github.com/brasa-dev/brasa/runtimes/java"
)

// buildJava compiles the Java function in src and returns the directory of its classes. What
// was compiled elsewhere stays as it is, and its handler is looked for.
//
// The compiler runs confined like a function, without a network, and so do annotation processors: it
// sees the source, the JDK, the jars that were got for it and the bootstrap's jar, whose names the
// source may use.
func (d *Deployer) buildJava(ctx context.Context, _ Request, plan *runtimes.Plan, deps *deps, dir, src string) (string, error) {
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
	o.Javac, o.Version = rt.Compiler, rt.Version
	work, out := filepath.Join(dir, "build"), filepath.Join(dir, "out")
	for _, p := range []string{work, out} {
		if err := os.MkdirAll(p, 0o755); err != nil {
			return "", err
		}
	}
	if deps != nil && deps.Dir != "" {
		o.Deps = []string{deps.Target, deps.Target + "/" + install.MavenProvided}
		if o.Process, err = hasProcessor(deps.Dir); err != nil {
			return "", err
		}
	}
	b, err := java.Generate(src, work, o)
	if err != nil {
		return "", err
	}
	_, _, boot := rt.Command(nil)
	mounts := []sandbox.Mount{{Source: work, Target: "/src"}, {Source: out, Target: "/out", Writable: true}}
	mounts = append(append(mounts, readable(boot)...), deps.mounts()...)
	if b.Lib {
		mounts = append(mounts, sandbox.Mount{Source: filepath.Join(src, "lib"), Target: o.Lib})
	}
	log := &install.Tail{Most: 64 << 10}
	spec := sandbox.Spec{
		Name: buildName(dir), Hostname: "build",
		Args: b.Args, Env: []string{"HOME=/tmp", "PATH=/usr/bin:/bin", "LANG=C.UTF-8", "LC_ALL=C.UTF-8"}, Dir: "/src", Mounts: mounts,
		Tmp: int64(faas.GiB), Memory: int64(d.cfg.Build.Memory), CPU: d.cfg.Build.CPU, PIDs: d.cfg.Build.PIDs, Files: 4096,
	}
	if err := d.runBuild(ctx, spec, log); err != nil {
		if m := absentPackage.FindStringSubmatch(log.String()); m != nil && faas.CodeOf(err) == faas.Failed {
			return "", faas.AsError(err).WithFix("name what has %s in pom.xml, or with --with group:artifact:version, or bring its jar in lib", m[1])
		}
		return "", err
	}
	plan.Entry, plan.Handler, err = java.Finish(src, out, o)
	return out, err
}

// hasProcessor says whether a jar that was installed brings an annotation processor.
func hasProcessor(dir string) (bool, error) {
	for _, pattern := range []string{"*.jar", install.MavenProvided + "/*.jar"} {
		jars, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return false, err
		}
		for _, jar := range jars {
			z, err := zip.OpenReader(jar)
			if err != nil {
				continue // which the compiler says
			}
			_, err = fs.Stat(z, "META-INF/services/javax.annotation.processing.Processor")
			_ = z.Close() // only read
			if err == nil {
				return true, nil
			}
		}
	}
	return false, nil
}

// absentPackage is how javac says that a package is not on its class path.
var absentPackage = regexp.MustCompile(`error: package ([\w.]+) does not exist`)
