package trigger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	cron "github.com/netresearch/go-cron"

	"github.com/brasa-dev/brasa/internal/faas"
)

var cronKind = Kind{Name: "cron", Doc: "a schedule, such as 0 8 * * MON-FRI, with or without seconds, in a time zone", New: newCron}

// cronConfig is what a schedule asks for.
type cronConfig struct {
	Schedule string `json:"schedule"`       // five fields, six with seconds before them, or @hourly and its like, or @every 90s
	Zone     string `json:"zone,omitempty"` // of the IANA database; empty: UTC
	// Overlap says what becomes of a fire while calls of the one before are not over: "allow" makes it
	// all the same, "queue" has it wait for them, "skip" leaves it out. Empty: allow.
	Overlap string `json:"overlap,omitempty"`
	// CatchUp says what becomes of fires that were missed while the server was down: "none", "last" is
	// one for all of them, "all" is each, up to CatchUpMost. Empty: last.
	CatchUp     string          `json:"catch_up,omitempty"`
	CatchUpMost int             `json:"catch_up_most,omitempty"` // default 100
	Data        json.RawMessage `json:"data,omitempty"`          // the event's fields, besides ours
	From        time.Time       `json:"from,omitzero"`           // it does not fire before that; "@every" then counts from there, and fires there first
	Until       time.Time       `json:"until,omitzero"`          // it does not fire after that
	Times       int             `json:"times,omitempty"`         // it does not fire more often; 0: no bound
}

// Bounds of schedules.
const (
	cronMost       = 100
	cronCatchUp    = 10_000
	cronSearch     = 9 // years: the 29th of February comes within eight
	cronLeastEvery = time.Second
	// cronNap is the longest that is slept at once, so that a clock that was set is noticed.
	cronNap = 10 * time.Second
)

var cronParser = cron.MustNewParser(cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor).
	WithMaxSearchYears(cronSearch).WithMinEveryInterval(cronLeastEvery)

// cronSource fires by a schedule. What was fired last is remembered, so that a restart neither
// forgets a fire nor makes one twice: each has an ID made from the time it was due.
type cronSource struct {
	o        Outside
	config   cronConfig
	schedule cron.Schedule
	every    time.Duration // of "@every"; 0: the schedule is by the calendar
}

func newCron(o Outside, config json.RawMessage) (Source, error) {
	s := &cronSource{o: o}
	if err := Read(config, &s.config); err != nil {
		return nil, err
	}
	c := &s.config
	text := strings.TrimSpace(c.Schedule)
	const form = `write it as {"schedule": "0 8 * * MON-FRI", "zone": "Europe/Berlin"}`
	if text == "" {
		return nil, Invalid("schedule is missing").WithFix(form)
	}
	if strings.Contains(text, "=") || strings.HasPrefix(text, "@reboot") { // a zone has a field of its own
		return nil, Invalid("%.60q is no schedule", c.Schedule).WithFix(form)
	}
	if c.Zone == "" {
		c.Zone = "UTC"
	}
	if _, err := time.LoadLocation(c.Zone); err != nil || c.Zone == "Local" {
		return nil, Invalid("zone: there is no time zone %.60q", c.Zone).WithFix("name it as the IANA database does, such as Europe/Berlin")
	}
	var err error
	if every, ok := strings.CutPrefix(text, "@every "); ok {
		if s.every, err = time.ParseDuration(strings.TrimSpace(every)); err != nil || s.every < cronLeastEvery {
			return nil, Invalid("schedule: %.60q is not a time of a second or more", every).WithFix("write it as @every 90s")
		}
		s.every = s.every.Truncate(time.Second)
	} else if s.schedule, err = cronParser.Parse("CRON_TZ=" + c.Zone + " " + text); err != nil {
		return nil, Invalid("schedule: %.60q: %w", c.Schedule, err).WithFix(form)
	} else if s.schedule.Next(time.Now()).IsZero() {
		return nil, Invalid("schedule: %.60q never comes", c.Schedule)
	}
	switch c.Overlap {
	case "":
		c.Overlap = "allow"
	case "allow", "queue", "skip":
	default:
		return nil, Invalid("overlap is %.60q; it is allow, queue or skip", c.Overlap)
	}
	switch c.CatchUp {
	case "":
		c.CatchUp = "last"
	case "none", "last", "all":
	default:
		return nil, Invalid("catch_up is %.60q; it is none, last or all", c.CatchUp)
	}
	if c.CatchUpMost == 0 {
		c.CatchUpMost = cronMost
	}
	if c.CatchUpMost < 0 || c.CatchUpMost > cronCatchUp {
		return nil, Invalid("catch_up_most is %d; it is from 1 to %d", c.CatchUpMost, cronCatchUp).WithLimit("catch_up_most")
	}
	if c.Times < 0 {
		return nil, Invalid("times is %d", c.Times)
	}
	if len(c.Data) > 0 {
		fields := map[string]json.RawMessage{}
		if err := json.Unmarshal(c.Data, &fields); err != nil {
			return nil, Invalid("data is not a JSON object")
		}
	}
	return s, nil
}

