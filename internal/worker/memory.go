package worker

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brasa-dev/brasa/internal/faas"
)

// machineMemory returns what this machine may use: its memory, or the bound of the cgroup that
// the server runs in where that is less.
func machineMemory() faas.Bytes {
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) != nil {
		return faas.GiB
	}
	total := faas.Bytes(uint64(si.Totalram) * uint64(si.Unit))
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && n > 0 {
			total = min(total, faas.Bytes(n))
		}
	}
	return total
}

// What the configuration lets instances hold is no promise of the machine: others may use it too.
// So what they may hold together is bounded by what the machine could still give, and what does not
// fit waits in line instead of being swapped or killed.

// marginShare is the part of the memory, one in so many, that is left to whatever else the machine
// does in the second until it is looked at again.
const marginShare = 50

// availableMemory returns what the machine could still give without swapping; 0 if that is not known.
func availableMemory() faas.Bytes {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	_, rest, ok := bytes.Cut(b, []byte("\nMemAvailable:"))
	if !ok {
		return 0
	}
	f := bytes.Fields(rest)
	if len(f) == 0 {
		return 0
	}
	kib, err := strconv.ParseInt(string(f[0]), 10, 64)
	if err != nil {
		return 0
	}
	return faas.Bytes(kib) * faas.KiB
}

// memory returns what all instances may hold together now. The caller holds mu.
func (w *Worker) memory() faas.Bytes {
	if w.room > 0 && w.room < w.cfg.Memory {
		return w.room
	}
	return w.cfg.Memory
}

// survey finds out what instances may hold together: what they are known to hold, and what the
// machine could give besides. What those hold that work is known from their last calls, which is
// too little rather than too much, and errs on the safe side.
func (w *Worker) survey() {
	free := w.cfg.Available()
	if free <= 0 {
		return
	}
	w.mu.Lock()
	held := w.copies + w.stemMemory()
	var busy []*instance
	for _, p := range w.pools {
		for _, in := range p.instances {
			if in.active > 0 {
				busy = append(busy, in)
			} else {
				held += in.held
			}
		}
	}
	w.mu.Unlock()
	if free >= w.cfg.Memory+w.cfg.Memory/marginShare {
		busy = nil // there is more than could be used up: it need not be known so well
	}
	for _, in := range busy {
		held += in.knownMemory()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.memory()
	w.room = max(held+free-w.cfg.Memory/marginShare, 1)
	now := w.memory()
	if now < before && now < w.cfg.Memory*9/10 && time.Since(w.warned) > time.Minute {
		w.warned = time.Now()
		w.cfg.Logger.Warn("the machine's memory is used by others: functions get less than is configured", "configured", w.cfg.Memory, "now", now)
	}
	if over := w.reserved - now; over > 0 {
		w.evict(over, nil, "")
	}
	if now > before {
		w.feed()
	}
}

// knownMemory is what the instance held when a call of it last ended.
func (in *instance) knownMemory() faas.Bytes {
	b := &in.books
	if !b.mu.TryLock() { // it is being read, which may take a moment
		return 0
	}
	defer b.mu.Unlock()
	return b.memory
}
