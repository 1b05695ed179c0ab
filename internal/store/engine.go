package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Config says where an Engine keeps its files and how much it may write.
type Config struct {
	// Dir is the data directory. The Engine holds its lock and its version for all who keep
	// something below it; its own files are in Dir/jetstream. It is made if absent.
	Dir string
	// MaxBytes bounds what all streams together may hold; 0 is four fifths of what the disk had
	// free at the first start, a figure that is remembered.
	MaxBytes int64
	// MinFree is what is left free on the disk: below it writes are refused with ErrFull, so that
	// the engine itself never meets a full disk. 0 is 64 MiB.
	MinFree int64
	Logger  *slog.Logger // nil: silent
}

func (c *Config) applyDefaults() {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.MinFree = cmp.Or(c.MinFree, 64<<20)
}

const (
	// A message is as large as the largest record with its headers; an invocation that waits in a
	// queue carries its body.
	maxPayload = 9 << 20
	// Streams with async persistence are synced this often; all others on every write.
	syncInterval = time.Second
	// An empty store is ready in milliseconds, one with 500,000 subjects took 4 s.
	readyTimeout = 2 * time.Minute
	// Limits are set per stream, each a share of MaxBytes. The server's own limit counts what is
	// reserved rather than what is used and makes a store that was opened with a smaller limit
	// unreadable, so it is set out of the way.
	serverLimit = int64(1) << 60
	memoryLimit = 256 << 20 // of streams in memory, of which there are none but the clients' own
)

// Engine is the JetStream server of this process. It listens on no port.
type Engine struct {
	config   Config // fixed after Open
	lock     *lock
	server   *server.Server
	js       jetstream.JetStream
	maxBytes int64
	closed   chan struct{}
	close    sync.Once
	closeErr error
	log      *serverLog
	reviving sync.Mutex

	connecting sync.Mutex
	conns      []*nats.Conn // guarded by connecting

	giving sync.WaitGroup
	looked atomic.Int64 // when the disk was last looked at, in nanoseconds
	since  atomic.Int64 // bytes to be written since then
}

// Open takes the lock of the data directory and starts the engine on it. Whoever opened it closes
// it. The error says what to do when another server has the directory or a newer one wrote it.
func Open(config Config) (_ *Engine, err error) {
	config.applyDefaults()
	if config.Dir == "" {
		return nil, errors.New("open store: no data directory given")
	}
	if err := os.MkdirAll(config.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	e := &Engine{config: config, closed: make(chan struct{}), log: &serverLog{logger: config.Logger}}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	if e.lock, err = takeLock(filepath.Join(config.Dir, "lock")); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if e.maxBytes, err = openLayout(config.Dir, config.MaxBytes); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := e.start(); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	e.giving.Go(e.giveBack)
	return e, nil
}

const (
	// How often giveBack looks, and how much more than it needs the heap may hold.
	lookAtHeap = 20 * time.Second
	muchIdle   = 64 << 20
)

// giveBack returns to the system what the heap holds without need. A store with many keys is read
// whole at the start and listed now and then, through caches that the engine lets go of seconds
// and minutes later; a quiet process has no reason to collect for as long, and then keeps as much
// again for what it may need next.
func (e *Engine) giveBack() {
	tick := time.NewTicker(lookAtHeap)
	defer tick.Stop()
	sample := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
	}
	for looks := 1; ; looks++ {
		select {
		case <-tick.C:
		case <-e.closed:
			return
		}
		metrics.Read(sample)
		live, held := sample[0].Value.Uint64(), uint64(0)
		for _, s := range sample[1:] {
			held += s.Value.Uint64()
		}
		// What is live is known of the last collection; during the start that was in the middle of
		// the reading, so the first looks don't go by it.
		if looks <= 4 && held > muchIdle || held > 2*live+muchIdle {
			debug.FreeOSMemory()
		}
	}
}

func (e *Engine) start() error {
	srv, err := server.NewServer(&server.Options{
		ServerName:             "brasa",
		DontListen:             true, // no port at all
		NoSigs:                 true, // signals are the daemon's
		JetStream:              true,
		StoreDir:               e.config.Dir,
		SyncAlways:             true, // the default acknowledges before fsync and loses whole streams at a power cut
		SyncInterval:           syncInterval,
		JetStreamMaxStore:      serverLimit,
		JetStreamMaxMemory:     memoryLimit,
		MaxPayload:             maxPayload,
		DisableJetStreamBanner: true,
	})
	if err != nil {
		return err
	}
	srv.SetLoggerV2(e.log, false, false, false)
	e.server = srv
	srv.Start()
	// Start returns when it has recovered the streams or has given up; a failure is told to the
	// log alone.
	if err := e.log.fatal.Load(); err != nil {
		return *err
	}
	if !srv.ReadyForConnections(readyTimeout) {
		return fmt.Errorf("the engine was not ready within %v", readyTimeout)
	}
	e.js, err = e.Connect("brasa")
	return err
}

// Connect returns the engine's streams by a connection of its own, which ends with the engine. What
// is read by a connection is read by its goroutine, one after the other: whoever reads much keeps
// those waiting who share one with it.
func (e *Engine) Connect(name string) (jetstream.JetStream, error) {
	conn, err := nats.Connect("", nats.InProcessServer(e.server), nats.Name(name), nats.MaxReconnects(-1),
		nats.NoEcho(), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			e.config.Logger.Warn("store connection", "cause", err)
		}))
	if err != nil {
		return nil, err
	}
	e.connecting.Lock()
	e.conns = append(e.conns, conn)
	e.connecting.Unlock()
	return jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(4096))
}

