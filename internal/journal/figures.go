package journal

import (
	"bytes"
	"context"
	"database/sql"
	"math"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Figures sum up the calls of one function in the last hour, to five minutes.
type Figures struct {
	Calls  int
	Errors int // outcomes other than ok
	Cold   int // calls that waited for an instance to be made or to load its code
	P50    time.Duration
	P95    time.Duration // both to within a tenth
}

const (
	slots    = 12
	slotSpan = 5 * time.Minute
	// A bucket is an eighth wider than the one before: 64 µs to an hour in 153 of them.
	bucketBase  = 64 * time.Microsecond
	bucketRatio = 1.125
	buckets     = 156
)

var logRatio = math.Log(bucketRatio)

type functionID struct{ namespace, function string }

// figures holds, by function, the last hour in slots of five minutes; a slot is made when a call
// falls into it. It is guarded by Journal.mu.
type figures map[functionID]*[slots]*slotFigures

type slotFigures struct {
	number              int64 // of the slot since 1970
	calls, errors, cold int
	took                [buckets]uint32
}

func slotOf(t time.Time) int64 { return t.UnixNano() / int64(slotSpan) }

func bucketOf(d time.Duration) int {
	if d <= bucketBase {
		return 0
	}
	return min(int(math.Log(float64(d)/float64(bucketBase))/logRatio)+1, buckets-1)
}

// middle returns the duration that stands for a bucket.
func middle(bucket int) time.Duration {
	return time.Duration(float64(bucketBase) * math.Pow(bucketRatio, float64(bucket)-0.5))
}

// add counts a finished call.
func (f figures) add(a *faas.Activation) {
	f.count(a.Namespace, a.Function, a.Outcome.String(), a.Cold(), a.Kind, a.Timing.Begin, a.Timing.Total)
}

// count leaves out code without a name, and records that are not of anybody's call.
func (f figures) count(namespace, function, outcome string, cold bool, kind faas.Kind, began time.Time, took time.Duration) {
	if function == "" || kind == faas.KindProof || kind == faas.KindInstance || kind == faas.KindDeliver {
		return
	}
	id := functionID{namespace, function}
	ring := f[id]
	if ring == nil {
		ring = &[slots]*slotFigures{}
		f[id] = ring
	}
	number := slotOf(began.Add(took))
	s := &ring[number%slots]
	if *s == nil || (*s).number < number {
		*s = &slotFigures{number: number}
	}
	if (*s).number > number {
		return // more than an hour ago
	}
	(*s).calls++
	if outcome != faas.OK.String() {
		(*s).errors++
	}
	if cold {
		(*s).cold++
	}
	(*s).took[bucketOf(took)]++
}

// prune forgets functions that were not called in the last hour.
func (f figures) prune(now time.Time) {
	for id, ring := range f {
		if sum(ring, now).Calls == 0 {
			delete(f, id)
		}
	}
}

// sum adds up what is not older than an hour.
func sum(ring *[slots]*slotFigures, now time.Time) Figures {
	var out Figures
	var took [buckets]uint32
	oldest := slotOf(now) - slots + 1
	for _, s := range ring {
		if s == nil || s.number < oldest {
			continue
		}
		out.Calls, out.Errors, out.Cold = out.Calls+s.calls, out.Errors+s.errors, out.Cold+s.cold
		for i, n := range s.took {
			took[i] += n
		}
	}
	out.P50, out.P95 = quantile(took[:], out.Calls, 0.50), quantile(took[:], out.Calls, 0.95)
	return out
}

func quantile(took []uint32, calls int, q float64) time.Duration {
	rank := int(math.Ceil(q * float64(calls)))
	for i, n := range took {
		if rank -= int(n); rank <= 0 && n > 0 {
			return middle(i)
		}
	}
	return 0
}

// Figures returns the figures of every function of a namespace that was called in the last hour,
// by package/function. They come from memory.
func (j *Journal) Figures(namespace string) map[string]Figures {
	return j.figuresAt(namespace, time.Now())
}

func (j *Journal) figuresAt(namespace string, now time.Time) map[string]Figures {
	j.mu.Lock()
	defer j.mu.Unlock()
	// What waits in the buffer, which is the calls of a moment, is counted early.
	for _, a := range j.buffer[j.counted:] {
		j.figures.add(a)
	}
	j.counted = len(j.buffer)
	out := map[string]Figures{}
	for id, ring := range j.figures {
		if id.namespace != namespace {
			continue
		}
		if f := sum(ring, now); f.Calls > 0 {
			out[id.function] = f
		}
	}
	return out
}

// loadFigures counts the last hour's calls from the index.
func (j *Journal) loadFigures(ctx context.Context) error {
	// A busy hour is cut to its newest calls: a start must not wait for figures.
	const most = 200_000
	now := time.Now()
	from := lowest(now.Add(-slots * slotSpan))
	left := most
	for i := len(j.index.files) - 1; i >= 0 && left > 0; i-- {
		f := j.index.files[i]
		if f.day() < dayOfBlob(from) {
			break
		}
		n, err := f.count(ctx, j.figures, from, left)
		if err != nil && !isCorrupt(err) { // a damaged file is mended when it is next read
			return &fileError{f, "read", err}
		}
		left -= n
	}
	return nil
}

func (f *file) count(ctx context.Context, into figures, from []byte, most int) (n int, err error) {
	rows, err := f.db.QueryContext(ctx, `SELECT namespace, head FROM chunk WHERE high >= ? ORDER BY high DESC`, from)
	if err != nil {
		return 0, err
	}
	defer rows.Close() // only read
	for rows.Next() && n < most {
		var namespace string
		var head sql.RawBytes
		if err := rows.Scan(&namespace, &head); err != nil {
			return n, err
		}
		functions, all, err := entries(head)
		if err != nil {
			return n, err
		}
		for _, e := range all {
			if bytes.Compare(e.id, from) >= 0 {
				into.count(namespace, functions[e.function], e.outcome, e.cold, faas.Kind(e.kind), time.UnixMicro(e.began), time.Duration(e.took)*time.Microsecond)
				n++
			}
		}
	}
	return n, rows.Err()
}
