package queue

import (
	"context"
	"errors"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// Pauses are records of a bucket, one for each function that is paused.

const pausePrefix = "paused/"

// Pause implements Queue.
func (q *Durable) Pause(ctx context.Context, function faas.Name, paused bool) error {
	const op = "pause queue"
	if err := function.Validate(); err != nil {
		return err
	}
	if err := q.storePause(ctx, function, paused); err != nil {
		return q.failure(op, err)
	}
	fault("pause: stored")
	f := q.function(function)
	q.mu.Lock()
	defer q.mu.Unlock()
	f.paused = paused
	if !paused {
		q.tell()
	}
	return nil
}

func (q *Durable) storePause(ctx context.Context, n faas.Name, paused bool) error {
	key := pausePrefix + n.String()
	if paused {
		_, err := q.pauses.Put(ctx, key, nil, store.Any)
		return err
	}
	if err := q.pauses.Delete(ctx, key, store.Any); !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return nil
}

func (q *Durable) loadPauses(ctx context.Context) error {
	records, err := q.pauses.List(ctx, pausePrefix, "", 0)
	if err != nil {
		return err
	}
	for _, r := range records {
		n, err := faas.ParseName("/"+strings.TrimPrefix(r.Key, pausePrefix), "")
		if err != nil {
			q.config.Logger.Error("pause not readable", "key", r.Key, "cause", err)
			continue
		}
		f := q.function(n)
		q.mu.Lock()
		f.paused = true
		q.mu.Unlock()
	}
	return nil
}
