package openwhisk_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/brasa-dev/brasa/internal/openwhisk"
)

func sequence(names ...string) string {
	b, _ := json.Marshal(map[string]any{"exec": map[string]any{"kind": "sequence", "components": names}})
	return string(b)
}

func repeated(name string, n int) (out []string) {
	for range n {
		out = append(out, name)
	}
	return out
}

func TestSequencesAreChecked(t *testing.T) {
	w := open(t, nil)
	w.play([]step{
		{item: 155, method: "PUT", path: "_/actions/a", body: nodeCode, status: 200},
		{item: 155, method: "PUT", path: "_/actions/b", body: nodeCode, status: 200},
		{item: 155, method: "PUT", path: "_/actions/s", body: `{"exec":{"kind":"sequence","components":[]}}`, status: 400},
		{item: 155, method: "PUT", path: "_/actions/s", body: `{"exec":{"kind":"sequence"}}`, status: 400},
		{item: 155, method: "PUT", path: "_/actions/s", body: `{"exec":{"kind":"sequence","components":"a"}}`, status: 400},
		{item: 155, method: "PUT", path: "_/actions/s", body: sequence("a"), status: 400, want: `{"error":"~fully qualified"}`},
		{item: 155, method: "PUT", path: "_/actions/s", body: sequence("/a"), status: 400},
		{item: 155, method: "PUT", path: "_/actions/s", body: sequence("/_/x/y/a"), status: 400},
		{item: 155, method: "PUT", path: "_/actions/noslash", body: sequence("_/a", "guest/b"), status: 200, want: `{"exec":{"components":["/guest/a","/guest/b"]}}`},
		{item: 155, method: "PUT", path: "_/actions/objects", body: `{"exec":{"kind":"sequence","components":[{"path":"_","name":"a"},{"path":"guest","name":"b"}]}}`, status: 200, want: `{"exec":{"components":["/guest/a","/guest/b"]}}`},
		{item: 155, method: "PUT", path: "_/actions/s", body: sequence("/_/a", "/_/none"), status: 400, want: `{"error":"~/guest/none"}`},
		{item: 155, method: "PUT", path: "_/actions/s", body: sequence("/_/none/a"), status: 400},
		{item: 155, method: "PUT", path: "_/actions/s", body: sequence("/other/none/a"), status: 403},
		{item: 155, method: "PUT", path: "_/actions/s", body: sequence(repeated("/_/a", 51)...), status: 400, want: `{"error":"~50"}`},
		{item: 155, method: "PUT", path: "_/actions/long", body: sequence(repeated("/_/a", 50)...), status: 200},
		{item: 153, method: "PUT", path: "_/actions/s", body: sequence("/_/a", "/guest/b"), status: 200,
			want: `{"exec":{"kind":"sequence","components":["/guest/a","/guest/b"],"code":"<absent>"},"annotations":[{"key":"provide-api-key","value":false},{"key":"exec","value":"sequence"}]}`},
		{item: 153, method: "GET", path: "_/actions/s", status: 200, want: `{"exec":{"kind":"sequence","components":["/guest/a","/guest/b"]},"no_code":"<absent>"}`},
		{item: 153, method: "POST", path: "_/actions/s?blocking=true&result=true", body: `{"x":1}`, status: 200, want: `{"x":1}`},
		{item: 156, method: "PUT", path: "_/actions/self", body: sequence("/_/self"), status: 400},
		{item: 156, method: "PUT", path: "_/actions/s?overwrite=true", body: sequence("/_/a", "/_/s"), status: 400},
		{item: 156, method: "PUT", path: "_/actions/s2", body: sequence("/_/s"), status: 200},
		{item: 156, method: "PUT", path: "_/actions/s?overwrite=true", body: sequence("/_/s2"), status: 400},
		{item: 156, method: "PUT", path: "_/actions/a?overwrite=true", body: sequence("/_/s2"), status: 400},
		{item: 156, method: "PUT", path: "_/packages/p", body: `{}`, status: 200},
		{item: 156, method: "PUT", path: "_/packages/bound", body: `{"binding":{"namespace":"_","name":"p"}}`, status: 200},
		{item: 156, method: "PUT", path: "_/actions/p/s", body: sequence("/_/a"), status: 200},
		{item: 156, method: "PUT", path: "_/actions/p/s?overwrite=true", body: sequence("/_/bound/s"), status: 400},
		{item: 157, method: "PUT", path: "_/actions/half", body: sequence(repeated("/_/a", 25)...), status: 200},
		{item: 157, method: "PUT", path: "_/actions/whole", body: sequence("/_/half", "/_/half"), status: 200},
		{item: 157, method: "PUT", path: "_/actions/more", body: sequence("/_/half", "/_/half", "/_/a"), status: 400},
		{item: 157, method: "PUT", path: "_/actions/half?overwrite=true", body: sequence(repeated("/_/a", 26)...), status: 200},
		{item: 157, method: "POST", path: "_/actions/whole?blocking=true", body: `{}`, status: 502, want: `{"response":{"status":"application error","result":{"error":"~50"}}}`},
	})
}

