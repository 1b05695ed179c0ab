package catalog

import (
	"iter"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/brasa-dev/brasa/internal/faas"
)

// index maps namespaces and packages to their functions. It is never changed after it is
// published; a new package costs a copy.
type index map[place]*space

type place struct{ namespace, pkg string }

// space holds the functions of one package of a namespace, those without a package in one of
// their own.
type space struct {
	place
	names atomic.Pointer[names]
	dead  int // guarded by Catalog.mu; entries under which nothing is known any more
}

// names maps functions' names to their entries. Neither map is changed after it is published,
// save while the catalog is loading. A new name is put into a copy of young, which is small, and
// now and then all go into a new map together: so a name costs a copy of the square root of the
// others and not of all.
type names struct{ old, young map[string]*entry }

// entry is what is known under a name.
type entry struct {
	space  *space
	name   string
	packed atomic.Pointer[packed] // never nil; changed under Catalog.mu
	shown  atomic.Pointer[shown]
}

// shown is an unpacked view for as long as somebody uses it or the collector has not passed.
type shown struct {
	of   *packed
	view weak.Pointer[view]
}

// view is a function unpacked, with its active revision. It is never changed. What is found
// through it keeps it whole: an instance that holds the revision saves its next call the
// unpacking.
type view struct {
	function faas.Function
	active   faas.Revision // empty: its document is missing
	of       *packed
	once     sync.Once
	kept     []*faas.Revision // all that are listed and known, newest first; made once
}

func (e *entry) fullName() faas.Name {
	return faas.Name{Namespace: e.space.namespace, Package: e.space.pkg, Function: e.name}
}

// view returns the entry unpacked; nil if there is no live function.
func (e *entry) view() *view {
	p := e.packed.Load()
	if s := e.shown.Load(); s != nil && s.of == p {
		if v := s.view.Value(); v != nil {
			return v
		}
	}
	if !p.live() {
		return nil
	}
	name := e.fullName()
	v := &view{function: *p.function(name), of: p}
	if p.active >= 0 {
		p.revisions[p.active].unpack(&v.active, name)
	}
	// Of several who meet here each has a view that is right; the last one's is kept.
	e.shown.Store(&shown{of: p, view: weak.Make(v)})
	return v
}

// current returns the active revision; nil if its document is missing.
func (v *view) current() *faas.Revision {
	if v.active.ID == "" {
		return nil
	}
	return &v.active
}

// revisions returns those that are kept, newest first.
func (v *view) revisions() []*faas.Revision {
	v.once.Do(func() {
		for i := range v.of.listed {
			r := &v.of.revisions[i]
			switch {
			case i == v.of.active && v.active.ID != "":
				v.kept = append(v.kept, &v.active)
			case r.version != 0:
				rev := &faas.Revision{}
				if r.unpack(rev, v.function.Name); rev.ID != "" {
					v.kept = append(v.kept, rev)
				}
			}
		}
	})
	return v.kept
}

// revision returns the one with exactly this id, or nil.
func (v *view) revision(id faas.RevisionID) *faas.Revision {
	for _, r := range v.revisions() {
		if r.ID == id {
			return r
		}
	}
	return nil
}

// entry returns what is known under a name, or nil. It takes no lock.
func (c *Catalog) entry(name faas.Name) *entry {
	s := (*c.index.Load())[place{name.Namespace, name.Package}]
	if s == nil {
		return nil
	}
	return s.names.Load().get(name.Function)
}

func (n *names) get(name string) *entry {
	if e := n.young[name]; e != nil {
		return e
	}
	return n.old[name]
}

// packed returns what is known under a name, empty if nothing is.
func (c *Catalog) packed(name faas.Name) *packed {
	if e := c.entry(name); e != nil {
		return e.packed.Load()
	}
	return nothing
}

// show publishes what is known under a name. The caller holds mu.
func (c *Catalog) show(name faas.Name, p *packed) *entry {
	e := c.entry(name)
	if e == nil {
		if p == nothing {
			return nil
		}
		e = c.add(name)
	}
	was := e.packed.Swap(p)
	e.shown.Store(nil)
	switch {
	case !was.live() && p.live():
		c.live[e.space.namespace]++
	case was.live() && !p.live():
		if c.live[e.space.namespace]--; c.live[e.space.namespace] == 0 {
			delete(c.live, e.space.namespace)
		}
	}
	switch {
	case was == nothing && p != nothing:
		e.space.dead--
	case was != nothing && p == nothing:
		e.space.dead++
		e.space.tidy()
	}
	return e
}

// add makes room for a name. The caller holds mu.
func (c *Catalog) add(name faas.Name) *entry {
	at := place{name.Namespace, name.Package}
	s := (*c.index.Load())[at]
	if s == nil {
		at = place{strings.Clone(at.namespace), strings.Clone(at.pkg)}
		s = &space{place: at}
		s.names.Store(&names{old: map[string]*entry{}})
		next := make(index, len(*c.index.Load())+1)
		for at, s := range *c.index.Load() {
			if n := s.names.Load(); len(n.old)+len(n.young) > 0 { // else its namespace is gone
				next[at] = s
			}
		}
		next[at] = s
		c.index.Store(&next)
	}
	e := &entry{space: s, name: strings.Clone(name.Function)} // it was a part of a long key
	e.packed.Store(nothing)
	s.dead++
	n := s.names.Load()
	switch {
	case c.loading:
		n.old[e.name] = e // nobody reads it yet
	case len(n.young)*len(n.young) > len(n.old)+64:
		s.merge(e)
	default:
		young := make(map[string]*entry, len(n.young)+1)
		maps.Copy(young, n.young)
		young[e.name] = e
		s.names.Store(&names{old: n.old, young: young})
	}
	return e
}

// tidy drops dead entries once they are many. The caller holds Catalog.mu.
func (s *space) tidy() {
	if n := s.names.Load(); s.dead > 16+(len(n.old)+len(n.young))/4 || s.dead >= len(n.old)+len(n.young) {
		s.merge(nil)
	}
}

// merge makes one map of both, without what is dead, and with more if that is not nil. The caller
// holds Catalog.mu.
func (s *space) merge(more *entry) {
	n := s.names.Load()
	all := make(map[string]*entry, len(n.old)+len(n.young)+1-s.dead)
	for _, m := range []map[string]*entry{n.old, n.young} {
		for name, e := range m {
			if e.packed.Load() != nothing {
				all[name] = e
			}
		}
	}
	s.dead = 0
	if more != nil {
		all[more.name] = more
		s.dead = 1 // until it is shown
	}
	s.names.Store(&names{old: all})
}

// entries goes through all under which something is known.
func (s *space) entries() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		n := s.names.Load()
		for _, m := range []map[string]*entry{n.old, n.young} {
			for _, e := range m {
				if e.packed.Load() != nothing && !yield(e) {
					return
				}
			}
		}
	}
}

// functions goes through the live functions of a namespace, in no order.
func (c *Catalog) functions(namespace string) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for at, s := range *c.index.Load() {
			if at.namespace != namespace {
				continue
			}
			for e := range s.entries() {
				if e.packed.Load().live() && !yield(e) {
					return
				}
			}
		}
	}
}
