package openwhisk

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// apis are those of all namespaces.
type apis struct {
	store store.Store // nil: there are none

	mu   sync.RWMutex
	all  map[string]map[string]*gatewayAPI // guarded by mu; by native namespace and key in the store
	gone map[string]store.Version          // guarded by mu; what was deleted here, until the store tells of it
}

const (
	apiPrefix = "api/"
	// maxReadableKey is the longest base path that is part of a key as it is; the store bounds keys.
	maxReadableKey = 100
)

// apiKey is where an API lies in the store.
func apiKey(namespace, basePath string) string {
	key := []byte(basePath)
	if len(key) > maxReadableKey {
		sum := sha256.Sum256(key)
		key = append(key[:maxReadableKey:maxReadableKey], sum[:16]...)
	}
	return apiPrefix + faas.NativeName(namespace) + "/" + hex.EncodeToString(key)
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

// learn takes a record over from the store, unless a newer one is known.
func (a *apis) learn(r store.Record) {
	namespace, _, _ := strings.Cut(strings.TrimPrefix(r.Key, apiPrefix), "/")
	api := &gatewayAPI{size: len(r.Value), version: r.Version}
	if !r.Deleted && json.Unmarshal(r.Value, api) != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if was := a.all[namespace][r.Key]; was != nil && was.version >= r.Version || a.gone[r.Key] >= r.Version {
		return
	}
	delete(a.gone, r.Key)
	if r.Deleted {
		delete(a.all[namespace], r.Key)
		return
	}
	if a.all == nil {
		a.all = map[string]map[string]*gatewayAPI{}
	}
	if a.all[namespace] == nil {
		a.all[namespace] = map[string]*gatewayAPI{}
	}
	a.all[namespace][r.Key] = api
}

// put writes an API in place of what it was made from, and nothing else.
func (a *apis) put(ctx context.Context, api *gatewayAPI, b []byte) error {
	key := apiKey(api.Namespace, api.Doc.BasePath)
	version, err := a.store.Put(ctx, key, b, api.version)
	switch {
	case errors.Is(err, store.ErrConflict):
		return errOvertaken
	case errors.Is(err, store.ErrFull):
		return errNoRoom
	case err != nil:
		return err
	}
	a.learn(store.Record{Key: key, Value: b, Version: version})
	return nil
}

// remove deletes an API as it was read.
func (a *apis) remove(ctx context.Context, api *gatewayAPI) error {
	key := apiKey(api.Namespace, api.Doc.BasePath)
	err := a.store.Delete(ctx, key, api.version)
	if errors.Is(err, store.ErrConflict) {
		return errOvertaken
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	native := faas.NativeName(api.Namespace)
	if is := a.all[native][key]; is == nil || is.version > api.version { // the store has told of it already
		return nil
	}
	delete(a.all[native], key)
	if a.gone == nil {
		a.gone = map[string]store.Version{}
	}
	a.gone[key] = api.version
	return nil
}

var (
	errOvertaken = reject(http.StatusConflict, "The API was changed by somebody else meanwhile: try again.")
	errNoRoom    = reject(http.StatusServiceUnavailable, "There is no room for the API on the server's disk: nothing was changed, and the operator has to make room.")
)

// at returns the API of a base path; nil if there is none.
func (a *apis) at(namespace, basePath string) *gatewayAPI {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.all[faas.NativeName(namespace)][apiKey(namespace, basePath)]
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
