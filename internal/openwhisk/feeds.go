package openwhisk

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Feeds of package alarms.
const (
	feedAlarm    = "alarm"
	feedInterval = "interval"
	feedOnce     = "once"
)

// alarm is what fires a trigger by the clock, as it was asked for. Its source in the catalog is made of it.
type alarm struct {
	Feed     string                     `json:"feed"`
	Cron     string                     `json:"cron,omitempty"`
	Timezone string                     `json:"timezone,omitempty"`
	Strict   json.RawMessage            `json:"strict,omitempty"` // kept as it came: schedules are always kept to
	Minutes  int                        `json:"minutes,omitempty"`
	Date     *moment                    `json:"date,omitempty"`
	Start    *moment                    `json:"startDate,omitempty"`
	Stop     *moment                    `json:"stopDate,omitempty"`
	Most     int                        `json:"maxTriggers,omitempty"`
	Delete   string                     `json:"deleteAfterFire,omitempty"` // "false", "true", "rules"
	Payload  map[string]json.RawMessage `json:"payload,omitempty"`
	Changed  int64                      `json:"changed"` // ms since 1970
}

// moment is a date as it was sent: milliseconds since 1970, or text.
type moment struct {
	raw json.RawMessage
	at  time.Time
}

// forms are those in which dates are written; the first three are of ISO 8601.
var forms = []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateTime, time.DateOnly, time.RFC1123, time.RFC1123Z}

// UnmarshalJSON reads either form.
func (m *moment) UnmarshalJSON(b []byte) error {
	m.raw = append(json.RawMessage(nil), b...)
	text := strings.TrimSpace(string(b))
	var s string
	if json.Unmarshal(b, &s) == nil {
		text = strings.TrimSpace(s)
	}
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
		m.at = time.UnixMilli(ms).UTC()
		return nil
	}
	for _, form := range forms {
		if t, err := time.Parse(form, text); err == nil {
			m.at = t.UTC()
			return nil
		}
	}
	return fmt.Errorf("'%.40s' is not a valid Date", text)
}

// MarshalJSON writes what was read.
func (m moment) MarshalJSON() ([]byte, error) { return m.raw, nil }

// feedError is what a feed answers that can't do what it was asked: an error of the application.
type feedError struct{ message string }

func (e *feedError) Error() string { return e.message }

func refuse(format string, args ...any) error { return &feedError{fmt.Sprintf(format, args...)} }

// lifecycle does what a feed of package alarms is asked for, and returns what it answers.
func (s *Server) lifecycle(ctx context.Context, feed, caller string, args map[string]json.RawMessage) (any, error) {
	text := func(key string) string {
		var v string
		_ = json.Unmarshal(args[key], &v) // what is no string is refused as one that is missing
		return v
	}
	authKey, name := text("authKey"), text("triggerName")
	if authKey == "" {
		return nil, refuse("no authKey parameter was provided")
	}
	if name == "" {
		return nil, refuse("no trigger name parameter was provided")
	}
	uuid, key, _ := strings.Cut(authKey, ":")
	// Guesses are counted for each caller, so that none locks another out.
	who, err := s.cfg.Subjects.Authenticate(uuid, key, "feed of "+caller)
	if err != nil {
		return nil, refuse("the authKey does not open the trigger's namespace")
	}
	p, ok := parsePath(name, who.Namespace)
	if !ok || p.pkg != "" || p.namespace != who.Namespace {
		return nil, refuse("the authKey does not open the namespace of the trigger '%.80s'", name)
	}
	defer s.locks.lock(p)()
	t, err := s.findTrigger(p)
	event := strings.ToUpper(text("lifecycleEvent"))
	switch {
	case err == nil:
	case event == "DELETE" && asRejection(err) == errNotFound: // it went with its trigger
		return done, nil
	default:
		return nil, refuse("the trigger '%s' does not exist", p)
	}
	switch event {
	case "CREATE":
		a := &alarm{Feed: feed}
		if err := a.read(args, true); err != nil {
			return nil, err
		}
		return done, s.setAlarm(ctx, t, a, false)
	case "READ":
		if t.record.Alarm == nil {
			return nil, refuse("the trigger '%s' has no alarm", p)
		}
		return t.record.Alarm.shown(p, t.trigger.Paused), nil
	case "UPDATE":
		if t.record.Alarm == nil {
			return nil, refuse("the trigger '%s' has no alarm", p)
		}
		a := *t.record.Alarm
		if err := a.read(args, false); err != nil {
			return nil, err
		}
		return done, s.setAlarm(ctx, t, &a, t.trigger.Paused)
	case "DELETE":
		return done, s.setAlarm(ctx, t, nil, false)
	case "PAUSE", "UNPAUSE":
		if t.record.Alarm == nil {
			return nil, refuse("the trigger '%s' has no alarm", p)
		}
		return done, s.setAlarm(ctx, t, t.record.Alarm, event == "PAUSE")
	}
	return nil, refuse("unsupported lifecycleEvent")
}

