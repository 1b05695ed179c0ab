package openwhisk

import (
	"encoding/json"
	"net/http"
	"slices"

	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/faas"
)

// target is an action that is to be called, as somebody named it.
type target struct {
	path path // as it was named, with the namespace written out
	rev  *faas.Revision
	meta meta
	// binding is what it was named through, as "ns/name"; empty: nothing.
	binding string
}

// meta is what calls need of an action's record.
type meta struct {
	Namespace   string          `json:"namespace"` // with the package
	Name        string          `json:"name"`
	Version     string          `json:"version"`
	Annotations []keyValue      `json:"annotations"`
	Limits      json.RawMessage `json:"limits"`
	Parameters  parameters      `json:"parameters"` // those for initialization alone
	Exec        struct {
		Kind string `json:"kind"`
	} `json:"exec"`
}

// annotation returns the value of an annotation; nil if there is none.
func (m *meta) annotation(key string) any {
	for _, a := range m.Annotations {
		if a.Key == key {
			return a.Value
		}
	}
	return nil
}

// truthy says whether an annotation has a value that counts as true.
func (m *meta) truthy(key string) bool { return truthy(m.annotation(key)) }

// metaOf reads an action's origin. Of a function that was not made through this API it is made up.
func metaOf(rev *faas.Revision) meta {
	var m meta
	if rev.Origin != nil && rev.Origin.Dialect == dialect && json.Unmarshal(rev.Origin.Document, &m) == nil && m.Name != "" {
		m.Parameters = slices.DeleteFunc(m.Parameters, func(p parameter) bool { return !p.Init })
		return m
	}
	m.Namespace, m.Name, m.Version, m.Exec.Kind = rev.Name.Namespace, rev.Name.Function, "0.0.1", rev.Runtime
	if rev.Name.Package != "" {
		m.Namespace += "/" + rev.Name.Package
	}
	return m
}

// maxMetas bounds the actions whose origin is kept as it was read.
const maxMetas = 4096

// metaOf is metaOf for what is called often: an origin may have a megabyte of annotations.
func (s *Server) metaOf(rev *faas.Revision) meta {
	if m, ok := s.metas.Load(rev.ID); ok {
		return m.(meta)
	}
	m := metaOf(rev)
	if rev.ID == "" {
		return m
	}
	if s.metaCount.Add(1) > maxMetas {
		s.metas.Clear()
		s.metaCount.Store(1)
	}
	s.metas.Store(rev.ID, m)
	return m
}

const dialect = faas.ContractOpenWhisk

// resolve finds an action for who asks. What belongs to another namespace must be in a shared package.
func (s *Server) resolve(who auth.Subject, p path) (*target, error) {
	name := p.function()
	own := p.namespace == who.Namespace
	if !own {
		if p.pkg == "" {
			return nil, errForbidden
		}
		if pkg, err := s.cfg.Catalog.Package(name.Namespace, name.Package); err != nil || !pkg.Shared || pkg.Binding != nil {
			return nil, errForbidden // whether or not there is one
		}
	}
	t := &target{path: p}
	if p.pkg != "" {
		if pkg, err := s.cfg.Catalog.Package(name.Namespace, name.Package); err == nil && pkg.Binding != nil {
			t.binding = p.namespace + "/" + p.pkg
			to, err := s.cfg.Catalog.Package(pkg.Binding.Namespace, pkg.Binding.Name)
			if err != nil {
				return nil, errNotFound
			}
			if !to.Shared && pkg.Binding.Namespace != name.Namespace {
				return nil, errForbidden
			}
		}
	}
	_, rev, err := s.cfg.Catalog.Resolve(faas.Ref{Name: name})
	if err != nil {
		if faas.CodeOf(err) == faas.NotFound {
			return nil, errNotFound
		}
		return nil, err
	}
	t.rev, t.meta = rev, s.metaOf(rev)
	if k, ok := findKind(t.meta.Exec.Kind); ok && k.Deprecated {
		return nil, reject(http.StatusBadRequest, "The kind %s is deprecated: an action of it can be read and deleted, and neither made nor called.", k.Name)
	}
	return t, nil
}

// mayCallSteps refuses the call of a sequence to who may not call what it is made of. What is missing of
// that is its outcome.
func (s *Server) mayCallSteps(who auth.Subject, t *target) error {
	if t.rev.Sequence == nil {
		return nil
	}
	for _, step := range t.rev.Sequence.Steps {
		own := faas.NativeName(who.Namespace) == step.Namespace
		if step.Package == "" {
			if !own {
				return errForbidden
			}
			continue
		}
		pkg, err := s.cfg.Catalog.Package(step.Namespace, step.Package)
		if !own && (err != nil || !pkg.Shared || pkg.Binding != nil) {
			return errForbidden
		}
		if err != nil || pkg.Binding == nil || pkg.Binding.Namespace == step.Namespace {
			continue
		}
		if to, err := s.cfg.Catalog.Package(pkg.Binding.Namespace, pkg.Binding.Name); err == nil && !to.Shared {
			return errForbidden
		}
	}
	return nil
}
