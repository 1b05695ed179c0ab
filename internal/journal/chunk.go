package journal

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/brasa-dev/brasa/internal/faas"
)

// chunk is records of one function and one day, in the order of their IDs. Records are kept by the
// chunk, in the stream as in the index, because what one costs is mostly that it is one: a message,
// a row, an entry in each of the row's indexes.
type chunk struct {
	seq  int64 // of its message in the stream; negative: it is in none
	part int   // its place in the message

	namespace, function string
	low, high           []byte // the first and the last ID
	bad                 int    // how many are not ok
	count               int

	// head has what is searched for, of each record: its ID, when it began and how long it took, in
	// microseconds, how many parts its log has, outcome, start and kind, and the lengths of what data
	// has of it. data is all of their JSON, each behind it the lines of its log's first part; packed.
	head, data []byte
}

func (c *chunk) day() string { return dayOfBlob(c.low) }

// rest is a part of a long log that does not lie with its record.
type rest struct {
	id   faas.ID
	act  *faas.Activation // nil: read from the stream
	part int              // from 1
	data []byte
	seq  int64
}

const (
	// A chunk spans no longer than this, save for one record, so that a search for some time reads
	// little else.
	chunkSpan = time.Minute
	// JSON in a chunk, and packed bytes in a message, after which another is begun.
	chunkBytes   = 512 << 10
	messageBytes = 512 << 10
)

// chunksOf puts activations into chunks, by day; and what is too much of their logs beside them.
func chunksOf(acts []*faas.Activation) (chunks []*chunk, rests []rest, err error) {
	type group struct {
		day                 string
		namespace, function string
	}
	groups := map[group][]*faas.Activation{}
	for _, a := range acts {
		g := group{dayOf(a.ID), a.Namespace, a.Function}
		groups[g] = append(groups[g], a)
	}
	var b builder
	for _, acts := range groups {
		slices.SortFunc(acts, func(a, b *faas.Activation) int { return strings.Compare(string(a.ID), string(b.ID)) })
		for _, a := range acts {
			if b.count > 0 && (len(b.data) >= chunkBytes || a.ID.Time().Sub(b.began) > chunkSpan) {
				chunks = append(chunks, b.done())
			}
			more, err := b.add(a)
			if err != nil {
				return nil, nil, err
			}
			rests = append(rests, more...)
		}
		chunks = append(chunks, b.done())
	}
	// In a fixed order: what lies in one message is known by its place.
	slices.SortFunc(chunks, func(a, b *chunk) int { return strings.Compare(string(a.low), string(b.low)) })
	return chunks, rests, nil
}

// builder makes one chunk after the other.
type builder struct {
	chunk
	began time.Time // of the first record
}

func (b *builder) add(a *faas.Activation) (rests []rest, err error) {
	id := blob(a.ID)
	if b.count == 0 {
		b.namespace, b.function, b.low, b.began = a.Namespace, a.Function, id, a.ID.Time()
	}
	b.high = id
	b.count++
	if a.Outcome != faas.OK {
		b.bad++
	}
	at := len(b.data)
	b.data = appendRecord(b.data, a)
	size := len(b.data) - at
	parts, logs := 0, 0
	for lines, most := a.Logs, logHead; len(lines) > 0; most = logPart {
		n, text := 0, 0
		for n < len(lines) && (n == 0 || text+len(lines[n].Text) <= most) {
			text += len(lines[n].Text)
			n++
		}
		packed, err := json.Marshal(lines[:n])
		if err != nil {
			return nil, err
		}
		if parts == 0 {
			b.data, logs = append(b.data, packed...), len(packed)
		} else {
			rests = append(rests, rest{id: a.ID, act: a, part: parts, data: packer.EncodeAll(packed, nil)})
		}
		parts++
		lines = lines[n:]
	}
	h := append(b.head, id...)
	h = binary.AppendUvarint(h, uint64(max(a.Timing.Begin.UnixMicro(), 0)))
	h = binary.AppendUvarint(h, uint64(max(a.Timing.Total.Microseconds(), 0)))
	h = binary.AppendUvarint(h, uint64(parts))
	h = appendText(h, a.Outcome.String())
	h = appendText(h, string(a.Start))
	h = appendText(h, string(a.Kind))
	h = binary.AppendUvarint(h, uint64(size))
	b.head = binary.AppendUvarint(h, uint64(logs))
	return rests, nil
}

// done returns the chunk and begins another.
func (b *builder) done() *chunk {
	c := b.chunk
	c.data = packer.EncodeAll(b.data, nil)
	*b = builder{chunk: chunk{data: b.data[:0]}}
	return &c
}

// entry is what a chunk's head says of one record.
type entry struct {
	id                   []byte
	began, took          int64 // µs
	parts                int
	outcome, start, kind string
	at, size, logs       int // in data: the record is at:at+size, its log behind it
}

var errChunk = errors.New("a chunk of records is damaged")

