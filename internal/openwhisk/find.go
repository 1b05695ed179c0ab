package openwhisk

import (
	"bytes"
	"context"
	"net/http"
	"strconv"

	"github.com/brasa-dev/brasa/internal/faas"
)

// action is one as it lies in the catalog.
type action struct {
	path   path // its own, that is, its provider's where it was named through a binding
	fn     *faas.Function
	rev    *faas.Revision
	record actionRecord // without the code, unless withCode was asked for
	// inherited are the parameters of the package that it was found in, those of a binding over those of
	// what it is bound to. Only findAction has them.
	inherited parameters
}

// shown is an action's record as clients see it.
func (a *action) shown() actionRecord {
	r := a.record
	r.NoCode = false
	return r
}

// pack is a package as it lies in the catalog.
type pack struct {
	namespace, name string        // as OpenWhisk's clients call them
	pkg             *faas.Package // nil: a folder that nobody made a package of
	record          packageRecord
	to              *pack // what it is bound to; nil: nothing
}

// holder is the package that has the actions.
func (p *pack) holder() *pack {
	if p.to != nil {
		return p.to
	}
	return p
}

// Kinds of entities that share names.
const (
	entityAction  = "action"
	entityPackage = "package"
	entityTrigger = "trigger"
	entityRule    = "rule"
)

// otherKind refuses a name that another kind of entity has.
func (s *Server) otherKind(p path, kind string) error {
	namespace, name := faas.NativeName(p.namespace), faas.NativeName(p.name)
	for _, e := range []struct {
		kind string
		find func() error
	}{
		{entityAction, func() error {
			if !s.cfg.Catalog.Has(faas.Name{Namespace: namespace, Function: name}) {
				return errNotFound
			}
			return nil
		}},
		{entityPackage, func() error { _, err := s.cfg.Catalog.Package(namespace, name); return err }},
		{entityTrigger, func() error { _, err := s.cfg.Catalog.Trigger(namespace, name); return err }},
		{entityRule, func() error { _, err := s.cfg.Catalog.Rule(namespace, name); return err }},
	} {
		if e.kind != kind && e.find() == nil {
			return reject(http.StatusConflict, "Resource by this name exists but is not in this collection: it is a kind of %s.", e.kind)
		}
	}
	return nil
}

// findPackage finds a package for a namespace own that asks. Another's must be shared and no binding, and
// whether there is one that is not is not told.
func (s *Server) findPackage(ctx context.Context, own, namespace, name string) (*pack, error) {
	if err := s.bring(ctx, namespace); err != nil {
		return nil, err
	}
	p, err := s.packageAt(namespace, name)
	if namespace != own && (err != nil || !p.record.Publish || p.record.Binding != nil) {
		return nil, errForbidden
	}
	if err != nil {
		if err == errNotFound {
			if other := s.otherKind(path{namespace: namespace, name: name}, entityPackage); other != nil {
				return nil, other
			}
		}
		return nil, err
	}
	b := p.pkg
	if b == nil || b.Binding == nil {
		return p, nil
	}
	if p.to, err = s.packageAt(p.record.Binding.Namespace, p.record.Binding.Name); err != nil {
		if err == errNotFound {
			return nil, reject(http.StatusNotFound, "Binding references a package that does not exist.")
		}
		return nil, err
	}
	if !p.to.record.Publish && p.to.namespace != namespace {
		return nil, errForbidden
	}
	return p, nil
}

