package registry

import (
	"context"
	"errors"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

const (
	// grace is how long a blob stays that no manifest names: longer than a push takes from its first
	// blob to its manifest, or from its last question for one.
	grace = time.Hour
	// stale is how long an upload stays that nothing is added to.
	stale = time.Hour
)

// Live adds to the digests that are in use those that the registry has.
func (r *Registry) Live(live map[faas.Digest]bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, s := range r.spaces {
		for _, repo := range s.repos {
			for d := range repo.blobs {
				live[d] = true
			}
			for d := range repo.manifests {
				live[d] = true
			}
		}
	}
}

// Collect removes uploads that have come to a halt, images that no tag points at any more, blobs that
// no image names, and all of namespaces that are gone. The bytes go with the depot's next collection.
func (r *Registry) Collect(ctx context.Context) error { return r.collect(ctx, time.Now()) }

// doomed is one record that may go.
type doomed struct{ kind, uid, repo, what string }

func (r *Registry) collect(ctx context.Context, now time.Time) error {
	known := map[string]bool{}
	for _, ns := range r.cfg.Namespaces() {
		known[ns.UID] = true
	}
	var errs []error
	for _, d := range r.garbage(known, now) {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		errs = append(errs, r.collectOne(ctx, d, known, now))
	}
	r.mu.RLock()
	var halted []*upload
	for _, u := range r.uploads {
		if !known[u.uid] || now.Sub(time.Unix(0, u.last.Load())) > stale {
			halted = append(halted, u)
		}
	}
	r.mu.RUnlock()
	for _, u := range halted {
		if u.busy.TryLock() {
			r.forget(u)
			u.busy.Unlock()
		}
	}
	return errors.Join(errs...)
}

// collectOne removes a record if it still may go: since it was found a push may have named it.
func (r *Registry) collectOne(ctx context.Context, d doomed, known map[string]bool, now time.Time) error {
	r.change.Lock()
	defer r.change.Unlock()
	r.mu.RLock()
	repo := r.find(d.uid, d.repo)
	still := !known[d.uid]
	switch d.kind {
	case kindBlob:
		still = still || repo.unused(hexDigest(d.what), now)
	case kindManifest:
		still = still || repo.untagged(hexDigest(d.what), now, r.cfg.Limits.Untagged)
	}
	r.mu.RUnlock()
	if !still {
		return nil
	}
	if d.kind == kindManifest {
		return r.dropManifest(ctx, d.uid, d.repo, hexDigest(d.what))
	}
	return r.drop(ctx, d.kind, d.uid, d.repo, d.what)
}

func (r *Registry) garbage(known map[string]bool, now time.Time) []doomed {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []doomed
	for uid, s := range r.spaces {
		for name, repo := range s.repos {
			for d := range repo.manifests {
				if !known[uid] || repo.untagged(d, now, r.cfg.Limits.Untagged) {
					out = append(out, doomed{kindManifest, uid, name, d.Hex()})
				}
			}
			named := repo.named()
			for d, b := range repo.blobs {
				if !known[uid] || !named[d] && now.Sub(b.At) > grace {
					out = append(out, doomed{kindBlob, uid, name, d.Hex()})
				}
			}
			for t := range repo.tags {
				if !known[uid] {
					out = append(out, doomed{kindTag, uid, name, t})
				}
			}
		}
	}
	return out
}

// named are the blobs that manifests name.
func (r *repository) named() map[faas.Digest]bool {
	out := map[faas.Digest]bool{}
	for _, m := range r.manifests {
		for _, d := range m.Blobs {
			out[d] = true
		}
	}
	return out
}

// unused says whether a blob is one that no manifest names, nor one that is on its way.
func (r *repository) unused(digest faas.Digest, now time.Time) bool {
	b, ok := r.blobs[digest]
	return ok && now.Sub(b.At) > grace && !r.uses(digest)
}

// untagged says whether nothing leads to an image: no tag, no index, and no image that is still there
// and that it says something about.
func (r *repository) untagged(digest faas.Digest, now time.Time, after time.Duration) bool {
	m := r.manifests[digest]
	if m == nil || now.Sub(m.At) <= after || r.manifests[m.Subject] != nil {
		return false
	}
	for _, t := range r.tags {
		if t.Digest == digest {
			return false
		}
	}
	for _, other := range r.manifests {
		for _, d := range other.Manifests {
			if d == digest {
				return false
			}
		}
	}
	return true
}

// dropManifest removes an image and the tags that point at it. It is called with change held for
// removing.
func (r *Registry) dropManifest(ctx context.Context, uid, repo string, digest faas.Digest) error {
	r.mu.RLock()
	var tags []string
	for t, to := range r.find(uid, repo).tags {
		if to.Digest == digest {
			tags = append(tags, t)
		}
	}
	r.mu.RUnlock()
	for _, t := range tags {
		if err := r.drop(ctx, kindTag, uid, repo, t); err != nil {
			return err
		}
	}
	return r.drop(ctx, kindManifest, uid, repo, digest.Hex())
}
