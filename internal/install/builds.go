package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

const (
	logKeep = 7 * 24 * time.Hour
	// logsMost is what the logs of one namespace may take; the oldest go first.
	logsMost = 256 * faas.MiB
	// Of a log that is longer, its beginning and its end are kept.
	logHead = 3 * faas.MiB
	logTail = 1 * faas.MiB
)

// Builds keeps what was written while functions were installed and built, for a week. It is safe for
// concurrent use.
type Builds struct {
	dir string
	log *slog.Logger
}

// BuildInfo is what is known of one build.
type BuildInfo struct {
	ID       faas.ID       `json:"id"`
	Function string        `json:"function,omitempty" doc:"Empty for ad-hoc code"`
	Began    time.Time     `json:"began"`
	Took     faas.Duration `json:"took_ms"`
	Outcome  string        `json:"outcome" doc:"ok, the code of what went wrong, or running"`
	Message  string        `json:"message,omitempty" doc:"What went wrong"`
	Bytes    faas.Bytes    `json:"log_bytes"`
}

const running = "running"

// OpenBuilds makes the directory if need be, and says of builds that a killed predecessor left that
// they were cut off.
func OpenBuilds(dir string, logger *slog.Logger) (*Builds, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	b := &Builds{dir: dir, log: logger}
	err := b.each(func(file string, info BuildInfo) error {
		if info.Outcome != running {
			return nil
		}
		info.Outcome, info.Message = faas.Unavailable.String(), "the server was stopped"
		return writeInfo(file, info)
	})
	return b, err
}

// Begin returns the log of a build that is about to begin. Nothing is kept of it before the first
// Write. The caller calls End.
func (b *Builds) Begin(namespaceUID, function string) *Build {
	return &Build{in: b, dir: filepath.Join(b.dir, namespaceUID), info: BuildInfo{Function: function, Outcome: running}}
}

// Build is the log of one build. It is safe for concurrent use.
type Build struct {
	in  *Builds
	dir string

	mu      sync.Mutex
	info    BuildInfo // guarded by mu
	file    *os.File  // nil: nothing has been written; guarded by mu
	tail    Tail      // what is over logHead; guarded by mu
	dropped int64     // guarded by mu
	broken  bool      // guarded by mu
}

// ID returns what the build is called, empty if there is nothing to be read of it.
func (b *Build) ID() faas.ID {
	if b == nil {
		return ""
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.info.ID
}

// Write adds to the log. It does not fail: a build does not end because its log cannot be kept.
func (b *Build) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file == nil && !b.broken {
		b.open()
	}
	if b.broken {
		return len(p), nil
	}
	b.info.Bytes += faas.Bytes(len(p))
	rest := p
	if room := int64(logHead) - (int64(b.info.Bytes) - int64(len(p))); room > 0 {
		n := min(room, int64(len(p)))
		if _, err := b.file.Write(p[:n]); err != nil {
			b.lost(err)
			return len(p), nil
		}
		rest = p[n:]
	}
	if len(rest) > 0 {
		b.tail.Most = int(logTail)
		before := b.tail.buf.Len() + len(rest)
		_, _ = b.tail.Write(rest)
		b.dropped += int64(before - b.tail.buf.Len())
	}
	return len(p), nil
}

