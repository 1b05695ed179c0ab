package openwhisk_test

import (
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/openwhisk"
)

func TestPackages(t *testing.T) {
	w := open(t, nil)
	big := strings.Repeat("x", 1<<20)
	w.play([]step{
		{item: 96, method: "PUT", path: "_/packages/p", body: `{"parameters":[{"key":"a","value":1}]}`, status: 200,
			want: `{"namespace":"guest","name":"p","version":"0.0.1","publish":false,"binding":{},"annotations":[],"parameters":[{"key":"a","value":1}],"updated":"<any>"}`},
		{item: 96, method: "PUT", path: "_/packages/p", body: `{}`, status: 409},
		{item: 96, method: "PUT", path: "_/packages/p?overwrite=true", body: `{"annotations":[{"key":"b","value":2}]}`, status: 200,
			want: `{"version":"0.0.2","annotations":[{"key":"b","value":2}],"parameters":[{"key":"a","value":1}]}`},
		{item: 96, method: "PUT", path: "_/packages/p?overwrite=true", body: `{"annotations":[{"key":"c","value":3}],"parameters":[],"publish":true}`, status: 200,
			want: `{"version":"0.0.3","publish":true,"annotations":[{"key":"c","value":3}],"parameters":[]}`},
		{item: 97, method: "PUT", path: "_/packages/default", body: `{}`, status: 400},
		{item: 97, method: "PUT", path: "_/packages/default?overwrite=true", body: `{}`, status: 400},
		{item: 97, method: "GET", path: "_/packages/default", status: 404},
		{item: 97, method: "DELETE", path: "_/packages/default", status: 404},
		{item: 100, method: "GET", path: "_/packages/none", status: 404},
		{item: 100, method: "DELETE", path: "_/packages/none", status: 404},
		{item: 103, method: "PUT", path: "_/actions/none/a", body: nodeCode, status: 404},
		{item: 103, method: "PUT", path: "_/actions/p/a", body: nodeCode, status: 200, want: `{"namespace":"guest/p","name":"a","version":"0.0.1"}`},
		{item: 103, method: "PUT", path: "_/actions/p/f", body: with(nodeCode, `"annotations":[{"key":"feed","value":true}]`), status: 200},
		{item: 103, method: "PUT", path: "_/actions/p/nofeed", body: with(nodeCode, `"annotations":[{"key":"feed","value":false}]`), status: 200},
		{item: 103, method: "PUT", path: "_/actions/top", body: nodeCode, status: 200},
		{item: 103, method: "GET", path: "_/actions/p/a", status: 200, want: `{"namespace":"guest/p","name":"a"}`},
		{item: 103, method: "GET", path: "_/actions/p/none", status: 404},
		{item: 98, method: "GET", path: "_/packages/p", status: 200, want: `{"actions":[{"name":"nofeed","version":"0.0.1","annotations":"<any>"},{"name":"a"}],"feeds":[{"name":"f"}]}`},
		{item: 104, method: "GET", path: "_/actions/p", status: 409},
		{item: 104, method: "GET", path: "_/actions/p/", status: 200, want: `[{"name":"nofeed","namespace":"guest/p"},{"name":"f"},{"name":"a"}]`},
		{item: 104, method: "GET", path: "_/actions/p/?limit=1&skip=1", status: 200, want: `[{"name":"f"}]`},
		{item: 104, method: "GET", path: "_/actions/p/?count=true", status: 200, want: `{"actions":3}`},
		{item: 104, method: "GET", path: "_/actions/none/", status: 404},
		{item: 104, method: "DELETE", path: "_/actions/p/", status: 404},
		{item: 99, method: "DELETE", path: "_/packages/p", status: 409},
		{item: 99, method: "DELETE", path: "_/packages/p?force=true", status: 200, want: `{"name":"p"}`},
		{item: 99, method: "GET", path: "_/packages/p", status: 404},
		{item: 99, method: "GET", path: "_/actions/p/a", status: 404},
		{item: 99, method: "GET", path: "_/actions", status: 200, want: `[{"name":"top"}]`},
		{item: 106, method: "PUT", path: "_/packages/big", body: `{"parameters":[{"key":"a","value":"` + big + `"}]}`, status: 413},
		{item: 106, method: "PUT", path: "_/packages/big", body: `{"annotations":[{"key":"a","value":"` + big + `"}]}`, status: 413},
		{item: 96, method: "POST", path: "_/packages/p", body: `{}`, status: 405},
		{item: 96, method: "PUT", path: "_/packages/-", body: `{}`, status: 400},
	})
}

