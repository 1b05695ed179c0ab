package openwhisk_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/faas"
)

func TestLists(t *testing.T) {
	w := open(t, nil)
	w.play([]step{
		{item: 40, method: "GET", path: "_/actions", status: 200, want: `[]`},
		{item: 42, method: "GET", path: "_/actions?count=true", status: 200, want: `{"actions":0}`},
		{item: 40, method: "PUT", path: "_/actions/a", body: nodeCode, status: 200},
		{item: 40, method: "PUT", path: "_/packages/p", body: `{}`, status: 200},
		{item: 40, method: "PUT", path: "_/actions/p/b", body: nodeCode, status: 200},
		{item: 40, method: "PUT", path: "_/actions/c", body: nodeCode, status: 200},
		{item: 40, method: "PUT", path: "_/triggers/t", body: `{}`, status: 200},
		{item: 40, method: "PUT", path: "_/rules/r", body: `{"trigger":"/_/t","action":"/_/a"}`, status: 200},
		{item: 40, method: "GET", path: "_/actions", status: 200, want: `[
			{"namespace":"guest","name":"c","version":"0.0.1","publish":false,"exec":{"binary":false,"code":"<absent>","kind":"<absent>"},"limits":{"memory":256},"annotations":"<any>","updated":"<any>","parameters":"<absent>"},
			{"namespace":"guest/p","name":"b"},{"namespace":"guest","name":"a"}]`},
		{item: 40, method: "PUT", path: "_/actions/a?overwrite=true", body: `{}`, status: 200},
		{item: 40, method: "GET", path: "_/actions/", status: 200, want: `[{"name":"a"},{"name":"c"},{"name":"b"}]`},
		{item: 40, method: "GET", path: "_/actions?limit=1", status: 200, want: `[{"name":"a"}]`},
		{item: 40, method: "GET", path: "_/actions?limit=1&skip=2", status: 200, want: `[{"name":"b"}]`},
		{item: 40, method: "GET", path: "_/actions?skip=20", status: 200, want: `[]`},
		{item: 41, method: "GET", path: "_/actions?limit=0", status: 200, want: `[{"name":"a"},{"name":"c"},{"name":"b"}]`},
		{item: 41, method: "GET", path: "_/actions?limit=200", status: 200},
		{item: 41, method: "GET", path: "_/actions?limit=201", status: 400},
		{item: 41, method: "GET", path: "_/actions?limit=abc", status: 400},
		{item: 41, method: "GET", path: "_/actions?limit=-1", status: 400},
		{item: 41, method: "GET", path: "_/actions?skip=-1", status: 400},
		{item: 41, method: "GET", path: "_/actions?skip=abc", status: 400},
		{item: 42, method: "GET", path: "_/actions?count=true", status: 200, want: `{"actions":3}`},
		{item: 42, method: "GET", path: "_/packages?count=true", status: 200, want: `{"packages":1}`},
		{item: 42, method: "GET", path: "_/triggers?count=true", status: 200, want: `{"triggers":1}`},
		{item: 42, method: "GET", path: "_/rules?count=true", status: 200, want: `{"rules":1}`},
		{item: 42, method: "GET", path: "_/actions?count=maybe", status: 400},
		{item: 43, method: "GET", path: "other/actions", status: 403},
		{item: 44, method: "POST", path: "_/actions", body: `{}`, status: 405},
		{item: 44, method: "POST", path: "_/packages", body: `{}`, status: 405},
		{item: 44, method: "DELETE", path: "_/triggers", status: 405},
		{item: 44, method: "PUT", path: "_/rules", body: `{}`, status: 405},
		{item: 148, method: "GET", path: "_/rules", status: 200, want: `[{"name":"r","namespace":"guest","version":"0.0.1","publish":false,"annotations":[],"updated":"<any>","status":"<absent>","trigger":{"path":"guest","name":"t"},"action":{"path":"guest","name":"a"}}]`},
		{item: 148, method: "GET", path: "_/rules/r", status: 200, want: `{"status":"active"}`},
	})
}

func TestPagesOfLists(t *testing.T) { // item 41
	w := open(t, nil)
	for i := range 201 {
		_, err := w.catalog.Publish(t.Context(), &faas.Revision{
			Name: faas.Name{Namespace: "guest", Function: fmt.Sprintf("a%d", i)}, Runtime: "node", Limits: faas.DefaultLimits(), Contract: faas.ContractOpenWhisk,
		}, catalog.PublishOptions{})
		w.must(err)
	}
	for query, want := range map[string]int{"": 30, "?limit=0": 200, "?limit=200": 200, "?limit=1": 1, "?limit=0&skip=1": 200, "?limit=0&skip=199": 2, "?skip=201": 0} {
		a := w.send("guest", "GET", "_/actions"+query, "")
		if list, ok := a.json.([]any); !ok || len(list) != want {
			t.Errorf("item 41: %q lists %d, want %d: %.200s", query, len(list), want, a.body)
		}
	}
	w.play([]step{{item: 42, method: "GET", path: "_/actions?count=true", status: 200, want: `{"actions":201}`}})
}

