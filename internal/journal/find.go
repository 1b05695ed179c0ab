package journal

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Query says which activations are wanted. Zero of a field is no condition.
type Query struct {
	Namespace string // must be set
	Function  string // package/function
	Outcome   string // a code's name, or "error" for all but ok
	Fault     string // caller, function or platform
	Start     faas.Start
	Since     time.Time // begun at or after
	Until     time.Time // begun before
	Limit     int       // default 50, at most 10,000
	Cursor    string    // from the Find before
	NoLogs    bool      // Logs are left out, which makes long lists cheaper
	Calls     bool      // calls only, not what instances wrote beside them, nor calls of web hooks
}

const (
	defaultLimit = 50
	maxLimit     = 10_000
)

// matches says whether an activation is what is wanted, whatever its time.
func (q *Query) matches(a *faas.Activation) bool {
	switch {
	case a.Namespace != q.Namespace, q.Function != "" && a.Function != q.Function, q.Start != "" && a.Start != q.Start:
		return false
	case q.Outcome == "error" && a.Outcome == faas.OK, q.Outcome != "" && q.Outcome != "error" && a.Outcome.String() != q.Outcome:
		return false
	case q.Calls && (a.Kind == faas.KindInstance || a.Kind == faas.KindDeliver):
		return false
	}
	return q.Fault == "" || a.Outcome.Fault() == q.Fault
}

// span returns the bounds of the IDs that are wanted: from inclusive, to exclusive.
func (q *Query) span() (from, to []byte, err error) {
	from, to = make([]byte, 16), bytes.Repeat([]byte{0xff}, 16)
	if !q.Since.IsZero() {
		// An ID holds whole milliseconds: what began in the same one counts as since.
		from = lowest(q.Since)
	}
	if !q.Until.IsZero() {
		to = lowest(q.Until)
	}
	if q.Cursor != "" {
		id, err := faas.ParseID(q.Cursor)
		if err != nil {
			return nil, nil, faas.Errorf(faas.Invalid, "find activations", "%.40q is not a cursor", q.Cursor).WithFix("give the one from the page before, or none")
		}
		if b := blob(id); bytes.Compare(b, to) < 0 {
			to = b
		}
	}
	return from, to, nil
}

// Find returns what matches, newest first, and the cursor with which the next page is found,
// empty if there is none. Of long logs the beginning is given, and LogTruncated set, and long
// answers have no body; Get gives all. A call shows as soon as it was recorded.
func (j *Journal) Find(ctx context.Context, q Query) ([]*faas.Activation, string, error) {
	const op = "find activations"
	from, to, err := q.span()
	if err != nil {
		return nil, "", err
	}
	limit := min(max(cmp.Or(q.Limit, defaultLimit), 1), maxLimit)
	// The buffer first: what moves from it into the index meanwhile is then seen twice, not never.
	j.mu.Lock()
	var found []*faas.Activation
	for _, part := range [][]*faas.Activation{j.writing, j.buffer} {
		for _, a := range part {
			if b := blob(a.ID); q.matches(a) && bytes.Compare(b, from) >= 0 && bytes.Compare(b, to) < 0 {
				found = append(found, a)
			}
		}
	}
	j.mu.Unlock()
	for i, a := range found {
		if short, cut := headOf(a, q.NoLogs); cut {
			found[i] = short
		}
	}
	indexed, err := j.search(ctx, q, from, to, limit)
	if err != nil {
		return nil, "", indexError(op, err)
	}
	found = append(found, indexed...)
	newestFirst(found)
	cursor := ""
	// Counted before those go that were seen twice, or recorded twice as after a crash: the page may be
	// short of them without being the last.
	if len(found) >= limit {
		found = found[:limit]
		cursor = string(found[limit-1].ID)
	}
	return slices.CompactFunc(found, func(a, b *faas.Activation) bool { return a.ID == b.ID }), cursor, nil
}

// headOf returns a copy of a with the part of its logs that lists show, if that is less.
func headOf(a *faas.Activation, none bool) (*faas.Activation, bool) {
	size, n := 0, 0
	for n < len(a.Logs) && !none && (n == 0 || size+len(a.Logs[n].Text) <= logHead) {
		size += len(a.Logs[n].Text)
		n++
	}
	long := a.Answer != nil && len(a.Answer.Body) > inlineAnswer
	if n == len(a.Logs) {
		if long {
			return withoutBody(a), true
		}
		return a, false
	}
	short := *a
	if long {
		short = *withoutBody(a)
	}
	short.Logs = a.Logs[:n]
	short.LogTruncated = a.LogTruncated || !none
	return &short, true
}

func indexError(op string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*faas.Error](err); ok {
		return e
	}
	return &faas.Error{Code: faas.CodeOf(err), Op: op, Err: err}
}

// search looks through the index.
func (j *Journal) search(ctx context.Context, q Query, from, to []byte, limit int) (found []*faas.Activation, err error) {
	err = j.mending(ctx, func() error {
		found, err = j.index.search(ctx, q, from, to, limit)
		return err
	})
	return found, err
}

// mending reads, and reads again if a file was found to be damaged and was made anew.
func (j *Journal) mending(ctx context.Context, read func() error) error {
	err := read()
	if day := damagedDay(err); day != "" {
		j.write.Lock()
		defer j.write.Unlock()
		if err := j.mend(ctx, day); err != nil {
			return err
		}
		return read()
	}
	return err
}

