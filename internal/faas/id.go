package faas

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// ID names one invocation and the activation that records it: 32 lower-case hexadecimal
// digits that are a UUID version 7 (RFC 9562) without its dashes. The leading 48 bits are the
// time in milliseconds, so sorting by ID is sorting by begin.
type ID string

// NewID returns a fresh ID for the time now. It is safe for concurrent use.
func NewID(now time.Time) ID {
	var b [16]byte
	_, _ = rand.Read(b[6:]) // never fails: crypto/rand aborts the process instead
	ms := uint64(now.UnixMilli())
	binary.BigEndian.PutUint16(b[0:], uint16(ms>>32))
	binary.BigEndian.PutUint32(b[2:], uint32(ms))
	b[6] = b[6]&0x0f | 0x70 // version 7
	b[8] = b[8]&0x3f | 0x80 // variant of RFC 9562
	return ID(hex.EncodeToString(b[:]))
}

// ParseID checks that s has the form of an ID. Dashes, as other tools print UUIDs, are taken.
func ParseID(s string) (ID, error) {
	t := strings.ToLower(strings.ReplaceAll(s, "-", ""))
	if len(t) != 32 {
		return "", Errorf(Invalid, "parse id", "%q is not an invocation id: want 32 hexadecimal digits", clip(s))
	}
	if _, err := hex.DecodeString(t); err != nil {
		return "", Errorf(Invalid, "parse id", "%q is not an invocation id: want 32 hexadecimal digits", clip(s))
	}
	return ID(t), nil
}

// Time returns the moment the ID was made, to the millisecond; the zero time if id is not one.
func (id ID) Time() time.Time {
	b, err := hex.DecodeString(string(id))
	if err != nil || len(b) != 16 {
		return time.Time{}
	}
	ms := uint64(binary.BigEndian.Uint16(b))<<32 | uint64(binary.BigEndian.Uint32(b[2:]))
	return time.UnixMilli(int64(ms))
}

// Digest names bytes by their content: "sha256:" and 64 hexadecimal digits.
type Digest string

// ParseDigest checks that s has the form of a Digest.
func ParseDigest(s string) (Digest, error) {
	h, ok := strings.CutPrefix(s, "sha256:")
	if b, err := hex.DecodeString(h); !ok || err != nil || len(b) != 32 || h != strings.ToLower(h) {
		return "", Errorf(Invalid, "parse digest", `%q is not a digest: want "sha256:" and 64 hexadecimal digits`, clip(s))
	}
	return Digest(s), nil
}

// Hex returns the digits without the algorithm's name; it is what files are called.
func (d Digest) Hex() string { return strings.TrimPrefix(string(d), "sha256:") }

// clip shortens what a stranger sent before it is put into a message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return fmt.Sprintf("%s… (%d bytes)", s[:most], len(s))
}
