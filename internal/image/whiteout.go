package image

import (
	"errors"
	"io/fs"
	"path"
	"strings"
)

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
	reserved = ".wh..wh."
)

// whiteout takes away what a lower layer brought.
func (a *applier) whiteout(dir, base, victim string) error {
	switch {
	case base != opaque && strings.HasPrefix(base, reserved):
		return nil // notes that some builders leave for themselves
	case victim == "" || victim == "." || victim == "..":
		return bad("the whiteout %.100q names no file", path.Join(dir, base))
	}
	at, err := a.dir(dir, false)
	if errors.Is(err, errAbsent) {
		return nil
	}
	if err != nil {
		return err
	}
	if base == opaque {
		return a.empty(at)
	}
	return a.removeLower(path.Join(at, victim))
}

// empty removes everything below a directory that this layer has not brought.
func (a *applier) empty(dir string) error {
	sub, err := a.enter(dir)
	if err != nil {
		return err
	}
	d, err := sub.Open(".")
	if err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	if err := errors.Join(err, d.Close()); err != nil {
		return err
	}
	for _, name := range names {
		if err := a.ctx.Err(); err != nil {
			return err
		}
		if err := a.removeLower(path.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func (a *applier) removeLower(full string) error {
	_, fresh := a.fresh[full]
	_, touched := a.touched[full]
	if fresh && !touched {
		return nil
	}
	info, err := a.root.Lstat(full)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if touched && info.IsDir() {
		return a.empty(full)
	}
	return a.remove(full, info)
}