func TestSequencesMayBeShorter(t *testing.T) { // item 155
	w := open(t, func(c *openwhisk.Config) { c.Limits.Sequence = 2 })
	w.play([]step{
		{item: 155, method: "PUT", path: "_/actions/a", body: nodeCode, status: 200},
		{item: 155, method: "PUT", path: "_/actions/two", body: sequence("/_/a", "/_/a"), status: 200},
		{item: 155, method: "PUT", path: "_/actions/three", body: sequence("/_/two", "/_/a"), status: 400, want: fmt.Sprintf(`{"error":"~%d"}`, 2)},
	})
}

func TestSequencesWhoseActionsAreGone(t *testing.T) { // item 160
	w := open(t, nil)
	w.play([]step{
		{item: 160, method: "PUT", path: "_/actions/a", body: nodeCode, status: 200},
		{item: 160, method: "PUT", path: "_/actions/b", body: nodeCode, status: 200},
		{item: 160, method: "PUT", path: "_/actions/s", body: sequence("/_/a", "/_/b"), status: 200},
		{item: 160, method: "DELETE", path: "_/actions/b", status: 200},
		{item: 160, method: "POST", path: "_/actions/s?blocking=true", body: `{}`, status: 502, want: `{"response":{"status":"application error","success":false,"result":{"error":"~b"}}}`},
	})
	a := w.send("guest", "POST", "_/actions/s", `{}`)
	m, _ := a.json.(map[string]any)
	id, _ := m["activationId"].(string)
	if a.status != 202 || id == "" {
		t.Fatalf("nobody waits: status %d: %s", a.status, a.body)
	}
	if r := w.record("guest", id); contains(r, map[string]any{"response": map[string]any{"status": "application error"}, "logs": []any{"<any>"}}, "") != nil {
		t.Errorf("record %v", r)
	}
}

// What is changed while a sequence runs counts for the actions that are not yet called.
func TestSequencesCallWhatThereIsWhenTheirTurnComes(t *testing.T) {
	w := open(t, nil)
	begun, release := make(chan struct{}, 1), make(chan struct{})
	w.do("guest/a", func(args map[string]any) (any, error) {
		begun <- struct{}{}
		<-release
		return args, nil
	})
	w.play([]step{
		{item: 153, method: "PUT", path: "_/actions/a", body: nodeCode, status: 200},
		{item: 153, method: "PUT", path: "_/actions/b", body: nodeCode, status: 200},
		{item: 153, method: "PUT", path: "_/actions/s", body: sequence("/_/a", "/_/b"), status: 200},
	})
	id := w.send("guest", "POST", "_/actions/s", `{"x":1}`).id()
	<-begun
	w.play([]step{{item: 153, method: "PUT", path: "_/actions/b?overwrite=true", body: `{"parameters":[{"key":"new","value":true}]}`, status: 200, want: `{"version":"0.0.2"}`}})
	close(release)
	r := w.recordOf(id)
	m, _ := r.json.(map[string]any)
	logs, _ := m["logs"].([]any)
	if len(logs) != 2 || contains(m, map[string]any{"response": map[string]any{"result": map[string]any{"x": 1.0, "new": true}}}, "") != nil {
		t.Fatalf("record %s", r.body)
	}
	if part := w.recordOf(fmt.Sprint(logs[1])); contains(part.json, map[string]any{"name": "b", "version": "0.0.2"}, "") != nil {
		t.Errorf("second action: %s", part.body)
	}
}
