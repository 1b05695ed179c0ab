package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

// EnsureAdmin sees to it that an admin's key exists. At first start it makes one, writes it to
// the key file for the local command line and returns it with created set, so that the caller
// can show it this once. Later it returns the key in the file, or "" if the file is gone: then
// whoever has the key has it elsewhere. A key file that others can read is an error, since the
// key may be known to them.
func (k *Keys) EnsureAdmin(ctx context.Context) (key string, created bool, err error) {
	admins := k.List("")
	if k.cfg.File != "" {
		key, err = ReadFile(k.cfg.File)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", false, err
		}
		if err == nil && k.isAdmin(key) {
			return key, false, nil
		}
	}
	if len(admins) > 0 {
		return "", false, nil
	}
	key, info, err := k.Create(ctx, "admin", "", true)
	if err != nil {
		return "", false, err
	}
	if k.cfg.File != "" {
		if err := writeFile(k.cfg.File, key); err != nil {
			// A key that nobody can have must not count as the admin's at the next start.
			return "", false, errors.Join(err, k.Revoke(ctx, "", info.ID))
		}
	}
	return key, true, nil
}

func (k *Keys) isAdmin(key string) bool {
	id, ok := idOf(key)
	k.mu.RLock()
	defer k.mu.RUnlock()
	rec := k.byID[id]
	sum := sha256.Sum256([]byte(key))
	return ok && rec != nil && rec.Admin && subtle.ConstantTimeCompare(sum[:], rec.Hash[:]) == 1
}

// ReadFile returns the key in a file. It refuses, as Denied, a file that others than its owner
// can read or write, that belongs to somebody else, or that is not a plain file. A file that does
// not exist is fs.ErrNotExist.
func ReadFile(path string) (string, error) {
	f, err := openPlain(path)
	if err != nil {
		return "", fmt.Errorf("open key file: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("look at key file: %w", err)
	}
	if why := exposed(info); why != "" {
		return "", faas.Errorf(faas.Denied, "read key file", "%s %s, so its key may be known to others", path, why).
			WithFix("chmod 600 %s; if others may have read it, delete the file and revoke the key", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, 1024)) // a key is 83 bytes
	if err != nil {
		return "", fmt.Errorf("read key file: %w", err)
	}
	key := strings.TrimSpace(string(b))
	if _, ok := idOf(key); !ok {
		return "", faas.Errorf(faas.Invalid, "read key file", "%s does not hold a key", path)
	}
	return key, nil
}

// writeFile writes the key so that the file is whole or absent, and never readable by others.
func writeFile(path, key string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".key-") // made with mode 0600
	if err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	_, err = f.WriteString(key + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write key file: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}
