package simulate_test

import (
	"compress/gzip"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/policy"
	"github.com/brasa-dev/brasa/internal/simulate"
)

func read(t *testing.T, text, meta string) *simulate.Trace {
	t.Helper()
	var m *strings.Reader
	tr, err := simulate.Read(strings.NewReader(text), nil)
	if meta != "" {
		m = strings.NewReader(meta)
		tr, err = simulate.Read(strings.NewReader(text), m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func run(t *testing.T, tr *simulate.Trace, cfg simulate.Config) *simulate.Outcome {
	t.Helper()
	out, err := simulate.Run(tr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func fixed(d time.Duration) func() simulate.Policy {
	return func() simulate.Policy { return simulate.Fixed(d) }
}

func oracle() simulate.Policy { return &policy.History{} }

// What a trace comes to under a fixed time is worked out by hand here.
func TestFixed(t *testing.T) {
	// a: one instance in minutes 1, 2 and 5, two in minute 9 of 12.
	tr := read(t, "app,avg_mem_mb,1,2,3,4,5,6,7,8,9,10,11,12\na,1024,1,1,0,0,1,0,0,0,2,0,0,0\n", "")
	for _, c := range []struct {
		keep    time.Duration
		cold    int
		idleMin float64
	}{
		{0, 4, 0},
		// After minute 2 it stays for one and is gone in minute 5, and so on: four pauses, of which each
		// is longer.
		{time.Minute, 4, 1 + 1 + 1 + 1},
		{2 * time.Minute, 3, 2 + 2 + 2 + 2},
		{3 * time.Minute, 2, 2 + 3 + 3 + 3},
		{time.Hour, 2, 2 + 3 + 3 + 3},
	} {
		out := run(t, tr, simulate.Config{Policy: fixed(c.keep), Cold: 500 * time.Millisecond})
		if out.Calls != 4 || out.ColdStarts != c.cold || out.ColdWait != float64(c.cold)/2 {
			t.Errorf("keep %v: %d calls, %d cold, %v s; want 4, %d", c.keep, out.Calls, out.ColdStarts, out.ColdWait, c.cold)
		}
		if used := out.UsedMemory * 60; math.Abs(used-5) > 1e-9 {
			t.Errorf("keep %v: %v GiB minutes used, want 5", c.keep, used)
		}
		if got := out.IdleMemory * 60; math.Abs(got-c.idleMin) > 1e-9 || math.Abs(out.Wasted-c.idleMin/5) > 1e-9 {
			t.Errorf("keep %v: %v GiB minutes idle, ratio %v; want %v", c.keep, got, out.Wasted, c.idleMin)
		}
	}
}

// An idle instance counts at what it holds, which may be less than what a call needs.
func TestIdleMemory(t *testing.T) {
	tr := read(t, "function,begin_ms,duration_ms,memory_mb\nf,0,1000,100\nf,3000,1000,100\n", "")
	out := run(t, tr, simulate.Config{Policy: fixed(time.Minute), Cold: time.Millisecond, Idle: 10 * faas.MiB})
	if want := 2.0 * 10 / (2 * 100); math.Abs(out.Wasted-want) > 1e-9 {
		t.Errorf("ratio %v, want %v", out.Wasted, want)
	}
}

func TestRead(t *testing.T) {
	tr := read(t, "func_name,invoke_time_ms\nf,1000\nf,500\n", "func_name,cold_dur_ms,warm_dur_ms,mem_mb,mean_iat\nf,300,100,64,9\ng,2,1,8,9\n")
	if len(tr.Apps) != 2 || tr.Until != 1100*time.Millisecond {
		t.Fatalf("%d functions until %v", len(tr.Apps), tr.Until)
	}
	f := tr.Apps[0]
	if f.Cold != 200*time.Millisecond || f.Memory != 64*faas.MiB || len(f.Calls) != 2 || f.Calls[0].Begin != 500*time.Millisecond || f.Calls[1].End != 1100*time.Millisecond {
		t.Errorf("%+v", f)
	}
	for text, want := range map[string]string{
		"":                                "EOF",
		"x,y\n1,2\n":                      "its first line is none that is known",
		"func_name,invoke_time_ms\nf,1\n": "does not say how long calls take",
		"app,avg_mem_mb,1\na,1,x\n":       "minute 1",
		"app,avg_mem_mb,1\na,1,-1\n":      "no number of instances",
		"app,avg_mem_mb,1,2\na,1,1\n":     "wrong number of fields",
		"function,begin_ms,duration_ms,memory_mb\nf,-1,0,0\n": "no call",
	} {
		if _, err := simulate.Read(strings.NewReader(text), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestColdThatIsNotKnown(t *testing.T) {
	tr := read(t, "function,begin_ms,duration_ms,memory_mb\nf,0,1000,100\n", "")
	if _, err := simulate.Run(tr, simulate.Config{Policy: oracle}); faas.CodeOf(err) != faas.Invalid {
		t.Errorf("%v, want that it is not said how long a cold start takes", err)
	}
}

// azure is a day of 100 applications.
func azure(t *testing.T) *simulate.Trace {
	f, err := os.Open("testdata/azure2019_100apps.csv.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := simulate.Read(z, nil)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// coldHere is what a cold start was measured to take (docs/benchmarks.md).
const coldHere = 2100 * time.Microsecond

// On a real day callers wait a hundredth of what they do where a cold start takes half a second and
// instances stay ten minutes, for a tenth of the memory; also where each application is looked at.
func TestOracleAgainstTenMinutes(t *testing.T) {
	tr := azure(t)
	before := run(t, tr, simulate.Config{Policy: fixed(10 * time.Minute), Cold: 500 * time.Millisecond})
	now := run(t, tr, simulate.Config{Policy: oracle, Cold: coldHere, Price: policy.DefaultPrice})
	t.Logf("ten minutes: %d cold, %.1f s, wasted %.3f; the oracle: %d, %.2f s, %.3f", before.ColdStarts, before.ColdWait, before.Wasted, now.ColdStarts, now.ColdWait, now.Wasted)
	if now.ColdWait*100 > before.ColdWait {
		t.Errorf("%.2f s of waiting, want at most a hundredth of %.1f", now.ColdWait, before.ColdWait)
	}
	if now.Wasted*10 > before.Wasted {
		t.Errorf("wasted memory %.3f, want at most a tenth of %.3f", now.Wasted, before.Wasted)
	}
	fewer, less := 0, 0
	for i, a := range now.Apps {
		if a.ColdWait*100 <= before.Apps[i].ColdWait {
			fewer++
		}
		if a.Wasted*10 <= before.Apps[i].Wasted {
			less++
		}
	}
	t.Logf("of %d applications, %d wait at most a hundredth and %d waste at most a tenth", len(now.Apps), fewer, less)
	if fewer < len(now.Apps)*2/3 || less < len(now.Apps)*2/3 {
		t.Error("that is fewer than two of three")
	}
}

// The trace knows minutes alone, which makes calls look more even than they were. Where each comes
// anywhere in its minute, and an idle instance counts at what one of Node.js holds here, it holds too.
func TestOracleWithoutEvenMinutes(t *testing.T) {
	tr := azure(t)
	tr.Jitter(time.Minute, rand.New(rand.NewPCG(1, 0)))
	before := run(t, tr, simulate.Config{Policy: fixed(10 * time.Minute), Cold: 500 * time.Millisecond})
	now := run(t, tr, simulate.Config{Policy: oracle, Cold: coldHere, Idle: 7 * faas.MiB, Price: policy.DefaultPrice})
	t.Logf("ten minutes: %d cold, %.1f s, wasted %.3f; the oracle: %d, %.2f s, %.3f", before.ColdStarts, before.ColdWait, before.Wasted, now.ColdStarts, now.ColdWait, now.Wasted)
	if now.ColdWait*100 > before.ColdWait || now.Wasted*10 > before.Wasted {
		t.Errorf("%.2f s and %.3f, want a hundredth of %.1f s and a tenth of %.3f", now.ColdWait, now.Wasted, before.ColdWait, before.Wasted)
	}
}

// At the same cold cost and for the same waste, the oracle's callers wait less than with any fixed
// time: else it would be of no use.
func TestOracleAgainstAnyFixedTime(t *testing.T) {
	tr := azure(t)
	now := run(t, tr, simulate.Config{Policy: oracle, Cold: coldHere, Price: policy.DefaultPrice})
	for _, keep := range []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, time.Hour} {
		f := run(t, tr, simulate.Config{Policy: fixed(keep), Cold: coldHere})
		if f.Wasted <= now.Wasted && f.ColdWait <= now.ColdWait {
			t.Errorf("%v: %.2f s and %.3f, the oracle %.2f and %.3f", keep, f.ColdWait, f.Wasted, now.ColdWait, now.Wasted)
		}
	}
}
