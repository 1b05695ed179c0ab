package openwhisk_test

import "testing"

func TestRules(t *testing.T) {
	w := open(t, nil)
	w.play([]step{
		{item: 136, method: "PUT", path: "_/triggers/t", body: `{}`, status: 200},
		{item: 136, method: "PUT", path: "_/triggers/t2", body: `{}`, status: 200},
		{item: 136, method: "PUT", path: "_/actions/a", body: nodeCode, status: 200},
		{item: 136, method: "PUT", path: "_/packages/p", body: `{}`, status: 200},
		{item: 136, method: "PUT", path: "_/packages/b", body: `{"binding":{"namespace":"_","name":"p"}}`, status: 200},
		{item: 136, method: "PUT", path: "_/actions/p/a", body: nodeCode, status: 200},
		{item: 136, method: "PUT", path: "_/rules/r", body: `{"trigger":"/guest/t","action":"/guest/a"}`, status: 200,
			want: `{"namespace":"guest","name":"r","version":"0.0.1","status":"active","trigger":{"path":"guest","name":"t"},"action":{"path":"guest","name":"a"},"publish":false,"annotations":[]}`},
		{item: 136, method: "GET", path: "_/rules/r", status: 200, want: `{"status":"active","trigger":{"path":"guest","name":"t"},"action":{"path":"guest","name":"a"}}`},
		{item: 136, method: "PUT", path: "_/rules/r", body: `{"trigger":"/_/t","action":"/_/a"}`, status: 409},
		{item: 136, method: "PUT", path: "_/rules/o", body: `{"trigger":{"path":"guest","name":"t"},"action":{"path":"guest/p","name":"a"}}`, status: 200, want: `{"action":{"path":"guest/p","name":"a"}}`},
		{item: 137, method: "PUT", path: "_/rules/x", body: `{"trigger":"/_/none","action":"/_/a"}`, status: 400, want: `{"error":"~guest/none"}`},
		{item: 137, method: "PUT", path: "_/rules/x", body: `{"trigger":"/_/t","action":"/_/none"}`, status: 400, want: `{"error":"~guest/none"}`},
		{item: 137, method: "PUT", path: "_/rules/x", body: `{}`, status: 400},
		{item: 137, method: "PUT", path: "_/rules/x", body: `{"trigger":"/_/t"}`, status: 400},
		{item: 137, method: "PUT", path: "_/rules/x", body: `{"action":"/_/a"}`, status: 400},
		{item: 138, method: "PUT", path: "_/rules/x", body: `{"trigger":"t","action":"/_/a"}`, status: 400},
		{item: 138, method: "PUT", path: "_/rules/x", body: `{"trigger":"/_/t","action":"a"}`, status: 400},
		{item: 138, method: "PUT", path: "_/rules/x", body: `{"trigger":5,"action":"/_/a"}`, status: 400},
		{item: 138, method: "PUT", path: "_/rules/x", body: `{"trigger":"/t","action":"/_/a"}`, status: 400},
		{item: 138, method: "PUT", path: "_/rules/x", body: `{"trigger":"/_/p/t","action":"/_/a"}`, status: 400},
		{item: 138, method: "PUT", path: "_/rules/noslash", body: `{"trigger":"guest/t","action":"_/a"}`, status: 200, want: `{"trigger":{"path":"guest","name":"t"},"action":{"path":"guest","name":"a"}}`},
		{item: 138, method: "DELETE", path: "_/rules/noslash", status: 200},
		{item: 138, method: "PUT", path: "_/rules/x", body: `{"trigger":"/_/t","action":"/_/a"}`, status: 200, want: `{"trigger":{"path":"guest"},"action":{"path":"guest"}}`},
		{item: 139, method: "PUT", path: "_/rules/packaged", body: `{"trigger":"/_/t","action":"/_/p/a"}`, status: 200, want: `{"action":{"path":"guest/p","name":"a"}}`},
		{item: 139, method: "PUT", path: "_/rules/bound", body: `{"trigger":"/_/t","action":"/_/b/a"}`, status: 200, want: `{"action":{"path":"guest/b","name":"a"}}`},
		{item: 121, method: "PUT", path: "_/rules/y", body: `{"trigger":"/other/t","action":"/_/a"}`, status: 403},
		{item: 121, method: "PUT", path: "_/rules/y", body: `{"trigger":"/_/t","action":"/other/a"}`, status: 403},
		{item: 140, method: "PUT", path: "_/rules/r?overwrite=true", body: `{"trigger":"/_/t2"}`, status: 200, want: `{"version":"0.0.2","trigger":{"name":"t2"},"action":{"name":"a","path":"guest"}}`},
		{item: 140, method: "PUT", path: "_/rules/r?overwrite=true", body: `{"action":"/_/p/a"}`, status: 200, want: `{"version":"0.0.3","trigger":{"name":"t2"},"action":{"name":"a","path":"guest/p"}}`},
		{item: 140, method: "PUT", path: "_/rules/r?overwrite=true", body: `{"trigger":"/_/t","action":"/_/a"}`, status: 200, want: `{"version":"0.0.4","trigger":{"name":"t"},"action":{"path":"guest"}}`},
		{item: 140, method: "PUT", path: "_/rules/r?overwrite=true", body: `{}`, status: 200, want: `{"version":"0.0.5","trigger":{"name":"t"},"action":{"path":"guest"}}`},
		{item: 141, method: "GET", path: "_/rules/r", status: 200, want: `{"status":"active"}`},
		{item: 142, method: "POST", path: "_/rules/r", body: `{"status":"inactive"}`, status: 200},
		{item: 142, method: "GET", path: "_/rules/r", status: 200, want: `{"status":"inactive","version":"0.0.5"}`},
		{item: 143, method: "POST", path: "_/rules/r", body: `{"status":"inactive"}`, status: 200},
		{item: 141, method: "PUT", path: "_/rules/r?overwrite=true", body: `{"trigger":"/_/t"}`, status: 200, want: `{"status":"inactive","version":"0.0.6"}`},
		{item: 142, method: "POST", path: "_/rules/r", body: `{"status":"active"}`, status: 200},
		{item: 143, method: "POST", path: "_/rules/r", body: `{"status":"active"}`, status: 200},
		{item: 142, method: "GET", path: "_/rules/r", status: 200, want: `{"status":"active"}`},
		{item: 143, method: "POST", path: "_/rules/r", body: `{"status":"asleep"}`, status: 400},
		{item: 143, method: "POST", path: "_/rules/r", body: `{"status":5}`, status: 400},
		{item: 143, method: "POST", path: "_/rules/r", body: `{}`, status: 400},
		{item: 143, method: "POST", path: "_/rules/r", status: 400},
		{item: 149, method: "POST", path: "_/rules/none", body: `{"status":"active"}`, status: 404},
		{item: 149, method: "GET", path: "_/rules/none", status: 404},
		{item: 149, method: "DELETE", path: "_/rules/none", status: 404},
		{item: 145, method: "POST", path: "_/rules/x", body: `{"status":"inactive"}`, status: 200},
		{item: 145, method: "DELETE", path: "_/rules/x", status: 200, want: `{"name":"x"}`},
		{item: 145, method: "DELETE", path: "_/rules/r", status: 200, want: `{"name":"r","version":"0.0.6"}`},
		{item: 145, method: "GET", path: "_/rules/r", status: 404},
		{item: 145, method: "DELETE", path: "_/triggers/t", status: 200},
		{item: 145, method: "DELETE", path: "_/rules/bound", status: 200},
	})
	if a := w.send("guest", "POST", "_/rules/packaged", `{"status":"inactive"}`); a.body != "" {
		t.Errorf("item 142: body %q", a.body)
	}
}

