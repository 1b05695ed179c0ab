package faas

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Bytes is a size in bytes. It is written in JSON as a number.
type Bytes int64

// Sizes.
const (
	KiB Bytes = 1 << 10
	MiB Bytes = 1 << 20
	GiB Bytes = 1 << 30
)

// String prints the size with the largest binary unit that leaves it readable: "128MiB".
func (b Bytes) String() string {
	switch {
	case b >= GiB && b%GiB == 0:
		return fmt.Sprintf("%dGiB", b/GiB)
	case b >= MiB && b%MiB == 0:
		return fmt.Sprintf("%dMiB", b/MiB)
	case b >= KiB && b%KiB == 0:
		return fmt.Sprintf("%dKiB", b/KiB)
	case b >= MiB:
		return fmt.Sprintf("%.1fMiB", float64(b)/float64(MiB))
	case b >= KiB:
		return fmt.Sprintf("%.1fKiB", float64(b)/float64(KiB))
	}
	return fmt.Sprintf("%dB", int64(b))
}

// ParseBytes reads a size such as "64MiB", "64M", "64mb", "1g" or a plain number of bytes.
// Every unit is a power of 1024, as memory is counted.
func ParseBytes(s string) (Bytes, error) {
	t := strings.ToLower(strings.TrimSpace(s))
	unit := Bytes(1)
	for _, u := range []struct {
		suffix string
		unit   Bytes
	}{{"kib", KiB}, {"mib", MiB}, {"gib", GiB}, {"tib", 1024 * GiB}, {"kb", KiB}, {"mb", MiB}, {"gb", GiB}, {"tb", 1024 * GiB}, {"k", KiB}, {"m", MiB}, {"g", GiB}, {"t", 1024 * GiB}, {"b", 1}} {
		if v, ok := strings.CutSuffix(t, u.suffix); ok {
			t, unit = strings.TrimSpace(v), u.unit
			break
		}
	}
	f, err := strconv.ParseFloat(t, 64)
	if err != nil || f < 0 || f*float64(unit) > 1<<62 || f != f {
		return 0, Errorf(Invalid, "parse size", "%q is not a size; write it as 64MiB, 1GiB or a number of bytes", clip(s))
	}
	return Bytes(f * float64(unit)), nil
}

// Duration is a time span that is written in JSON as a whole number of milliseconds. It reads
// that, and strings such as "30s".
type Duration time.Duration

// MarshalJSON writes milliseconds.
func (d Duration) MarshalJSON() ([]byte, error) {
	return strconv.AppendInt(nil, time.Duration(d).Milliseconds(), 10), nil
}

// UnmarshalJSON reads milliseconds or a string of time.ParseDuration's form.
func (d *Duration) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		v, err := time.ParseDuration(s)
		*d = Duration(v)
		return err
	}
	ms, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil || ms > int64(1<<62)/int64(time.Millisecond) || ms < -int64(1<<62)/int64(time.Millisecond) {
		return fmt.Errorf("%q is not a number of milliseconds", clip(string(b)))
	}
	*d = Duration(time.Duration(ms) * time.Millisecond)
	return nil
}

// D returns the standard library's type.
func (d Duration) D() time.Duration { return time.Duration(d) }

// String prints as time.Duration does.
func (d Duration) String() string { return time.Duration(d).String() }

// Limits bound one function. Zero means the platform's default; after Fill none is zero save
// MaxInstances, where zero means as many as the node's memory holds, MinInstances, where it means
// that the last one may go, and Target, where it means some of Concurrency (see policy.Target).
type Limits struct {
	Memory       Bytes    `json:"memory_bytes,omitempty" koanf:"memory_bytes"`     // of one instance, /tmp and /dev/shm included
	CPU          int      `json:"cpu_millis,omitempty" koanf:"cpu_millis"`         // thousandths of a core that one instance may use
	PIDs         int      `json:"pids,omitempty" koanf:"pids"`                     // processes and threads of one instance
	Tmp          Bytes    `json:"tmp_bytes,omitempty" koanf:"tmp_bytes"`           // size of /tmp
	Timeout      Duration `json:"timeout_ms,omitempty" koanf:"timeout_ms"`         // of one call, waiting and loading included
	Concurrency  int      `json:"concurrency,omitempty" koanf:"concurrency"`       // calls that one instance serves at once
	MaxInstances int      `json:"max_instances,omitempty" koanf:"max_instances"`   // instances at once on one node
	MinInstances int      `json:"min_instances,omitempty" koanf:"min_instances"`   // that stand on one node whether anybody calls or not
	Target       int      `json:"target,omitempty" koanf:"target"`                 // calls at once in one instance, from which on another is made ahead
	Request      Bytes    `json:"request_bytes,omitempty" koanf:"request_bytes"`   // of one request's body
	Response     Bytes    `json:"response_bytes,omitempty" koanf:"response_bytes"` // of one answer's body
	Log          Bytes    `json:"log_bytes,omitempty" koanf:"log_bytes"`           // of one call's log; what is over is cut and marked
}

