package catalog

import (
	"context"
	"encoding/json"
	"maps"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

func packageKey(namespace, name string) string { return kindPackage + namespace + "/" + name }

// takePackage changes the copy of packages. The caller holds mu.
func (c *Catalog) takePackage(r store.Record) (Event, error) {
	return take(c.linked.packages, strings.TrimPrefix(r.Key, kindPackage), r, func(p *faas.Package) Event {
		return Event{Kind: PackageChanged, Namespace: p.Namespace, Package: p}
	}, func(p *faas.Package) Event {
		return Event{Kind: PackageDeleted, Namespace: p.Namespace, Package: p}
	})
}

// Packages returns the packages of a namespace, or with "" of all, in the order of their names.
// Folders that nobody made are not among them.
func (c *Catalog) Packages(namespace string) []*faas.Package {
	return listLinked(c, c.linked.packages, namespace, func(p *faas.Package) (string, string) { return p.Namespace, p.Name })
}

// Package returns the package of that name, or a NotFound.
func (c *Catalog) Package(namespace, name string) (*faas.Package, error) {
	if p := c.packageOf(namespace, name); p != nil {
		return p, nil
	}
	return nil, faas.Errorf(faas.NotFound, "look up package", "package %.80q does not exist in namespace %.80q", name, namespace)
}

func (c *Catalog) packageOf(namespace, name string) *faas.Package {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.linked.packages[namespace][name]
}

// PutPackage makes a package, or with replace changes one in place, which keeps its UID. One that
// exists is a Conflict without replace. A binding must be to a package that exists and is none itself.
// It fills in what is empty of UID, Created and Updated, and keeps p.
func (c *Catalog) PutPackage(ctx context.Context, p *faas.Package, replace bool) error {
	const op = "put package"
	if err := faas.ValidateName("package", p.Name); err != nil {
		return err
	}
	defer c.lock(p.Namespace)()
	if err := c.needNamespace(op, p.Namespace); err != nil {
		return err
	}
	if b := p.Binding; b != nil {
		to, err := c.Package(b.Namespace, b.Name)
		if err != nil {
			return err
		}
		if b.Namespace != p.Namespace && !to.Shared {
			return faas.Errorf(faas.Denied, op, "package %q of namespace %q is not shared", b.Name, b.Namespace)
		}
		if to.Binding != nil {
			return faas.Errorf(faas.Invalid, op, "package %q is a binding itself, and a binding is to a package that has functions", b.Name).
				WithFix("bind %s/%s", to.Binding.Namespace, to.Binding.Name)
		}
	}
	c.mu.RLock()
	was, count := c.linked.packages[p.Namespace][p.Name], len(c.linked.packages[p.Namespace])
	version := c.seen[packageKey(p.Namespace, p.Name)]
	c.mu.RUnlock()
	switch {
	case was != nil && !replace:
		return faas.Errorf(faas.Conflict, op, "package %q exists already", p.Name)
	case was == nil && count >= c.config.MaxPackages:
		return faas.Errorf(faas.Overloaded, op, "namespace %q has %d packages and may have no more than %d", p.Namespace, count, c.config.MaxPackages).
			WithLimit("packages_per_namespace").WithFix("delete one; the operator can raise quota.packages")
	}
	p.UID, p.Created, p.Updated = newUID(), time.Now().UTC(), time.Now().UTC()
	expect := store.Absent
	if was != nil {
		p.UID, p.Created, expect = was.UID, was.Created, version
	}
	return storeError(op, c.write(ctx, packageKey(p.Namespace, p.Name), p, expect))
}

// DeletePackage removes a package. The functions in it stay, without its parameters, if there are any:
// whoever wants them gone, or does not want this, looks before.
func (c *Catalog) DeletePackage(ctx context.Context, namespace, name string) error {
	defer c.lock(namespace)()
	if _, err := c.Package(namespace, name); err != nil {
		return err
	}
	return storeError("delete package", c.deleteDocument(ctx, packageKey(namespace, name)))
}

// provider returns the name of the function that name means: another one only if its package is a
// binding to one that it may use.
func (c *Catalog) provider(name faas.Name) faas.Name {
	if name.Package == "" {
		return name
	}
	p := c.packageOf(name.Namespace, name.Package)
	if p == nil || p.Binding == nil {
		return name
	}
	to := p.Binding
	if of := c.packageOf(to.Namespace, to.Name); of == nil || to.Namespace != name.Namespace && !of.Shared {
		return name
	}
	return faas.Name{Namespace: to.Namespace, Package: to.Name, Function: name.Function}
}

// Open says whether functions of a namespace may call what a name means: what is their own namespace's, and
// what others share.
func (c *Catalog) Open(from string, name faas.Name) bool {
	if name.Namespace == from {
		return true
	}
	p := c.packageOf(name.Namespace, name.Package)
	return p != nil && p.Shared
}

// Params returns what is put beneath the fields of an input of the function that was called by name:
// the parameters of the package, of the binding through which it was named, and of the revision, each
// over the ones before. nil: there are none. What it returns is shared and must not be changed.
func (c *Catalog) Params(name faas.Name, rev *faas.Revision) map[string]json.RawMessage {
	if name.Package == "" {
		return rev.Params
	}
	var all map[string]json.RawMessage
	with := func(p map[string]json.RawMessage) {
		switch {
		case len(p) == 0:
		case all == nil:
			all = p
		default:
			all = maps.Clone(all)
			maps.Copy(all, p)
		}
	}
	bound := c.packageOf(name.Namespace, name.Package)
	if bound != nil && bound.Binding != nil {
		if of := c.packageOf(bound.Binding.Namespace, bound.Binding.Name); of != nil {
			with(of.Params)
		}
	}
	if bound != nil {
		with(bound.Params)
	}
	with(rev.Params)
	return all
}
