package daemon

import (
	"context"
	"fmt"
	"time"

	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/openwhisk"
	"github.com/brasa-dev/brasa/internal/store"
)

// openWhiskConfig are the limits of the API of OpenWhisk; 0 is what OpenWhisk has.
type openWhiskConfig struct {
	TimeoutMax  time.Duration `koanf:"timeout_max"` // of an action
	MemoryMax   faas.Bytes    `koanf:"memory_max"`
	Concurrency int           `koanf:"concurrency_max"`
	Code        faas.Bytes    `koanf:"code"`       // of an action, as it is sent
	Parameters  faas.Bytes    `koanf:"parameters"` // of an entity; also of its annotations
	Payload     faas.Bytes    `koanf:"payload"`    // arguments and result, each
	Blocking    time.Duration `koanf:"blocking"`   // how long a caller may wait
	Invocations int           `koanf:"invocations_per_minute"`
	Concurrent  int           `koanf:"concurrent_invocations"`
	Fires       int           `koanf:"fires_per_minute"`
	Sequence    int           `koanf:"sequence_length"`
	Sealed      bool          `koanf:"sealed"` // shared packages of others can be called and not read
}

func (c *openWhiskConfig) validate() error {
	for key, bad := range map[string]bool{
		"timeout_max": c.TimeoutMax < 0, "memory_max": c.MemoryMax < 0, "concurrency_max": c.Concurrency < 0, "code": c.Code < 0, "parameters": c.Parameters < 0,
		"payload": c.Payload < 0, "blocking": c.Blocking < 0, "invocations_per_minute": c.Invocations < 0, "concurrent_invocations": c.Concurrent < 0,
		"fires_per_minute": c.Fires < 0, "sequence_length": c.Sequence < 0 || c.Sequence > faas.MaxSteps,
	} {
		if bad {
			return fmt.Errorf("openwhisk.%s is out of its range", key)
		}
	}
	return nil
}

func (c *openWhiskConfig) limits() openwhisk.Limits {
	return openwhisk.Limits{
		TimeoutMax: c.TimeoutMax, MemoryMax: c.MemoryMax, ConcurrencyMax: c.Concurrency, Code: c.Code, Parameters: c.Parameters, Payload: c.Payload,
		Blocking: c.Blocking, InvocationsPerMinute: c.Invocations, Concurrent: c.Concurrent, FiresPerMinute: c.Fires, Sequence: c.Sequence,
	}
}

// openSubjects reads who has keys of OpenWhisk's kind.
func (d *Daemon) openSubjects(ctx context.Context, n *node, engine *store.Engine) error {
	bucket, err := engine.Bucket(ctx, "subjects", 1)
	if err != nil {
		return err
	}
	if n.apis, err = engine.Bucket(ctx, "openwhisk", 1); err != nil {
		return err
	}
	n.subjects, err = auth.OpenSubjects(ctx, auth.Config{Store: bucket, Logger: d.log.With("part", "auth")})
	return err
}

// openWhisk builds the dialect of OpenWhisk.
func (d *Daemon) openWhisk(n *node) *openwhisk.Server {
	return openwhisk.New(openwhisk.Config{
		Catalog: n.catalog, Dispatcher: n.dispatch, Deployer: n.deployer, Depot: n.depot, Journal: n.journal, Triggers: n.triggers,
		Subjects: n.subjects, APIs: n.apis, Limits: d.cfg.OpenWhisk.limits(), APIHost: d.cfg.URL, Inside: func() string { return n.inside }, Version: d.Version.Version, Logger: d.log.With("part", "openwhisk"),
		Sealed: d.cfg.OpenWhisk.Sealed,
		Ready: func(language string) error {
			_, err := n.runtimes.Lookup(language)
			return err
		},
	})
}