// entries reads a head.
func entries(head []byte) (out []entry, err error) {
	at := 0
	number := func() int {
		v, n := binary.Uvarint(head)
		if n <= 0 || v > 1<<62 {
			err = errChunk
			return 0
		}
		head = head[n:]
		return int(v)
	}
	text := func() string {
		n := number()
		if err != nil || n > len(head) {
			err = errChunk
			return ""
		}
		s := string(head[:n])
		head = head[n:]
		return s
	}
	for len(head) > 0 {
		if len(head) < 16 {
			return nil, errChunk
		}
		e := entry{id: head[:16], at: at}
		head = head[16:]
		e.began, e.took, e.parts = int64(number()), int64(number()), number()
		e.outcome, e.start, e.kind = text(), text(), text()
		e.size, e.logs = number(), number()
		if err != nil || e.size > maxChunk || e.logs > maxChunk {
			return nil, errChunk
		}
		at += e.size + e.logs
		out = append(out, e)
	}
	return out, nil
}

// record reads one record out of a chunk's data, with the first part of its log or without.
func (e *entry) record(data []byte, logs bool) (*faas.Activation, error) {
	if e.at+e.size+e.logs > len(data) {
		return nil, errChunk
	}
	a := &faas.Activation{}
	if err := json.Unmarshal(data[e.at:e.at+e.size], a); err != nil {
		return nil, err
	}
	if logs && e.logs > 0 {
		if err := json.Unmarshal(data[e.at+e.size:][:e.logs], &a.Logs); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// maxChunk bounds what is unpacked of a chunk. One record is at most its error, its trace and the
// first part of its log, of which the last line may be as long as lines are.
const maxChunk = 64 << 20

var (
	packer, _   = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2))
	unpacker, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(256<<20))
)

func unpackLines(part []byte) ([]faas.LogLine, error) {
	b, err := unpacker.DecodeAll(part, nil)
	if err != nil {
		return nil, err
	}
	var lines []faas.LogLine
	return lines, json.Unmarshal(b, &lines)
}

// A message has chunks one behind the other, each as namespace, function, head and data with their
// lengths before them.

func (c *chunk) append(b []byte) []byte {
	b = appendText(b, c.namespace)
	b = appendText(b, c.function)
	b = appendText(b, c.head)
	return appendText(b, c.data)
}

// chunksIn reads a message.
func chunksIn(message []byte, seq int64) (out []*chunk, err error) {
	next := func() []byte {
		n, k := binary.Uvarint(message)
		if k <= 0 || n > uint64(len(message)-k) {
			err = errChunk
			return nil
		}
		b := message[k : k+int(n)]
		message = message[k+int(n):]
		return b
	}
	for len(message) > 0 {
		c := &chunk{seq: seq, part: len(out), namespace: string(next()), function: string(next()), head: next(), data: next()}
		if err != nil {
			return nil, err
		}
		all, err := entries(c.head)
		if err != nil || len(all) == 0 {
			return nil, errChunk
		}
		c.count, c.low, c.high = len(all), all[0].id, all[len(all)-1].id
		for _, e := range all {
			if e.outcome != faas.OK.String() {
				c.bad++
			}
		}
		out = append(out, c)
	}
	return out, nil
}

func appendText[T ~string | ~[]byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendRecord appends the JSON of an activation without its logs. It is written by hand because
// each call pays for it: a quarter of the time of encoding/json.
func appendRecord(b []byte, a *faas.Activation) []byte {
	text := func(name, value string) {
		b = appendString(append(b, name...), value)
	}
	may := func(name, value string) {
		if value != "" {
			text(name, value)
		}
	}
	number := func(name string, value int64) {
		b = strconv.AppendInt(append(b, name...), value, 10)
	}
	text(`{"id":`, string(a.ID))
	may(`,"cause":`, string(a.Cause))
	text(`,"namespace":`, a.Namespace)
	text(`,"function":`, a.Function)
	text(`,"revision":`, string(a.Revision))
	text(`,"runtime":`, a.Runtime)
	text(`,"kind":`, string(a.Kind))
	may(`,"subject":`, a.Subject)
	text(`,"outcome":`, a.Outcome.String())
	may(`,"fault":`, a.Fault)
	may(`,"error":`, a.Error)
	may(`,"trace":`, a.Trace)
	if a.Status != 0 {
		number(`,"status":`, int64(a.Status))
	}
	may(`,"start":`, string(a.Start))
	may(`,"node":`, a.Node)
	may(`,"instance":`, a.Instance)
	b = a.Timing.Begin.AppendFormat(append(b, `,"timing":{"begin":"`...), time.RFC3339Nano)
	number(`","total_us":`, a.Timing.Total.Microseconds())
	b = append(b, `,"phases":[`...)
	for i, p := range a.Timing.Phases() {
		if i > 0 {
			b = append(b, ',')
		}
		text(`{"name":`, p.Name)
		number(`,"us":`, p.US)
		number(`,"cpu_us":`, p.CPU)
		b = append(b, '}')
	}
	number(`]},"memory_peak_bytes":`, int64(a.Memory))
	number(`,"cpu_us":`, a.CPUMicros)
	number(`,"request_bytes":`, int64(a.Request))
	number(`,"response_bytes":`, int64(a.Response))
	if a.LogTruncated {
		b = append(b, `,"log_truncated":true`...)
	}
	return append(b, '}')
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= 0x7f {
			quoted, _ := json.Marshal(s) // a string always marshals
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}
