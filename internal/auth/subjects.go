package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
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

// Subject is who holds a key of OpenWhisk's kind: a UUID and 64 characters, which open one namespace.
type Subject struct {
	Name      string
	Namespace string // as OpenWhisk's clients call it
	UUID      string
	Key       string // as it was sent; only of one that was just authenticated or made
}

// SubjectKey is one of a subject's keys as it may be shown.
type SubjectKey struct {
	Namespace string    `json:"namespace"`
	UUID      string    `json:"uuid"`
	Created   time.Time `json:"created"`
}

// SubjectInfo is a subject as it may be shown.
type SubjectInfo struct {
	Name    string       `json:"subject"`
	Blocked bool         `json:"blocked"`
	Keys    []SubjectKey `json:"namespaces"`
	Created time.Time    `json:"created"`
}

// SubjectSecret is the name of the secret in which a namespace keeps the last key, as UUID:KEY, that was
// made of it for a subject: actions that ask for it find it in their environment as long as it opens the
// namespace. It goes with the key.
const SubjectSecret = "OPENWHISK_API_KEY"

const (
	subjectPrefix = "subjects/"
	// OpenWhisk's clients send keys of exactly this many characters.
	subjectKeyLength = 64
	uuidLength       = 36
	maxSubject       = 256
)

// Subjects knows all subjects. It is safe for concurrent use.
type Subjects struct {
	store   store.Store
	log     *slog.Logger
	guesses *guesses

	mu       sync.RWMutex
	subjects map[string]*known          // guarded by mu; by name
	byUUID   map[string]*known          // guarded by mu
	byKey    map[string]*known          // guarded by mu; by the key in the store
	spaces   map[string]space           // guarded by mu; those whose name the catalog encodes, by its name for them
	limits   map[string]NamespaceLimits // guarded by mu; by the namespace in the catalog
	writers  sync.Mutex                 // one change at a time
}

