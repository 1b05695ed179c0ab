package store

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrLocked is in the error of Open when another process has the data directory.
var ErrLocked = errors.New("the data directory is in use")

// lock is held on a file for as long as its descriptor is open, so it ends with the process
// however that dies; the file itself stays and holds the owner's pid for whoever comes in vain.
type lock struct{ file *os.File }

func takeLock(path string) (*lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %q: %w", path, err)
		}
		b := make([]byte, 32)
		n, _ := f.ReadAt(b, 0)
		owner := "another process"
		if pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n]))); err == nil {
			owner = fmt.Sprintf("process %d", pid)
		}
		return nil, fmt.Errorf("%w by %s (%q is locked); stop that server or give this one another directory", ErrLocked, owner, path)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %q: %w", path, err), f.Close())
	}
	return &lock{file: f}, nil
}

func (l *lock) release() error { return l.file.Close() }
