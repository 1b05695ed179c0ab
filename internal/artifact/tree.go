package artifact

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/brasa-dev/brasa/internal/faas"
)

func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// writeTree writes the canonical tar of a directory and returns the sum of its files' sizes.
// fs.WalkDir goes by name and does not follow links, which is the order and the extent we want.
func writeTree(ctx context.Context, w io.Writer, tree fs.FS, limits Limits, k kind) (int64, error) {
	const op = "pack code"
	out := tar.NewWriter(w)
	size, entries := int64(0), 0
	checkName, checkLink := checkName, checkLink
	names := firstNames{}
	if k == roots {
		checkName, checkLink = checkRootName, checkRootLink
		if err := out.WriteHeader(markHeader()); err != nil {
			return 0, err
		}
	}
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if name == "." {
			return nil
		}
		if err := checkName(op, name); err != nil {
			return err
		}
		if entries++; entries > limits.Entries {
			return tooManyEntries(op, limits.Entries)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		// Times, owners and all bits but the executable one are left at zero: they differ from
		// machine to machine.
		h := &tar.Header{Name: name, Mode: 0o644}
		switch info.Mode().Type() {
		case fs.ModeDir:
			h.Typeflag, h.Name, h.Mode = tar.TypeDir, name+"/", 0o755
			return out.WriteHeader(h)
		case fs.ModeSymlink:
			h.Typeflag = tar.TypeSymlink
			if h.Linkname, err = fs.ReadLink(tree, name); err != nil {
				return err
			}
			if err := checkLink(op, name, h.Linkname); err != nil {
				return err
			}
			return out.WriteHeader(h)
		case 0:
			h.Typeflag, h.Size = tar.TypeReg, info.Size()
			if info.Mode()&0o111 != 0 {
				h.Mode = 0o755
			}
			if k == roots {
				if first := names.of(info, name); first != name {
					h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
					return out.WriteHeader(h)
				}
				h.ModTime = second(info.ModTime())
			}
			if size += h.Size; size > int64(limits.Bytes) {
				return tooManyBytes(op, limits.Bytes)
			}
			return writeFile(ctx, out, tree, h)
		}
		return faas.Errorf(faas.Invalid, op, "%q is neither a file nor a directory nor a symbolic link", name)
	})
	if err != nil {
		return 0, err
	}
	return size, out.Close()
}

func writeFile(ctx context.Context, out *tar.Writer, tree fs.FS, h *tar.Header) (err error) {
	f, err := tree.Open(h.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(out, io.LimitReader(contextReader{ctx, f}, h.Size))
	if err == nil && n != h.Size {
		err = fmt.Errorf("%q became shorter while it was read", h.Name)
	}
	return err
}

// layTree writes a canonical tar out below dst, read-only and readable by everyone, and returns
// what it takes up on the disk. The tar is ours, but it is treated like a stranger's until its
// digest has been compared, which is after this.
func layTree(ctx context.Context, r io.Reader, dst *os.Root, k kind) (int64, error) {
	const block = 4096 // what the smallest file takes up
	in, size := tar.NewReader(r), int64(0)
	var dirs []string
	for first := true; ; first = false {
		h, err := in.Next()
		if first {
			switch isRoot := err == nil && marked(h); {
			case isRoot && k == code:
				return 0, errors.New("it is the root of an image, not code")
			case !isRoot && k == roots && (err == nil || errors.Is(err, io.EOF)):
				return 0, errors.New("it is code, not the root of an image")
			case isRoot:
				continue
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		size += (h.Size + block - 1) / block * block
		switch h.Typeflag {
		case tar.TypeDir:
			name := h.Name[:len(h.Name)-1]
			size += block
			dirs = append(dirs, name)
			err = dst.Mkdir(name, 0o755)
		case tar.TypeSymlink:
			err = dst.Symlink(h.Linkname, h.Name)
		case tar.TypeReg:
			err = layFile(dst, h, contextReader{ctx, in})
			if err == nil && k == roots {
				err = dst.Chtimes(h.Name, h.ModTime, h.ModTime)
			}
		case tar.TypeLink:
			if err = fmt.Errorf("entry %q has type %q", h.Name, h.Typeflag); k == roots {
				err = dst.Link(h.Linkname, h.Name)
			}
		default:
			err = fmt.Errorf("entry %q has type %q", h.Name, h.Typeflag)
		}
		if err != nil {
			return 0, err
		}
	}
	// What follows the last entry belongs to the digest too.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return 0, err
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := dst.Chmod(dirs[i], dirMode()); err != nil {
			return 0, err
		}
	}
	return size, dst.Chmod(".", dirMode())
}

// dirMode is the mode of laid-out directories. Sandboxes see them read-only whatever it is. To one
// who is not root it must let him move and remove them.
func dirMode() fs.FileMode {
	if os.Geteuid() == 0 {
		return 0o555
	}
	return 0o755
}

func layFile(dst *os.Root, h *tar.Header, r io.Reader) error {
	f, err := dst.OpenFile(h.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	// Group and others get what the owner gets: a sandbox runs as a user of its own.
	return errors.Join(err, f.Chmod(fs.FileMode(h.Mode)&0o555), f.Close())
}
