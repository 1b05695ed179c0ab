//go:build unix && !linux

package store

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncFilesystem asks for all filesystems to be flushed; there is no call for a single one.
func syncFilesystem(string) error { return unix.Sync() }

// freeBytes returns what an ordinary user may still write on the filesystem of dir.
func freeBytes(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}
