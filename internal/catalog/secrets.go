package catalog

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// MaxSecretBytes is the most that one secret holds: a process's environment is bounded too.
const MaxSecretBytes = 64 << 10

// SecretInfo is what may be known of a secret: never its value.
type SecretInfo struct {
	Name    string    `json:"name"`
	Updated time.Time `json:"updated"`
	Epoch   uint64    `json:"epoch"` // grows with every change
}

// secretState is what is known of a namespace's secrets, all of it encrypted.
type secretState struct {
	key        *sealedDocument // the data key, sealed by the master key
	keyVersion store.Version
	sealed     map[string]sealedSecret
}

type sealedSecret struct {
	sealedDocument
	version store.Version
}

type sealedDocument struct {
	Sealed  []byte    `json:"sealed"`
	Updated time.Time `json:"updated"`
}

func secretKey(ns, name string) string { return kindSecret + ns + "/" + name }

// What a sealed text is for; it is authenticated along with it.
func keyPurpose(ns string) string          { return "brasa data key " + ns }
func secretPurpose(ns, name string) string { return "brasa secret " + ns + "/" + name }

const checkPurpose = "brasa master key"

// checkKey makes sure that the secrets' store was written with our master key.
func (c *Catalog) checkKey(ctx context.Context) error {
	b, err := json.Marshal(sealedDocument{Sealed: seal(c.master, []byte(checkPurpose), checkPurpose), Updated: time.Now()})
	if err != nil {
		return err
	}
	_, err = c.config.Secrets.Put(ctx, checkDocument, b, store.Absent)
	if err == nil {
		// The first start, unless the check was lost: then secrets tell whether the key fits when
		// they are opened.
		return nil
	}
	if !errors.Is(err, store.ErrConflict) {
		return fmt.Errorf("check master key: %w", err)
	}
	r, err := c.config.Secrets.Get(ctx, checkDocument)
	if err != nil {
		return fmt.Errorf("check master key: %w", err)
	}
	var d sealedDocument
	if err := json.Unmarshal(r.Value, &d); err != nil {
		return fmt.Errorf("check master key: %w", err)
	}
	if text, err := unseal(c.master, d.Sealed, checkPurpose); err != nil || string(text) != checkPurpose {
		return errors.New("the master key is not the one that the secrets were written with; restore its file from the backup of this data directory")
	}
	return nil
}

// takeSecret is take for the store of secrets. It is called with mu held.
func (c *Catalog) takeSecret(r store.Record) (Event, error) {
	isKey := strings.HasPrefix(r.Key, kindKey)
	ns, name, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(r.Key, kindKey), kindSecret), "/")
	var d sealedDocument
	if !r.Deleted {
		if err := json.Unmarshal(r.Value, &d); err != nil {
			return Event{}, err
		}
	}
	s := c.secrets[ns]
	if s == nil {
		s = &secretState{sealed: map[string]sealedSecret{}}
		c.secrets[ns] = s
	}
	switch {
	case isKey && r.Deleted:
		s.key = nil
	case isKey:
		s.key, s.keyVersion = &d, r.Version
	case r.Deleted:
		if _, ok := s.sealed[name]; ok {
			delete(s.sealed, name)
			return Event{Kind: SecretDeleted, Namespace: ns, Secret: name, Epoch: uint64(r.Version)}, nil
		}
	default:
		s.sealed[name] = sealedSecret{d, r.Version}
		return Event{Kind: SecretChanged, Namespace: ns, Secret: name, Epoch: uint64(r.Version)}, nil
	}
	if s.key == nil && len(s.sealed) == 0 {
		delete(c.secrets, ns)
	}
	return Event{}, nil
}

// PutSecret makes or replaces a secret. Nothing gives its value back but OpenSecrets.
func (c *Catalog) PutSecret(ctx context.Context, namespace, name string, value []byte) (SecretInfo, error) {
	const op = "put secret"
	if err := faas.ValidateName("secret", name); err != nil {
		return SecretInfo{}, err
	}
	if len(value) > MaxSecretBytes {
		return SecretInfo{}, faas.Errorf(faas.TooLarge, op, "the value of secret %q has %d bytes; most is %s", name, len(value), faas.Bytes(MaxSecretBytes)).WithLimit("secret_bytes")
	}
	if bytes.IndexByte(value, 0) >= 0 {
		return SecretInfo{}, faas.Errorf(faas.Invalid, op, "the value of secret %q has a NUL byte, which an environment variable cannot hold", name).
			WithFix("encode it, for example with base64")
	}
	defer c.lock(namespace)()
	if err := c.needNamespace(op, namespace); err != nil {
		return SecretInfo{}, err
	}
	if n, exists := c.countSecrets(namespace, name); n >= c.config.MaxSecrets && !exists {
		return SecretInfo{}, faas.Errorf(faas.Overloaded, op, "namespace %q has %d secrets and may have no more than %d", namespace, n, c.config.MaxSecrets).
			WithLimit("secrets_per_namespace").WithFix("delete one with: brasa secret rm NAME; the operator can raise quota.secrets")
	}
	key, err := c.dataKey(ctx, namespace)
	if err != nil {
		return SecretInfo{}, storeError(op, err)
	}
	fault("secret: data key written")
	a, err := newAEAD(key)
	if err != nil {
		return SecretInfo{}, storeError(op, err)
	}
	d := sealedDocument{Sealed: seal(a, value, secretPurpose(namespace, name)), Updated: time.Now()}
	v, err := c.writeSecret(ctx, secretKey(namespace, name), d, store.Any)
	if err != nil {
		return SecretInfo{}, storeError(op, err)
	}
	fault("secret: written")
	return SecretInfo{Name: name, Updated: d.Updated, Epoch: uint64(v)}, nil
}

