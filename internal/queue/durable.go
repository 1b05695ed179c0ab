package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// Config says what a Durable queue is made of. Zero means the default.
type Config struct {
	Engine      *store.Engine
	Dir         string        // of the index; made if absent. Default "queue" in the engine's directory
	MaxBytes    int64         // of all that waits. Default a quarter of what the engine may hold
	Partitions  int           // default 16, at most 64; a queue that has been made keeps its number
	MaxAttempts int           // an invocation that was handed out this often is buried unasked. Default 100
	KeepBuried  time.Duration // default 14 days
	Logger      *slog.Logger

	clock clock
	// Tests want few.
	cleanAt         int // settlements after which their messages are removed at once
	alone, together int // see sendAlone and sendTogether
}

// clock is the time of day, and one that nobody steps; tests step the first.
type clock struct {
	wall   func() time.Time
	steady func() time.Duration
}

// reading is what both clocks said at one moment.
type reading struct {
	wall   time.Time
	steady time.Duration
}

func (c *clock) read() reading { return reading{c.wall(), c.steady()} }

func (c *Config) applyDefaults() {
	c.Dir = cmp.Or(c.Dir, filepath.Join(c.Engine.Dir(), "queue"))
	c.MaxBytes = cmp.Or(c.MaxBytes, c.Engine.MaxBytes()/4)
	c.Partitions = min(cmp.Or(c.Partitions, 16), 1<<partBits)
	c.MaxAttempts = cmp.Or(c.MaxAttempts, 100)
	c.alone, c.together = cmp.Or(c.alone, sendAlone), cmp.Or(c.together, sendTogether)
	c.cleanAt = cmp.Or(c.cleanAt, 8192)
	c.KeepBuried = cmp.Or(c.KeepBuried, 14*24*time.Hour)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.clock.wall == nil {
		begun := time.Now()
		c.clock = clock{wall: time.Now, steady: func() time.Duration { return time.Since(begun) }}
	}
}

const (
	deadStream = "DLQ"
	keyStream  = "INVOKE-KEYS"
	// IDs of messages are remembered this long by the engine, in memory: for a publication that is
	// repeated because its answer was lost. A call is made one by its key, or by its ID while it
	// waits.
	duplicates = 10 * time.Second
	// Messages are read by the goroutine of the connection that asks for them. Several read side by
	// side, and none of them keeps the publications of others waiting.
	connections = 4
)

// Durable is a Queue on the engine.
//
// Invocations are messages of streams; a function has its partition by its name and a subject by
// its name and the priority, never by an ID, since a subject costs 700 bytes of memory. The stream is
// the truth: a message is removed after its invocation is settled (see ledger), and all that the queue
// must know of one rides in its header. What is searched for, by function, turn, row, time and ID, lies in an
// index (see index) that is made again from the streams.
//
// The streams have no consumers. One for each function that has a backlog would cost 4 ms, 11 kB and
// four goroutines, and would hand out in its own order: rows, cancellations, pauses and times need
// another. So the index says what is next, and the message is read by its sequence.
//
// A lease is a mark in the index, and lasts as long as the process that has the data directory's
// lock, however long the call runs: no heart-beats, and nothing comes twice because a machine was
// slow. Open makes those wait again that a process left behind when it was killed; that each was
// handed out is counted before it is, so what kills the server is not tried for ever.
//
// What is waited for longer is not elsewhere: a retry is a new copy of the message with its number of
// attempts and its time, put into the stream before the old one is removed.
//
// Memory holds figures for each function and what is handed out; all else is on the disk.
type Durable struct {
	config Config
	parts  []*part
	dead   *part
	keys   *part
	ledger *ledger
	pauses store.Store
	hands  [connections]jetstream.JetStream // fixed after Open
	set    reading                          // of the clocks by which the index was brought up; fixed after Open
	index  *index
	poke   chan struct{} // holds one: Run has something to do

	cleaning sync.Mutex // one clean at a time

	keyed [64]sync.Mutex // a push with a key holds one, by the key; taken before all others

	mu        sync.Mutex              // taken after all others
	functions map[faas.Name]*function // guarded by mu; those that had anything since the start
	due       map[*function]struct{}  // guarded by mu; those that have something that may be handed out
	leases    map[int64]*lease        // guarded by mu; not settled, by place
	owed      []func(context.Context) error
	owned     map[string]int // guarded by mu; how many are there, by their owner
	total     [states]int    // guarded by mu
	bytes     int64          // guarded by mu; of all that waits
	wake      chan struct{}  // guarded by mu; closed and replaced when something may be due
}

