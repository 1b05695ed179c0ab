package trigger

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

var fileKind = Kind{Name: "file", Doc: "files that appear in a directory of the server's disk", New: newFile}

// fileConfig says which files are told of, and what becomes of them.
type fileConfig struct {
	Path      string        `json:"path"`              // of the directory, below one that the administrator has opened
	Pattern   string        `json:"pattern,omitempty"` // of names, or with a slash in it of paths below the directory; default "*"
	Recursive bool          `json:"recursive,omitempty"`
	From      string        `json:"from,omitempty"`          // of a trigger that has not run before: "new" (default) or "all" files
	Then      string        `json:"then,omitempty"`          // what becomes of a file when its functions have succeeded: "keep" (default), "delete" or "move"
	MoveTo    string        `json:"move_to,omitempty"`       // of "move": a directory, below path or one that is opened
	Content   bool          `json:"content,omitempty"`       // the event has what is in the file
	Most      faas.Bytes    `json:"content_bytes,omitempty"` // of a file whose content the event has; default 1 MiB
	Parallel  int           `json:"parallel,omitempty"`      // files whose functions are under way at once; default 16
	Poll      faas.Duration `json:"poll_ms,omitempty"`       // how often the directory is looked at though nothing was heard; default 1 min
}

const (
	fileContent     = faas.MiB
	fileContentMost = 4 * faas.MiB
	fileParallel    = 16
	fileMost        = 1000
	fileDirs        = 10_000  // directories that are watched
	fileKept        = 100_000 // files that stay and are remembered
)

func newFile(o Outside, config json.RawMessage) (Source, error) {
	s := &fileSource{o: o}
	if err := Read(config, &s.config); err != nil {
		return nil, err
	}
	if err := s.config.check(); err != nil {
		return nil, err
	}
	var err error
	c := &s.config
	if s.opened, err = openedFor(o, "path", c.Path); err != nil {
		return nil, err
	}
	if path.IsAbs(c.MoveTo) {
		s.moveOpened, err = openedFor(o, "move_to", c.MoveTo)
	}
	return s, err
}

func (c *fileConfig) check() error {
	if !path.IsAbs(c.Path) || strings.ContainsRune(c.Path, 0) {
		return Invalid("path: %.200q is no path from the root of the server's disk", c.Path).WithFix(`write it as {"path": "/srv/incoming"}`)
	}
	c.Path = path.Clean(c.Path)
	c.Pattern = cmp.Or(c.Pattern, "*")
	if _, err := path.Match(c.Pattern, ""); err != nil {
		return Invalid("pattern: %.100q is no pattern", c.Pattern).WithFix("write it as *.csv, with * for any letters, ? for one and [a-z] for some")
	}
	if strings.Contains(c.Pattern, "/") && !c.Recursive {
		return Invalid("pattern: %.100q has a slash, and directories below are looked at with recursive only", c.Pattern).WithFix(`add "recursive": true`)
	}
	if c.From != "" && c.From != "new" && c.From != "all" {
		return Invalid("from is %.60q; it is new or all", c.From)
	}
	switch c.Then = cmp.Or(c.Then, "keep"); c.Then {
	case "keep", "delete", "move":
	default:
		return Invalid("then is %.60q; it is keep, delete or move", c.Then)
	}
	if (c.Then == "move") != (c.MoveTo != "") {
		return Invalid("then: move and move_to go together").WithFix(`write {"then": "move", "move_to": "done"}`)
	}
	if c.MoveTo != "" {
		c.MoveTo = path.Clean(c.MoveTo)
		if c.MoveTo == c.Path || !path.IsAbs(c.MoveTo) && (!filepath.IsLocal(c.MoveTo) || c.MoveTo == ".") || strings.ContainsRune(c.MoveTo, 0) {
			return Invalid("move_to: %.200q is neither a directory below path nor another from the root of the server's disk", c.MoveTo)
		}
	}
	if c.Most != 0 && !c.Content {
		return Invalid("content_bytes is of an event that has the content").WithFix(`add "content": true`)
	}
	c.Most = cmp.Or(c.Most, fileContent)
	if c.Most < 1 || c.Most > fileContentMost {
		return Invalid("content_bytes is %s; it is at most %s", c.Most, fileContentMost).WithLimit("content_bytes")
	}
	c.Parallel = cmp.Or(c.Parallel, fileParallel)
	if c.Parallel < 1 || c.Parallel > fileMost {
		return Invalid("parallel is %d; it is from 1 to %d", c.Parallel, fileMost).WithLimit("parallel")
	}
	c.Poll = cmp.Or(c.Poll, faas.Duration(time.Minute))
	if c.Poll < faas.Duration(time.Second) || c.Poll > faas.Duration(24*time.Hour) {
		return Invalid("poll_ms is %s; it is from 1s to 24h", c.Poll).WithLimit("poll_ms")
	}
	return nil
}

