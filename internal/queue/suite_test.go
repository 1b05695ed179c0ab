package queue_test

import (
	"context"
	"testing"

	"github.com/brasa-dev/brasa/internal/queue"
	"github.com/brasa-dev/brasa/internal/queue/queuetest"
	"github.com/brasa-dev/brasa/internal/store"
)

func TestMemory(t *testing.T) {
	queuetest.Run(t, func(*testing.T) queue.Queue { return queue.Memory() })
}

func TestDurable(t *testing.T) {
	queuetest.Run(t, func(t *testing.T) queue.Queue {
		e, err := store.Open(store.Config{Dir: t.TempDir(), MaxBytes: 4 << 30})
		if err != nil {
			t.Fatal(err)
		}
		q, err := queue.Open(t.Context(), queue.Config{Engine: e})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- q.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			for what, err := range map[string]error{"Run": <-done, "Close": q.Close(), "engine": e.Close()} {
				if err != nil {
					t.Error(what, err)
				}
			}
		})
		return q
	})
}
