package trigger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"syscall"
	"time"
)

// fileSource tells of files that were closed after they were written or moved in. What it hears
// only says where to look: what is there decides, so that what appeared while nobody listened is
// found by the next look at the directory.
type fileSource struct {
	o                  Outside
	config             fileConfig
	opened, moveOpened string // what the administrator has opened
}

// fileRun is a source at work.
type fileRun struct {
	*fileSource
	fire   Fire
	root   *os.Root
	from   *os.File // the directory, for what needs a number
	done   *os.File // the one to which files are moved; nil: none
	doneID fs.FileInfo
	watch  *watcher
	memory fileMemory
	slots  chan struct{} // holds one for each file under way
	again  chan struct{} // holds a token when a path is to be looked at again at once
	work   sync.WaitGroup

	mu    sync.Mutex
	busy  map[string]bool    // guarded by mu; paths of the files under way
	later map[string]bool    // guarded by mu; paths to be looked at again soon
	told  map[string]version // guarded by mu; of what could not be read people were told
}

const fileSoon = time.Second // after which what was put off is looked at, and the memory is saved

// Run implements Source.
func (s *fileSource) Run(ctx context.Context, fire Fire) (err error) {
	c := &s.config
	r := &fileRun{
		fileSource: s, fire: fire, slots: make(chan struct{}, c.Parallel), again: make(chan struct{}, 1), busy: map[string]bool{}, later: map[string]bool{}, told: map[string]version{},
	}
	if err := r.open(); err != nil {
		return err
	}
	defer r.close()
	known, err := r.memory.load(ctx, s.o.State, fmt.Sprintf("%s %q %v", c.Path, c.Pattern, c.Recursive))
	if err != nil {
		return fmt.Errorf("read which files were told of: %w", err)
	}
	if !known {
		if err := r.firstLook(ctx); err != nil {
			return err
		}
	}
	if r.watch, err = newWatcher(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	r.work.Go(func() { r.watch.read(ctx.Done()) })
	defer func() {
		cancel()
		r.watch.file.Close() // which ends its reader
		r.work.Wait()
		own, done := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer done()
		err = errors.Join(err, r.memory.save(own, s.o.State))
	}()
	return r.run(ctx)
}

func (r *fileRun) open() (err error) {
	c := &r.config
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.root, err = openBelow(r.opened, c.Path); err != nil {
		return explainPath("path", c.Path, err)
	}
	if r.from, err = r.root.Open("."); err != nil {
		return explainPath("path", c.Path, err)
	}
	if c.MoveTo == "" {
		return nil
	}
	root := r.root
	if path.IsAbs(c.MoveTo) {
		root, err = openBelow(r.moveOpened, c.MoveTo)
	} else {
		root, err = r.root.OpenRoot(c.MoveTo)
	}
	if err == nil {
		defer root.Close()
		r.done, err = root.Open(".")
	}
	if err != nil {
		return explainPath("move_to", c.MoveTo, err)
	}
	here, err := r.from.Stat()
	if err != nil {
		return err
	}
	if r.doneID, err = r.done.Stat(); err != nil {
		return err
	}
	if os.SameFile(here, r.doneID) {
		return fmt.Errorf("move_to: %s is the directory of path; name another", c.MoveTo)
	}
	if device(here) != device(r.doneID) {
		return fmt.Errorf("move_to: %s is on another file system than path; name a directory on the same one", c.MoveTo)
	}
	return nil
}

func (r *fileRun) close() {
	for _, f := range []*os.File{r.from, r.done} {
		if f != nil {
			f.Close()
		}
	}
	if r.root != nil {
		r.root.Close()
	}
}

// firstLook remembers what there is when the trigger begins, unless that is to be told of.
func (r *fileRun) firstLook(ctx context.Context) error {
	if r.config.From != "all" {
		err := r.walk(ctx, nil, func(rel string) {
			if info, err := r.root.Lstat(rel); err == nil && info.Mode().IsRegular() {
				r.memory.add(versionOf(rel, info))
			}
		})
		if err != nil {
			return err
		}
	}
	r.memory.dirty = true
	return r.memory.save(ctx, r.o.State)
}

func (r *fileRun) run(ctx context.Context) error {
	soon := time.NewTicker(fileSoon)
	defer soon.Stop()
	poll := time.NewTicker(r.config.Poll.D())
	defer poll.Stop()
	look := true
	for {
		if look {
			look = false
			if err := r.lookAtAll(ctx); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
			look = true
		case <-soon.C:
			if r.removed() { // of which the kernel says nothing as long as we have it open
				return r.gone()
			}
			r.lookAgain(ctx)
			if err := r.memory.save(ctx, r.o.State); err != nil && ctx.Err() == nil {
				return err
			}
		case <-r.again:
			r.lookAgain(ctx)
		case e := <-r.watch.events:
			if e.err != nil {
				return e.err
			}
			switch what, rel := r.watch.meaning(e); what {
			case aFile:
				if r.config.wanted(rel) {
					r.consider(ctx, rel, fileTries)
				}
			case aChange:
				look = true
			case theEnd:
				return r.gone()
			}
		}
	}
}

// lookAgain considers what was put off.
func (r *fileRun) lookAgain(ctx context.Context) {
	r.mu.Lock()
	later := r.later
	r.later = map[string]bool{}
	r.mu.Unlock()
	for rel := range later {
		r.consider(ctx, rel, 0)
	}
}

func (r *fileRun) gone() error {
	return fmt.Errorf("path: %s was removed or moved away; make it again", r.config.Path)
}

// removed says whether the directory has no name any more.
func (r *fileRun) removed() bool {
	info, err := r.from.Stat()
	if err != nil {
		return true
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && s.Nlink == 0
}

// lookAtAll watches all directories and considers all files.
func (r *fileRun) lookAtAll(ctx context.Context) error {
	r.memory.begin()
	these := map[int32]bool{}
	err := r.walk(ctx, func(dir *os.File, rel string) error {
		number, err := r.watch.add(dir, rel) // before its files are listed: what comes after is heard of
		these[number] = true
		return err
	}, func(rel string) { r.consider(ctx, rel, 0) })
	if err != nil || ctx.Err() != nil {
		return err
	}
	r.watch.keep(these)
	if n := r.memory.end(); n > fileKept {
		return fmt.Errorf("path: %s has %d files that stay there, and %d are remembered; have them deleted or moved with the field then", r.config.Path, n, fileKept)
	}
	return nil
}

// walk visits the directory and, if that is asked for, those below, and the paths of files that fit
// the pattern. Links are not followed.
func (r *fileRun) walk(ctx context.Context, enter func(dir *os.File, rel string) error, file func(rel string)) error {
	dirs := []string{"."}
	for n := 0; n < len(dirs) && ctx.Err() == nil; n++ {
		rel := dirs[n]
		dir, err := r.root.Open(rel)
		if err == nil {
			dirs, err = r.list(ctx, dir, rel, dirs, enter, file)
			dir.Close()
		}
		switch {
		case err == nil:
		case rel != "." && errors.Is(err, fs.ErrNotExist): // it went away meanwhile
		case rel != "." && errors.Is(err, fs.ErrPermission):
			r.o.Log.Warn("a directory can't be read", "path", path.Join(r.config.Path, rel), "cause", err)
		default:
			return explainPath("path", path.Join(r.config.Path, rel), err)
		}
		if len(dirs) > fileDirs {
			return fmt.Errorf("path: %s has more than %d directories below it; name one of them, or leave out recursive", r.config.Path, fileDirs)
		}
	}
	return nil
}

func (r *fileRun) list(ctx context.Context, dir *os.File, rel string, dirs []string, enter func(*os.File, string) error, file func(string)) ([]string, error) {
	info, err := dir.Stat()
	if err != nil || !info.IsDir() || r.done != nil && os.SameFile(info, r.doneID) {
		return dirs, err
	}
	if enter != nil {
		if err := enter(dir, rel); err != nil {
			return dirs, err
		}
	}
	for ctx.Err() == nil {
		entries, err := dir.ReadDir(1000)
		for _, e := range entries {
			below := path.Join(rel, e.Name())
			switch {
			case e.IsDir() && r.config.Recursive && e.Name()[0] != '.':
				dirs = append(dirs, below)
			case e.Type().IsRegular() && r.config.wanted(below):
				file(below)
			}
		}
		if errors.Is(err, io.EOF) {
			return dirs, nil
		}
		if err != nil {
			return dirs, err
		}
	}
	return dirs, nil
}

// fileTries is how often in quick succession a file is looked at of which it was heard that it was
// closed: the kernel says so a moment before it is.
const fileTries = 4

// consider has the functions called with a file if it is one that is to be told of. If it is being
// written it is looked at again at once for a number of times, and then later.
func (r *fileRun) consider(ctx context.Context, rel string, tries int) {
	r.mu.Lock()
	busy := r.busy[rel]
	if busy {
		r.later[rel] = true // it may be another by then
	}
	r.mu.Unlock()
	if busy {
		return
	}
	info, err := r.root.Lstat(rel)
	if err != nil || !info.Mode().IsRegular() {
		return // it went away, or is a link or a device
	}
	v := versionOf(rel, info)
	if r.memory.has(v) {
		return
	}
	data, err := r.read(v)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case errors.Is(err, errWritten) && tries > 0:
		time.Sleep(time.Millisecond << (fileTries - tries))
		r.consider(ctx, rel, tries-1)
		return
	case errors.Is(err, errWritten):
		r.mu.Lock()
		r.later[rel] = true
		r.mu.Unlock()
		return
	case err != nil:
		r.mu.Lock()
		again := r.told[rel] == v
		r.told[rel] = v
		r.mu.Unlock()
		if !again {
			r.o.PassOver(1, "a file can't be told of", "path", path.Join(r.config.Path, rel), "cause", err)
		}
		return
	}
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		return
	}
	r.mu.Lock()
	r.busy[rel] = true
	delete(r.told, rel)
	r.mu.Unlock()
	r.work.Go(func() {
		r.tell(ctx, v, data)
		r.mu.Lock()
		delete(r.busy, rel)
		again := r.later[rel]
		r.mu.Unlock()
		<-r.slots
		if again {
			select {
			case r.again <- struct{}{}:
			default:
			}
		}
	})
}
