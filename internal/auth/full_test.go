package auth

import (
	"context"
	"fmt"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// fullStore has no room once full is set.
type fullStore struct {
	store.Store
	full bool
}

func (s *fullStore) Put(ctx context.Context, key string, value []byte, expect store.Version) (store.Version, error) {
	if s.full {
		return 0, fmt.Errorf("write %q: %w", key, store.ErrFull)
	}
	return s.Store.Put(ctx, key, value, expect)
}

// Where there is no room, what could not be written is refused with who can mend that, and nothing changes.
func TestNoRoom(t *testing.T) {
	docs, ctx := &fullStore{Store: store.Memory()}, t.Context()
	s, err := OpenSubjects(ctx, Config{Store: docs})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := Open(ctx, Config{Store: docs})
	if err != nil {
		t.Fatal(err)
	}
	made, err := s.Put(ctx, "guest", "guest", "", "", false)
	if err != nil {
		t.Fatal(err)
	}
	docs.full = true
	one := 1
	_, putErr := s.Put(ctx, "other", "other", "", "", false)
	_, _, keyErr := keys.Create(ctx, "guest", "me", false)
	for what, err := range map[string]error{
		"create": putErr, "block": s.Block(ctx, "guest", true), "limits": s.PutLimits(ctx, "guest", NamespaceLimits{Invocations: &one}), "key": keyErr,
	} {
		if e := faas.AsError(err); e.Code != faas.Unavailable || e.Limit != "store_bytes" || e.Fix == "" {
			t.Errorf("%s: %v, want Unavailable with limit store_bytes and a fix", what, err)
		}
	}
	if _, ok := s.Whose(made.UUID, made.Key); !ok || s.Limits("guest").Invocations != nil {
		t.Error("what was refused changed something")
	}
}
