package trigger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// watcher tells of what happens in directories. It asks the kernel itself: what libraries for many
// systems have in common does not tell that a file was closed after it was written.
type watcher struct {
	file   *os.File
	events chan watched
	dirs   map[int32]string // by the kernel's number, paths below the root; used by one goroutine
}

// watched is something that happened.
type watched struct {
	number int32
	mask   uint32
	name   string
	err    error // there will be no more
}

const watchMask = unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_CREATE | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

func newWatcher() (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if errors.Is(err, unix.EMFILE) {
		return nil, fmt.Errorf("directories can't be watched: %w; the system's fs.inotify.max_user_instances is how many watchers there may be", err)
	}
	if err != nil {
		return nil, fmt.Errorf("directories can't be watched: %w", err)
	}
	w := &watcher{file: os.NewFile(uintptr(fd), "inotify"), events: make(chan watched), dirs: map[int32]string{}}
	return w, nil
}

// add watches a directory that is open.
func (w *watcher) add(dir *os.File, rel string) (int32, error) {
	var number int
	var addErr error
	raw, err := w.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	// By its number in this process, so that no name is resolved anew.
	err = raw.Control(func(fd uintptr) {
		number, addErr = unix.InotifyAddWatch(int(fd), fmt.Sprintf("/proc/self/fd/%d", dir.Fd()), watchMask)
	})
	if errors.Is(addErr, unix.ENOSPC) {
		return 0, fmt.Errorf("directory %q can't be watched: the system's fs.inotify.max_user_watches is reached", rel)
	}
	if err = errors.Join(err, addErr); err != nil {
		return 0, fmt.Errorf("directory %q can't be watched: %w", rel, err)
	}
	w.dirs[int32(number)] = rel
	return int32(number), nil
}

// keep ends the watch of directories other than these.
func (w *watcher) keep(these map[int32]bool) {
	raw, err := w.file.SyscallConn()
	if err != nil {
		return // it is closed
	}
	for number := range w.dirs {
		if these[number] {
			continue
		}
		delete(w.dirs, number)
		_ = raw.Control(func(fd uintptr) {
			_, _ = unix.InotifyRmWatch(int(fd), uint32(number)) // or the directory is gone already
		})
	}
}

// read hands out what happens until the watcher is closed or stop is.
func (w *watcher) read(stop <-chan struct{}) {
	buf := make([]byte, 64<<10)
	for {
		n, err := w.file.Read(buf)
		for b := buf[:max(n, 0)]; len(b) >= unix.SizeofInotifyEvent; {
			e := watched{number: int32(binary.NativeEndian.Uint32(b)), mask: binary.NativeEndian.Uint32(b[4:])}
			end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
			if end > len(b) {
				break
			}
			e.name = strings.TrimRight(string(b[unix.SizeofInotifyEvent:end]), "\x00")
			b = b[end:]
			select {
			case w.events <- e:
			case <-stop:
				return
			}
		}
		if err != nil {
			select {
			case w.events <- watched{err: fmt.Errorf("the watch of directories ended: %w", err)}:
			case <-stop:
			}
			return
		}
	}
}

// What an event means.
type meaning int

const (
	nothing meaning = iota
	aFile           // it may be there to be told of
	aChange         // directories are not what they were
	theEnd          // the directory is gone
)

// meaning says what an event means, and of which path.
func (w *watcher) meaning(e watched) (meaning, string) {
	if e.mask&unix.IN_Q_OVERFLOW != 0 {
		return aChange, ""
	}
	dir, ok := w.dirs[e.number]
	switch {
	case !ok:
		return nothing, ""
	case e.mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_UNMOUNT|unix.IN_IGNORED) != 0:
		if dir == "." {
			return theEnd, ""
		}
		return aChange, ""
	case e.mask&unix.IN_ISDIR != 0:
		return aChange, ""
	case e.mask&(unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO) != 0:
		return aFile, path.Join(dir, e.name)
	}
	return nothing, "" // a file that was made and is written yet, or that went away
}
