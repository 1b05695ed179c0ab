package policy_test

import (
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/policy"
)

// A week told by a wall clock in Berlin, over the night in which its clocks are set forward.
func TestWarmWindowsFollowTheClockOfTheirZone(t *testing.T) {
	ws, err := policy.ReadWindows([]faas.WarmWindow{
		{At: "0 8 * * MON-FRI", Zone: "Europe/Berlin", For: faas.Duration(10 * time.Hour), Instances: 2},
		{At: "30 11 * * *", Zone: "Europe/Berlin", For: faas.Duration(time.Hour), Instances: 5},
	}, faas.CeilingLimits())
	if err != nil {
		t.Fatal(err)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("no time zones on this machine")
	}
	for _, tt := range []struct {
		at   string
		want int
	}{
		{"2026-03-27 07:59", 0}, {"2026-03-27 08:00", 2}, {"2026-03-27 11:30", 5}, {"2026-03-27 12:29", 5}, {"2026-03-27 12:31", 2},
		{"2026-03-27 17:59", 2}, {"2026-03-27 18:00", 0}, {"2026-03-28 09:00", 0}, {"2026-03-28 12:00", 5},
		{"2026-03-30 07:59", 0}, {"2026-03-30 08:00", 2}, {"2026-03-30 17:59", 2}, {"2026-03-30 18:01", 0},
	} {
		now, err := time.ParseInLocation("2006-01-02 15:04", tt.at, berlin)
		if err != nil {
			t.Fatal(err)
		}
		if got, until := ws.Open(now, 0); got != tt.want || got > 0 && !until.After(now) {
			t.Errorf("%s: %d instances until %v, want %d", tt.at, got, until, tt.want)
		}
	}
	soon := time.Date(2026, 3, 27, 7, 59, 57, 0, berlin)
	if got, _ := ws.Open(soon, 5*time.Second); got != 2 {
		t.Errorf("three seconds before the window: %d instances with a lead of five, want 2", got)
	}
}

func TestBadWarmWindowsAreRefused(t *testing.T) {
	hour := faas.Duration(time.Hour)
	for _, w := range []faas.WarmWindow{
		{At: "", For: hour}, {At: "8 o'clock", For: hour}, {At: "61 * * * *", For: hour}, {At: "0 0 30 2 *", For: hour}, {At: "@every 5s", For: hour},
		{At: "TZ=UTC 0 8 * * *", For: hour}, {At: "0 8 * * *", Zone: "Mars/Olympus", For: hour}, {At: "0 8 * * *", Zone: "Local", For: hour},
		{At: "0 8 * * *"}, {At: "0 8 * * *", For: faas.Duration(365 * 24 * time.Hour)}, {At: "0 8 * * *", For: hour, Instances: -1}, {At: "0 8 * * *", For: hour, Instances: 1e6},
	} {
		if _, err := policy.ReadWindows([]faas.WarmWindow{w}, faas.CeilingLimits()); faas.CodeOf(err) != faas.Invalid || faas.AsError(err).Limit != "warm" {
			t.Errorf("%+v: %v, want it refused under the key warm", w, err)
		}
	}
	if _, err := policy.ReadWindows(make([]faas.WarmWindow, 51), faas.CeilingLimits()); err == nil {
		t.Error("any number of windows is read")
	}
}
