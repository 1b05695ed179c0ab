package store

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
)

// Memory returns a Store that lives in this process's memory and is gone with it.
func Memory() Store {
	return &memory{records: map[string]Record{}, changed: make(chan struct{})}
}

type memory struct {
	mu      sync.Mutex
	last    Version           // guarded by mu
	records map[string]Record // guarded by mu; the deleted ones too, as watchers may have yet to hear
	changed chan struct{}     // guarded by mu; closed and replaced at each write
}

func (m *memory) Get(ctx context.Context, key string) (Record, error) {
	if err := ValidateKey(key); err != nil {
		return Record{}, err
	}
	if err := ctx.Err(); err != nil {
		return Record{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.records[key]
	if !ok || r.Deleted {
		return Record{}, ErrNotFound
	}
	return r, nil
}

func (m *memory) List(ctx context.Context, prefix, after string, limit int) ([]Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	var out []Record
	for k, r := range m.records {
		if !r.Deleted && k > after && strings.HasPrefix(k, prefix) {
			out = append(out, r)
		}
	}
	m.mu.Unlock()
	return page(out, limit), nil
}

// page sorts records by key and keeps the first limit.
func page(records []Record, limit int) []Record {
	slices.SortFunc(records, func(a, b Record) int { return strings.Compare(a.Key, b.Key) })
	if limit > 0 && len(records) > limit {
		records = records[:limit]
	}
	return records
}

func (m *memory) Put(ctx context.Context, key string, value []byte, expect Version) (Version, error) {
	if err := ValidateKey(key); err != nil {
		return 0, err
	}
	if err := validateValue(value); err != nil {
		return 0, err
	}
	return m.write(ctx, Record{Key: key, Value: bytes.Clone(value)}, expect)
}

func (m *memory) Delete(ctx context.Context, key string, expect Version) error {
	if err := ValidateKey(key); err != nil {
		return err
	}
	_, err := m.write(ctx, Record{Key: key, Deleted: true}, expect)
	return err
}

func (m *memory) write(ctx context.Context, r Record, expect Version) (Version, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	was, ok := m.records[r.Key]
	at := Absent
	if ok && !was.Deleted {
		at = was.Version
	}
	switch {
	case r.Deleted && at == Absent:
		return 0, ErrNotFound
	case expect != Any && expect != at:
		return 0, ErrConflict
	}
	m.last++
	r.Version = m.last
	m.records[r.Key] = r
	close(m.changed)
	m.changed = make(chan struct{})
	return r.Version, nil
}

func (m *memory) Watch(ctx context.Context, prefix string, from Version) (<-chan Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	out := make(chan Record)
	go func() {
		defer close(out)
		for first := true; ; first = false {
			m.mu.Lock()
			changed := m.changed
			var news []Record
			for k, r := range m.records {
				if r.Version > from && strings.HasPrefix(k, prefix) {
					news = append(news, r)
				}
			}
			from = m.last
			m.mu.Unlock()
			slices.SortFunc(news, func(a, b Record) int { return int(a.Version) - int(b.Version) })
			if first {
				news = append(news, Record{})
			}
			for _, r := range news {
				select {
				case out <- r:
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}
