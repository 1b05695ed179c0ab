package api

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/brasa-dev/brasa/internal/faas"
)

func TestOneNamespaceDoesNotTakeAllPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlaces(8, faas.Errorf(faas.Overloaded, "receive code", "as many uploads are under way as may be"))
		take := func(ns string) func() {
			release, err := p.take(t.Context(), ns)
			if err != nil {
				t.Fatalf("%s: %v", ns, err)
			}
			return release
		}
		first := take("green")
		take("green")
		take("blue")
		if _, err := p.take(t.Context(), "green"); faas.CodeOf(err) != faas.Overloaded {
			t.Errorf("a third of green: %v, want overloaded after some time", err)
		}
		waiting := make(chan error, 1)
		go func() {
			_, err := p.take(t.Context(), "green")
			waiting <- err
		}()
		synctest.Wait()
		first()
		if err := <-waiting; err != nil {
			t.Errorf("when one was given back: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := p.take(ctx, "green"); faas.CodeOf(err) != faas.Canceled {
			t.Errorf("one that goes away: %v, want canceled", err)
		}
	})
}
