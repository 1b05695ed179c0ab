package bench

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Sample holds the latencies of one side.
type Sample struct {
	Name    string
	took    []time.Duration
	busy    time.Duration // wall-clock time spent in this side's blocks
	cpu     time.Duration // of the side's processes in its blocks
	own     time.Duration // of that, of the root process and those that make sandboxes
	Warm    int           // calls that were to be cold and were not
	starts  map[string]int
	Failed  int
	Failure error // the first
}

// note adds a call.
func (s *Sample) note(d time.Duration, err error) {
	if err != nil {
		s.Failed++
		s.Failure = cmp.Or(s.Failure, err)
		if d == 0 {
			return
		}
	}
	s.took = append(s.took, d)
}

// start counts how instances came to serve.
func (s *Sample) start(how string) {
	if how == "" {
		return
	}
	if s.starts == nil {
		s.starts = map[string]int{}
	}
	s.starts[how]++
}

// Starts says how instances came to serve: "prewarmed 190, cold 10".
func (s *Sample) Starts() string {
	var parts []string
	for _, how := range slices.SortedFunc(maps.Keys(s.starts), func(a, b string) int { return cmp.Compare(s.starts[b], s.starts[a]) }) {
		parts = append(parts, how+" "+strconv.Itoa(s.starts[how]))
	}
	return strings.Join(parts, ", ")
}

// join adds another sample's calls.
func (s *Sample) join(o *Sample) {
	s.took = append(s.took, o.took...)
	s.busy += o.busy
	s.cpu += o.cpu
	s.own += o.own
	s.Warm += o.Warm
	s.Failed += o.Failed
	s.Failure = cmp.Or(s.Failure, o.Failure)
	for how, n := range o.starts {
		if s.starts == nil {
			s.starts = map[string]int{}
		}
		s.starts[how] += n
	}
}

// Quantile returns the latency below which the share q of the calls lies; 0 if there are none.
func (s *Sample) Quantile(q float64) time.Duration {
	if len(s.took) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s.took))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// Rate returns calls a second.
func (s *Sample) Rate() float64 {
	if s.busy == 0 {
		return 0
	}
	return float64(len(s.took)) / s.busy.Seconds()
}

// CPU returns the processor time of the side's processes for one call.
func (s *Sample) CPU() time.Duration { return s.perCall(s.cpu) }

// OwnCPU returns the share of that which the function's own processes did not use.
func (s *Sample) OwnCPU() time.Duration { return s.perCall(s.own) }

func (s *Sample) perCall(d time.Duration) time.Duration {
	if len(s.took) == 0 {
		return 0
	}
	return d / time.Duration(len(s.took))
}
