package queue

import (
	"context"
	"slices"
	"strings"
	"time"
)

// bury is called with mu held.
func (m *memory) bury(g grave) {
	m.buried = append(m.buried, g)
	slices.SortFunc(m.buried, func(a, b grave) int { return strings.Compare(string(a.item.id), string(b.item.id)) })
}

// graves returns those that the filter chooses. It is called with mu held.
func (m *memory) graves(f Filter) []grave {
	var out []grave
	for _, g := range m.buried {
		if f.match(g.item.name, g.item.id) {
			out = append(out, g)
		}
	}
	return page(f, out)
}

func (m *memory) Buried(_ context.Context, f Filter) ([]Dead, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Dead
	for _, g := range m.graves(f) {
		inv, err := g.item.invocation()
		if err != nil {
			return nil, err
		}
		out = append(out, Dead{Invocation: inv, Why: g.why, At: g.at})
	}
	return out, nil
}

func (m *memory) Redrive(ctx context.Context, f Filter) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	graves, now := m.graves(f), time.Now()
	for _, g := range graves {
		inv, err := decode(g.item.data)
		if err != nil {
			return 0, err
		}
		renew(inv, now)
		data, err := encode(inv)
		if err != nil {
			return 0, err
		}
		m.items = append(m.items, newItem(inv, data, now))
	}
	m.forget(graves)
	m.tell()
	return len(graves), nil
}

func (m *memory) Purge(ctx context.Context, f Filter) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	graves := m.graves(f)
	m.forget(graves)
	return len(graves), nil
}

// forget is called with mu held.
func (m *memory) forget(graves []grave) {
	m.buried = slices.DeleteFunc(m.buried, func(g grave) bool { return slices.Contains(graves, g) })
}
