package openwhisk_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// feed asks a feed of package alarms for something, as wsk does, and returns what came of it.
func (w *world) feed(feed, event, trigger string, args map[string]any) answer {
	w.t.Helper()
	guest := w.subjects["guest"]
	all := map[string]any{"lifecycleEvent": event, "triggerName": trigger, "authKey": guest.UUID + ":" + guest.Key}
	for k, v := range args {
		all[k] = v
	}
	body, err := json.Marshal(all)
	w.must(err)
	return w.send("guest", "POST", "whisk.system/actions/alarms/"+feed+"?blocking=true&result=true", string(body))
}

func TestAlarms(t *testing.T) {
	w := open(t, nil)
	soon, later := time.Now().Add(time.Hour).UTC().Format(time.RFC3339), time.Now().Add(2*time.Hour).UnixMilli()
	w.play([]step{
		{item: 150, method: "PUT", path: "_/triggers/t", body: `{"annotations":[{"key":"feed","value":"/whisk.system/alarms/alarm"}]}`, status: 200},
		{item: 150, method: "GET", path: "whisk.system/packages/alarms", status: 200, want: `{"publish":true,"actions":[],"feeds":[{"name":"once"},{"name":"interval"},{"name":"alarm"}]}`},
		{item: 150, method: "GET", path: "whisk.system/actions/alarms/alarm", status: 200, want: `{"namespace":"whisk.system/alarms","exec":{"kind":"blackbox"}}`},
	})
	for _, c := range []struct {
		item              int
		feed, event, name string
		args              map[string]any
		status            int
		want              string
	}{
		{150, "alarm", "CREATE", "/_/t", map[string]any{}, 502, `{"error":"~cron"}`},
		{150, "alarm", "CREATE", "/_/t", map[string]any{"cron": "not a schedule"}, 502, `{"error":"~schedule"}`},
		{150, "alarm", "CREATE", "/_/t", map[string]any{"cron": "0 0 * * *", "timezone": "Nowhere/Atall"}, 502, `{"error":"~zone"}`},
		{150, "alarm", "CREATE", "/_/none", map[string]any{"cron": "0 0 * * *"}, 502, `{"error":"~does not exist"}`},
		{150, "alarm", "CREATE", "/other/t", map[string]any{"cron": "0 0 * * *"}, 502, `{"error":"~authKey"}`},
		{150, "alarm", "CREATE", "/_/t", map[string]any{"cron": "0 0 * * *", "authKey": "x:y"}, 502, `{"error":"~authKey"}`},
		{150, "alarm", "CREATE", "/_/t", map[string]any{"cron": "0 0 * * *", "authKey": nil}, 502, `{"error":"~no authKey"}`},
		{150, "alarm", "EXPLODE", "/_/t", map[string]any{"cron": "0 0 * * *"}, 502, `{"error":"~unsupported lifecycleEvent"}`},
		{150, "alarm", "CREATE", "/_/t", map[string]any{"cron": "0 0 * * *", "startDate": "2001-01-01"}, 502, `{"error":"~in the future"}`},
		{150, "alarm", "CREATE", "/_/t", map[string]any{"cron": "0 0 * * *", "startDate": "soon"}, 502, `{"error":"~not a valid Date"}`},
		{150, "alarm", "CREATE", "/_/t", map[string]any{"cron": "0 0 * * *", "startDate": later, "stopDate": soon}, 502, `{"error":"~greater"}`},
		{150, "alarm", "CREATE", "/_/t", map[string]any{"cron": "0 0 * * *", "maxTriggers": 3, "stopDate": later}, 502, `{"error":"~maxTriggers"}`},
		{150, "alarm", "CREATE", "/_/t", map[string]any{"cron": "0 0 1 1 *", "stopDate": time.Now().Add(time.Minute).UnixMilli()}, 502, `{"error":"~after the stop date"}`},
		{150, "interval", "CREATE", "/_/t", map[string]any{}, 502, `{"error":"~minutes"}`},
		{150, "interval", "CREATE", "/_/t", map[string]any{"minutes": "many"}, 502, `{"error":"~integer"}`},
		{150, "interval", "CREATE", "/_/t", map[string]any{"minutes": 0}, 502, `{"error":"~greater than zero"}`},
		{150, "once", "CREATE", "/_/t", map[string]any{}, 502, `{"error":"~date"}`},
		{150, "once", "CREATE", "/_/t", map[string]any{"date": soon, "deleteAfterFire": "perhaps"}, 502, `{"error":"~deleteAfterFire"}`},
		{151, "alarm", "READ", "/_/t", nil, 502, `{"error":"~no alarm"}`},
		{150, "alarm", "CREATE", "/_/t", map[string]any{"cron": "0 8 * * *", "timezone": "Europe/Berlin", "trigger_payload": `{"a":1}`, "maxTriggers": "5"}, 200, `{"status":"success"}`},
		{151, "alarm", "READ", "/_/t", nil, 200, `{"config":{"name":"t","namespace":"guest","cron":"0 8 * * *","timezone":"Europe/Berlin","payload":{"a":1}},"status":{"active":true,"dateChanged":"<any>"}}`},
		{151, "alarm", "UPDATE", "/_/t", map[string]any{}, 502, `{"error":"~no updatable"}`},
		{151, "alarm", "UPDATE", "/_/t", map[string]any{"cron": "0 9 * * *", "trigger_payload": map[string]any{"b": 2}}, 200, `{"status":"success"}`},
		{151, "alarm", "READ", "/guest/t", nil, 200, `{"config":{"cron":"0 9 * * *","timezone":"Europe/Berlin","payload":{"a":"<absent>","b":2}}}`},
		{151, "alarm", "PAUSE", "/_/t", nil, 200, `{"status":"success"}`},
		{151, "alarm", "READ", "/_/t", nil, 200, `{"status":{"active":false}}`},
		{151, "alarm", "UNPAUSE", "/_/t", nil, 200, `{"status":"success"}`},
		{151, "alarm", "DELETE", "/_/t", nil, 200, `{"status":"success"}`},
		{151, "alarm", "READ", "/_/t", nil, 502, `{"error":"~no alarm"}`},
		{150, "interval", "CREATE", "/_/t", map[string]any{"minutes": 5, "startDate": soon, "stopDate": later}, 200, `{"status":"success"}`},
		{151, "interval", "READ", "/_/t", nil, 200, fmt.Sprintf(`{"config":{"minutes":5,"startDate":"%s","stopDate":%d,"payload":{}}}`, soon, later)},
		{150, "once", "CREATE", "/_/t", map[string]any{"date": later, "deleteAfterFire": true}, 200, `{"status":"success"}`},
		{151, "once", "READ", "/_/t", nil, 200, fmt.Sprintf(`{"config":{"date":%d,"deleteAfterFire":"true"}}`, later)},
	} {
		a := w.feed(c.feed, c.event, c.name, c.args)
		var want any
		w.must(json.Unmarshal([]byte(c.want), &want))
		if err := contains(a.json, want, ""); a.status != c.status || err != nil {
			t.Errorf("item %d: %s %s %v: status %d, %v in %s; want %d", c.item, c.feed, c.event, c.args, a.status, err, a.body, c.status)
		}
	}
	// The trigger itself is changed without its alarm, and its deletion ends that.
	w.play([]step{
		{item: 151, method: "PUT", path: "_/triggers/t?overwrite=true", body: `{"parameters":[{"key":"a","value":1}]}`, status: 200},
	})
	tr, err := w.catalog.Trigger("guest", "t")
	if err != nil || tr.Source == nil || tr.Source.Kind != "cron" || string(tr.Params["a"]) != "1" {
		t.Errorf("item 151: trigger %+v, %v", tr, err)
	}
	w.play([]step{{item: 151, method: "DELETE", path: "_/triggers/t", status: 200}})
	if a := w.feed("once", "DELETE", "/_/t", nil); a.status != 200 {
		t.Errorf("item 151: DELETE after the trigger is gone: %d %s", a.status, a.body)
	}
}

