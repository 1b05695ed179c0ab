package deploy

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/image"
	"github.com/brasa-dev/brasa/internal/install"
)

// Progress is one thing that happens while code is deployed. One of its fields is set.
type Progress struct {
	Begins  string            // the step that begins
	Done    *Step             // the step that has ended
	Install *install.Progress // how far the step install is
	Image   *image.Progress   // how far the step image is
}

// stepper times steps and tells of them.
type stepper struct {
	out   *Outcome
	told  func(Progress) // nil: nobody
	begin func(string)   // nil: nobody

	install *Install       // what is to be said of the step that runs
	image   *TakenImage    // the same
	code    []faas.Tree    // the same
	log     *install.Build // nil: nothing is kept
}

// errNothing is what a step returns that had nothing to do. It is not told of, and no failure.
var errNothing = errors.New("nothing to do")

func (s *stepper) do(name string, f func() error) error {
	if s.begin != nil {
		s.begin(name)
	}
	if s.told != nil {
		s.told(Progress{Begins: name})
	}
	began := time.Now()
	err := f()
	if err == errNothing {
		return nil
	}
	st := Step{Name: name, Took: time.Since(began), Install: s.install, Image: s.image, Code: s.code}
	st.US = st.Took.Microseconds()
	s.install, s.image, s.code = nil, nil, nil
	s.out.Steps = append(s.out.Steps, st)
	if s.told != nil {
		s.told(Progress{Done: &st})
	}
	return err
}

type logKey struct{}

// logBuild opens the log of what is about to be installed and built. It comes into being with the
// first line.
func (d *Deployer) logBuild(ctx context.Context, req *Request, steps *stepper) (_ context.Context, ended func(error)) {
	ns, err := d.cfg.Catalog.Namespace(req.Name.Namespace)
	if d.cfg.Builds == nil || err != nil { // it is said later, by whom it concerns
		return ctx, func(error) {}
	}
	name := req.Name.Path()
	if req.Name.Function == faas.AdHoc {
		name = ""
	}
	steps.log = d.cfg.Builds.Begin(ns.UID, name)
	return context.WithValue(ctx, logKey{}, steps.log), steps.log.End
}

// buildLog returns what the log of the build of ctx is written to.
func buildLog(ctx context.Context) io.Writer {
	if b, ok := ctx.Value(logKey{}).(*install.Build); ok {
		return b
	}
	return io.Discard
}

// logged says in the error where all that was written is to be found, if anything was.
func (d *Deployer) logged(steps *stepper, namespace string, err error) error {
	id := steps.log.ID()
	if id == "" {
		return err
	}
	e := *faas.AsError(err)
	if code := e.Code; code == faas.Canceled {
		return err
	}
	more := "see all that was written: brasa builds log " + string(id)
	if namespace != "default" {
		more += " -n " + namespace
	}
	if e.Fix != "" {
		more = e.Fix + "\n" + more
	}
	e.Fix = more
	return &e
}
