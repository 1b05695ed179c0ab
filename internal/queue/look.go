package queue

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

const waitingColumns = `letter.place, letter.attempt, letter.id, state, rank, due, queued, line, key, subject, cause, why`

// scanWaiting reads waitingColumns, and then what comes after them.
func scanWaiting(r *sql.Rows, more ...any) (w faas.Waiting, l *lease, err error) {
	l = &lease{}
	var id []byte
	var s state
	var place, due, queued int64
	var level int
	var row, key, subject, cause, why sql.NullString
	if err := r.Scan(append([]any{&place, &w.Attempt, &id, &s, &level, &due, &queued, &row, &key, &subject, &cause, &why}, more...)...); err != nil {
		return w, l, err
	}
	l.place, l.attempt = place, w.Attempt
	w.ID, w.Priority, w.Order, w.Key, w.Subject, w.Cause, w.Error = faas.ID(hex.EncodeToString(id)), priorities[level], row.String, key.String, subject.String, faas.ID(cause.String), why.String
	w.Queued, w.Due, w.Stage = time.UnixMicro(queued), time.UnixMicro(due), faas.StageQueued
	switch {
	case s == running:
		w.Stage, w.Due = faas.StageRunning, time.Time{}
	case w.Attempt > 0:
		w.Stage = faas.StageRetrying
	}
	return w, l, nil
}

// look finds an invocation, and what its lease would be.
func (q *Durable) look(ctx context.Context, namespace string, id faas.ID) (w faas.Waiting, l *lease, err error) {
	if _, err := faas.ParseID(string(id)); err != nil {
		return w, nil, err
	}
	err = q.index.read(ctx, func() { l = nil }, func(r *sql.Rows) error {
		var name string
		if w, l, err = scanWaiting(r, &name); err != nil {
			return err
		}
		w.Function, err = readName(name)
		return err
	}, `SELECT `+waitingColumns+`, fn.name FROM fn CROSS JOIN letter ON letter.fn = fn.id AND letter.id = ? WHERE fn.ns = ?`, blob(id), namespace)
	if err != nil {
		return w, nil, q.failure("look into queue", err)
	}
	if l == nil {
		return w, nil, notWaiting(id)
	}
	l.queue, l.f = q, q.function(w.Function)
	return w, l, nil
}

// readName reads what Name.String wrote.
func readName(s string) (faas.Name, error) { return faas.ParseName("/"+s, "") }

// Find implements Queue.
func (q *Durable) Find(ctx context.Context, namespace string, id faas.ID) (faas.Waiting, error) {
	w, _, err := q.look(ctx, namespace, id)
	return w, err
}

// List implements Queue. It asks for a page of each function and puts them together: one that has
// a million waiting does not make the others' page slow.
func (q *Durable) List(ctx context.Context, f Filter) ([]faas.Waiting, error) {
	var out []faas.Waiting
	for _, x := range q.chosen(f) {
		q.mu.Lock()
		some := x.waiting()+x.count[running] > 0
		q.mu.Unlock()
		if !some {
			continue
		}
		query := `SELECT ` + waitingColumns + ` FROM letter INDEXED BY letter_by_id WHERE fn = (SELECT id FROM fn WHERE name = ?) AND id > ?`
		args := []any{x.name.String(), blob(f.After)}
		if f.After == "" {
			args[1] = []byte{}
		}
		if f.ID != "" {
			query += ` AND id = ?`
			args = append(args, blob(f.ID))
		}
		switch f.Stage {
		case "":
		case faas.StageRunning: // of which there are few
			query = strings.Replace(query, "letter_by_id", "letter_by_turn", 1) + ` AND state = 3`
		case faas.StageQueued:
			query += ` AND state <> 3 AND attempt = 0`
		case faas.StageRetrying:
			query += ` AND state <> 3 AND attempt > 0`
		default:
			return nil, nil // nothing that waits is in any other
		}
		query += ` ORDER BY id LIMIT ?`
		limit := f.Limit
		if limit <= 0 {
			limit = -1
		}
		before := len(out)
		err := q.index.read(ctx, func() { out = out[:before] }, func(r *sql.Rows) error {
			w, _, err := scanWaiting(r)
			w.Function = x.name
			out = append(out, w)
			return err
		}, query, append(args, limit)...)
		if err != nil {
			return nil, q.failure("list queue", err)
		}
	}
	slices.SortFunc(out, func(a, b faas.Waiting) int { return cmp.Compare(a.ID, b.ID) })
	return page(f, out), nil
}

// oldest finds when the first was accepted that waits: the lowest place of each state and priority
// is one step down the index.
var oldest = func() string {
	var each []string
	for _, s := range []state{ready, later, behind} {
		for r := range priorities {
			each = append(each, fmt.Sprintf(`SELECT * FROM (SELECT place FROM letter WHERE fn = (SELECT id FROM fn WHERE name = ?1) AND state = %d AND rank = %d ORDER BY place LIMIT 1)`, s, r))
		}
	}
	return `SELECT queued FROM letter WHERE place = (SELECT min(place) FROM (` + strings.Join(each, ` UNION ALL `) + `))`
}()

// Owned implements Queue.
func (q *Durable) Owned(owner string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.owned[owner]
}

// Depths implements Queue.
func (q *Durable) Depths(ctx context.Context, namespace string) ([]Depth, error) {
	var out []Depth
	for _, f := range q.of(faas.Name{Namespace: namespace}) {
		q.mu.Lock()
		d := Depth{Function: f.name, Waiting: f.waiting(), Running: f.count[running], Dead: f.dead, Paused: f.paused}
		q.mu.Unlock()
		if d == (Depth{Function: f.name}) {
			continue
		}
		if d.Waiting > 0 {
			err := q.index.read(ctx, func() {}, func(r *sql.Rows) error {
				var at int64
				err := r.Scan(&at)
				d.Oldest = time.UnixMicro(at)
				return err
			}, oldest, f.name.String())
			if err != nil {
				return nil, q.failure("look into queue", err)
			}
		}
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b Depth) int { return strings.Compare(a.Function.String(), b.Function.String()) })
	return out, nil
}
