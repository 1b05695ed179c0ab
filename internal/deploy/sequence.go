package deploy

import (
	"context"
	"fmt"
	"time"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/faas"
)

// SequenceRequest asks for a function that is made of others.
type SequenceRequest struct {
	Name     faas.Name
	Sequence faas.Sequence
	Timeout  faas.Duration // of the whole; 0: as long as all steps may take together, and no longer than a function may ask for
	Async    *faas.Async   // of calls whose caller does not wait; nil: the defaults
	Public   *bool         // nil: leave as it is, false for a new one
}

// DeploySequence makes a sequence the active revision of the function req.Name, which must not have
// code. Steps must exist, may be sequences, and must not lead back to the function. Errors are
// *faas.Error; after one the function is as it was before.
func (d *Deployer) DeploySequence(ctx context.Context, req SequenceRequest) (*Outcome, error) {
	const op = "create sequence"
	began := time.Now()
	if err := req.Name.Validate(); err != nil {
		return nil, err
	}
	if len(req.Sequence.Steps) == 0 {
		return nil, faas.Errorf(faas.Invalid, op, "a sequence has at least one step").WithFix("name its functions: brasa sequence create %s --steps FIRST,SECOND", req.Name.Path())
	}
	out := &Outcome{Created: true}
	if before, rev, err := d.cfg.Catalog.Resolve(faas.Ref{Name: req.Name}); err == nil {
		if rev.Sequence == nil {
			return nil, faas.Errorf(faas.Conflict, op, "%q is a function with code", req.Name.Path()).
				WithFix("choose another name, or delete it with: brasa rm %s", req.Name.Path())
		}
		out.Created, out.Previous = false, before.Active
	}
	steps, err := d.cfg.Catalog.Steps(req.Name, &req.Sequence)
	if err != nil {
		e := *faas.AsError(err)
		if e.Code == faas.NotFound {
			e.Code, e.Err = faas.Invalid, fmt.Errorf("steps: %w", e.Err)
		}
		return nil, &e
	}
	if req.Async != nil {
		if err := d.checkAsync(req.Async); err != nil {
			return nil, err
		}
	}
	limits := d.cfg.Defaults
	limits.MinInstances, limits.Request, limits.Response = 0, d.cfg.Ceiling.Request, d.cfg.Ceiling.Response // those of its steps bound it
	if limits.Timeout = req.Timeout; req.Timeout == 0 {
		for _, step := range steps {
			limits.Timeout = min(limits.Timeout+step.Limits.Timeout, d.cfg.Ceiling.Timeout)
		}
	}
	if err := limits.Validate(d.cfg.Ceiling); err != nil {
		return nil, err
	}
	rev := &faas.Revision{
		Name: req.Name, Runtime: faas.RuntimeSequence, Sequence: &req.Sequence, Limits: limits, Network: faas.NetworkNone,
		Async: req.Async, Created: time.Now().UTC(),
	}
	if out.Function, err = d.cfg.Catalog.Publish(ctx, rev, catalog.PublishOptions{Public: req.Public}); err != nil {
		return nil, faas.AsError(err)
	}
	out.Revision, out.Same, out.Total = rev, out.Previous == rev.ID, time.Since(began)
	d.cfg.Logger.Info("sequence deployed", "function", rev.Name.String(), "revision", rev.ID.Short(), "steps", rev.Sequence.String())
	return out, nil
}
