package bench

import (
	"slices"
	"time"
)

// Sample holds the latencies of one side.
type Sample struct {
	Name    string
	took    []time.Duration
	busy    time.Duration // wall-clock time spent in this side's blocks
	cpu     time.Duration // of the side's processes in its blocks
	Failed  int
	Failure error // the first
}

func (s *Sample) add(d time.Duration) { s.took = append(s.took, d) }

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
func (s *Sample) CPU() time.Duration {
	if len(s.took) == 0 {
		return 0
	}
	return s.cpu / time.Duration(len(s.took))
}
