package queue

import (
	"context"
	"database/sql"
	"errors"
	"slices"
)

// txn is a transaction of the index, and what is to be told when it is committed.
type txn struct {
	x         *index
	changes   []change
	committed []func()
	parts     map[*part][]*flight // that land with it
}

// change is by how much a transaction changes a function's figures, and an owner's.
type change struct {
	f           *function
	state       state
	count, dead int
	bytes       int64
	owner       string // "": none
	owned       int
}

// state is where a message stands.
type state int

const (
	ready   state = iota // it may be handed out
	later                // it is not due
	behind               // another of its row is not settled
	running              // it is handed out, or being cancelled
	states
)

// do runs a write and returns when it is committed.
func (x *index) do(run func(*txn) error) error {
	const most = 512
	w := &write{run: run}
	x.writes.do(w, func(all []*write) {
		x.writing.Lock()
		defer x.writing.Unlock()
		for batch := range slices.Chunk(all, most) {
			x.batch(batch)
		}
	})
	return w.err
}

// batch runs writes in one transaction. If one of them fails each is tried by itself.
func (x *index) batch(batch []*write) {
	err := x.once(func(t *txn) error {
		for _, w := range batch {
			if err := w.run(t); err != nil {
				return err
			}
		}
		return nil
	})
	for _, w := range batch {
		w.err = err
		if err != nil && (len(batch) > 1 || isCorrupt(err)) {
			w.err = x.alone(w.run)
		}
	}
}

// alone runs a write by itself, and once more when the index had to be made again for it.
func (x *index) alone(run func(*txn) error) error {
	err := x.once(run)
	if isCorrupt(err) && x.mend != nil {
		if err := x.again(err); err != nil {
			return err
		}
		err = x.once(run)
	}
	return err
}

// once runs a write in a transaction. It is called with writing held.
func (x *index) once(run func(*txn) error) error {
	if x.conn == nil {
		return errClosed
	}
	ctx := context.Background() // it takes no time worth ending
	if _, err := x.conn.ExecContext(ctx, `BEGIN IMMEDIATE`); err != nil {
		return err
	}
	t := &txn{x: x, parts: map[*part][]*flight{}}
	err := run(t)
	if err == nil {
		err = t.noteSeen()
	}
	if err == nil {
		fault("index: to be committed")
		_, err = x.conn.ExecContext(ctx, `COMMIT`)
	}
	if err != nil {
		_, _ = x.conn.ExecContext(ctx, `ROLLBACK`) // SQLite has done so itself after some errors, and says then that there is none
		return err
	}
	fault("index: committed")
	for p, landed := range t.parts {
		p.land(landed)
	}
	x.apply(t.changes)
	for _, f := range t.committed {
		f()
	}
	return nil
}

// stmt prepares what is said often once for all transactions.
func (t *txn) stmt(query string) (*sql.Stmt, error) {
	s := t.x.prepared[query]
	if s == nil {
		var err error
		if s, err = t.x.conn.PrepareContext(context.Background(), query); err != nil {
			return nil, err
		}
		t.x.prepared[query] = s
	}
	return s, nil
}

func (t *txn) exec(query string, args ...any) (int, error) {
	s, err := t.stmt(query)
	if err != nil {
		return 0, err
	}
	r, err := s.Exec(args...)
	if err != nil {
		return 0, err
	}
	n, err := r.RowsAffected()
	return int(n), err
}

// one reads the only row of the answer, and says whether there is one.
func (t *txn) one(query string, args []any, into ...any) (bool, error) {
	s, err := t.stmt(query)
	if err != nil {
		return false, err
	}
	err = s.QueryRow(args...).Scan(into...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// rows calls each for every row of the answer.
func (t *txn) rows(each func(*sql.Rows) error, query string, args ...any) error {
	s, err := t.stmt(query)
	if err != nil {
		return err
	}
	r, err := s.Query(args...)
	if err != nil {
		return err
	}
	return eachRow(r, each)
}
