package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// targets are the keys with what they are to be: at most the figure, or at least it where it is
// negative.
var targets = map[string]float64{
	"python_cold_p50_ms": 1, "python_cold_p99_ms": 3, "python_numpy_cold_p50_ms": 4, "node_cold_p50_ms": 1.2, "node_cold_p99_ms": 4,
	"node_express_cold_p50_ms": 5, "java_cold_p50_ms": 3, "exec_cold_p50_ms": 2, "python_pool_empty_p99_ms": 6,
	"wasm_added_p50_us": 100, "wasm_instances_per_s": -20_000, "warm_added_p50_us": 50, "warm_added_cpu_us": 40, "warm_requests_per_s": -20_000,
	"pristine_python_us": 500, "pristine_node_us": 800, "pristine_java_us": 1000, "pristine_throughput_loss_pct": 6,
	"burst_1000_total_s": 2, "burst_1000_failed": 0, "cold_starts_per_s": -400, "many_functions_ratio": -0.9,
	"idle_function_bytes": 4096, "idle_call_p99_ms": 10, "warm_instance_kb": 1536, "growth_after_100k": 0, "deploy_cached_lock_ms": 300,
	"step_500_failed": 0, "flash_2000_failed": 0, "flood_p99_ratio": 2,
	"async_enqueue_ratio": -0.8, "async_idle_added_ms": 5, "async_drain_per_s": -1000,
	// Targets of our own: no collapse with many actions, and first calls not much dearer than natively.
	"whisk_actions_ratio": -0.9, "whisk_warm_p50_ms": 2, "whisk_python_cold_p50_ms": 5, "whisk_nodejs_cold_p50_ms": 10,
}

// result gathers the figures.
type result struct {
	out     io.Writer
	figures map[string]any
	skipped map[string]string
}

func newResult(out io.Writer) result {
	r := result{out: out, figures: map[string]any{}, skipped: map[string]string{}}
	for key := range targets {
		r.figures[key] = nil
	}
	return r
}

func (r *result) printf(format string, args ...any) { fmt.Fprintf(r.out, format, args...) }

// set notes a figure, rounded to what means something.
func (r *result) set(key string, v float64) {
	switch {
	case math.Abs(v) >= 100 || v == math.Trunc(v):
		v = math.Round(v)
	case math.Abs(v) >= 10:
		v = math.Round(v*10) / 10
	default:
		v = math.Round(v*1000) / 1000
	}
	r.figures[key] = v
	delete(r.skipped, key)
}

// note keeps whatever else is worth knowing.
func (r *result) note(key string, v any) { r.figures[key] = v }

// skip says why keys have no figure, unless they have one.
func (r *result) skip(why string, keys ...string) {
	for _, key := range keys {
		if r.figures[key] == nil {
			r.skipped[key] = why
		}
	}
}

// quantiles sets KEY_p50_ms and KEY_p99_ms where these are keys, and notes them with the number
// of calls where not.
func (r *result) quantiles(key string, s *Sample) {
	r.set(key+"_p50_ms", ms(s.Quantile(.5)))
	r.set(key+"_p99_ms", ms(s.Quantile(.99)))
	r.note(key+"_calls", len(s.took))
	if s.Failed > 0 {
		r.note(key+"_failed", s.Failed)
	}
	if how := s.Starts(); how != "" {
		r.note(key+"_starts", how)
	}
}

func (r *result) head(versions map[string]string) {
	r.figures["machine"] = machine()
	r.figures["processors"] = runtime.NumCPU()
	r.figures["date"] = time.Now().UTC().Format(time.DateOnly)
	kernel, _ := exec.Command("uname", "-r").Output()
	versions["kernel"] = strings.TrimSpace(string(kernel))
	r.figures["versions"] = versions
	r.printf("%s, %d processors, Linux %s, %s\n", machine(), runtime.NumCPU(), versions["kernel"], time.Now().UTC().Format(time.DateOnly))
}

// table prints one comparison; the first side is ours.
func (r *result) table(title string, samples ...*Sample) {
	r.printf("\n%s\n  %-24s %10s %10s %10s %10s %10s %8s\n", title, "", "p50", "p95", "p99", "calls/s", "cpu/call", "p50 x")
	for _, s := range samples {
		ratio := 0.0
		if q := s.Quantile(.5); q > 0 {
			ratio = float64(samples[0].Quantile(.5)) / float64(q)
		}
		r.printf("  %-24s %10s %10s %10s %10.0f %10s %8.2f", s.Name, short(s.Quantile(.5)), short(s.Quantile(.95)), short(s.Quantile(.99)), s.Rate(), short(s.CPU()), ratio)
		if how := s.Starts(); how != "" {
			r.printf("  %s", how)
		}
		if s.Warm > 0 {
			r.printf("  %d were warm and don't count", s.Warm)
		}
		if s.Failed > 0 {
			r.printf("  %d failed: %v", s.Failed, s.Failure)
		}
		r.printf("\n")
		key := strings.NewReplacer(", ", "_", " ", "_", "/", "_", ".", "_").Replace(title + "_" + s.Name)
		r.note(key+"_p50_us", s.Quantile(.5).Microseconds())
		r.note(key+"_p99_us", s.Quantile(.99).Microseconds())
		r.note(key+"_per_s", math.Round(s.Rate()))
		if c := s.CPU(); c > 0 {
			r.note(key+"_cpu_us", c.Microseconds())
		}
	}
}

// summary prints the keys with their targets.
func (r *result) summary() {
	r.printf("\n%-30s %12s %12s\n", "", "measured", "target")
	for _, key := range slices.Sorted(maps.Keys(targets)) {
		target, sign := targets[key], "<="
		if target < 0 {
			target, sign = -target, ">="
		}
		v, ok := r.figures[key].(float64)
		if !ok {
			r.printf("%-30s %12s %12s  %.120s\n", key, "-", fmt.Sprintf("%s %g", sign, target), r.skipped[key])
			continue
		}
		missed := ""
		if sign == "<=" && v > target || sign == ">=" && v < target {
			missed = "  missed"
		}
		r.printf("%-30s %12g %12s%s\n", key, v, fmt.Sprintf("%s %g", sign, target), missed)
	}
}

// json prints one object on one line.
func (r *result) json() error {
	r.figures["skipped"] = r.skipped
	line, err := json.Marshal(r.figures)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(r.out, "%s\n", line)
	return err
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func short(d time.Duration) string {
	if d >= 10*time.Millisecond {
		return fmt.Sprintf("%.1fms", ms(d))
	}
	return fmt.Sprintf("%dus", d.Microseconds())
}

// machine says what this was measured on.
func machine() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}
