// Package journal keeps what happened: activations with their logs.
//
// Record puts an activation into a buffer and returns; a writer takes the buffer in batches,
// publishes it to a stream and enters it into an index of SQLite files, one or more for each day.
// In both, records of one namespace that are written together are one thing, a chunk.
// The stream is what counts: an index file that is lost or damaged is made again from it. A look-up
// sees the buffer too, so whoever made a call finds its record at once. Records that are too old
// or too many go by the file, which costs nothing, and the stream is cut at the same place.
//
// Logs: the first 64 KiB of a call lie with its record, the rest in messages of the same stream and
// in the index in a table of its own. So lists never read over long logs, and logs age with their
// records; were they blobs they would need a collector of their own.
//
// A call does not wait for its record: what was recorded within the last few milliseconds is lost
// when the process is killed, and up to a second at a power cut. What an outcome is and who may
// see it are decided elsewhere.
package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// Config says what a Journal is made of. Zero means the default.
type Config struct {
	Engine   *store.Engine
	Dir      string        // of the index; made if absent
	MaxAge   time.Duration // records are kept this long, by the day. Default 7 days
	MaxBytes faas.Bytes    // that stream and index may take, half each. Default 1 GiB
	Logger   *slog.Logger

	// What Record may hold back while the disk is slow. Beyond it records are dropped and counted.
	BufferRecords int        // default 50,000
	BufferBytes   faas.Bytes // of logs and messages in them; default 64 MiB
}

func (c *Config) applyDefaults() {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.MaxAge = cmp.Or(c.MaxAge, 7*24*time.Hour)
	c.MaxBytes = cmp.Or(c.MaxBytes, faas.GiB)
	c.BufferRecords = cmp.Or(c.BufferRecords, 50_000)
	c.BufferBytes = cmp.Or(c.BufferBytes, 64*faas.MiB)
}

// Journal is safe for concurrent use.
type Journal struct {
	config Config
	stream jetstream.Stream
	index  *index
	wake   chan struct{} // holds one: there is something to write

	mu      sync.Mutex
	buffer  []*faas.Activation // guarded by mu; recorded, not taken by the writer
	writing []*faas.Activation // guarded by mu; taken, not yet in the index
	held    int64              // guarded by mu; bytes of both
	tails   map[*tail]struct{} // guarded by mu
	figures figures            // guarded by mu
	counted int                // guarded by mu; how many of buffer are in figures already
	closed  bool               // guarded by mu
	dropped atomic.Uint64

	write    sync.Mutex // one batch is written at a time; taken before mu
	reported uint64     // guarded by write; of dropped
	missing  uint64     // guarded by write; sequence from which the stream has records that the index refused; 0 is none
}

// Open opens the stream and the index, and makes what is missing from the index out of the
// stream; that takes no time after an orderly stop and about a minute for a million records when
// all is missing.
func Open(ctx context.Context, config Config) (*Journal, error) {
	config.applyDefaults()
	if err := os.MkdirAll(config.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j := &Journal{config: config, wake: make(chan struct{}, 1), tails: map[*tail]struct{}{}, figures: figures{}}
	var err error
	if j.stream, err = config.Engine.Stream(ctx, streamConfig(config)); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	if j.index, err = openIndex(config.Dir, int64(config.MaxBytes)/2/filesToDrop, config.Logger); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	if err := j.catchUp(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open journal: %w", err), j.index.close())
	}
	if err := j.loadFigures(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open journal: %w", err), j.index.close())
	}
	return j, nil
}

// Record takes the activation of a finished call, which is not to be changed any more. It never
// waits: when the disk cannot keep up and the buffer is full the record is dropped and counted.
func (j *Journal) Record(a *faas.Activation) {
	size := sizeOf(a)
	j.mu.Lock()
	if j.closed || len(j.buffer) >= j.config.BufferRecords || j.held+size > int64(j.config.BufferBytes) {
		j.mu.Unlock()
		j.dropped.Add(1)
		return
	}
	j.buffer = append(j.buffer, a)
	j.held += size
	for t := range j.tails {
		t.offer(a)
	}
	j.mu.Unlock()
	select {
	case j.wake <- struct{}{}:
	default: // the writer knows
	}
}

// Dropped returns how many records were lost since the start because the disk could not keep up
// or refused them.
func (j *Journal) Dropped() uint64 { return j.dropped.Load() }

func sizeOf(a *faas.Activation) int64 {
	size := int64(len(a.Error) + len(a.Trace))
	if a.Answer != nil {
		size += int64(len(a.Answer.Body))
	}
	for i := range a.Logs {
		size += int64(len(a.Logs[i].Text))
	}
	return size
}

const (
	// The writer waits this long for company before it writes what has come: fifty small batches
	// a second cost a tenth of what a thousand cost.
	linger         = 20 * time.Millisecond
	expireInterval = time.Hour
)

// Run writes what is recorded and removes what is too old or too much, until ctx ends; then it
// writes what is left.
func (j *Journal) Run(ctx context.Context) error {
	expire := time.NewTimer(0)
	defer expire.Stop()
	for {
		select {
		case <-j.wake:
			select {
			case <-time.After(linger):
			case <-ctx.Done():
			}
			j.drain()
		case <-expire.C:
			if err := j.Expire(ctx); err != nil && ctx.Err() == nil {
				j.config.Logger.Warn("journal not expired", "cause", err)
			}
			expire.Reset(expireInterval)
		case <-ctx.Done():
			j.drain()
			return nil
		}
	}
}

// Flush returns when all that was recorded before the call has been written or dropped.
func (j *Journal) Flush(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		j.drain()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close writes what is left and closes the index; what is recorded afterwards is dropped. The
// Engine is to be closed after it.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed = true
	for t := range j.tails {
		t.end()
	}
	j.mu.Unlock()
	j.drain()
	return j.index.close()
}
