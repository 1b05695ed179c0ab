package policy

import (
	"slices"
	"strings"
	"time"

	cron "github.com/netresearch/go-cron"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Windows are a function's warm windows, read. The zero value has none. It may be used by several
// goroutines.
type Windows []window

type window struct {
	begins    cron.Schedule
	lasts     time.Duration
	instances int
}

// Bounds of warm windows.
const (
	maxWindows = 50
	maxWindow  = 7 * 24 * time.Hour
	// windowSearch is how many years ahead the begin of a window is looked for: the 29th of February
	// comes within eight.
	windowSearch = 9
)

var windowParser = cron.MustNewParser(cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor).WithMaxSearchYears(windowSearch)

// ReadWindows reads warm windows; the error is the caller's to mend and names what is wrong.
func ReadWindows(windows []faas.WarmWindow, ceiling faas.Limits) (Windows, error) {
	bad := func(format string, args ...any) error {
		return faas.Errorf(faas.Invalid, "check warm windows", format, args...).WithLimit("warm").
			WithFix(`write it as {"at": "0 8 * * MON-FRI", "zone": "Europe/Berlin", "for_ms": "10h", "instances": 2}`)
	}
	if len(windows) > maxWindows {
		return nil, bad("there are %d warm windows; at most %d", len(windows), maxWindows)
	}
	var out Windows
	for _, w := range windows {
		at := strings.TrimSpace(w.At)
		if strings.Contains(at, "=") || strings.HasPrefix(at, "@every") || strings.HasPrefix(at, "@reboot") {
			return nil, bad("%.60q is no time that a window begins at", w.At) // its zone has a field of its own
		}
		zone := w.Zone
		if zone == "" {
			zone = "UTC"
		}
		if zone == "Local" {
			return nil, bad("%q is no time zone: which one it is depends on the machine", zone)
		}
		if _, err := time.LoadLocation(zone); err != nil {
			return nil, bad("there is no time zone %.60q", w.Zone)
		}
		s, err := windowParser.Parse("CRON_TZ=" + zone + " " + at)
		if err != nil {
			return nil, bad("%.60q is no time that a window begins at: %v", w.At, err)
		}
		if s.Next(time.Now()).IsZero() {
			return nil, bad("%.60q never comes", w.At)
		}
		if w.For.D() < time.Second || w.For.D() > maxWindow {
			return nil, bad("a warm window lasts %s; it must be from 1s to %s", w.For, maxWindow)
		}
		most := ceiling.MinInstances
		if w.Instances < 0 || w.Instances > most {
			return nil, bad("a warm window has %d instances; it must be from 1 to %d", w.Instances, most)
		}
		out = append(out, window{s, w.For.D(), max(w.Instances, 1)})
	}
	return slices.Clip(out), nil
}

// Open returns how many instances stand ready by the clock, and until when the window lasts that
// asks for the most; zero if none is open. Each is ready for a lead before its window begins.
func (ws Windows) Open(now time.Time, lead time.Duration) (instances int, until time.Time) {
	for _, w := range ws {
		// The begin that is at most as long ago as the window lasts, and at most as far away as the lead.
		begin := w.begins.Next(now.Add(-w.lasts))
		if begin.IsZero() || begin.After(now.Add(lead)) {
			continue
		}
		if end := begin.Add(w.lasts); w.instances > instances || w.instances == instances && end.After(until) {
			instances, until = w.instances, end
		}
	}
	return instances, until
}