// open is called with mu held.
func (b *Build) open() {
	now := time.Now()
	b.info.ID, b.info.Began = faas.NewID(now), now.UTC()
	err := os.MkdirAll(b.dir, 0o700)
	if err == nil {
		b.file, err = os.OpenFile(b.path(".log"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err == nil {
		err = writeInfo(b.path(".json"), b.info)
	}
	if err != nil {
		b.lost(err)
	}
}

// lost is called with mu held.
func (b *Build) lost(err error) {
	b.in.log.Warn("the log of a build is not kept", "build", string(b.info.ID), "error", err)
	b.broken = true
}

func (b *Build) path(ext string) string { return filepath.Join(b.dir, string(b.info.ID)+ext) }

// End says what became of the build.
func (b *Build) End(failed error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file == nil {
		return
	}
	b.info.Took, b.info.Outcome = faas.Duration(time.Since(b.info.Began)), faas.CodeOf(failed).String()
	if failed != nil {
		b.info.Message = clip(faas.AsError(failed).Message(), 500)
	}
	var err error
	if b.dropped > 0 {
		_, err = fmt.Fprintf(b.file, "\n… %d bytes are left out …\n", b.dropped)
	}
	if b.tail.buf.Len() > 0 {
		_, werr := b.file.Write(b.tail.buf.Bytes())
		err = errors.Join(err, werr)
	}
	if err = errors.Join(err, b.file.Close(), writeInfo(b.path(".json"), b.info)); err != nil {
		b.lost(err)
	}
}

func writeInfo(file string, info BuildInfo) error {
	b, err := json.Marshal(info)
	if err != nil {
		return err
	}
	// In one step, because it may be read at any time.
	if err := os.WriteFile(file+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// List returns the builds of a namespace, the newest first.
func (b *Builds) List(namespaceUID string) ([]BuildInfo, error) {
	out := []BuildInfo{}
	files, err := filepath.Glob(filepath.Join(b.dir, filepath.Base(namespaceUID), "*.json"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if info, err := readInfo(file); err == nil {
			out = append(out, info)
		}
	}
	slices.SortFunc(out, func(x, y BuildInfo) int { return strings.Compare(string(y.ID), string(x.ID)) })
	return out, nil
}

// Log opens what a build wrote so far. The id may be its first digits, if no other build has the
// same. The caller closes it.
func (b *Builds) Log(namespaceUID, id string) (BuildInfo, io.ReadCloser, error) {
	const op = "read build log"
	all, err := b.List(namespaceUID)
	if err != nil {
		return BuildInfo{}, nil, err
	}
	var found []BuildInfo
	for _, info := range all {
		if id != "" && strings.HasPrefix(string(info.ID), id) {
			found = append(found, info)
		}
	}
	switch len(found) {
	case 0:
		return BuildInfo{}, nil, faas.Errorf(faas.NotFound, op, "there is no build %q, or it is older than a week", clip(id, 40)).
			WithFix("see which there are: brasa builds ls")
	case 1:
	default:
		return BuildInfo{}, nil, faas.Errorf(faas.Invalid, op, "%d builds begin with %q", len(found), clip(id, 40)).WithFix("write more of its id")
	}
	f, err := os.Open(filepath.Join(b.dir, filepath.Base(namespaceUID), string(found[0].ID)+".log"))
	if errors.Is(err, fs.ErrNotExist) {
		return found[0], io.NopCloser(bytes.NewReader(nil)), nil
	}
	return found[0], f, err
}

func readInfo(file string) (info BuildInfo, err error) {
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &info)
	}
	if err == nil && string(info.ID)+".json" != filepath.Base(file) {
		err = fmt.Errorf("%s describes build %q", file, info.ID)
	}
	return info, err
}

func (b *Builds) each(f func(file string, info BuildInfo) error) error {
	files, err := filepath.Glob(filepath.Join(b.dir, "*", "*.json"))
	if err != nil {
		return err
	}
	var errs []error
	for _, file := range files {
		if info, err := readInfo(file); err == nil {
			errs = append(errs, f(file, info))
		} else if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, os.Remove(file))
		}
	}
	return errors.Join(errs...)
}

// Collect removes logs that are old, too many, or of namespaces that are no more.
func (b *Builds) Collect(namespace func(uid string) bool) error {
	dirs, err := os.ReadDir(b.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range dirs {
		if !namespace(d.Name()) {
			errs = append(errs, os.RemoveAll(filepath.Join(b.dir, d.Name())))
			continue
		}
		all, err := b.List(d.Name())
		errs = append(errs, err)
		sum := faas.Bytes(0)
		for _, info := range all { // the newest first
			sum += min(info.Bytes, logHead+logTail) + 4*faas.KiB
			if info.Outcome == running || time.Since(info.Began) <= logKeep && sum <= logsMost {
				continue
			}
			for _, ext := range []string{".log", ".json"} {
				if err := os.Remove(filepath.Join(b.dir, d.Name(), string(info.ID)+ext)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					errs = append(errs, err)
				}
			}
		}
	}
	return errors.Join(errs...)
}
