package sandbox

import (
	"context"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// BenchmarkStart compares, alternating in one run, a sandbox's start to exec and its whole life
// with os/exec of the same static program. Between rounds the pools are given time to fill, as
// in a server that is not saturated; see BenchmarkChurn for one that is.
func BenchmarkStart(b *testing.B) {
	h := startHost(b)
	dir := buildStatic(b, nothing)
	spec := Spec{Args: []string{"/code/main"}, Mounts: []Mount{{Source: dir, Target: "/code"}}}
	var starts, lives, execs []time.Duration
	parts := map[string][]time.Duration{}
	for b.Loop() {
		for len(h.groups.ready) < cap(h.groups.ready) || len(h.nets.ready) < cap(h.nets.ready) {
			time.Sleep(time.Millisecond) // the measured span begins after it
		}
		spec.Name = uniqueName()
		begin := time.Now()
		s, err := h.Start(context.Background(), spec)
		if err != nil {
			b.Fatal(err)
		}
		starts = append(starts, time.Since(begin))
		<-s.Done()
		lives = append(lives, time.Since(begin))
		for _, p := range s.Steps() {
			parts[p.Name] = append(parts[p.Name], p.Took)
		}
		s.Close()

		begin = time.Now()
		if err := exec.Command(filepath.Join(dir, "main")).Run(); err != nil {
			b.Fatal(err)
		}
		execs = append(execs, time.Since(begin))
	}
	at := func(d []time.Duration, q float64) float64 {
		slices.Sort(d)
		return float64(d[int(q*float64(len(d)-1))].Microseconds())
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(at(starts, .1), "start-p10-µs")
	b.ReportMetric(at(execs, .1), "os/exec-p10-µs")
	b.ReportMetric(at(starts, .5)/at(execs, .5), "start/exec")
	b.ReportMetric(at(starts, .5), "start-p50-µs")
	b.ReportMetric(at(starts, .99), "start-p99-µs")
	b.ReportMetric(at(lives, .5), "life-p50-µs")
	b.ReportMetric(at(lives, .99), "life-p99-µs")
	b.ReportMetric(at(execs, .5), "os/exec-p50-µs")
	b.ReportMetric(at(lives, .5)/at(execs, .5), "life/exec")
	for name, d := range parts {
		b.ReportMetric(at(d, .5), name+"-p50-µs")
	}
}

// BenchmarkChurn makes, runs and destroys as fast as it goes, four at a time.
func BenchmarkChurn(b *testing.B) {
	h := startHost(b)
	dir := buildStatic(b, nothing)
	b.SetParallelism(2)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			s, err := h.Start(context.Background(), Spec{Name: uniqueName(), Args: []string{"/code/main"}, Mounts: []Mount{{Source: dir, Target: "/code"}}})
			if err != nil {
				b.Error(err)
				return
			}
			<-s.Done()
			s.Close()
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sandboxes/s")
}