// packageAt reads a package by its name, whoever asks.
func (s *Server) packageAt(namespace, name string) (*pack, error) {
	native := faas.NativeName(namespace)
	p := &pack{namespace: namespace, name: name}
	pkg, err := s.cfg.Catalog.Package(native, faas.NativeName(name))
	if faas.CodeOf(err) == faas.NotFound {
		if len(s.cfg.Catalog.FunctionsIn(native, faas.NativeName(name))) == 0 {
			return nil, errNotFound
		}
		p.record.header = header{Namespace: namespace, Name: name, Version: firstVersion}
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	p.pkg, p.record = pkg, s.packageRecord(namespace, pkg)
	return p, nil
}

// packageRecord is what is kept of a package; of one that was not made through this API it is made up.
func (s *Server) packageRecord(namespace string, pkg *faas.Package) packageRecord {
	var r packageRecord
	if !readOrigin(pkg.Origin, &r) || r.Name == "" {
		r = packageRecord{header: header{Name: pkg.Name, Version: firstVersion, Updated: pkg.Updated.UnixMilli()}, Parameters: argumentList(pkg.Params)}
	}
	if pkg.Binding != nil && r.Binding == nil {
		r.Binding = &packageName{s.cfg.Subjects.NamespaceName(pkg.Binding.Namespace), pkg.Binding.Name}
	}
	r.Namespace, r.Publish = namespace, pkg.Shared
	return r
}

// findAction finds an action for a namespace own that asks.
func (s *Server) findAction(ctx context.Context, own string, p path) (*action, error) {
	if p.pkg == "" {
		if p.namespace != own {
			return nil, errForbidden
		}
		a, err := s.actionAt(p)
		if err == errNotFound {
			if other := s.otherKind(p, entityAction); other != nil {
				return nil, other
			}
		}
		return a, err
	}
	pkg, err := s.findPackage(ctx, own, p.namespace, p.pkg)
	if err != nil {
		return nil, err
	}
	in := pkg.holder()
	a, err := s.actionAt(path{in.namespace, in.name, p.name})
	if err != nil {
		return nil, err
	}
	a.inherited = in.record.Parameters.with(pkg.record.Parameters, nil)
	return a, nil
}

// changesIn refuses a change of what is in a package if there is none, or if it is a binding, whatever
// that leads to.
func (s *Server) changesIn(p path) error {
	pkg, err := s.packageAt(p.namespace, p.pkg)
	switch {
	case err == errNotFound:
		if other := s.otherKind(path{namespace: p.namespace, name: p.pkg}, entityPackage); other != nil {
			return other
		}
		return err
	case err != nil:
		return err
	case pkg.record.Binding != nil:
		return reject(http.StatusBadRequest, "The package is a binding: its actions are made, changed and deleted in the package that it is bound to.")
	}
	return nil
}

// actionAt reads an action by its own name, whoever asks.
func (s *Server) actionAt(p path) (*action, error) {
	fn, rev, err := s.cfg.Catalog.Resolve(faas.Ref{Name: p.function()})
	if err != nil {
		if faas.CodeOf(err) == faas.NotFound {
			return nil, errNotFound
		}
		return nil, err
	}
	return &action{path: p, fn: fn, rev: rev, record: s.actionRecord(p.namespace, fn, rev)}, nil
}

// actionRecord is what is kept of an action; of a function that was not made through this API it is made
// up, as well as can be.
func (s *Server) actionRecord(namespace string, fn *faas.Function, rev *faas.Revision) actionRecord {
	var r actionRecord
	if readOrigin(rev.Origin, &r) && r.Name != "" {
		return r
	}
	r.header = header{Namespace: namespace, Name: fn.Name.Function, Version: "0.0." + strconv.Itoa(max(len(fn.Revisions), 1)), Updated: fn.Updated.UnixMilli()}
	if fn.Name.Package != "" {
		r.Namespace += "/" + s.packageName(fn.Name.Namespace, fn.Name.Package)
	}
	r.Parameters, r.Limits, r.Exec = argumentList(rev.Params), wireLimits(rev.Limits), s.nativeExec(rev)
	r.NoCode = r.Exec.Kind == kindSequence
	r.Annotations = parameters{{Key: "exec", Value: quoted(r.Exec.Kind)}, {Key: "provide-api-key", Value: quoted(false)}}
	return r
}

// packageName is what clients call a package of the catalog.
func (s *Server) packageName(namespace, name string) string {
	if pkg, err := s.cfg.Catalog.Package(namespace, name); err == nil {
		return s.packageRecord(namespace, pkg).Name
	}
	return name
}

// nativeExec is the exec of a function that was not made through this API: the default kind of its
// language, or blackbox.
func (s *Server) nativeExec(rev *faas.Revision) execution {
	if rev.Sequence != nil {
		e := execution{Kind: kindSequence}
		for _, step := range rev.Sequence.Steps {
			p := path{s.cfg.Subjects.NamespaceName(step.Namespace), "", step.Function}
			if fn, rev, err := s.cfg.Catalog.Resolve(faas.Ref{Name: step}); err == nil {
				p.name = s.actionRecord(p.namespace, fn, rev).Name
			}
			if step.Package != "" {
				p.pkg = s.packageName(step.Namespace, step.Package)
			}
			e.Components = append(e.Components, "/"+p.String())
		}
		return e
	}
	e := execution{Kind: kindBlackbox, Main: rev.Handler, Image: "brasa/" + rev.Runtime}
	if rev.Image != nil {
		e.Image = rev.Image.Reference
		return e
	}
	for _, k := range kinds {
		if k.Default && k.Language == rev.Runtime {
			e.Kind, e.Image = k.Name, ""
		}
	}
	return e
}

// packageEnvironment is what the parameters for initialization of a function's package put into the
// environment, those of a binding over those of what it is bound to. Unlike an action's own they come with
// each call, since they may change without it. A binding to another's package gives values to those that this
// has: whoever binds it decides about arguments, and not about how programs behave that its code starts.
func (s *Server) packageEnvironment(name faas.Name) map[string]string {
	if name.Package == "" {
		return nil
	}
	pkg, err := s.cfg.Catalog.Package(name.Namespace, name.Package)
	if err != nil {
		return nil
	}
	env := map[string]string{}
	if b := pkg.Binding; b != nil {
		if to, err := s.cfg.Catalog.Package(b.Namespace, b.Name); err == nil {
			env = environmentOf(to)
		}
	}
	foreign := pkg.Binding != nil && pkg.Binding.Namespace != name.Namespace
	for k, v := range environmentOf(pkg) {
		if _, has := env[k]; has || !foreign {
			env[k] = v
		}
	}
	return env
}

// environmentOf are a package's own parameters for initialization. It is asked for with each call: the record, which
// may have a megabyte of annotations, is read only where it may have such.
func environmentOf(pkg *faas.Package) map[string]string {
	var r packageRecord
	if pkg.Origin == nil || !bytes.Contains(pkg.Origin.Document, []byte(`"init":true`)) || !readOrigin(pkg.Origin, &r) {
		return map[string]string{}
	}
	return r.Parameters.environment()
}
