package auth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// subjectRecord is a subject as it is kept.
type subjectRecord struct {
	Name    string             `json:"subject"`
	Blocked bool               `json:"blocked,omitempty"`
	Keys    []subjectKeyRecord `json:"namespaces"`
	Created time.Time          `json:"created"`
}

type subjectKeyRecord struct {
	SubjectKey
	Sum string `json:"sha256"` // of the key, hexadecimal
}

type known struct {
	subjectRecord
	version store.Version
}

func (k *known) info() SubjectInfo {
	i := SubjectInfo{Name: k.Name, Blocked: k.Blocked, Created: k.Created}
	for _, key := range k.Keys {
		i.Keys = append(i.Keys, key.SubjectKey)
	}
	return i
}

// space is a namespace of OpenWhisk.
type space struct {
	name string // as clients call it
	keys int    // that subjects have of it
}

// Run follows changes that others make in the store, until ctx ends.
func (s *Subjects) Run(ctx context.Context) error {
	changes, err := s.store.Watch(ctx, subjectPrefix, 0)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("watch subjects: %w", err)
	}
	for r := range changes {
		if r.Key == "" {
			continue
		}
		if err := s.learn(r); err != nil {
			s.log.Error("subject ignored", "error", err)
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return errors.New("watch subjects: the store ended the watch")
}

// storeName is a subject's name as part of a key of the store; the name itself may have any characters.
func storeName(subject string) string {
	sum := sha256.Sum256([]byte(subject))
	return subjectPrefix + hex.EncodeToString(sum[:16])
}

// learn takes a record over from the store, unless a newer one is known.
func (s *Subjects) learn(r store.Record) error {
	if strings.HasPrefix(r.Key, limitsPrefix) {
		return s.learnLimits(r)
	}
	var rec subjectRecord
	if !r.Deleted {
		if err := json.Unmarshal(r.Value, &rec); err != nil {
			return fmt.Errorf("read subject %q: %w", r.Key, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.byKey[r.Key]; k != nil {
		if k.version >= r.Version {
			return nil
		}
		s.forget(k)
	}
	if r.Deleted {
		return nil
	}
	k := &known{rec, r.Version}
	s.subjects[rec.Name], s.byKey[r.Key] = k, k
	for _, key := range rec.Keys {
		s.byUUID[key.UUID] = k
		s.count(key.Namespace, 1)
	}
	return nil
}

// forget takes a subject out of the maps, if it is there. mu is held.
func (s *Subjects) forget(k *known) {
	if s.byKey[storeName(k.Name)] != k { // it was changed, or forgotten, in the meantime
		return
	}
	delete(s.subjects, k.Name)
	delete(s.byKey, storeName(k.Name))
	for _, key := range k.Keys {
		delete(s.byUUID, key.UUID)
		s.count(key.Namespace, -1)
	}
}

// count keeps account of the keys of a namespace whose name the catalog encodes. mu is held.
func (s *Subjects) count(namespace string, more int) {
	native := faas.NativeName(namespace)
	if native == namespace {
		return
	}
	keys := s.spaces[native].keys + more
	if keys == 0 {
		delete(s.spaces, native)
		return
	}
	s.spaces[native] = space{namespace, keys}
}

// change writes what f makes of a subject; one without keys is deleted.
func (s *Subjects) change(ctx context.Context, name string, f func(*subjectRecord) error) error {
	s.writers.Lock()
	defer s.writers.Unlock()
	s.mu.RLock()
	was := s.subjects[name]
	s.mu.RUnlock()
	rec, expect := subjectRecord{Name: name, Created: time.Now().UTC()}, store.Absent
	if was != nil {
		rec, expect = was.subjectRecord, was.version
		rec.Keys = slices.Clone(rec.Keys)
	}
	if err := f(&rec); err != nil {
		return err
	}
	if len(rec.Keys) == 0 {
		if was == nil {
			return nil
		}
		if err := s.store.Delete(ctx, storeName(name), expect); err != nil && !errors.Is(err, store.ErrNotFound) {
			return storeError("delete subject", err)
		}
		s.mu.Lock()
		s.forget(was)
		s.mu.Unlock()
		return nil
	}
	b, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	version, err := s.store.Put(ctx, storeName(name), b, expect)
	if errors.Is(err, store.ErrConflict) {
		return faas.Errorf(faas.Conflict, "write subject", "subject %q was changed by somebody else", name).WithFix("try again")
	}
	if err != nil {
		return storeError("write subject", err)
	}
	return s.learn(store.Record{Key: storeName(name), Value: b, Version: version})
}
