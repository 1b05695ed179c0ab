package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A sandbox with Spec.Root sees a tree of files in place of the host's system. That tree is
// whatever somebody packed into an image: it need not have a place for /proc, and where it has a
// name it may be a link to anywhere. It is never changed either, as it may be kept by its content.
// So an overlay lays a skeleton over it: directories and files where something is to be mounted,
// which cover what the tree has under these names. The path of a mount then leads through no link
// of the tree's.
//
// Overlay and skeleton make a base. It is made at the first use and kept for a while, since all
// sandboxes of one tree can share it, with the kernel's memory of its names. It is mounted in the
// namespace of the root's keeper, beside the root, and a sandbox gets a copy of the mount.
type bases struct {
	root *root
	dir  string // of skeletons
	etc  string // resolv.conf's text

	mu   sync.Mutex
	next int              // guarded by mu
	have map[string]*base // guarded by mu

	dropping sync.WaitGroup
}

// base is one tree, prepared.
type base struct {
	key    string
	at     string // in the keeper's namespace
	dir    string // its skeleton
	passwd string // the tree's own /etc/passwd

	made  chan struct{} // closed when err and what is above are set
	err   error
	tree  treeID    // guarded by bases.mu
	users int       // guarded by bases.mu
	used  time.Time // when the last left; guarded by bases.mu
}

// treeID tells a directory from another that has come under its path.
type treeID struct {
	dev, ino uint64
	made     unix.Timespec // inode numbers are given again
}

const (
	// baseKeep is how long a base is kept that no sandbox uses.
	baseKeep = time.Minute
	// maxPasswd is the most of an image's table of users that is taken over.
	maxPasswd = 64 << 10
)

// basePlaces are where something is mounted in every sandbox. A name that ends in a slash is a
// directory.
var basePlaces = []string{"/proc/", "/dev/", "/tmp/", "/etc/hosts", "/etc/passwd", "/etc/resolv.conf"}

