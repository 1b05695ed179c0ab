package image

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
)

// clear makes room for a new entry. A directory stays where another is to be put.
func (a *applier) clear(full string, forDir bool) error {
	info, err := a.root.Lstat(full)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if forDir && info.IsDir() {
		return nil
	}
	return a.remove(full, info)
}

func (a *applier) remove(full string, info fs.FileInfo) error {
	if info.Mode().IsRegular() {
		return a.root.Remove(full)
	}
	a.forget()
	if info.IsDir() {
		return a.root.RemoveAll(full)
	}
	return a.root.Remove(full)
}

// forget drops what is remembered of directories, since one of them goes away, or a link does that
// led to one.
func (a *applier) forget() {
	clear(a.dirs)
	a.leave()
}

func (a *applier) leave() {
	if a.sub != nil {
		_ = a.sub.Close() // nothing is buffered in it
		a.sub = nil
	}
}

// enter opens a resolved directory. Layers go from directory to directory, so the last stays open.
func (a *applier) enter(dir string) (*os.Root, error) {
	if dir == "" {
		return a.root, nil
	}
	if a.sub != nil && a.last == dir {
		return a.sub, nil
	}
	a.leave()
	sub, err := a.root.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	a.sub, a.last = sub, dir
	return sub, nil
}

func (a *applier) mark(full string) {
	a.fresh[full] = struct{}{}
	for dir := path.Dir(full); dir != "."; dir = path.Dir(dir) {
		if _, ok := a.touched[dir]; ok {
			return
		}
		a.touched[dir] = struct{}{}
	}
}

// maxSteps bounds how many parts of paths are gone through for one image: each file is reached from
// the root, and links are followed by hand. Images of 300,000 files, twelve directories deep, take half
// of it; what is deep everywhere, or replaces its own links over and over, would take hours.
const maxSteps = 8_000_000

// step counts the parts of a path that are gone through.
func (a *applier) step(path string) error {
	const look = 10_000 // between two looks at the context
	before := a.steps
	a.steps += 1 + strings.Count(path, "/")
	if a.steps > maxSteps {
		return tooMuch("image_entries", "the image's files lie so deep, or behind so many links, that it takes more than %d steps to reach them", maxSteps)
	}
	if a.steps/look != before/look {
		return a.ctx.Err()
	}
	return nil
}

// dir resolves a directory as the image's process would: links are followed, absolute ones from the
// root, and ".." ends at the root. With create set, what is missing is made; else the result is
// errAbsent. The root itself is "".
func (a *applier) dir(dir string, create bool) (string, error) {
	dir = strings.TrimRight(dir, "/")
	if dir == "" {
		return "", nil
	}
	if at, ok := a.dirs[dir]; ok {
		return at, nil
	}
	// From the directory above, which is mostly known: from the top a deep one would take the square of
	// its depth.
	above, name := path.Split(dir)
	at, err := a.dir(above, create)
	if err != nil {
		return "", err
	}
	pending, hops := []string{name}, 0
	for len(pending) > 0 {
		part := pending[0]
		pending = pending[1:]
		if err := a.step(at); err != nil {
			return "", err
		}
		switch part {
		case "", ".":
			continue
		case "..":
			if at = path.Dir(at); at == "." {
				at = ""
			}
			continue
		}
		next := path.Join(at, part)
		if len(next) > maxPath || strings.Count(next, "/") > maxDeep {
			return "", bad("the directory %.100q is too long a path", dir)
		}
		info, err := a.root.Lstat(next)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if !create {
				return "", errAbsent
			}
			if err := a.count(); err != nil {
				return "", err
			}
			if err := a.root.Mkdir(next, 0o755); err != nil {
				return "", err
			}
			a.mark(next)
			at = next
		case err != nil:
			return "", err
		case info.IsDir():
			at = next
		case info.Mode().Type() == fs.ModeSymlink:
			if hops++; hops > maxHops {
				return "", bad("the directory %.100q lies behind a circle of symbolic links", dir)
			}
			target, err := a.root.Readlink(next)
			if err != nil {
				return "", err
			}
			if strings.HasPrefix(target, "/") {
				at = ""
			}
			pending = append(strings.Split(target, "/"), pending...)
		case !create:
			return "", errAbsent
		default:
			return "", bad("the image has entries below %.100q, where %.100q is a file", dir, next)
		}
	}
	a.dirs[dir] = at
	return at, nil
}

var errAbsent = errors.New("no such directory in the layers below")