func TestParametersOfPackages(t *testing.T) {
	w := open(t, nil)
	w.play([]step{
		{item: 102, method: "PUT", path: "_/packages/p", body: `{"parameters":[{"key":"a","value":"package"},{"key":"b","value":"package"},{"key":"c","value":"package"},{"key":"d","value":"package"}]}`, status: 200},
		{item: 102, method: "PUT", path: "_/actions/p/x", body: with(nodeCode, `"parameters":[{"key":"c","value":"action"},{"key":"d","value":"action"}]`), status: 200},
		{item: 102, method: "POST", path: "_/actions/p/x?blocking=true&result=true", body: `{"d":"request"}`, status: 200, want: `{"a":"package","b":"package","c":"action","d":"request"}`},
		{item: 107, method: "PUT", path: "_/packages/b", body: `{"binding":{"namespace":"_","name":"p"},"parameters":[{"key":"b","value":"binding"},{"key":"c","value":"binding"}]}`, status: 200,
			want: `{"binding":{"namespace":"guest","name":"p"},"annotations":[{"key":"binding","value":{"namespace":"guest","name":"p"}}]}`},
		{item: 112, method: "POST", path: "_/actions/b/x?blocking=true", body: `{"d":"request"}`, status: 200,
			want: `{"response":{"result":{"a":"package","b":"binding","c":"action","d":"request"}}}`},
		{item: 111, method: "GET", path: "_/packages/b", status: 200,
			want: `{"binding":{"namespace":"guest","name":"p"},"parameters":[{"key":"a","value":"package"},{"key":"b","value":"binding"},{"key":"c","value":"binding"},{"key":"d","value":"package"}],"actions":[{"name":"x"}],"feeds":[]}`},
		{item: 105, method: "GET", path: "_/actions/b/", status: 200, want: `[{"name":"x","namespace":"guest/p"}]`},
		{item: 111, method: "GET", path: "_/actions/b/x", status: 200, want: `{"name":"x","namespace":"guest/p"}`},
		{item: 113, method: "PUT", path: "_/actions/b/y", body: nodeCode, status: 400},
		{item: 113, method: "PUT", path: "_/actions/b/x?overwrite=true", body: nodeCode, status: 400},
		{item: 113, method: "DELETE", path: "_/actions/b/x", status: 400},
		{item: 101, method: "GET", path: "_/packages", status: 200, want: `[{"name":"b","binding":{"namespace":"guest","name":"p"}},{"name":"p","binding":false}]`},
	})
	a := w.send("guest", "POST", "_/actions/b/x?blocking=true", `{}`)
	annotations := map[string]any{}
	m, _ := a.json.(map[string]any)
	list, _ := m["annotations"].([]any)
	for _, v := range list {
		kv, _ := v.(map[string]any)
		annotations[kv["key"].(string)] = kv["value"]
	}
	if annotations["binding"] != "guest/b" || annotations["path"] != "guest/p/x" {
		t.Errorf("item 112: annotations %v", annotations)
	}
}

func TestPackagesParametersForInitialization(t *testing.T) { // item 58
	w := open(t, nil)
	w.play([]step{
		{item: 58, method: "PUT", path: "_/packages/p", body: `{"parameters":[{"key":"A","value":"p","init":true},{"key":"B","value":"p","init":true},{"key":"C","value":{"x":1},"init":true},{"key":"d","value":1}]}`, status: 200},
		{item: 58, method: "PUT", path: "_/packages/b", body: `{"binding":{"namespace":"_","name":"p"},"parameters":[{"key":"B","value":"b","init":true}]}`, status: 200},
		{item: 58, method: "PUT", path: "_/actions/p/x", body: with(nodeCode, `"parameters":[{"key":"A","value":"x","init":true}]`), status: 200},
		{item: 58, method: "POST", path: "_/actions/b/x?blocking=true&result=true", body: `{}`, status: 200, want: `{"A":"<absent>","B":"<absent>","C":"<absent>","d":1}`},
		{item: 58, method: "PUT", path: "_/packages/q", body: `{"parameters":[{"key":"LD_PRELOAD","value":"p","init":true}]}`, status: 400},
	})
	name := faas.Name{Namespace: "guest", Package: "b", Function: "x"}
	_, rev, err := w.catalog.Resolve(faas.Ref{Name: name})
	w.must(err)
	env, err := w.server.Env(t.Context(), rev, &faas.Invocation{Function: faas.Ref{Name: name}, Owner: "guest"})
	if _, own := env["A"]; err != nil || own || rev.Env["A"] != "x" || env["B"] != "b" || env["C"] != `{"x":1}` || env["d"] != "" {
		t.Errorf("environment %v, %v", env, err)
	}
}

