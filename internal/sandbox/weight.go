package sandbox

import (
	"os"
	"path/filepath"
	"strconv"
)

// Weigh sets what the sandbox counts for where processors are scarce, in thousandths of a core, and
// leaves alone what it may use of them at most. Where the host has no control group for it nothing
// happens. It lasts until the next Weigh, or until another limit of processors is set.
func (s *Sandbox) Weigh(millis int) error {
	if s.group == nil {
		return nil
	}
	return s.group.weigh(millis)
}

func (g *cgroup) weigh(millis int) error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.shut || !g.layout.has["cpu"] {
		return nil
	}
	name := filepath.Base(g.dirs[0])
	dir, file, value := filepath.Join(g.layout.parents["cpu"], name), "cpu.shares", max(millis*1024/1000, 2)
	if g.layout.version == 2 {
		dir, file, value = g.dirs[0], "cpu.weight", min(max(millis/10, 1), 10000)
	}
	err := writeGroupFile(dir, file, strconv.Itoa(value))
	if os.IsNotExist(err) {
		return nil // it is being removed
	}
	return err
}
