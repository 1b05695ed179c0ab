package queue

import (
	"cmp"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// What is said to the index, in the terms of the queue. Times are microseconds since 1970.

func micros(t time.Time) int64 { return t.UnixMicro() }

// ceil returns the first microsecond at which t has come.
func ceil(t time.Time) int64 { return t.Add(time.Microsecond - 1).UnixMicro() }

func (t *txn) change(c change) { t.changes = append(t.changes, c) }

// fn returns the number of a function, which is made on need.
func (t *txn) fn(f *function) (int64, error) {
	if f.id != 0 {
		return f.id, nil
	}
	var id int64
	found, err := t.one(`SELECT id FROM fn WHERE name = ?`, []any{f.name.String()}, &id)
	if err == nil && !found {
		_, err = t.one(`INSERT INTO fn (name, ns) VALUES (?, ?) RETURNING id`, []any{f.name.String(), f.name.Namespace}, &id)
	}
	if err == nil {
		t.committed = append(t.committed, func() { f.id = id }) // not before: the transaction may fail
	}
	return id, err
}

// blob returns the ID as it lies in the index; its order is that of the IDs.
func blob(id faas.ID) []byte {
	b, _ := hex.DecodeString(string(id)) // an ID was parsed or made by us
	return b
}

func text(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// waits returns the state of what would be handed out if it were due.
func waits(due int64, now int64) state {
	if due > now {
		return later
	}
	return ready
}

// errTwice is for a message whose invocation lies in the queue by another.
var errTwice = errors.New("the invocation is in the queue already")

// enter takes up a message that has the sequence seq in the stream of f. One that is there already
// is left as it is.
func (t *txn) enter(f *function, n *note, seq uint64, size int, now int64) error {
	fn, err := t.fn(f)
	if err != nil {
		return err
	}
	place := n.Place
	if place == 0 {
		place = placeOf(f.part, seq)
	}
	there := func() (bool, error) {
		var at int64
		found, err := t.one(`SELECT place FROM letter WHERE fn = ? AND id = ?`, []any{fn, blob(n.ID)}, &at)
		switch {
		case err != nil || !found:
			return false, err
		case at == place:
			return true, t.moved(f, n, place, seq, size, now)
		}
		return true, errTwice
	}
	s := waits(n.Due, now)
	if n.Row != "" { // before it changes who stands where
		if found, err := there(); found || err != nil {
			return err
		}
		if s, err = t.stand(f, fn, n, place, s); err != nil {
			return err
		}
	}
	entered, err := t.exec(`INSERT INTO letter VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		place, int64(seq), fn, blob(n.ID), int(s), n.Rank, n.Due, n.After, n.Queued, n.Attempt, size,
		text(n.Row), text(n.Key), text(n.Subject), text(string(n.Cause)), text(n.Why), text(n.Owner))
	if err != nil {
		return err
	}
	if entered == 0 { // seldom
		found, err := there()
		if err == nil && !found {
			err = fmt.Errorf("another invocation has the place of message %d in %s", seq, f.part.name)
		}
		return err
	}
	t.change(change{f: f, state: s, count: 1, bytes: int64(size), owner: n.Owner, owned: 1})
	return nil
}

// moved notes another copy of what is there: it was put off.
func (t *txn) moved(f *function, n *note, place int64, seq uint64, size int, now int64) error {
	var s state
	var was int64
	var bytes int
	if found, err := t.one(`SELECT state, seq, size FROM letter WHERE place = ?`, []any{place}, &s, &was, &bytes); err != nil || !found || was >= int64(seq) {
		return err
	}
	to := s
	if s != behind {
		to = waits(n.Due, now)
	}
	if _, err := t.exec(`UPDATE letter SET seq = ?, state = ?, due = ?, after = ?, attempt = ?, why = ?, size = ? WHERE place = ?`,
		int64(seq), int(to), n.Due, n.After, n.Attempt, text(n.Why), size, place); err != nil {
		return err
	}
	t.change(change{f: f, state: s, count: -1, bytes: -int64(bytes)})
	t.change(change{f: f, state: to, count: 1, bytes: int64(size)})
	return nil
}

// putOff notes that what was handed out waits again, under the same sequence.
func (t *txn) putOff(f *function, place int64, n *note, now int64) error {
	to := waits(n.Due, now)
	done, err := t.exec(`UPDATE letter SET state = ?, due = ?, after = ?, attempt = ?, why = ? WHERE place = ? AND state = 3`,
		int(to), n.Due, n.After, n.Attempt, text(n.Why), place)
	if err == nil && done > 0 {
		t.change(change{f: f, state: running, count: -1})
		t.change(change{f: f, state: to, count: 1})
	}
	return err
}

// remove forgets what is settled, and lets the next of its row go.
func (t *txn) remove(f *function, place, now int64) error {
	var s state
	var size int64
	var row, owner sql.NullString
	found, err := t.one(`DELETE FROM letter WHERE place = ? RETURNING state, size, line, owner`, []any{place}, &s, &size, &row, &owner)
	if err != nil || !found {
		return err
	}
	t.change(change{f: f, state: s, count: -1, bytes: -size, owner: owner.String, owned: -1})
	if !row.Valid || s == behind {
		return nil
	}
	return t.next(f, row.String, now)
}

// stand finds the state of one that comes into a row: behind, unless it is the first.
func (t *txn) stand(f *function, fn int64, n *note, place int64, alone state) (state, error) {
	var one int
	others, err := t.one(`SELECT 1 FROM letter WHERE fn = ? AND line = ? LIMIT 1`, []any{fn, n.Row}, &one)
	if err != nil || !others {
		return alone, err
	}
	if n.Place == 0 {
		return behind, nil
	}
	// One that was put off keeps its place, but its copy is read after those who came later.
	var head int64
	var s state
	found, err := t.one(`SELECT place, state FROM letter WHERE fn = ? AND line = ? AND state <> 2 LIMIT 1`, []any{fn, n.Row}, &head, &s)
	if err != nil || found && (head < place || s == running) {
		return behind, err
	}
	if found {
		if _, err := t.exec(`UPDATE letter SET state = 2 WHERE place = ?`, head); err != nil {
			return behind, err
		}
		t.change(change{f: f, state: s, count: -1})
		t.change(change{f: f, state: behind, count: 1})
	}
	return alone, nil
}

// next lets the first of a row go, unless one of it is under way.
func (t *txn) next(f *function, row string, now int64) error {
	fn, err := t.fn(f)
	if err != nil {
		return err
	}
	var one int
	if busy, err := t.one(`SELECT 1 FROM letter WHERE fn = ? AND line = ? AND state <> 2 LIMIT 1`, []any{fn, row}, &one); err != nil || busy {
		return err
	}
	var place, due int64
	found, err := t.one(`SELECT place, due FROM letter WHERE fn = ? AND line = ? ORDER BY place LIMIT 1`, []any{fn, row}, &place, &due)
	if err != nil || !found {
		return err
	}
	return t.turn(f, place, behind, waits(due, now))
}

// turn changes the state of one message.
func (t *txn) turn(f *function, place int64, from, to state) error {
	if _, err := t.exec(`UPDATE letter SET state = ? WHERE place = ?`, int(to), place); err != nil {
		return err
	}
	t.change(change{f: f, state: from, count: -1})
	t.change(change{f: f, state: to, count: 1})
	return nil
}

// restore makes one that was handed out, or was being cancelled, wait as it did before. uncounted:
// it was no attempt.
func (t *txn) restore(f *function, place int64, uncounted bool, now int64) error {
	var due int64
	var row sql.NullString
	found, err := t.one(`SELECT due, line FROM letter WHERE place = ? AND state = 3`, []any{place}, &due, &row)
	if err != nil || !found {
		return err
	}
	if uncounted {
		if _, err := t.exec(`UPDATE letter SET attempt = attempt - 1 WHERE place = ?`, place); err != nil {
			return err
		}
	}
	if !row.Valid {
		return t.turn(f, place, running, waits(due, now))
	}
	if err := t.turn(f, place, running, behind); err != nil {
		return err
	}
	return t.next(f, row.String, now)
}

// taken is what the index says of a message that is handed out.
type taken struct {
	place   int64
	seq     uint64
	rank    int
	attempt int
	size    int64
}

// take marks what goes next as handed out.
func (t *txn) take(f *function, most int) ([]taken, error) {
	fn, err := t.fn(f)
	if err != nil {
		return nil, err
	}
	var out []taken
	// A row that is rolled back is not handed out, so its attempt is not counted.
	err = t.rows(func(r *sql.Rows) error {
		var k taken
		if err := r.Scan(&k.place, &k.seq, &k.rank, &k.attempt, &k.size); err != nil {
			return err
		}
		out = append(out, k)
		return nil
	}, `UPDATE letter SET state = 3, attempt = attempt + 1 WHERE place IN (
		SELECT place FROM letter WHERE fn = ? AND state = 0 ORDER BY rank, place LIMIT ?
	) RETURNING place, seq, rank, attempt, size`, fn, most)
	if err != nil {
		return nil, err
	}
	// The answer has no order of its own.
	slices.SortFunc(out, func(a, b taken) int { return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.place, b.place)) })
	t.change(change{f: f, state: ready, count: -len(out)})
	t.change(change{f: f, state: running, count: len(out)})
	return out, nil
}

// bury enters a dead letter, and returns the sequence of an older one of the same ID; 0: there is none.
func (t *txn) bury(f *function, id faas.ID, seq uint64) (older uint64, err error) {
	fn, err := t.fn(f)
	if err != nil {
		return 0, err
	}
	there, err := t.one(`SELECT seq FROM dead WHERE fn = ? AND id = ?`, []any{fn, blob(id)}, &older)
	if err != nil || there && older >= seq {
		return 0, err
	}
	if _, err := t.exec(`INSERT INTO dead VALUES (?, ?, ?) ON CONFLICT (fn, id) DO UPDATE SET seq = excluded.seq`, fn, blob(id), int64(seq)); err != nil {
		return 0, err
	}
	if !there {
		t.change(change{f: f, dead: 1})
	}
	return older, nil
}

// exhume forgets a dead letter.
func (t *txn) exhume(f *function, seq uint64) error {
	n, err := t.exec(`DELETE FROM dead WHERE seq = ?`, int64(seq))
	if err == nil {
		t.change(change{f: f, dead: -n})
	}
	return err
}

// remember keeps a key until a time.
func (t *txn) remember(f *function, key string, id faas.ID, until int64) error {
	fn, err := t.fn(f)
	if err != nil {
		return err
	}
	_, err = t.exec(`INSERT INTO key VALUES (?, ?, ?, ?) ON CONFLICT (fn, key) DO UPDATE SET id = excluded.id, until = excluded.until WHERE excluded.until >= until`,
		fn, key, string(id), until)
	return err
}

// known returns whose key it is; "" if nobody's.
func (t *txn) known(f *function, key string, now int64) (id faas.ID, err error) {
	fn, err := t.fn(f)
	if err != nil {
		return "", err
	}
	_, err = t.one(`SELECT id FROM key WHERE fn = ? AND key = ? AND until > ?`, []any{fn, key, now}, &id)
	return id, err
}
