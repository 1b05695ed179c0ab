package artifact

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/brasa-dev/brasa/internal/faas"
)

// unpacker takes entries one after the other, whatever the archive's format, and holds them to
// the rules.
type unpacker struct {
	ctx    context.Context
	dst    *os.Root
	limits Limits
	packed func() int64           // bytes of the archive so far; nil: it is not compressed
	seen   map[string]fs.FileMode // by name: fs.ModeDir, fs.ModeSymlink, or 0 for a file
	folded map[string]string      // by what the name is on a file system that ignores case or form
	sizes  map[string]int64       // of files, for hard links
	links  []string
	bytes  int64
	files  int
}

const (
	maxName = 255  // of one part; what file systems hold
	maxPath = 1024 // leaves room for the directory it is mounted at
	maxDeep = 64
	maxLink = 1024
)

func bad(format string, args ...any) error {
	return faas.Errorf(faas.Invalid, unpackOp, format, args...)
}

// checkName says whether a name, already without "." parts, means the same file everywhere and
// one below the directory it is put in.
func checkName(op, name string) error {
	bad := func(why string) error {
		return faas.Errorf(faas.Invalid, op, "the code has an entry %.100q, which %s", name, why)
	}
	switch {
	case name == "":
		return bad("has no name")
	case len(name) > maxPath:
		return bad("has too long a path")
	case !utf8.ValidString(name):
		return bad("is not UTF-8")
	case name[0] == '/':
		return bad("is an absolute path")
	case strings.Contains(name, `\`):
		return bad("has a backslash")
	case len(name) > 1 && name[1] == ':' && (name[0]|0x20) >= 'a' && (name[0]|0x20) <= 'z':
		return bad("has a drive letter")
	case strings.Count(name, "/") >= maxDeep:
		return bad("is too deep")
	}
	for _, r := range name {
		// The bidirectional controls make a name look like another one.
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return bad("has a control character")
		}
	}
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "..":
			return bad("leads out of its directory")
		case part == "" || part == ".":
			return bad("has an empty part")
		case len(part) > maxName:
			return bad("has too long a name")
		}
	}
	return nil
}

// checkLink says whether a symbolic link stays inside, whatever else is or will be there: it goes
// up first, from where it lies, and then down only, as every other link on its way does.
func checkLink(op, name, target string) error {
	bad := func(why string) error {
		return faas.Errorf(faas.Invalid, op, "the code has a symbolic link %.100q to %.100q, which %s", name, target, why)
	}
	switch {
	case target == "" || len(target) > maxLink || !utf8.ValidString(target):
		return bad("is no path")
	case strings.ContainsFunc(target, func(r rune) bool { return r < 0x20 || r == 0x7f || r == '\\' }):
		return bad("has a character that is not allowed")
	case target[0] == '/':
		return bad("is an absolute path")
	}
	if p := path.Join(path.Dir(name), target); p == ".." || strings.HasPrefix(p, "../") {
		return bad("leads out of the code")
	}
	// Behind a name that is a link itself, or comes to be one or a directory later, ".." leads
	// elsewhere than its letters say.
	named := false
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if named {
				return bad("goes up again behind a name")
			}
		default:
			named = true
		}
	}
	return nil
}

// CheckLinks says whether every symbolic link of a tree stays inside it. Whoever moves what Unpack
// has laid out must ask again, since links are relative.
func CheckLinks(tree fs.FS) error {
	return fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.Type() != fs.ModeSymlink {
			return err
		}
		target, err := fs.ReadLink(tree, name)
		if err != nil {
			return err
		}
		return checkLink(unpackOp, name, target)
	})
}

// clean takes "./" and repeated or trailing slashes away, which archivers put into names, but no
// "..": that one is for checkName to refuse.
func clean(name string) string {
	if strings.HasPrefix(name, "/") || strings.Contains("/"+name+"/", "/../") {
		return name
	}
	if name = path.Clean(name); name == "." {
		return ""
	}
	return name
}

// admit checks a new name and makes the directories above it.
func (u *unpacker) admit(name string, kind fs.FileMode) error {
	if err := u.ctx.Err(); err != nil {
		return err
	}
	if err := checkName(unpackOp, name); err != nil {
		return err
	}
	if dir := path.Dir(name); dir != "." {
		switch was, ok := u.seen[dir]; {
		case !ok:
			if err := u.dir(dir); err != nil {
				return err
			}
		case was != fs.ModeDir:
			return bad("the code has an entry %.100q below %.100q, which is not a directory", name, dir)
		}
	}
	if _, ok := u.seen[name]; ok {
		return bad("the code has two entries called %.100q", name)
	}
	fold := strings.ToLower(norm.NFC.String(name))
	if other, ok := u.folded[fold]; ok {
		return bad("the code has entries %.100q and %.100q, which are one on a file system that ignores case or Unicode form", other, name)
	}
	if len(u.seen) >= u.limits.Entries {
		return tooManyEntries(unpackOp, u.limits.Entries)
	}
	u.seen[name], u.folded[fold] = kind, name
	return nil
}

// dir makes a directory; a second time is no harm, archives repeat them.
func (u *unpacker) dir(name string) error {
	if was, ok := u.seen[name]; ok && was == fs.ModeDir {
		return nil
	}
	if err := u.admit(name, fs.ModeDir); err != nil {
		return err
	}
	return u.dst.Mkdir(name, 0o755)
}

func (u *unpacker) file(name string, mode fs.FileMode, r io.Reader) error {
	if err := u.admit(name, 0); err != nil {
		return err
	}
	if mode&0o111 != 0 {
		mode = 0o755
	} else {
		mode = 0o644
	}
	f, err := u.dst.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	before := u.bytes
	_, err = io.Copy(f, &meter{u, r})
	u.files++
	if u.sizes == nil {
		u.sizes = map[string]int64{}
	}
	u.sizes[name] = u.bytes - before
	return errors.Join(err, f.Chmod(mode), f.Close())
}

func (u *unpacker) symlink(name, target string) error {
	if err := checkLink(unpackOp, name, target); err != nil {
		return err
	}
	if err := u.admit(name, fs.ModeSymlink); err != nil {
		return err
	}
	u.links = append(u.links, name)
	return u.dst.Symlink(target, name)
}

// hardlink gives an earlier file a second name. Its bytes count twice, since a tree has no links.
func (u *unpacker) hardlink(name, target string) error {
	if kind, ok := u.seen[target]; !ok || kind != 0 {
		return bad("the code has a hard link %.100q to %.100q, which is not an earlier file of the archive", name, target)
	}
	if err := u.admit(name, 0); err != nil {
		return err
	}
	if err := u.count(u.sizes[target]); err != nil {
		return err
	}
	u.files++
	u.sizes[name] = u.sizes[target]
	return u.dst.Link(target, name)
}

// checkLinks follows every link, now that all is there: one that leads through another can leave
// the directory though its letters stay inside. Links to nothing are left alone.
func (u *unpacker) checkLinks() error {
	for _, name := range u.links {
		if err := u.ctx.Err(); err != nil {
			return err
		}
		if _, err := u.dst.Stat(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return bad("the code has a symbolic link %.100q that leads out of the code or in a circle", name)
		}
	}
	return nil
}

func (u *unpacker) count(n int64) error {
	u.bytes += n
	switch {
	case u.bytes > int64(u.limits.Bytes):
		return tooManyBytes(unpackOp, u.limits.Bytes)
	case u.packed != nil && u.bytes > ratioFloor && u.bytes/int64(u.limits.Ratio) > u.packed():
		return tooDense(u.limits.Ratio)
	}
	return nil
}

// meter counts what is read of one file.
type meter struct {
	u *unpacker
	r io.Reader
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if over := m.u.count(int64(n)); over != nil {
		return 0, over
	}
	if ended := m.u.ctx.Err(); ended != nil {
		return 0, ended
	}
	return n, err
}
