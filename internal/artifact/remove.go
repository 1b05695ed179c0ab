package artifact

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// RemoveTree removes a directory and all below it; none there is no error. It follows no link, takes
// directories that are read-only, and holds two descriptors however deep the tree is: what programs of
// others have written may be deeper than there are descriptors, or than a path may be long. Nobody
// else may move directories in it meanwhile.
func RemoveTree(path string) error {
	dir, err := openDir(unix.AT_FDCWD, path)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return os.Remove(path)
	case err != nil:
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	defer func() { _ = dir.Close() }() // nothing is written to it
	var down []string
	for {
		name, err := clearDir(dir)
		if err != nil {
			return &os.PathError{Op: "remove what is in", Path: path, Err: err}
		}
		var next *os.File
		switch {
		case name != "":
			down = append(down, name)
			next, err = openDir(int(dir.Fd()), name)
		case len(down) > 0:
			next, err = openDir(int(dir.Fd()), "..")
		default:
			return os.Remove(path)
		}
		if err == nil {
			_ = dir.Close() // as above
			dir = next
			if name == "" {
				err = unix.Unlinkat(int(dir.Fd()), down[len(down)-1], unix.AT_REMOVEDIR)
				down = down[:len(down)-1]
			}
		}
		if err != nil {
			return &os.PathError{Op: "remove what is in", Path: path, Err: err}
		}
	}
}

func openDir(at int, name string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(at, name, flags, 0)
	if errors.Is(err, unix.EACCES) && unix.Fchmodat(at, name, 0o700, 0) == nil {
		fd, err = unix.Openat(at, name, flags, 0)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// clearDir removes what is in a directory but for directories that are not empty, of which it returns
// the first it comes to.
func clearDir(dir *os.File) (deeper string, err error) {
	const some = 128 // the directory is read anew each time that one comes back to it
	fd := int(dir.Fd())
	if err := unix.Fchmod(fd, 0o700); err != nil && !errors.Is(err, unix.EPERM) {
		return "", err
	}
	for {
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return "", err
		}
		names, err := dir.Readdirnames(some)
		if errors.Is(err, io.EOF) || err == nil && len(names) == 0 {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		for _, name := range names {
			err := unix.Unlinkat(fd, name, 0)
			if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
				err = unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
			}
			switch {
			case err == nil, errors.Is(err, unix.ENOENT):
			case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST):
				return name, nil
			default:
				return "", err
			}
		}
	}
}
