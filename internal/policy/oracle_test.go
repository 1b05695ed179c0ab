package policy_test

import (
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/policy"
)

func costs(cold time.Duration, memory faas.Bytes) policy.Costs {
	return policy.Costs{Cold: cold, Memory: memory, Price: policy.DefaultPrice}
}

func history(pauses ...time.Duration) *policy.History {
	h := &policy.History{}
	for range 20 {
		for _, p := range pauses {
			h.Note(p)
		}
	}
	return h
}

// What is called at even intervals is there when it is called, and hardly at any other time.
func TestOracleSeesEvenIntervals(t *testing.T) {
	h := history(299*time.Second, 300*time.Second, 301*time.Second)
	plan := h.Plan(costs(2*time.Millisecond, 100*faas.MiB))
	if !plan.Holds(299*time.Second) || !plan.Holds(300*time.Second) || !plan.Holds(301*time.Second) {
		t.Errorf("it is not there at its time: %v", plan)
	}
	if held := plan.Held(300 * time.Second); held > 10*time.Second {
		t.Errorf("it is held for %v of 300 s: %v", held, plan)
	}
	if plan.Holds(time.Hour) {
		t.Errorf("it is there an hour later: %v", plan)
	}
}

// What comes in bursts stays for the burst and goes after it.
func TestOracleKeepsThroughABurst(t *testing.T) {
	h := history(100*time.Millisecond, 300*time.Millisecond, 500*time.Millisecond, 200*time.Millisecond, time.Hour)
	plan := h.Plan(costs(2*time.Millisecond, 100*faas.MiB))
	if !plan.Holds(0) || !plan.Holds(500*time.Millisecond) {
		t.Errorf("it is gone within the burst: %v", plan)
	}
	if plan.Holds(5 * time.Minute) {
		t.Errorf("it is there long after: %v", plan)
	}
}

// The dearer the start and the smaller the instance, the longer it stays; a free one stays a day.
func TestOracleWeighs(t *testing.T) {
	var h policy.History
	last := time.Duration(-1)
	for _, cold := range []time.Duration{100 * time.Microsecond, 2 * time.Millisecond, 50 * time.Millisecond, time.Second} {
		held := h.Plan(costs(cold, 10*faas.MiB)).Held(24 * time.Hour)
		if held <= last {
			t.Errorf("an instance that takes %v to start stays %v, one that takes less %v", cold, held, last)
		}
		last = held
	}
	last = 48 * time.Hour
	for _, memory := range []faas.Bytes{3 * faas.MiB, 30 * faas.MiB, 300 * faas.MiB} {
		held := h.Plan(costs(10*time.Millisecond, memory)).Held(24 * time.Hour)
		if held >= last {
			t.Errorf("an instance of %v stays %v, a smaller one %v", memory, held, last)
		}
		last = held
	}
	if free := h.Plan(policy.Costs{Cold: time.Millisecond, Memory: faas.GiB}); !free.Holds(24 * time.Hour) {
		t.Errorf("what costs nothing goes: %v", free)
	}
}

// Spans are in order and apart, whatever was seen.
func TestPlanIsInOrder(t *testing.T) {
	h := history(0, time.Second, 3*time.Second, 59*time.Second, time.Minute, 61*time.Second, time.Hour, 24*time.Hour, 300*24*time.Hour)
	plan := h.Plan(costs(5*time.Millisecond, 20*faas.MiB))
	end := time.Duration(-1)
	for _, s := range plan {
		if s.From <= end || s.To <= s.From {
			t.Fatalf("%v", plan)
		}
		end = s.To
	}
	if len(plan) == 0 {
		t.Error("nothing is held at all")
	}
}

// What changes its ways is followed.
func TestOracleFollows(t *testing.T) {
	h := history(10 * time.Second)
	for range 64 {
		h.Note(10 * time.Minute)
	}
	plan := h.Plan(costs(2*time.Millisecond, 100*faas.MiB))
	if plan.Holds(10*time.Second) || !plan.Holds(10*time.Minute) {
		t.Errorf("%v", plan)
	}
}

// When memory is short, what is most likely called soon, dear to start and small is worth most.
func TestValue(t *testing.T) {
	often, seldom := history(5*time.Second), history(5*time.Hour)
	c := costs(10*time.Millisecond, 10*faas.MiB)
	if often.Value(time.Second, c) <= seldom.Value(time.Second, c) {
		t.Error("what is called seldom is worth more")
	}
	if often.Value(time.Second, c) >= often.Value(time.Second, costs(100*time.Millisecond, 10*faas.MiB)) {
		t.Error("what starts quickly is worth more")
	}
	if often.Value(time.Second, c) <= often.Value(time.Second, costs(10*time.Millisecond, 100*faas.MiB)) {
		t.Error("what is larger is worth more")
	}
}
