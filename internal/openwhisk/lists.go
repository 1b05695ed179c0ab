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

func summaries(records []actionRecord) []actionSummary {
	out := make([]actionSummary, 0, len(records))
	for _, r := range records {
		item := actionSummary{header: r.header, Limits: r.Limits}
		item.Exec.Binary = r.Exec.Binary
		out = append(out, item)
	}
	return out
}

// listActions answers all actions of a namespace, those of its packages too.
func (s *Server) listActions(c *call, namespace string) error {
	if namespace != c.who.Namespace {
		return errForbidden
	}
	return answerList(c, "actions", summaries(s.recordsOf(namespace, s.cfg.Catalog.Functions(faas.NativeName(namespace)))))
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
	if in := pkg.holder(); s.cfg.Sealed && in.namespace != c.who.Namespace {
		return errForbidden
	}
	return answerList(c, "actions", summaries(s.actionsIn(pkg.holder())))
}