// Opened is a directory of this machine's disk that an administrator has opened to triggers.
type Opened struct {
	Namespace string // whose triggers; empty: all
	Path      string
}

// ParseOpened reads one as PATH or NAMESPACE:PATH.
func ParseOpened(s string) (Opened, error) {
	var o Opened
	if before, after, ok := strings.Cut(s, ":"); ok && !strings.HasPrefix(s, "/") {
		o.Namespace, s = before, after
		if o.Namespace == "" {
			return o, errors.New("no namespace is before the colon")
		}
	}
	if !path.IsAbs(s) || path.Clean(s) != s {
		return o, fmt.Errorf("%q is not a path from the root of the disk, such as /srv/incoming", s)
	}
	o.Path = s
	return o, nil
}

// openedFor finds the directory that an administrator has opened in which a path of a trigger's
// lies.
func openedFor(o Outside, field, p string) (string, error) {
	best := ""
	var all []string
	for _, d := range o.Files {
		if d.Namespace != "" && o.Trigger != nil && d.Namespace != o.Trigger.Namespace {
			continue
		}
		all = append(all, d.Path)
		if (p == d.Path || strings.HasPrefix(p, strings.TrimSuffix(d.Path, "/")+"/")) && len(d.Path) > len(best) {
			best = d.Path
		}
	}
	if best != "" {
		return best, nil
	}
	slices.Sort(all)
	there := "none is opened"
	if len(all) > 0 {
		there = "opened are " + strings.Join(slices.Compact(all), ", ")
	}
	return "", faas.Errorf(faas.Denied, "check trigger", "%s: %.200q is in no directory that is opened to the namespace's triggers; %s", field, p, there).
		WithFix("an administrator opens a directory of the server's disk with the key triggers.files")
}

// openBelow opens a directory that lies in an opened one. What leads out of that is refused: links
// on the way, too.
func openBelow(opened, p string) (*os.Root, error) {
	root, err := os.OpenRoot(opened)
	if err != nil {
		return nil, err
	}
	rel, err := filepath.Rel(opened, p)
	if err != nil || rel == "." {
		return root, err
	}
	defer root.Close()
	return root.OpenRoot(rel)
}

// explainPath says what is wrong with a directory that is not opened.
func explainPath(field, p string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: there is no directory %s; make it", field, p)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: the server may not read %s: %w", field, p, err)
	case strings.Contains(err.Error(), "escapes"):
		return fmt.Errorf("%s: %s leads out of the directory that is opened to triggers, by a link perhaps; name the directory itself", field, p)
	}
	return fmt.Errorf("%s: %s is not opened: %w", field, p, err)
}

// wanted says whether a file's path below the directory fits the pattern. As in a shell, what
// begins with a dot is not meant unless the pattern begins with one: it is how programs name files
// that are not ready.
func (c *fileConfig) wanted(rel string) bool {
	name := path.Base(rel)
	subject := name
	if strings.Contains(c.Pattern, "/") {
		subject = rel
	}
	if strings.HasPrefix(name, ".") && !strings.HasPrefix(path.Base(c.Pattern), ".") {
		return false
	}
	ok, err := path.Match(c.Pattern, subject)
	return err == nil && ok
}
