package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

const (
	// Every chunk costs an fsync, so they are large; one in flight is as much memory.
	chunkSize     = 1 << 20
	chunksAtOnce  = 8
	objectsShare  = 2 // half of all that the engine holds
	objectsMargin = 16
)

// Objects opens the object bucket called name, of letters, digits, '-' and '_', and makes it if
// absent. What a crash left of an object that was never finished is removed by the first List.
func (e *Engine) Objects(ctx context.Context, name string) (Objects, error) {
	limit := e.maxBytes / objectsShare
	stream, err := e.Stream(ctx, jetstream.StreamConfig{
		Name:         "OBJ_" + name,
		Subjects:     []string{"$O." + name + ".C.>", "$O." + name + ".M.>"},
		MaxBytes:     limit,
		MaxMsgs:      -1,
		MaxConsumers: -1,
		Discard:      jetstream.DiscardNew,
		Storage:      jetstream.FileStorage,
		Replicas:     1,
		AllowRollup:  true,
		AllowDirect:  false, // see Bucket
	})
	if err != nil {
		return nil, fmt.Errorf("open objects %q: %w", name, err)
	}
	lib, err := e.js.ObjectStore(ctx, name)
	if err != nil {
		return nil, e.Classify(fmt.Errorf("open objects %q: %w", name, err))
	}
	return &objects{engine: e, name: name, stream: stream, lib: lib, putting: map[string]bool{}}, nil
}

// objects has the form of NATS's own object buckets, so that its tools can read it, but puts and
// gets itself: the library sends an object's description along with the chunks, so that a chunk
// refused for want of room leaves a described object without its bytes, and bounds a whole
// download by its five seconds for one request.
type objects struct {
	engine *Engine
	name   string
	stream jetstream.Stream
	lib    jetstream.ObjectStore

	sweeping sync.Mutex // one sweep at a time
	swept    bool       // guarded by sweeping

	mu      sync.Mutex
	putting map[string]bool // by NUID: what is being put; guarded by mu
	during  map[string]bool // what was being put since the sweep began, nil: there is none; guarded by mu
}

func (o *objects) chunks(id string) string { return "$O." + o.name + ".C." + id }

func (o *objects) meta(name string) string {
	return "$O." + o.name + ".M." + base64.URLEncoding.EncodeToString([]byte(name))
}

func digestOf(h hash.Hash) string {
	return "SHA-256=" + base64.URLEncoding.EncodeToString(h.Sum(nil))
}

func (o *objects) Put(ctx context.Context, name string, r io.Reader) (_ int64, err error) {
	if name == "" {
		return 0, fmt.Errorf("put object: %w: empty name", ErrKey)
	}
	was, err := o.info(ctx, name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return 0, fmt.Errorf("put object %q: %w", name, err)
	}
	info := &jetstream.ObjectInfo{
		Bucket:     o.name,
		NUID:       nuid.Next(),
		ObjectMeta: jetstream.ObjectMeta{Name: name, Opts: &jetstream.ObjectMetaOptions{ChunkSize: chunkSize}},
	}
	defer func() {
		if err != nil {
			// The caller's context may be what ended the put; what is left here waits for the sweep.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			_ = o.stream.Purge(ctx, jetstream.WithPurgeSubject(o.chunks(info.NUID)))
			err = fmt.Errorf("put object %q: %w", name, err)
		}
	}()
	defer o.begin(info.NUID)()
	if err := o.putChunks(ctx, info, r); err != nil {
		return 0, err
	}
	data, err := json.Marshal(info)
	if err != nil {
		return 0, err
	}
	m := &nats.Msg{Subject: o.meta(name), Data: data, Header: nats.Header{rollup: {rollupKey}}}
	if _, err := o.engine.js.PublishMsg(ctx, m); err != nil {
		return 0, o.engine.Classify(err)
	}
	if was != nil {
		// The new object is there already; should this fail, the sweep has it.
		_ = o.stream.Purge(ctx, jetstream.WithPurgeSubject(o.chunks(was.NUID)))
	}
	return int64(info.Size), nil
}

