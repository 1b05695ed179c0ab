package artifact

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// comparedKey names the attribute of a tree's directory that says in which run of the machine the
// tree was compared with its digest, and what it looked like then. While the machine runs, the
// kernel keeps what was written, synced or not; and whatever is changed in a tree changes a time
// that nobody can set. So a server that is started again need not read it all once more. Only
// root may read or write this attribute; for others, and where a file system has none, trees are
// compared after every start.
const comparedKey = "trusted.brasa.compared"

// bootID tells the runs of the machine apart; empty where it isn't known.
var bootID = sync.OnceValue(func() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(b))
})

// appearance sums up what can be seen of a tree without reading its files, and tells what it
// takes up on the disk.
func appearance(path string) (look []byte, size int64, err error) {
	sum := sha256.New()
	fmt.Fprintln(sum, bootID())
	err = filepath.WalkDir(path, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		s, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("look at %s: %w", name, fs.ErrInvalid)
		}
		size += (info.Size() + diskBlock - 1) / diskBlock * diskBlock
		changed := s.Ctim
		if name == path {
			changed = syscall.Timespec{} // it changes with the attribute
		}
		fmt.Fprintf(sum, "%q %o %d %d %d %d %d %d\n", name[len(path):], s.Mode, s.Dev, s.Ino, s.Size, s.Mtim, changed, s.Uid)
		return nil
	})
	return sum.Sum(nil), size, err
}

// diskBlock is what the smallest file takes up.
const diskBlock = 4096

// noteCompared remembers that a tree has been compared with its digest.
func noteCompared(path string) {
	if bootID() == "" {
		return
	}
	if look, _, err := appearance(path); err == nil {
		_ = unix.Lsetxattr(path, comparedKey, look, 0) // else it is compared again after the next start
	}
}

// wasCompared says whether a tree is as it was when it was last compared, and what it takes up.
func wasCompared(path string) (size int64, ok bool) {
	var noted [sha256.Size]byte
	if n, err := unix.Lgetxattr(path, comparedKey, noted[:]); err != nil || n != len(noted) || bootID() == "" {
		return 0, false
	}
	look, size, err := appearance(path)
	return size, err == nil && bytes.Equal(look, noted[:])
}
