package catalog

import (
	"context"
	"errors"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// tombstoneAge is how long a deleted function's document stays. By then its revisions are gone
// and every node has seen it.
const tombstoneAge = time.Hour

// Collect removes revisions that no function points to and that were written a while ago, and
// old tombstones. It is safe beside any other writer: it deletes the versions that it looked at.
func (c *Catalog) Collect(ctx context.Context) error { return c.collect(ctx, time.Now()) }

func (c *Catalog) collect(ctx context.Context, now time.Time) error {
	var errs []error
	for _, d := range c.garbage(now, nil) {
		errs = append(errs, c.remove(ctx, d))
	}
	return errors.Join(errs...)
}

// prune removes what its last change left of one function, whatever its age. It is called with
// the namespace's lock held, so nobody on this node is publishing. What it misses, also because
// another node is, Collect finds.
func (c *Catalog) prune(ctx context.Context, name faas.Name) {
	for _, d := range c.garbage(time.Now(), &name) {
		fault("prune")
		if err := c.remove(ctx, d); err != nil && !errors.Is(err, store.ErrConflict) {
			c.config.Logger.Warn("old revision not removed", "function", name.String(), "cause", err)
			return
		}
	}
}

type doomed struct {
	key     string
	version store.Version
}

// garbage lists what may go. With only set it is the revisions that this function no longer
// lists but that are older than its document, since a publication that is under way has written
// its revision after that.
func (c *Catalog) garbage(now time.Time, only *faas.Name) []doomed {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []doomed
	look := func(name faas.Name, p *packed) {
		for i, r := range p.revisions {
			if r.version == 0 || p.live() && i < int(p.listed) {
				continue
			}
			if now.Sub(fromNanos(r.stored)) > orphanAge || only != nil && r.version < p.version {
				out = append(out, doomed{revisionKey(name, r.revisionID()), r.version})
			}
		}
		if only == nil && p.deleted != 0 && now.Sub(fromNanos(p.deleted)) > tombstoneAge && len(p.revisions) == 0 {
			out = append(out, doomed{functionKey(name), p.version})
		}
	}
	if only != nil {
		look(*only, c.packed(*only))
		return out
	}
	for _, s := range *c.index.Load() {
		for e := range s.entries() {
			look(e.fullName(), e.packed.Load())
		}
	}
	return out
}

func (c *Catalog) remove(ctx context.Context, d doomed) error {
	err := c.config.Store.Delete(ctx, d.key, d.version)
	if err == nil || errors.Is(err, store.ErrNotFound) {
		c.forget(d.key, d.version)
		return nil
	}
	if errors.Is(err, store.ErrConflict) {
		return nil // it was published again meanwhile
	}
	return err
}