func TestBindings(t *testing.T) {
	w := open(t, nil)
	bind := func(namespace, name string) string {
		return `{"binding":{"namespace":"` + namespace + `","name":"` + name + `"}}`
	}
	w.play([]step{
		{item: 108, method: "PUT", path: "_/packages/b", body: bind("guest", "none"), status: 400},
		{item: 108, method: "PUT", path: "_/packages/b", body: bind("other", "none"), status: 403},
		{item: 107, method: "PUT", path: "_/packages/b", body: bind("other", "no$name"), status: 400},
		{item: 109, method: "PUT", path: "_/packages/b", body: bind("guest", "b"), status: 400},
		{item: 96, method: "PUT", path: "_/packages/p", body: `{}`, status: 200},
		{item: 107, method: "PUT", path: "_/packages/b", body: bind("guest", "p"), status: 200, want: `{"binding":{"namespace":"guest","name":"p"},"version":"0.0.1"}`},
		{item: 117, method: "PUT", path: "_/packages/b2", body: bind("_", "p"), status: 200, want: `{"binding":{"namespace":"guest","name":"p"}}`},
		{item: 109, method: "PUT", path: "_/packages/c", body: bind("guest", "b"), status: 400},
		{item: 109, method: "PUT", path: "_/packages/b?overwrite=true", body: bind("guest", "b"), status: 400},
		{item: 109, method: "PUT", path: "_/actions/act", body: nodeCode, status: 200},
		{item: 109, method: "PUT", path: "_/triggers/trig", body: `{}`, status: 200},
		{item: 109, method: "PUT", path: "_/packages/c", body: bind("guest", "act"), status: 409},
		{item: 109, method: "PUT", path: "_/packages/c", body: bind("guest", "trig"), status: 409},
		{item: 110, method: "PUT", path: "_/actions/p/a", body: nodeCode, status: 200},
		{item: 110, method: "PUT", path: "_/packages/q", body: `{}`, status: 200},
		{item: 110, method: "PUT", path: "_/packages/p?overwrite=true", body: bind("guest", "q"), status: 409},
		{item: 107, method: "PUT", path: "_/packages/b?overwrite=true", body: bind("guest", "q"), status: 200, want: `{"binding":{"namespace":"guest","name":"q"},"version":"0.0.2"}`},
		{item: 107, method: "PUT", path: "_/packages/b?overwrite=true", body: `{"parameters":[{"key":"a","value":1}],"binding":{}}`, status: 200, want: `{"binding":{"namespace":"guest","name":"q"}}`},
		{item: 114, method: "DELETE", path: "_/packages/q", status: 200},
		{item: 114, method: "GET", path: "_/packages/b", status: 404},
		{item: 114, method: "GET", path: "_/actions/b/a", status: 404},
		{item: 114, method: "DELETE", path: "_/packages/b", status: 200, want: `{"name":"b"}`},
		{item: 114, method: "GET", path: "_/packages/b", status: 404},
	})
}

