package cli

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Packed says what Pack wrote.
type Packed struct {
	Files   int
	Bytes   faas.Bytes // before compression
	Ignored int        // files and directories left out
}

// Pack writes the directory as a tar.gz to w, file by file: nothing is held in memory. Names are
// sorted and times and owners left out, so that the same files make the same bytes. What Ignore
// names is left out. A link must point inside the directory; devices, sockets and pipes are
// refused, since the server would refuse them after the upload.
func Pack(dir string, w io.Writer) (Packed, error) {
	var p Packed
	ignore, err := NewIgnore(dir)
	if err != nil {
		return p, fmt.Errorf("read the ignore file: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return p, err
	}
	defer root.Close()
	zip := gzip.NewWriter(w)
	out := tar.NewWriter(zip)
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name == "." {
			return nil
		}
		if ignore.Match(name, d.IsDir()) {
			p.Ignored++
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		return p.add(out, root, dir, name, d)
	})
	if err != nil {
		return p, err
	}
	if p.Files == 0 {
		return p, Usagef("%s holds no files to deploy", dir).WithFix("put the function's code there, or see what %s leaves out", IgnoreFile)
	}
	if err := out.Close(); err != nil {
		return p, err
	}
	return p, zip.Close()
}

func (p *Packed) add(out *tar.Writer, root *os.Root, dir, name string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	h := &tar.Header{Name: name, Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	switch mode := info.Mode(); {
	case mode.IsDir():
		h.Typeflag, h.Name, h.Mode = tar.TypeDir, name+"/", 0o755
		return out.WriteHeader(h)
	case mode&fs.ModeSymlink != 0:
		target, err := root.Readlink(name)
		if err != nil {
			return err
		}
		inside := path.Join(path.Dir(name), filepath.ToSlash(target))
		if path.IsAbs(target) || inside == ".." || strings.HasPrefix(inside, "../") {
			return Usagef("%s is a link to %s, outside the directory", filepath.Join(dir, name), target).
				WithFix("copy the file there, or leave the link out in %s", IgnoreFile)
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
		p.Files++
		return out.WriteHeader(h)
	case !mode.IsRegular():
		return Usagef("%s is no file, directory or link", filepath.Join(dir, name)).WithFix("leave it out in %s", IgnoreFile)
	}
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return err
	}
	if info.Mode()&0o111 != 0 {
		h.Mode = 0o755
	}
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	// A file that grows while it is read must not break the archive, one that shrinks can't but.
	n, err := io.Copy(out, io.LimitReader(f, info.Size()))
	if err == nil && n < info.Size() {
		err = fmt.Errorf("%s became shorter while it was read", filepath.Join(dir, name))
	}
	p.Files++
	p.Bytes += faas.Bytes(n)
	return err
}