// function is what is known of one in memory.
type function struct {
	name    faas.Name
	part    *part
	subject string // its place in the subjects of a stream
	id      int64  // guarded by index.writing; in the index, 0: none yet

	// Guarded by Durable.mu.
	count   [states]int
	dead    int
	bytes   int64
	pledged int64 // bytes that are about to be pushed
	paused  bool
}

func (f *function) waiting() int { return f.count[ready] + f.count[later] + f.count[behind] }

// Open makes or opens the queue. What the index lacks it reads from the streams, about half a
// minute for a million invocations if the index is lost; after an orderly stop it lacks nothing.
func Open(ctx context.Context, config Config) (_ *Durable, err error) {
	config.applyDefaults()
	q := &Durable{
		config: config, poke: make(chan struct{}, 1), functions: map[faas.Name]*function{}, due: map[*function]struct{}{}, leases: map[int64]*lease{}, owned: map[string]int{}, wake: make(chan struct{}),
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open queue: %w", err)
		}
	}()
	for i := range q.hands {
		if q.hands[i], err = config.Engine.Connect("queue"); err != nil {
			return nil, err
		}
	}
	for i := range config.Partitions {
		p, err := q.openPart(ctx, i, fmt.Sprintf("INVOKE-%02d", i), fmt.Sprintf("invoke.%02d.>", i), jetstream.DiscardNew, -1, 0, q.hands[i%connections])
		if err != nil {
			return nil, err
		}
		q.parts = append(q.parts, p)
	}
	// Dead letters that are too many push out the oldest: they were given up, and must not keep what
	// lives from being given up too.
	if q.dead, err = q.openPart(ctx, -1, deadStream, "dlq.>", jetstream.DiscardOld, config.MaxBytes/4, config.KeepBuried, q.hands[0]); err != nil {
		return nil, err
	}
	if q.keys, err = q.openPart(ctx, -1, keyStream, "invokekey.>", jetstream.DiscardNew, config.MaxBytes/8, keepKeys, q.hands[1]); err != nil {
		return nil, err
	}
	if err := q.openLedger(ctx); err != nil {
		return nil, err
	}
	if q.pauses, err = config.Engine.Bucket(ctx, "queue", 1); err != nil {
		return nil, err
	}
	q.index = &index{path: filepath.Join(config.Dir, "index.db"), logger: config.Logger, apply: q.apply}
	if err := q.index.open(); err != nil {
		return nil, err
	}
	q.set = config.clock.read()
	err = q.recover(ctx)
	if isCorrupt(err) {
		config.Logger.Warn("index of the queue begun anew", "cause", err)
		if err = q.beginAnew(); err == nil {
			err = q.recover(ctx)
		}
	}
	if err != nil {
		return nil, errors.Join(err, q.index.close())
	}
	q.index.mend = q.mend // from here on damage is mended where it is met
	return q, nil
}

