package catalog

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/brasa-dev/brasa/internal/store"
)

// keyBytes is the length of the master key and of data keys: AES-256.
const keyBytes = 32

// LoadKey reads the master key from the file at path and makes one there if there is no file. It
// refuses a file that others than its owner may read or that belongs to another user. The file
// belongs into every backup: without it the secrets cannot be read.
func LoadKey(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		key := make([]byte, keyBytes)
		_, _ = rand.Read(key) // never fails: crypto/rand aborts the process instead
		if err := store.WriteFile(path, key, 0o600); err != nil {
			return nil, fmt.Errorf("make master key: %w", err)
		}
		return key, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read master key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read master key: %q is not a plain file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("read master key: %q has mode %04o, so others may have read it; set it with: chmod 600 %s", path, mode, path)
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok && int(s.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("read master key: %q belongs to user %d and this process runs as %d", path, s.Uid, os.Geteuid())
	}
	key, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read master key: %w", err)
	}
	if len(key) != keyBytes {
		return nil, fmt.Errorf("read master key: %q has %d bytes, want %d; restore it from the backup", path, len(key), keyBytes)
	}
	return key, nil
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	if len(key) != keyBytes {
		return nil, fmt.Errorf("it has %d bytes, want %d", len(key), keyBytes)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	// The nonce is random and in front of the text; a key seals a few thousand texts, far from
	// the 2^32 after which that is no longer safe.
	return cipher.NewGCMWithRandomNonce(block)
}

// seal binds the text to what it is for, so that a sealed text cannot be moved to another place.
func seal(a cipher.AEAD, text []byte, purpose string) []byte {
	return a.Seal(nil, nil, text, []byte(purpose))
}

func unseal(a cipher.AEAD, sealed []byte, purpose string) ([]byte, error) {
	return a.Open(nil, nil, sealed, []byte(purpose))
}
