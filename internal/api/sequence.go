package api

import (
	"context"
	"net/http"

	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/faas"
)

// SequenceSpec says what a function is to be made of.
type SequenceSpec struct {
	Steps      []string      `json:"steps" minItems:"1" maxItems:"50" doc:"Functions of the namespace, each of which is called with the answer of the one before; sequences are functions too"`
	Timeout    faas.Duration `json:"timeout_ms,omitempty" doc:"Of the whole, in milliseconds; as long as its steps may take together when left out"`
	ErrorField bool          `json:"error_field,omitempty" doc:"An answer that is a JSON object with the field error ends the sequence, and is its answer"`
	Async      *faas.Async   `json:"async,omitempty" doc:"How calls are tried again whose caller does not wait, and where their outcomes go"`
	Public     *bool         `json:"public,omitempty" doc:"Its own URL may be called without a key; left out: as it was, no for a new one"`
}

func (s *Server) sequenceRoutes() {
	op := operation("put-sequence", http.MethodPut, inNamespace+"/sequences/{name}", "Make a function of others that are called one after the other, or change it", "functions")
	op.Description = "It is called, looked at, rolled back and deleted as any function."
	manage(s, accessNamespace, op, func(ctx context.Context, in *struct {
		FunctionPath
		Body SequenceSpec
	}) (Function, error) {
		name, err := in.name()
		if err != nil {
			return Function{}, err
		}
		spec := &in.Body
		req := deploy.SequenceRequest{
			Name: name, Timeout: spec.Timeout, Async: spec.Async, Public: spec.Public, Sequence: faas.Sequence{ErrorField: spec.ErrorField},
		}
		for _, step := range spec.Steps {
			target, err := faas.Destination(step).Target(name.Namespace)
			if err != nil {
				return Function{}, err
			}
			req.Sequence.Steps = append(req.Sequence.Steps, target)
		}
		if _, err := s.cfg.Deployer.DeploySequence(ctx, req); err != nil {
			return Function{}, err
		}
		return s.function(ctx, name)
	})
}
