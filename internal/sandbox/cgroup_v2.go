package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func (g *cgroup) create2(l *cgroupLayout, name string) error {
	dir := filepath.Join(l.parents[""], name)
	if err := unix.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	g.dirs = []string{dir}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	g.into = fd
	open := func(to *int, want bool, name string, flags int) error {
		if !want {
			return nil
		}
		fd, err := openGroupFile(dir, name, flags)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
			return nil
		}
		if err == nil {
			*to = fd
		}
		return err
	}
	err = errors.Join(
		open(&g.files.cpu, true, "cpu.stat", unix.O_RDONLY),
		open(&g.files.memory, l.has["memory"], "memory.current", unix.O_RDONLY),
		// memory.peak is there since Linux 5.19 and may be written since 6.12.
		open(&g.files.peak, l.has["memory"], "memory.peak", unix.O_RDWR),
		open(&g.files.oom, l.has["memory"], "memory.events", unix.O_RDONLY),
		open(&g.files.pids, l.has["pids"], "pids.current", unix.O_RDONLY),
	)
	if err == nil && g.files.peak < 0 {
		err = open(&g.files.peak, l.has["memory"], "memory.peak", unix.O_RDONLY)
	}
	if err == nil && l.has["memory"] {
		// The sandbox ends as a whole when it is out of memory.
		err = writeGroupFile(dir, "memory.oom.group", "1")
	}
	return err
}

func (g *cgroup) limit2(memory int64, cpu, pids int) error {
	l, dir, was := g.layout, g.dirs[0], &g.bounds
	if l.has["memory"] && memory != was.memory {
		// The kernel would kill to get below a smaller limit; on v1 it refuses. A sandbox that
		// was promised less than it holds is refused here as well.
		if was.memory != 0 && memory < was.memory {
			if used, err := readNumber(g.files.memory); err == nil && used > memory {
				return fmt.Errorf("%d bytes are in use, %d are allowed: %w", used, memory, unix.EBUSY)
			}
		}
		if err := writeGroupFile(dir, "memory.max", strconv.FormatInt(memory, 10)); err != nil {
			return err
		}
		if l.swap && was.memory == 0 {
			if err := writeGroupFile(dir, "memory.swap.max", "0"); err != nil {
				return err
			}
		}
		was.memory = memory
	}
	if l.has["cpu"] && cpu != was.cpu {
		quota := strconv.Itoa(max(cpu*cpuPeriod/1000, minQuota))
		// 100 is the default and stands for a whole core, as 1024 shares do on v1.
		weight := min(max(cpu/10, 1), 10000)
		if cpu == 0 {
			quota, weight = "max", 100
		}
		if err := writeGroupFile(dir, "cpu.max", fmt.Sprintf("%s %d", quota, cpuPeriod)); err != nil {
			return err
		}
		if err := writeGroupFile(dir, "cpu.weight", strconv.Itoa(weight)); err != nil {
			return err
		}
		was.cpu = cpu
	}
	if l.has["pids"] && pids != was.pids {
		if err := writeGroupFile(dir, "pids.max", strconv.Itoa(pids)); err != nil {
			return err
		}
		was.pids = pids
	}
	return nil
}

// settle2 makes room for groups of ours beneath the server's own: a v2 group that hands
// controllers down may not hold processes itself, so all that are in it move into a leaf. With
// systemd the unit needs Delegate=yes, or the next daemon-reload takes the controllers away.
func settle2(own, parent string) error {
	leaf := filepath.Join(own, "server")
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make %s: %w", leaf, err)
	}
	// Processes may be forked meanwhile; those of a moment ago are caught by the next round.
	for range 8 {
		pids, err := readProcesses(filepath.Join(own, "cgroup.procs"))
		if err != nil {
			return err
		}
		moved := 0
		for _, pid := range pids {
			if writeGroupFile(leaf, "cgroup.procs", strconv.Itoa(pid)) == nil {
				moved++
			}
		}
		if moved == 0 {
			break
		}
	}
	if err := enable2(own); err != nil {
		return err
	}
	if err := os.Mkdir(parent, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make %s: %w", parent, err)
	}
	return enable2(parent)
}

// enable2 hands down the controllers we use, as far as they are there. One at a time: a write
// of several fails as a whole.
func enable2(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(text)) {
		switch c {
		case "memory", "cpu", "pids":
			if err := writeGroupFile(dir, "cgroup.subtree_control", "+"+c); err != nil {
				return fmt.Errorf("enable %s in %s: %w", c, dir, err)
			}
		}
	}
	return nil
}
