package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// root is the file system all sandboxes see, read-only: a small tmpfs with links, devices and a
// minimal /etc, and binds of the host's /usr and Config.RootDirs.
//
// It is built in a mount namespace of its own, which one locked thread keeps. Spawners are
// started from that thread and so begin in it. Nothing of this appears in the host's own
// mounts, and nothing is left of it when the process ends, however it ends.
type root struct {
	jobs chan func() // run on the keeper's thread
	gone chan struct{}

	mu      sync.Mutex
	targets map[string]bool // mount points made so far; guarded by mu
	top     *os.Root        // the tmpfs, writable, through a mount that is in no namespace
	dirs    []string        // what is bound from the host; fixed
}

// emptyDir and emptyFile cover what is not to be seen.
const (
	emptyDir  = "/run/empty"
	emptyFile = "/run/empty-file"
)

// errRootReadOnly is returned for a mount point within a read-only bind of the host.
var errRootReadOnly = errors.New("the mount point would lie within a read-only directory of the host and does not exist there")

// newRoot builds the file system at a mount point of its own namespace. rootless says that
// devices cannot be made and must be bound; gateway is whom sandboxes ask for names, if anyone.
func newRoot(rootDirs []string, gateway netip.Addr, rootless bool) (*root, error) {
	r := &root{jobs: make(chan func()), gone: make(chan struct{}), targets: map[string]bool{}, dirs: rootDirs}
	built := make(chan error)
	go r.keep(built, gateway, rootless)
	if err := <-built; err != nil {
		return nil, fmt.Errorf("build sandbox root: %w", err)
	}
	return r, nil
}

// keep runs on the thread that holds the namespace. The thread is never given back: the Go
// runtime ends it with the goroutine.
func (r *root) keep(built chan<- error, gateway netip.Addr, rootless bool) {
	defer close(r.gone)
	runtime.LockOSThread()
	err := r.build(gateway, rootless)
	built <- err
	if err != nil {
		return
	}
	for job := range r.jobs {
		job()
	}
	r.top.Close()
}

// do runs a job on the keeper's thread and waits for it.
func (r *root) do(job func() error) error {
	result := make(chan error, 1)
	r.jobs <- func() { result <- job() }
	return <-result
}

// close ends the keeper, and with the last spawner's end the namespace.
func (r *root) close() {
	close(r.jobs)
	<-r.gone
}

// Where things lie within the keeper's namespace: a small tmpfs at attic, in it the root, which
// spawners begin in and make their own, and beside it the bases, which are left behind with the
// attic. Any directory that exists will do for the attic, as what is mounted there is seen by
// nobody else.
const (
	attic   = "/tmp"
	at      = attic + "/root"
	basesAt = attic + "/bases"
)

func (r *root) build(gateway netip.Addr, rootless bool) error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return fmt.Errorf("make mount namespace: %w", err)
	}
	// Slave rather than private: what the host unmounts later goes here too.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make / a slave: %w", err)
	}
	if err := unix.Mount("tmpfs", attic, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700,size=1m"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	if err := unix.Mount("", attic, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make attic private: %w", err)
	}
	for _, d := range []string{at, basesAt} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("tmpfs", at, "tmpfs", unix.MS_NOSUID, "mode=755,size=64m"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	if err := unix.Mount("", at, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make root private: %w", err)
	}
	unix.Umask(0)
	defer unix.Umask(0o022)
	top, err := openWritable(at)
	if err != nil {
		return err
	}
	r.top = top
	for _, build := range []func() error{
		func() error { return r.makeTree() },
		func() error { return r.makeDev(rootless) },
		func() error { return makeEtc(top, "/etc", gateway) },
		func() error { return r.bindHost() },
	} {
		if err := build(); err != nil {
			return err
		}
	}
	if rootless {
		// The kernel lets a user namespace mount /proc only where one is in plain view.
		if err := unix.Mount("/proc", at+"/proc", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind /proc: %w", err)
		}
	}
	if err := unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID, ""); err != nil {
		return fmt.Errorf("make root read-only: %w", err)
	}
	return nil
}

// openWritable opens a directory through a copy of its mount that no namespace holds, so that
// it can still be written when the mount itself has become read-only.
func openWritable(path string) (*os.Root, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open_tree: %w", err)
	}
	defer unix.Close(fd)
	return os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d/.", fd))
}

