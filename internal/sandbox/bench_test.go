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
	report(b, "start", starts, parts)
	at := func(d []time.Duration, q float64) float64 {
		slices.Sort(d)
		return float64(d[int(q*float64(len(d)-1))].Microseconds())
	}
	b.ReportMetric(at(execs, .1), "os/exec-p10-µs")
	b.ReportMetric(at(starts, .5)/at(execs, .5), "start/exec")
	b.ReportMetric(at(lives, .5), "life-p50-µs")
	b.ReportMetric(at(lives, .99), "life-p99-µs")
	b.ReportMetric(at(execs, .5), "os/exec-p50-µs")
	b.ReportMetric(at(lives, .5)/at(execs, .5), "life/exec")
}

// BenchmarkAdopt measures what a claim of a waiting sandbox costs: its code and its name, and in
// the second half its bounds too.
func BenchmarkAdopt(b *testing.B) {
	h := startHost(b)
	dir := b.TempDir()
	code := []Mount{{Source: dir, Target: "/code"}}
	claims := map[string]Claim{
		"code":   {Mounts: code},
		"named":  {Hostname: "pay", Mounts: code},
		"sized":  {Hostname: "pay", Mounts: code, Tmp: 32 << 20},
		"bounds": {Hostname: "pay", Tmp: 32 << 20, Memory: 256 << 20, CPU: 500, PIDs: 100, Mounts: code},
	}
	took := map[string][]time.Duration{}
	parts := map[string][]time.Duration{}
	for b.Loop() {
		for name, claim := range claims { // in turn, so that all meet the same noise
			s, err := h.Start(context.Background(), Spec{Name: uniqueName(), Hostname: "stem", Args: []string{"/bin/sleep", "1000"}})
			if err != nil {
				b.Fatal(err)
			}
			time.Sleep(2 * time.Millisecond) // it waits, as stems do; the measured span begins after it
			begin := time.Now()
			if err := s.Adopt(context.Background(), claim); err != nil {
				b.Fatal(err)
			}
			took[name] = append(took[name], time.Since(begin))
			for _, p := range s.Adopted() {
				parts[name+"-"+p.Name] = append(parts[name+"-"+p.Name], p.Took)
			}
			s.Close()
		}
	}
	for name, d := range took {
		report(b, name, d, nil)
	}
	report(b, "", nil, parts)
}

// BenchmarkFork measures the fork of a Python process, confined, from a zygote.
func BenchmarkFork(b *testing.B) {
	h := startHost(b)
	z, _ := startPythonZygote(b, h)
	var took []time.Duration
	parts := map[string][]time.Duration{}
	for b.Loop() {
		for len(h.groups.ready) < cap(h.groups.ready) || len(h.nets.ready) < cap(h.nets.ready) {
			time.Sleep(time.Millisecond) // the measured span begins after it
		}
		begin := time.Now()
		s, err := h.Start(context.Background(), Spec{Name: uniqueName(), Zygote: z, Conn: true})
		if err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(begin))
		for _, p := range s.Steps() {
			parts[p.Name] = append(parts[p.Name], p.Took)
		}
		s.Close()
	}
	report(b, "fork", took, parts)
}

// report gives the tenth, the median and the worst hundredth, and the parts' medians.
func report(b *testing.B, what string, took []time.Duration, parts map[string][]time.Duration) {
	at := func(d []time.Duration, q float64) float64 {
		slices.Sort(d)
		return float64(d[int(q*float64(len(d)-1))].Microseconds())
	}
	b.ReportMetric(0, "ns/op")
	if len(took) > 0 {
		b.ReportMetric(at(took, .1), what+"-p10-µs")
		b.ReportMetric(at(took, .5), what+"-p50-µs")
		b.ReportMetric(at(took, .99), what+"-p99-µs")
	}
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
