package openwhisk

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/brasa-dev/brasa/internal/faas"
)

// reservedPackage is what web actions call the place of actions without a package.
const reservedPackage = "default"

// packages answers what is asked of a namespace's packages.
func (s *Server) packages(c *call, namespace string) error {
	p, all, err := c.entity(namespace)
	if err != nil {
		return err
	}
	if all {
		return s.listPackages(c, namespace)
	}
	switch c.r.Method {
	case http.MethodGet:
		return s.getPackage(c, p)
	case http.MethodPut:
		return c.answer(s.putPackage(c, p))
	case http.MethodDelete:
		return c.answer(s.deletePackage(c, p))
	}
	return notAllowed("DELETE, GET, PUT")
}

// packageAnswer is a package as clients see it.
type packageAnswer struct {
	header
	Parameters parameters       `json:"parameters"`
	Binding    any              `json:"binding"` // packageName, or an empty object
	Actions    *[]packageAction `json:"actions,omitempty"`
	Feeds      *[]packageAction `json:"feeds,omitempty"`
}

// packageAction is an action as its package shows it.
type packageAction struct {
	Name        string     `json:"name"`
	Version     string     `json:"version"`
	Annotations parameters `json:"annotations"`
	Updated     int64      `json:"updated"`
}

func answerOf(r *packageRecord) *packageAnswer {
	a := &packageAnswer{header: r.header, Parameters: r.Parameters, Binding: struct{}{}}
	if r.Binding != nil {
		a.Binding = r.Binding
	}
	return a
}

func (s *Server) getPackage(c *call, p path) error {
	pkg, err := s.findPackage(c.ctx, c.who.Namespace, p.namespace, p.name)
	if err != nil {
		return err
	}
	in := pkg.holder()
	if s.cfg.Sealed && (p.namespace != c.who.Namespace || in.namespace != c.who.Namespace) {
		return errForbidden
	}
	a := answerOf(&pkg.record)
	if pkg.to != nil {
		a.Parameters = in.record.Parameters.with(pkg.record.Parameters, nil)
	}
	actions, feeds := []packageAction{}, []packageAction{}
	for _, r := range s.actionsIn(in) {
		item := packageAction{r.Name, r.Version, r.Annotations, r.Updated}
		if r.Annotations.truthy("feed") {
			feeds = append(feeds, item)
		} else {
			actions = append(actions, item)
		}
	}
	a.Actions, a.Feeds = &actions, &feeds
	writeJSON(c.w, http.StatusOK, a)
	return nil
}

// actionsIn are the records of a package's actions, the newest first.
func (s *Server) actionsIn(p *pack) []actionRecord {
	return s.recordsOf(p.namespace, s.cfg.Catalog.FunctionsIn(faas.NativeName(p.namespace), faas.NativeName(p.name)))
}

// packagePut is what clients send to make or change a package.
type packagePut struct {
	Binding     *packageName `json:"binding"`
	Version     *string      `json:"version"`
	Publish     *bool        `json:"publish"`
	Annotations *parameters  `json:"annotations"`
	Parameters  *parameters  `json:"parameters"`
}

func (s *Server) putPackage(c *call, p path) (any, error) {
	if p.namespace != c.who.Namespace {
		return nil, errForbidden
	}
	overwrite, err := flag(c, "overwrite")
	if err != nil {
		return nil, err
	}
	var in packagePut
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if p.name == reservedPackage {
		return nil, reject(http.StatusBadRequest, "Package name '%s' is reserved.", p.name)
	}
	if err := s.checkSizes(in.Parameters, in.Annotations); err != nil {
		return nil, err
	}
	if b := in.Binding; b != nil && (b.Name != "" || b.Namespace != "") {
		if b.Namespace == "_" || b.Namespace == "" {
			b.Namespace = c.who.Namespace
		}
		if !validName(b.Namespace) || !validName(b.Name) {
			return nil, reject(http.StatusBadRequest, "The request content was malformed: the binding's namespace or name is not valid.")
		}
	} else {
		in.Binding = nil // clients send an empty one for none
	}
	defer s.locks.lock(p)()
	if err := s.otherKind(p, entityPackage); err != nil {
		return nil, err
	}
	was, err := s.packageAt(p.namespace, p.name)
	switch {
	case err == nil && was.pkg != nil && !overwrite:
		return nil, errExists
	case err != nil && err != errNotFound:
		return nil, err
	case err == errNotFound:
		was = &pack{namespace: p.namespace, name: p.name}
	}
	if in.Binding != nil {
		if was.pkg != nil && was.pkg.Binding == nil || was.pkg == nil && err == nil {
			return nil, reject(http.StatusConflict, "Resource is a package and cannot be converted into a binding.")
		}
		if err := s.checkBinding(c.ctx, p, in.Binding); err != nil {
			return nil, err
		}
	}
	r, err := s.changePackage(c.ctx, p, was, &in)
	if err != nil {
		return nil, err
	}
	return answerOf(r), nil
}

