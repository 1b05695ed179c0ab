package journal

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"math/rand/v2"
)

// rows are what is on its way into the index.
type rows struct {
	chunks []*chunk
	rests  []rest
}

// begun returns the lowest sequence of the stream that any of them has; 0 if none has.
func (r *rows) begun() (lowest int64) {
	note := func(seq int64) {
		if seq > 0 && (lowest == 0 || seq < lowest) {
			lowest = seq
		}
	}
	for _, c := range r.chunks {
		note(c.seq)
	}
	for i := range r.rests {
		note(r.rests[i].seq)
	}
	return lowest
}

// byDay splits them into those of each day's file.
func (r *rows) byDay() map[string]*rows {
	days := map[string]*rows{}
	of := func(day string) *rows {
		if days[day] == nil {
			days[day] = &rows{}
		}
		return days[day]
	}
	for _, c := range r.chunks {
		d := of(c.day)
		d.chunks = append(d.chunks, c)
	}
	for _, l := range r.rests {
		d := of(l.day)
		d.rests = append(d.rests, l)
	}
	return days
}

// insertAgain is insert for rows that may be there already, in another file of their day too.
func (x *index) insertAgain(ctx context.Context, r *rows) error {
	news := &rows{}
	for _, c := range r.chunks {
		known, err := x.has(ctx, c.day, `SELECT count(*) FROM chunk WHERE seq = ? AND part = ?`, c.seq, c.part)
		if err != nil {
			return err
		}
		if !known {
			news.chunks = append(news.chunks, c)
		}
	}
	for _, l := range r.rests {
		known, err := x.has(ctx, l.day, `SELECT count(*) FROM log WHERE id = ? AND part = ?`, blob(l.id), l.part)
		if err != nil {
			return err
		}
		if !known {
			news.rests = append(news.rests, l)
		}
	}
	return x.insert(ctx, news)
}

func (x *index) has(ctx context.Context, day, query string, args ...any) (bool, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, f := range x.files {
		if f.day() != day {
			continue
		}
		var n int
		if err := f.db.QueryRowContext(ctx, query, args...).Scan(&n); err != nil {
			return false, &fileError{f, "read", err}
		}
		if n > 0 {
			return true, nil
		}
	}
	return false, nil
}

// insert enters rows.
func (x *index) insert(ctx context.Context, r *rows) error {
	var errs []error
	begun := r.begun()
	for day, rows := range r.byDay() {
		f, err := x.fileFor(day)
		if err == nil {
			err = x.insertFile(ctx, f, rows, begun)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (x *index) insertFile(ctx context.Context, f *file, r *rows, begun int64) (err error) {
	tx, err := f.db.BeginTx(ctx, nil)
	if err != nil {
		return &fileError{f, "write", err}
	}
	defer func() {
		if err != nil {
			err = &fileError{f, "write", errors.Join(err, rollback(tx))}
		}
	}()
	last, late := int64(0), f.late.Load()
	news := map[calledIn]bool{}
	for _, c := range r.chunks {
		seq := c.seq
		if seq == 0 {
			seq = -rand.Int64N(1<<62) - 1 // the stream does not have it: any number that is nobody's
		}
		if _, err := tx.StmtContext(ctx, f.chunk).ExecContext(ctx,
			seq, c.part, c.namespace, c.slot(), c.low, c.high, c.bad, c.head, c.data); err != nil {
			return err
		}
		if err := f.tell(ctx, tx, c, news); err != nil {
			return err
		}
		last, late = max(last, c.seq), late || c.late()
	}
	for _, l := range r.rests {
		if _, err := tx.StmtContext(ctx, f.log).ExecContext(ctx, blob(l.id), l.part, l.data); err != nil {
			return err
		}
		last = max(last, l.seq)
	}
	if last > 0 {
		if _, err := tx.StmtContext(ctx, f.note).ExecContext(ctx, "last", last, "begun", begun); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO state VALUES ('first', ?)`, begun); err != nil {
			return err
		}
	}
	if late && !f.late.Load() {
		if _, err := tx.StmtContext(ctx, f.note).ExecContext(ctx, "late", 1, "late", 1); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	f.late.Store(late)
	f.size = x.sizeOf(f)
	if len(f.told)+len(news) > maxTold {
		clear(f.told)
	}
	if f.told == nil {
		f.told = map[calledIn]bool{}
	}
	maps.Copy(f.told, news)
	return nil
}

// calledIn is a row of called.
type calledIn struct {
	namespace, function string
	slot                int64
}

// maxTold bounds what is remembered of rows that need not be written again.
const maxTold = 4096

// tell notes whose calls a chunk has, as far as it is not known from those before it.
func (f *file) tell(ctx context.Context, tx *sql.Tx, c *chunk, news map[calledIn]bool) error {
	slot := c.slot()
	for i, function := range c.functions {
		if function == "" {
			continue // code without a name, which is never searched for by it
		}
		in := calledIn{c.namespace, function, slot}
		bad := c.failing[i]
		was, told := f.told[in]
		if !told {
			was, told = news[in]
		}
		if told && (was || !bad) {
			continue
		}
		if _, err := tx.StmtContext(ctx, f.call).ExecContext(ctx, in.namespace, in.function, in.slot, bad); err != nil {
			return err
		}
		news[in] = bad
	}
	return nil
}

// rollback undoes a transaction, unless its own failure or that of its commit has done so.
func rollback(tx *sql.Tx) error {
	if err := tx.Rollback(); !errors.Is(err, sql.ErrTxDone) {
		return err
	}
	return nil
}
