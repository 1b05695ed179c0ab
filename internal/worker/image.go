package worker

import (
	"archive/zip"
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// A revision with an image runs in a sandbox whose root the image is. Its program is started as that
// of any executable is; what is talked to it is one of the protocols that images have.

// ofImage puts the revision's image into the sandbox's spec. The root stays until release.
func (w *Worker) ofImage(ctx context.Context, rev *faas.Revision, spec *sandbox.Spec, t *faas.Timing) (release func(), err error) {
	mark := time.Now()
	root, from, release, err := w.cfg.Depot.RootFrom(ctx, rev.Image.Root)
	if err != nil {
		return nil, faas.AsError(err)
	}
	took := time.Since(mark)
	t.Add(faas.PhaseFetch, took)
	t.SetTrees(append(t.Trees(), faas.Tree{Target: "/", Digest: rev.Image.Root, Bytes: rev.Image.Bytes, From: from, US: took.Microseconds()}))
	spec.Root, spec.Dir = root, cmp.Or(rev.Image.Dir, "/")
	return release, nil
}

// also returns what releases both.
func also(a, b func()) func() {
	return func() {
		a()
		b()
	}
}

// proveImage shows that an image's program could be started, without running it: that all its
// libraries are in the image. That the program and its interpreter are there was found out when the
// image was looked at. It returns nil if there is nothing to run for that.
func proveImage(spec *sandbox.Spec) (args []string) {
	loader := runtimes.Loader(spec.Root, spec.Args[0])
	if loader == "" {
		return nil
	}
	// In this mode the loaders of glibc and of musl resolve every library and run nothing (ld.so(8)).
	return []string{loader, "--list", spec.Args[0]}
}

// missing returns the lines in which a loader says what it has not found; glibc's may exit with
// success all the same.
func missing(lines []faas.LogLine) string {
	for _, l := range lines {
		if strings.Contains(l.Text, "not found") || strings.Contains(l.Text, "Error loading shared library") || strings.Contains(l.Text, "cannot open shared object") {
			return strings.TrimSpace(l.Text)
		}
	}
	return ""
}

// actionCode is what an action is initialised with: the one file of its code as text, or all of it as
// an archive; nothing if the image brings its function.
func actionCode(dir string) (runtimes.ActionCode, error) {
	var none runtimes.ActionCode
	if dir == "" {
		return none, nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return none, err
	}
	defer root.Close()
	tree := root.FS()
	if err := smallAction(tree); err != nil {
		return none, err
	}
	top, err := fs.ReadDir(tree, ".")
	if err != nil {
		return none, err
	}
	if len(top) == 1 && top[0].Type().IsRegular() {
		b, err := fs.ReadFile(tree, top[0].Name())
		if err != nil {
			return none, err
		}
		if utf8.Valid(b) {
			return runtimes.ActionCode{Code: string(b)}, nil
		}
		return runtimes.ActionCode{Code: base64.StdEncoding.EncodeToString(b), Binary: true}, nil
	}
	var packed bytes.Buffer
	z := zip.NewWriter(&packed)
	if err := errors.Join(z.AddFS(tree), z.Close()); err != nil {
		return none, err
	}
	return runtimes.ActionCode{Code: base64.StdEncoding.EncodeToString(packed.Bytes()), Binary: true}, nil
}

// maxActionCode is what OpenWhisk takes for the code of an action. It is held in memory several times over
// while it is sent, for each instance that starts.
const maxActionCode = 48 * faas.MiB

func smallAction(tree fs.FS) error {
	sum := faas.Bytes(0)
	return fs.WalkDir(tree, ".", func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if sum += faas.Bytes(info.Size()); sum > maxActionCode {
			return faas.Errorf(faas.TooLarge, "read code", "the code of an action may have no more than %s", maxActionCode).WithLimit("action_bytes").
				WithFix("put what is large into the image")
		}
		return nil
	})
}

// initAction waits for an action's server and gives it its function.
func (w *Worker) initAction(ctx context.Context, in *instance, code string) error {
	rev := in.pool.rev
	send, err := actionCode(code)
	if faas.CodeOf(err) == faas.TooLarge {
		return err
	}
	if err != nil {
		return &faas.Error{Code: faas.Internal, Op: "read code", Err: err}
	}
	secrets, err := w.secrets(ctx, rev)
	if err != nil {
		return err
	}
	send.Env = w.environ(in, rev, secrets)
	a := runtimes.NewAction(runtimes.ActionConfig{Dial: in.box.Dial, Revision: rev})
	in.conn = a
	return a.Init(ctx, send, in.box.Done())
}

// explainImage adds to the error of an image's program that ended before it served what such
// programs expect in vain. How it was started is an error of the image, not of ours.
func explainImage(rev *faas.Revision, err error) error {
	if rev.Image == nil || err == nil {
		return err
	}
	e := *faas.AsError(err)
	var step *sandbox.StepError
	if errors.As(err, &step) && (strings.HasPrefix(step.Step, "exec ") || strings.HasPrefix(step.Step, "enter /")) {
		return faas.Errorf(faas.Failed, "start image", "%s: %v", step.Step, step.Err).
			WithFix("see that the program and what it is linked to are in the image, for this machine's processor")
	}
	if e.Code != faas.Crashed || e.Fix != "" {
		return err
	}
	e.Fix = "see why with: brasa logs; run the image elsewhere with docker run --read-only --user 12345 --tmpfs /tmp, which comes close"
	for _, sign := range []string{"ermission denied", "not permitted", "ead-only file system", "must be root", "as root", "setuid", "setgid", "setgroups", "chown"} {
		if strings.Contains(e.Trace, sign) {
			e.Fix = "the program wants to be root or to write where it may not: here it runs as a user of its own that is never root, and only /tmp and /dev/shm can be written; " +
				"let the image write there, and not change its user"
			break
		}
	}
	return &e
}
