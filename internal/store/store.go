// Package store keeps small versioned records and large objects on this machine's disk.
//
// A Store maps keys to values with compare-and-set and watch; Objects hold bytes of any length
// by name. Both come from an Engine, which is a NATS JetStream server inside this process with no
// port open, or live in memory for tests; one suite (package storetest) holds both to the same
// promises. What a Put or Delete returned without error is on the disk: it survives kill -9 and a
// power cut.
//
// The package knows keys and bytes only. What they mean is decided by its callers; no other
// package but journal and queue, which need streams, speaks to JetStream.
package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// What every implementation answers with; test with errors.Is.
var (
	ErrNotFound = errors.New("not found")                // no record under the key
	ErrConflict = errors.New("changed since read")       // the record is not at the version that was expected
	ErrFull     = errors.New("no room")                  // the store's limit or the disk is reached; nothing was acknowledged
	ErrTooLarge = errors.New("value over the limit")     // see MaxValue
	ErrKey      = errors.New("not a key")                // see ValidateKey
	ErrClosed   = errors.New("the store is closed")      // after Engine.Close
	ErrCorrupt  = errors.New("stored bytes are damaged") // an object does not match its checksum
)

// Version orders the writes of one Store: a later write, to whatever key, has a greater one.
type Version uint64

// What Put and Delete may expect besides a version that was read.
const (
	Absent Version = 0              // the key must have no record
	Any    Version = math.MaxUint64 // the last writer wins
)

// MaxValue is the most bytes that one record holds.
const MaxValue = 4 << 20

// MaxKey is the most bytes that a key has.
const MaxKey = 400

// Record is one key's state.
type Record struct {
	Key     string
	Value   []byte // not to be changed
	Version Version
	Deleted bool // only from Watch: the key has no record any more
}

// Store is a map of small records. It is safe for concurrent use, and whoever wrote reads its own
// write: a Get after a Put returns that value or a later one.
type Store interface {
	// Get returns the record of key, or ErrNotFound.
	Get(ctx context.Context, key string) (Record, error)
	// List returns the records whose keys begin with prefix and sort after after, in the order of
	// their keys, at most limit of them; 0 is no limit.
	List(ctx context.Context, prefix, after string, limit int) ([]Record, error)
	// Put writes value if the record is at version expect, and returns the new version. If not,
	// nothing is written and the error is ErrConflict. Put keeps no reference to value.
	Put(ctx context.Context, key string, value []byte, expect Version) (Version, error)
	// Delete removes the record if it is at version expect, else it is ErrConflict. A key without
	// record is ErrNotFound whatever was expected.
	Delete(ctx context.Context, key string, expect Version) error
	// Watch delivers, in the order of versions, every key under prefix whose state is newer than
	// from, and then every change. Once what existed at the call has been delivered it sends one
	// Record with an empty Key. States that were overtaken by a later one may be left out. The
	// channel is closed when ctx ends or the store is closed; a slow reader loses nothing.
	Watch(ctx context.Context, prefix string, from Version) (<-chan Record, error)
}

// ValidateKey says whether key may be used: 1 to MaxKey bytes of UTF-8 in parts divided by single
// slashes, none of them empty, at most 16.
func ValidateKey(key string) error {
	switch {
	case key == "" || len(key) > MaxKey:
		return fmt.Errorf("%w: %d bytes, want 1 to %d", ErrKey, len(key), MaxKey)
	case !utf8.ValidString(key):
		return fmt.Errorf("%w: %q is not UTF-8", ErrKey, key)
	case key[0] == '/' || key[len(key)-1] == '/' || strings.Contains(key, "//"):
		return fmt.Errorf("%w: %q has an empty part", ErrKey, key)
	case strings.Count(key, "/") > 15:
		return fmt.Errorf("%w: %q has more than 16 parts", ErrKey, key)
	}
	return nil
}

func validateValue(value []byte) error {
	if len(value) > MaxValue {
		return fmt.Errorf("%w: %d bytes, most %d", ErrTooLarge, len(value), MaxValue)
	}
	return nil
}
