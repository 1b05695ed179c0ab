package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

const (
	streamName    = "ACT"
	recordSubject = "act." // and the namespace, and the function
	logSubject    = "log." // likewise: the rest of a long log, before its record

	idHeader   = "Brasa-Id"
	partHeader = "Brasa-Part"

	batchRecords = 512
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
		Subjects:     []string{recordSubject + ">", logSubject + ">"},
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

// row is an activation on its way into the index.
type row struct {
	act  *faas.Activation
	data []byte   // without logs, as JSON
	logs [][]byte // parts, each compressed JSON lines; the first is the head
	seq  uint64   // of its message in the stream
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
	rows := make([]row, 0, len(batch))
	var errs []error
	for _, a := range batch {
		r, err := encode(a)
		if err != nil {
			errs = append(errs, err)
			lost++
			continue
		}
		rows = append(rows, r)
	}
	fault("journal: begun")
	if err := j.publish(ctx, rows); err != nil {
		errs = append(errs, fmt.Errorf("publish records: %w", err))
	}
	fault("journal: published")
	err = j.enter(ctx, rows)
	fault("journal: indexed")
	if err == nil {
		return lost, errors.Join(errs...)
	}
	// What is in the stream comes into the index as soon as that takes something again. Until then
	// nothing newer enters it, so that a restart finds where it ended.
	for _, r := range rows {
		if r.seq == 0 {
			lost++
		} else if j.missing == 0 || r.seq < j.missing {
			j.missing = r.seq
		}
	}
	return lost, errors.Join(append(errs, err)...)
}

func (j *Journal) enter(ctx context.Context, rows []row) error {
	if j.missing > 0 {
		state, err := j.stream.Info(ctx)
		if err != nil {
			return err
		}
		from := max(uint64(1), j.missing-min(j.missing, replayOverlap)) // the parts of a log come before its record
		if err := j.replay(ctx, max(from, state.State.FirstSeq), state.State.LastSeq+1, nil); err != nil {
			return err
		}
		j.missing = 0
	}
	err := j.index.insert(ctx, rows)
	if day := damagedDay(err); day != "" {
		if err := j.mend(ctx, day); err != nil {
			return err
		}
		err = j.index.insertAgain(ctx, rows)
	}
	return err
}

// encode splits an activation into record and logs.
func encode(a *faas.Activation) (row, error) {
	short := *a
	short.Logs = nil
	data, err := json.Marshal(&short)
	if err != nil {
		return row{}, fmt.Errorf("encode activation %s: %w", a.ID, err)
	}
	r := row{act: a, data: data}
	for lines, most := a.Logs, logHead; len(lines) > 0; most = logPart {
		n, size := 0, 0
		for n < len(lines) && (n == 0 || size+len(lines[n].Text) <= most) {
			size += len(lines[n].Text)
			n++
		}
		part, err := packLines(lines[:n])
		if err != nil {
			return row{}, fmt.Errorf("encode logs of activation %s: %w", a.ID, err)
		}
		r.logs = append(r.logs, part)
		lines = lines[n:]
	}
	return r, nil
}

var (
	packer, _   = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2))
	unpacker, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(256<<20))
)

func packLines(lines []faas.LogLine) ([]byte, error) {
	b, err := json.Marshal(lines)
	if err != nil {
		return nil, err
	}
	return packer.EncodeAll(b, nil), nil
}

func unpackLines(part []byte) ([]faas.LogLine, error) {
	b, err := unpacker.DecodeAll(part, nil)
	if err != nil {
		return nil, err
	}
	var lines []faas.LogLine
	return lines, json.Unmarshal(b, &lines)
}

// The payload of a record's message is the JSON of the record, a line feed, and the compressed
// head of its logs, if any. JSON has no line feed outside of strings, and none in them.
func payload(r row) []byte {
	if len(r.logs) == 0 {
		return r.data
	}
	return bytes.Join([][]byte{r.data, r.logs[0]}, []byte{'\n'})
}

func subject(prefix string, a *faas.Activation) string {
	return prefix + store.EncodePart(a.Namespace) + "." + store.EncodePart(a.Function)
}

func sizeOfRows(rows []row) (size int64) {
	for _, r := range rows {
		size += int64(len(r.data))
		for _, part := range r.logs {
			size += int64(len(part))
		}
	}
	return size
}

// publish puts rows into the stream, the rest of a log before the record that it belongs to, and
// notes their sequences. It returns when the engine has them.
func (j *Journal) publish(ctx context.Context, rows []row) error {
	if err := j.config.Engine.Room(sizeOfRows(rows)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	js := j.config.Engine.JetStream()
	acks := make([]jetstream.PubAckFuture, 0, len(rows))
	var rests []jetstream.PubAckFuture
	for i := range rows {
		r := &rows[i]
		for n := 1; n < len(r.logs); n++ {
			ack, err := js.PublishMsgAsync(&nats.Msg{Subject: subject(logSubject, r.act), Data: r.logs[n], Header: nats.Header{
				idHeader: {string(r.act.ID)}, partHeader: {strconv.Itoa(n)},
			}})
			if err != nil {
				return err
			}
			rests = append(rests, ack)
		}
		ack, err := js.PublishMsgAsync(&nats.Msg{Subject: subject(recordSubject, r.act), Data: payload(*r)})
		if err != nil {
			return err
		}
		acks = append(acks, ack)
	}
	var errs []error
	for i, ack := range append(acks, rests...) {
		select {
		case ok := <-ack.Ok():
			if i < len(rows) {
				rows[i].seq = ok.Sequence
			}
		case err := <-ack.Err():
			errs = append(errs, err)
		case <-ctx.Done():
			return errors.Join(append(errs, ctx.Err())...)
		}
	}
	return errors.Join(errs...)
}
