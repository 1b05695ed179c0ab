// Package auth says who is asking and what they may do.
//
// A key is "brasa_", twelve hexadecimal digits that name it, and sixty-four that prove it; only
// the SHA-256 of the whole is kept. A key belongs to one namespace and may do everything in it,
// or is an admin's and may do everything. What a key may not do looks to it as if it did not
// exist. Guessing is slowed down for each remote address.
//
// How a key gets here (a header) and how a refusal looks there are left to the gateway.
package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// Identity is who is asking. The zero value is nobody and may do nothing.
type Identity struct {
	KeyID      string
	Subject    string
	Admin      bool
	Namespaces []string
}

// May returns nil if the identity may act in the namespace. If not, the error is the same
// whether the namespace exists or not.
func (i Identity) May(namespace string) error {
	if i.Admin || i.KeyID != "" && slices.Contains(i.Namespaces, namespace) {
		return nil
	}
	return NoNamespace(namespace)
}

// NoNamespace is the error for a namespace that does not exist, or none that the caller may know of.
func NoNamespace(namespace string) error {
	return faas.Errorf(faas.NotFound, "look up namespace", "there is no namespace %.80q that this key may use", namespace).
		WithFix("see what it opens with: brasa namespace ls; or use a key of that namespace: BRASA_KEY or --key-file")
}

// Info is a key as it may be shown.
type Info struct {
	ID         string    `json:"id"`
	Subject    string    `json:"subject"`
	Admin      bool      `json:"admin"`
	Namespaces []string  `json:"namespaces,omitempty"`
	Created    time.Time `json:"created"`
}

// record is a key as it is kept.
type record struct {
	Info
	Hash [sha256.Size]byte `json:"-"`
	Sum  string            `json:"sha256"` // of the whole key, hexadecimal
}

// Config says what Keys are made of.
type Config struct {
	Store store.Store
	// File is where the admin's key lies in plain text for the local command line; empty: nowhere.
	File string
	// MaxKeys bounds the keys of one namespace. Default 100.
	MaxKeys int
	// Attempts is how many wrong keys a remote address may send at once before it has to wait.
	// Default 20; one is forgiven every three seconds.
	Attempts int
	Logger   *slog.Logger
}

// Keys knows all keys. It is safe for concurrent use.
type Keys struct {
	cfg     Config
	guesses *guesses

	mu      sync.RWMutex
	byID    map[string]*record  // guarded by mu
	revoked map[string]struct{} // guarded by mu; an id is never used again, so what the watch still brings is ignored
}

// prefix stands before a key's id in the store.
const prefix = "keys/"

