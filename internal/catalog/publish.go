package catalog

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// PublishOptions are what may be said about a publication besides the revision.
type PublishOptions struct {
	Public *bool // nil: as it was, or not public for a new function
	// Expect, if set, is the revision that the caller believes to be active, empty for a function
	// that is not to exist. If it is another one nothing is published and the error is Conflict.
	Expect *faas.RevisionID
}

const (
	// A publication takes milliseconds. One that takes longer than this fails, so that an orphan
	// older than orphanAge is nobody's work in progress.
	publishTimeout = time.Minute
	orphanAge      = 10 * time.Minute
	// How often a write is tried again that met another writer.
	attempts = 20
)

// fault is called between any two steps that a crash may separate; tests stop the process there.
var fault = func(string) {}

// Publish makes rev the active revision of its function, and the function if there is none. It
// fills in ID and Created where they are empty and keeps rev. When it returns without error the
// publication survives any crash and this Catalog resolves it; with an error the function is as
// it was, unless the error is of the context or the store, when it may be either.
func (c *Catalog) Publish(ctx context.Context, rev *faas.Revision, opts PublishOptions) (*faas.Function, error) {
	const op = "publish revision"
	if err := rev.Name.Validate(); err != nil {
		return nil, err
	}
	if id := rev.Digest(); rev.ID == "" {
		rev.ID = id
	} else if rev.ID != id {
		return nil, faas.Errorf(faas.Internal, op, "revision of %q calls itself %s but is %s", rev.Name, rev.ID.Short(), id.Short())
	}
	if rev.Created.IsZero() {
		rev.Created = time.Now().UTC()
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	defer c.lock(rev.Name.Namespace)()
	if err := c.mayPublish(rev.Name); err != nil {
		return nil, err
	}
	for range attempts {
		fault("publish: begun")
		// The revision is written each time, even if it is there: the write makes it young, and
		// the collector, which deletes the version that it looked at, leaves it alone.
		doc := revisionDocument{Stored: time.Now(), Revision: rev}
		if err := c.write(ctx, revisionKey(rev.Name, rev.ID), doc, store.Any); err != nil {
			return nil, storeError(op, err)
		}
		fault("publish: revision written")
		fn, err := c.point(ctx, rev.Name, opts, func(fn *faas.Function) error {
			fn.Active = rev.ID
			fn.Revisions = slices.DeleteFunc(slices.Clone(fn.Revisions), func(id faas.RevisionID) bool { return id == rev.ID })
			fn.Revisions = slices.Insert(fn.Revisions, 0, rev.ID)
			fn.Revisions = fn.Revisions[:min(len(fn.Revisions), c.config.MaxRevisions)]
			return nil
		})
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return nil, storeError(op, err)
		}
		fault("publish: pointer moved")
		c.prune(ctx, rev.Name)
		return fn, nil
	}
	return nil, faas.Errorf(faas.Conflict, op, "function %q is being changed by others all the time", rev.Name.Path()).WithFix("try again")
}

func (c *Catalog) mayPublish(name faas.Name) error {
	const op = "publish revision"
	if err := c.needNamespace(op, name.Namespace); err != nil {
		return err
	}
	if e := c.entry(name); e != nil && e.packed.Load().live() {
		return nil
	}
	if n := c.countFunctions(name.Namespace); n >= c.config.MaxFunctions {
		return faas.Errorf(faas.Overloaded, op, "namespace %q has %d functions and may have no more than %d", name.Namespace, n, c.config.MaxFunctions).
			WithLimit("functions_per_namespace").WithFix("delete one with: brasa rm NAME; the operator can raise quota.functions")
	}
	return nil
}

// point changes a function's document by compare-and-set; a function that does not exist, or no
// longer, is made with a new UID.
func (c *Catalog) point(ctx context.Context, name faas.Name, opts PublishOptions, change func(*faas.Function) error) (*faas.Function, error) {
	was, version, err := c.readFunction(ctx, name)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	fn := faas.Function{Name: name, UID: newUID(), Created: now}
	if was != nil && was.Deleted == nil {
		fn = was.Function
	}
	if opts.Expect != nil && *opts.Expect != fn.Active {
		if fn.Active == "" {
			return nil, faas.Errorf(faas.Conflict, "publish revision", "function %q does not exist, so revision %s is not active", name.Path(), opts.Expect.Short())
		}
		return nil, faas.Errorf(faas.Conflict, "publish revision", "revision %s of function %q is active, not %q", fn.Active.Short(), name.Path(), opts.Expect.Short()).
			WithFix("look at what was deployed meanwhile with: brasa versions %s", name.Path())
	}
	if err := change(&fn); err != nil {
		return nil, err
	}
	if opts.Public != nil {
		fn.Public = *opts.Public
	}
	fn.Updated = now
	if err := c.write(ctx, functionKey(name), functionDocument{Function: fn}, version); err != nil {
		return nil, err
	}
	return &fn, nil
}