func (q *Durable) openPart(ctx context.Context, number int, name, subjects string, full jetstream.DiscardPolicy, most int64, age time.Duration, hand jetstream.JetStream) (*part, error) {
	// The engine reads a stream in blocks, and keeps in memory those that were read last. They are of 8 MiB
	// in a stream that is bounded by its bytes, and of half of that where the messages of a subject are
	// counted: while all partitions were worked off the larger ones came to 130 MiB and, until they were
	// collected, to twice that. What partitions hold is bounded by room and by the ledger.
	bySubject := int64(-1)
	if most < 0 {
		bySubject = 1 << 40
	}
	_, err := q.config.Engine.Stream(ctx, jetstream.StreamConfig{
		Name: name, Subjects: []string{subjects}, Storage: jetstream.FileStorage, Replicas: 1,
		Retention: jetstream.LimitsPolicy, Discard: full, MaxBytes: most, MaxAge: age,
		MaxMsgs: -1, MaxMsgsPerSubject: bySubject, MaxConsumers: -1, Duplicates: duplicates, AllowDirect: true,
		AllowAtomicPublish: true,
	})
	if err != nil {
		return nil, err
	}
	stream, err := hand.Stream(ctx, name)
	if err != nil {
		return nil, q.config.Engine.Classify(err)
	}
	return &part{
		number: number, name: name, stream: stream, flights: map[*flight]struct{}{},
		sender: sender{js: q.config.Engine.JetStream(), alone: q.config.alone, together: q.config.together},
	}, nil
}

// closeTimeout bounds how long Close removes what is settled, for which the next Open would have to wait.
const closeTimeout = 5 * time.Second

// Close closes the index. The Engine is to be closed after it.
func (q *Durable) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := q.clean(ctx, 0); err != nil {
		q.config.Logger.Debug("what is settled left to the next start", "cause", err)
	}
	q.index.writing.Lock()
	defer q.index.writing.Unlock()
	return q.index.close()
}

func (q *Durable) now() int64 { return micros(q.config.clock.wall()) }

// function returns what is known of a function, and begins to know it.
func (q *Durable) function(n faas.Name) *function {
	q.mu.Lock()
	defer q.mu.Unlock()
	f := q.functions[n]
	if f == nil {
		h := fnv.New32a()
		_, _ = h.Write([]byte(n.String())) // never fails
		p := q.parts[h.Sum32()%uint32(len(q.parts))]
		f = &function{name: n, part: p, subject: fmt.Sprintf("%02d.%s.%s", p.number, store.EncodePart(n.Namespace), store.EncodePart(n.Path()))}
		q.functions[n] = f
	}
	return f
}

// of returns the functions that a name of a function, or of a namespace, stands for.
func (q *Durable) of(name faas.Name) []*function {
	q.mu.Lock()
	defer q.mu.Unlock()
	var out []*function
	for n, f := range q.functions {
		if n == name || name.Function == "" && (name.Namespace == "" || n.Namespace == name.Namespace) {
			out = append(out, f)
		}
	}
	return out
}

// chosen returns the functions that a filter may find something of.
func (q *Durable) chosen(f Filter) []*function {
	all := q.of(faas.Name{Namespace: f.Namespace})
	out := all[:0]
	for _, x := range all {
		if f.Namespace != "" && (f.Function == "" || x.name.Path() == f.Function) {
			out = append(out, x)
		}
	}
	return out
}

// apply takes over what a transaction of the index changed.
func (q *Durable) apply(changes []change) {
	q.mu.Lock()
	defer q.mu.Unlock()
	more, sooner := false, false
	for _, c := range changes {
		if c.owner != "" {
			if q.owned[c.owner] += c.owned; q.owned[c.owner] == 0 {
				delete(q.owned, c.owner)
			}
		}
		if c.f == nil {
			continue
		}
		c.f.count[c.state] += c.count
		q.total[c.state] += c.count
		c.f.dead += c.dead
		c.f.bytes += c.bytes
		q.bytes += c.bytes
		if c.f.count[ready] > 0 {
			q.due[c.f] = struct{}{}
		} else {
			delete(q.due, c.f)
		}
		more = more || c.state == ready && c.count > 0
		sooner = sooner || c.state == later && c.count > 0
	}
	if more {
		q.tell()
	}
	if sooner {
		q.nudge()
	}
}

// tell wakes those who wait for more to be due. It is called with mu held.
func (q *Durable) tell() {
	close(q.wake)
	q.wake = make(chan struct{})
}

func (q *Durable) nudge() {
	select {
	case q.poke <- struct{}{}:
	default: // Run knows
	}
}