// OpenSubjects reads the subjects from the store.
func OpenSubjects(ctx context.Context, cfg Config) (*Subjects, error) {
	if cfg.Store == nil {
		return nil, errors.New("open subjects: no store")
	}
	if cfg.Attempts == 0 {
		cfg.Attempts = 20
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Subjects{
		store: cfg.Store, log: cfg.Logger, guesses: newGuesses(cfg.Attempts),
		subjects: map[string]*known{}, byUUID: map[string]*known{}, byKey: map[string]*known{}, spaces: map[string]space{}, limits: map[string]NamespaceLimits{},
	}
	records, err := cfg.Store.List(ctx, subjectPrefix, "", 0)
	if err != nil {
		return nil, fmt.Errorf("read subjects: %w", err)
	}
	for _, r := range records {
		if err := s.learn(r); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Authenticate returns whose key it is, sent from a remote address. What is malformed, unknown, wrong
// or of a blocked subject is Unauthenticated; too many wrong ones from an address are Overloaded.
func (s *Subjects) Authenticate(uuid, key, remote string) (Subject, error) {
	bad := faas.Errorf(faas.Unauthenticated, "authenticate", "the key is not valid here")
	hash := sha256.Sum256([]byte(uuid + ":" + key))
	if wait := s.guesses.mustWait(remote, hash); wait > 0 {
		return Subject{}, faas.Errorf(faas.Overloaded, "authenticate", "too many wrong keys came from this address").
			WithLimit("failed_attempts").WithFix("wait %d seconds, then send the right key", int(wait.Seconds())+1)
	}
	who, ok := s.Whose(uuid, key)
	if !ok {
		s.guesses.wrong(remote)
		return Subject{}, bad
	}
	s.guesses.right(remote, hash)
	return who, nil
}

// Whose returns whose key it is, if it opens anything: a blocked subject's does not. It is for keys that
// this server keeps; those that are sent are for Authenticate.
func (s *Subjects) Whose(uuid, key string) (Subject, bool) {
	s.mu.RLock()
	k := s.byUUID[uuid]
	s.mu.RUnlock()
	var found *subjectKeyRecord
	want := strings.Repeat("0", 2*sha256.Size) // compared all the same, so that the time taken does not tell which there are
	if k != nil {
		for i := range k.Keys {
			if k.Keys[i].UUID == uuid {
				found, want = &k.Keys[i], k.Keys[i].Sum
			}
		}
	}
	sum := sha256.Sum256([]byte(key))
	same := subtle.ConstantTimeCompare([]byte(hex.EncodeToString(sum[:])), []byte(want)) == 1
	if !same || found == nil || k.Blocked || len(key) != subjectKeyLength {
		return Subject{}, false
	}
	return Subject{Name: k.Name, Namespace: found.Namespace, UUID: uuid, Key: key}, true
}

// Put makes a key of a subject for a namespace, and the subject if there is none, and returns it
// whole; this is the only time it is seen. A given uuid and key are taken over, as they come from
// another installation; empty: new ones are made. A subject has one key for a namespace: there is
// Conflict if it has one, unless replace.
func (s *Subjects) Put(ctx context.Context, name, namespace, uuid, key string, replace bool) (Subject, error) {
	const op = "create subject"
	switch {
	case len(name) < 5 || len(name) > maxSubject || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return Subject{}, faas.Errorf(faas.Invalid, op, "a subject's name has from 5 to %d characters, and %.80q has not", maxSubject, name).
			WithFix("take another name; that of the namespace may be any: brasa subject create NAME --of %s", namespace)
	case key != "" && len(key) != subjectKeyLength:
		return Subject{}, faas.Errorf(faas.Invalid, op, "a key has exactly %d characters, and this one has %d", subjectKeyLength, len(key))
	case uuid != "" && !isUUID(uuid):
		return Subject{}, faas.Errorf(faas.Invalid, op, "%.80q is no UUID", uuid)
	case (uuid == "") != (key == ""):
		return Subject{}, faas.Errorf(faas.Invalid, op, "a UUID and its key are given together")
	}
	if uuid == "" {
		uuid, key = newUUID(), rand.Text()+rand.Text()+rand.Text()
		key = key[:subjectKeyLength]
	}
	sum := sha256.Sum256([]byte(key))
	made := subjectKeyRecord{SubjectKey{Namespace: namespace, UUID: uuid, Created: time.Now().UTC()}, hex.EncodeToString(sum[:])}
	err := s.change(ctx, name, func(r *subjectRecord) error {
		s.mu.RLock()
		of := s.byUUID[uuid]
		s.mu.RUnlock()
		elsewhere := func(k subjectKeyRecord) bool { return k.UUID == uuid && k.Namespace != namespace }
		if of != nil && (of.Name != name || !replace || slices.ContainsFunc(r.Keys, elsewhere)) {
			return faas.Errorf(faas.Conflict, op, "the UUID %s is in use", uuid)
		}
		at := slices.IndexFunc(r.Keys, func(k subjectKeyRecord) bool { return k.Namespace == namespace })
		switch {
		case at < 0:
			r.Keys = append(r.Keys, made)
		case replace:
			r.Keys[at] = made
		default:
			return faas.Errorf(faas.Conflict, op, "subject %q has a key for namespace %q already", name, namespace).WithFix("replace it with --force")
		}
		return nil
	})
	return Subject{Name: name, Namespace: namespace, UUID: uuid, Key: key}, err
}

// Block keeps a subject's keys from being taken, or has them taken again.
func (s *Subjects) Block(ctx context.Context, name string, blocked bool) error {
	if _, err := s.Get(name); err != nil {
		return err
	}
	return s.change(ctx, name, func(r *subjectRecord) error { r.Blocked = blocked; return nil })
}

// Delete removes a subject's key for a namespace, or with "" the subject.
func (s *Subjects) Delete(ctx context.Context, name, namespace string) error {
	const op = "delete subject"
	if _, err := s.Get(name); err != nil {
		return err
	}
	return s.change(ctx, name, func(r *subjectRecord) error {
		n := len(r.Keys)
		r.Keys = slices.DeleteFunc(r.Keys, func(k subjectKeyRecord) bool { return namespace == "" || k.Namespace == namespace })
		if namespace != "" && len(r.Keys) == n {
			return faas.Errorf(faas.NotFound, op, "subject %q has no key for namespace %q", name, namespace)
		}
		return nil
	})
}

// NamespaceName is what OpenWhisk calls a namespace of the catalog: the name that subjects have keys of,
// if any has, else the same.
func (s *Subjects) NamespaceName(native string) string {
	if !faas.Encoded(native) {
		return native
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if of, known := s.spaces[native]; known {
		return of.name
	}
	return native
}

// Get returns a subject, or NotFound.
func (s *Subjects) Get(name string) (SubjectInfo, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	k := s.subjects[name]
	if k == nil {
		return SubjectInfo{}, faas.Errorf(faas.NotFound, "look up subject", "there is no subject %.80q", name).WithFix("see which there are: brasa subject ls")
	}
	return k.info(), nil
}

// List returns all subjects in the order of their names.
func (s *Subjects) List() []SubjectInfo {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]SubjectInfo, 0, len(s.subjects))
	for _, k := range s.subjects {
		out = append(out, k.info())
	}
	slices.SortFunc(out, func(a, b SubjectInfo) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func isUUID(s string) bool {
	if len(s) != uuidLength {
		return false
	}
	for i, c := range s {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return false
			}
		} else if !strings.ContainsRune("0123456789abcdefABCDEF", c) {
			return false
		}
	}
	return true
}

// newUUID returns a random one (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
