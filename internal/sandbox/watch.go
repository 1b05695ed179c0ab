package sandbox

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// watcher stands in for the memory cgroup where there is none: it looks at every sandbox's
// memory and kills the one that has too much. What can be used up between two looks is the
// price.
type watcher struct {
	mu      sync.Mutex
	watched map[*memoryWatch]struct{} // guarded by mu
}

// watchEvery bounds the overshoot: a process fills some 50 MB in this time.
const watchEvery = 25 * time.Millisecond

func newWatcher() *watcher { return &watcher{watched: map[*memoryWatch]struct{}{}} }

type memoryWatch struct {
	owner *watcher
	sb    *Sandbox
	pid   int // of the program
	nest  int // of pid 1 of its namespace, to which orphans go

	mu    sync.Mutex
	limit int64 // guarded by mu
	last  Usage // guarded by mu
	peak  int64 // guarded by mu
	over  bool  // guarded by mu
}

func (w *watcher) add(s *Sandbox) *memoryWatch {
	m := &memoryWatch{owner: w, sb: s, limit: s.spec.Memory, pid: s.proc.hostPID(), nest: s.proc.nestPID()}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watched[m] = struct{}{}
	return m
}

func (w *watcher) run(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		w.mu.Lock()
		all := make([]*memoryWatch, 0, len(w.watched))
		for m := range w.watched {
			all = append(all, m)
		}
		w.mu.Unlock()
		for _, m := range all {
			m.look()
		}
	}
}

func (m *memoryWatch) stop() {
	m.owner.mu.Lock()
	defer m.owner.mu.Unlock()
	delete(m.owner.watched, m)
}

// look measures once and kills if it is too much.
func (m *memoryWatch) look() Usage {
	pids, _ := m.processes()
	u := Usage{PIDs: len(pids)}
	for _, pid := range pids {
		u.Memory += residentBytes(pid)
		u.CPU += cpuTime(pid)
	}
	for _, dir := range []string{"/tmp", "/dev/shm"} {
		var st unix.Statfs_t
		if unix.Statfs(fmt.Sprintf("/proc/%d/root%s", m.pid, dir), &st) == nil {
			u.Memory += int64(st.Blocks-st.Bfree) * st.Bsize
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	u.CPU = max(u.CPU, m.last.CPU) // processes that ended take their time with them
	m.peak = max(m.peak, u.Memory)
	u.MemoryPeak = m.peak
	m.last = u
	if u.Memory > m.limit && !m.over {
		m.over = true
		m.sb.Kill()
	}
	return u
}

func (m *memoryWatch) setLimit(memory int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.limit = memory
}

func (m *memoryWatch) usage() Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

func (m *memoryWatch) tripped() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.over
}

func (m *memoryWatch) resetPeak() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.peak = m.last.Memory
}

// processes walks down from the program, and from pid 1 of its namespace, whose children its
// orphans become. Pid 1 itself is ours and runs nothing of the sandbox's.
func (m *memoryWatch) processes() ([]int, error) {
	select {
	case <-m.sb.done:
		return nil, nil
	default:
	}
	if m.pid == 0 {
		return nil, nil
	}
	pids := []int{m.pid}
	below := func(pid int) {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // well formed
		for _, list := range lists {
			children, err := readProcesses(list)
			if err == nil {
				pids = append(pids, children...)
			}
		}
	}
	if m.nest != 0 {
		below(m.nest)
	}
	for i := 0; i < len(pids); i++ {
		below(pids[i])
	}
	return pids, nil
}

// residentBytes is memory that is the process's own or shared memory, without mapped files.
func residentBytes(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	var total int64
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) >= 2 && f[0] == "RssAnon:" {
			kb, _ := strconv.ParseInt(f[1], 10, 64)
			total += kb << 10
		}
	}
	return total
}

// clockTick is USER_HZ, 100 on every Linux.
const clockTick = 10 * time.Millisecond

func cpuTime(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The second field is a name in brackets, in which anything may stand.
	_, rest, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')')+1:]), " ")
	f := strings.Fields(rest)
	if len(f) < 15 {
		return 0
	}
	var ticks int64
	for _, i := range []int{11, 12, 13, 14} { // utime, stime and those of reaped children
		n, _ := strconv.ParseInt(f[i], 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * clockTick
}
