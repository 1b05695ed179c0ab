package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

const (
	// trialTime bounds the trial of a runtime's forks.
	trialTime = 2 * time.Minute
	// A trial that failed may have failed for the machine's sake, so it is made again.
	trialPause = 5 * time.Minute
	trialTimes = 3
)

// ErrNoForks is why nothing is forked where it was switched off.
var ErrNoForks = errors.New("forks are switched off")

// trial is what was found out about the forks of a runtime.
type trial struct {
	done  chan struct{}
	err   error // why nothing is forked; to be read when done is closed
	ended time.Time
	times int // it was made, with this one
}

// again says whether it is worth another.
func (t *trial) again() bool {
	select {
	case <-t.done:
		return t.err != nil && t.times > 0 && t.times < trialTimes && time.Since(t.ended) > trialPause
	default:
		return false
	}
}

// forkable says whether processes of the runtime can be forked, as far as that is known. It has it
// found out. The caller is work of the worker's.
func (w *Worker) forkable(rt *runtimes.Runtime, how *runtimes.Stem) bool {
	w.mu.Lock()
	t := w.trial(rt, how)
	w.mu.Unlock()
	select {
	case <-t.done:
		return t.err == nil
	default:
		return false
	}
}

// trial returns the runtime's trial, which is begun if there was none. The caller holds mu.
func (w *Worker) trial(rt *runtimes.Runtime, how *runtimes.Stem) *trial {
	t := w.trials[rt.Name]
	if t != nil && !t.again() {
		return t
	}
	times := 1
	if t != nil {
		times += t.times
	}
	t = &trial{done: make(chan struct{})}
	w.trials[rt.Name] = t
	if w.draining || !w.cfg.Forks {
		t.err = ErrNoForks
		close(t.done)
		return t
	}
	t.times = times
	w.work.Go(func() {
		defer close(t.done)
		defer func() { t.ended = time.Now() }()
		ctx, cancel := context.WithTimeout(w.life, trialTime)
		defer cancel()
		began := time.Now()
		if t.err = w.tryForks(ctx, rt, how); t.err == nil {
			w.cfg.Logger.Debug("forks do all that started processes do", "runtime", rt.Name, "took", time.Since(began))
		} else if w.life.Err() == nil {
			w.cfg.Logger.Warn("nothing is forked; processes are started in need, too", "runtime", rt.Name, "err", t.err)
		}
	})
	return t
}

// Forks says why processes of a runtime, which are started as a rule, are not forked in need; nil if
// they are. That is tried when it is first asked for, which takes a second or so. ok is false for a
// runtime that this is no question for, or that is not here.
func (w *Worker) Forks(ctx context.Context, runtime string) (ok bool, err error) {
	rt, err := w.cfg.Runtimes.Lookup(runtime)
	if err != nil || !rt.Forks() {
		return false, nil
	}
	if err := rt.Reseeds(); err != nil {
		return true, err
	}
	how, _ := rt.Stem(&faas.Revision{Limits: faas.DefaultLimits()})
	w.mu.Lock()
	t := w.trial(rt, &how)
	w.mu.Unlock()
	select {
	case <-t.done:
		return true, t.err
	case <-ctx.Done():
		return true, fmt.Errorf("not known yet: %w", ctx.Err())
	}
}

// tryForks forks two processes and has them do what code needs. It returns what is wrong.
func (w *Worker) tryForks(ctx context.Context, rt *runtimes.Runtime, how *runtimes.Stem) error {
	select {
	case <-w.cfg.Sandbox.Ready():
	case <-ctx.Done():
		return ctx.Err()
	}
	z, err := w.startZygote(ctx, how)
	if err != nil {
		return err
	}
	defer z.Close()
	answer, _, err := w.tryFork(ctx, z, rt, how, "")
	if err != nil {
		return err
	}
	var got struct {
		Tried  int      `json:"tried"`
		Broken []string `json:"broken"`
	}
	if err := json.Unmarshal(answer, &got); err != nil || got.Tried == 0 {
		return fmt.Errorf("the trial answered %.200q", answer)
	}
	if len(got.Broken) > 0 {
		return fmt.Errorf("in a forked process fails: %s", strings.Join(got.Broken, "; "))
	}
	_, exit, err := w.tryFork(ctx, z, rt, how, runtimes.TrialLeave)
	if err == nil || exit.Code != runtimes.TrialStatus {
		return fmt.Errorf("a forked process that was to end with status %d ended with %d, signal %d", runtimes.TrialStatus, exit.Code, exit.Signal)
	}
	return nil
}

// tryFork forks a process and calls a function of the runtime's trial in it. It returns the answer,
// and how the process ended if there was none.
func (w *Worker) tryFork(ctx context.Context, z *sandbox.Zygote, rt *runtimes.Runtime, how *runtimes.Stem, handler string) (answer []byte, exit sandbox.Exit, err error) {
	in := &instance{id: newInstanceID(), stray: &strayLog{limit: faas.DefaultLimits().Log}}
	defer in.close()
	l := faas.DefaultLimits()
	std := &stdio{}
	defer std.closeTheirs()
	spec := sandbox.Spec{
		Name: in.id, Hostname: "function", Env: how.Env, Dir: "/tmp", Zygote: z,
		Tmp: int64(l.Tmp), Memory: int64(l.Memory), CPU: l.CPU, PIDs: l.PIDs, Conn: true,
	}
	for _, m := range how.Mounts {
		spec.Mounts = append(spec.Mounts, sandbox.Mount{Source: m.Source, Target: m.Target})
	}
	if err := std.open(in, runtimes.StyleFrames, &spec); err != nil {
		return nil, exit, err
	}
	if in.box, err = w.cfg.Sandbox.Start(ctx, spec); err != nil {
		in.box = nil
		return nil, exit, err
	}
	std.closeTheirs()
	in.frames = runtimes.NewConn(in.box.Conn(), runtimes.Options{Log: in.stray})
	in.conn = in.frames
	if _, err := in.frames.Hello(ctx); err != nil {
		return nil, exit, err
	}
	load := rt.TrialSpec(handler)
	load.Seed = newSeed()
	if _, err := in.frames.Load(ctx, load); err != nil {
		return nil, exit, err
	}
	now := time.Now()
	inv := &faas.Invocation{ID: faas.NewID(now), Kind: faas.KindInvoke, Body: faas.NewBytesBody(nil), Deadline: now.Add(trialTime), Attempt: 1, Header: map[string][]string{}}
	res, err := in.frames.RoundTrip(ctx, inv, in.stray)
	if err != nil {
		if ctx.Err() == nil {
			exit = in.box.Exit()
		}
		return nil, exit, err
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(res.Body)
	return answer, exit, err
}
