package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// applier applies layers to one directory, the lowest first. All it does there goes through os.Root,
// which no link leads out of; where a layer writes through links of the layers below, they are
// resolved as the image's process would see them, with the directory as its root directory.
type applier struct {
	ctx    context.Context
	root   *os.Root
	limits Limits

	bytes   int64 // of files of all layers
	entries int
	layer   Layer // counts of the one that is being applied

	// Of the layer that is being applied, by resolved path: what it brought, and the directories
	// above that. Whiteouts take away what is below a layer and not what is in it.
	fresh   map[string]struct{}
	touched map[string]struct{}

	steps int // parts of paths that were gone through

	dirs map[string]string // directory as written to directory as resolved; emptied when one goes away
	last string            // the directory that sub is open on
	sub  *os.Root
	buf  []byte

	devices, privileged, capable int // dropped
}

func newApplier(ctx context.Context, dir string, limits Limits) (*applier, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &applier{ctx: ctx, root: root, limits: limits, dirs: map[string]string{}, buf: make([]byte, 128<<10)}, nil
}

func (a *applier) close() error {
	a.leave()
	return a.root.Close()
}

// notes says what was dropped.
func (a *applier) notes() []string {
	var out []string
	if a.devices > 0 {
		out = append(out, fmt.Sprintf("%d device nodes below /dev were left out; a sandbox has its own", a.devices))
	}
	if a.privileged > 0 {
		out = append(out, fmt.Sprintf("%d files lost their set-user-ID or set-group-ID bits, which mean nothing in a sandbox", a.privileged))
	}
	if a.capable > 0 {
		out = append(out, fmt.Sprintf("%d files lost their capabilities, which mean nothing in a sandbox", a.capable))
	}
	return out
}

// apply applies the tar of one layer.
func (a *applier) apply(r io.Reader) (Layer, error) {
	a.fresh, a.touched, a.layer = map[string]struct{}{}, map[string]struct{}{}, Layer{}
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return a.layer, nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // we look at paths ourselves
			return a.layer, damaged("the layer", err)
		}
		if err := a.ctx.Err(); err != nil {
			return a.layer, err
		}
		if err := a.entry(h, in); err != nil {
			return a.layer, err
		}
	}
}

// count holds one more entry against the limit.
func (a *applier) count() error {
	a.layer.Entries++
	if a.entries++; a.entries > a.limits.Entries {
		return tooMuch("image_entries", "the image has more than %d files and directories", a.limits.Entries)
	}
	return nil
}

func (a *applier) entry(h *tar.Header, in io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil // says nothing of any file that we keep
	}
	if err := a.count(); err != nil {
		return err
	}
	name, err := plain("entry", h.Name)
	if err != nil || name == "" { // the root itself
		return err
	}
	dir, base := path.Split(name)
	if rest, ok := strings.CutPrefix(base, whiteout); ok {
		return a.whiteout(dir, base, rest)
	}
	if refused, err := a.device(h, name); refused || err != nil {
		return err
	}
	at, err := a.dir(dir, true)
	if err != nil {
		return err
	}
	full := path.Join(at, base)
	if err := a.step(full); err != nil {
		return err
	}
	if err := a.clear(full, h.Typeflag == tar.TypeDir); err != nil {
		return err
	}
	sub, err := a.enter(at)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if err = sub.Mkdir(base, 0o755); errors.Is(err, fs.ErrExist) {
			err = nil
		}
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		err = a.file(sub, base, h, in)
	case tar.TypeSymlink:
		err = a.symlink(sub, base, h)
	case tar.TypeLink:
		err = a.hardlink(sub, base, h)
	default:
		err = bad("the entry %.100q has the type %q, which is none of a file system", h.Name, h.Typeflag)
	}
	if err != nil {
		return err
	}
	a.mark(full)
	return nil
}

// plain turns a name of a layer into a path below the root.
func plain(what, name string) (string, error) {
	if strings.Contains("/"+name+"/", "/../") {
		return "", bad("the %s %.100q leads out of its directory", what, name)
	}
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if len(name) > maxPath {
		return "", bad("the %s %.100q has a path of more than %d bytes", what, name, maxPath)
	}
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > maxName {
			return "", bad("the %s %.100q has a name of more than %d bytes", what, name, maxName)
		}
	}
	if strings.IndexByte(name, 0) >= 0 || strings.Count(name, "/") > maxDeep {
		return "", bad("the %s %.100q is no path", what, name)
	}
	return name, nil
}

