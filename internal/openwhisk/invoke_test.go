package openwhisk_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/openwhisk"
)

// do has an action do something.
func (w *world) do(name string, does func(map[string]any) (any, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.does[name] = does
}

// id is the activation that an answer names.
func (a answer) id() string {
	m, _ := a.json.(map[string]any)
	id, _ := m["activationId"].(string)
	return id
}

func (w *world) recordOf(id string) answer {
	w.t.Helper()
	var a answer
	w.until("the record of "+id, func() bool {
		a = w.send("guest", "GET", "_/activations/"+id, "")
		return a.status == http.StatusOK
	})
	return a
}

func TestInvoke(t *testing.T) {
	w := open(t, func(c *openwhisk.Config) { c.Limits.Blocking = 2 * time.Second; c.Limits.Payload = 2000 })
	release := make(chan struct{})
	w.do("guest/slow", func(map[string]any) (any, error) { <-release; return map[string]any{"late": true}, nil })
	w.do("guest/list", func(map[string]any) (any, error) { return []any{1, "b"}, nil })
	w.do("guest/app", func(map[string]any) (any, error) { return map[string]any{"error": map[string]any{"mine": 1}}, nil })
	w.do("guest/dev", func(map[string]any) (any, error) { return nil, faas.Errorf(faas.Failed, "run", "it threw") })
	w.do("guest/crash", func(map[string]any) (any, error) { return nil, faas.Errorf(faas.Crashed, "run", "it exited") })
	w.do("guest/late", func(map[string]any) (any, error) {
		return nil, faas.Errorf(faas.Timeout, "run", "The action exceeded its time limits of 100 milliseconds.")
	})
	w.do("guest/ours", func(map[string]any) (any, error) { return nil, faas.Errorf(faas.Internal, "run", "no place") })
	w.do("guest/ended", func(map[string]any) (any, error) {
		return nil, faas.Errorf(faas.Canceled, "run", "the server was stopped")
	})
	w.do("guest/long", func(map[string]any) (any, error) { return map[string]any{"x": strings.Repeat("y", 3000)}, nil })
	w.do("guest/none", func(map[string]any) (any, error) { return map[string]any{}, nil })
	for _, name := range []string{"a", "slow", "list", "app", "dev", "crash", "late", "ours", "ended", "long", "none"} {
		if a := w.send("guest", "PUT", "_/actions/"+name, nodeCode); a.status != 200 {
			t.Fatal(a.body)
		}
	}
	a := w.send("guest", "POST", "_/actions/a", `{"x":1}`)
	if a.status != 202 || len(a.id()) != 32 || a.header.Get("x-openwhisk-activation-id") != a.id() || len(a.json.(map[string]any)) != 1 {
		t.Errorf("item 48: %d %s %v", a.status, a.body, a.header)
	}
	if r := w.recordOf(a.id()); contains(r.json, map[string]any{"response": map[string]any{"result": map[string]any{"x": 1.0}}}, "") != nil {
		t.Errorf("item 48: %s", r.body)
	}
	w.play([]step{
		{item: 49, method: "POST", path: "_/actions/a?blocking=true", body: `{"x":1}`, status: 200, want: `{"namespace":"guest","name":"a","version":"0.0.1","subject":"guest","logs":[],"publish":false,
			"response":{"status":"success","success":true,"result":{"x":1}},"activationId":"<any>","start":"<any>","end":"<any>","duration":"<any>"}`},
		{item: 50, method: "POST", path: "_/actions/a?blocking=true&result=true", body: `{"x":1}`, status: 200, want: `{"x":1,"activationId":"<absent>"}`},
		{item: 51, method: "POST", path: "_/actions/a?result=true", body: `{}`, status: 202, want: `{"activationId":"<any>"}`},
		{item: 52, method: "POST", path: "_/actions/a?blocking=true&result=true", status: 200, want: `{}`},
		{item: 52, method: "POST", path: "_/actions/a?blocking=true", body: `{"x"`, status: 400},
		{item: 52, method: "POST", path: "_/actions/a?blocking=true", body: `17`, status: 400},
		{item: 53, method: "POST", path: "_/actions/a?blocking=true", body: `[1]`, status: 400},
		{item: 53, method: "POST", path: "_/actions/list?blocking=true", body: `{}`, status: 200, want: `[1,"b"]`},
		{item: 54, method: "POST", path: "_/actions/a?blocking=true&timeout=0", body: `{}`, status: 400},
		{item: 54, method: "POST", path: "_/actions/a?blocking=true&timeout=2001", body: `{}`, status: 400},
		{item: 54, method: "POST", path: "_/actions/a?blocking=true&timeout=abc", body: `{}`, status: 400},
		{item: 59, method: "POST", path: "_/actions/a?blocking=true", body: `{"x":"` + strings.Repeat("y", 2000) + `"}`, status: 413},
		{item: 59, method: "POST", path: "_/actions/a?blocking=true&result=true", body: `{"x":"` + strings.Repeat("y", 1900) + `"}`, status: 200},
		{item: 60, method: "POST", path: "_/actions/none?blocking=true", body: `{}`, status: 200, want: `{"response":{"result":{}}}`},
		{item: 61, method: "POST", path: "_/actions/a?blocking=true&result=true", body: `{"é":"日本 \u0001"}`, status: 200, want: `{"é":"日本 \u0001"}`},
		{item: 65, method: "POST", path: "_/actions/app?blocking=true", body: `{}`, status: 502, want: `{"response":{"status":"application error","statusCode":"<absent>","success":false,"result":{"error":{"mine":1}}}}`},
		{item: 65, method: "POST", path: "_/actions/app?blocking=true&result=true", body: `{}`, status: 502, want: `{"error":{"mine":1}}`},
		{item: 67, method: "POST", path: "_/actions/dev?blocking=true", body: `{}`, status: 502, want: `{"response":{"status":"action developer error","statusCode":"<absent>","success":false,"result":{"error":"~it threw"}}}`},
		{item: 69, method: "POST", path: "_/actions/crash?blocking=true", body: `{}`, status: 502, want: `{"response":{"status":"action developer error"}}`},
		{item: 71, method: "POST", path: "_/actions/late?blocking=true", body: `{}`, status: 502, want: `{"response":{"status":"action developer error","result":{"error":"~100 milliseconds"}}}`},
		{item: 75, method: "POST", path: "_/actions/long?blocking=true", body: `{}`, status: 502, want: `{"response":{"status":"application error","result":{"error":"~3008 > 2000"}}}`},
		{item: 49, method: "POST", path: "_/actions/ours?blocking=true", body: `{}`, status: 500, want: `{"response":{"status":"whisk internal error","statusCode":"<absent>"}}`},
		{item: 49, method: "POST", path: "_/actions/ended?blocking=true", body: `{}`, status: 500, want: `{"response":{"status":"whisk internal error","statusCode":"<absent>"}}`},
	})
	late := w.send("guest", "POST", "_/actions/late?blocking=true", `{}`)
	if !strings.Contains(late.body, `{"key":"timeout","value":true}`) {
		t.Errorf("item 71: %s", late.body)
	}
	short := w.send("guest", "POST", "_/actions/slow?blocking=true&timeout=50", `{}`) // item 54
	long := w.send("guest", "POST", "_/actions/slow?blocking=true", `{}`)             // item 55
	close(release)
	for item, a := range map[int]answer{54: short, 55: long} {
		if a.status != 202 || a.header.Get("x-openwhisk-activation-id") != a.id() {
			t.Errorf("item %d: %d %s", item, a.status, a.body)
		}
		if r := w.recordOf(a.id()); contains(r.json, map[string]any{"response": map[string]any{"result": map[string]any{"late": true}}}, "") != nil {
			t.Errorf("item %d: %s", item, r.body)
		}
	}
}

func TestParametersOfCalls(t *testing.T) {
	w := open(t, nil)
	w.play([]step{
		{item: 56, method: "PUT", path: "_/actions/p", body: `{"exec":{"kind":"nodejs:default","code":"function main(a){return a}"},"parameters":[{"key":"a","value":1},{"key":"b","value":2}]}`, status: 200},
		{item: 56, method: "POST", path: "_/actions/p?blocking=true&result=true", body: `{"b":3}`, status: 200, want: `{"a":1,"b":3}`},
		{item: 57, method: "PUT", path: "_/actions/f", body: `{"exec":{"kind":"nodejs:default","code":"function main(a){return a}"},"parameters":[{"key":"a","value":1},{"key":"n","value":null}],"annotations":[{"key":"final","value":true}]}`, status: 200},
		{item: 57, method: "POST", path: "_/actions/f?blocking=true", body: `{"a":2}`, status: 400},
		{item: 57, method: "POST", path: "_/actions/f?blocking=true&result=true", body: `{"c":2,"n":4}`, status: 200, want: `{"a":1,"c":2,"n":4}`},
		{item: 57, method: "PUT", path: "_/packages/pf", body: `{"parameters":[{"key":"a","value":1},{"key":"n","value":null}]}`, status: 200},
		{item: 57, method: "PUT", path: "_/actions/pf/f", body: with(nodeCode, `"annotations":[{"key":"final","value":true}]`), status: 200},
		{item: 57, method: "POST", path: "_/actions/pf/f?blocking=true", body: `{"a":2}`, status: 400},
		{item: 57, method: "POST", path: "_/actions/pf/f", body: `{"a":2}`, status: 400},
		{item: 57, method: "POST", path: "_/actions/pf/f?blocking=true&result=true", body: `{"c":2,"n":4}`, status: 200, want: `{"a":1,"c":2,"n":4}`},
		{item: 58, method: "PUT", path: "_/actions/i", body: `{"exec":{"kind":"nodejs:default","code":"function main(a){return a}"},"parameters":[{"key":"INIT","value":"v","init":true},{"key":"b","value":2}]}`, status: 200},
		{item: 58, method: "POST", path: "_/actions/i?blocking=true&result=true", body: `{}`, status: 200, want: `{"b":2,"INIT":"<absent>"}`},
		{item: 58, method: "POST", path: "_/actions/i?blocking=true&result=true", body: `{"INIT":"other","c":3}`, status: 200, want: `{"b":2,"c":3,"INIT":"<absent>"}`},
		{item: 57, method: "PUT", path: "_/actions/i?overwrite=true", body: `{"annotations":[{"key":"final","value":true}]}`, status: 200},
		{item: 57, method: "POST", path: "_/actions/i?blocking=true&result=true", body: `{"INIT":"other"}`, status: 400},
		{item: 63, method: "PUT", path: "_/actions/k", body: `{"exec":{"kind":"nodejs:default","code":"function main(a){return a}"},"annotations":[{"key":"provide-api-key","value":true}]}`, status: 200},
		{item: 63, method: "POST", path: "_/actions/k?blocking=true", body: `{}`, status: 200},
	})
	w.mu.Lock()
	plain, keyed := w.envs["guest/p"], w.envs["guest/k"]
	w.mu.Unlock()
	for k, want := range map[string]string{"__OW_NAMESPACE": "guest", "__OW_ACTION_NAME": "/guest/p", "__OW_ACTION_VERSION": "0.0.1", "__OW_API_HOST": "http://example.test"} {
		if plain[k] != want {
			t.Errorf("item 63: %s is %q, want %q", k, plain[k], want)
		}
	}
	if _, has := plain["__OW_API_KEY"]; has {
		t.Error("item 63: the key is there unasked")
	}
	if keyed["__OW_API_KEY"] != "" {
		t.Error("item 63: a key where the namespace keeps none")
	}
	if _, err := w.catalog.PutSecret(t.Context(), "guest", "OPENWHISK_API_KEY", []byte(w.subjects["other"].UUID+":"+w.subjects["other"].Key)); err != nil {
		t.Fatal(err)
	}
	finds := func(when, want string) {
		t.Helper()
		w.send("guest", "POST", "_/actions/k?blocking=true", `{}`)
		w.mu.Lock()
		defer w.mu.Unlock()
		if got := w.envs["guest/k"]["__OW_API_KEY"]; got != want {
			t.Errorf("item 63: %s it finds %q, want %q", when, got, want)
		}
	}
	finds("of a key of another namespace", "")
	guest := w.subjects["guest"].UUID + ":" + w.subjects["guest"].Key
	if _, err := w.catalog.PutSecret(t.Context(), "guest", "OPENWHISK_API_KEY", []byte(guest)); err != nil {
		t.Fatal(err)
	}
	finds("of its own key", guest)
	w.must(w.keys.Block(t.Context(), "guest", true))
	if _, ok := w.keys.Whose(w.subjects["guest"].UUID, w.subjects["guest"].Key); ok {
		t.Error("a key of a blocked subject opens its namespace")
	}
	w.must(w.keys.Block(t.Context(), "guest", false))
	finds("of the key of a subject that was blocked", guest)
}

func TestActivations(t *testing.T) {
	w := open(t, nil)
	w.play([]step{
		{item: 81, method: "PUT", path: "_/actions/a", body: nodeCode, status: 200},
		{item: 86, method: "PUT", path: "_/packages/pkg", body: `{"publish":true}`, status: 200},
		{item: 86, method: "PUT", path: "_/actions/pkg/a", body: nodeCode, status: 200},
		{item: 112, who: "other", method: "PUT", path: "_/packages/bound", body: `{"binding":{"namespace":"guest","name":"pkg"}}`, status: 200},
	})
	before := time.Now().Add(-time.Second).UnixMilli()
	// IDs tell the order of calls by the millisecond.
	later := func() { time.Sleep(3 * time.Millisecond) }
	one := w.send("guest", "POST", "_/actions/a?blocking=true", `{"x":1}`).id()
	later()
	two := w.send("guest", "POST", "_/actions/pkg/a?blocking=true", `{}`).id()
	theirs := w.send("other", "POST", "guest/actions/pkg/a?blocking=true", `{}`).id()
	later()
	bound := w.send("other", "POST", "_/actions/bound/a?blocking=true", `{}`).id()
	after := time.Now().Add(time.Second).UnixMilli()
	w.play([]step{
		{item: 81, method: "GET", path: "_/activations/" + one, status: 200, want: `{"namespace":"guest","name":"a","version":"0.0.1","subject":"guest","activationId":"` + one + `","publish":false,
			"start":"<any>","end":"<any>","duration":"<any>","logs":[],"response":{"status":"success","success":true,"result":{"x":1}},"annotations":"<any>"}`},
		{item: 82, method: "GET", path: "_/activations/" + one, status: 200, want: `{"annotations":[{"key":"path","value":"guest/a"},{"key":"kind","value":"nodejs:20"},{"key":"limits","value":"<any>"},{"key":"waitTime","value":"<any>"},{"key":"timeout","value":false}]}`},
		{item: 84, who: "other", method: "GET", path: "_/activations/" + theirs, status: 200, want: `{"namespace":"other","subject":"other","annotations":[{"key":"path","value":"guest/pkg/a"},{"key":"kind","value":"nodejs:20"},{"key":"limits","value":"<any>"},{"key":"waitTime","value":"<any>"},{"key":"timeout","value":false}]}`},
		{item: 84, method: "GET", path: "_/activations/" + theirs, status: 404},
		{item: 112, who: "other", method: "GET", path: "_/activations/" + bound, status: 200, want: `{"namespace":"other","annotations":[{"key":"path","value":"guest/pkg/a"},{"key":"kind","value":"nodejs:20"},{"key":"limits","value":"<any>"},{"key":"binding","value":"other/bound"},{"key":"waitTime","value":"<any>"},{"key":"timeout","value":false}]}`},
		{item: 85, method: "GET", path: "_/activations?name=a&limit=1&skip=1", status: 200, want: `[{"namespace":"guest","name":"a","version":"0.0.1","activationId":"` + one + `","start":"<any>","end":"<any>","duration":"<any>","statusCode":0,"annotations":"<any>","publish":false,"response":"<absent>","logs":"<absent>"}]`},
		{item: 86, method: "GET", path: "_/activations?name=pkg/a", status: 200, want: `[{"activationId":"` + two + `"}]`},
		{item: 86, who: "other", method: "GET", path: "_/activations?name=bound/a", status: 200, want: `[{"activationId":"` + bound + `"}]`},
		{item: 86, method: "GET", path: "_/activations?name=x/y/z", status: 400},
		{item: 87, method: "GET", path: fmt.Sprintf("_/activations?since=%d&upto=%d&count=true", before, after), status: 200, want: `{"activations":2}`},
		{item: 87, method: "GET", path: fmt.Sprintf("_/activations?since=%d&count=true", after), status: 200, want: `{"activations":0}`},
		{item: 87, method: "GET", path: fmt.Sprintf("_/activations?upto=%d&count=true", before), status: 200, want: `{"activations":0}`},
		{item: 87, method: "GET", path: "_/activations?since=abc", status: 400},
		{item: 88, method: "GET", path: "_/activations?docs=true&name=a&limit=1&skip=1", status: 200, want: `[{"response":{"result":{"x":1}},"logs":[]}]`},
		{item: 88, method: "GET", path: "_/activations?docs=true&count=true", status: 400},
		{item: 89, method: "GET", path: "_/activations/" + strings.Repeat("a", 32), status: 404},
		{item: 89, method: "GET", path: "_/activations/" + strings.Repeat("a", 31), status: 400, want: `{"error":"~31"}`},
		{item: 89, method: "GET", path: "_/activations/" + strings.Repeat("a", 35), status: 400, want: `{"error":"~32"}`},
		{item: 89, method: "GET", path: "_/activations/" + strings.Repeat("z", 32), status: 400},
		{item: 90, method: "GET", path: "_/activations/" + one + "/result", status: 200, want: `{"status":"success","success":true,"result":{"x":1}}`},
		{item: 90, method: "GET", path: "_/activations/" + one + "/logs", status: 200, want: `{"logs":[]}`},
		{item: 91, method: "GET", path: "_/activations/" + one + "/other", status: 404},
		{item: 92, method: "PUT", path: "_/activations/" + one, body: `{}`, status: 405},
		{item: 92, method: "POST", path: "_/activations", body: `{}`, status: 405},
		{item: 92, method: "DELETE", path: "_/activations/" + one, status: 405},
		{item: 93, method: "GET", path: "other/activations/" + theirs, status: 403},
		{item: 93, method: "GET", path: "other/activations", status: 403},
		{item: 95, method: "DELETE", path: "_/actions/a", status: 200},
		{item: 95, method: "GET", path: "_/activations/" + one, status: 200, want: `{"name":"a","annotations":[{"key":"path","value":"guest/a"},{"key":"kind","value":"nodejs:20"},{"key":"limits","value":"<any>"},{"key":"waitTime","value":"<any>"},{"key":"timeout","value":false}]}`},
	})
}

func TestRecordsOfSequencesAndConductors(t *testing.T) {
	w := open(t, nil)
	w.do("guest/inc", func(a map[string]any) (any, error) {
		n, _ := a["n"].(float64)
		return map[string]any{"n": n + 1}, nil
	})
	w.do("guest/bad", func(map[string]any) (any, error) { return map[string]any{"error": "stop"}, nil })
	w.do("guest/late", func(map[string]any) (any, error) {
		return nil, faas.Errorf(faas.Timeout, "run", "The action exceeded its time limits of 100 milliseconds.")
	})
	w.do("guest/twice", func(a map[string]any) (any, error) { // item 166
		if a["$round"] == nil {
			return map[string]any{"action": "/_/inc", "params": map[string]any{"n": a["n"]}, "state": map[string]any{"$round": 1}}, nil
		}
		if a["$round"] == 1.0 {
			return map[string]any{"action": "inc", "params": map[string]any{"n": a["n"]}, "state": map[string]any{"$round": 2}}, nil
		}
		return map[string]any{"params": map[string]any{"n": a["n"]}}, nil
	})
	w.do("guest/asks", func(a map[string]any) (any, error) { // items 168, 169
		if a["call"] != nil {
			return map[string]any{"action": a["call"], "state": map[string]any{"was": a["call"]}}, nil
		}
		return map[string]any{"heard": a["error"] != nil}, nil
	})
	conductor := strings.TrimSuffix(nodeCode, "}") + `,"annotations":[{"key":"conductor","value":true}]}`
	w.play([]step{
		{item: 153, method: "PUT", path: "_/actions/inc", body: nodeCode, status: 200},
		{item: 158, method: "PUT", path: "_/actions/bad", body: nodeCode, status: 200},
		{item: 162, method: "PUT", path: "_/actions/late", body: nodeCode, status: 200},
		{item: 153, method: "PUT", path: "_/actions/s", body: sequence("/_/inc", "/_/inc"), status: 200},
		{item: 158, method: "PUT", path: "_/actions/sb", body: sequence("/_/inc", "/_/bad", "/_/inc"), status: 200},
		{item: 162, method: "PUT", path: "_/actions/sl", body: sequence("/_/late", "/_/inc"), status: 200},
		{item: 158, method: "POST", path: "_/actions/sb?blocking=true", body: `{}`, status: 502, want: `{"response":{"status":"application error","result":{"error":"stop"}}}`},
		{item: 159, method: "POST", path: "_/actions/s?blocking=true&result=true", body: `{"error":"mine","n":1}`, status: 200, want: `{"n":3}`},
		{item: 162, method: "POST", path: "_/actions/sl?blocking=true", body: `{}`, status: 502, want: `{"response":{"result":{"error":"~100 milliseconds"}}}`},
		{item: 165, method: "PUT", path: "_/actions/twice", body: conductor, status: 200},
		{item: 166, method: "POST", path: "_/actions/twice?blocking=true&result=true", body: `{"n":5}`, status: 200, want: `{"n":7}`},
		{item: 168, method: "PUT", path: "_/actions/asks", body: conductor, status: 200},
		{item: 168, method: "POST", path: "_/actions/asks?blocking=true&result=true", body: `{"call":"/_/nothing"}`, status: 200, want: `{"heard":true}`},
		{item: 168, method: "POST", path: "_/actions/asks?blocking=true&result=true", body: `{"call":"/other/inc"}`, status: 200, want: `{"heard":true}`},
		{item: 168, method: "POST", path: "_/actions/asks?blocking=true&result=true", body: `{"call":"/no/such/name/at/all"}`, status: 200, want: `{"heard":true}`},
		{item: 169, method: "POST", path: "_/actions/asks?blocking=true&result=true", body: `{"call":"bad"}`, status: 200, want: `{"heard":true}`},
		{item: 165, method: "POST", path: "_/actions/asks?blocking=true&result=true", body: `{}`, status: 200, want: `{"heard":false}`},
		{item: 160, method: "DELETE", path: "_/actions/late", status: 200},
		{item: 160, method: "POST", path: "_/actions/sl?blocking=true", body: `{}`, status: 502, want: `{"response":{"result":{"error":"~late"}}}`},
	})
	check := func(item int, name string, annotations []string, ran ...string) {
		t.Helper()
		id := w.send("guest", "POST", "_/actions/"+name+"?blocking=true", `{"n":1}`).id()
		r := w.recordOf(id)
		m, _ := r.json.(map[string]any)
		logs, _ := m["logs"].([]any)
		if len(logs) != len(ran) {
			t.Fatalf("item %d: logs %v of %s, want the ids of %v", item, logs, name, ran)
		}
		for _, a := range annotations {
			if !strings.Contains(r.body, a) {
				t.Errorf("item %d: no %s in %s", item, a, r.body)
			}
		}
		for i, l := range logs {
			part := w.recordOf(fmt.Sprint(l))
			if contains(part.json, map[string]any{"cause": id, "name": ran[i]}, "") != nil || !strings.Contains(part.body, `{"key":"causedBy","value":"sequence"}`) || strings.Contains(part.body, "topmost") {
				t.Errorf("item 154: part %d of %s: %s", i, name, part.body)
			}
		}
	}
	w.play([]step{
		{item: 163, method: "PUT", path: "_/actions/inc?overwrite=true", body: `{"limits":{"memory":512}}`, status: 200},
		{item: 163, method: "PUT", path: "_/actions/v", body: strings.TrimSuffix(nodeCode, "}") + `,"version":"1.0"}`, status: 200, want: `{"version":"1.0.0"}`},
	})
	check(163, "s", []string{`"memory":512`}, "inc", "inc")
	check(153, "s", []string{`{"key":"kind","value":"sequence"}`, `{"key":"topmost","value":true}`}, "inc", "inc")
	check(166, "twice", []string{`{"key":"kind","value":"sequence"}`, `{"key":"conductor","value":true}`, `{"key":"topmost","value":true}`}, "twice", "inc", "twice", "inc", "twice")
}

func TestThrottles(t *testing.T) {
	w := open(t, func(c *openwhisk.Config) {
		c.Limits.InvocationsPerMinute, c.Limits.Concurrent, c.Limits.FiresPerMinute = 4, 2, 1
	})
	release := make(chan struct{})
	w.do("guest/slow", func(map[string]any) (any, error) { <-release; return map[string]any{}, nil })
	w.play([]step{
		{item: 178, method: "PUT", path: "_/actions/a", body: nodeCode, status: 200},
		{item: 179, method: "PUT", path: "_/actions/slow", body: nodeCode, status: 200},
		{item: 181, method: "PUT", path: "_/actions/s", body: sequence("/_/a", "/_/a", "/_/a"), status: 200},
	})
	w.server.StopClock() // all of it is to be in one minute
	for range 2 {
		w.send("guest", "POST", "_/actions/slow?blocking=true&timeout=1", `{}`)
	}
	w.play([]step{
		{item: 179, method: "POST", path: "_/actions/a?blocking=true", body: `{}`, status: 429, want: `{"error":"~concurrent"}`},
	})
	close(release)
	w.until("a place", func() bool {
		return w.send("guest", "POST", "_/actions/s?blocking=true", `{}`).status == 200 // item 181: it counts once
	})
	w.play([]step{
		{item: 178, method: "POST", path: "_/actions/a?blocking=true", body: `{}`, status: 200},
		{item: 178, method: "POST", path: "_/actions/a?blocking=true", body: `{}`, status: 429, want: `{"error":"~(count: 5, allowed: 4)"}`},
		{item: 178, method: "POST", path: "_/actions/a", body: `{}`, status: 429},
		{item: 178, who: "other", method: "PUT", path: "_/actions/a", body: nodeCode, status: 200},
		{item: 178, who: "other", method: "POST", path: "_/actions/a?blocking=true", body: `{}`, status: 200},
	})
}

func TestLimitsOfANamespace(t *testing.T) { // items 181, 182
	w := open(t, nil)
	n := func(i int) *int { return &i }
	w.play([]step{
		{item: 181, method: "PUT", path: "_/actions/a", body: nodeCode, status: 200},
		{item: 181, method: "PUT", path: "_/triggers/t", body: `{}`, status: 200},
	})
	id := w.send("guest", "POST", "_/actions/a?blocking=true", `{}`).id()
	w.must(w.keys.PutLimits(t.Context(), "guest", auth.NamespaceLimits{Invocations: n(0), Fires: n(0), Concurrent: n(7), Kinds: []string{"nodejs:20"}}))
	w.play([]step{
		{item: 181, method: "POST", path: "_/actions/a?blocking=true", body: `{}`, status: 429},
		{item: 181, method: "POST", path: "_/actions/a", body: `{}`, status: 429},
		{item: 180, method: "POST", path: "_/triggers/t", body: `{}`, status: 429},
		{item: 14, method: "GET", path: "_/limits", status: 200, want: `{"invocationsPerMinute":0,"concurrentInvocations":7,"firesPerMinute":0,"allowedKinds":["nodejs:20"],"storeActivations":true}`},
		{item: 181, who: "other", method: "GET", path: "_/limits", status: 200, want: `{"concurrentInvocations":30,"allowedKinds":"<absent>"}`},
	})
	w.must(w.keys.PutLimits(t.Context(), "guest", auth.NamespaceLimits{Hidden: true}))
	hidden := w.send("guest", "POST", "_/actions/a?blocking=true", `{"x":1}`)
	if hidden.status != 200 || hidden.id() == "" {
		t.Errorf("item 182: %d %s", hidden.status, hidden.body)
	}
	w.play([]step{
		{item: 182, method: "GET", path: "_/activations/" + hidden.id(), status: 404},
		{item: 182, method: "GET", path: "_/activations/" + id, status: 404},
		{item: 182, method: "GET", path: "_/activations", status: 200, want: `[]`},
		{item: 182, method: "GET", path: "_/activations?count=true", status: 200, want: `{"activations":0}`},
		{item: 182, method: "GET", path: "_/limits", status: 200, want: `{"storeActivations":false}`},
	})
	w.must(w.keys.PutLimits(t.Context(), "guest", auth.NamespaceLimits{}))
	w.play([]step{{item: 182, method: "GET", path: "_/activations/" + id, status: 200}})
	if err := w.keys.PutLimits(t.Context(), "guest", auth.NamespaceLimits{Fires: n(-1)}); faas.CodeOf(err) != faas.Invalid {
		t.Errorf("a limit below nothing: %v", err)
	}
}
