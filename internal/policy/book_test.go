package policy_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/policy"
)

// day lives through days of a function: at each second it is asked how many instances shall stand.
type day struct {
	book  policy.Book
	now   time.Time
	cold  int           // calls that found none
	calls int           // calls
	held  time.Duration // for how long one stood idle
	idle  int
}

func (d *day) tick() {
	d.now = d.now.Add(time.Second)
	d.idle, _ = d.book.Stand(0, d.now, 2*time.Second, policy.DefaultPrice, false)
	d.held += time.Duration(d.idle) * time.Second
}

func (d *day) call() {
	d.calls++
	if d.idle == 0 {
		d.cold++
	}
	d.book.Needed(0, d.now)
	d.book.Rested(0, d.now)
	d.book.Costs(5*time.Millisecond, 50*faas.MiB)
}

func newDay() *day { return &day{now: time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)} }

// A timer every five minutes: after the first few calls each finds an instance, which hardly ever
// stands in between.
func TestBookMakesReadyWhatATimerCalls(t *testing.T) {
	d := newDay()
	for range 24 * 12 {
		for range 300 {
			d.tick()
		}
		d.call()
	}
	if d.cold > 8 {
		t.Errorf("%d of %d calls were cold", d.cold, d.calls)
	}
	if share := d.held.Seconds() / (24 * 3600); share > 0.25 {
		t.Errorf("an instance stood idle for %.0f%% of the day", 100*share)
	}
}

// Office hours: calls within seconds of each other by day, none by night.
func TestBookLetsGoByNight(t *testing.T) {
	d := newDay()
	for range 3 {
		d.held = 0
		for s := range 24 * 3600 {
			d.tick()
			if hour := s / 3600; hour >= 8 && hour < 18 && s%7 == 0 {
				d.call()
			}
		}
	}
	if share := float64(d.cold) / float64(d.calls); share > 0.01 {
		t.Errorf("%.1f%% of the calls were cold", 100*share)
	}
	if d.held > 12*time.Hour {
		t.Errorf("an instance stood idle for %v of 24 h", d.held)
	}
}

// Two at once now and then: the second instance goes long before the first.
func TestBookTellsInstancesApart(t *testing.T) {
	var b policy.Book
	now := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	b.Costs(5*time.Millisecond, 50*faas.MiB)
	for i := range 500 {
		now = now.Add(10 * time.Second)
		b.Needed(0, now)
		if i%60 == 0 { // each ten minutes
			b.Needed(1, now)
			b.Rested(1, now)
		}
		b.Rested(0, now)
	}
	if idle, until := b.Stand(0, now.Add(9*time.Second), 0, policy.DefaultPrice, false); idle != 1 || !until.After(now) {
		t.Errorf("%d stand until %v, want one", idle, until)
	}
	if idle, _ := b.Stand(1, now.Add(9*time.Second), 0, policy.DefaultPrice, false); idle != 0 {
		t.Errorf("while one works %d more stand, want none", idle)
	}
}

// What is dear to load has one more than was ever needed, for a time.
func TestBookHoldsASpare(t *testing.T) {
	var b policy.Book
	now := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	b.Costs(100*time.Millisecond, 20*faas.MiB)
	b.Needed(0, now)
	b.Rested(0, now)
	if idle, _ := b.Stand(0, now.Add(time.Minute), 0, policy.DefaultPrice, true); idle != 2 {
		t.Errorf("%d stand, want the one that served and a spare", idle)
	}
	if idle, _ := b.Stand(0, now.Add(48*time.Hour), 0, policy.DefaultPrice, true); idle != 0 {
		t.Errorf("%d stand after two days, want none", idle)
	}
}

func TestBookComesBackFromTheDisk(t *testing.T) {
	d := newDay()
	for range 30 {
		for range 300 {
			d.tick()
		}
		d.call()
	}
	text, err := json.Marshal(d.book.Record())
	if err != nil {
		t.Fatal(err)
	}
	var r policy.Record
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	back := policy.Restore(r, d.now)
	for _, age := range []time.Duration{0, time.Minute, 298 * time.Second, 300 * time.Second, 400 * time.Second} {
		want, _ := d.book.Stand(0, d.now.Add(age), 0, policy.DefaultPrice, false)
		got, _ := back.Stand(0, d.now.Add(age), 0, policy.DefaultPrice, false)
		if got != want {
			t.Errorf("%v later: %d stand, before it was written %d", age, got, want)
		}
	}
	if !back.Due().IsZero() && back.Due().Before(d.now.Add(-time.Hour)) {
		t.Errorf("due at %v", back.Due())
	}
	for _, bad := range []policy.Record{{Last: d.now.Add(time.Hour)}, {Cold: -1, Memory: -1, Slots: []policy.SlotRecord{{Pauses: []float32{-1, 1e30}, Since: d.now.Add(time.Hour)}}}, {Slots: make([]policy.SlotRecord, 1000)}} {
		policy.Restore(bad, d.now).Stand(0, d.now, 0, policy.DefaultPrice, true) // must not panic
	}
}

// One start on a busy machine makes nothing dear for good.
func TestBookBelievesTheQuickestStarts(t *testing.T) {
	now := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	until := func(colds ...time.Duration) time.Time {
		var b policy.Book
		for _, c := range colds {
			b.Costs(c, 10*faas.MiB)
		}
		b.Needed(0, now)
		b.Rested(0, now)
		_, until := b.Stand(0, now, 0, policy.DefaultPrice, false)
		return until
	}
	quick, slow := until(3*time.Millisecond), until(time.Second)
	if mixed := until(time.Second, 3*time.Millisecond, 3*time.Millisecond, 3*time.Millisecond, 3*time.Millisecond); mixed.Sub(now) > 4*quick.Sub(now) {
		t.Errorf("held for %v; what always starts quickly is for %v", mixed.Sub(now), quick.Sub(now))
	}
	if mixed := until(3*time.Millisecond, 20*time.Millisecond); mixed.Sub(now) > 2*quick.Sub(now) || !slow.After(quick) {
		t.Errorf("held for %v after one slow start; before for %v", mixed.Sub(now), quick.Sub(now))
	}
}

func TestWorthOfAnInstance(t *testing.T) {
	d := newDay()
	for range 100 {
		for range 10 {
			d.tick()
		}
		d.call()
	}
	near, far := d.book.Worth(0, 10*faas.MiB, d.now.Add(time.Second), 1), d.book.Worth(5, 10*faas.MiB, d.now.Add(time.Second), 1)
	if near <= far {
		t.Errorf("the first instance is worth %g, one that was never needed %g", near, far)
	}
}
