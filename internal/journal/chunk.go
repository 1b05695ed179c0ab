package journal

import (
	"encoding/binary"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/brasa-dev/brasa/internal/faas"
)

// chunk is records of one namespace and one day, in the order of their IDs. Records are kept by the
// chunk, in the stream as in the index, because what one costs is mostly that it is one: a message,
// a row, an entry in each of the row's indexes. What is written in a moment is one chunk, of however
// many functions it tells.
type chunk struct {
	seq  int64 // of its message in the stream; negative: it is in none
	part int   // its place in the message

	day       string // of the file that it goes into
	namespace string
	functions []string // whose calls it has, each once
	failing   []bool   // which of these have a record that is not ok
	low, high []byte   // the first and the last ID
	bad       int      // how many are not ok
	count     int

	// head has what is searched for: the functions, then the entry of each record. data is all of
	// their JSON, each behind it the lines of its log's first part; packed.
	head, data []byte
}

// late says whether its calls have IDs of an earlier day than their file: they waited.
func (c *chunk) late() bool { return c.day > dayOfBlob(c.low) }

// dayOfRecord returns the day under which a record is kept: that on which its call began. Its ID may be
// of an earlier day, of a call that waited; were it kept under that, it would be gone too soon.
func dayOfRecord(id []byte, began int64) string {
	return max(dayOfBlob(id), dayOfMillis(began/1000))
}

func dayOfActivation(a *faas.Activation) string {
	return dayOfRecord(blob(a.ID), max(a.Timing.Begin.UnixMicro(), 0))
}

// slot is the second, or nearly, in which the last of its calls began. The index knows of each
// function in which slots it was called: a row for each chunk would cost as much as a chunk of its
// own.
func (c *chunk) slot() int64 { return slotOfBlob(c.high) }

const slotBits = 10 // of milliseconds

func slotOfBlob(b []byte) int64 { return msOfBlob(b) >> slotBits }

// rest is a part of a long log that does not lie with its record.
type rest struct {
	id   faas.ID
	act  *faas.Activation // nil: read from the stream
	part int              // from 1; or answerPart
	day  string           // of its record
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
	// An answer's body that is longer lies beside its record as the rest of a log does: lists are not to
	// read over it.
	inlineAnswer = 4 << 10
	answerPart   = maxPart
	maxPart      = 1 << 16
)

// chunksOf puts activations into chunks, by day; and what is too much of their logs beside them.
func chunksOf(acts []*faas.Activation) (chunks []*chunk, rests []rest, err error) {
	type group struct{ day, namespace string }
	groups := map[group][]*faas.Activation{}
	for _, a := range acts {
		g := group{dayOfActivation(a), a.Namespace}
		groups[g] = append(groups[g], a)
	}
	var b builder
	for _, acts := range groups {
		slices.SortStableFunc(acts, func(a, b *faas.Activation) int { return strings.Compare(string(a.ID), string(b.ID)) })
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
	began   time.Time      // of the first record
	numbers map[string]int // of functions
	listed  []byte         // entries
}

// number returns which of the chunk's functions this is.
func (b *builder) number(function string) int {
	n, has := b.numbers[function]
	if !has {
		if b.numbers == nil {
			b.numbers = map[string]int{}
		}
		n = len(b.functions)
		b.numbers[function] = n
		b.functions, b.failing = append(b.functions, function), append(b.failing, false)
	}
	return n
}

func (b *builder) add(a *faas.Activation) (rests []rest, err error) {
	id := blob(a.ID)
	if b.count == 0 {
		b.day, b.namespace, b.low, b.began = dayOfActivation(a), a.Namespace, id, a.ID.Time()
	}
	b.high = id
	b.count++
	function := b.number(a.Function)
	if a.Outcome != faas.OK {
		b.bad++
		b.failing[function] = true
	}
	at := len(b.data)
	kept := a
	if a.Answer != nil && len(a.Answer.Body) > inlineAnswer {
		kept = withoutBody(a)
		rests = append(rests, rest{id: a.ID, act: a, part: answerPart, day: b.day, data: packer.EncodeAll(a.Answer.Body, nil)})
	}
	b.data = appendRecord(b.data, kept)
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
			rests = append(rests, rest{id: a.ID, act: a, part: parts, day: b.day, data: packer.EncodeAll(packed, nil)})
		}
		parts++
		lines = lines[n:]
	}
	e := entry{
		id: id, began: max(a.Timing.Begin.UnixMicro(), 0), took: max(a.Timing.Total.Microseconds(), 0), parts: parts,
		outcome: a.Outcome.String(), start: string(a.Start), kind: string(a.Kind), cold: a.Cold(), size: size, logs: logs,
	}
	b.listed = e.append(b.listed, function)
	return rests, nil
}

// withoutBody returns a copy of a record whose answer has no body.
func withoutBody(a *faas.Activation) *faas.Activation {
	short, answer := *a, *a.Answer
	answer.Body = nil
	short.Answer = &answer
	return &short
}

// done returns the chunk and begins another.
func (b *builder) done() *chunk {
	c := b.chunk
	c.head = append(appendFunctions(nil, c.functions), b.listed...)
	c.data = packer.EncodeAll(b.data, nil)
	clear(b.numbers)
	*b = builder{chunk: chunk{data: b.data[:0]}, numbers: b.numbers, listed: b.listed[:0]}
	return &c
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

// A message is a zero, the number of its form, and chunks one behind the other, each as namespace,
// head and data with their lengths before them. The form before had chunks of one function each and
// no number: it began with the length of a namespace, which is never zero.
const messageForm = 2

func beginMessage() []byte { return []byte{0, messageForm} }

func (c *chunk) append(b []byte) []byte {
	b = appendText(b, c.namespace)
	b = appendText(b, c.head)
	return appendText(b, c.data)
}

// chunksIn reads a message, of the form before too.
func chunksIn(message []byte, seq int64) (out []*chunk, err error) {
	form := 1
	if len(message) > 0 && message[0] == 0 {
		if len(message) < 2 || message[1] != messageForm {
			return nil, errChunk
		}
		form, message = messageForm, message[2:]
	}
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
		c := &chunk{seq: seq, part: len(out), namespace: string(next())}
		if form == 1 {
			function := string(next())
			if c.head, err = renew(function, next()); err != nil {
				return nil, err
			}
		} else {
			c.head = next()
		}
		c.data = next()
		if err != nil {
			return nil, err
		}
		if err := c.look(); err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// look fills in what the head tells.
func (c *chunk) look() error {
	functions, all, err := entries(c.head)
	if err != nil || len(all) == 0 {
		return errChunk
	}
	c.functions, c.failing = functions, make([]bool, len(functions))
	c.count, c.low, c.high = len(all), all[0].id, all[len(all)-1].id
	c.day = dayOfRecord(c.low, all[0].began)
	for _, e := range all {
		if e.outcome != faas.OK.String() {
			c.bad++
			c.failing[e.function] = true
		}
	}
	return nil
}

func appendText[T ~string | ~[]byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}
