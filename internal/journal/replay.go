package journal

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/brasa-dev/brasa/internal/faas"
)

// catchUp brings the index to where the stream is: what a crash left out, and all of those days
// whose files are lost or damaged.
func (j *Journal) catchUp(ctx context.Context) error {
	j.write.Lock()
	defer j.write.Unlock()
	err := j.catchUpOnce(ctx)
	for range j.index.files { // each may be damaged
		day := damagedDay(err)
		if day == "" {
			break
		}
		if err = j.mend(ctx, day); err == nil {
			err = j.catchUpOnce(ctx)
		}
	}
	return err
}

func (j *Journal) catchUpOnce(ctx context.Context) error {
	state, err := j.stream.Info(ctx)
	if err != nil {
		return err
	}
	first, end := state.State.FirstSeq, state.State.LastSeq
	if state.State.Msgs == 0 {
		return nil
	}
	// A batch enters the index by one transaction for each day, so a crash may leave one day's done
	// and the other's not. Each notes where its batch began; all before that is there.
	seen, begun := uint64(0), uint64(0)
	var lost []string // days
	for _, f := range j.index.files {
		f.size = j.index.sizeOf(f)
		last, err := f.state(ctx, "last")
		if err != nil {
			return err
		}
		if last == 0 {
			lost = append(lost, f.day())
		}
		if last > seen {
			seen = last
			if begun, err = f.state(ctx, "begun"); err != nil {
				return err
			}
		}
	}
	// Async persistence may have lost the stream's end while the index has it; sequences go on
	// from there, so what the index has seen beyond says nothing of what is to come.
	if seen > end {
		if err := j.forgetBeyond(ctx, end); err != nil {
			return err
		}
		begun = min(begun, end)
	}
	from := max(begun, 1)
	if len(lost) > 0 && from > first {
		j.config.Logger.Info("index made again from the stream", "days", lost)
		if err := j.replay(ctx, first, from, lost); err != nil {
			return err
		}
	}
	return j.replay(ctx, max(from, first), end+1, nil)
}

func (j *Journal) forgetBeyond(ctx context.Context, seq uint64) error {
	other := rand.Int64N(1 << 61)
	for _, f := range j.index.files {
		for _, change := range []string{
			`UPDATE state SET value = ?1 WHERE value > ?1`,
			`UPDATE chunk SET seq = -(?2 + seq) WHERE seq > ?1`,
		} {
			if _, err := f.db.ExecContext(ctx, change, int64(seq), other); err != nil {
				return &fileError{f, "write", err}
			}
		}
	}
	return nil
}

// replay enters the messages from one sequence to before another, of the given days, or all.
func (j *Journal) replay(ctx context.Context, from, to uint64, days []string) error {
	if from >= to {
		return nil
	}
	consumer, err := j.config.Engine.JetStream().OrderedConsumer(ctx, streamName, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from,
	})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(64))
	if err != nil {
		return err
	}
	defer messages.Stop()
	r, records := &rows{}, 0
	for {
		next, cancel := context.WithTimeout(ctx, publishTimeout)
		m, err := messages.Next(jetstream.NextContext(next))
		cancel()
		if err != nil {
			return fmt.Errorf("read the stream: %w", err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("read the stream: %w", err)
		}
		seq := meta.Sequence.Stream
		if seq < to {
			chunks, l, err := decode(m, int64(seq))
			switch {
			case err != nil:
				j.config.Logger.Error("record not readable", "sequence", seq, "cause", err)
			case l != nil && (days == nil || slices.Contains(days, l.day)):
				r.rests = append(r.rests, *l)
				records++
			}
			for _, c := range chunks {
				if days == nil || slices.Contains(days, c.day) {
					r.chunks = append(r.chunks, c)
					records += c.count
				}
			}
		}
		done := seq+1 >= to || meta.NumPending == 0
		if records >= batchRecords || done {
			if err := j.index.insertAgain(ctx, r); err != nil {
				return err
			}
			r, records = &rows{}, 0
		}
		if done {
			return nil
		}
	}
}

// decode reads what publish wrote.
func decode(m jetstream.Msg, seq int64) ([]*chunk, *rest, error) {
	if strings.HasPrefix(m.Subject(), logSubject) {
		id, err := faas.ParseID(m.Headers().Get(idHeader))
		if err != nil {
			return nil, nil, err
		}
		part, err := strconv.Atoi(m.Headers().Get(partHeader))
		if err != nil || part < 1 || part > maxPart {
			return nil, nil, fmt.Errorf("part %q", m.Headers().Get(partHeader))
		}
		day := m.Headers().Get(dayHeader)
		if day == "" {
			day = dayOf(id)
		}
		return nil, &rest{id: id, part: part, day: day, data: bytes.Clone(m.Data()), seq: seq}, nil
	}
	if m.Subject() != chunkSubject {
		return nil, nil, fmt.Errorf("subject %q", m.Subject())
	}
	chunks, err := chunksIn(bytes.Clone(m.Data()), seq)
	return chunks, nil, err
}

// mend replaces the files of a day that SQLite found to be damaged. It is called with write held.
func (j *Journal) mend(ctx context.Context, day string) error {
	j.config.Logger.Warn("index made again from the stream", "days", []string{day})
	var names []string
	j.index.mu.RLock()
	for _, f := range j.index.files {
		if f.day() == day {
			names = append(names, f.name)
		}
	}
	j.index.mu.RUnlock()
	if err := j.index.drop(names...); err != nil {
		return err
	}
	state, err := j.stream.Info(ctx)
	if err != nil {
		return err
	}
	if state.State.Msgs == 0 {
		return nil
	}
	return j.replay(ctx, state.State.FirstSeq, state.State.LastSeq+1, []string{day})
}

// Expire removes records that are older than MaxAge, by the day, and the oldest files while all
// together are larger than half of MaxBytes; the stream is cut where they ended.
func (j *Journal) Expire(ctx context.Context) error { return j.expire(ctx, time.Now()) }

func (j *Journal) expire(ctx context.Context, now time.Time) error {
	j.write.Lock()
	defer j.write.Unlock()
	j.mu.Lock()
	j.figures.prune(now)
	j.mu.Unlock()
	oldest := now.Add(-j.config.MaxAge).UTC().Format("20060102")
	j.index.mu.RLock()
	files := slices.Clone(j.index.files)
	j.index.mu.RUnlock()
	total := int64(0)
	for _, f := range files {
		f.size = j.index.sizeOf(f)
		total += f.size
	}
	var names []string
	cut := uint64(0)
	for i, f := range files {
		tooMuch := total > int64(j.config.MaxBytes)/2 && i < len(files)-1
		if f.day() >= oldest && !tooMuch {
			break
		}
		last, err := f.state(ctx, "last")
		if err != nil && !isCorrupt(err) {
			return err
		}
		cut = max(cut, last)
		total -= f.size
		names = append(names, f.name)
	}
	if len(names) == 0 {
		return nil
	}
	// A call that ran past midnight is with the day on which it began; what was written before it, of the
	// day after, is still to be found in the stream.
	for _, f := range files[len(names):] {
		first, err := f.state(ctx, "first")
		if err != nil && !isCorrupt(err) {
			return err
		}
		if first > 0 {
			cut = min(cut, first-1)
		}
	}
	if err := j.index.drop(names...); err != nil {
		return err
	}
	j.config.Logger.Info("records expired", "files", len(names))
	return j.stream.Purge(ctx, jetstream.WithPurgeSequence(cut+1))
}
