package faas

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// foreignPrefix begins the native names of what is called on another platform as nothing can be called
// here.
const foreignPrefix = "_as."

// NativeName is the name here of what another platform calls name: the same where it is a legal name
// here, else a readable form of it with a digest of 80 bits, so that two names never become one. The
// real name lies in the entity's Origin.
func NativeName(name string) string {
	if !strings.HasPrefix(name, foreignPrefix) && ValidateName("name", name) == nil {
		return name
	}
	const readable = 32
	var b strings.Builder
	b.WriteString(foreignPrefix)
	for i := 0; i < len(name) && b.Len() < len(foreignPrefix)+readable; i++ {
		c := name[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' {
			b.WriteByte(c)
		} else {
			b.WriteByte('-')
		}
	}
	sum := sha256.Sum256([]byte(name))
	return b.String() + "." + hex.EncodeToString(sum[:10])
}

// Encoded says whether a name is one that NativeName made of another.
func Encoded(name string) bool { return strings.HasPrefix(name, foreignPrefix) }
