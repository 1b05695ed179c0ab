package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
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
	// filesFloor is the same of what files and directories are counted by.
	filesFloor = 10_000
)

// DiskGuard ends a sandbox that writes more than it may. A quota of the kernel would be exact; but it
// needs a file system that has them, or a loop device, and neither is to be had everywhere.
type DiskGuard struct {
	Dirs    []string   // directories of the host that the sandbox writes to
	Bytes   faas.Bytes // what they may take together
	Entries int        // how many files and directories they may hold
	Op      string     // for errors
	Key     string     // of the limits, to which _bytes and _entries are added
	What    string     // takes them, for people: "the packages take"
	Fix     string

	mu   sync.Mutex
	quit chan struct{} // guarded by mu
	done chan struct{} // guarded by mu
}

// Watch looks after what box writes until Stop. It sends an error once, when it is too much.
func (g *DiskGuard) Watch(box *sandbox.Sandbox, told func(faas.Bytes)) <-chan error {
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
			size, entries, err := g.size(box)
			// A large tree takes a while to walk: the walk may cost a tenth of the time.
			pause = max(guardEvery, 9*time.Since(began))
			if err == nil {
				told(faas.Bytes(size))
				err = g.judge(size, entries)
			}
			if err != nil {
				full <- err
				return
			}
		}
	}()
	return full
}

// Stop ends the watch; a second time is no harm.
func (g *DiskGuard) Stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.quit != nil {
		close(g.quit)
		<-g.done
		g.quit = nil
	}
}

// Check looks once more.
func (g *DiskGuard) Check() error {
	size, entries, err := g.size(nil)
	if err != nil {
		return err
	}
	return g.judge(size, entries)
}

func (g *DiskGuard) judge(size int64, entries int) error {
	tooMuch := func(what, key string) error {
		return faas.Errorf(faas.TooLarge, g.Op, "%s more than %s", g.What, what).WithLimit(g.Key+key).WithFix("%s", g.Fix)
	}
	if size > int64(g.Bytes) {
		return tooMuch(g.Bytes.String()+" of disk", "_bytes")
	}
	if entries > g.Entries {
		return tooMuch(fmt.Sprint(g.Entries, " files and directories"), "_entries")
	}
	if len(g.Dirs) == 0 {
		return nil // it writes to its own /tmp alone, which is memory
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(g.Dirs[0], &fs); err != nil {
		return fmt.Errorf("look at the disk: %w", err)
	}
	full := func(what string) error {
		return faas.Errorf(faas.Unavailable, g.Op, "the server's disk is full but for %s", what).WithLimit("store_bytes").
			WithFix("the operator has to make room on the server's disk")
	}
	if free := int64(fs.Bavail) * int64(fs.Bsize); free < diskFloor {
		return full(faas.Bytes(free).String())
	}
	if fs.Files > 0 && fs.Ffree < filesFloor { // file systems that make them as they are needed say 0
		return full(fmt.Sprint(fs.Ffree, " files"))
	}
	return nil
}

// size returns what the directories take up, how much there is in them, and adds files that have no
// name any more but are still open in the sandbox.
func (g *DiskGuard) size(box *sandbox.Sandbox) (sum int64, entries int, err error) {
	seen := map[inode]bool{}
	count := func(dev, ino uint64, blocks int64, links uint64, dir bool) {
		entries++
		if id := (inode{dev, ino}); links != 1 && !dir {
			if seen[id] {
				return
			}
			seen[id] = true
		}
		sum += blocks * 512
	}
	for _, dir := range g.Dirs {
		at, err := os.Open(dir)
		if err != nil {
			return 0, 0, err
		}
		err = eachBelow(at, 0, func(st *unix.Stat_t) {
			count(st.Dev, st.Ino, st.Blocks, uint64(st.Nlink), st.Mode&unix.S_IFMT == unix.S_IFDIR)
		})
		if errors.Is(err, errTooDeep) {
			return 0, 0, faas.Errorf(faas.TooLarge, g.Op, "directories lie more than %d deep in each other", guardDeep).WithLimit(g.Key + "_entries")
		}
		if err != nil {
			return 0, 0, err
		}
	}
	if box != nil {
		eachNameless(box, func(info fs.FileInfo) {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				count(st.Dev, st.Ino, st.Blocks, uint64(st.Nlink), false)
			}
		})
	}
	return sum, entries, nil
}

// guardDeep is how deep directories may lie in each other: each costs a descriptor while they are looked
// at, no layer may be as deep, and below the length of a path programs could hide what they write.
const guardDeep = 500

var errTooDeep = errors.New("too deep")

// eachBelow tells f of all below a directory, which it closes. What comes and goes meanwhile may be left
// out. It goes from descriptor to descriptor, since paths have an end where directories have none.
func eachBelow(dir *os.File, deep int, f func(*unix.Stat_t)) error {
	defer dir.Close() // only read
	if deep > guardDeep {
		return errTooDeep
	}
	const some = 4096
	for {
		names, err := dir.Readdirnames(some)
		for _, name := range names {
			var st unix.Stat_t
			if unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
				continue // it is gone
			}
			f(&st)
			if st.Mode&unix.S_IFMT != unix.S_IFDIR {
				continue
			}
			fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			switch {
			case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
				return err
			case err != nil:
				continue // the same
			}
			if err := eachBelow(os.NewFile(uintptr(fd), name), deep+1, f); err != nil {
				return err
			}
		}
		if err != nil || len(names) == 0 {
			return nil // at its end, or it is gone
		}
	}
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
