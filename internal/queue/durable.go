package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// Config says what a Durable queue is made of. Zero means the default.
type Config struct {
	Engine      *store.Engine
	Partitions  int           // default 16; a queue that has been made keeps its number
	Lease       time.Duration // a lease whose holder died comes back after this. Default 10 s
	MaxAttempts int           // an invocation that was handed out this often is buried unasked. Default 100
	KeepBuried  time.Duration // default 14 days
	Logger      *slog.Logger

	later time.Duration // from here on a retry waits in a stream of its own
}

func (c *Config) applyDefaults() {
	c.Partitions = cmp.Or(c.Partitions, 16)
	c.Lease = cmp.Or(c.Lease, 10*time.Second)
	c.MaxAttempts = cmp.Or(c.MaxAttempts, 100)
	c.KeepBuried = cmp.Or(c.KeepBuried, 14*24*time.Hour)
	// An invocation that is put off by its partition's consumer takes up one of its places; one
	// that is put off for longer than this waits elsewhere.
	c.later = cmp.Or(c.later, time.Minute)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

const (
	attemptHeader = "Brasa-Attempt" // handed out so often before it was put off for long, or buried
	whyHeader     = "Brasa-Why"
	dueHeader     = "Brasa-Due" // in Unix milliseconds
	deadStream    = "DLQ"
	laterStream   = "LATER"
	// Messages of other nodes, and leases of the dead, are noticed this late at worst; one's own
	// are noticed at once.
	pollInterval = time.Second
	maxPending   = 10_000
	duplicates   = 2 * time.Minute
	maxWhy       = 4 << 10
)

// Durable is a Queue on the engine: a stream for each partition, in which each function has its
// place by its name, so that partitions sync in parallel and one function's flood does not hold
// up all others. Run keeps the leases of this process alive and brings back what was put off for
// long: that waits in one stream whose consumer has no bound on what is pending. (The engine's own
// schedules need a stream that drops old messages when it is full; ours refuse new ones.)
type Durable struct {
	config Config
	parts  []part
	later  part
	dead   jetstream.Stream
	turn   atomic.Uint32 // the partition that Pull begins with

	mu     sync.Mutex
	leases map[*lease]struct{} // guarded by mu; not settled
	wake   chan struct{}       // guarded by mu; closed and replaced when something may be due
}

type part struct {
	stream   jetstream.Stream
	consumer jetstream.Consumer
}

// Open makes or opens the queue's streams.
func Open(ctx context.Context, config Config) (*Durable, error) {
	config.applyDefaults()
	q := &Durable{config: config, leases: map[*lease]struct{}{}, wake: make(chan struct{})}
	most := config.Engine.MaxBytes() / 8
	for i := range config.Partitions {
		number := fmt.Sprintf("%02d", i)
		p, err := q.openPart(ctx, "INVOKE-"+number, "invoke."+number+".>", most/int64(config.Partitions), maxPending)
		if err != nil {
			return nil, fmt.Errorf("open queue: %w", err)
		}
		q.parts = append(q.parts, p)
	}
	var err error
	if q.later, err = q.openPart(ctx, laterStream, "later.>", most/4, -1); err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	q.dead, err = config.Engine.Stream(ctx, jetstream.StreamConfig{
		Name: deadStream, Subjects: []string{"dlq.>"}, Storage: jetstream.FileStorage, Replicas: 1,
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld, MaxAge: config.KeepBuried, MaxBytes: most / 4,
		MaxMsgs: -1, MaxConsumers: -1, Duplicates: duplicates,
	})
	if err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	// A consumer that is lost at a power cut is made again here and delivers what was not settled.
	return q, nil
}

func (q *Durable) openPart(ctx context.Context, name, subjects string, most int64, pending int) (part, error) {
	var p part
	var err error
	p.stream, err = q.config.Engine.Stream(ctx, jetstream.StreamConfig{
		Name: name, Subjects: []string{subjects}, Storage: jetstream.FileStorage, Replicas: 1,
		Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, MaxBytes: most,
		MaxMsgs: -1, MaxConsumers: -1, Duplicates: duplicates,
	})
	if err != nil {
		return p, err
	}
	p.consumer, err = p.stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: "dispatch", FilterSubject: subjects, AckPolicy: jetstream.AckExplicitPolicy,
		AckWait: q.config.Lease, MaxAckPending: pending,
		MaxDeliver: -1, // the engine would leave the message where it is and say nothing; see MaxAttempts
	})
	if err != nil {
		return p, fmt.Errorf("open consumer of %q: %w", name, err)
	}
	return p, nil
}

// partition returns the function's place: the number of its partition and its subject there.
func (q *Durable) partition(n faas.Name) (int, string) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(n.String())) // never fails
	i := int(h.Sum32() % uint32(q.config.Partitions))
	return i, fmt.Sprintf("%02d.%s.%s", i, store.EncodePart(n.Namespace), store.EncodePart(n.Path()))
}

// Push implements Queue.
func (q *Durable) Push(ctx context.Context, inv *faas.Invocation) error {
	data, err := encode(inv)
	if err != nil {
		return err
	}
	_, place := q.partition(inv.Function.Name)
	if err := q.publish(ctx, &nats.Msg{Subject: "invoke." + place, Data: data}, jetstream.WithMsgID(string(inv.ID))); err != nil {
		return err
	}
	q.tell()
	return nil
}

