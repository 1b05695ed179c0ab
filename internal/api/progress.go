package api

import (
	"context"
	"net/http"
	"time"

	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
)

// DeployEvent is one line of a deploy that is followed. One of its fields is set; the last line has
// Outcome or Fault.
type DeployEvent struct {
	Begins  string            `json:"begins,omitempty" doc:"The step that begins"`
	Done    *Step             `json:"done,omitempty" doc:"The step that has ended"`
	Install *install.Progress `json:"install,omitempty" doc:"How far the step install is"`
	Image   *ImageProgress    `json:"image,omitempty" doc:"How far the step image is"`
	Outcome *Outcome          `json:"outcome,omitempty" doc:"What the deploy came to"`
	Fault   *Fault            `json:"error,omitempty" doc:"Why it failed"`
}

// ImageProgress says how far an image has come.
type ImageProgress struct {
	Step   string     `json:"step" doc:"fetch, unpack, store"`
	Layer  int        `json:"layer,omitempty" doc:"Counted from 1; left out: all of them"`
	Layers int        `json:"layers,omitempty"`
	Bytes  faas.Bytes `json:"bytes,omitempty" doc:"Of the step, so far"`
	Total  faas.Bytes `json:"total,omitempty" doc:"Left out: not known"`
}

// eventsWaiting is how many events may wait for a slow reader. Of more, those that only tell how far
// something is are left out.
const eventsWaiting = 64

// followDeploy deploys and tells what happens meanwhile, a line each.
func (s *Server) followDeploy(w http.ResponseWriter, r *http.Request, c Caller, name faas.Name, up *upload) {
	ctx := r.Context()
	events := make(chan DeployEvent, eventsWaiting)
	tell := func(p deploy.Progress) {
		e := DeployEvent{Begins: p.Begins, Install: p.Install, Image: (*ImageProgress)(p.Image)}
		if p.Install != nil || p.Image != nil {
			select {
			case events <- e:
			default:
			}
			return
		}
		if p.Done != nil {
			e.Done = &Step{Name: p.Done.Name, US: p.Done.US, Install: p.Done.Install, Image: p.Done.Image, Code: p.Done.Code}
		}
		select {
		case events <- e:
		case <-ctx.Done():
		}
	}
	var last DeployEvent
	done := make(chan struct{})
	go func() { // ends with the deploy, which is waited for below
		defer close(done)
		out, err := s.cfg.Deployer.Deploy(ctx, up.request(name, r.Host), tell)
		if err == nil {
			var fn Function
			if fn, err = s.function(context.WithValue(ctx, requestKey{}, r), name); err == nil {
				o := outcome(out, fn)
				last.Outcome = &o
			}
		}
		if err != nil {
			last.Fault = refuse(s.cfg.Logger, c.ID, err).Fault
		}
	}()
	out := lineWriter{w: w, control: http.NewResponseController(w)}
	out.begin()
	tick := time.NewTicker(signOfLife)
	defer tick.Stop()
	// An error in writing means that the caller is gone, which ends the deploy by its context.
	for {
		select {
		case e := <-events:
			_ = out.send(e)
			_ = out.control.Flush()
		case <-tick.C:
			_ = out.alive()
		case <-done:
			for len(events) > 0 {
				_ = out.send(<-events)
			}
			_ = out.send(last)
			_ = out.control.Flush()
			return
		}
	}
}