func (r *root) makeTree() error {
	for _, d := range []string{"proc", "dev", "etc", "tmp", "usr", "run", "run/empty", "var", "var/tmp", "code", "brasa"} {
		if err := r.top.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if err := r.top.WriteFile(emptyFile[1:], nil, 0o444); err != nil {
		return err
	}
	// Programs expect these to be one thing or the other as on the host: with merged /usr they
	// are links.
	for _, d := range []string{"bin", "sbin", "lib", "lib64", "lib32", "libx32"} {
		info, err := os.Lstat("/" + d)
		if err != nil {
			continue
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			link, err := os.Readlink("/" + d)
			if err != nil {
				return err
			}
			if err := r.top.Symlink(link, d); err != nil {
				return err
			}
			continue
		}
		r.dirs = append(r.dirs, "/"+d)
	}
	return nil
}

func (r *root) makeDev(rootless bool) error {
	if err := r.top.Mkdir("dev/shm", 0o755); err != nil {
		return err
	}
	devices := []struct {
		name         string
		major, minor uint32
	}{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}}
	for _, d := range devices {
		path := filepath.Join(at, "dev", d.name)
		if !rootless {
			err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor)))
			if err == nil {
				continue
			}
			if !errors.Is(err, unix.EPERM) {
				return fmt.Errorf("make /dev/%s: %w", d.name, err)
			}
		}
		// In a container that forbids mknod, and without root, the host's own nodes do.
		f, err := r.top.Create("dev/" + d.name)
		if err != nil {
			return err
		}
		f.Close()
		if err := unix.Mount("/dev/"+d.name, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind /dev/%s: %w", d.name, err)
		}
	}
	for name, link := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if err := r.top.Symlink(link, "dev/"+name); err != nil {
			return err
		}
	}
	return nil
}

// bindHost binds the host's directories read-only, with what is mounted below them.
func (r *root) bindHost() error {
	dirs := []string{"/usr"}
	for _, d := range r.dirs {
		within := func(other string) bool { return d == other || strings.HasPrefix(d, other+"/") }
		if !slices.ContainsFunc(dirs, within) {
			dirs = append(dirs, d)
		}
	}
	slices.Sort(dirs) // a directory before those within it
	for _, d := range dirs {
		if err := r.top.MkdirAll(d[1:], 0o755); err != nil {
			return err
		}
		if err := unix.Mount(d, at+d, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s: %w", d, err)
		}
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE}
		if err := unix.MountSetattr(unix.AT_FDCWD, at+d, unix.AT_RECURSIVE, &attr); err != nil {
			return fmt.Errorf("make %s read-only: %w", d, err)
		}
	}
	r.dirs = dirs
	return nil
}

// ensureTarget makes a place where something can be mounted: an empty directory or file in the
// tmpfs. All sandboxes see it, so targets are names of ours, not of users.
func (r *root) ensureTarget(target string, dir bool) error {
	if strings.HasPrefix(target, "/tmp/") {
		return nil // made in the sandbox's own /tmp
	}
	for _, d := range r.dirs {
		if target == d || strings.HasPrefix(target, d+"/") {
			info, err := os.Stat(target)
			if err != nil || info.IsDir() != dir {
				return fmt.Errorf("%s: %w", target, errRootReadOnly)
			}
			return nil
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.targets[target] {
		return nil
	}
	name := strings.TrimPrefix(target, "/")
	if dir {
		if err := r.top.MkdirAll(name, 0o755); err != nil {
			return err
		}
	} else {
		if err := r.top.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		f, err := r.top.OpenFile(name, os.O_CREATE|os.O_RDONLY, 0o444)
		if err != nil {
			return err
		}
		f.Close()
	}
	r.targets[target] = true
	return nil
}

// detach returns a descriptor of a copy of a mount of the host that is attached nowhere, ready
// to be moved into a sandbox, where no path of the host shows.
func detach(m Mount) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, m.Source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", m.Source, err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE}
	if !m.Writable {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("restrict mount of %s: %w", m.Source, err)
	}
	return fd, nil
}

// giveTo makes a writable mount's tree belong to the sandbox's user. Links are not followed,
// and os.Root keeps the walk within the tree even if someone changes it meanwhile.
func giveTo(source string, uid int) error {
	info, err := os.Lstat(source)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return os.Lchown(source, uid, uid)
	}
	tree, err := os.OpenRoot(source)
	if err != nil {
		return err
	}
	defer tree.Close()
	return fs.WalkDir(tree.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return tree.Lchown(path, uid, uid)
	})
}

// defaultSpawners is one per core, as each makes one sandbox at a time; beyond four the kernel's
// own locks are in the way.
func defaultSpawners() int { return min(runtime.NumCPU(), 4) }
