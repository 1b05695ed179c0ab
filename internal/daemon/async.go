package daemon

import (
	"context"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/dispatch"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/queue"
	"github.com/brasa-dev/brasa/internal/store"
)

// asyncConfig is what can be set about calls whose caller does not wait. Zero is the default of package
// dispatch.
type asyncConfig struct {
	Function   int           `koanf:"function"`     // of one function under way at once
	Namespace  int           `koanf:"namespace"`    // and of one namespace
	All        int           `koanf:"all"`          // and together
	Deliveries int           `koanf:"deliveries"`   // web hooks called at once
	Hook       time.Duration `koanf:"hook_timeout"` // how long a web hook may take
	Bytes      faas.Bytes    `koanf:"bytes"`        // that all calls which wait may take on the disk; 0: a quarter of the store
}

// chainConfig bounds calls that lead to others.
type chainConfig struct {
	Depth int `koanf:"depth"` // calls from the first to the last
	Calls int `koanf:"calls"` // of all branches together
}

// openQueue opens what keeps calls whose callers do not wait.
func (d *Daemon) openQueue(ctx context.Context, n *node, engine *store.Engine, closing *closers) (err error) {
	n.queue, err = queue.Open(ctx, queue.Config{Engine: engine, Dir: filepath.Join(d.cfg.Data, "queue"), MaxBytes: int64(d.cfg.Async.Bytes), Logger: d.log.With("part", "queue")})
	if err != nil {
		return err
	}
	closing.add("queue", n.queue.Close)
	return nil
}

// async is the dispatcher's part of the configuration.
func (c *Config) async() dispatch.AsyncConfig {
	a := dispatch.AsyncConfig{
		Function: c.Async.Function, Namespace: c.Async.Namespace, All: c.Async.All, Deliveries: c.Async.Deliveries, Grace: c.Drain,
		Hooks: dispatch.HookConfig{Timeout: c.Async.Hook},
	}
	for _, s := range c.Egress.Allow {
		a.Hooks.Allow = append(a.Hooks.Allow, netip.MustParsePrefix(s)) // validate has checked it
	}
	return a
}

// dropTimeout bounds what is done about a function's calls while its deletion waits.
const dropTimeout = time.Minute

// dropCalls removes the calls that wait of a function which was deleted. It is done before the deletion
// ends, so that it takes none of those that come for a new function of the name.
func (d *Daemon) dropCalls(n *node, e catalog.Event) {
	name := faas.Name{Namespace: e.Namespace}
	switch e.Kind {
	case catalog.FunctionDeleted:
		name = e.Function.Name
	case catalog.NamespaceDeleted:
	default:
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), dropTimeout) // it is not its caller's to end
	defer cancel()
	if err := n.queue.Drop(ctx, name); err != nil {
		d.log.Warn("calls of what was deleted are left in the queue", "function", name, "cause", err)
	}
}
