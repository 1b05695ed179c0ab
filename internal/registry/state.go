package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// space is what one namespace has.
type space struct {
	repos map[string]*repository // by name, without the namespace
}

// repository is what was pushed under one name.
type repository struct {
	blobs     map[faas.Digest]blob
	manifests map[faas.Digest]*manifest // not changed once they are here
	tags      map[string]tag
}

// blob says that a repository has a blob.
type blob struct {
	Size int64     `json:"size"`
	At   time.Time `json:"at"` // when it was sent, mounted or last asked for by a sender; the latter in memory only
}

// manifest is one image, index or artifact.
type manifest struct {
	MediaType   string            `json:"media_type"`
	Size        int64             `json:"size"`
	Blobs       []faas.Digest     `json:"blobs,omitempty"`     // its configuration and layers
	Manifests   []faas.Digest     `json:"manifests,omitempty"` // of an index
	Subject     faas.Digest       `json:"subject,omitempty"`   // what it says something about
	Type        string            `json:"type,omitempty"`      // of an artifact
	Annotations map[string]string `json:"annotations,omitempty"`
	At          time.Time         `json:"at"`
}

// tag points at a manifest.
type tag struct {
	Digest faas.Digest `json:"digest"`
	At     time.Time   `json:"at"`
}

// namespace returns the UID of a namespace.
func (r *Registry) namespace(name string) (string, error) {
	for _, ns := range r.cfg.Namespaces() {
		if ns.Name == name {
			return ns.UID, nil
		}
	}
	return "", auth.NoNamespace(name)
}

// Keys are kind/namespace's UID/repository/what, where a repository's slashes are colons, which no
// name has.
const (
	kindBlob     = "b"
	kindManifest = "m"
	kindTag      = "t"
)

func key(kind, uid, repo, what string) string {
	return kind + "/" + uid + "/" + strings.ReplaceAll(repo, "/", ":") + "/" + what
}

func (r *Registry) load(ctx context.Context) error {
	records, err := r.cfg.Store.List(ctx, "", "", 0)
	if err != nil {
		return err
	}
	for _, rec := range records {
		if err := r.learn(rec.Key, rec.Value); err != nil {
			return fmt.Errorf("read record %q: %w", rec.Key, err)
		}
	}
	return nil
}

// learn takes a record over. It is called with mu held, or before anybody else is there.
func (r *Registry) learn(k string, value []byte) error {
	part := strings.Split(k, "/")
	if len(part) != 4 {
		return errors.New("it has no key of this registry")
	}
	repo := r.repo(part[1], strings.ReplaceAll(part[2], ":", "/"))
	switch part[0] {
	case kindBlob:
		var b blob
		if err := json.Unmarshal(value, &b); err != nil {
			return err
		}
		repo.blobs[hexDigest(part[3])] = b
	case kindManifest:
		m := new(manifest)
		if err := json.Unmarshal(value, m); err != nil {
			return err
		}
		repo.manifests[hexDigest(part[3])] = m
	case kindTag:
		var t tag
		if err := json.Unmarshal(value, &t); err != nil {
			return err
		}
		repo.tags[part[3]] = t
	default:
		return errors.New("it is of no kind that is known")
	}
	return nil
}

func hexDigest(hex string) faas.Digest { return faas.Digest("sha256:" + hex) }

// repo returns a repository and makes it if need be, in memory: there is no record of one that is
// empty.
func (r *Registry) repo(uid, name string) *repository {
	s := r.spaces[uid]
	if s == nil {
		s = &space{repos: map[string]*repository{}}
		r.spaces[uid] = s
	}
	repo := s.repos[name]
	if repo == nil {
		repo = &repository{blobs: map[faas.Digest]blob{}, manifests: map[faas.Digest]*manifest{}, tags: map[string]tag{}}
		s.repos[name] = repo
	}
	return repo
}

// find returns a repository, or an empty one that is not kept. It is called with mu held.
func (r *Registry) find(uid, name string) *repository {
	if s := r.spaces[uid]; s != nil && s.repos[name] != nil {
		return s.repos[name]
	}
	return &repository{}
}

// write makes a record durable and then visible. It is called with change held for adding.
func (r *Registry) write(ctx context.Context, kind, uid, repo, what string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	k := key(kind, uid, repo, what)
	if _, err := r.cfg.Store.Put(ctx, k, b, store.Any); err != nil {
		return storeError(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.learn(k, b)
}

// drop removes a record, and the repository with its last one. It is called with change held for
// removing.
func (r *Registry) drop(ctx context.Context, kind, uid, repo, what string) error {
	if err := r.cfg.Store.Delete(ctx, key(kind, uid, repo, what), store.Any); err != nil && !errors.Is(err, store.ErrNotFound) {
		return storeError(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.spaces[uid]
	if s == nil || s.repos[repo] == nil {
		return nil
	}
	in := s.repos[repo]
	switch kind {
	case kindBlob:
		delete(in.blobs, hexDigest(what))
	case kindManifest:
		delete(in.manifests, hexDigest(what))
	case kindTag:
		delete(in.tags, what)
	}
	if len(in.blobs)+len(in.manifests)+len(in.tags) == 0 {
		delete(s.repos, repo)
	}
	if len(s.repos) == 0 {
		delete(r.spaces, uid)
	}
	return nil
}

func storeError(err error) error {
	switch {
	case errors.Is(err, store.ErrFull):
		return faas.Errorf(faas.Unavailable, "store image", "the server's disk is full").WithLimit("store_bytes")
	case errors.Is(err, store.ErrTooLarge):
		return fail(413, "SIZE_INVALID", "the manifest names too much")
	}
	return err
}

// usage is what a namespace takes up.
type usage struct {
	bytes                           int64 // of blobs and manifests, each once, and of uploads
	blobs, manifests, tags, uploads int   // in each repository
}

// used adds up what a namespace takes up. It is called with mu held.
func (r *Registry) used(uid string) (u usage) {
	sizes := map[faas.Digest]int64{}
	if s := r.spaces[uid]; s != nil {
		for _, repo := range s.repos {
			for d, b := range repo.blobs {
				sizes[d] = b.Size
			}
			for d, m := range repo.manifests {
				sizes[d] = m.Size
			}
			u.blobs += len(repo.blobs)
			u.manifests += len(repo.manifests)
			u.tags += len(repo.tags)
		}
	}
	for _, n := range sizes {
		u.bytes += n
	}
	for _, up := range r.uploads {
		if up.uid == uid {
			u.bytes += up.size.Load()
			u.uploads++
		}
	}
	return u
}
