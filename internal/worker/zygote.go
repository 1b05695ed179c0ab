package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

const (
	// A zygote's children share what it drew at its start and can't be drawn again: the seed of
	// Python's string hashes, the places of its memory. So another takes over now and then.
	zygoteForks = 10_000
	zygoteAge   = 30 * time.Minute
	// zygotePause is how long nothing is forked after a zygote could not be started.
	zygotePause = 30 * time.Second
)

// zygote is a runtime's, for all classes of its stems that are started by the same command.
type zygote struct {
	mu    sync.Mutex // held while one is started: those who want to fork wait for it
	z     *sandbox.Zygote
	born  time.Time
	forks int
	pause time.Time // no attempt before this
	never bool      // this machine can't have one
}

// zygote returns what a process of the runtime can be forked from, nil if it has to be started.
func (w *Worker) zygote(ctx context.Context, rt *runtimes.Runtime, how *runtimes.Stem) *sandbox.Zygote {
	if how.Zygote == nil {
		return nil
	}
	w.mu.Lock()
	g := w.zygotes[how.Class]
	if g == nil {
		g = &zygote{}
		w.zygotes[how.Class] = g
	}
	w.mu.Unlock()

	g.mu.Lock()
	defer g.mu.Unlock()
	if g.z != nil {
		select {
		case <-g.z.Done():
			w.cfg.Logger.Warn("zygote died; another is started", "runtime", rt.Name)
			g.end()
		default:
		}
	}
	now := time.Now()
	if g.z != nil && (g.forks >= zygoteForks || now.Sub(g.born) > zygoteAge) {
		g.end() // its children live on
	}
	if g.z == nil {
		if g.never || now.Before(g.pause) || w.life.Err() != nil {
			return nil
		}
		spec := sandbox.ZygoteSpec{Name: "zygote-" + newInstanceID()[2:], Args: how.Zygote, Env: how.Env}
		for _, m := range how.Mounts {
			spec.Mounts = append(spec.Mounts, sandbox.Mount{Source: m.Source, Target: m.Target})
		}
		z, err := w.cfg.Sandbox.StartZygote(ctx, spec)
		if err != nil {
			_, g.never = errors.AsType[*sandbox.UnsupportedError](err)
			g.pause = now.Add(zygotePause)
			w.cfg.Logger.Warn("no zygote; processes are started instead of forked", "runtime", rt.Name, "err", err)
			return nil
		}
		g.z, g.born, g.forks = z, now, 0
	}
	g.forks++
	return g.z
}

// end closes the zygote. The caller holds mu.
func (g *zygote) end() {
	if g.z != nil {
		_ = g.z.Close()
		g.z = nil
	}
}

// endZygotes closes all. Nothing forks any more.
func (w *Worker) endZygotes() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range w.zygotes {
		g.mu.Lock()
		g.end()
		g.mu.Unlock()
	}
}
