package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// NamespaceLimits are what a namespace of OpenWhisk has in place of the server's limits. nil of a field
// is the server's.
type NamespaceLimits struct {
	Invocations *int     `json:"invocations_per_minute,omitempty"`
	Concurrent  *int     `json:"concurrent_invocations,omitempty"`
	Fires       *int     `json:"fires_per_minute,omitempty"`
	Kinds       []string `json:"kinds,omitempty"`            // that it may make and call actions of; empty: all
	Hidden      bool     `json:"hide_activations,omitempty"` // records of its calls are not shown by OpenWhisk's API
}

const (
	limitsPrefix = subjectPrefix + "limits/"
	maxPerMinute = 1_000_000
	maxKinds     = 100
)

// PutLimits sets the limits of a namespace; the zero value gives it the server's.
func (s *Subjects) PutLimits(ctx context.Context, namespace string, l NamespaceLimits) error {
	const op = "set limits"
	for what, n := range map[string]*int{"invocations_per_minute": l.Invocations, "concurrent_invocations": l.Concurrent, "fires_per_minute": l.Fires} {
		if n != nil && (*n < 0 || *n > maxPerMinute) {
			return faas.Errorf(faas.Invalid, op, "%s is %d; it is from 0 to %d", what, *n, maxPerMinute).WithLimit(what)
		}
	}
	if len(l.Kinds) > maxKinds {
		return faas.Errorf(faas.Invalid, op, "%d kinds are more than %d", len(l.Kinds), maxKinds).WithLimit("kinds")
	}
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	key := limitsPrefix + faas.NativeName(namespace)
	version, err := s.store.Put(ctx, key, b, store.Any)
	if err != nil {
		return storeError(op, err)
	}
	return s.learnLimits(store.Record{Key: key, Value: b, Version: version})
}

// Limits are those of a namespace.
func (s *Subjects) Limits(namespace string) NamespaceLimits {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.limits[faas.NativeName(namespace)]
}

func (s *Subjects) learnLimits(r store.Record) error {
	namespace := strings.TrimPrefix(r.Key, limitsPrefix)
	var l NamespaceLimits
	if !r.Deleted {
		if err := json.Unmarshal(r.Value, &l); err != nil {
			return fmt.Errorf("read limits of %q: %w", namespace, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits[namespace] = l
	return nil
}