// cronState is what is remembered.
type cronState struct {
	Last  time.Time `json:"last"`  // the due time of the newest fire, or when the trigger was made
	Fired int       `json:"fired"` // how often it has
	// Config is a digest of the configuration with which it has; with another it begins to count anew.
	Config string `json:"config,omitempty"`
}

// after returns the first due time after t; zero if there is none.
func (s *cronSource) after(t time.Time) time.Time {
	var next time.Time
	from := s.config.From.Add(time.Second - 1).Truncate(time.Second) // fires come at whole seconds
	if s.every == 0 && t.Before(from) {
		t = from.Add(-time.Second) // so that a time is found that is due right there
	}
	switch {
	case s.every > 0 && t.Before(from):
		next = from
	case s.every > 0:
		next = t.Truncate(time.Second).Add(s.every)
	default:
		next = s.schedule.Next(t)
	}
	if next.IsZero() || !s.config.Until.IsZero() && next.After(s.config.Until) {
		return time.Time{}
	}
	return next
}

// Next implements Planned.
func (s *cronSource) Next(after time.Time, n int) []time.Time {
	var out []time.Time
	for t := s.after(after); !t.IsZero() && len(out) < n; t = s.after(t) {
		out = append(out, t)
	}
	return out
}

// Run implements Source.
func (s *cronSource) Run(ctx context.Context, fire Fire) error {
	state, err := s.recall(ctx)
	if err != nil {
		return err
	}
	var before *Fired
	for {
		if s.config.Times > 0 && state.Fired >= s.config.Times {
			<-ctx.Done()
			return nil
		}
		due := s.after(state.Last)
		if due.IsZero() {
			<-ctx.Done() // it has come to its end
			return nil
		}
		if err := s.sleep(ctx, due); err != nil {
			return nil
		}
		now := s.o.Now()
		dues, left, last := s.missed(due, now)
		for i, d := range dues {
			missed := 0
			if i == 0 {
				missed = left
			}
			if before, err = s.fire(ctx, fire, before, d, missed, now); err != nil {
				return err
			}
			state.Fired++
			if s.config.Times > 0 && state.Fired >= s.config.Times {
				break
			}
		}
		state.Last = last // the times that were left out are behind too
		if err := s.remember(ctx, state); err != nil {
			return err
		}
	}
}

// late is up to when a fire is not one that was missed.
const late = 2 * time.Second

