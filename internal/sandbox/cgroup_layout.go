package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroupMount is one mounted hierarchy and where this process is in it.
type cgroupMount struct {
	v2          bool
	controllers []string
	own         string // directory of this process's own group
}

// findCgroups reads which hierarchies there are and where we are in each.
func findCgroups(mountinfo, self string) []cgroupMount {
	paths := map[string]string{} // controller, or "" for v2, to our path
	for line := range strings.Lines(self) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for c := range strings.SplitSeq(parts[1], ",") {
			paths[c] = parts[2]
		}
	}
	var found []cgroupMount
	for line := range strings.Lines(mountinfo) {
		left, right, ok := strings.Cut(strings.TrimSpace(line), " - ")
		f, g := strings.Fields(left), strings.Fields(right)
		if !ok || len(f) < 5 || len(g) < 3 {
			continue
		}
		mountRoot, point := f[3], f[4]
		switch g[0] {
		case "cgroup2":
			if path, ok := paths[""]; ok {
				found = append(found, cgroupMount{v2: true, own: ownGroup(point, mountRoot, path)})
			}
		case "cgroup":
			m := cgroupMount{}
			for option := range strings.SplitSeq(g[2], ",") {
				if path, ok := paths[option]; ok && slices.Contains(v1Controllers, option) {
					m.controllers = append(m.controllers, option)
					m.own = ownGroup(point, mountRoot, path)
				}
			}
			if len(m.controllers) > 0 {
				found = append(found, m)
			}
		}
	}
	return found
}

// ownGroup joins a mount point and our path in the hierarchy. In a container the mount shows a
// part of the hierarchy, while the path may be told from its real root.
func ownGroup(point, mountRoot, path string) string {
	if mountRoot != "/" {
		if rest, ok := strings.CutPrefix(path, mountRoot); ok {
			path = rest
		} else if strings.HasPrefix(path, "/..") {
			path = "/"
		}
	}
	// A server that was restarted within its unit finds itself in the leaf it made before.
	return filepath.Join(point, path)
}

// lookCgroups decides which kind of groups this host offers, without changing anything.
// Controllers of v1 win where there are any: in a hybrid system v2 is there but empty.
func lookCgroups(mounts []cgroupMount, prefix string) (*cgroupLayout, error) {
	l := &cgroupLayout{version: 1, parents: map[string]string{}, has: map[string]bool{}}
	for _, m := range mounts {
		for _, c := range m.controllers {
			if !writable(m.own) {
				continue
			}
			l.has[c] = true
			l.parents[c] = filepath.Join(m.own, prefix)
		}
	}
	if len(l.has) > 0 {
		if l.has["memory"] {
			_, err := os.Stat(filepath.Join(filepath.Dir(l.parents["memory"]), "memory.memsw.limit_in_bytes"))
			l.swap = err == nil
		}
		return l, nil
	}
	for _, m := range mounts {
		if !m.v2 {
			continue
		}
		if filepath.Base(m.own) == "server" {
			m.own = filepath.Dir(m.own)
		}
		text, err := os.ReadFile(filepath.Join(m.own, "cgroup.controllers"))
		if err != nil {
			return nil, err
		}
		l.version = 2
		l.parents[""] = filepath.Join(m.own, prefix)
		for _, c := range strings.Fields(string(text)) {
			l.has[c] = true
		}
		l.has["cpuacct"] = true // cpu.stat is always there
		if !writable(m.own) {
			return nil, fmt.Errorf("%s is not ours to write", m.own)
		}
		return l, nil
	}
	return nil, errors.New("no control groups are mounted")
}

// settle makes our own directories in each hierarchy.
func (l *cgroupLayout) settle() error {
	if l.version == 2 {
		parent := l.parents[""]
		if err := settle2(filepath.Dir(parent), parent); err != nil {
			return err
		}
	} else {
		for c, dir := range l.parents {
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
				return fmt.Errorf("make cgroup for %s: %w", c, err)
			}
		}
	}
	if l.has["memory"] {
		dir, name := l.parents["memory"], "memory.memsw.limit_in_bytes"
		if l.version == 2 {
			dir, name = l.parents[""], "memory.swap.max"
		}
		_, err := os.Stat(filepath.Join(dir, name))
		l.swap = err == nil
	}
	return nil
}

func writable(dir string) bool { return unix.Access(dir, unix.W_OK) == nil }

// unsettle removes our own directories again; the groups in them are gone.
func (l *cgroupLayout) unsettle() error {
	var errs []error
	for _, dir := range l.dirs() {
		errs = append(errs, removeGroup(dir))
	}
	return errors.Join(errs...)
}
