package policy_test

import (
	"slices"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/policy"
)

func TestKeepEndsAfterIdleTime(t *testing.T) {
	c := policy.KeepConfig{Idle: time.Minute}
	if got := policy.Keep(c, 40*time.Second, time.Millisecond); got != 20*time.Second {
		t.Errorf("Keep after 40s = %v, want 20s more", got)
	}
	if got := policy.Keep(c, time.Minute, time.Millisecond); got > 0 {
		t.Errorf("Keep after the whole minute = %v, want none", got)
	}
}

func TestKeepLongerWhatWasDearToLoad(t *testing.T) {
	c := policy.KeepConfig{Idle: time.Minute}
	for _, tt := range []struct{ load, want time.Duration }{
		{0, time.Minute}, {49 * time.Millisecond, time.Minute}, {60 * time.Millisecond, 2 * time.Minute},
		{time.Second, 12 * time.Minute}, {time.Minute, 12 * time.Minute},
	} {
		if got := policy.Keep(c, 0, tt.load); got != tt.want {
			t.Errorf("a load of %v: kept for %v, want %v", tt.load, got, tt.want)
		}
	}
}

func TestEvict(t *testing.T) {
	in := func(memory faas.Bytes, idle time.Duration) policy.Idle {
		return policy.Idle{Memory: memory, Since: idle}
	}
	for _, c := range []struct {
		name string
		have []policy.Idle
		need faas.Bytes
		want []int
	}{
		{"nothing there", nil, 1, nil},
		{"the longest idle goes", []policy.Idle{in(100, time.Second), in(100, time.Hour)}, 50, []int{1}},
		{"as many as it takes", []policy.Idle{in(100, 3*time.Second), in(100, 2*time.Second), in(100, time.Second)}, 150, []int{0, 1}},
		{"none when all is too little", []policy.Idle{in(100, time.Hour)}, 150, nil},
		{"one that nobody has used before one that served", []policy.Idle{in(100, time.Hour), {Memory: 100, Spare: true}}, 50, []int{1}},
		{"a heavy one before a light one idle a little longer", []policy.Idle{in(10, 11*time.Second), in(100, 10*time.Second)}, 10, []int{1}},
		{"what saves least, though it was used last", []policy.Idle{{Memory: 100, Since: time.Hour, Worth: 2}, {Memory: 100, Since: time.Second, Worth: 1}}, 50, []int{1}},
	} {
		if got := policy.Evict(c.have, c.need); !slices.Equal(got, c.want) {
			t.Errorf("%s: Evict = %v, want %v", c.name, got, c.want)
		}
	}
}