func (o *objects) putChunks(ctx context.Context, info *jetstream.ObjectInfo, r io.Reader) error {
	subject, sum := o.chunks(info.NUID), sha256.New()
	var flying []jetstream.PubAckFuture
	land := func(most int) error {
		for len(flying) > most {
			select {
			case <-flying[0].Ok():
			case err := <-flying[0].Err():
				return o.engine.Classify(err)
			case <-time.After(chunkTimeout):
				return o.engine.Classify(context.DeadlineExceeded)
			case <-ctx.Done():
				return ctx.Err()
			case <-o.engine.closed:
				return ErrClosed
			}
			flying = flying[1:]
		}
		return nil
	}
	buffer := buffers.Get().(*[chunkSize]byte)
	defer buffers.Put(buffer)
	for {
		n, err := io.ReadFull(r, buffer[:])
		if n > 0 {
			chunk := bytes.Clone(buffer[:n]) // the client keeps it until the acknowledgement
			if err := o.engine.Room(int64(n)); err != nil {
				return err
			}
			_, _ = sum.Write(chunk) // never fails
			ack, err := o.engine.js.PublishMsgAsync(&nats.Msg{Subject: subject, Data: chunk})
			if err != nil {
				return o.engine.Classify(err)
			}
			flying = append(flying, ack)
			info.Size, info.Chunks = info.Size+uint64(n), info.Chunks+1
			if err := land(chunksAtOnce - 1); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			info.Digest = digestOf(sum)
			return land(0)
		case err != nil:
			return err
		}
	}
}

// Most objects are much smaller than a chunk, so the buffer is shared rather than made each time.
var buffers = sync.Pool{New: func() any { return new([chunkSize]byte) }}

func (o *objects) info(ctx context.Context, name string) (*jetstream.ObjectInfo, error) {
	info, err := o.lib.GetInfo(ctx, name)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, o.engine.Classify(err)
	}
	return info, nil
}

func (o *objects) Stat(ctx context.Context, name string) (Object, error) {
	info, err := o.info(ctx, name)
	if err != nil {
		return Object{}, fmt.Errorf("object %q: %w", name, err)
	}
	return Object{Name: name, Size: int64(info.Size), Modified: info.ModTime}, nil
}

func (o *objects) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	info, err := o.info(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("object %q: %w", name, err)
	}
	r := &objectReader{info: info, sum: sha256.New(), closed: o.engine.closed}
	if info.Chunks == 0 {
		return r, nil
	}
	if info.Chunks <= fewChunks {
		if r.chunks, err = o.few(ctx, info); err != nil {
			return nil, fmt.Errorf("read object %q: %w", name, err)
		}
		return r, nil
	}
	consumer, err := o.engine.js.OrderedConsumer(ctx, "OBJ_"+o.name, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{o.chunks(info.NUID)},
	})
	if err != nil {
		return nil, o.engine.Classify(fmt.Errorf("read object %q: %w", name, err))
	}
	if n := consumer.CachedInfo().NumPending; n < uint64(info.Chunks) {
		return nil, fmt.Errorf("read object %q: %w: %d of %d chunks are there", name, ErrCorrupt, n, info.Chunks)
	}
	r.messages, err = consumer.Messages(jetstream.PullMaxMessages(chunksAtOnce))
	if err != nil {
		return nil, o.engine.Classify(fmt.Errorf("read object %q: %w", name, err))
	}
	r.ctx, r.cancel = context.WithCancel(ctx)
	return r, nil
}

// fewChunks are asked for one by one: a consumer costs more than they do, and the engine has only
// so many at a time.
const fewChunks = 4

// few reads all chunks of a small object.
func (o *objects) few(ctx context.Context, info *jetstream.ObjectInfo) ([][]byte, error) {
	out := make([][]byte, 0, info.Chunks)
	after := uint64(0)
	for range info.Chunks {
		m, err := o.stream.GetMsg(ctx, after+1, jetstream.WithGetMsgSubject(o.chunks(info.NUID)))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil, fmt.Errorf("%w: %d of %d chunks are there", ErrCorrupt, len(out), info.Chunks)
		}
		if err != nil {
			return nil, o.engine.Classify(err)
		}
		out, after = append(out, m.Data), m.Sequence
	}
	return out, nil
}

// objectReader is one download. Its context lives as long as the download, which is one call's.
type objectReader struct {
	ctx      context.Context
	cancel   context.CancelFunc
	closed   <-chan struct{}
	info     *jetstream.ObjectInfo
	chunks   [][]byte                  // of a small object, all
	messages jetstream.MessagesContext // of a large one
	sum      hash.Hash
	read     uint32 // chunks
	rest     []byte
	err      error
}

// chunkTimeout is how long a chunk may be in coming before it counts as lost.
const chunkTimeout = 10 * time.Second

