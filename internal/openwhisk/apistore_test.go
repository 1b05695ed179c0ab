package openwhisk

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/brasa-dev/brasa/internal/store"
)

// What the store tells late of an API takes nothing back that was written since, and what two nodes write at the
// same time of one API is not lost.
func TestLateNewsOfAPIs(t *testing.T) {
	ctx, kept := t.Context(), store.Memory()
	here, there := apis{store: kept}, apis{store: kept}
	var told []store.Record
	write := func(at *apis, title string, version store.Version) error {
		t.Helper()
		api := &gatewayAPI{Namespace: "guest", Doc: swaggerDoc{BasePath: "/base", Info: swaggerInfo{Title: title}}, version: version}
		b, err := json.Marshal(api)
		if err != nil {
			t.Fatal(err)
		}
		if err := at.put(ctx, api, b); err != nil {
			return err
		}
		r, err := kept.Get(ctx, apiKey("guest", "/base"))
		if err != nil {
			t.Fatal(err)
		}
		told = append(told, r)
		return nil
	}
	is := func(when, want string) *gatewayAPI {
		t.Helper()
		api, got := here.at("guest", "/base"), ""
		if api != nil {
			got = api.Doc.Info.Title
		}
		if got != want {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
		return api
	}
	if err := errors.Join(write(&here, "one", store.Absent), write(&here, "two", is("made", "one").version)); err != nil {
		t.Fatal(err)
	}
	here.learn(told[0])
	if err := write(&there, "theirs", store.Absent); err != errOvertaken {
		t.Errorf("another node that has heard of nothing writes: %v", err)
	}
	if err := here.remove(ctx, is("late news of the first", "two")); err != nil {
		t.Fatal(err)
	}
	here.learn(told[1])
	is("late news of what was deleted", "")
	watching, stop := context.WithCancel(ctx)
	changes, err := kept.Watch(watching, apiPrefix, told[1].Version)
	if err != nil {
		t.Fatal(err)
	}
	here.learn(<-changes)
	stop()
	if is("the store tells that it was deleted", ""); len(here.gone) != 0 {
		t.Errorf("%d are remembered as gone", len(here.gone))
	}
	if err := write(&there, "three", store.Absent); err != nil {
		t.Fatal(err)
	}
	here.learn(told[2])
	is("made anew elsewhere", "three")
}

// full is a store on a disk that is full.
type full struct{ store.Store }

func (full) Put(context.Context, string, []byte, store.Version) (store.Version, error) {
	return 0, store.ErrFull
}

func TestAFullDiskIsTold(t *testing.T) {
	a := apis{store: full{store.Memory()}}
	err := a.put(t.Context(), &gatewayAPI{Namespace: "guest", Doc: swaggerDoc{BasePath: "/base"}}, []byte("{}"))
	if r := asRejection(err); r.status != 503 || a.at("guest", "/base") != nil {
		t.Errorf("%d %s", r.status, r.message)
	}
}
