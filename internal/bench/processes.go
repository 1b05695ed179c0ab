package bench

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of times in /proc/PID/stat, USER_HZ, which is 100 on every architecture
// that we build for (proc_pid_stat(5)).
const clockTick = 10 * time.Millisecond

// process is one line of the process table.
type process struct {
	parent int
	ticks  int64 // its own and those of children that it has waited for
}

func processes() map[int]process {
	procs := map[int]process{}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
		_, rest, ok := strings.Cut(string(b), ") ")
		f := strings.Fields(rest)
		if !ok || len(f) < 15 {
			continue
		}
		var p process
		p.parent, _ = strconv.Atoi(f[1])
		for _, i := range []int{11, 12, 13, 14} { // utime, stime, cutime, cstime
			n, _ := strconv.ParseInt(f[i], 10, 64)
			p.ticks += n
		}
		procs[pid] = p
	}
	return procs
}

// tree returns root and its descendants.
func tree(root int) []int {
	procs := processes()
	var out []int
	for pid := range procs {
		for at := pid; at > 1; at = procs[at].parent {
			if at == root {
				out = append(out, pid)
				break
			}
		}
	}
	return out
}

// treeCPU returns the processor time that a process and its descendants have used, those that
// were waited for included; and how much of it the processes have used that are not confined.
func treeCPU(root int) (all, own time.Duration) {
	if root == 0 {
		return 0, 0
	}
	procs := processes()
	for _, pid := range tree(root) {
		ticks := time.Duration(procs[pid].ticks) * clockTick
		all += ticks
		if pid == root {
			own += ticks
		}
	}
	return all, own
}

// footprint is what a server holds of the kernel.
type footprint struct {
	Processes   int `json:"processes"`
	Descriptors int `json:"descriptors"` // of the server and of the processes that make sandboxes
	Groups      int `json:"cgroups"`
	Namespaces  int `json:"namespaces"`
	Mounts      int `json:"mounts"`
}

// over is what there is more of than before, added up.
func (f footprint) over(before footprint) int {
	return max(f.Processes-before.Processes, 0) + max(f.Descriptors-before.Descriptors, 0) + max(f.Groups-before.Groups, 0) +
		max(f.Namespaces-before.Namespaces, 0) + max(f.Mounts-before.Mounts, 0)
}

// look counts what the server with this pid and this prefix holds. The processes that it trusts
// are those that run in no pid namespace of a sandbox: they are few and live long.
func look(root int, prefix string) footprint {
	f := footprint{}
	spaces := map[string]bool{}
	host, _ := os.Readlink("/proc/" + strconv.Itoa(root) + "/ns/pid")
	for _, pid := range tree(root) {
		f.Processes++
		dir := "/proc/" + strconv.Itoa(pid)
		for _, kind := range []string{"mnt", "pid", "net", "ipc", "uts", "user", "cgroup"} {
			if id, err := os.Readlink(filepath.Join(dir, "ns", kind)); err == nil {
				spaces[id] = true
			}
		}
		if own, _ := os.Readlink(filepath.Join(dir, "ns", "pid")); own != host {
			continue
		}
		fds, _ := os.ReadDir(filepath.Join(dir, "fd"))
		f.Descriptors += len(fds)
		for _, fd := range fds {
			at, _ := os.Readlink(filepath.Join(dir, "fd", fd.Name()))
			if kind, _, ok := strings.Cut(at, ":["); ok && (kind == "net" || kind == "mnt" || kind == "pid" || kind == "ipc" || kind == "uts") {
				spaces[at] = true
			}
		}
		b, _ := os.ReadFile(filepath.Join(dir, "mountinfo"))
		f.Mounts += strings.Count(string(b), "\n")
	}
	f.Namespaces = len(spaces)
	f.Groups = groups(prefix)
	return f
}

// groups counts the control groups whose names begin with the prefix, and those below them.
func groups(prefix string) int {
	n := 0
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, e os.DirEntry, err error) error {
		if err == nil && e.IsDir() && strings.Contains(path, "/"+prefix) {
			n++
		}
		return nil
	})
	return n
}

// least is the smaller of each.
func (f footprint) least(o footprint) footprint {
	return footprint{
		min(f.Processes, o.Processes), min(f.Descriptors, o.Descriptors), min(f.Groups, o.Groups),
		min(f.Namespaces, o.Namespaces), min(f.Mounts, o.Mounts),
	}
}

// kib reads a line such as "VmRSS:  123 kB" of a file in /proc/PID.
func kib(pid int, file, key string) int64 {
	return kib0(filepath.Join("/proc", strconv.Itoa(pid), file), key)
}

func kib0(path, key string) int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return n
		}
	}
	return 0
}
