package journal

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

const (
	streamName   = "ACT"
	chunkSubject = "acts" // records by the chunk
	logSubject   = "log." // and the namespace, and the function: the rest of a long log, before its record

	idHeader   = "Brasa-Id"
	partHeader = "Brasa-Part"
	dayHeader  = "Brasa-Day" // of the record, if its ID is of another

	batchRecords = 4096
	batchBytes   = 8 << 20
	// Text of logs that lies with the record in the stream, and in each message after it.
	logHead = 64 << 10
	logPart = 512 << 10

	publishTimeout = 10 * time.Second
)

func streamConfig(c Config) jetstream.StreamConfig {
	most := min(int64(c.MaxBytes)/2, c.Engine.MaxBytes()/4)
	return jetstream.StreamConfig{
		Name:         streamName,
		Subjects:     []string{chunkSubject, logSubject + ">"},
		Storage:      jetstream.FileStorage,
		Retention:    jetstream.LimitsPolicy,
		Discard:      jetstream.DiscardOld,
		MaxAge:       c.MaxAge + 24*time.Hour, // the index keeps whole days
		MaxBytes:     most,
		MaxMsgs:      -1,
		MaxConsumers: -1,
		Replicas:     1,
		Compression:  jetstream.S2Compression,
		PersistMode:  jetstream.AsyncPersistMode, // allowed to records alone: the caller has its answer already
		Duplicates:   time.Second,                // ids of messages would lie in memory; the index knows its own
	}
}

// drain writes everything that was recorded before the call. It takes no context: a batch that is
// begun is finished, and no caller's haste makes others' records lost.
func (j *Journal) drain() {
	j.write.Lock()
	defer j.write.Unlock()
	ctx := context.Background()
	j.mu.Lock()
	left := len(j.buffer)
	j.mu.Unlock()
	for left > 0 {
		batch := j.take()
		left -= len(batch)
		if lost, err := j.writeBatch(ctx, batch); err != nil {
			j.dropped.Add(uint64(lost))
			j.config.Logger.Error("records not written", "count", len(batch), "lost", lost, "cause", err)
		}
		j.mu.Lock()
		for _, a := range batch {
			j.held -= sizeOf(a)
		}
		j.writing = nil
		j.mu.Unlock()
	}
	if n := j.dropped.Load(); n > j.reported {
		j.config.Logger.Warn("records dropped", "count", n-j.reported)
		j.reported = n
	}
}

// take moves a batch from the buffer to what is being written, where look-ups still see it.
func (j *Journal) take() []*faas.Activation {
	j.mu.Lock()
	defer j.mu.Unlock()
	n, size := 0, int64(0)
	for n < len(j.buffer) && n < batchRecords && size < batchBytes {
		size += sizeOf(j.buffer[n])
		n++
	}
	j.writing = j.buffer[:n:n]
	j.buffer = j.buffer[n:]
	if len(j.buffer) == 0 {
		j.buffer = nil // lets go of what was written
	}
	for _, a := range j.writing[min(j.counted, n):] {
		j.figures.add(a)
	}
	j.counted = max(j.counted-n, 0)
	return j.writing
}

// fault is called between any two steps that a crash may separate; tests stop the process there.
var fault = func(string) {}

// writeBatch puts a batch into the stream and the index and returns how many records are in
// neither.
func (j *Journal) writeBatch(ctx context.Context, batch []*faas.Activation) (lost int, err error) {
	r := &rows{}
	if r.chunks, r.rests, err = chunksOf(batch); err != nil {
		return len(batch), fmt.Errorf("encode records: %w", err)
	}
	fault("journal: begun")
	var errs []error
	if err := j.publish(ctx, r); err != nil {
		errs = append(errs, fmt.Errorf("publish records: %w", err))
	}
	fault("journal: published")
	err = j.enter(ctx, r)
	fault("journal: indexed")
	if err == nil {
		return 0, errors.Join(errs...)
	}
	// What is in the stream comes into the index as soon as that takes something again. Until then
	// nothing newer enters it, so that a restart finds where it ended.
	for _, c := range r.chunks {
		if c.seq == 0 {
			lost += c.count
		}
	}
	if begun := r.begun(); begun > 0 && (j.missing == 0 || uint64(begun) < j.missing) {
		j.missing = uint64(begun)
	}
	return lost, errors.Join(append(errs, err)...)
}

func (j *Journal) enter(ctx context.Context, r *rows) error {
	if j.missing > 0 {
		state, err := j.stream.Info(ctx)
		if err != nil {
			return err
		}
		// These rows too, as far as the stream has them.
		if err := j.replay(ctx, max(j.missing, state.State.FirstSeq), state.State.LastSeq+1, nil); err != nil {
			return err
		}
		j.missing = 0
		return j.index.insertAgain(ctx, r)
	}
	err := j.index.insert(ctx, r)
	if day := damagedDay(err); day != "" {
		if err := j.mend(ctx, day); err != nil {
			return err
		}
		err = j.index.insertAgain(ctx, r)
	}
	return err
}

// publish puts rows into the stream, the rest of a log before the record that it belongs to, and
// notes their sequences. It returns when the engine has them.
func (j *Journal) publish(ctx context.Context, r *rows) error {
	if err := j.config.Engine.Room(r.size()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	js := j.config.Engine.JetStream()
	type pending struct {
		ack  jetstream.PubAckFuture
		note func(seq int64)
	}
	var all []pending
	for i := range r.rests {
		l := &r.rests[i]
		m := &nats.Msg{Subject: subject(logSubject, l.act), Data: l.data, Header: nats.Header{
			idHeader: {string(l.id)}, partHeader: {strconv.Itoa(l.part)},
		}}
		if l.day != dayOf(l.id) {
			m.Header.Set(dayHeader, l.day)
		}
		ack, err := js.PublishMsgAsync(m)
		if err != nil {
			return err
		}
		all = append(all, pending{ack, func(seq int64) { l.seq = seq }})
	}
	for chunks := r.chunks; len(chunks) > 0; {
		// A message has records of one day only: it goes when the day does.
		data := beginMessage()
		n := 0
		for n < len(chunks) && len(data) < messageBytes && chunks[n].day == chunks[0].day {
			chunks[n].part = n
			data = chunks[n].append(data)
			n++
		}
		ack, err := js.PublishMsgAsync(&nats.Msg{Subject: chunkSubject, Data: data})
		if err != nil {
			return err
		}
		message := chunks[:n]
		all = append(all, pending{ack, func(seq int64) {
			for _, c := range message {
				c.seq = seq
			}
		}})
		chunks = chunks[n:]
	}
	var errs []error
	for _, p := range all {
		select {
		case ok := <-p.ack.Ok():
			p.note(int64(ok.Sequence))
		case err := <-p.ack.Err():
			errs = append(errs, err)
		case <-ctx.Done():
			return errors.Join(append(errs, ctx.Err())...)
		}
	}
	return errors.Join(errs...)
}

func subject(prefix string, a *faas.Activation) string {
	return prefix + store.EncodePart(a.Namespace) + "." + store.EncodePart(a.Function)
}

func (r *rows) size() (size int64) {
	for _, c := range r.chunks {
		size += int64(len(c.head) + len(c.data))
	}
	for i := range r.rests {
		size += int64(len(r.rests[i].data))
	}
	return size
}