const (
	maxName = 255
	maxPath = 3000 // the kernel's limit is 4096 from wherever it is mounted
	maxDeep = 128  // every file is opened from the root, part by part
	maxHops = 40   // links on the way to one file, as the kernel has it
)

// device deals with what is no file, directory or link. Below /dev it is left out, since a sandbox
// mounts its own there and many images carry some. Anywhere else a device would be a way to the
// machine if it were made, and an image that needs one cannot work: it is told so at once.
func (a *applier) device(h *tar.Header, name string) (dropped bool, err error) {
	var kind string
	switch h.Typeflag {
	case tar.TypeChar:
		kind = "a character device"
	case tar.TypeBlock:
		kind = "a block device"
	case tar.TypeFifo:
		kind = "a named pipe"
	default:
		return false, nil
	}
	if name == "dev" || strings.HasPrefix(name, "dev/") {
		a.devices++
		return true, nil
	}
	return true, bad("the entry %.100q is %s, which no sandbox may have", h.Name, kind).
		WithFix("leave it out of the image; what a program needs of that kind it makes in /tmp when it starts")
}

// file writes one file: readable by all, and executable by all if it is by anybody.
func (a *applier) file(dir *os.Root, base string, h *tar.Header, in io.Reader) error {
	const setID = 0o6000
	if h.Mode&setID != 0 {
		a.privileged++
	}
	if _, ok := h.PAXRecords["SCHILY.xattr.security.capability"]; ok {
		a.capable++
	}
	if h.Size > int64(a.limits.File) {
		return tooMuch("image_file_bytes", "the file %.100q of the image is larger than %s", h.Name, a.limits.File)
	}
	mode := fs.FileMode(0o444)
	if h.Mode&0o111 != 0 {
		mode = 0o555
	}
	f, err := dir.OpenFile(base, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, &meter{a: a, r: in}, a.buf)
	if err := errors.Join(damaged("the layer", err), f.Chmod(mode), f.Close()); err != nil {
		return err
	}
	when := clampTime(h.ModTime)
	return dir.Chtimes(base, when, when)
}

// clampTime keeps times that file systems and tars can hold.
func clampTime(t time.Time) time.Time {
	const last = 1<<33 - 1
	return time.Unix(min(max(t.Unix(), 0), last), 0)
}

// symlink makes a link as the image has it. It is followed by nobody here but dir.
func (a *applier) symlink(dir *os.Root, base string, h *tar.Header) error {
	if h.Linkname == "" || len(h.Linkname) > maxPath || strings.IndexByte(h.Linkname, 0) >= 0 {
		return bad("the symbolic link %.100q leads to %.100q, which is no path", h.Name, h.Linkname)
	}
	return dir.Symlink(h.Linkname, base)
}

// hardlink gives a file of this or a lower layer another name.
func (a *applier) hardlink(dir *os.Root, base string, h *tar.Header) error {
	name, err := plain("hard link's target", h.Linkname)
	if err != nil {
		return err
	}
	refuse := func(why string) error {
		return bad("the image has a hard link %.100q to %.100q, which %s", h.Name, h.Linkname, why)
	}
	above, file := path.Split(name)
	at, err := a.dir(above, false)
	if errors.Is(err, errAbsent) || file == "" {
		return refuse("is not an earlier file")
	}
	if err != nil {
		return err
	}
	target := path.Join(at, file)
	info, err := a.root.Lstat(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return refuse("is not an earlier file")
	case err != nil:
		return err
	case info.Mode().Type() == fs.ModeSymlink:
		to, err := a.root.Readlink(target)
		if err != nil {
			return err
		}
		return dir.Symlink(to, base)
	case !info.Mode().IsRegular():
		return refuse("is not a file")
	}
	// The link is made from the root, which both names lie below.
	return a.root.Link(target, path.Join(a.nameOf(dir), base))
}

func (a *applier) nameOf(dir *os.Root) string {
	if dir == a.root {
		return ""
	}
	return a.last
}

// meter counts what is read of one file.
type meter struct {
	a *applier
	r io.Reader
	n int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	m.a.bytes += int64(n)
	m.a.layer.Bytes += faas.Bytes(n)
	switch {
	case m.a.bytes > int64(m.a.limits.Bytes):
		return 0, tooMuch("image_bytes", "the files of the image's layers are larger than %s together", m.a.limits.Bytes)
	case m.n > int64(m.a.limits.File):
		return 0, tooMuch("image_file_bytes", "a file of the image is larger than %s", m.a.limits.File)
	}
	if ended := m.a.ctx.Err(); ended != nil {
		return 0, ended
	}
	return n, err
}
