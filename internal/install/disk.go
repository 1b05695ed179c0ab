package install

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
)

const (
	// guardEvery is how often the size is looked at while a tool writes. A disk takes some hundred
	// megabytes in that time at most, which is what may be written over the limit.
	guardEvery = 200 * time.Millisecond
	// diskFloor is what is left free on the disk for everybody else.
	diskFloor = 512 << 20
)

// diskGuard ends a tool that writes more than it may. A quota of the kernel would be exact; but it
// needs a file system that has them, or a loop device, and neither is to be had everywhere.
type diskGuard struct {
	dirs []string
	most int64

	mu   sync.Mutex
	quit chan struct{} // guarded by mu
	done chan struct{} // guarded by mu
}

// watch looks after what box writes until stop. It sends an error once, when it is too much.
func (g *diskGuard) watch(box *sandbox.Sandbox, told func(faas.Bytes)) <-chan error {
	full := make(chan error, 1)
	quit, done := make(chan struct{}), make(chan struct{})
	g.mu.Lock()
	g.quit, g.done = quit, done
	g.mu.Unlock()
	go func() { // ends at stop
		defer close(done)
		pause := guardEvery
		for {
			select {
			case <-quit:
				return
			case <-time.After(pause):
			}
			began := time.Now()
			size, err := g.size(box)
			// A large tree takes a while to walk: the walk may cost a tenth of the time.
			pause = max(guardEvery, 9*time.Since(began))
			if err == nil {
				told(faas.Bytes(size))
				err = g.judge(size)
			}
			if err != nil {
				full <- err
				return
			}
		}
	}()
	return full
}

// stop ends the watch; a second time is no harm.
func (g *diskGuard) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.quit != nil {
		close(g.quit)
		<-g.done
		g.quit = nil
	}
}

// check looks once more.
func (g *diskGuard) check() error {
	size, err := g.size(nil)
	if err != nil {
		return err
	}
	return g.judge(size)
}

func (g *diskGuard) judge(size int64) error {
	if size > g.most {
		return faas.Errorf(faas.TooLarge, op, "the packages take more than %s of disk", faas.Bytes(g.most)).WithLimit("install_bytes").
			WithFix("name fewer or smaller packages, or have the operator raise install.bytes")
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(g.dirs[0], &fs); err != nil {
		return fmt.Errorf("look at the disk: %w", err)
	}
	if free := int64(fs.Bavail) * int64(fs.Bsize); free < diskFloor {
		return faas.Errorf(faas.Unavailable, op, "the server's disk is full but for %s", faas.Bytes(free)).WithLimit("store_bytes").
			WithFix("the operator has to make room on the server's disk")
	}
	return nil
}

// size returns what the directories take up, and files that have no name any more but are still
// open in the sandbox.
func (g *diskGuard) size(box *sandbox.Sandbox) (sum int64, err error) {
	seen := map[inode]bool{}
	count := func(info fs.FileInfo) {
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return
		}
		id := inode{uint64(st.Dev), st.Ino}
		if st.Nlink != 1 && !info.IsDir() {
			if seen[id] {
				return
			}
			seen[id] = true
		}
		sum += st.Blocks * 512
	}
	for _, dir := range g.dirs {
		err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
			if err != nil {
				return nil // it comes and goes while the tool works
			}
			if info, err := e.Info(); err == nil {
				count(info)
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	if box != nil {
		eachNameless(box, count)
	}
	return sum, nil
}

type inode struct{ dev, ino uint64 }

// eachNameless calls f for each file that a process of the sandbox has open and that was removed.
func eachNameless(box *sandbox.Sandbox, f func(fs.FileInfo)) {
	pids, err := box.Processes()
	if err != nil {
		return
	}
	for _, pid := range pids {
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue // it ended
		}
		for _, fd := range fds {
			name := dir + "/" + fd.Name()
			to, err := os.Readlink(name)
			if err != nil || !strings.HasSuffix(to, " (deleted)") || strings.HasPrefix(to, "/memfd:") {
				continue
			}
			if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() {
				if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink == 0 {
					f(info)
				}
			}
		}
	}
}
