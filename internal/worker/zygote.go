package worker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

const (
	// A zygote's children share what it drew at its start and can't be drawn again: the seed of
	// string hashes, the places of its memory. So another takes over now and then.
	zygoteForks = 10_000
	zygoteAge   = 30 * time.Minute
	// One that is for need only is replaced sooner: there is time to, as nobody waits for it.
	spareForks = 1000
	spareAge   = 10 * time.Minute
	// zygotePause is how long nothing is forked after a zygote could not be started.
	zygotePause = 30 * time.Second
	// zygoteTime bounds the start of one that nobody waits for.
	zygoteTime = time.Minute
	// zygoteKeep is how long one that is for need only stays when nothing is forked.
	zygoteKeep = 5 * time.Minute
	// badForks is after how many forks in a row that were of no use no more is tried.
	badForks = 3
)

// zygote is a runtime's, for all classes of its stems that are started by the same command.
type zygote struct {
	mu       sync.Mutex // held while one is started that is waited for
	z        *sandbox.Zygote
	born     time.Time
	used     time.Time
	forks    int
	bad      int         // forks in a row that came to nothing
	pause    time.Time   // no attempt before this
	never    bool        // this machine can't have one
	starting bool        // one that nobody waits for
	up       atomic.Bool // for those who can't wait for mu: whether there is one
}

// zygote returns what a process of the runtime can be forked from, nil if it has to be started.
func (w *Worker) zygote(ctx context.Context, rt *runtimes.Runtime, how *runtimes.Stem) *sandbox.Zygote {
	if how.Zygote == nil || how.Spare && !w.forkable(rt, how) {
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
	if how.Spare {
		w.renewSpare(g, rt, how)
	} else {
		w.renew(ctx, g, rt, how)
	}
	if g.z == nil || g.never {
		return nil
	}
	g.forks++
	g.used = time.Now()
	return g.z
}

// renew starts a zygote if there is none, or it has served long enough. The caller holds g.mu.
func (w *Worker) renew(ctx context.Context, g *zygote, rt *runtimes.Runtime, how *runtimes.Stem) {
	if g.z != nil && g.due(zygoteForks, zygoteAge) {
		g.end() // its children live on
	}
	if g.z != nil || !g.may() || w.life.Err() != nil {
		return
	}
	z, err := w.startZygote(ctx, how)
	g.take(z, err)
	if err != nil {
		w.cfg.Logger.Log(ctx, surprise(err), "no zygote; processes are started instead of forked", "runtime", rt.Name, "err", err)
	}
}

// renewSpare does so aside: who is in need now is served sooner by a start. The caller holds g.mu,
// and is work of the worker's.
func (w *Worker) renewSpare(g *zygote, rt *runtimes.Runtime, how *runtimes.Stem) {
	if g.z != nil && !g.due(spareForks, spareAge) || !g.may() || g.starting || w.life.Err() != nil {
		return
	}
	g.starting = true
	w.work.Go(func() {
		ctx, cancel := context.WithTimeout(w.life, zygoteTime)
		defer cancel()
		z, err := w.startZygote(ctx, how)
		g.mu.Lock()
		defer g.mu.Unlock()
		g.starting = false
		if err == nil {
			g.end()
		} else if w.life.Err() == nil {
			w.cfg.Logger.Log(ctx, surprise(err), "no zygote; processes are started in need, too", "runtime", rt.Name, "err", err)
		}
		g.take(z, err)
	})
}

// surprise is the level at which a failure is logged: low where this host cannot do it at all, which is
// said when the server starts and need not be said again.
func surprise(err error) slog.Level {
	if _, ok := errors.AsType[*sandbox.UnsupportedError](err); ok {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

func (w *Worker) startZygote(ctx context.Context, how *runtimes.Stem) (*sandbox.Zygote, error) {
	spec := sandbox.ZygoteSpec{Name: "zygote-" + newInstanceID()[2:], Args: how.Zygote, Env: how.Env}
	for _, m := range how.Mounts {
		spec.Mounts = append(spec.Mounts, sandbox.Mount{Source: m.Source, Target: m.Target})
	}
	return w.cfg.Sandbox.StartZygote(ctx, spec)
}

// due says whether the zygote has served long enough. The caller holds mu.
func (g *zygote) due(forks int, age time.Duration) bool {
	return g.forks >= forks || time.Since(g.born) > age
}

// may says whether one may be started now. The caller holds mu.
func (g *zygote) may() bool { return !g.never && !time.Now().Before(g.pause) }

// take makes z the zygote, or notes why there is none. The caller holds mu.
func (g *zygote) take(z *sandbox.Zygote, err error) {
	now := time.Now()
	if err != nil {
		_, g.never = errors.AsType[*sandbox.UnsupportedError](err)
		g.pause = now.Add(zygotePause)
		return
	}
	g.z, g.born, g.used, g.forks = z, now, now, 0
	g.up.Store(true)
}

// end closes the zygote. The caller holds mu.
func (g *zygote) end() {
	if g.z != nil {
		_ = g.z.Close()
		g.z = nil
		g.up.Store(false)
	}
}

// noteFork notes what became of a stem that was forked. A zygote whose children come to nothing is
// given up, and after some such nothing is forked any more.
func (w *Worker) noteFork(class string, err error) {
	w.mu.Lock()
	g := w.zygotes[class]
	w.mu.Unlock()
	if g == nil || w.life.Err() != nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err == nil {
		g.bad = 0
		return
	}
	g.bad++
	g.end()
	if g.bad >= badForks && !g.never {
		g.never = true
		w.cfg.Logger.Warn("forked processes come to nothing; they are started from now on", "class", class, "err", err)
	}
}

// tendZygotes ends zygotes that are for need only when there has been none for a while. The caller
// holds w.mu.
func (w *Worker) tendZygotes(now time.Time) {
	for _, s := range w.stems {
		g := w.zygotes[s.how.Class]
		if !s.how.Spare || g == nil || !g.mu.TryLock() {
			continue
		}
		if g.z != nil && now.Sub(g.used) > zygoteKeep {
			z := g.z
			g.z = nil
			g.up.Store(false)
			w.work.Go(func() { _ = z.Close() })
		}
		g.mu.Unlock()
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
