package sandbox

import (
	"fmt"
	"os"
	"time"
)

// Delayed returns how long the first threads of the sandbox's processes could have run so far and
// had no processor, which others used; or an error where the kernel does not count that.
func (s *Sandbox) Delayed() (time.Duration, error) {
	pids, err := s.Processes()
	if err != nil {
		return 0, err
	}
	sum := time.Duration(0)
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
		if err != nil {
			return 0, err
		}
		var ran, waited time.Duration
		if _, err := fmt.Sscan(string(b), &ran, &waited); err != nil {
			return 0, fmt.Errorf("read the delay of process %d: %w", pid, err)
		}
		sum += waited
	}
	return sum, nil
}
