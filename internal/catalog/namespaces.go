package catalog

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// Namespace is an owner of names, quota and secrets.
type Namespace struct {
	Name    string    `json:"name"`
	UID     string    `json:"uid"` // made at creation; a namespace deleted and made again has another
	Created time.Time `json:"created"`
}

// Namespaces returns all namespaces in the order of their names.
func (c *Catalog) Namespaces() []*Namespace {
	c.mu.RLock()
	defer c.mu.RUnlock()
	out := make([]*Namespace, 0, len(c.namespaces))
	for _, ns := range c.namespaces {
		out = append(out, ns)
	}
	slices.SortFunc(out, func(a, b *Namespace) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Namespace returns the namespace of that name, or a NotFound.
func (c *Catalog) Namespace(name string) (*Namespace, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if ns := c.namespaces[name]; ns != nil {
		return ns, nil
	}
	return nil, faas.Errorf(faas.NotFound, "look up namespace", "namespace %.80q does not exist", name).
		WithFix("an admin makes it with: brasa namespace create %.80s", name)
}

func (c *Catalog) needNamespace(op, name string) error {
	_, err := c.Namespace(name)
	if e, ok := errors.AsType[*faas.Error](err); ok {
		e.Op = op
	}
	return err
}

// CreateNamespace makes a namespace; one that exists is a Conflict.
func (c *Catalog) CreateNamespace(ctx context.Context, name string) (*Namespace, error) {
	const op = "create namespace"
	if err := faas.ValidateName("namespace", name); err != nil {
		return nil, err
	}
	c.mu.RLock()
	n := len(c.namespaces)
	c.mu.RUnlock()
	if n >= c.config.MaxNamespaces {
		return nil, faas.Errorf(faas.Overloaded, op, "there are %d namespaces and there may be no more than %d", n, c.config.MaxNamespaces).WithLimit("namespaces").
			WithFix("delete one with: brasa namespace rm NAME; the operator can raise quota.namespaces")
	}
	return c.createNamespace(ctx, name)
}

func (c *Catalog) createNamespace(ctx context.Context, name string) (*Namespace, error) {
	const op = "create namespace"
	defer c.lock(name)()
	ns := &Namespace{Name: name, UID: newUID(), Created: time.Now()}
	err := c.write(ctx, kindNamespace+name, ns, store.Absent)
	if errors.Is(err, store.ErrConflict) {
		return nil, faas.Errorf(faas.Conflict, op, "namespace %q exists already", name)
	}
	if err != nil {
		return nil, storeError(op, err)
	}
	return ns, nil
}

// DeleteNamespace removes a namespace with its triggers, rules and secrets. One that still has functions is a
// Conflict, as is the default one.
func (c *Catalog) DeleteNamespace(ctx context.Context, name string) error {
	const op = "delete namespace"
	if name == DefaultNamespace {
		return faas.Errorf(faas.Conflict, op, "the namespace %q cannot be deleted", name)
	}
	defer c.lock(name)()
	if err := c.needNamespace(op, name); err != nil {
		return err
	}
	if fns := c.Functions(name); len(fns) > 0 {
		return faas.Errorf(faas.Conflict, op, "namespace %q still has functions, %q among them", name, fns[0].Name.Path()).
			WithFix("delete them first with: brasa rm -n %s NAME", name)
	}
	if err := c.deleteLinked(ctx, name); err != nil {
		return storeError(op, err)
	}
	// Secrets go before their key and the namespace goes last: a crash leaves a namespace with
	// fewer secrets, which can be deleted again.
	for _, s := range c.Secrets(name) {
		if err := c.deleteSecret(ctx, name, s.Name); err != nil {
			return err
		}
	}
	fault("delete namespace: secrets deleted")
	if err := c.deleteDataKey(ctx, name); err != nil {
		return storeError(op, err)
	}
	return storeError(op, c.deleteDocument(ctx, kindNamespace+name))
}
