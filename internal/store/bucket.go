package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// A bucket may fill this share of all that the engine holds; its deletes, which are writes
	// too, have a sixteenth more, so that a full bucket can be emptied.
	bucketShare = 16
	// A delete leaves a mark that tells watchers. It is dropped after a day: marks are keys, and
	// 500,000 keys cost 370 MB of memory.
	markTTL = 24 * time.Hour
)

// Bucket opens the bucket called name, of letters, digits, '-' and '_', and makes it if absent.
// The bucket keeps the last history values of every key for an operator's look; the Store shows
// the newest.
func (e *Engine) Bucket(ctx context.Context, name string, history int) (Store, error) {
	soft := e.maxBytes / bucketShare
	stream, err := e.Stream(ctx, jetstream.StreamConfig{
		Name:              "KV_" + name,
		Subjects:          []string{"$KV." + name + ".>"},
		MaxMsgsPerSubject: int64(max(history, 1)),
		MaxBytes:          soft + soft/16,
		MaxMsgs:           -1,
		MaxConsumers:      -1,
		MaxMsgSize:        MaxValue + 64<<10,
		Discard:           jetstream.DiscardNew,
		Storage:           jetstream.FileStorage,
		Replicas:          1,
		AllowRollup:       true,
		DenyDelete:        true,
		AllowMsgTTL:       true,
		AllowDirect:       false, // a direct get on a replica may be older than one's own write
		Duplicates:        2 * time.Minute,
	})
	if err != nil {
		return nil, fmt.Errorf("open bucket %q: %w", name, err)
	}
	kv, err := e.js.KeyValue(ctx, name)
	if err != nil {
		return nil, e.Classify(fmt.Errorf("open bucket %q: %w", name, err))
	}
	b := &bucket{engine: e, prefix: "$KV." + name + ".", soft: soft, stream: stream, kv: kv}
	b.size.Store(int64(stream.CachedInfo().State.Bytes))
	return b, nil
}

// bucket is a Store on a JetStream stream that has the form of NATS's own key-value buckets, so
// that its tools can read it.
type bucket struct {
	engine *Engine
	prefix string
	soft   int64
	stream jetstream.Stream
	kv     jetstream.KeyValue
	size   atomic.Int64 // what the stream holds, or more: history that was dropped is noticed late
}

// The headers that mark a message as the deletion of its subject.
const (
	opHeader    = "KV-Operation"
	opPurge     = "PURGE"
	rollup      = "Nats-Rollup"
	rollupKey   = "sub"
	expectKey   = "Nats-Expected-Last-Subject-Sequence"
	reasonMark  = "Nats-Marker-Reason"
	headerBytes = 256 // room for subject and headers, roughly
)

func (b *bucket) Get(ctx context.Context, key string) (Record, error) {
	if err := ValidateKey(key); err != nil {
		return Record{}, err
	}
	r, err := b.last(ctx, key)
	if err == nil && r.Deleted {
		err = ErrNotFound
	}
	if err != nil {
		return Record{}, err
	}
	return r, nil
}

// last returns the newest message of key, a deletion too.
func (b *bucket) last(ctx context.Context, key string) (Record, error) {
	m, err := b.stream.GetLastMsgForSubject(ctx, b.prefix+EncodeKey(key))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return Record{}, ErrNotFound
	}
	if err != nil {
		return Record{}, b.engine.Classify(fmt.Errorf("read %q: %w", key, err))
	}
	deleted := m.Header.Get(opHeader) != "" || m.Header.Get(reasonMark) != ""
	return Record{Key: key, Value: m.Data, Version: Version(m.Sequence), Deleted: deleted}, nil
}

