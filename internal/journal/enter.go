package journal

import (
	"context"
	"database/sql"
	"errors"
)

// insertAgain is insert for rows that may be there already, in another file of their day too.
func (x *index) insertAgain(ctx context.Context, rows []row) error {
	var news []row
	for _, r := range rows {
		known, err := x.has(ctx, r)
		if err != nil {
			return err
		}
		if !known {
			news = append(news, r)
		}
	}
	return x.insert(ctx, news)
}

func (x *index) has(ctx context.Context, r row) (bool, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, f := range x.files {
		if f.day() != dayOf(r.act.ID) {
			continue
		}
		query, args := `SELECT count(*) FROM activation WHERE id = ?`, []any{blob(r.act.ID)}
		if r.data == nil {
			query, args = `SELECT count(*) FROM log WHERE id = ? AND part = ?`, append(args, len(r.logs)-1)
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
func (x *index) insert(ctx context.Context, rows []row) error {
	days := map[string][]row{}
	for _, r := range rows {
		d := dayOf(r.act.ID)
		days[d] = append(days[d], r)
	}
	var errs []error
	for day, rows := range days {
		f, err := x.fileFor(day)
		if err == nil {
			err = x.insertFile(ctx, f, rows)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (x *index) insertFile(ctx context.Context, f *file, rows []row) (err error) {
	tx, err := f.db.BeginTx(ctx, nil)
	if err != nil {
		return &fileError{f, "write", err}
	}
	defer func() {
		if err != nil {
			err = &fileError{f, "write", errors.Join(err, rollback(tx))}
		}
	}()
	record, err := tx.PrepareContext(ctx, `INSERT OR IGNORE INTO activation VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`)
	if err != nil {
		return err
	}
	log, err := tx.PrepareContext(ctx, `INSERT OR IGNORE INTO log VALUES (?, ?, ?)`)
	if err != nil {
		return err
	}
	last := uint64(0)
	for _, r := range rows {
		a := r.act
		if r.data != nil {
			if _, err := record.ExecContext(ctx, blob(a.ID), a.Namespace, a.Function, a.Outcome.String(), string(a.Start), string(a.Kind),
				a.Timing.Begin.UnixMicro(), a.Timing.Total.Microseconds(), r.data); err != nil {
				return err
			}
		}
		for i, part := range r.logs {
			if part == nil {
				continue
			}
			if _, err := log.ExecContext(ctx, blob(a.ID), i, part); err != nil {
				return err
			}
		}
		last = max(last, r.seq)
	}
	if last > 0 {
		if _, err := tx.ExecContext(ctx, `INSERT INTO state VALUES ('last', ?) ON CONFLICT DO UPDATE SET value = max(value, excluded.value)`, int64(last)); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	f.size = x.sizeOf(f)
	return nil
}

// rollback undoes a transaction, unless its own failure or that of its commit has done so.
func rollback(tx *sql.Tx) error {
	if err := tx.Rollback(); !errors.Is(err, sql.ErrTxDone) {
		return err
	}
	return nil
}
