package deploy

import (
	"github.com/brasa-dev/brasa/runtimes"
)

// builder returns what is done to the code of an action before it is stored, or nil.
func (a *action) builder() builder {
	d := a.d
	switch {
	case a.plan.Runtime == runtimes.Python && d.cfg.Sandbox != nil:
		return d.compilePython
	case a.plan.Runtime == runtimes.Node && d.cfg.Sandbox != nil:
		return d.buildNode
	}
	return nil
}