func TestPackagesOfOthers(t *testing.T) {
	w := open(t, nil)
	bindTo := func(name string) string { return `{"binding":{"namespace":"other","name":"` + name + `"}}` }
	w.play([]step{
		{item: 101, who: "other", method: "PUT", path: "_/packages/private", body: `{}`, status: 200},
		{item: 101, who: "other", method: "PUT", path: "_/packages/shared", body: `{"publish":true,"parameters":[{"key":"s","value":1}]}`, status: 200},
		{item: 101, who: "other", method: "PUT", path: "_/packages/bound", body: `{"publish":true,"binding":{"namespace":"_","name":"shared"}}`, status: 200},
		{item: 101, who: "other", method: "PUT", path: "_/actions/shared/a", body: nodeCode, status: 200},
		{item: 101, who: "other", method: "PUT", path: "_/actions/private/a", body: nodeCode, status: 200},
		{item: 101, who: "other", method: "PUT", path: "_/actions/top", body: nodeCode, status: 200},
		{item: 101, who: "other", method: "PUT", path: "_/triggers/t", body: `{}`, status: 200},
		{item: 101, method: "GET", path: "other/packages", status: 200, want: `[{"name":"shared","publish":true,"binding":false}]`},
		{item: 101, method: "GET", path: "nobody/packages", status: 200, want: `[]`},
		{item: 101, who: "other", method: "GET", path: "_/packages", status: 200, want: `[{"name":"bound"},{"name":"shared"},{"name":"private"}]`},
		{item: 115, method: "GET", path: "other/packages/private", status: 403},
		{item: 115, method: "PUT", path: "_/packages/b", body: bindTo("private"), status: 403},
		{item: 115, method: "POST", path: "other/actions/private/a", body: `{}`, status: 403},
		{item: 115, method: "GET", path: "other/actions/private/a", status: 403},
		{item: 115, method: "GET", path: "other/actions/private/", status: 403},
		{item: 118, method: "PUT", path: "other/packages/shared?overwrite=true", body: `{}`, status: 403},
		{item: 118, method: "DELETE", path: "other/packages/shared", status: 403},
		{item: 118, method: "PUT", path: "other/actions/shared/b", body: nodeCode, status: 403},
		{item: 118, method: "PUT", path: "other/actions/shared/a?overwrite=true", body: nodeCode, status: 403},
		{item: 118, method: "DELETE", path: "other/actions/shared/a", status: 403},
		{item: 119, method: "GET", path: "other/packages/shared", status: 200, want: `{"name":"shared","actions":[{"name":"a"}]}`},
		{item: 119, method: "GET", path: "other/actions/shared/a", status: 200, want: `{"namespace":"other/shared"}`},
		{item: 119, method: "GET", path: "other/actions/shared/", status: 200, want: `[{"name":"a"}]`},
		{item: 119, method: "POST", path: "other/actions/shared/a?blocking=true&result=true", body: `{"x":2}`, status: 200, want: `{"s":1,"x":2}`},
		{item: 119, method: "GET", path: "other/actions/top", status: 403},
		{item: 119, method: "POST", path: "other/actions/top", body: `{}`, status: 403},
		{item: 120, method: "GET", path: "other/packages/none", status: 403},
		{item: 120, method: "GET", path: "other/actions/none/a", status: 403},
		{item: 120, method: "GET", path: "nobody/packages/none", status: 403},
		{item: 120, method: "GET", path: "_/actions/none/a", status: 404},
		{item: 121, method: "GET", path: "other/triggers", status: 403},
		{item: 121, method: "GET", path: "other/triggers/t", status: 403},
		{item: 121, method: "POST", path: "other/triggers/t", body: `{}`, status: 403},
		{item: 121, method: "PUT", path: "other/triggers/u", body: `{}`, status: 403},
		{item: 121, method: "GET", path: "other/rules", status: 403},
		{item: 121, method: "GET", path: "other/rules/r", status: 403},
		{item: 121, method: "GET", path: "other/activations", status: 403},
		{item: 112, method: "PUT", path: "_/packages/mine", body: bindTo("shared"), status: 200},
		{item: 112, method: "POST", path: "_/actions/mine/a?blocking=true&result=true", body: `{}`, status: 200, want: `{"s":1}`},
		{item: 116, who: "other", method: "PUT", path: "_/packages/shared?overwrite=true", body: `{"publish":false}`, status: 200},
		{item: 116, method: "GET", path: "_/packages/mine", status: 403},
		{item: 116, method: "GET", path: "_/actions/mine/a", status: 403},
		{item: 116, method: "POST", path: "_/actions/mine/a", body: `{}`, status: 403},
		{item: 116, method: "DELETE", path: "_/packages/mine", status: 200},
	})
}

func TestSharedPackagesThatMayNotBeRead(t *testing.T) { // item 123
	w := open(t, func(c *openwhisk.Config) { c.Sealed = true })
	w.play([]step{
		{item: 123, who: "other", method: "PUT", path: "_/packages/shared", body: `{"publish":true}`, status: 200},
		{item: 123, who: "other", method: "PUT", path: "_/actions/shared/a", body: nodeCode, status: 200},
		{item: 123, method: "GET", path: "other/packages/shared", status: 403},
		{item: 123, method: "GET", path: "other/actions/shared/a", status: 403},
		{item: 123, method: "GET", path: "other/actions/shared/", status: 403},
		{item: 123, method: "POST", path: "other/actions/shared/a?blocking=true&result=true", body: `{"x":1}`, status: 200, want: `{"x":1}`},
		{item: 123, method: "PUT", path: "_/packages/b", body: `{"binding":{"namespace":"other","name":"shared"}}`, status: 200},
		{item: 123, method: "GET", path: "_/packages/b", status: 403},
		{item: 123, method: "GET", path: "_/actions/b/a", status: 403},
		{item: 123, method: "POST", path: "_/actions/b/a?blocking=true&result=true", body: `{"x":1}`, status: 200, want: `{"x":1}`},
		{item: 123, who: "other", method: "GET", path: "_/packages/shared", status: 200},
	})
}
