//go:build unix

package auth

import (
	"io/fs"
	"os"
	"syscall"
)

// openPlain opens a file without following a link at its end and without waiting for a pipe.
func openPlain(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
}

// exposed says why the file cannot hold a secret; "" if it can.
func exposed(info fs.FileInfo) string {
	if !info.Mode().IsRegular() {
		return "is not a plain file"
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "can be read or written by others"
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return "belongs to another user"
	}
	return ""
}
