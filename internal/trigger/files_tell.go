package trigger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brasa-dev/brasa/internal/faas"
)

// errWritten is of a file that somebody writes, or may.
var errWritten = errors.New("it is being written")

// fileYoung is how long a file has to have been left alone where nobody can say whether somebody
// writes it.
const fileYoung = 2 * time.Second

// read makes the data of the event that tells of a file. It is an error if that is not ready.
func (r *fileRun) read(v version) ([]byte, error) {
	// NONBLOCK: what is put in its place meanwhile may be a pipe without a writer.
	f, err := r.root.OpenFile(v.rel, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || versionOf(v.rel, info) != v {
		return nil, errWritten
	}
	if err := writing(f, info); err != nil {
		return nil, err
	}
	fields := map[string]any{
		"path": TextOrBytes(v.rel), "name": TextOrBytes(path.Base(v.rel)), "directory": r.config.Path, "size": v.size,
		"mtime": info.ModTime().UTC().Format(time.RFC3339Nano),
	}
	if r.config.Content {
		if v.size > int64(r.config.Most) {
			fields["content_left_out"] = true
		} else {
			b := make([]byte, v.size)
			if _, err := io.ReadFull(f, b); err != nil {
				return nil, errWritten // it became shorter
			}
			fields["content"] = TextOrBytes(string(b))
		}
	}
	data, err := encode(fields)
	if err == nil && len(data) > int(MaxData) { // what letters need in JSON
		delete(fields, "content")
		fields["content_left_out"] = true
		data, err = encode(fields)
	}
	return data, err
}

func encode(fields map[string]any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(fields)
	return bytes.TrimSpace(b.Bytes()), err
}

// writing says whether somebody has a file open to write it. The kernel gives no lease for reading
// then; where it gives none at all, a file counts as written that is young.
func writing(f *os.File, info fs.FileInfo) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var leaseErr error
	err = raw.Control(func(fd uintptr) {
		if _, leaseErr = unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_RDLCK); leaseErr == nil {
			_, leaseErr = unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_UNLCK)
		}
	})
	switch {
	case err != nil:
		return err
	case leaseErr == nil:
		return nil
	case errors.Is(leaseErr, unix.EAGAIN):
		return errWritten
	case time.Since(info.ModTime()) < fileYoung:
		return errWritten
	}
	return nil
}

// tell has the functions called and does with the file what is to be done then.
func (r *fileRun) tell(ctx context.Context, v version, data []byte) {
	where := path.Join(r.config.Path, v.rel)
	e := faas.Event{ID: v.id(), Source: "file://" + r.config.Path, Type: "brasa.file.created", Subject: v.rel, Time: time.Unix(0, v.mtime), Data: data}
	failed, err := Settle(ctx, r.o, r.fire, e)
	if err != nil {
		return // it is found again
	}
	// The dead letter has not what is in the file: that stays for whoever looks into it.
	if failed > 0 && r.config.Then != "keep" {
		r.o.Log.Warn("a file stays where it is, since functions failed", "path", where, "functions", failed)
	}
	if failed == 0 && r.config.Then != "keep" {
		switch err := r.dispose(v); {
		case err == nil:
			return
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, errWritten):
			r.mu.Lock()
			r.later[v.rel] = true // a function took it away, or it was written anew
			r.mu.Unlock()
			return
		default:
			r.o.Log.Warn("a file stays where it is; it is not told of again", "path", where, "then", r.config.Then, "cause", err)
		}
	}
	r.memory.add(v)
}

// dispose deletes or moves a file that is what it was.
func (r *fileRun) dispose(v version) error {
	info, err := r.root.Lstat(v.rel)
	if err != nil {
		return err
	}
	if versionOf(v.rel, info) != v {
		return errWritten
	}
	if r.config.Then == "delete" {
		return r.root.Remove(v.rel)
	}
	dir, err := r.root.Open(path.Dir(v.rel))
	if err != nil {
		return err
	}
	defer dir.Close()
	name := path.Base(v.rel)
	for n := 0; n < 10_000; n++ {
		to := name
		if n > 0 {
			to = fmt.Sprintf("%s.%d", name, n)
		}
		err = unix.Renameat2(int(dir.Fd()), name, int(r.done.Fd()), to, unix.RENAME_NOREPLACE)
		if !errors.Is(err, unix.EEXIST) {
			break
		}
	}
	return err
}

func device(info fs.FileInfo) uint64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Dev
	}
	return 0
}
