package journal

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Get returns one activation with all of its logs, or a NotFound. It finds what was recorded
// before the call, written or not.
func (j *Journal) Get(ctx context.Context, namespace string, id faas.ID) (*faas.Activation, error) {
	const op = "look up activation"
	notFound := func() error {
		return faas.Errorf(faas.NotFound, op, "there is no activation %.40q in namespace %.80q", string(id), namespace).
			WithFix("list those that are kept with: brasa inv ls")
	}
	id, err := faas.ParseID(string(id))
	if err != nil {
		return nil, err
	}
	j.mu.Lock()
	for _, part := range [][]*faas.Activation{j.writing, j.buffer} {
		for _, a := range slices.Backward(part) {
			if a.ID == id {
				j.mu.Unlock()
				if a.Namespace != namespace {
					return nil, notFound()
				}
				return a, nil
			}
		}
	}
	j.mu.Unlock()
	var a *faas.Activation
	err = j.mending(ctx, func() error {
		a, err = j.index.get(ctx, namespace, id)
		return err
	})
	if err != nil {
		return nil, indexError(op, err)
	}
	if a == nil || a.Namespace != namespace {
		return nil, notFound()
	}
	return a, nil
}

func (x *index) get(ctx context.Context, namespace string, id faas.ID) (*faas.Activation, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var found *faas.Activation
	parts := 0
	for _, f := range x.files {
		if f.day() != dayOf(id) && !(f.late.Load() && f.day() > dayOf(id)) {
			continue
		}
		a, n, err := f.get(ctx, namespace, id)
		if err != nil {
			return nil, &fileError{f, "read", err}
		}
		if a != nil && (found == nil || !a.Timing.Begin.Before(found.Timing.Begin)) {
			found, parts = a, n
		}
	}
	if found == nil {
		return nil, nil
	}
	return found, x.rests(ctx, found, parts)
}

// get returns a record with the first part of its log, and how many parts that has; of several records
// of the ID the latest.
func (f *file) get(ctx context.Context, namespace string, id faas.ID) (found *faas.Activation, parts int, err error) {
	key := blob(id)
	slot := slotOfBlob(key)
	rows, err := f.db.QueryContext(ctx, `SELECT head, data FROM chunk WHERE namespace = ? AND slot BETWEEN ? AND ? AND high >= ? AND low <= ? ORDER BY slot, high`,
		namespace, slot, slot+spanSlots, key, key)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var head, data sql.RawBytes
		if err := rows.Scan(&head, &data); err != nil {
			return nil, 0, err
		}
		_, all, err := entries(head)
		if err != nil {
			return nil, 0, err
		}
		i, has := slices.BinarySearchFunc(all, key, func(e entry, key []byte) int { return bytes.Compare(e.id, key) })
		if !has {
			continue
		}
		plain, err := unpacker.DecodeAll(data, nil)
		if err != nil {
			return nil, 0, err
		}
		for ; i < len(all) && bytes.Equal(all[i].id, key); i++ {
			a, err := all[i].record(plain, true)
			if err != nil {
				return nil, 0, err
			}
			if found == nil || !a.Timing.Begin.Before(found.Timing.Begin) {
				found, parts = a, all[i].parts
			}
		}
	}
	return found, parts, rows.Err()
}

// rests fills in what of an activation does not lie with the record: the rest of its log, and its
// answer; a replay may have put it into another file of the day.
func (x *index) rests(ctx context.Context, a *faas.Activation, parts int) error {
	answer := a.Answer != nil && len(a.Answer.Body) == 0 && a.Answer.Bytes > 0
	if parts <= 1 && !answer {
		return nil
	}
	found, day := map[int][]byte{}, dayOfActivation(a)
	for _, f := range x.files {
		if f.day() != day {
			continue
		}
		if err := f.logs(ctx, a.ID, found); err != nil {
			return &fileError{f, "read", err}
		}
	}
	for i := 1; i < parts; i++ {
		if found[i] == nil {
			a.LogTruncated = true // it was written and is lost
			continue
		}
		lines, err := unpackLines(found[i])
		if err != nil {
			return fmt.Errorf("logs of activation %s, part %d: %w", a.ID, i, err)
		}
		a.Logs = append(a.Logs, lines...)
	}
	if !answer {
		return nil
	}
	if found[answerPart] == nil {
		a.Answer.Cut = true // it was written and is lost
		return nil
	}
	body, err := unpacker.DecodeAll(found[answerPart], nil)
	if err != nil {
		return fmt.Errorf("answer of activation %s: %w", a.ID, err)
	}
	a.Answer.Body = body
	return nil
}

func (f *file) logs(ctx context.Context, id faas.ID, parts map[int][]byte) (err error) {
	rows, err := f.db.QueryContext(ctx, `SELECT part, data FROM log WHERE id = ?`, blob(id))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var part int
		var data []byte
		if err := rows.Scan(&part, &data); err != nil {
			return err
		}
		parts[part] = data
	}
	return rows.Err()
}