func TestAlarmsFire(t *testing.T) {
	w := open(t, nil)
	w.play([]step{
		{item: 150, method: "PUT", path: "_/triggers/tick", body: `{"parameters":[{"key":"p","value":1}]}`, status: 200},
		{item: 150, method: "PUT", path: "_/triggers/bang", body: `{}`, status: 200},
		{item: 150, method: "PUT", path: "_/actions/a", body: nodeCode, status: 200},
		{item: 150, method: "PUT", path: "_/actions/b", body: nodeCode, status: 200},
		{item: 150, method: "PUT", path: "_/rules/ra", body: `{"trigger":"/_/tick","action":"/_/a"}`, status: 200},
		{item: 150, method: "PUT", path: "_/rules/rb", body: `{"trigger":"/_/bang","action":"/_/b"}`, status: 200},
	})
	if a := w.feed("alarm", "CREATE", "/_/tick", map[string]any{"cron": "* * * * * *", "maxTriggers": 2, "trigger_payload": map[string]any{"q": 2}}); a.status != 200 {
		t.Fatal(a.body)
	}
	if a := w.feed("once", "CREATE", "/_/bang", map[string]any{"date": time.Now().Add(4 * time.Second).UnixMilli(), "deleteAfterFire": "rules"}); a.status != 200 {
		t.Fatal(a.body)
	}
	w.until("two fires and one", func() bool { return len(w.calls("guest/a")) == 2 && len(w.calls("guest/b")) == 1 })
	c := w.calls("guest/a")[0]
	if err := contains(c.args, map[string]any{"p": 1.0, "q": 2.0, "due": "<absent>", "trigger": "<absent>"}, ""); err != nil {
		t.Errorf("item 150: %v in %v", err, c.args)
	}
	if r := w.record("guest", string(c.cause)); contains(r, map[string]any{"name": "tick", "response": map[string]any{"result": map[string]any{"q": 2.0, "p": "<absent>"}}}, "") != nil {
		t.Errorf("item 150: record %v", r)
	}
	w.until("what was for once is gone", func() bool {
		return w.send("guest", "GET", "_/triggers/bang", "").status == 404 && w.send("guest", "GET", "_/rules/rb", "").status == 404
	})
	time.Sleep(1500 * time.Millisecond)
	if n := len(w.calls("guest/a")); n != 2 {
		t.Errorf("item 150: %d fires, want 2", n)
	}
}