// DefaultLimits are what a function gets that asks for nothing.
func DefaultLimits() Limits {
	return Limits{
		Memory: 256 * MiB, CPU: 1000, PIDs: 64, Tmp: 64 * MiB, Timeout: Duration(30 * time.Second),
		Concurrency: 1, Request: 8 * MiB, Response: 64 * MiB, Log: 1 * MiB,
	}
}

// CeilingLimits are the most that a function may ask for unless the node's configuration says
// otherwise.
func CeilingLimits() Limits {
	return Limits{
		Memory: 16 * GiB, CPU: 64000, PIDs: 4096, Tmp: 4 * GiB, Timeout: Duration(time.Hour),
		Concurrency: 1000, MaxInstances: 1000, MinInstances: 100, Target: 1000, Request: 1 * GiB, Response: 16 * GiB, Log: 64 * MiB,
	}
}

// Fill replaces every zero by the default.
func (l Limits) Fill(def Limits) Limits {
	fill(&l.Memory, def.Memory)
	fill(&l.CPU, def.CPU)
	fill(&l.PIDs, def.PIDs)
	fill(&l.Tmp, def.Tmp)
	fill(&l.Timeout, def.Timeout)
	fill(&l.Concurrency, def.Concurrency)
	fill(&l.MaxInstances, def.MaxInstances)
	fill(&l.MinInstances, def.MinInstances)
	fill(&l.Target, def.Target)
	fill(&l.Request, def.Request)
	fill(&l.Response, def.Response)
	fill(&l.Log, def.Log)
	return l
}

func fill[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Validate says which limit, if any, is below the least that can work or above the ceiling.
// The error names the limit's key, what was asked and what is allowed.
func (l Limits) Validate(ceiling Limits) error {
	for _, c := range []struct {
		key              string
		got, least, most int64
		print            func(int64) string
	}{
		{"memory_bytes", int64(l.Memory), int64(16 * MiB), int64(ceiling.Memory), printBytes},
		{"cpu_millis", int64(l.CPU), 10, int64(ceiling.CPU), printNumber},
		{"pids", int64(l.PIDs), 1, int64(ceiling.PIDs), printNumber},
		{"tmp_bytes", int64(l.Tmp), int64(4 * KiB), int64(ceiling.Tmp), printBytes},
		{"timeout_ms", l.Timeout.D().Milliseconds(), 1, ceiling.Timeout.D().Milliseconds(), printMillis},
		{"concurrency", int64(l.Concurrency), 1, int64(ceiling.Concurrency), printNumber},
		{"max_instances", int64(l.MaxInstances), 0, int64(ceiling.MaxInstances), printNumber},
		{"min_instances", int64(l.MinInstances), 0, int64(ceiling.MinInstances), printNumber},
		{"target", int64(l.Target), 0, int64(min(ceiling.Target, max(l.Concurrency, 1))), printNumber},
		{"request_bytes", int64(l.Request), 1, int64(ceiling.Request), printBytes},
		{"response_bytes", int64(l.Response), 1, int64(ceiling.Response), printBytes},
		{"log_bytes", int64(l.Log), 0, int64(ceiling.Log), printBytes},
	} {
		if c.got < c.least || c.got > c.most {
			e := Errorf(Invalid, "check limits", "%s is %s; it must be from %s to %s", c.key, c.print(c.got), c.print(c.least), c.print(c.most))
			e.Limit = c.key
			return e
		}
	}
	if l.MaxInstances > 0 && l.MinInstances > l.MaxInstances {
		return Errorf(Invalid, "check limits", "min_instances is %d; there may be %d at the most, as max_instances says", l.MinInstances, l.MaxInstances).
			WithLimit("min_instances").WithFix("raise max_instances, or leave min_instances out")
	}
	return nil
}

func printBytes(n int64) string  { return Bytes(n).String() }
func printNumber(n int64) string { return strconv.FormatInt(n, 10) }

// printMillis tells the unit too: people give seconds.
func printMillis(n int64) string { return (time.Duration(n) * time.Millisecond).String() }
