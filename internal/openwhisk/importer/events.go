package importer

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// trigger copies a trigger, and has its feed made anew if it is an alarm.
func (im *importing) trigger(ctx context.Context, name string) {
	feed := ""
	var alarm map[string]json.RawMessage
	_, copied := im.entity(ctx, "triggers", name, "trigger", func(d *document, note func(string, ...any)) error {
		d.Limits = nil // a trigger has none
		var fed bool
		if feed, fed = d.annotation("feed"); !fed {
			return nil
		}
		if !isAlarm(feed) {
			note("its feed %q is not of this server: have the trigger fired by what speaks to that source", feed)
			d.dropFeed()
			feed = ""
			return nil
		}
		var err error
		if alarm, err = im.readAlarm(ctx, feed, name); err != nil {
			note("what its feed %q is set to could not be read: %v; create it anew", feed, err)
			d.dropFeed()
			feed = ""
		}
		return nil
	})
	if !copied || feed == "" || im.DryRun {
		return
	}
	if err := im.setAlarm(ctx, feed, name, alarm); err != nil {
		last := &im.report.Entities[len(im.report.Entities)-1]
		last.Outcome = Failed
		last.Notes = append(last.Notes, fmt.Sprintf("set its feed %q: %v", feed, err))
	}
}

// dropFeed leaves out that a trigger has a feed: clients would ask that for what they do to the trigger.
func (d *document) dropFeed() {
	d.Annotations = slices.DeleteFunc(d.Annotations, func(a keyValue) bool { return a.Key == "feed" })
}

// alarms are the feeds that each installation has.
const alarms = "whisk.system/alarms/"

func isAlarm(feed string) bool {
	kind, ok := strings.CutPrefix(strings.TrimPrefix(feed, "/"), alarms)
	return ok && slices.Contains([]string{"alarm", "interval", "once"}, kind)
}

// call calls a feed for a trigger, and returns what it answers.
func call(ctx context.Context, e *Endpoint, feed, event, trigger string, args map[string]json.RawMessage) (map[string]json.RawMessage, error) {
	body := map[string]any{"lifecycleEvent": event, "triggerName": "/_/" + trigger, "authKey": e.Auth}
	for k, v := range args {
		body[k] = v
	}
	rest := strings.TrimPrefix(strings.TrimPrefix(feed, "/"), "whisk.system/")
	var out map[string]json.RawMessage
	err := e.do(ctx, http.MethodPost, api+"/namespaces/whisk.system/actions/"+rest+"?blocking=true&result=true", body, &out)
	return out, err
}

// readAlarm asks the source when an alarm goes off.
func (im *importing) readAlarm(ctx context.Context, feed, trigger string) (map[string]json.RawMessage, error) {
	answer, err := call(ctx, &im.From, feed, "READ", trigger, nil)
	if err != nil {
		return nil, err
	}
	var config map[string]json.RawMessage
	if err := json.Unmarshal(answer["config"], &config); err != nil {
		return nil, fmt.Errorf("it does not tell its configuration")
	}
	args := map[string]json.RawMessage{}
	for _, key := range []string{"cron", "timezone", "strict", "startDate", "stopDate", "minutes", "date", "deleteAfterFire"} {
		if v, ok := config[key]; ok {
			args[key] = v
		}
	}
	if payload, ok := config["payload"]; ok {
		args["trigger_payload"] = payload
	}
	return args, nil
}

// setAlarm has the alarm go off at the target: as a new one, or as a change of what is there.
func (im *importing) setAlarm(ctx context.Context, feed, trigger string, args map[string]json.RawMessage) error {
	event := "CREATE"
	if _, err := call(ctx, &im.To, feed, "READ", trigger, nil); err == nil {
		event = "UPDATE"
	}
	_, err := call(ctx, &im.To, feed, event, trigger, args)
	return err
}

// rule copies a rule, with its status.
func (im *importing) rule(ctx context.Context, name string) {
	status := ""
	_, copied := im.entity(ctx, "rules", name, "rule", func(d *document, _ func(string, ...any)) error {
		if d.Trigger == nil || d.Action == nil {
			return fmt.Errorf("the source does not say what it links")
		}
		for _, r := range []*reference{d.Trigger, d.Action} {
			if r.Path == im.report.Source {
				r.Path = "_"
			} else if rest, ok := strings.CutPrefix(r.Path, im.report.Source+"/"); ok {
				r.Path = "_/" + rest
			}
		}
		status, d.Status = d.Status, ""
		return nil
	})
	if !copied || im.DryRun || status == "" {
		return
	}
	body := map[string]string{"status": "inactive"}
	if status == "active" {
		body["status"] = "active"
	}
	if err := im.To.do(ctx, http.MethodPost, at("rules", name), body, nil); err != nil {
		last := &im.report.Entities[len(im.report.Entities)-1]
		last.Outcome = Failed
		last.Notes = append(last.Notes, fmt.Sprintf("make it %s: %v", body["status"], err))
	}
}