func TestManyRules(t *testing.T) {
	w := open(t, nil)
	w.play([]step{
		{item: 147, method: "PUT", path: "_/triggers/t1", body: `{}`, status: 200},
		{item: 147, method: "PUT", path: "_/triggers/t2", body: `{}`, status: 200},
		{item: 147, method: "PUT", path: "_/actions/a", body: nodeCode, status: 200},
		{item: 147, method: "PUT", path: "_/actions/b", body: nodeCode, status: 200},
		{item: 147, method: "PUT", path: "_/rules/t1a", body: `{"trigger":"/_/t1","action":"/_/a"}`, status: 200},
		{item: 147, method: "PUT", path: "_/rules/t1b", body: `{"trigger":"/_/t1","action":"/_/b"}`, status: 200},
		{item: 147, method: "PUT", path: "_/rules/t2a", body: `{"trigger":"/_/t2","action":"/_/a"}`, status: 200},
	})
	first, _, one := w.fire("t1", `{}`)
	second, _, two := w.fire("t2", `{}`)
	if len(one) != 2 || len(two) != 1 {
		t.Fatalf("item 147: %v, %v", one, two)
	}
	w.until("the calls", func() bool { return len(w.calls("guest/a")) == 2 && len(w.calls("guest/b")) == 1 })
	causes := map[string]bool{}
	for _, c := range w.calls("guest/a") {
		causes[string(c.cause)] = true
	}
	if !causes[first] || !causes[second] || string(w.calls("guest/b")[0].cause) != first {
		t.Errorf("item 147: causes %v, want %s and %s", causes, first, second)
	}
	w.play([]step{
		{item: 146, method: "DELETE", path: "_/rules/t2a", status: 200},
		{item: 146, method: "POST", path: "_/triggers/t2", body: `{}`, status: 204},
		{item: 146, method: "PUT", path: "_/rules/t2a", body: `{"trigger":"/_/t2","action":"/_/b"}`, status: 200, want: `{"version":"0.0.1","status":"active"}`},
	})
	w.fire("t2", `{}`)
	w.until("the call", func() bool { return len(w.calls("guest/b")) == 2 })
}

func TestRulesToActionsOfOthers(t *testing.T) { // item 139
	w := open(t, nil)
	w.play([]step{
		{item: 139, who: "other", method: "PUT", path: "_/packages/shared", body: `{"publish":true}`, status: 200},
		{item: 139, who: "other", method: "PUT", path: "_/actions/shared/a", body: nodeCode, status: 200},
		{item: 139, method: "PUT", path: "_/triggers/t", body: `{}`, status: 200},
		{item: 139, method: "PUT", path: "_/rules/r", body: `{"trigger":"/_/t","action":"/other/shared/a"}`, status: 200, want: `{"action":{"path":"other/shared","name":"a"}}`},
	})
	_, _, outcomes := w.fire("t", `{"x":1}`)
	if len(outcomes) != 1 || outcomes[0]["success"] != true {
		t.Fatalf("item 139: %v", outcomes)
	}
	w.until("the call", func() bool { return len(w.calls("other/shared/a")) == 1 })
	id, _ := outcomes[0]["activationId"].(string)
	if r := w.record("guest", id); r["namespace"] != "guest" {
		t.Errorf("item 84: namespace %v, want that of the invoker", r["namespace"])
	}
	// It may no longer be used.
	w.send("other", "PUT", "_/packages/shared?overwrite=true", `{"publish":false}`)
	if _, _, outcomes = w.fire("t", `{}`); len(outcomes) != 1 || outcomes[0]["success"] != false {
		t.Errorf("item 116: %v", outcomes)
	}
}
