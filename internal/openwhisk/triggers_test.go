package openwhisk_test

import (
	"encoding/json"
	"strings"
	"testing"
)

// record returns the record of a call once it is there.
func (w *world) record(who, id string) map[string]any {
	w.t.Helper()
	var a answer
	w.until("record "+id, func() bool {
		a = w.send(who, "GET", "_/activations/"+id, "")
		return a.status == 200
	})
	m, _ := a.json.(map[string]any)
	return m
}

// fire fires a trigger and returns its record with the outcomes in its log.
func (w *world) fire(name, body string) (id string, record map[string]any, outcomes []map[string]any) {
	w.t.Helper()
	a := w.send("guest", "POST", "_/triggers/"+name, body)
	if a.status != 202 {
		w.t.Fatalf("fire %s: status %d: %s", name, a.status, a.body)
	}
	m, _ := a.json.(map[string]any)
	id, _ = m["activationId"].(string)
	if id == "" || len(m) != 1 || a.header.Get("X-Openwhisk-Activation-Id") != id {
		w.t.Fatalf("fire %s: %s, header %q", name, a.body, a.header.Get("X-Openwhisk-Activation-Id"))
	}
	record = w.record("guest", id)
	logs, _ := record["logs"].([]any)
	for _, l := range logs {
		o := map[string]any{}
		text, _ := l.(string)
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			w.t.Fatalf("log line %q: %v", text, err)
		}
		outcomes = append(outcomes, o)
	}
	return id, record, outcomes
}

func TestTriggers(t *testing.T) {
	w := open(t, nil)
	big := strings.Repeat("x", 1<<20)
	w.play([]step{
		{item: 124, method: "PUT", path: "_/triggers/t", body: `{"parameters":[{"key":"a","value":1}]}`, status: 200,
			want: `{"namespace":"guest","name":"t","version":"0.0.1","publish":false,"annotations":[],"parameters":[{"key":"a","value":1}],"limits":{},"rules":"<absent>","updated":"<any>"}`},
		{item: 124, method: "PUT", path: "_/triggers/t", body: `{}`, status: 409},
		{item: 124, method: "PUT", path: "_/triggers/t?overwrite=true", body: `{"annotations":[{"key":"b","value":2}]}`, status: 200, want: `{"version":"0.0.2","parameters":[{"key":"a","value":1}],"annotations":[{"key":"b","value":2}]}`},
		{item: 124, method: "PUT", path: "_/triggers/t?overwrite=true", body: `{"annotations":[{"key":"c","value":3}],"parameters":[]}`, status: 200, want: `{"version":"0.0.3","parameters":[],"annotations":[{"key":"c","value":3}]}`},
		{item: 124, method: "GET", path: "_/triggers/none", status: 404},
		{item: 124, method: "DELETE", path: "_/triggers/none", status: 404},
		{item: 124, method: "POST", path: "_/triggers/none", body: `{}`, status: 404},
		{item: 125, method: "POST", path: "_/triggers/t", body: `{}`, status: 204},
		{item: 132, method: "PUT", path: "_/triggers/f", body: `{"annotations":[{"key":"feed","value":"no$name"}]}`, status: 400},
		{item: 132, method: "PUT", path: "_/triggers/f", body: `{"annotations":[{"key":"feed","value":5}]}`, status: 400},
		{item: 132, method: "PUT", path: "_/triggers/f", body: `{"annotations":[{"key":"feed","value":"/whisk.system/alarms/alarm"}]}`, status: 200},
		{item: 133, method: "POST", path: "_/triggers/t/extra", body: `{}`, status: 404},
		{item: 133, method: "GET", path: "_/triggers/t/extra", status: 404},
		{item: 134, method: "POST", path: "_/triggers/t", body: `{"a":"` + big + `"}`, status: 413},
		{item: 134, method: "POST", path: "_/triggers/t", body: `no JSON`, status: 400},
		{item: 134, method: "POST", path: "_/triggers/t", body: `[1]`, status: 400},
		{item: 134, method: "PUT", path: "_/triggers/t?overwrite=true", body: `{"parameters":[{"key":"a","value":"` + big + `"}]}`, status: 413},
	})
	a := w.send("guest", "POST", "_/triggers/t", `{}`)
	if a.body != "" || a.header.Get("X-Openwhisk-Activation-Id") != "" {
		t.Errorf("item 125: body %q, header %q", a.body, a.header.Get("X-Openwhisk-Activation-Id"))
	}
	w.play([]step{{item: 125, method: "GET", path: "_/activations", status: 200, want: `[]`}})
}

