package catalog

import (
	"slices"
	"strings"
	"sync/atomic"

	"github.com/brasa-dev/brasa/internal/faas"
)

// index maps every name to its slot. The map is never changed after it is published; a function
// that is published again changes its slot alone, so only new names cost a copy of the map.
type index map[faas.Name]*slot

type slot struct{ view atomic.Pointer[view] }

// view is what a name resolves to. It is never changed.
type view struct {
	function  *faas.Function
	active    *faas.Revision // nil: its document is missing
	revisions map[faas.RevisionID]*faas.Revision
}

// Resolve returns the function that ref names, and the revision that it pins, else the active
// one. It takes no lock, touches no disk and allocates nothing unless it fails.
func (c *Catalog) Resolve(ref faas.Ref) (*faas.Function, *faas.Revision, error) {
	v := c.view(ref.Name)
	if v == nil {
		return nil, nil, c.noFunction(ref.Name)
	}
	rev := v.active
	if ref.Revision != "" {
		if rev = v.revisions[ref.Revision]; rev == nil {
			return nil, nil, noRevision(ref.Name, ref.Revision)
		}
	}
	if rev == nil {
		return nil, nil, faas.Errorf(faas.Unavailable, "resolve function", "the active revision %s of function %q is missing from the catalog", v.function.Active.Short(), ref.Name.Path()).
			WithFix("deploy it again with: brasa deploy %s", ref.Name.Path())
	}
	return v.function, rev, nil
}

func (c *Catalog) view(name faas.Name) *view {
	s := (*c.index.Load())[name]
	if s == nil {
		return nil
	}
	return s.view.Load()
}

func (c *Catalog) noFunction(name faas.Name) error {
	if name.Function == "" {
		return faas.Errorf(faas.NotFound, "resolve function", "no function is named")
	}
	e := faas.Errorf(faas.NotFound, "resolve function", "function %q does not exist in namespace %q", name.Path(), name.Namespace).
		WithFix("list what there is with: brasa ls; deploy it with: brasa deploy PATH --name %s", name.Path())
	if near := c.nearest(name); near != "" {
		e.WithFix("did you mean %q? If not, deploy it with: brasa deploy PATH --name %s", near, name.Path())
	}
	return e
}

func noRevision(name faas.Name, id faas.RevisionID) error {
	return faas.Errorf(faas.NotFound, "resolve revision", "function %q has no revision %.12q", name.Path(), string(id)).
		WithFix("list those that are kept with: brasa versions %s", name.Path())
}

// nearest returns the name in the same namespace that is one slip away: a letter more, less or
// other, two exchanged, or another case.
func (c *Catalog) nearest(name faas.Name) string {
	const most = 5000 // names looked at; a typo is not worth more
	want, n := strings.ToLower(name.Path()), 0
	for other, s := range *c.index.Load() {
		if n++; n > most {
			break
		}
		if other.Namespace == name.Namespace && s.view.Load() != nil && oneSlip(strings.ToLower(other.Path()), want) {
			return other.Path()
		}
	}
	return ""
}

func oneSlip(a, b string) bool {
	if len(a) < len(b) {
		a, b = b, a
	}
	if len(a)-len(b) > 1 {
		return false
	}
	i := 0
	for i < len(b) && a[i] == b[i] {
		i++
	}
	switch {
	case len(a) > len(b):
		return a[i+1:] == b[i:]
	case i == len(a) || a[i+1:] == b[i+1:]:
		return true
	}
	return i+1 < len(a) && a[i] == b[i+1] && a[i+1] == b[i] && a[i+2:] == b[i+2:]
}

// show publishes what a name resolves to. It is called with mu held.
func (c *Catalog) show(name faas.Name, s *functionState) {
	if s.document == nil && len(s.revisions) == 0 {
		delete(c.functions, name)
	}
	if c.loading {
		return
	}
	if sl := (*c.index.Load())[name]; sl != nil {
		sl.view.Store(s.view())
		return
	}
	if s.live() != nil {
		c.reindex()
	}
}

// reindex makes the map anew, without the names that are gone. It is called with mu held.
func (c *Catalog) reindex() {
	old := *c.index.Load()
	next := make(index, len(old)+1)
	for name, s := range c.functions {
		v := s.view()
		if v == nil {
			continue
		}
		sl := old[name]
		if sl == nil {
			sl = &slot{}
		}
		sl.view.Store(v)
		next[name] = sl
	}
	c.index.Store(&next)
}

func (s *functionState) view() *view {
	fn := s.live()
	if fn == nil {
		return nil
	}
	v := &view{function: fn, revisions: make(map[faas.RevisionID]*faas.Revision, len(fn.Revisions))}
	for _, id := range fn.Revisions {
		if r, ok := s.revisions[id]; ok {
			v.revisions[id] = r.Revision
		}
	}
	v.active = v.revisions[fn.Active]
	return v
}

// Functions returns the functions of a namespace in the order of their names.
func (c *Catalog) Functions(namespace string) []*faas.Function {
	var out []*faas.Function
	for name, s := range *c.index.Load() {
		if name.Namespace != namespace {
			continue
		}
		if v := s.view.Load(); v != nil {
			out = append(out, v.function)
		}
	}
	slices.SortFunc(out, func(a, b *faas.Function) int { return strings.Compare(a.Name.Path(), b.Name.Path()) })
	return out
}

// Function returns the function of that name, or a NotFound.
func (c *Catalog) Function(name faas.Name) (*faas.Function, error) {
	if v := c.view(name); v != nil {
		return v.function, nil
	}
	return nil, c.noFunction(name)
}

// Revisions returns the revisions of a function that are kept, newest first.
func (c *Catalog) Revisions(name faas.Name) ([]*faas.Revision, error) {
	v := c.view(name)
	if v == nil {
		return nil, c.noFunction(name)
	}
	var out []*faas.Revision
	for _, id := range v.function.Revisions {
		if r := v.revisions[id]; r != nil {
			out = append(out, r)
		}
	}
	return out, nil
}

// Revision returns one revision of a function. id may be shortened to its first digits, at least
// four, as long as one revision only begins with them.
func (c *Catalog) Revision(name faas.Name, id faas.RevisionID) (*faas.Revision, error) {
	v := c.view(name)
	if v == nil {
		return nil, c.noFunction(name)
	}
	if r := v.revisions[id]; r != nil {
		return r, nil
	}
	var found *faas.Revision
	for full, r := range v.revisions {
		if len(id) < 4 || !strings.HasPrefix(string(full), string(id)) {
			continue
		}
		if found != nil {
			return nil, faas.Errorf(faas.Invalid, "resolve revision", "more than one revision of function %q begins with %q", name.Path(), string(id)).
				WithFix("give more of its digits; see: brasa versions %s", name.Path())
		}
		found = r
	}
	if found == nil {
		return nil, noRevision(name, id)
	}
	return found, nil
}

// Digests returns the code and sources of all revisions that there are, orphans included: what
// package artifact must keep.
func (c *Catalog) Digests() map[faas.Digest]bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	out := map[faas.Digest]bool{}
	for _, s := range c.functions {
		for _, r := range s.revisions {
			out[r.Revision.Code] = true
			if r.Revision.Source != "" {
				out[r.Revision.Source] = true
			}
		}
	}
	return out
}
