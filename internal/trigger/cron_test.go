package trigger_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger/triggertest"
)

func dues(calls []triggertest.Call) (out []string) {
	for _, c := range calls {
		var d struct {
			Due    string `json:"due"`
			Missed int    `json:"missed"`
		}
		_ = json.Unmarshal([]byte(c.Body), &d)
		out = append(out, d.Due)
	}
	return out
}

func TestCronFiresOnceForEachTime(t *testing.T) {
	h := triggertest.Open(t)
	stop := h.Run()
	h.Trigger("tick", "cron", map[string]any{"schedule": "* * * * * *", "data": map[string]any{"who": "me"}})
	triggertest.Until(t, "three fires", func() bool { return len(h.Node.Calls()) >= 3 })
	// A restart in the middle makes none twice.
	stop()
	h.Run()
	triggertest.Until(t, "three more", func() bool { return len(h.Node.Calls()) >= 6 })
	got := dues(h.Node.Calls())
	slices.Sort(got)
	if len(slices.Compact(slices.Clone(got))) != len(got) {
		t.Errorf("a time was fired twice: %v", got)
	}
	var body map[string]any
	c := h.Node.Calls()[0]
	if err := json.Unmarshal([]byte(c.Body), &body); err != nil || body["who"] != "me" || body["trigger"] != "tick" {
		t.Errorf("body %s", c.Body)
	}
	if id := c.Header["Ce-Id"]; len(id) != 1 || id[0] != body["due"] {
		t.Errorf("the event's ID is %q, want the time it was due, %v", id, body["due"])
	}
}

// missedOnes has a schedule of each minute miss ten minutes while the server is down.
func missedOnes(t *testing.T, catchUp string) []triggertest.Call {
	t.Helper()
	h := triggertest.Open(t)
	stop := h.Run()
	tr := h.Trigger("tick", "cron", map[string]any{"schedule": "0 * * * * *", "catch_up": catchUp, "catch_up_most": 4})
	triggertest.Until(t, "the source runs", func() bool { return h.Manager.Status(catalog.DefaultNamespace, "tick").Running })
	stop()
	// So that none comes due while the test looks.
	h.Clock.Step(10*time.Minute + 30*time.Second - time.Duration(time.Now().Second())*time.Second)
	h.Run()
	if catchUp == "none" {
		triggertest.Until(t, "the source runs", func() bool { return h.Manager.Status(catalog.DefaultNamespace, "tick").Running })
		time.Sleep(50 * time.Millisecond) // there is nothing to wait for
		return h.Node.Calls()
	}
	triggertest.Until(t, "a fire", func() bool {
		return h.Manager.Status(catalog.DefaultNamespace, "tick").Events > 0 && len(h.Node.Calls()) > 0
	})
	if catchUp == "all" {
		triggertest.Until(t, "four fires", func() bool { return len(h.Node.Calls()) >= 4 })
	}
	_ = tr
	return h.Node.Calls()
}

func TestCronCatchesUpAsItIsTold(t *testing.T) {
	if got := missedOnes(t, "none"); len(got) != 0 {
		t.Errorf("none: %v", dues(got))
	}
	last := missedOnes(t, "last")
	if len(last) != 1 {
		t.Fatalf("last: %v, want one", dues(last))
	}
	var d struct {
		Missed int `json:"missed"`
	}
	if err := json.Unmarshal([]byte(last[0].Body), &d); err != nil || d.Missed < 8 || d.Missed > 11 {
		t.Errorf("last: %s, want it to say that about ten were missed", last[0].Body)
	}
	if got := missedOnes(t, "all"); len(got) != 4 {
		t.Errorf("all, at most 4: %v", dues(got))
	}
}