// missed returns what is to be fired now, of all that is due from the given time on, and how many are
// left out. last is the newest of either.
func (s *cronSource) missed(due, now time.Time) (fire []time.Time, left int, last time.Time) {
	n := 0
	for t := due; !t.IsZero() && !t.After(now); t = s.after(t) {
		last = t
		n++
		switch {
		case s.config.CatchUp == "all" && len(fire) < s.config.CatchUpMost:
			fire = append(fire, t)
		case n > cronCatchUp: // many years of seconds: what is due is what is due now
			skip := now.Add(-time.Minute)
			if s.every == 0 && skip.After(t) {
				t = skip
			}
		}
	}
	switch {
	case n == 0:
		return nil, 0, due
	case now.Sub(last) <= late && n == 1:
		return []time.Time{last}, 0, last
	case s.config.CatchUp == "all":
		return fire, n - len(fire), last
	case s.config.CatchUp == "last" || now.Sub(last) <= late:
		return []time.Time{last}, n - 1, last
	}
	return nil, n, last
}

func (s *cronSource) fire(ctx context.Context, fire Fire, before *Fired, due time.Time, missed int, now time.Time) (*Fired, error) {
	if s.config.Overlap == "skip" && before != nil && before.going(ctx) {
		s.o.Log.Info("schedule left out a fire: calls of the one before are not over", "due", due)
		return before, nil
	}
	data := map[string]any{}
	if len(s.config.Data) > 0 {
		_ = json.Unmarshal(s.config.Data, &data) // checked
	}
	data["trigger"], data["due"], data["fired"] = s.o.Trigger.Name, due.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339Nano)
	if missed > 0 {
		data["missed"] = missed
	}
	body, err := json.Marshal(data)
	if err != nil {
		return before, err
	}
	e := faas.Event{ID: due.UTC().Format(time.RFC3339), Type: "brasa.cron.fired", Time: due, Data: body}
	if s.config.Overlap == "queue" {
		e.Order = s.o.Trigger.UID
	}
	fired, err := fire(ctx, e)
	if err != nil {
		return before, fmt.Errorf("fire at %s: %w", due.UTC().Format(time.RFC3339), err)
	}
	return &fired, nil
}

// going says whether a call is not over.
func (f *Fired) going(ctx context.Context) bool {
	for _, c := range f.Calls {
		if c.Err != nil {
			continue
		}
		w, err := f.manager.cfg.Dispatcher.Standing(ctx, f.namespace, c.ID)
		if err != nil {
			continue // nothing is known of it any more
		}
		switch w.Stage {
		case faas.StageQueued, faas.StageRunning, faas.StageRetrying:
			return true
		}
	}
	return false
}

// sleep returns when the clock shows t or later, or with ctx's error. It looks at the clock every
// now and then: one that was set forward makes a fire due, one that was set back makes none twice.
func (s *cronSource) sleep(ctx context.Context, t time.Time) error {
	for {
		left := t.Sub(s.o.Now())
		if left <= 0 {
			return ctx.Err()
		}
		timer := time.NewTimer(min(left, cronNap))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

func (s *cronSource) recall(ctx context.Context) (cronState, error) {
	b, err := s.o.State.Get(ctx)
	if err != nil {
		return cronState{}, fmt.Errorf("recall what was fired: %w", err)
	}
	state := cronState{}
	if b == nil || json.Unmarshal(b, &state) != nil || state.Last.IsZero() {
		state.Last = s.o.Trigger.Updated
		if state.Last.IsZero() {
			state.Last = s.o.Now()
		}
	}
	config, err := json.Marshal(s.config)
	if err != nil {
		return state, err
	}
	sum := sha256.Sum256(config)
	now := hex.EncodeToString(sum[:8])
	if state.Config != "" && state.Config != now {
		state.Fired = 0
	}
	state.Config = now
	// A trigger that was changed begins anew: what was due before is not its business.
	if s.o.Trigger.Updated.After(state.Last) {
		state.Last = s.o.Trigger.Updated
	}
	return state, nil
}

func (s *cronSource) remember(ctx context.Context, state cronState) error {
	b, err := json.Marshal(state)
	if err != nil {
		return err
	}
	if err := s.o.State.Put(ctx, b); err != nil {
		return fmt.Errorf("remember what was fired: %w", err)
	}
	return nil
}
