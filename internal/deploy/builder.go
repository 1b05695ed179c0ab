package deploy

import (
	"context"

	"github.com/brasa-dev/brasa/runtimes"
)

// builder makes of the source in src the directory that is stored, which may be src itself, and
// may change the plan. deps is what was installed for the code, nil if nothing was. dir is its to
// work in.
type builder func(ctx context.Context, req Request, plan *runtimes.Plan, deps *deps, dir, src string) (code string, err error)

// builder returns what is done to the code of a plan before it is stored, or nil.
func (d *Deployer) builder(plan *runtimes.Plan) builder {
	switch {
	case plan.Source == runtimes.DotNet:
		return d.buildDotNet
	case plan.Runtime == runtimes.Wasm:
		return d.buildWasm
	case plan.Source == runtimes.Rust:
		return d.buildRust
	case plan.Build:
		return d.buildGo
	case plan.Runtime == runtimes.Java && len(plan.Command) == 0:
		return d.buildJava
	case plan.Runtime == runtimes.Python && d.cfg.Sandbox != nil:
		return d.compilePython
	case plan.Runtime == runtimes.Node && d.cfg.Sandbox != nil:
		return d.buildNode
	}
	return nil
}