var done = map[string]string{"status": "success"}

// read takes over what a CREATE or an UPDATE says, and says what is wrong with it.
func (a *alarm) read(args map[string]json.RawMessage, create bool) error {
	changed := create
	has := func(key string) bool {
		v := strings.TrimSpace(string(args[key]))
		return v != "" && v != "null" && v != `""`
	}
	take := func(key string, to any) error {
		if !has(key) {
			return nil
		}
		changed = true
		if err := json.Unmarshal(args[key], to); err != nil {
			return refuse("%s parameter %v", key, err)
		}
		return nil
	}
	at := func(key string, to **moment) error {
		if !has(key) {
			return nil
		}
		if err := take(key, to); err != nil {
			return err
		}
		if !(*to).at.After(now()) {
			return refuse("%s parameter '%s' must be in the future", key, strings.Trim(string((*to).raw), `"`))
		}
		return nil
	}
	if has("trigger_payload") {
		changed = true
		raw := args["trigger_payload"]
		var text string
		if json.Unmarshal(raw, &text) == nil && json.Valid([]byte(text)) && strings.HasPrefix(strings.TrimSpace(text), "{") {
			raw = json.RawMessage(text) // clients send objects as text, too
		}
		a.Payload = nil
		if json.Unmarshal(raw, &a.Payload) != nil {
			a.Payload = map[string]json.RawMessage{"payload": raw}
		}
	}
	var errs []error
	switch a.Feed {
	case feedOnce:
		errs = append(errs, at("date", &a.Date))
		if has("deleteAfterFire") {
			changed = true
			a.Delete = strings.ToLower(strings.Trim(string(args["deleteAfterFire"]), `" `))
		}
	case feedInterval:
		if has("minutes") {
			n, err := strconv.Atoi(strings.Trim(string(args["minutes"]), `" `))
			if err != nil {
				return refuse("the minutes parameter must be an integer")
			}
			if n <= 0 || n > 60*24*366 {
				return refuse("the minutes parameter must be an integer greater than zero, and a year's at the most")
			}
			a.Minutes, changed = n, true
		}
	default:
		errs = append(errs, take("cron", &a.Cron), take("timezone", &a.Timezone))
		if has("strict") {
			a.Strict, changed = args["strict"], true
		}
		if has("maxTriggers") {
			n, err := strconv.Atoi(strings.Trim(string(args["maxTriggers"]), `" `))
			if err != nil {
				return refuse("the maxTriggers parameter must be an integer")
			}
			a.Most, changed = max(n, 0), true // -1 is any number
		}
	}
	if a.Feed != feedOnce {
		errs = append(errs, at("startDate", &a.Start), at("stopDate", &a.Stop))
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	if !changed {
		return refuse("no updatable parameters were specified")
	}
	return a.check()
}

// check says what is missing, and what does not go together.
func (a *alarm) check() error {
	switch {
	case a.Feed == feedAlarm && a.Cron == "":
		return refuse("alarms trigger feed is missing the cron parameter")
	case a.Feed == feedInterval && a.Minutes == 0:
		return refuse("interval trigger feed is missing the minutes parameter")
	case a.Feed == feedOnce && a.Date == nil:
		return refuse("alarms once trigger feed is missing the date parameter")
	case a.Delete != "" && a.Delete != "false" && a.Delete != "true" && a.Delete != "rules":
		return refuse("deleteAfterFire parameter must be one of [false, true, rules].")
	case a.Most > 0 && a.Stop != nil:
		return refuse("maxTriggers is not allowed when the stopDate parameter is specified")
	case a.Start != nil && a.Stop != nil && !a.Stop.at.After(a.Start.at):
		return refuse("stopDate parameter '%s' must be greater than the startDate parameter '%s'", a.Stop.raw, a.Start.raw)
	}
	return nil
}

// source is the schedule that an alarm comes to.
func (a *alarm) source() (*faas.Source, error) {
	config := map[string]any{"schedule": a.Cron}
	if a.Timezone != "" {
		config["zone"] = a.Timezone
	}
	if a.Start != nil {
		config["from"] = a.Start.at
	}
	if a.Stop != nil {
		config["until"] = a.Stop.at
	}
	if a.Most > 0 {
		config["times"] = a.Most
	}
	switch a.Feed {
	case feedInterval:
		config["schedule"] = fmt.Sprintf("@every %dm", a.Minutes)
		if a.Start == nil {
			config["from"] = time.UnixMilli(a.Changed).Add(firstInterval)
		}
	case feedOnce:
		config["schedule"], config["from"], config["times"] = "@every 1m", a.Date.at, 1
	}
	b, err := json.Marshal(config)
	return &faas.Source{Kind: "cron", Config: b}, err
}

// firstInterval is when a trigger of feed interval fires first that has no date to begin.
const firstInterval = 30 * time.Second

// setAlarm has a trigger fired by an alarm, or with nil by none.
func (s *Server) setAlarm(ctx context.Context, t *trig, a *alarm, paused bool) error {
	next := *t.trigger
	next.Source, next.Paused = nil, paused
	r := t.record
	r.Alarm, r.Updated = a, s.touch(r.Updated)
	if a != nil {
		a.Changed = now().UnixMilli()
		var err error
		if next.Source, err = a.source(); err != nil {
			return err
		}
		if err := s.cfg.Triggers.Check(&next); err != nil {
			return refuse("%s", faas.AsError(err).Message())
		}
		if a.Stop != nil && len(s.cfg.Triggers.Next(&next, now(), 1)) == 0 {
			return refuse("the first scheduled trigger fire is not until after the stop date")
		}
	}
	var err error
	if next.Origin, err = origin(r); err != nil {
		return err
	}
	return s.cfg.Catalog.PutTrigger(ctx, &next, true)
}

// shown is what READ answers.
func (a *alarm) shown(p path, paused bool) any {
	payload := a.Payload
	if payload == nil {
		payload = map[string]json.RawMessage{}
	}
	config := map[string]any{"name": p.name, "namespace": p.namespace, "payload": payload}
	if a.Feed == feedOnce {
		config["date"] = a.Date
		if a.Delete != "" {
			config["deleteAfterFire"] = a.Delete
		}
	} else {
		if a.Start != nil {
			config["startDate"] = a.Start
		}
		if a.Stop != nil {
			config["stopDate"] = a.Stop
		}
		if a.Feed == feedInterval {
			config["minutes"] = a.Minutes
		} else {
			config["cron"] = a.Cron
			if a.Timezone != "" {
				config["timezone"] = a.Timezone
			}
			if a.Strict != nil {
				config["strict"] = a.Strict
			}
		}
	}
	return map[string]any{"config": config, "status": map[string]any{
		"active": !paused, "dateChanged": a.Changed, "dateChangedISO": time.UnixMilli(a.Changed).UTC().Format(time.RFC3339),
	}}
}

// afterAlarm deletes a trigger whose alarm was for once and is to leave nothing behind.
func (s *Server) afterAlarm(ctx context.Context, t *trig) error {
	a := t.record.Alarm
	if a == nil || a.Delete != "true" && a.Delete != "rules" {
		return nil
	}
	rules := s.cfg.Catalog.RulesOf(t.trigger.Namespace, t.trigger.Name)
	if err := s.cfg.Catalog.DeleteTrigger(ctx, t.trigger.Namespace, t.trigger.Name); err != nil && faas.CodeOf(err) != faas.NotFound {
		return err
	}
	if a.Delete != "rules" {
		return nil
	}
	for _, rule := range rules {
		if err := s.cfg.Catalog.DeleteRule(ctx, rule.Namespace, rule.Name); err != nil && faas.CodeOf(err) != faas.NotFound {
			return err
		}
	}
	return nil
}
