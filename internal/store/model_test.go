package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/brasa-dev/brasa/internal/store"
)

// TestModel does the same random things to a bucket and to a map and compares after each.
func TestModel(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for seconds")
	}
	e := open(t, t.TempDir())
	ctx := context.Background()
	s, err := e.Bucket(ctx, "model", 3)
	if err != nil {
		t.Fatal(err)
	}
	last, run := store.Version(0), 0
	rapid.Check(t, func(t *rapid.T) {
		run++ // each has keys of its own in the one bucket
		own := fmt.Sprintf("run%d/", run)
		type entry struct {
			value   string
			version store.Version
		}
		model := map[string]entry{}
		keys := rapid.SampledFrom([]string{own + "a", own + "b", own + "a/x", own + "a/y", own + "a/x/z", own + "ab"})
		expect := func(t *rapid.T, key string) store.Version {
			switch rapid.IntRange(0, 4).Draw(t, "expect") {
			case 0:
				return store.Any
			case 1:
				return store.Absent
			case 2:
				return store.Version(rapid.Uint64Range(1, uint64(last)+2).Draw(t, "version"))
			}
			return model[key].version // the right one; Absent for a key without record
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				key, value := keys.Draw(t, "key"), rapid.String().Draw(t, "value")
				want := expect(t, key)
				v, err := s.Put(ctx, key, []byte(value), want)
				if ok := want == store.Any || want == model[key].version; ok != (err == nil) {
					t.Fatalf("Put(%q) expecting %d at %d: %v", key, want, model[key].version, err)
				} else if !ok {
					if !errors.Is(err, store.ErrConflict) {
						t.Fatalf("Put(%q): %v, want ErrConflict", key, err)
					}
					return
				}
				if v <= last {
					t.Fatalf("version %d after %d", v, last)
				}
				last = v
				model[key] = entry{value, v}
			},
			"delete": func(t *rapid.T) {
				key := keys.Draw(t, "key")
				want := expect(t, key)
				var wantErr error
				switch was, there := model[key]; {
				case !there:
					wantErr = store.ErrNotFound
				case want != store.Any && want != was.version:
					wantErr = store.ErrConflict
				}
				if err := s.Delete(ctx, key, want); !errors.Is(err, wantErr) || (err == nil) != (wantErr == nil) {
					t.Fatalf("Delete(%q) expecting %d at %d: %v, want %v", key, want, model[key].version, err, wantErr)
				}
				if wantErr == nil {
					last++
					delete(model, key)
				}
			},
			"": func(t *rapid.T) {
				prefix := own + rapid.SampledFrom([]string{"", "a", "a/", "a/x", "b/"}).Draw(t, "prefix")
				got, err := s.List(ctx, prefix, "", 0)
				if err != nil {
					t.Fatal(err)
				}
				var want []string
				for k, m := range model {
					if len(k) >= len(prefix) && k[:len(prefix)] == prefix {
						want = append(want, fmt.Sprintf("%s=%q@%d", k, m.value, m.version))
					}
				}
				slices.Sort(want)
				var have []string
				for _, r := range got {
					have = append(have, fmt.Sprintf("%s=%q@%d", r.Key, r.Value, r.Version))
				}
				slices.Sort(have)
				if !slices.Equal(have, want) {
					t.Fatalf("List(%q)\n got %v\nwant %v", prefix, have, want)
				}
			},
		})
	})
}