// newBases removes what a predecessor left in dir.
func newBases(r *root, dir, resolver string) (*bases, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("remove old skeletons: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return &bases{root: r, dir: dir, etc: resolver, have: map[string]*base{}}, nil
}

// take returns a copy of the mount of a prepared tree, for the caller to close, and the base, which
// is to be given back. places are the targets of the sandbox's own mounts, as in basePlaces.
func (b *bases) take(ctx context.Context, tree string, places []string) (*base, int, error) {
	id, err := identify(tree)
	if err != nil {
		return nil, -1, fmt.Errorf("root: %w", err)
	}
	key := strings.Join(append([]string{tree}, places...), "\x00")
	b.mu.Lock()
	x := b.have[key]
	if x != nil && x.tree != id { // the path is another directory's now; who uses the old one keeps it
		delete(b.have, key)
		if old := x; old.users == 0 {
			b.dropping.Go(func() { b.drop(old) })
		}
		x = nil
	}
	fresh := x == nil
	if fresh {
		b.next++
		n := strconv.Itoa(b.next)
		x = &base{key: key, tree: id, at: basesAt + "/" + n, dir: filepath.Join(b.dir, n), made: make(chan struct{})}
		b.have[key] = x
	}
	x.users++
	b.mu.Unlock()
	if fresh {
		x.err = b.make(x, tree, places)
		close(x.made)
	}
	select {
	case <-x.made:
	case <-ctx.Done():
		b.give(x)
		return nil, -1, ctx.Err()
	}
	if x.err != nil {
		b.give(x)
		return nil, -1, x.err
	}
	fd := -1
	err = b.root.do(func() (err error) {
		fd, err = unix.OpenTree(unix.AT_FDCWD, x.at, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		return err
	})
	if err != nil {
		b.give(x)
		return nil, -1, fmt.Errorf("copy the mount of the root: %w", err)
	}
	return x, fd, nil
}

// give says that a user of the base is gone. One that could not be made is forgotten at once.
func (b *bases) give(x *base) {
	b.mu.Lock()
	defer b.mu.Unlock()
	x.users--
	x.used = time.Now()
	if x.users > 0 {
		return
	}
	current := b.have[x.key] == x
	select {
	case <-x.made:
		if current && x.err != nil {
			delete(b.have, x.key)
			current = false
		}
	default:
	}
	if !current {
		b.dropping.Go(func() { b.drop(x) })
	}
}

// sweep drops the bases that nobody has used for a while.
func (b *bases) sweep(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, x := range b.have {
		if x.users == 0 && now.Sub(x.used) >= baseKeep {
			delete(b.have, key)
			b.dropping.Go(func() { b.drop(x) })
		}
	}
}

// run sweeps until ctx ends.
func (b *bases) run(ctx context.Context) {
	tick := time.NewTicker(baseKeep / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			b.sweep(now)
		}
	}
}

// close drops all. No sandbox may be left.
func (b *bases) close() {
	b.sweep(time.Now().Add(baseKeep))
	b.dropping.Wait()
}

// drop unmounts a base that nobody uses. Sandboxes that are still ending hold copies of their own.
func (b *bases) drop(x *base) {
	<-x.made
	_ = b.root.do(func() error { // it is not there if it could not be made
		return errors.Join(unix.Unmount(x.at, unix.MNT_DETACH), os.Remove(x.at))
	})
	os.RemoveAll(x.dir) // what is left is removed at the next start
}

// make makes the skeleton and mounts it over the tree.
func (b *bases) make(x *base, tree string, places []string) error {
	if err := b.skeleton(x.dir, places); err != nil {
		return fmt.Errorf("make the root's skeleton: %w", err)
	}
	lower, err := unix.Open(tree, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("root %s: %w", tree, err)
	}
	defer unix.Close(lower)
	upper, err := unix.Open(x.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(upper)
	x.passwd = readPasswd(lower)
	mount, err := overlay(upper, lower)
	if err != nil {
		return err
	}
	defer unix.Close(mount)
	return b.root.do(func() error {
		if err := os.Mkdir(x.at, 0o700); err != nil {
			return err
		}
		return unix.MoveMount(mount, "", unix.AT_FDCWD, x.at, unix.MOVE_MOUNT_F_EMPTY_PATH)
	})
}

// overlay mounts the directory of upper over that of lower, read-only, attached nowhere. It is told
// them by descriptor: paths of the host would be shown in the sandbox's table of mounts.
func overlay(upper, lower int) (int, error) {
	refused := func(err error) (int, error) {
		return -1, &UnsupportedError{Feature: featureOverlay, Why: "the kernel refuses to lay one directory over another: " + err.Error(), Fix: overlayFix}
	}
	c, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return refused(err)
	}
	defer unix.Close(c)
	for key, value := range map[string]string{"source": "root", "lowerdir": fmt.Sprintf("/proc/self/fd/%d:/proc/self/fd/%d", upper, lower)} {
		if err := unix.FsconfigSetString(c, key, value); err != nil {
			return refused(err)
		}
	}
	if err := unix.FsconfigCreate(c); err != nil {
		return refused(err)
	}
	m, err := unix.Fsmount(c, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return refused(err)
	}
	return m, nil
}

// skeleton makes a directory with the places where something is mounted.
func (b *bases) skeleton(dir string, places []string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	top, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer top.Close()
	for _, place := range slices.Concat(basePlaces, places) {
		name, isDir := strings.CutSuffix(place[1:], "/")
		parent := name
		if !isDir {
			parent = path.Dir(name)
		}
		for at := range parents(parent) {
			if err := top.Mkdir(at, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			// Whatever the server's umask is, the sandbox's user must get through.
			if err := top.Chmod(at, 0o755); err != nil {
				return err
			}
		}
		if isDir {
			continue
		}
		if err := top.WriteFile(name, nil, 0o444); err != nil {
			return err
		}
		if err := top.Chmod(name, 0o444); err != nil {
			return err
		}
	}
	// It is the same for all, so nothing has to be mounted there.
	if err := top.Remove("etc/resolv.conf"); err != nil {
		return err
	}
	if err := top.WriteFile("etc/resolv.conf", []byte(b.etc), 0o444); err != nil {
		return err
	}
	return errors.Join(top.Chmod("etc/resolv.conf", 0o444), os.Chmod(dir, 0o755))
}

// parents yields "a", "a/b", "a/b/c" for "a/b/c", and nothing for ".".
func parents(name string) func(func(string) bool) {
	return func(yield func(string) bool) {
		if name == "." || name == "" {
			return
		}
		for i := range len(name) {
			if name[i] == '/' && !yield(name[:i]) {
				return
			}
		}
		yield(name)
	}
}

// readPasswd returns a tree's table of users, so that its programs find the names they know; ""
// if it has none that can be read. A link leads nowhere outside of the tree.
func readPasswd(tree int) string {
	fd, err := unix.Openat2(tree, "etc/passwd", &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return ""
	}
	f := os.NewFile(uintptr(fd), "passwd")
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPasswd+1))
	if err != nil || len(text) > maxPasswd || slices.Contains(text, 0) {
		return ""
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		text = append(text, '\n')
	}
	return string(text)
}

// identify returns what a directory is known by.
func identify(dir string) (treeID, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, 0, unix.STATX_INO|unix.STATX_BTIME|unix.STATX_TYPE, &st); err != nil {
		return treeID{}, &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return treeID{}, &fs.PathError{Op: "stat", Path: dir, Err: unix.ENOTDIR}
	}
	return treeID{uint64(st.Dev_major)<<32 | uint64(st.Dev_minor), st.Ino, unix.Timespec{Sec: st.Btime.Sec, Nsec: int64(st.Btime.Nsec)}}, nil
}

// places returns the mounts' targets as in basePlaces. Those below /tmp are made there.
func places(mounts []Mount) ([]string, error) {
	var all []string
	for _, m := range mounts {
		if strings.HasPrefix(m.Target, "/tmp/") {
			continue
		}
		info, err := os.Stat(m.Source)
		if err != nil {
			return nil, err
		}
		if info.IsDir() {
			all = append(all, m.Target+"/")
		} else {
			all = append(all, m.Target)
		}
	}
	return all, nil
}
