package catalog

import (
	"cmp"
	"iter"
	"math"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Resolve returns the function that ref names, and the revision that it pins, else the active
// one. A function of a package that is a binding is the one of the package that it is bound to. It takes no lock, touches no disk, and allocates nothing unless it fails or the function
// has been idle for some time.
func (c *Catalog) Resolve(ref faas.Ref) (*faas.Function, *faas.Revision, error) {
	v := c.view(ref.Name)
	if v == nil {
		if to := c.provider(ref.Name); to != ref.Name {
			return c.Resolve(faas.Ref{Name: to, Revision: ref.Revision})
		}
		return nil, nil, c.noFunction(ref.Name)
	}
	rev := v.current()
	if ref.Revision != "" && ref.Revision != v.function.Active {
		if rev = v.revision(ref.Revision); rev == nil {
			return nil, nil, noRevision(ref.Name, ref.Revision)
		}
	}
	if rev == nil {
		return nil, nil, faas.Errorf(faas.Unavailable, "resolve function", "the active revision %s of function %q is missing from the catalog", v.function.Active.Short(), ref.Name.Path()).
			WithFix("deploy it again with: brasa deploy %s", ref.Name.Path())
	}
	return &v.function, rev, nil
}

// view returns what a name resolves to; nil if there is no such function.
func (c *Catalog) view(name faas.Name) *view {
	e := c.entry(name)
	if e == nil {
		return nil
	}
	return e.view()
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
	for e := range c.functions(name.Namespace) {
		if n++; n > most {
			break
		}
		n := len(e.name)
		if e.space.pkg != "" {
			n += len(e.space.pkg) + len("/")
		}
		if n < len(want)-1 || n > len(want)+1 {
			continue
		}
		if other := e.fullName(); oneSlip(strings.ToLower(other.Path()), want) {
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

// Functions returns the functions of a namespace in the order of their names.
func (c *Catalog) Functions(namespace string) []*faas.Function {
	var out []*faas.Function
	for e := range c.functions(namespace) {
		if p := e.packed.Load(); p.live() {
			out = append(out, p.function(e.fullName()))
		}
	}
	slices.SortFunc(out, func(a, b *faas.Function) int { return strings.Compare(a.Name.Path(), b.Name.Path()) })
	return out
}

// FunctionsIn returns the functions of one package of a namespace, or with "" those without one, in the order
// of their names.
func (c *Catalog) FunctionsIn(namespace, pkg string) []*faas.Function {
	s := (*c.index.Load())[place{namespace, pkg}]
	if s == nil {
		return nil
	}
	var out []*faas.Function
	for e := range s.entries() {
		if p := e.packed.Load(); p.live() {
			out = append(out, p.function(e.fullName()))
		}
	}
	slices.SortFunc(out, func(a, b *faas.Function) int { return strings.Compare(a.Name.Function, b.Name.Function) })
	return out
}

// Newest returns which functions of a namespace have the newest active revisions, the newest first: most of
// them, after the first skip. total is how many functions there are.
func (c *Catalog) Newest(namespace string, skip, most int) (fns []*faas.Function, total int) {
	return newest(c.functions(namespace), skip, most)
}

// NewestIn is Newest of one package, or with "" of what is in none.
func (c *Catalog) NewestIn(namespace, pkg string, skip, most int) (fns []*faas.Function, total int) {
	s := (*c.index.Load())[place{namespace, pkg}]
	if s == nil {
		return nil, 0
	}
	return newest(s.entries(), skip, most)
}

// aged is an entry that may be among the newest.
type aged struct {
	created int64 // its active revision
	entry   *entry
}

func (a aged) compare(b aged) int {
	if n := cmp.Compare(b.created, a.created); n != 0 {
		return n
	}
	return cmp.Or(strings.Compare(a.entry.name, b.entry.name), strings.Compare(a.entry.space.pkg, b.entry.space.pkg))
}

// newest unpacks only what it returns, and sorts little more: there may be a hundred thousand.
func newest(entries iter.Seq[*entry], skip, most int) (fns []*faas.Function, total int) {
	keep := skip + min(most, math.MaxInt-skip)
	slack := max(keep, 1000) // how many are sorted along, so as not to sort for each
	var all []aged
	oldest := int64(math.MinInt64) // of those that are kept, once they are enough
	for e := range entries {
		p := e.packed.Load()
		if !p.live() {
			continue
		}
		total++
		a := aged{p.updated, e}
		if p.active >= 0 {
			a.created = p.revisions[p.active].created
		}
		if most == 0 || a.created < oldest {
			continue
		}
		if all = append(all, a); len(all)-slack > keep {
			slices.SortFunc(all, aged.compare)
			all = all[:keep]
			oldest = all[keep-1].created
		}
	}
	slices.SortFunc(all, aged.compare)
	for _, a := range all[min(skip, len(all)):min(keep, len(all))] {
		if p := a.entry.packed.Load(); p.live() {
			fns = append(fns, p.function(a.entry.fullName()))
		}
	}
	return fns, total
}

// countFunctions returns how many functions a namespace has.
func (c *Catalog) countFunctions(namespace string) int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.live[namespace]
}

// Has says whether there is a function of exactly that name.
func (c *Catalog) Has(name faas.Name) bool {
	e := c.entry(name)
	return e != nil && e.packed.Load().live()
}

// Function returns the function of that name, or a NotFound.
func (c *Catalog) Function(name faas.Name) (*faas.Function, error) {
	if v := c.view(name); v != nil {
		return &v.function, nil
	}
	return nil, c.noFunction(name)
}

// Revisions returns the revisions of a function that are kept, newest first.
func (c *Catalog) Revisions(name faas.Name) ([]*faas.Revision, error) {
	v := c.view(name)
	if v == nil {
		return nil, c.noFunction(name)
	}
	return slices.Clone(v.revisions()), nil
}

// Revision returns one revision of a function. id may be shortened to its first digits, at least
// four, as long as one revision only begins with them.
func (c *Catalog) Revision(name faas.Name, id faas.RevisionID) (*faas.Revision, error) {
	v := c.view(name)
	if v == nil {
		return nil, c.noFunction(name)
	}
	if r := v.revision(id); r != nil {
		return r, nil
	}
	var found *faas.Revision
	for _, r := range v.revisions() {
		if len(id) < 4 || !strings.HasPrefix(string(r.ID), string(id)) {
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

// Digests returns the code, sources, layers and images of all revisions that there are, orphans
// included: what package artifact must keep.
func (c *Catalog) Digests() map[faas.Digest]bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	out := map[faas.Digest]bool{}
	for _, s := range *c.index.Load() {
		for e := range s.entries() {
			p := e.packed.Load()
			for i := range p.revisions {
				p.revisions[i].digests(func(d faas.Digest) { out[d] = true })
			}
		}
	}
	return out
}