func (b *bucket) Put(ctx context.Context, key string, value []byte, expect Version) (Version, error) {
	if err := ValidateKey(key); err != nil {
		return 0, err
	}
	if err := validateValue(value); err != nil {
		return 0, err
	}
	if err := b.room(ctx, int64(len(key)+len(value)+headerBytes)); err != nil {
		return 0, fmt.Errorf("write %q: %w", key, err)
	}
	if expect != Any && expect != Absent {
		// JetStream would take the sequence of a deletion for a version: nothing has that version.
		was, err := b.last(ctx, key)
		if err == nil && was.Deleted || errors.Is(err, ErrNotFound) {
			err = ErrConflict
		}
		if err != nil {
			return 0, fmt.Errorf("write %q: %w", key, err)
		}
	}
	m := &nats.Msg{Subject: b.prefix + EncodeKey(key), Header: nats.Header{}, Data: value}
	v, err := b.publish(ctx, m, expect)
	if expect == Absent && errors.Is(err, ErrConflict) {
		// Where the key was deleted the deletion's own sequence is to be expected.
		was, lastErr := b.last(ctx, key)
		if lastErr == nil && was.Deleted {
			v, err = b.publish(ctx, m, was.Version)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("write %q: %w", key, err)
	}
	return v, nil
}

func (b *bucket) Delete(ctx context.Context, key string, expect Version) error {
	if err := ValidateKey(key); err != nil {
		return err
	}
	m := &nats.Msg{Subject: b.prefix + EncodeKey(key), Header: nats.Header{
		opHeader: {opPurge}, rollup: {rollupKey}, // all older values go with it
	}}
	for {
		was, err := b.last(ctx, key)
		switch {
		case err != nil:
			return err
		case was.Deleted:
			return ErrNotFound
		case expect != Any && expect != was.Version:
			return fmt.Errorf("delete %q: %w", key, ErrConflict)
		}
		_, err = b.publish(ctx, m, was.Version, jetstream.WithMsgTTL(markTTL))
		if expect == Any && errors.Is(err, ErrConflict) {
			continue // someone wrote in between; the last writer is to win
		}
		if err != nil {
			return fmt.Errorf("delete %q: %w", key, err)
		}
		return nil
	}
}

func (b *bucket) publish(ctx context.Context, m *nats.Msg, expect Version, opts ...jetstream.PublishOpt) (Version, error) {
	m.Header.Del(expectKey)
	if expect != Any {
		m.Header.Set(expectKey, strconv.FormatUint(uint64(expect), 10))
	}
	ack, err := b.engine.js.PublishMsg(ctx, m, opts...)
	if err != nil {
		return 0, b.engine.Classify(err)
	}
	return Version(ack.Sequence), nil
}

// room refuses a write of n bytes when the disk or the bucket has no place for it.
func (b *bucket) room(ctx context.Context, n int64) error {
	if err := b.engine.Room(n); err != nil {
		return err
	}
	if b.size.Add(n) <= b.soft {
		return nil
	}
	info, err := b.stream.Info(ctx)
	if err != nil {
		return b.engine.Classify(err)
	}
	b.size.Store(int64(info.State.Bytes) + n)
	if size := int64(info.State.Bytes); size+n > b.soft {
		b.size.Add(-n)
		return fmt.Errorf("%w: it holds %d KiB of the %d KiB that it may; delete something or raise the store's limit", ErrFull, size>>10, b.soft>>10)
	}
	return nil
}

func (b *bucket) List(ctx context.Context, prefix, after string, limit int) ([]Record, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	news, err := b.Watch(ctx, prefix, 0)
	if err != nil {
		return nil, fmt.Errorf("list %q: %w", prefix, err)
	}
	found := map[string]Record{} // a key that is written during the walk comes twice
	for r := range news {
		switch {
		case r.Key == "":
			out := make([]Record, 0, len(found))
			for _, r := range found {
				out = append(out, r)
			}
			return page(out, limit), nil
		case r.Deleted:
			delete(found, r.Key)
		case r.Key > after:
			found[r.Key] = r
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return nil, ErrClosed
}

func (b *bucket) Watch(ctx context.Context, prefix string, from Version) (<-chan Record, error) {
	var opts []jetstream.WatchOpt
	if from > 0 {
		opts = append(opts, jetstream.ResumeFromRevision(uint64(from)+1))
	}
	w, err := b.kv.WatchFiltered(ctx, []string{filterFor(prefix)}, opts...)
	if err != nil {
		return nil, b.engine.Classify(fmt.Errorf("watch %q: %w", prefix, err))
	}
	out := make(chan Record)
	go func() {
		defer close(out)
		defer func() {
			_ = w.Stop()            // it fails only if the connection is closed already
			for range w.Updates() { // else its writer is stuck for ever on a full channel
			}
		}()
		for {
			var r Record
			select {
			case entry, ok := <-w.Updates():
				if !ok {
					return
				}
				if entry != nil {
					key, err := DecodeKey(entry.Key())
					if err != nil || !strings.HasPrefix(key, prefix) {
						continue
					}
					r = Record{Key: key, Value: entry.Value(), Version: Version(entry.Revision()), Deleted: entry.Operation() != jetstream.KeyValuePut}
					if r.Deleted {
						r.Value = nil
					}
				}
			case <-ctx.Done():
				return
			case <-b.engine.closed:
				return
			}
			select {
			case out <- r:
			case <-ctx.Done():
				return
			case <-b.engine.closed:
				return
			}
		}
	}()
	return out, nil
}
