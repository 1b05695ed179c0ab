package openwhisk

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// apis are those of all namespaces.
type apis struct {
	store store.Store // nil: there are none

	mu  sync.RWMutex
	all map[string]map[string]*gatewayAPI // guarded by mu; by native namespace and base path
}

const apiPrefix = "api/"

func apiKey(namespace, basePath string) string {
	return apiPrefix + faas.NativeName(namespace) + "/" + hex.EncodeToString([]byte(basePath))
}

// Run follows what is written of APIs until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	if s.apis.store == nil {
		<-ctx.Done()
		return nil
	}
	changes, err := s.apis.store.Watch(ctx, apiPrefix, 0)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("watch APIs: %w", err)
	}
	for r := range changes {
		if r.Key != "" {
			s.apis.learn(r)
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return errors.New("watch APIs: the store ended the watch")
}

func (a *apis) learn(r store.Record) {
	namespace, encoded, _ := strings.Cut(strings.TrimPrefix(r.Key, apiPrefix), "/")
	base, err := hex.DecodeString(encoded)
	if err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.Deleted {
		delete(a.all[namespace], string(base))
		return
	}
	api := &gatewayAPI{size: len(r.Value)}
	if json.Unmarshal(r.Value, api) != nil {
		return
	}
	if a.all == nil {
		a.all = map[string]map[string]*gatewayAPI{}
	}
	if a.all[namespace] == nil {
		a.all[namespace] = map[string]*gatewayAPI{}
	}
	a.all[namespace][string(base)] = api
}

// namespaces are those that have APIs, as the catalog calls them.
func (a *apis) namespaces() []string {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return slices.Collect(maps.Keys(a.all))
}

// of returns the APIs of a namespace in the order of their base paths.
func (a *apis) of(native string) []*gatewayAPI {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var out []*gatewayAPI
	for _, api := range a.all[native] {
		out = append(out, api)
	}
	slices.SortFunc(out, func(x, y *gatewayAPI) int { return strings.Compare(x.Doc.BasePath, y.Doc.BasePath) })
	return out
}
