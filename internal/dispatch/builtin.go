package dispatch

import (
	"context"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Builtin answers a call of a function that the server brings. Like a node it fills inv.Timing and
// inv.Report, and its errors are *faas.Error. It is called on many goroutines.
type Builtin func(ctx context.Context, rev *faas.Revision, inv *faas.Invocation) (*faas.Result, error)

// Register has calls of functions of the runtime faas.RuntimeBuiltin with a contract answered by b. It is
// called before any call is made.
func (d *Dispatcher) Register(contract string, b Builtin) {
	if d.builtins == nil {
		d.builtins = map[string]Builtin{}
	}
	d.builtins[contract] = b
}

// builtin returns who answers calls of a revision in the node's place; nil: the node does.
func (d *Dispatcher) builtin(rev *faas.Revision) Builtin {
	if rev.Runtime != faas.RuntimeBuiltin {
		return nil
	}
	return d.builtins[rev.Contract]
}
