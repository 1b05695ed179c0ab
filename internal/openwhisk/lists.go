package openwhisk

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

// newest orders entities: what changed last comes first.
func newest(a, b *header) int {
	return cmp.Or(cmp.Compare(b.Updated, a.Updated), strings.Compare(a.Name, b.Name))
}

// answerList answers the part of a list that was asked for, or its length under the collection's name.
func answerList[T any](c *call, collection string, all []T) error {
	limit, skip, count, err := paging(c)
	if err != nil {
		return err
	}
	all = all[min(skip, len(all)):]
	if count {
		writeJSON(c.w, http.StatusOK, map[string]int{collection: len(all)})
		return nil
	}
	out := make([]T, 0, min(limit, len(all)))
	writeJSON(c.w, http.StatusOK, append(out, all[:min(limit, len(all))]...))
	return nil
}

// recordsOf are the records of functions, the newest first.
func (s *Server) recordsOf(namespace string, fns []*faas.Function) []actionRecord {
	var out []actionRecord
	for _, fn := range fns {
		_, rev, err := s.cfg.Catalog.Resolve(faas.Ref{Name: fn.Name})
		if err != nil {
			continue // it was deleted in the meantime
		}
		out = append(out, s.actionRecord(namespace, fn, rev))
	}
	slices.SortStableFunc(out, func(a, b actionRecord) int { return newest(&a.header, &b.header) })
	return out
}

// answerActions answers the part of a list of actions that was asked for. find finds the newest of them, and
// how many there are: no others are read.
func (s *Server) answerActions(c *call, namespace string, find func(skip, most int) ([]*faas.Function, int)) error {
	limit, skip, count, err := paging(c)
	if err != nil {
		return err
	}
	if count {
		_, total := find(0, 0)
		writeJSON(c.w, http.StatusOK, map[string]int{"actions": max(total-skip, 0)})
		return nil
	}
	fns, _ := find(skip, limit)
	out := make([]actionSummary, 0, len(fns))
	for _, r := range s.recordsOf(namespace, fns) {
		item := actionSummary{header: r.header, Limits: r.Limits}
		item.Exec.Binary = r.Exec.Binary
		out = append(out, item)
	}
	writeJSON(c.w, http.StatusOK, out)
	return nil
}

// listActions answers all actions of a namespace, those of its packages too.
func (s *Server) listActions(c *call, namespace string) error {
	if namespace != c.who.Namespace {
		return errForbidden
	}
	return s.answerActions(c, namespace, func(skip, most int) ([]*faas.Function, int) {
		return s.cfg.Catalog.Newest(faas.NativeName(namespace), skip, most)
	})
}

// listPackage answers the actions of a package, or of the one that it is bound to.
func (s *Server) listPackage(c *call, namespace, name string) error {
	if !validName(name) {
		return checkNames(path{namespace: namespace, name: name})
	}
	pkg, err := s.findPackage(c.ctx, c.who.Namespace, namespace, name)
	if err != nil {
		return err
	}
	in := pkg.holder()
	if s.cfg.Sealed && in.namespace != c.who.Namespace {
		return errForbidden
	}
	return s.answerActions(c, in.namespace, func(skip, most int) ([]*faas.Function, int) {
		return s.cfg.Catalog.NewestIn(faas.NativeName(in.namespace), faas.NativeName(in.name), skip, most)
	})
}
