package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// cgroup is one sandbox's set of control groups: one directory per controller on v1, one in all
// on v2. Its files are opened beforehand; what happens while a sandbox starts and runs is
// writes and reads on descriptors.
//
// A process enters by its own act: on v1 its single thread writes 0 to each tasks file, on v2
// it is cloned into the directory. Moving it by pid takes a lock that waits for an RCU grace
// period, ten milliseconds on a calm machine.
type cgroup struct {
	dirs   []string
	layout *cgroupLayout

	mu    sync.RWMutex // held while a descriptor is used, written to close them
	tasks []tasksFile  // v1; closed when the sandbox has started
	into  int          // v2; -1 on v1
	files cgroupFiles
	shut  bool

	bounds bounds // written by limit only, which one goroutine calls at a time

	notice *os.File // v1: eventfd that counts out-of-memory situations; nil otherwise
}

type tasksFile struct {
	controller string
	fd         int
}

// bounds are what a group is limited to; zero where nothing has been set.
type bounds struct {
	memory    int64
	cpu, pids int
}

// cgroupFiles are what Usage reads; -1 where there is none.
type cgroupFiles struct{ cpu, memory, peak, oom, pids int }

// cgroupLayout is where and how groups are made on this host.
type cgroupLayout struct {
	version int               // 1 or 2
	parents map[string]string // v1: our directory per controller; v2: under ""
	has     map[string]bool   // memory, cpu, pids, cpuacct
	swap    bool              // swap can be limited
	counter atomic.Int64      // names the next one
}

// dir returns the directories that hold our groups, each once.
func (l *cgroupLayout) dirs() []string {
	var dirs []string
	for _, d := range l.parents {
		if !slices.Contains(dirs, d) {
			dirs = append(dirs, d)
		}
	}
	slices.Sort(dirs)
	return dirs
}

// create makes an empty group with the next free name.
func (l *cgroupLayout) create() (*cgroup, error) {
	name := fmt.Sprintf("sandbox-%d", l.counter.Add(1))
	g := &cgroup{layout: l, into: -1, files: cgroupFiles{-1, -1, -1, -1, -1}}
	var err error
	if l.version == 2 {
		err = g.create2(l, name)
	} else {
		err = g.create1(l, name)
	}
	if err != nil {
		g.closeFiles()
		g.remove()
		return nil, fmt.Errorf("make cgroup %s: %w", name, err)
	}
	return g, nil
}

// limit sets what the group may use, as far as that differs from what was set before. cpu is in
// thousandths of a core, 0 for no quota. After an error it is unknown what holds.
func (g *cgroup) limit(memory int64, cpu, pids int) error {
	if g.layout.version == 2 {
		return g.limit2(memory, cpu, pids)
	}
	return g.limit1(memory, cpu, pids)
}

// started closes what is needed for entering only.
func (g *cgroup) started() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, t := range g.tasks {
		unix.Close(t.fd)
	}
	g.tasks = nil
	if g.into >= 0 && g.layout.version == 2 {
		unix.Close(g.into)
		g.into = -1
	}
}

func (g *cgroup) usage() (Usage, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.shut {
		return Usage{}, os.ErrClosed
	}
	var u Usage
	var err error
	read := func(fd int, to *int64) {
		if fd >= 0 && err == nil {
			*to, err = readNumber(fd)
		}
	}
	var cpu, pids int64
	if g.layout.version == 2 {
		cpu, err = readKey(g.files.cpu, "usage_usec")
		u.CPU = time.Duration(cpu) * time.Microsecond
	} else {
		read(g.files.cpu, &cpu)
		u.CPU = time.Duration(cpu)
	}
	read(g.files.memory, &u.Memory)
	read(g.files.peak, &u.MemoryPeak)
	read(g.files.pids, &pids)
	u.PIDs = int(pids)
	u.MemoryPeak = max(u.MemoryPeak, u.Memory)
	return u, err
}

// cpu returns what usage says of the processor alone, for a quarter of the cost.
func (g *cgroup) cpu() (time.Duration, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	switch {
	case g.shut:
		return 0, os.ErrClosed
	case g.files.cpu < 0:
		return 0, nil
	case g.layout.version == 2:
		us, err := readKey(g.files.cpu, "usage_usec")
		return time.Duration(us) * time.Microsecond, err
	}
	ns, err := readNumber(g.files.cpu)
	return time.Duration(ns), err
}