func TestAClockThatIsSetBackFiresNothingTwice(t *testing.T) {
	h := triggertest.Open(t)
	stop := h.Run()
	h.Trigger("tick", "cron", map[string]any{"schedule": "* * * * * *"})
	triggertest.Until(t, "two fires", func() bool { return len(h.Node.Calls()) >= 2 })
	stop()
	h.Clock.Step(-time.Hour)
	before := len(h.Node.Calls())
	h.Run()
	triggertest.Until(t, "the source runs", func() bool { return h.Manager.Status(catalog.DefaultNamespace, "tick").Running })
	time.Sleep(1500 * time.Millisecond)
	if got := h.Node.Calls(); len(got) != before {
		t.Errorf("%d fires of times that had been fired: %v", len(got)-before, dues(got))
	}
}

func TestOverlap(t *testing.T) {
	h := triggertest.Open(t)
	release := make(chan struct{})
	h.Node.Do(func(triggertest.Call) error { <-release; return nil })
	h.Run()
	h.Trigger("skips", "cron", map[string]any{"schedule": "* * * * * *", "overlap": "skip"})
	triggertest.Until(t, "a call", func() bool { return len(h.Node.Calls()) == 1 })
	time.Sleep(2500 * time.Millisecond)
	if got := h.Node.Calls(); len(got) != 1 {
		t.Errorf("skip: %d calls at once", len(got))
	}
	close(release)
	triggertest.Until(t, "the next call", func() bool { return len(h.Node.Calls()) >= 2 })
}

func TestTimesAndUntil(t *testing.T) {
	h := triggertest.Open(t)
	h.Run()
	h.Trigger("twice", "cron", map[string]any{"schedule": "@every 1s", "times": 2})
	triggertest.Until(t, "two fires", func() bool { return len(h.Node.Calls()) >= 2 })
	time.Sleep(1500 * time.Millisecond)
	if got := h.Node.Calls(); len(got) != 2 {
		t.Errorf("%d fires, want 2", len(got))
	}
	tr := &faas.Trigger{Name: "t", Source: &faas.Source{Kind: "cron", Config: []byte(`{"schedule":"0 2 * * *","zone":"Europe/Berlin","until":"2026-03-30T12:00:00Z"}`)}}
	var got []string
	for _, at := range h.Manager.Next(tr, time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC), 5) {
		got = append(got, at.UTC().Format(time.RFC3339))
	}
	// On the 29th two o'clock does not exist in Berlin.
	if want := []string{"2026-03-30T00:00:00Z"}; !slices.Equal(got, want) && !slices.Equal(got, []string{"2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"}) {
		t.Errorf("next %v, want %v, with or without the hour that was left out", got, want)
	}
}

func TestFrom(t *testing.T) {
	h := triggertest.Open(t)
	for config, want := range map[string][]string{
		`{"schedule":"@every 90m","from":"2026-03-28T13:00:00.5Z"}`: {"2026-03-28T13:00:01Z", "2026-03-28T14:30:01Z"},
		`{"schedule":"0 * * * *","from":"2026-03-28T15:00:00Z"}`:    {"2026-03-28T15:00:00Z", "2026-03-28T16:00:00Z"},
		`{"schedule":"0 * * * *","from":"2026-03-28T15:00:00.5Z"}`:  {"2026-03-28T16:00:00Z", "2026-03-28T17:00:00Z"},
	} {
		tr := &faas.Trigger{Name: "t", Source: &faas.Source{Kind: "cron", Config: []byte(config)}}
		var got []string
		for _, at := range h.Manager.Next(tr, time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC), 2) {
			got = append(got, at.UTC().Format(time.RFC3339))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: next %v, want %v", config, got, want)
		}
	}
}

func TestTimesAreCountedAnewWithAnotherSchedule(t *testing.T) {
	h := triggertest.Open(t)
	h.Run()
	tr := h.Trigger("once", "cron", map[string]any{"schedule": "@every 1s", "times": 1})
	triggertest.Until(t, "a fire", func() bool { return len(h.Node.Calls()) == 1 })
	next := *tr
	next.Source = &faas.Source{Kind: "cron", Config: []byte(`{"schedule":"* * * * * *","times":1}`)}
	if err := h.Catalog.PutTrigger(t.Context(), &next, true); err != nil {
		t.Fatal(err)
	}
	triggertest.Until(t, "another", func() bool { return len(h.Node.Calls()) == 2 })
}