func TestFunctionsThatWereMadeAnotherWay(t *testing.T) {
	w := open(t, nil)
	publish := func(rev faas.Revision) {
		t.Helper()
		rev.Limits = faas.DefaultLimits()
		time.Sleep(2 * time.Millisecond) // times are told in milliseconds
		_, err := w.catalog.Publish(t.Context(), &rev, catalog.PublishOptions{})
		w.must(err)
	}
	publish(faas.Revision{Name: faas.Name{Namespace: "guest", Function: "native"}, Runtime: "python", Handler: "handler"})
	publish(faas.Revision{Name: faas.Name{Namespace: "guest", Package: "folder", Function: "tool"}, Runtime: "wasm"})
	publish(faas.Revision{Name: faas.Name{Namespace: "guest", Function: "chain"}, Runtime: faas.RuntimeSequence, Sequence: &faas.Sequence{
		Steps: []faas.Name{{Namespace: "guest", Function: "native"}, {Namespace: "guest", Package: "folder", Function: "tool"}},
	}})
	w.must(w.catalog.PutTrigger(t.Context(), &faas.Trigger{Namespace: "guest", Name: "bell", Params: nil}, false))
	w.must(w.catalog.PutRule(t.Context(), &faas.Rule{Namespace: "guest", Name: "link", Trigger: "bell", Function: "native"}, false))
	w.play([]step{
		{item: 40, method: "GET", path: "_/actions", status: 200, want: `[{"name":"chain"},{"name":"tool","namespace":"guest/folder"},{"name":"native","namespace":"guest","exec":{"binary":false}}]`},
		{item: 21, method: "GET", path: "_/actions/native?code=false", status: 200, want: `{"version":"0.0.1","exec":{"kind":"python:3.10","main":"handler"},"limits":{"timeout":30000}}`},
		{item: 21, method: "GET", path: "_/actions/folder/tool?code=false", status: 200, want: `{"exec":{"kind":"blackbox"}}`},
		{item: 21, method: "GET", path: "_/actions/chain", status: 200, want: `{"exec":{"kind":"sequence","components":["/guest/native","/guest/folder/tool"]}}`},
		{item: 98, method: "GET", path: "_/packages/folder", status: 200, want: `{"actions":[{"name":"tool"}]}`},
		{item: 48, method: "POST", path: "_/actions/native?blocking=true&result=true", body: `{"a":1}`, status: 200, want: `{"a":1}`},
		{item: 18, method: "PUT", path: "_/actions/native?overwrite=true", body: `{"parameters":[{"key":"b","value":2}]}`, status: 200, want: `{"version":"0.0.2","parameters":[{"key":"b","value":2}]}`},
		{item: 56, method: "POST", path: "_/actions/native?blocking=true&result=true", body: `{"a":1}`, status: 200, want: `{"a":1,"b":2}`},
		{item: 124, method: "GET", path: "_/triggers/bell", status: 200, want: `{"version":"0.0.1","rules":{"guest/link":{"status":"active","action":{"path":"guest","name":"native"}}}}`},
		{item: 136, method: "GET", path: "_/rules/link", status: 200, want: `{"status":"active","trigger":{"path":"guest","name":"bell"},"action":{"path":"guest","name":"native"}}`},
		{item: 142, method: "POST", path: "_/rules/link", body: `{"status":"inactive"}`, status: 200},
		{item: 142, method: "GET", path: "_/rules/link", status: 200, want: `{"status":"inactive"}`},
	})
}

// Of many who make the same thing at once one is told that it was made.
func TestOneMakesIt(t *testing.T) { // item 17
	w := open(t, nil)
	for path, body := range map[string]string{"_/actions/a": pyCode, "_/packages/p": `{}`, "_/triggers/t": `{}`} {
		statuses := make(chan int, 8)
		for range cap(statuses) {
			go func() { statuses <- w.send("guest", "PUT", path, body).status }()
		}
		made, refused := 0, 0
		for range cap(statuses) {
			switch <-statuses {
			case 200:
				made++
			case 409:
				refused++
			}
		}
		if made != 1 || refused != cap(statuses)-1 {
			t.Errorf("%s: made %d times, refused %d times", path, made, refused)
		}
	}
}
