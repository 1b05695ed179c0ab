package artifact

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// A root is a tree that becomes the whole file system of a process, such as what an image holds. It
// may have what code may not: links to absolute paths and upwards, names that only Linux takes,
// files of several names, and times, which Python's bytecode is compared with.
//
// That is safe because nobody on this machine follows its links: they are read where the root is the
// root directory, in a mount namespace of its own, and there they end inside it. Whoever reads a
// root from outside does it through os.Root, which does not let a link lead out. So that no root is
// taken for code, whose links the server does follow, its canonical tar begins with a mark: the two
// never share a digest, Tree refuses a root and Root refuses code.
const rootMark = "BRASA.root"

// kind tells trees apart: it is the directory that they are laid out in.
type kind string

const (
	code  kind = "trees"
	roots kind = "roots"
)

// WorkDir makes an empty directory where a root can be put together before PutRoot. The caller
// removes it unless PutRoot took it; what a crash leaves of it is removed at the next start.
func (d *Depot) WorkDir() (string, error) {
	dir, err := os.MkdirTemp(d.tmp(), "work-*")
	return dir, storeError("store root", err)
}

// PutRoot stores a directory, which nobody else changes, as a root and returns its digest and the
// sum of its files' sizes. A directory made by WorkDir, or below one, becomes the laid-out root
// where there is none yet, without being copied. Files, directories, symbolic links and hard links
// between its files are allowed; anything else is Invalid.
func (d *Depot) PutRoot(ctx context.Context, dir string) (faas.Digest, faas.Bytes, error) {
	const op = "store root"
	digest, size, err := d.putDir(ctx, dir)
	if err != nil {
		return "", 0, storeError(op, err)
	}
	if err := d.adopt(ctx, digest, dir); err != nil {
		// It is stored, and is laid out again when it is asked for.
		d.config.Logger.Debug("root not kept as it was unpacked", "digest", digest, "cause", err)
	}
	return digest, faas.Bytes(size), nil
}

func (d *Depot) putDir(ctx context.Context, dir string) (_ faas.Digest, size int64, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", 0, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	digest, err := d.put(ctx, func(w io.Writer) error {
		var err error
		size, err = writeTree(ctx, w, rawFS{root}, Limits{Bytes: noLimit, Entries: noLimit}, roots)
		return err
	})
	return digest, size, err
}

// adopt makes of a directory what layOut makes of its tar.
func (d *Depot) adopt(ctx context.Context, digest faas.Digest, dir string) error {
	d.mu.Lock()
	known := d.trees[digest] != nil
	d.mu.Unlock()
	if known {
		return fs.ErrExist
	}
	if err := freeze(ctx, dir); err != nil {
		return err
	}
	size, err := diskUsage(dir)
	if err != nil {
		return err
	}
	ready := make(chan struct{})
	close(ready)
	t := &tree{digest: digest, kind: roots, size: size, used: time.Now(), ready: ready}
	d.mu.Lock()
	if d.trees[digest] != nil {
		d.mu.Unlock()
		return fs.ErrExist
	}
	// It fails where one is there that was not counted yet, unless that is empty.
	if err := os.Rename(dir, d.path(roots, digest)); err != nil {
		d.mu.Unlock()
		return err
	}
	d.trees[digest] = t
	d.bytes += size
	t.refs++ // until it is noted
	d.mu.Unlock()
	noteCompared(d.path(roots, digest))
	d.release(t)
	return nil
}

// freeze gives files and directories the modes that laid-out ones have.
func freeze(ctx context.Context, dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		switch {
		case e.IsDir():
			dirs = append(dirs, p)
		case e.Type() == 0:
			info, err := e.Info()
			if err != nil {
				return err
			}
			mode := fs.FileMode(0o444)
			if info.Mode()&0o111 != 0 {
				mode = 0o555
			}
			if info.Mode() != mode {
				return os.Chmod(p, mode) // not a link, and nobody else writes here
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := os.Chmod(dirs[i], dirMode()); err != nil {
			return err
		}
	}
	return nil
}

// Root lays a root out on this machine as Tree does code. Its links are not to be followed from
// outside: read it through an os.Root or make it the root directory of a mount namespace.
func (d *Depot) Root(ctx context.Context, digest faas.Digest) (path string, release func(), err error) {
	path, _, release, err = d.lend(ctx, digest, roots)
	return path, release, err
}

// RootFrom is Root that says besides where the root was.
func (d *Depot) RootFrom(ctx context.Context, digest faas.Digest) (path string, from faas.From, release func(), err error) {
	return d.lend(ctx, digest, roots)
}

const (
	noLimit     = 1 << 40
	maxRootPath = 4000 // what the kernel takes, with room for where it is mounted
	maxRootLink = 4095
	maxRootDeep = 1000
)

func checkRootName(op, name string) error {
	bad := func(why string) error {
		return faas.Errorf(faas.Invalid, op, "the entry %.100q %s", name, why)
	}
	switch {
	case name == "":
		return bad("has no name")
	case len(name) > maxRootPath:
		return bad("has too long a path")
	case strings.IndexByte(name, 0) >= 0:
		return bad("has a zero byte in its name")
	case strings.Count(name, "/") >= maxRootDeep:
		return bad("is too deep")
	}
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == "." || part == "..":
			return bad("is not a plain path")
		case len(part) > maxName:
			return bad("has too long a name")
		}
	}
	return nil
}

func checkRootLink(op, name, target string) error {
	if target == "" || len(target) > maxRootLink || strings.IndexByte(target, 0) >= 0 {
		return faas.Errorf(faas.Invalid, op, "the symbolic link %.100q leads to %.100q, which is no path", name, target)
	}
	return nil
}

// markHeader is the first entry of a root's tar. Code has no such entries.
func markHeader() *tar.Header {
	return &tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{rootMark: "1"}}
}

func marked(h *tar.Header) bool {
	return h.Typeflag == tar.TypeXGlobalHeader && h.PAXRecords[rootMark] == "1"
}

// rawFS is a directory with whatever names it has. The one that os.Root gives takes only those that
// are UTF-8.
type rawFS struct{ root *os.Root }

func (r rawFS) Open(name string) (fs.File, error)      { return r.root.Open(name) }
func (r rawFS) ReadLink(name string) (string, error)   { return r.root.Readlink(name) }
func (r rawFS) Lstat(name string) (fs.FileInfo, error) { return r.root.Lstat(name) }
func (r rawFS) Stat(name string) (fs.FileInfo, error)  { return r.root.Stat(name) }

// second is the precision of times in a root: what a tar keeps without extensions.
func second(t time.Time) time.Time {
	const last = 1<<33 - 1 // what the field of a tar holds
	return time.Unix(min(max(t.Unix(), 0), last), 0)
}

// firstNames tells which files are one, by what the file system calls them.
type firstNames map[uint64]string

// of returns the first name under which the file was seen, which may be this one.
func (f firstNames) of(info fs.FileInfo, name string) string {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok || s.Nlink < 2 {
		return name
	}
	if first, ok := f[s.Ino]; ok {
		return first
	}
	f[s.Ino] = name
	return name
}