func TestFeedsThatAreActions(t *testing.T) { // item 152
	w := open(t, nil)
	release := make(chan struct{})
	defer close(release)
	w.does["guest/p/slow"] = func(args map[string]any) (any, error) {
		<-release
		return args, nil
	}
	w.does["guest/p/timeout"] = func(map[string]any) (any, error) {
		return nil, faas.Errorf(faas.Timeout, "run action", "the action exceeded its time limit of 100 milliseconds")
	}
	w.play([]step{
		{item: 152, method: "PUT", path: "_/packages/p", body: `{}`, status: 200},
		{item: 152, method: "PUT", path: "_/actions/p/slow", body: with(nodeCode, `"annotations":[{"key":"feed","value":true}]`), status: 200},
		{item: 152, method: "PUT", path: "_/actions/p/timeout", body: with(nodeCode, `"annotations":[{"key":"feed","value":true}],"limits":{"timeout":100}`), status: 200},
		{item: 152, method: "PUT", path: "_/triggers/t", body: `{"annotations":[{"key":"feed","value":"/_/p/timeout"}]}`, status: 200},
		{item: 152, method: "POST", path: "_/actions/p/timeout?blocking=true", body: `{"lifecycleEvent":"CREATE","triggerName":"/_/t"}`, status: 502, want: `{"response":{"success":false}}`},
		{item: 152, method: "DELETE", path: "_/triggers/t", status: 200},
		{item: 152, method: "POST", path: "_/actions/p/slow?blocking=true&timeout=50", body: `{"lifecycleEvent":"CREATE","triggerName":"/_/t"}`, status: 202, want: `{"activationId":"<any>"}`},
		{item: 152, method: "GET", path: "_/triggers/t", status: 404},
	})
}