func (q *Durable) publish(ctx context.Context, m *nats.Msg, opts ...jetstream.PublishOpt) error {
	const op = "queue invocation"
	err := q.config.Engine.Room(int64(len(m.Data)))
	if err == nil {
		_, err = q.config.Engine.JetStream().PublishMsg(ctx, m, opts...)
		err = q.config.Engine.Classify(err)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrFull):
		return faas.Errorf(faas.Overloaded, op, "the queue is full: %w", err).WithLimit("queue_bytes").WithFix("try again later")
	}
	return &faas.Error{Code: codeOf(err), Op: op, Err: err}
}

func codeOf(err error) faas.Code {
	if c := faas.CodeOf(err); c != faas.Internal {
		return c
	}
	return faas.Unavailable
}

// tell wakes those who wait in Pull.
func (q *Durable) tell() {
	q.mu.Lock()
	close(q.wake)
	q.wake = make(chan struct{})
	q.mu.Unlock()
}

// Pull implements Queue.
func (q *Durable) Pull(ctx context.Context, most int) ([]Lease, error) {
	for {
		q.mu.Lock()
		wake := q.wake // before looking, so that what comes meanwhile is not missed
		q.mu.Unlock()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		out, err := q.take(ctx, max(most, 1))
		if len(out) > 0 || err != nil {
			return out, err
		}
		timer := time.NewTimer(pollInterval)
		select {
		case <-wake:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// take leases what is due, each time beginning with another partition. It fails only if it has
// nothing to give: what was leased must reach the caller.
func (q *Durable) take(ctx context.Context, most int) ([]Lease, error) {
	var out []Lease
	first := int(q.turn.Add(1))
	for i := range q.parts {
		p := q.parts[(first+i)%len(q.parts)]
		batch, err := p.consumer.FetchNoWait(most - len(out))
		if err == nil {
			for m := range batch.Messages() {
				if l := q.lease(ctx, m); l != nil {
					out = append(out, l)
				}
			}
			err = batch.Error()
		}
		if err != nil && len(out) == 0 {
			return nil, &faas.Error{Code: faas.Unavailable, Op: "take from queue", Err: q.config.Engine.Classify(err)}
		}
		if len(out) >= most || err != nil {
			break
		}
	}
	return out, nil
}

// lease makes a lease of a message; nil if nobody can have it.
func (q *Durable) lease(ctx context.Context, m jetstream.Msg) *lease {
	l := &lease{queue: q, msg: m}
	before, _ := strconv.Atoi(m.Headers().Get(attemptHeader)) // absent on the first way
	meta, err := m.Metadata()
	if err == nil {
		l.inv, err = decode(m.Data())
	}
	if err != nil {
		q.config.Logger.Error("invocation not readable", "subject", m.Subject(), "cause", err)
		_ = m.Term() // it comes again if that fails
		return nil
	}
	l.inv.Attempt = before + int(meta.NumDelivered)
	q.mu.Lock()
	q.leases[l] = struct{}{}
	q.mu.Unlock()
	if l.inv.Attempt > q.config.MaxAttempts {
		why := fmt.Errorf("it was handed out %d times and never settled", l.inv.Attempt-1)
		if err := l.Bury(ctx, why); err != nil {
			q.config.Logger.Error("invocation not buried", "invocation", l.inv.ID, "cause", err)
		}
		return nil
	}
	return l
}

// Run keeps the leases of this process alive, and brings back what was put off for long, until
// ctx ends. Without it leases come back to the queue after Config.Lease.
func (q *Durable) Run(ctx context.Context) error {
	back, err := q.later.consumer.Consume(func(m jetstream.Msg) { q.bringBack(ctx, m) })
	if err != nil {
		return fmt.Errorf("run queue: %w", q.config.Engine.Classify(err))
	}
	defer func() {
		back.Stop()
		<-back.Closed()
	}()
	tick := time.NewTicker(q.config.Lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		q.mu.Lock()
		held := make([]*lease, 0, len(q.leases))
		for l := range q.leases {
			held = append(held, l)
		}
		q.mu.Unlock()
		for _, l := range held {
			if err := l.msg.InProgress(); err != nil && !errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
				q.config.Logger.Warn("lease not kept alive", "invocation", l.inv.ID, "cause", err)
			}
		}
	}
}

// Depth implements Queue.
func (q *Durable) Depth(ctx context.Context) (int, error) {
	n := 0
	for _, p := range append(q.parts[:len(q.parts):len(q.parts)], q.later) {
		info, err := p.stream.Info(ctx)
		if err != nil {
			return 0, &faas.Error{Code: codeOf(err), Op: "look at queue", Err: q.config.Engine.Classify(err)}
		}
		n += int(info.State.Msgs)
	}
	return n, nil
}

// Buried implements Queue.
func (q *Durable) Buried(ctx context.Context, limit int) ([]Dead, error) {
	const op = "look at buried invocations"
	info, err := q.dead.Info(ctx)
	if err != nil {
		return nil, &faas.Error{Code: codeOf(err), Op: op, Err: q.config.Engine.Classify(err)}
	}
	var out []Dead
	for seq := max(info.State.FirstSeq, 1); seq <= info.State.LastSeq && (limit <= 0 || len(out) < limit); seq++ {
		m, err := q.dead.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return nil, &faas.Error{Code: codeOf(err), Op: op, Err: q.config.Engine.Classify(err)}
		}
		inv, err := decode(m.Data)
		if err != nil {
			q.config.Logger.Error("invocation not readable", "subject", m.Subject, "cause", err)
			continue
		}
		inv.Attempt, _ = strconv.Atoi(m.Header.Get(attemptHeader)) // always set by Bury
		out = append(out, Dead{Invocation: inv, Why: m.Header.Get(whyHeader), At: m.Time})
	}
	return out, nil
}
