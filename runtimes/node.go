package runtimes

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

//go:embed node/bootstrap.js node/rehearsal node/trial node/native/bin/*.node
var nodeFiles embed.FS

// NodePack is the file of a function's code in which its modules lie packed.
const NodePack = ".brasa-pack"

// unpackNode writes the bootstrap and what belongs to it where sandboxes can read them.
func unpackNode(dir string) error {
	return fs.WalkDir(nodeFiles, "node", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := nodeFiles.ReadFile(name)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, filepath.FromSlash(strings.TrimPrefix(name, "node")))
		if arch, ok := strings.CutSuffix(filepath.Base(name), ".node"); ok {
			if arch != runtime.GOARCH {
				return nil
			}
			to = filepath.Join(dir, "native.node")
		}
		return unpack(filepath.Dir(to), filepath.Base(to), content)
	})
}

// checkNode says why a process of this Node.js can't be given new randomness; nil if it can.
func (rt *Runtime) checkNode(ctx context.Context) error {
	args := append(slices.Clone(rt.args), filepath.Join(rt.bootDir, rt.boot), "check")
	out, err := probe(ctx, rt.Program, args...)
	if err != nil {
		return err
	}
	var can struct{ Reseeds bool }
	if err := json.Unmarshal(out, &can); err != nil {
		return err
	}
	if !can.Reseeds {
		return fmt.Errorf("the OpenSSL of Node.js %s can't be given new randomness from outside of it on %s", rt.Version, runtime.GOARCH)
	}
	return nil
}

// Reseeds says why a process of the runtime that was put back to an earlier state of its memory
// would repeat the random numbers that it drew; nil if the seeds of LOAD and CALL prevent that. One
// that would must be replaced instead: it ends itself when it is told in a CALL.
func (rt *Runtime) Reseeds() error { return rt.reseeds }

func findNode(ctx context.Context, cfg Config, dir string) (*Runtime, error) {
	why := fmt.Errorf("no node in /usr/bin, /usr/local/bin or PATH")
	for _, p := range candidates(cfg.Node, "node", "nodejs") {
		out, err := probe(ctx, p, "-p", "JSON.stringify([process.versions.node, process.execPath])")
		if err != nil {
			why = err
			continue
		}
		var a [2]string
		var major int
		if err := json.Unmarshal(out, &a); err != nil {
			why = fmt.Errorf("ask %s for its version: %w", p, err)
			continue
		}
		if _, err := fmt.Sscanf(a[0], "%d.", &major); err != nil || major < 18 {
			why = fmt.Errorf("%s is Node.js %s; 18 or newer is needed", p, clip(a[0]))
			continue
		}
		if err := unpackNode(dir); err != nil {
			return nil, fmt.Errorf("unpack bootstrap: %w", err)
		}
		rt := &Runtime{
			Version: a[0], Program: a[1], RootDir: rootOf(filepath.Dir(filepath.Dir(a[1]))), Style: StyleFrames,
			bootDir: dir, boot: "bootstrap.js", args: []string{"--no-warnings"},
		}
		rt.reseeds = rt.checkNode(ctx)
		return rt, nil
	}
	return nil, why
}

// poolVariable is what Node.js reads the number of its pool's threads from. They are started
// before a function's environment comes, so it must be in that of the process.
const poolVariable = "UV_THREADPOOL_SIZE"

// maxPool is the largest pool that libuv makes.
const maxPool = 1024

// poolOf returns the size of the thread pool that a revision asks for, 0 if for none.
func poolOf(rev *faas.Revision) int {
	if rev == nil {
		return 0
	}
	n, err := strconv.Atoi(rev.Env[poolVariable])
	if err != nil || n < 1 || n > maxPool {
		return 0
	}
	return n
}

// nodeCommand returns what is given to the interpreter before the bootstrap, and the variables
// that it must have at its start, for a revision or for none.
func (rt *Runtime) nodeCommand(rev *faas.Revision) (args, env []string) {
	args = append([]string{rt.Program}, rt.args...)
	if rev != nil && rev.Limits.Memory > 0 {
		args = append(args, fmt.Sprintf("--max-old-space-size=%d", heapMiB(rev.Limits.Memory)))
	}
	if n := poolOf(rev); n > 0 {
		env = append(env, fmt.Sprintf("%s=%d", poolVariable, n))
	}
	return append(args, BootDir+"/"+rt.boot), env
}

// nodeStem returns how a stem for the revision is started. V8 takes the bound of its heap, and
// libuv the size of its pool, at the start only.
func (rt *Runtime) nodeStem(rev *faas.Revision) Stem {
	same := faas.Revision{Limits: faas.Limits{Memory: rev.Limits.Memory}}
	s := Stem{Class: rt.Name}
	if same.Limits.Memory > 0 {
		s.Class += fmt.Sprintf("-%d", heapMiB(same.Limits.Memory))
	}
	if n := poolOf(rev); n > 0 {
		s.Class += fmt.Sprintf("-pool%d", n)
		same.Env = map[string]string{poolVariable: strconv.Itoa(n)}
	}
	s.Args, s.Env, s.Mounts = rt.Command(&same)
	if rt.reseeds == nil {
		s.Zygote, s.Spare = append(slices.Clone(s.Args), "zygote"), true
	}
	s.Args = append(s.Args, "stem") // what has time before it is claimed rehearses
	return s
}
