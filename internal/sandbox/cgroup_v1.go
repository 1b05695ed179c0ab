package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// v1Controllers in the order a process joins them; memory first, so that what the others cost
// is already counted.
var v1Controllers = []string{"memory", "cpu", "cpuacct", "pids"}

// cpuPeriod is the span over which a quota counts, the kernel's default. Shorter ones throttle
// more evenly and cost more.
const cpuPeriod = 100_000 // µs

// minQuota is the least the kernel takes.
const minQuota = 1_000 // µs

func (g *cgroup) create1(l *cgroupLayout, name string) error {
	made := map[string]string{} // where the hierarchy's directory is, as controllers may share one
	for _, c := range v1Controllers {
		if !l.has[c] {
			continue
		}
		dir := filepath.Join(l.parents[c], name)
		if !slices.Contains(g.dirs, dir) {
			if err := unix.Mkdir(dir, 0o755); err != nil {
				return fmt.Errorf("%s: %w", dir, err)
			}
			g.dirs = append(g.dirs, dir)
			fd, err := openGroupFile(dir, "tasks", unix.O_WRONLY)
			if err != nil {
				return err
			}
			g.tasks = append(g.tasks, tasksFile{c, fd})
		}
		made[c] = dir
	}
	open := func(to *int, controller, name string, flags int) error {
		dir, ok := made[controller]
		if !ok {
			return nil
		}
		fd, err := openGroupFile(dir, name, flags)
		if err == nil {
			*to = fd
		}
		return err
	}
	err := errors.Join(
		open(&g.files.cpu, "cpuacct", "cpuacct.usage", unix.O_RDONLY),
		open(&g.files.memory, "memory", "memory.usage_in_bytes", unix.O_RDONLY),
		open(&g.files.peak, "memory", "memory.max_usage_in_bytes", unix.O_RDWR),
		open(&g.files.oom, "memory", "memory.oom_control", unix.O_RDONLY),
		open(&g.files.pids, "pids", "pids.current", unix.O_RDONLY),
	)
	if err != nil {
		return err
	}
	if dir, ok := made["memory"]; ok {
		g.notice = oomNotice(dir, g.files.oom)
		return writeGroupFile(dir, "memory.swappiness", "0")
	}
	return nil
}

// oomNotice returns an eventfd that becomes readable when the group is out of memory, nil where
// the kernel has none. v1 kills one process of the group, and perhaps not the one that matters;
// the sandbox is then ended as a whole, as v2 does by memory.oom.group.
func oomNotice(dir string, oomControl int) *os.File {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil
	}
	if err := writeGroupFile(dir, "cgroup.event_control", fmt.Sprintf("%d %d", fd, oomControl)); err != nil {
		unix.Close(fd)
		return nil
	}
	return os.NewFile(uintptr(fd), "oom notice")
}

func (g *cgroup) limit1(memory int64, cpu, pids int) error {
	l, was := g.layout, &g.bounds
	dir := func(c string) string { return filepath.Join(l.parents[c], filepath.Base(g.dirs[0])) }
	if l.has["memory"] && memory != was.memory {
		files := []string{"memory.limit_in_bytes"}
		if l.swap {
			files = append(files, "memory.memsw.limit_in_bytes")
		}
		// With swap must never be less than without.
		if was.memory != 0 && memory > was.memory {
			slices.Reverse(files)
		}
		for _, f := range files {
			if err := writeGroupFile(dir("memory"), f, strconv.FormatInt(memory, 10)); err != nil {
				return err
			}
		}
		was.memory = memory
	}
	if l.has["cpu"] && cpu != was.cpu {
		// The weight decides when the machine is full; a whole core has the default.
		quota, weight := max(cpu*cpuPeriod/1000, minQuota), max(cpu*1024/1000, 2)
		if cpu == 0 {
			quota, weight = -1, 1024
		}
		if err := writeGroupFile(dir("cpu"), "cpu.cfs_quota_us", strconv.Itoa(quota)); err != nil {
			return err
		}
		if err := writeGroupFile(dir("cpu"), "cpu.shares", strconv.Itoa(weight)); err != nil {
			return err
		}
		was.cpu = cpu
	}
	if l.has["pids"] && pids != was.pids {
		if err := writeGroupFile(dir("pids"), "pids.max", strconv.Itoa(pids)); err != nil {
			return err
		}
		was.pids = pids
	}
	return nil
}