// checkBinding says what is wrong with what a package is to be bound to.
func (s *Server) checkBinding(ctx context.Context, p path, b *packageName) error {
	if b.Namespace == p.namespace && b.Name == p.name {
		return reject(http.StatusBadRequest, "Cannot bind to another package binding.")
	}
	if err := s.bring(ctx, b.Namespace); err != nil {
		return err
	}
	to, err := s.packageAt(b.Namespace, b.Name)
	own := b.Namespace == p.namespace
	switch {
	case err == errNotFound && !own, err == nil && !own && !to.record.Publish:
		return errForbidden
	case err == errNotFound:
		if other := s.otherKind(path{namespace: b.Namespace, name: b.Name}, entityPackage); other != nil {
			return other
		}
		return reject(http.StatusBadRequest, "Binding references a package that does not exist.")
	case err != nil:
		return err
	case to.pkg == nil:
		return reject(http.StatusBadRequest, "Binding references a folder of functions that is no package yet: make it one first.")
	case to.pkg.Binding != nil:
		return reject(http.StatusBadRequest, "Cannot bind to another package binding.")
	}
	return nil
}

// changePackage makes a package, or changes was.
func (s *Server) changePackage(ctx context.Context, p path, was *pack, in *packagePut) (*packageRecord, error) {
	before := was.record
	r := &packageRecord{header: before.header, Parameters: before.Parameters, Binding: before.Binding, System: before.System}
	r.Namespace, r.Name, r.Updated = p.namespace, p.name, s.touch(before.Updated)
	if was.pkg == nil {
		r.header = header{Namespace: p.namespace, Name: p.name, Updated: r.Updated}
	}
	var err error
	if r.Version, err = nextVersion(r.Version, in.Version); err != nil {
		return nil, err
	}
	if in.Publish != nil {
		r.Publish = *in.Publish
	}
	if in.Annotations != nil {
		r.Annotations = in.Annotations.with(nil, []string{"binding"}) // which tells what it is bound to
	}
	if in.Parameters != nil {
		r.Parameters = *in.Parameters
	}
	if err := checkEnvironment(r.Parameters.environment()); err != nil {
		return nil, err
	}
	pkg := &faas.Package{Namespace: faas.NativeName(p.namespace), Name: faas.NativeName(p.name), Shared: r.Publish, Params: r.Parameters.arguments()}
	if in.Binding != nil {
		r.Binding = in.Binding
	}
	if b := r.Binding; b != nil {
		pkg.Binding = &faas.PackageRef{Namespace: faas.NativeName(b.Namespace), Name: faas.NativeName(b.Name)}
		value, err := json.Marshal(b)
		if err != nil {
			return nil, err
		}
		r.Annotations = r.Annotations.with(parameters{{Key: "binding", Value: value}}, nil)
	}
	if pkg.Origin, err = origin(r); err != nil {
		return nil, err
	}
	return r, s.cfg.Catalog.PutPackage(ctx, pkg, was.pkg != nil)
}

func (s *Server) deletePackage(c *call, p path) (any, error) {
	if p.namespace != c.who.Namespace {
		return nil, errForbidden
	}
	force, err := flag(c, "force")
	if err != nil {
		return nil, err
	}
	defer s.locks.lock(p)()
	pkg, err := s.packageAt(p.namespace, p.name)
	if err == errNotFound {
		if other := s.otherKind(p, entityPackage); other != nil {
			return nil, other
		}
	}
	if err != nil {
		return nil, err
	}
	inside := s.cfg.Catalog.FunctionsIn(faas.NativeName(p.namespace), faas.NativeName(p.name))
	if len(inside) > 0 && !force {
		return nil, reject(http.StatusConflict, "Package not empty (contains %d %s). Set force param or delete package contents.", len(inside), plural(len(inside), "entity", "entities"))
	}
	for _, fn := range inside {
		if err := s.cfg.Catalog.Delete(c.ctx, fn.Name); err != nil && faas.CodeOf(err) != faas.NotFound {
			return nil, err
		}
	}
	if pkg.pkg != nil {
		if err := s.cfg.Catalog.DeletePackage(c.ctx, pkg.pkg.Namespace, pkg.pkg.Name); err != nil {
			return nil, err
		}
	}
	return answerOf(&pkg.record), nil
}

func plural(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}

// listPackages answers a namespace's packages: one's own all, another's those that it shares.
func (s *Server) listPackages(c *call, namespace string) error {
	native := faas.NativeName(namespace)
	if err := s.bring(c.ctx, namespace); err != nil {
		return err
	}
	type summary struct {
		header
		Binding any `json:"binding"` // packageName, or false
	}
	var all []summary
	for _, pkg := range s.cfg.Catalog.Packages(native) {
		if namespace != c.who.Namespace && (!pkg.Shared || pkg.Binding != nil) {
			continue
		}
		r := s.packageRecord(namespace, pkg)
		item := summary{header: r.header, Binding: false}
		if r.Binding != nil {
			item.Binding = r.Binding
		}
		all = append(all, item)
	}
	slices.SortStableFunc(all, func(a, b summary) int { return newest(&a.header, &b.header) })
	return answerList(c, "packages", all)
}