func TestFiring(t *testing.T) {
	w := open(t, nil)
	w.play([]step{
		{item: 126, method: "PUT", path: "_/triggers/t", body: `{"parameters":[{"key":"a","value":"trigger"},{"key":"b","value":"trigger"}]}`, status: 200},
		{item: 126, method: "PUT", path: "_/actions/x", body: with(nodeCode, `"parameters":[{"key":"c","value":"action"}]`), status: 200},
		{item: 126, method: "PUT", path: "_/rules/r", body: `{"trigger":"/_/t","action":"/_/x"}`, status: 200},
	})
	id, record, outcomes := w.fire("t", `{"b":"request"}`)
	if err := contains(record, map[string]any{
		"name": "t", "namespace": "guest", "activationId": id, "version": "0.0.1", "end": "<absent>", "duration": "<absent>",
		"response": map[string]any{"status": "success", "success": true, "result": map[string]any{"b": "request", "a": "<absent>", "__ow_headers": "<absent>"}},
	}, ""); err != nil {
		t.Errorf("item 126: %v in %v", err, record)
	}
	if len(outcomes) != 1 || outcomes[0]["success"] != true || outcomes[0]["statusCode"] != 0.0 || outcomes[0]["rule"] != "guest/r" || outcomes[0]["action"] != "guest/x" {
		t.Fatalf("item 126: log %v", outcomes)
	}
	w.until("the call", func() bool { return len(w.calls("guest/x")) == 1 })
	call := w.calls("guest/x")[0]
	if string(call.cause) != id || string(call.id) != outcomes[0]["activationId"] {
		t.Errorf("item 147: call %s with cause %s, want %v and %s", call.id, call.cause, outcomes[0]["activationId"], id)
	}
	if call.args["a"] != "trigger" || call.args["b"] != "request" || call.args["c"] != "action" {
		t.Errorf("item 130: arguments %v", call.args)
	}
	headers, _ := call.args["__ow_headers"].(map[string]any)
	if headers["content-type"] != "application/json" || headers["authorization"] != nil {
		t.Errorf("item 131: headers %v", headers)
	}
	if r := w.record("guest", string(call.id)); r["cause"] != id {
		t.Errorf("item 147: the action's record has cause %v, want %s", r["cause"], id)
	}
	// The body is not needed.
	if _, record, _ := w.fire("t", ""); contains(record, map[string]any{"response": map[string]any{"result": map[string]any{}}}, "") != nil {
		t.Errorf("item 126: record %v", record)
	}
}

func TestFiringWithRulesThatDoNotCall(t *testing.T) {
	w := open(t, nil)
	w.play([]step{
		{item: 127, method: "PUT", path: "_/triggers/t", body: `{}`, status: 200},
		{item: 127, method: "PUT", path: "_/actions/x", body: nodeCode, status: 200},
		{item: 127, method: "PUT", path: "_/actions/y", body: nodeCode, status: 200},
		{item: 127, method: "PUT", path: "_/rules/off", body: `{"trigger":"/_/t","action":"/_/x"}`, status: 200},
		{item: 127, method: "POST", path: "_/rules/off", body: `{"status":"inactive"}`, status: 200},
		{item: 127, method: "POST", path: "_/triggers/t", body: `{}`, status: 204},
		{item: 128, method: "PUT", path: "_/rules/on", body: `{"trigger":"/_/t","action":"/_/y"}`, status: 200},
	})
	_, _, outcomes := w.fire("t", `{}`)
	if len(outcomes) != 2 || outcomes[0]["success"] != false || outcomes[0]["rule"] != "guest/off" || outcomes[0]["error"] == nil || outcomes[1]["success"] != true {
		t.Errorf("item 128: %v", outcomes)
	}
	w.play([]step{{item: 129, method: "DELETE", path: "_/actions/y", status: 200}})
	_, record, outcomes := w.fire("t", `{}`)
	if len(outcomes) != 2 || outcomes[1]["success"] != false || outcomes[1]["error"] == nil || outcomes[1]["activationId"] != nil {
		t.Errorf("item 129: %v", outcomes)
	}
	if record["response"] == nil {
		t.Errorf("item 129: %v", record)
	}
	w.until("the call", func() bool { return len(w.calls("guest/y")) == 1 })
	if n := len(w.calls("guest/x")); n != 0 {
		t.Errorf("item 127: the action of an inactive rule was called %d times", n)
	}
}

func TestDeletedTriggersLeaveTheirRules(t *testing.T) { // item 135
	w := open(t, nil)
	w.play([]step{
		{item: 135, method: "PUT", path: "_/triggers/t", body: `{}`, status: 200},
		{item: 135, method: "PUT", path: "_/actions/x", body: nodeCode, status: 200},
		{item: 135, method: "PUT", path: "_/rules/r", body: `{"trigger":"/_/t","action":"/_/x"}`, status: 200},
		{item: 135, method: "GET", path: "_/triggers/t", status: 200, want: `{"rules":{"guest/r":{"action":{"path":"guest","name":"x"},"status":"active"}}}`},
		{item: 135, method: "DELETE", path: "_/triggers/t", status: 200, want: `{"name":"t","version":"0.0.1"}`},
		{item: 135, method: "GET", path: "_/triggers/t", status: 404},
		{item: 135, method: "GET", path: "_/rules/r", status: 200, want: `{"status":"inactive","trigger":{"path":"guest","name":"t"}}`},
		{item: 144, method: "POST", path: "_/rules/r", body: `{"status":"active"}`, status: 404},
		{item: 145, method: "DELETE", path: "_/rules/r", status: 200},
	})
}