func (r *objectReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 && r.err == nil {
		r.rest, r.err = r.next()
	}
	if len(r.rest) == 0 {
		return 0, r.err
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *objectReader) next() ([]byte, error) {
	if r.read == r.info.Chunks {
		if got := digestOf(r.sum); got != r.info.Digest {
			return nil, fmt.Errorf("object %q: %w: %s, want %s", r.info.Name, ErrCorrupt, got, r.info.Digest)
		}
		return nil, io.EOF
	}
	if r.chunks != nil {
		chunk := r.chunks[r.read]
		_, _ = r.sum.Write(chunk) // never fails
		r.read++
		return chunk, nil
	}
	ctx, cancel := context.WithTimeout(r.ctx, chunkTimeout)
	defer cancel()
	m, err := r.messages.Next(jetstream.NextContext(ctx))
	if err != nil {
		if parent := r.ctx.Err(); parent != nil {
			return nil, parent
		}
		return nil, fmt.Errorf("object %q: chunk %d of %d: %w: %w", r.info.Name, r.read+1, r.info.Chunks, ErrCorrupt, err)
	}
	_, _ = r.sum.Write(m.Data()) // never fails
	r.read++
	return m.Data(), nil
}

func (r *objectReader) Close() error {
	if r.messages != nil {
		r.messages.Stop()
		r.cancel()
	}
	return nil
}

// Delete removes the description first: an object that is half deleted is not there.
func (o *objects) Delete(ctx context.Context, name string) error {
	info, err := o.info(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete object %q: %w", name, err)
	}
	for _, subject := range []string{o.meta(name), o.chunks(info.NUID)} {
		if err := o.stream.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
			return o.engine.Classify(fmt.Errorf("delete object %q: %w", name, err))
		}
	}
	return nil
}

// List looks for what a crash left too, the first time: both go over all objects, and of many that
// takes seconds, for which no start should wait.
func (o *objects) List(ctx context.Context) ([]Object, error) {
	var out []Object
	err := o.sweep(ctx, func(i *jetstream.ObjectInfo) {
		out = append(out, Object{Name: i.Name, Size: int64(i.Size), Modified: i.ModTime})
	})
	if err != nil {
		return nil, fmt.Errorf("list objects: %w", err)
	}
	sortObjects(out)
	return out, nil
}

// each calls f for every object there is. Their descriptions are never in memory together: of
// many objects they are most of what is known.
func (o *objects) each(ctx context.Context, f func(*jetstream.ObjectInfo)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watcher, err := o.lib.Watch(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return o.engine.Classify(err)
	}
	defer func() { _ = watcher.Stop() }() // it fails only if the connection is closed already
	for {
		select {
		case info, ok := <-watcher.Updates():
			if !ok {
				return o.engine.Classify(nats.ErrConnectionClosed)
			}
			if info == nil { // the last that was there
				return nil
			}
			f(info)
		case <-ctx.Done():
			return ctx.Err()
		case <-o.engine.closed:
			return ErrClosed
		}
	}
}

// begin notes that an object is being put, until what it returns is called.
func (o *objects) begin(nuid string) (done func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.putting[nuid] = true
	if o.during != nil {
		o.during[nuid] = true
	}
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.putting, nuid)
	}
}

// sweep is each; the first that succeeds removes the chunks of the time before that belong to no object.
func (o *objects) sweep(ctx context.Context, f func(*jetstream.ObjectInfo)) error {
	o.sweeping.Lock()
	defer o.sweeping.Unlock()
	if o.swept {
		return o.each(ctx, f)
	}
	// What is being put has chunks and no description yet; whatever was, while this looks, stays.
	o.mu.Lock()
	o.during = maps.Clone(o.putting)
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		o.during = nil
		o.mu.Unlock()
	}()
	state, err := o.stream.Info(ctx, jetstream.WithSubjectFilter(o.chunks(">")))
	if err != nil {
		return o.engine.Classify(err)
	}
	left := state.State.Subjects
	err = o.each(ctx, func(i *jetstream.ObjectInfo) {
		delete(left, o.chunks(i.NUID))
		f(i)
	})
	if err != nil {
		return err
	}
	for subject := range left {
		o.mu.Lock()
		putting := o.during[strings.TrimPrefix(subject, o.chunks(""))]
		o.mu.Unlock()
		if putting {
			continue
		}
		if err := o.stream.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
			return o.engine.Classify(err)
		}
	}
	o.swept = true
	return nil
}