// readFunction reads a function's document from the store; nil is none.
func (c *Catalog) readFunction(ctx context.Context, name faas.Name) (*functionDocument, store.Version, error) {
	r, err := c.config.Store.Get(ctx, functionKey(name))
	if errors.Is(err, store.ErrNotFound) {
		return nil, store.Absent, nil
	}
	if err != nil {
		return nil, 0, err
	}
	d := &functionDocument{}
	if err := json.Unmarshal(r.Value, d); err != nil {
		return nil, 0, faas.Errorf(faas.Internal, "read function", "the document of function %q is damaged: %w", name, err)
	}
	return d, r.Version, nil
}

// write stores a document and shows it in the copy.
func (c *Catalog) write(ctx context.Context, key string, document any, expect store.Version) error {
	b, err := json.Marshal(document)
	if err != nil {
		return fmt.Errorf("encode %q: %w", key, err)
	}
	v, err := c.config.Store.Put(ctx, key, b, expect)
	if err != nil {
		return err
	}
	c.wrote(documents, key, b, v)
	return nil
}

// Activate makes a revision that is kept the active one again. id may be shortened as for
// Revision.
func (c *Catalog) Activate(ctx context.Context, name faas.Name, id faas.RevisionID) (*faas.Function, error) {
	const op = "activate revision"
	defer c.lock(name.Namespace)()
	rev, err := c.Revision(name, id)
	if err != nil {
		return nil, err
	}
	for range attempts {
		fn, err := c.point(ctx, name, PublishOptions{}, func(fn *faas.Function) error {
			if !slices.Contains(fn.Revisions, rev.ID) {
				return noRevision(name, rev.ID)
			}
			fn.Active = rev.ID
			return nil
		})
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return nil, storeError(op, err)
		}
		return fn, nil
	}
	return nil, faas.Errorf(faas.Conflict, op, "function %q is being changed by others all the time", name.Path()).WithFix("try again")
}

// Delete removes a function and its revisions. A function that is made again under the name has
// another UID. Calls that run already go on to their end.
func (c *Catalog) Delete(ctx context.Context, name faas.Name) error {
	const op = "delete function"
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	defer c.lock(name.Namespace)()
	if _, err := c.Function(name); err != nil {
		return err
	}
	for range attempts {
		was, version, err := c.readFunction(ctx, name)
		if err != nil {
			return storeError(op, err)
		}
		if was == nil || was.Deleted != nil {
			return c.noFunction(name)
		}
		fault("delete: begun")
		now := time.Now()
		was.Deleted, was.Revisions, was.Active = &now, nil, ""
		err = c.write(ctx, functionKey(name), was, version)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return storeError(op, err)
		}
		fault("delete: tombstone written")
		c.prune(ctx, name)
		return nil
	}
	return faas.Errorf(faas.Conflict, op, "function %q is being changed by others all the time", name.Path()).WithFix("try again")
}

func newUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand aborts the process instead
	return hex.EncodeToString(b[:])
}

// storeError makes of what the store answered the error that the caller may act upon.
func storeError(op string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*faas.Error](err); ok {
		return e
	}
	e := &faas.Error{Code: faas.CodeOf(err), Op: op, Err: err}
	switch {
	case errors.Is(err, store.ErrFull):
		e.Code, e.Limit = faas.Unavailable, "store_bytes"
		e.Fix = "nothing was changed; the operator has to make room on the server's disk"
	case errors.Is(err, store.ErrTooLarge):
		e.Code, e.Limit = faas.TooLarge, "document_bytes"
	case errors.Is(err, store.ErrConflict):
		e.Code, e.Fix = faas.Conflict, "try again"
	case errors.Is(err, store.ErrClosed):
		e.Code = faas.Unavailable
	}
	return e
}