// JetStream returns the engine's streams, for packages journal and queue; they make theirs with
// Stream.
func (e *Engine) JetStream() jetstream.JetStream { return e.js }

// MaxBytes returns what all streams together may hold; callers size theirs as a share of it.
func (e *Engine) MaxBytes() int64 { return e.maxBytes }

// Dir returns the data directory.
func (e *Engine) Dir() string { return e.config.Dir }

// Stream opens the stream that config describes; it makes it, or changes it where it differs, and
// then returns when that is on the disk.
func (e *Engine) Stream(ctx context.Context, config jetstream.StreamConfig) (jetstream.Stream, error) {
	// The engine fills defaults in, so what was asked for is kept as a digest in the stream itself.
	asked, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("open stream %q: %w", config.Name, err)
	}
	sum := sha256.Sum256(asked)
	digest := hex.EncodeToString(sum[:8])
	if stream, err := e.js.Stream(ctx, config.Name); err == nil && stream.CachedInfo().Config.Metadata[askedKey] == digest {
		return stream, nil
	}
	if err := e.Room(0); err != nil {
		return nil, err
	}
	config.Metadata = map[string]string{askedKey: digest}
	stream, err := e.js.CreateOrUpdateStream(ctx, config)
	if err != nil {
		return nil, e.Classify(fmt.Errorf("open stream %q: %w", config.Name, err))
	}
	return stream, e.Sync()
}

// askedKey is where a stream keeps the digest of its configuration.
const askedKey = "brasa.config"

// Sync flushes the filesystem below the data directory. The engine's own fsync covers messages
// but not all of a new stream's metadata: without this a power cut loses the stream itself.
func (e *Engine) Sync() error {
	if err := syncFilesystem(e.config.Dir); err != nil {
		return fmt.Errorf("sync %q: %w", e.config.Dir, err)
	}
	return nil
}

// Room returns an error that wraps ErrFull if n more bytes would leave the disk with less than
// MinFree. It is cheap enough to ask before every write. If the engine met the end of the disk all
// the same, Room brings it back as soon as there is room again.
func (e *Engine) Room(n int64) error {
	if e.isClosed() {
		return ErrClosed
	}
	// A look at the disk holds for a moment, unless much is written in it.
	const fresh = int64(100 * time.Millisecond)
	now := time.Now().UnixNano()
	if !e.log.broken.Load() && now-e.looked.Load() < fresh && e.since.Add(n) < e.config.MinFree/4 {
		return nil
	}
	free, err := freeBytes(e.config.Dir)
	if err != nil {
		return fmt.Errorf("look at the disk of %q: %w", e.config.Dir, err)
	}
	if free-n < e.config.MinFree {
		return fmt.Errorf("%w: the disk of %q has %d MiB left and %d MiB are kept free; make room or move the data directory",
			ErrFull, e.config.Dir, free>>20, e.config.MinFree>>20)
	}
	if err := e.revive(); err != nil {
		return err
	}
	e.looked.Store(now)
	e.since.Store(n)
	return nil
}

// revive starts the engine's streams again after the disk refused a write: until then a stream
// that met an error writes nothing more and does not answer.
func (e *Engine) revive() error {
	e.reviving.Lock()
	defer e.reviving.Unlock()
	if !e.log.broken.Load() || e.isClosed() {
		return nil
	}
	e.config.Logger.Warn("store starts again after a failed write")
	if err := e.server.ShutdownJetStream(); err != nil {
		return fmt.Errorf("stop streams after a failed write: %w", err)
	}
	err := e.server.EnableJetStream(&server.JetStreamConfig{
		StoreDir: e.config.Dir, SyncInterval: syncInterval, SyncAlways: true, MaxMemory: memoryLimit, MaxStore: serverLimit, Strict: true, CompressOK: true,
	})
	if err != nil {
		return fmt.Errorf("start streams again after a failed write: %w", err)
	}
	e.log.broken.Store(false)
	return nil
}

func (e *Engine) isClosed() bool {
	select {
	case <-e.closed:
		return true
	default:
		return false
	}
}

// Classify adds one of the package's errors to what the engine answered, where one fits.
func (e *Engine) Classify(err error) error {
	var api *jetstream.APIError
	switch {
	case err == nil:
		return nil
	case e.isClosed(), errors.Is(err, nats.ErrConnectionClosed):
		return fmt.Errorf("%w: %w", ErrClosed, err)
	case errors.As(err, &api):
		switch {
		case api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence, api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant:
			return fmt.Errorf("%w: %w", ErrConflict, err)
		case isFull(api):
			return fmt.Errorf("%w: %w", ErrFull, err)
		}
	case errors.Is(err, context.Canceled):
	case e.log.broken.Load(), e.full():
		// A stream whose write failed does not answer; what was waited for is not on the disk.
		return fmt.Errorf("%w: the disk of %q refused a write: %w", ErrFull, e.config.Dir, err)
	}
	return err
}

// full says whether the disk has nearly nothing left, which explains an answer that does not come.
func (e *Engine) full() bool {
	free, err := freeBytes(e.config.Dir)
	if err != nil || free >= min(e.config.MinFree, 1<<20) {
		return false
	}
	e.log.broken.Store(true)
	return true
}

// Close stops the engine and gives the lock back. What was acknowledged is on the disk whether or
// not Close is called.
func (e *Engine) Close() error {
	e.close.Do(func() {
		close(e.closed)
		e.connecting.Lock()
		for _, c := range e.conns {
			c.Close()
		}
		e.connecting.Unlock()
		if e.server != nil {
			e.server.Shutdown()
			e.server.WaitForShutdown()
		}
		e.giving.Wait()
		if e.lock != nil {
			e.closeErr = e.lock.release()
		}
	})
	return e.closeErr
}
