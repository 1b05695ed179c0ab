package catalog

import (
	"fmt"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Steps returns the revisions that a sequence of that name runs as things stand, in their order, with
// those of sequences within it in these sequences' place. A step that does not exist is NotFound; one
// that leads back to a sequence which it is part of, and more than faas.MaxSteps, are Invalid.
func (c *Catalog) Steps(name faas.Name, seq *faas.Sequence) ([]*faas.Revision, error) {
	return c.steps(nil, []faas.Name{name}, seq)
}

func (c *Catalog) steps(found []*faas.Revision, in []faas.Name, seq *faas.Sequence) ([]*faas.Revision, error) {
	const op = "look up steps"
	way := func() string {
		var b strings.Builder
		for _, n := range in {
			b.WriteString(n.Path() + " → ")
		}
		return b.String()
	}
	if len(in) > faas.MaxSteps {
		return nil, faas.Errorf(faas.Invalid, op, "sequences lie within each other more than %d deep", faas.MaxSteps).WithLimit("sequence_steps")
	}
	for i, name := range seq.Steps {
		fn, rev, err := c.Resolve(faas.Ref{Name: name})
		if err == nil {
			name = fn.Name // in the package that one is bound to
		}
		if slices.Contains(in, name) {
			return nil, faas.Errorf(faas.Invalid, op, "the sequence leads back to itself: %s", way()+name.Path()).WithFix("take %q out of it", name.Path())
		}
		if err != nil {
			e := *faas.AsError(err)
			e.Op, e.Err = op, fmt.Errorf("step %d of sequence %q: %w", i+1, in[len(in)-1].Path(), e.Err)
			return nil, &e
		}
		if rev.Sequence != nil {
			if found, err = c.steps(found, append(slices.Clone(in), name), rev.Sequence); err != nil {
				return nil, err
			}
			continue
		}
		if found = append(found, rev); len(found) > faas.MaxSteps {
			return nil, faas.Errorf(faas.Invalid, op, "the sequence calls more than %d functions, those of sequences within it included", faas.MaxSteps).
				WithLimit("sequence_steps").WithFix("have one of its functions call the rest")
		}
	}
	return found, nil
}