// oomKills returns how many processes the kernel has killed here for memory.
func (g *cgroup) oomKills() int64 {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.shut {
		return 0
	}
	n, _ := readKey(g.files.oom, "oom_kill") // absent before Linux 4.13
	return n
}

func (g *cgroup) resetPeak() error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.shut || g.files.peak < 0 {
		return os.ErrClosed
	}
	_, err := unix.Pwrite(g.files.peak, []byte("0"), 0)
	if err != nil && g.layout.version == 2 {
		return &UnsupportedError{Feature: "reset of the memory peak", Why: err.Error(), Fix: "use Linux 6.12 or later"}
	}
	return err
}

func (g *cgroup) processes() ([]int, error) {
	// v1 has one directory per controller with the same processes in each.
	return readProcesses(filepath.Join(g.dirs[0], "cgroup.procs"))
}

func readProcesses(path string) ([]int, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for f := range strings.FieldsSeq(string(text)) {
		if pid, err := strconv.Atoi(f); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func (g *cgroup) stopOOMNotice() {
	if g.notice != nil {
		g.notice.Close()
	}
}

func (g *cgroup) closeFiles() {
	g.started()
	g.stopOOMNotice()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return
	}
	g.shut = true
	for _, fd := range []int{g.files.cpu, g.files.memory, g.files.peak, g.files.oom, g.files.pids} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// remove deletes the directories. A group can stay busy for a moment after its last process was
// reaped, so it is tried again for up to a second. Never on the way of an invocation.
func (g *cgroup) remove() error {
	wait := time.Millisecond
	for {
		err := g.tryRemove()
		if !errors.Is(err, unix.EBUSY) || wait > busyFor {
			return err
		}
		time.Sleep(wait)
		wait *= 2
	}
}

// tryRemove deletes what can be deleted of the directories now.
func (g *cgroup) tryRemove() error {
	var errs []error
	for _, dir := range g.dirs {
		if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("remove cgroup %s: %w", dir, err))
		}
	}
	return errors.Join(errs...)
}

// busyFor is about how long a group without processes may be busy.
const busyFor = 512 * time.Millisecond

func removeGroup(dir string) error { return (&cgroup{dirs: []string{dir}}).remove() }

// emptyGroups kills whatever is left in the groups of a server that died, and removes them.
func emptyGroups(parent string) error {
	entries, err := os.ReadDir(parent)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), "sandbox-") {
			continue
		}
		dir := filepath.Join(parent, e.Name())
		// Twice, as a process may fork between the listing and the kill.
		for range 2 {
			pids, err := readProcesses(filepath.Join(dir, "cgroup.procs"))
			if err != nil || len(pids) == 0 {
				break
			}
			for _, pid := range pids {
				unix.Kill(pid, unix.SIGKILL)
			}
		}
		if err := removeGroup(dir); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func readNumber(fd int) (int64, error) {
	var buffer [32]byte
	n, err := unix.Pread(fd, buffer[:], 0)
	if err != nil {
		return 0, err
	}
	// By hand: it is read with every call, and a string would be garbage each time.
	number := int64(0)
	for i, c := range buffer[:n] {
		if c < '0' || c > '9' {
			if i > 0 && c == '\n' {
				return number, nil
			}
			break
		}
		number = number*10 + int64(c-'0')
	}
	return strconv.ParseInt(string(bytes.TrimSpace(buffer[:n])), 10, 64) // has no line end, or is no number
}

// readKey finds "key number" in a file of such lines.
func readKey(fd int, key string) (int64, error) {
	if fd < 0 {
		return 0, nil
	}
	var buffer [2048]byte
	n, err := unix.Pread(fd, buffer[:], 0)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(buffer[:n])) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name == key {
			return strconv.ParseInt(value, 10, 64)
		}
	}
	return 0, nil
}

func openGroupFile(dir, name string, flags int) (int, error) {
	fd, err := unix.Open(filepath.Join(dir, name), flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", name, err)
	}
	return fd, nil
}

func writeGroupFile(dir, name, value string) error {
	fd, err := openGroupFile(dir, name, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return fmt.Errorf("write %q to %s: %w", value, name, err)
	}
	return nil
}
