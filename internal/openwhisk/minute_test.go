package openwhisk

import (
	"testing"
	"time"
)

// Items 178 and 180: calls and fires are counted by themselves, from the begin of the clock's minute to its end.
func TestMinuteOfTheClock(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 59, 0, time.UTC)
	counts := throttle{clock: func() time.Time { return at }}
	limits := &Limits{InvocationsPerMinute: 2, FiresPerMinute: 1, Concurrent: 10}
	call := func(want bool) {
		t.Helper()
		release, err := counts.enter(t.Context(), "guest", limits)
		if (err == nil) != want {
			t.Errorf("a call at %s: %v", at.Format(time.TimeOnly), err)
		}
		if err == nil {
			release()
		} else if r := asRejection(err); r.status != 429 || r.message != "Too many requests in the last minute (count: 3, allowed: 2)." {
			t.Errorf("refused with %d %s", r.status, r.message)
		}
	}
	fire := func(want bool) {
		t.Helper()
		if err := counts.fire("guest", limits); (err == nil) != want {
			t.Errorf("a fire at %s: %v", at.Format(time.TimeOnly), err)
		} else if err != nil && (asRejection(err).status != 429 || asRejection(err).message != "Too many requests in the last minute (count: 2, allowed: 1).") {
			t.Errorf("refused with %v", err)
		}
	}
	fire(true)
	call(true)
	call(true)
	call(false)
	fire(false)
	if release, err := counts.enter(t.Context(), "other", limits); err != nil {
		t.Errorf("another namespace: %v", err)
	} else {
		release()
	}
	at = at.Add(999 * time.Millisecond)
	call(false)
	at = at.Add(time.Millisecond) // the next minute, a second after the first call
	call(true)
	fire(true)
	fire(false)
	call(true)
	call(false)
	at = at.Add(59 * time.Second)
	call(false)
}