func (c *Catalog) countSecrets(namespace, name string) (n int, exists bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s := c.secrets[namespace]
	if s == nil {
		return 0, false
	}
	_, exists = s.sealed[name]
	return len(s.sealed), exists
}

func (c *Catalog) writeSecret(ctx context.Context, key string, d sealedDocument, expect store.Version) (store.Version, error) {
	b, err := json.Marshal(d)
	if err != nil {
		return 0, err
	}
	v, err := c.config.Secrets.Put(ctx, key, b, expect)
	if err != nil {
		return 0, err
	}
	c.wrote(secrets, key, b, v)
	return v, nil
}

// dataKey returns the namespace's data key and makes one if there is none.
func (c *Catalog) dataKey(ctx context.Context, namespace string) ([]byte, error) {
	if key, err := c.openDataKey(namespace); key != nil || err != nil {
		return key, err
	}
	key := make([]byte, keyBytes)
	_, _ = rand.Read(key) // never fails: crypto/rand aborts the process instead
	d := sealedDocument{Sealed: seal(c.master, key, keyPurpose(namespace)), Updated: time.Now()}
	_, err := c.writeSecret(ctx, kindKey+namespace, d, store.Absent)
	if !errors.Is(err, store.ErrConflict) {
		return key, err
	}
	r, err := c.config.Secrets.Get(ctx, kindKey+namespace) // another node was first
	if err != nil {
		return nil, err
	}
	c.wrote(secrets, r.Key, r.Value, r.Version)
	return c.openDataKey(namespace)
}

// openDataKey returns nil without an error if the namespace has none.
func (c *Catalog) openDataKey(namespace string) ([]byte, error) {
	c.mu.RLock()
	var d *sealedDocument
	if s := c.secrets[namespace]; s != nil {
		d = s.key
	}
	c.mu.RUnlock()
	if d == nil {
		return nil, nil
	}
	key, err := unseal(c.master, d.Sealed, keyPurpose(namespace))
	if err != nil {
		return nil, faas.Errorf(faas.Internal, "open data key", "the data key of namespace %q does not open with the master key", namespace)
	}
	return key, nil
}

func (c *Catalog) deleteDataKey(ctx context.Context, namespace string) error {
	c.mu.RLock()
	version := store.Absent
	if s := c.secrets[namespace]; s != nil && s.key != nil {
		version = s.keyVersion
	}
	c.mu.RUnlock()
	if version == store.Absent {
		return nil
	}
	if err := c.config.Secrets.Delete(ctx, kindKey+namespace, version); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	c.forget(kindKey+namespace, version)
	return nil
}

// DeleteSecret removes a secret.
func (c *Catalog) DeleteSecret(ctx context.Context, namespace, name string) error {
	defer c.lock(namespace)()
	return c.deleteSecret(ctx, namespace, name)
}

func (c *Catalog) deleteSecret(ctx context.Context, namespace, name string) error {
	c.mu.RLock()
	version := store.Absent
	if s := c.secrets[namespace]; s != nil {
		version = s.sealed[name].version
	}
	c.mu.RUnlock()
	if version == store.Absent {
		return faas.Errorf(faas.NotFound, "delete secret", "secret %.80q does not exist in namespace %.80q", name, namespace).
			WithFix("list those that do with: brasa secret ls")
	}
	err := c.config.Secrets.Delete(ctx, secretKey(namespace, name), version)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return storeError("delete secret", err)
	}
	c.forget(secretKey(namespace, name), version)
	return nil
}

// Secrets lists a namespace's secrets in the order of their names, without values.
func (c *Catalog) Secrets(namespace string) []SecretInfo {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s := c.secrets[namespace]
	if s == nil {
		return nil
	}
	out := make([]SecretInfo, 0, len(s.sealed))
	for name, d := range s.sealed {
		out = append(out, SecretInfo{Name: name, Updated: d.Updated, Epoch: uint64(d.version)})
	}
	slices.SortFunc(out, func(a, b SecretInfo) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// OpenSecrets returns the values of the named secrets, for the environment of an instance, and
// the epoch of this set: the greatest of theirs, 0 for an empty set. An instance that was given
// an older epoch holds an old value. A secret that does not exist is the function's owner's to
// mend, so the code is Failed.
func (c *Catalog) OpenSecrets(ctx context.Context, namespace string, names []string) (map[string]string, uint64, error) {
	const op = "open secrets"
	values := make(map[string]string, len(names))
	if len(names) == 0 {
		return values, 0, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	key, err := c.openDataKey(namespace)
	if err != nil {
		return nil, 0, err
	}
	epoch := uint64(0)
	for _, name := range names {
		c.mu.RLock()
		var d sealedSecret
		if s := c.secrets[namespace]; s != nil {
			d = s.sealed[name]
		}
		c.mu.RUnlock()
		if d.version == 0 || key == nil {
			return nil, 0, faas.Errorf(faas.Failed, op, "secret %.80q, which the function asks for, does not exist in namespace %q", name, namespace).
				WithFix("put it with: brasa secret put %.80s", name)
		}
		a, err := newAEAD(key)
		if err != nil {
			return nil, 0, storeError(op, err)
		}
		text, err := unseal(a, d.Sealed, secretPurpose(namespace, name))
		if err != nil {
			return nil, 0, faas.Errorf(faas.Internal, op, "secret %q of namespace %q is damaged", name, namespace).
				WithFix("put it again with: brasa secret put %s", name)
		}
		values[name] = string(text)
		epoch = max(epoch, uint64(d.version))
	}
	return values, epoch, nil
}
