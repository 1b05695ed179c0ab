package worker

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// stdio are a process's first three descriptors, as far as its style has a use for them: our ends
// and, until it has started, its own.
type stdio struct {
	in       *os.File // we write
	out, err *os.File // we read; nil where the logPipe does
	theirs   []*os.File
}

// open makes the pipes and puts the process's ends into spec.
func (s *stdio) open(in *instance, style runtimes.Style, spec *sandbox.Spec) (err error) {
	if style != runtimes.StyleExec {
		if in.out, err = newLogPipe(); err != nil {
			return err
		}
		if style == runtimes.StyleAction {
			in.out.skip(runtimes.ActionEnd)
		}
		in.out.aim(in.stray)
		spec.Stdout, spec.Stderr = in.out.out.w, in.out.err.w
		s.theirs = append(s.theirs, spec.Stdout, spec.Stderr)
	}
	end := func(weRead bool, ours, theirs **os.File) {
		if err == nil {
			if *ours, *theirs, err = pipe(weRead); err == nil {
				s.theirs = append(s.theirs, *theirs)
			}
		}
	}
	if style == runtimes.StyleExec || style == runtimes.StyleLines || style == runtimes.StyleLoop {
		end(false, &s.in, &spec.Stdin)
	}
	if style == runtimes.StyleExec {
		end(true, &s.out, &spec.Stdout)
		end(true, &s.err, &spec.Stderr)
	}
	return err
}

// closeTheirs closes the process's ends in this process, so that we see when it has closed them.
func (s *stdio) closeTheirs() {
	for _, f := range s.theirs {
		_ = f.Close()
	}
	s.theirs = nil
}

// close closes our ends.
func (s *stdio) close() {
	for _, f := range []*os.File{s.in, s.out, s.err} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// execConn is the conversation with a process that serves one call by being started.
type execConn struct {
	in  *instance
	std *stdio
}

func (c *execConn) RoundTrip(ctx context.Context, inv *faas.Invocation, logs runtimes.LogSink) (*faas.Result, error) {
	box := c.in.box
	return runtimes.ExecCall(ctx, runtimes.ExecProcess{
		Stdin: c.std.in, Stdout: c.std.out, Stderr: c.std.err, Kill: box.Kill,
		Wait: func() runtimes.Exit {
			x := box.Exit()
			return runtimes.Exit{Code: x.Code, Signal: x.Signal, OOM: x.OOM}
		},
	}, inv, c.in.pool.rev, logs)
}

func (c *execConn) Close() error {
	c.std.close()
	return nil
}

// proveProgram shows that an executable could be started, without running it: that it, the
// interpreter of its first line and, if it is linked dynamically, all its libraries are there in
// a sandbox like its own. Running it would be a call that nobody made.
func (w *Worker) proveProgram(ctx context.Context, rev *faas.Revision, rt *runtimes.Runtime) (proof faas.Proof, err error) {
	began := time.Now()
	in := &instance{id: newInstanceID(), stray: &strayLog{limit: rev.Limits.Log}}
	defer func() {
		in.close()
		proof.Logs = in.stray.take()
		proof.Timing.Total = time.Since(began)
		if e := faas.AsError(err); e != nil && e.Trace == "" {
			var b strings.Builder
			for _, l := range proof.Logs {
				b.WriteString(l.Text + "\n")
			}
			e.Trace = b.String()
		}
	}()
	proof.Timing.Begin = began
	spec, err := w.spec(ctx, rev, rt, in, &proof.Timing)
	if err != nil {
		return proof, err
	}
	if rev.Image != nil {
		if spec.Args = proveImage(&spec); spec.Args == nil {
			return proof, nil
		}
	} else {
		proveFiles(&spec)
	}
	if in.out, err = newLogPipe(); err != nil {
		return proof, faas.AsError(err)
	}
	in.out.aim(in.stray)
	spec.Stdout, spec.Stderr = in.out.out.w, in.out.err.w
	if in.box, err = w.cfg.Sandbox.Start(ctx, spec); err != nil {
		return proof, unsupported(err)
	}
	in.out.started()
	proof.Timing.Add(faas.PhaseProvisioning, time.Since(began))
	addSteps(&proof.Timing, in.box.Steps())
	select {
	case <-in.box.Done():
	case <-ctx.Done():
		return proof, faas.AsError(context.Cause(ctx))
	}
	x := in.box.Exit()
	proof.Memory = faas.Bytes(x.Usage.MemoryPeak)
	in.out.aim(in.stray)
	said := in.stray.take()
	lacks := ""
	if rev.Image != nil {
		lacks = missing(said)
	}
	if x.Code != 0 || x.Signal != 0 || lacks != "" {
		if lacks == "" && len(said) > 0 {
			lacks = said[len(said)-1].Text
		}
		text := "it can't be started in its sandbox"
		if lacks != "" {
			text += ": " + lacks
		}
		return proof, faas.Errorf(faas.Failed, "prove program", "%s", text).
			WithFix("link it statically, or bring its interpreter and libraries with it")
	}
	return proof, nil
}

// proveFiles makes of a program's spec one that looks for what the program needs.
func proveFiles(spec *sandbox.Spec) {
	files, loader := needs(*spec)
	// The shell is in every root that can run anything; test -x follows links as exec does.
	const script = `for f; do [ -x "$f" ] || { echo "$f: not there, or not executable" >&2; exit 1; }; done`
	spec.Args = append([]string{"/bin/sh", "-c", script, "sh"}, files...)
	if loader != "" {
		// In this mode the loader resolves every library and runs nothing (ld.so(8)). It may say
		// "not found" and exit with success.
		spec.Args[2] = script + `; out=$("$LOADER" --list "$PROGRAM" 2>&1) || { echo "$out" >&2; exit 1; }
			case $out in *"not found"*) echo "$out" | while read -r l; do case $l in *"not found"*) echo "$l" >&2;; esac; done; exit 1;; esac`
		spec.Env = append(spec.Env, "LOADER="+loader, "PROGRAM="+files[0])
	}
}

// needs returns the files that must be there for a spec's program to start, the program first,
// and the dynamic loader that it names.
func needs(spec sandbox.Spec) (files []string, loader string) {
	program := spec.Args[0]
	files = []string{program}
	rel, ok := strings.CutPrefix(program, runtimes.CodeDir+"/")
	if !ok {
		return files, ""
	}
	// The code lies on our side of the mount; links in it stay inside it.
	root, err := os.OpenRoot(spec.Mounts[0].Source)
	if err != nil {
		return files, ""
	}
	defer root.Close()
	f, err := root.Open(filepath.FromSlash(rel))
	if err != nil {
		return files, ""
	}
	defer f.Close()
	head := make([]byte, 256)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return files, ""
	}
	head = head[:n]
	if line, ok := bytes.CutPrefix(head, []byte("#!")); ok {
		line, _, _ = bytes.Cut(line, []byte{'\n'})
		if words := strings.Fields(string(line)); len(words) > 0 {
			files = append(files, words[0])
		}
		return files, ""
	}
	e, err := elf.NewFile(f)
	if err != nil {
		return files, ""
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_INTERP {
			if b, err := io.ReadAll(io.LimitReader(p.Open(), 4096)); err == nil {
				loader = strings.TrimRight(string(b), "\x00")
				files = append(files, loader)
			}
		}
	}
	return files, loader
}
