package worker

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"
)

const (
	// uptimeFile holds the seconds since the machine was started and those that its processors have
	// been idle since, together, both to a hundredth (proc_uptime(5)). It is as short with hundreds of
	// processors as with two.
	uptimeFile = "/proc/uptime"
	// busyWindow is the least time that is judged: a tenth of it is as much as the file tells apart
	// for two processors.
	busyWindow = 50 * time.Millisecond
	// busyFresh is how old a judgement may be.
	busyFresh = 200 * time.Millisecond
	// busyShare is the share of idle time below which processors are busy. Between two processes that
	// hand work to each other there are always moments in which neither has any: with a client, the
	// server and as many processes of a function as are of use a sixth of the time is idle.
	busyShare = 0.3
)

// processors tells whether the machine's processors are busy, with whatever. The zero value is
// ready to use.
type processors struct {
	mu     sync.Mutex
	at     time.Time     // of the reading; guarded by mu
	up     time.Duration // guarded by mu
	idle   time.Duration // guarded by mu
	judged time.Time     // guarded by mu
	busy   bool          // guarded by mu
}

// look reads how busy they have been since the look before. known is false if that was too short,
// or too long, ago to tell; then a look a little later does.
func (p *processors) look(now time.Time) (busy, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	since := now.Sub(p.at)
	if since < busyWindow {
		return p.verdict(now)
	}
	up, idle, ok := readUptime()
	if !ok {
		return false, true // nothing to go by: as if there were always time
	}
	if passed := up - p.up; since <= busyFresh && passed > 0 {
		p.judged, p.busy = now, float64(idle-p.idle) < busyShare*float64(passed)*float64(runtime.NumCPU())
	}
	p.at, p.up, p.idle = now, up, idle
	return p.verdict(now)
}

// verdict returns the judgement. The caller holds mu.
func (p *processors) verdict(now time.Time) (busy, known bool) {
	if now.Sub(p.judged) > busyFresh {
		return false, false
	}
	return p.busy, true
}

// runShare returns which share of the processes has a thread that is on a processor or waits for
// one.
func runShare(pids []int) float64 {
	run, all := 0, 0
	for _, pid := range pids {
		dir := "/proc/" + strconv.Itoa(pid) + "/task/"
		f, err := os.Open(dir)
		if err != nil {
			continue // it has ended
		}
		tasks, _ := f.Readdirnames(maxTasks)
		_ = f.Close() // only read
		all++
		for _, t := range tasks {
			if runs(dir + t + "/stat") {
				run++
				break
			}
		}
	}
	return float64(run) / float64(max(all, 1))
}

// maxTasks is of how many threads of a process the state is read.
const maxTasks = 32

// runs says whether a thread's state is R (proc_pid_stat(5)).
func runs(stat string) bool {
	b, err := os.ReadFile(stat)
	if err != nil {
		return false
	}
	i := bytes.LastIndexByte(b, ')')
	return i >= 0 && i+2 < len(b) && b[i+2] == 'R'
}

func readUptime() (up, idle time.Duration, ok bool) {
	b, err := os.ReadFile(uptimeFile)
	if err != nil {
		return 0, 0, false
	}
	f := bytes.Fields(b)
	if len(f) < 2 {
		return 0, 0, false
	}
	u, err1 := strconv.ParseFloat(string(f[0]), 64)
	i, err2 := strconv.ParseFloat(string(f[1]), 64)
	return time.Duration(u * float64(time.Second)), time.Duration(i * float64(time.Second)), err1 == nil && err2 == nil
}