// search returns at least the first limit of what matches, newest first.
func (x *index) search(ctx context.Context, q Query, from, to []byte, limit int) (found []*faas.Activation, err error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	low, high := dayOfBlob(from), dayOfBlob(to)
	for i := len(x.files) - 1; i >= 0; i-- {
		f := x.files[i]
		if f.day() < low || f.day() > high && !f.late.Load() {
			continue
		}
		// Files of one day overlap in time. An older day cannot hold anything newer than itself, but what
		// was found may be older: of calls that waited.
		if (i+1 == len(x.files) || x.files[i+1].day() != f.day()) && newer(found, f.day()) >= limit {
			break
		}
		got, err := f.search(ctx, q, from, to, limit)
		if err != nil {
			return nil, &fileError{f, "read", err}
		}
		found = append(found, got...)
	}
	return found, nil
}

// newer counts those with IDs of a later day.
func newer(found []*faas.Activation, day string) (n int) {
	for _, a := range found {
		if dayOf(a.ID) > day {
			n++
		}
	}
	return n
}

// msOfBlob returns when a call began, in milliseconds since 1970.
func msOfBlob(b []byte) (ms int64) {
	for _, c := range b[:6] {
		ms = ms<<8 | int64(c)
	}
	return ms
}

func dayOfBlob(b []byte) string { return dayOfMillis(msOfBlob(b)) }

func dayOfMillis(ms int64) string {
	const end = 253402300799999 // year 9999: years beyond do not sort as strings
	return time.UnixMilli(min(ms, end)).UTC().Format("20060102")
}

// spanSlots is how many slots after that of its first record a chunk may have its last.
const spanSlots = int64(chunkSpan/time.Millisecond)>>slotBits + 1

// statement says which chunks are looked through, the newest first.
func (q *Query) statement(from, to []byte) (query string, args []any) {
	tables, where, order := `chunk c`, `c.namespace = ?1`, `c.slot DESC, c.high`
	args = []any{q.Namespace, from, to, slotOfBlob(from), slotOfBlob(to) + spanSlots}
	bad := q.Outcome != "" && q.Outcome != faas.OK.String() || q.Fault != ""
	if bad {
		where += ` AND c.bad > 0` // as the partial index says it, so that it is used
	}
	if q.Function != "" {
		// By the seconds in which the function was called, and in each the chunks of all.
		tables, order = `called f CROSS JOIN chunk c ON c.namespace = f.namespace AND c.slot = f.slot`, `f.slot DESC, c.high`
		where += ` AND f.namespace = ?1 AND f.function = ?6 AND f.slot BETWEEN ?4 AND ?5`
		args = append(args, q.Function)
		if bad {
			where += ` AND f.bad > 0`
		}
	} else {
		where += ` AND c.slot BETWEEN ?4 AND ?5`
	}
	return `SELECT c.high, c.head, c.data FROM ` + tables + ` WHERE ` + where + ` AND c.high >= ?2 AND c.low < ?3 ORDER BY ` + order + ` DESC`, args
}

func (f *file) search(ctx context.Context, q Query, from, to []byte, limit int) (found []*faas.Activation, err error) {
	query, args := q.statement(from, to)
	rows, err := f.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var high, head, data sql.RawBytes
		if err := rows.Scan(&high, &head, &data); err != nil {
			return nil, err
		}
		if len(found) >= limit {
			newestFirst(found)
			found = found[:limit]
			if bytes.Compare(blob(found[limit-1].ID), high) > 0 {
				break // so is all that comes after it
			}
		}
		if q.Function != "" && !tells(head, q.Function) {
			continue
		}
		functions, all, err := entries(head)
		if err != nil {
			return nil, err
		}
		var plain []byte
		for i, left := len(all)-1, limit; i >= 0 && left > 0; i-- {
			e := &all[i]
			if bytes.Compare(e.id, from) < 0 || bytes.Compare(e.id, to) >= 0 || !q.wants(e, functions) {
				continue
			}
			if plain == nil {
				if plain, err = unpacker.DecodeAll(data, nil); err != nil {
					return nil, err
				}
			}
			a, err := e.record(plain, !q.NoLogs)
			if err != nil {
				return nil, err
			}
			a.LogTruncated = a.LogTruncated || e.parts > 1 && !q.NoLogs
			found = append(found, a)
			left--
		}
	}
	return found, rows.Err()
}

// wants says whether an entry of the right namespace and time is what is wanted; functions are those
// of its head.
func (q *Query) wants(e *entry, functions []string) bool {
	switch {
	case q.Function != "" && functions[e.function] != q.Function:
		return false
	case q.Start != "" && e.start != string(q.Start), q.Calls && (e.kind == string(faas.KindInstance) || e.kind == string(faas.KindDeliver)):
		return false
	case q.Outcome == "error" && e.outcome == faas.OK.String(), q.Outcome != "" && q.Outcome != "error" && e.outcome != q.Outcome:
		return false
	case q.Fault == "":
		return true
	}
	var c faas.Code
	return c.UnmarshalText([]byte(e.outcome)) == nil && c.Fault() == q.Fault
}

// newestFirst sorts by ID. A call that ran again after its outcome was recorded has two records; the
// later one comes first, and counts.
func newestFirst(as []*faas.Activation) {
	slices.SortStableFunc(as, func(a, b *faas.Activation) int {
		return cmp.Or(strings.Compare(string(b.ID), string(a.ID)), b.Timing.Begin.Compare(a.Timing.Begin))
	})
}