// Open reads the keys from the store.
func Open(ctx context.Context, cfg Config) (*Keys, error) {
	if cfg.Store == nil {
		return nil, errors.New("open keys: no store") // without one everybody would be let in or nobody
	}
	if cfg.MaxKeys == 0 {
		cfg.MaxKeys = 100
	}
	if cfg.Attempts == 0 {
		cfg.Attempts = 20
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	k := &Keys{cfg: cfg, guesses: newGuesses(cfg.Attempts), byID: map[string]*record{}, revoked: map[string]struct{}{}}
	records, err := cfg.Store.List(ctx, prefix, "", 0)
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	for _, r := range records {
		if err := k.learn(r); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// Run follows changes that others make in the store, until ctx ends.
func (k *Keys) Run(ctx context.Context) error {
	changes, err := k.cfg.Store.Watch(ctx, prefix, 0)
	if err != nil {
		return fmt.Errorf("watch keys: %w", err)
	}
	for r := range changes {
		if r.Key == "" { // all that existed has been delivered
			continue
		}
		if err := k.learn(r); err != nil {
			k.cfg.Logger.Error("key ignored", "error", err)
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return errors.New("watch keys: the store ended the watch")
}

// learn takes a record over from the store.
func (k *Keys) learn(r store.Record) error {
	id := strings.TrimPrefix(r.Key, prefix)
	k.mu.Lock()
	defer k.mu.Unlock()
	if r.Deleted {
		delete(k.byID, id)
		k.revoked[id] = struct{}{}
		return nil
	}
	if _, gone := k.revoked[id]; gone {
		return nil
	}
	var rec record
	if err := json.Unmarshal(r.Value, &rec); err != nil {
		return fmt.Errorf("read key %q: %w", id, err)
	}
	sum, err := hex.DecodeString(rec.Sum)
	if err != nil || len(sum) != sha256.Size || rec.ID != id {
		return fmt.Errorf("read key %q: the record is damaged", id)
	}
	copy(rec.Hash[:], sum)
	k.byID[id] = &rec
	return nil
}

// Authenticate returns who sent the value of an Authorization header from a remote address. No
// key, a malformed, an unknown and a revoked one are all Unauthenticated; too many wrong ones
// from one address are Overloaded.
func (k *Keys) Authenticate(_ context.Context, header, remote string) (Identity, error) {
	if header == "" {
		return Identity{}, faas.Errorf(faas.Unauthenticated, "authenticate", "the request carries no key").
			WithFix("send the header Authorization: Bearer KEY; the command line reads BRASA_KEY or --key-file")
	}
	key := bearer(header)
	hash := sha256.Sum256([]byte(key))
	if wait := k.guesses.mustWait(remote, hash); wait > 0 {
		return Identity{}, faas.Errorf(faas.Overloaded, "authenticate", "too many wrong keys came from this address").
			WithLimit("failed_attempts").WithFix("wait %d seconds, then send the right key", int(wait.Seconds())+1)
	}
	id, ok := idOf(key)
	k.mu.RLock()
	rec := k.byID[id]
	k.mu.RUnlock()
	// An unknown id is compared as well, so that the time taken does not tell which ids exist.
	want := [sha256.Size]byte{}
	if rec != nil {
		want = rec.Hash
	}
	if subtle.ConstantTimeCompare(hash[:], want[:]) != 1 || rec == nil || !ok {
		k.guesses.wrong(remote)
		return Identity{}, faas.Errorf(faas.Unauthenticated, "authenticate", "the key is not valid here").
			WithFix("check that it is whole and made for this server")
	}
	k.guesses.right(remote, hash)
	return Identity{KeyID: rec.ID, Subject: rec.Subject, Admin: rec.Admin, Namespaces: rec.Namespaces}, nil
}

// Holds says whether an Authorization header carries something of the form of our keys, valid or
// not, also as a password. Such a header never reaches a function.
func Holds(header string) bool {
	return strings.HasPrefix(strings.ToLower(bearer(FromBasic(header))), keyPrefix)
}

// bearer returns what follows the scheme. The scheme's case does not matter (RFC 9110).
func bearer(header string) string {
	scheme, key, ok := strings.Cut(strings.TrimSpace(header), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(key)
}

// FromBasic turns a header of the Basic scheme whose password is a key, with whatever user name, into
// the header that Authenticate takes; any other stays as it is. It is for routes whose clients know
// no other scheme: what a browser sends by itself, a page of somebody else's can make it send.
func FromBasic(header string) string {
	scheme, encoded, ok := strings.Cut(strings.TrimSpace(header), " ")
	if !ok || !strings.EqualFold(scheme, "Basic") {
		return header
	}
	plain, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	if err != nil {
		return header
	}
	_, password, _ := strings.Cut(string(plain), ":")
	return "Bearer " + password
}

// Create makes a key for a namespace, or an admin's if admin is set, and returns it whole; this
// is the only time it is seen.
func (k *Keys) Create(ctx context.Context, subject, namespace string, admin bool) (key string, info Info, err error) {
	key, id := newKey()
	sum := sha256.Sum256([]byte(key))
	rec := record{Info: Info{ID: id, Subject: subject, Admin: admin, Created: time.Now().UTC()}, Hash: sum, Sum: hex.EncodeToString(sum[:])}
	if !admin {
		if err := faas.ValidateName("namespace", namespace); err != nil {
			return "", Info{}, err
		}
		if len(k.List(namespace)) >= k.cfg.MaxKeys {
			return "", Info{}, faas.Errorf(faas.Overloaded, "create key", "namespace %q has %d keys, as many as it may", namespace, k.cfg.MaxKeys).
				WithLimit("keys").WithFix("revoke one with: brasa key rm ID")
		}
		rec.Namespaces = []string{namespace}
	}
	if rec.Subject == "" {
		rec.Subject = "key-" + id
	}
	b, err := json.Marshal(rec)
	if err != nil {
		return "", Info{}, fmt.Errorf("write key: %w", err)
	}
	if _, err := k.cfg.Store.Put(ctx, prefix+id, b, store.Absent); err != nil {
		return "", Info{}, storeError("write key", err)
	}
	k.mu.Lock()
	k.byID[id] = &rec
	k.mu.Unlock()
	k.cfg.Logger.Info("key created", "key", id, "namespace", namespace, "admin", admin)
	return key, rec.Info, nil
}

// List returns the keys of a namespace, oldest first; for "" those of admins.
func (k *Keys) List(namespace string) []Info {
	k.mu.RLock()
	defer k.mu.RUnlock()
	out := []Info{}
	for _, r := range k.byID {
		if r.belongs(namespace) {
			out = append(out, r.Info)
		}
	}
	slices.SortFunc(out, func(a, b Info) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out
}

func (r *record) belongs(namespace string) bool {
	if namespace == "" {
		return r.Admin
	}
	return slices.Contains(r.Namespaces, namespace)
}

// Revoke makes a key of a namespace (for "", an admin's) worthless from the next request on. A
// key of another namespace is NotFound like one that never was.
func (k *Keys) Revoke(ctx context.Context, namespace, id string) error {
	k.mu.RLock()
	rec := k.byID[id]
	k.mu.RUnlock()
	if rec == nil || !rec.belongs(namespace) {
		return faas.Errorf(faas.NotFound, "revoke key", "there is no key %.80q in namespace %q", id, namespace).
			WithFix("list the keys with: brasa key ls")
	}
	if err := k.cfg.Store.Delete(ctx, prefix+id, store.Any); err != nil && !errors.Is(err, store.ErrNotFound) {
		return storeError(fmt.Sprintf("revoke key %q", id), err)
	}
	k.mu.Lock()
	delete(k.byID, id)
	k.revoked[id] = struct{}{}
	k.mu.Unlock()
	k.cfg.Logger.Info("key revoked", "key", id, "namespace", namespace)
	return nil
}

// RevokeAll revokes every key of a namespace that goes away, so that none opens one of the same
// name that somebody makes later.
func (k *Keys) RevokeAll(ctx context.Context, namespace string) error {
	var errs []error
	for _, info := range k.List(namespace) {
		if err := k.Revoke(ctx, namespace, info.ID); err != nil && faas.CodeOf(err) != faas.NotFound {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

const (
	keyPrefix = "brasa_"
	idLen     = 12
	secretLen = 64
)

func newKey() (key, id string) {
	var b [idLen/2 + secretLen/2]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand aborts the process instead
	id = hex.EncodeToString(b[:idLen/2])
	return keyPrefix + id + "_" + hex.EncodeToString(b[idLen/2:]), id
}

// idOf returns the part of a key that names it; ok is false if key does not have the form of one.
func idOf(key string) (id string, ok bool) {
	rest, ok := strings.CutPrefix(key, keyPrefix)
	if !ok || len(rest) != idLen+1+secretLen || rest[idLen] != '_' {
		return "", false
	}
	return rest[:idLen], true
}
