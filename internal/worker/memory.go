package worker

import (
	"os"
	"strconv"
	"strings"

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
