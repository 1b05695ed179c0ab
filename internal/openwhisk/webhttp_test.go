package openwhisk_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/openwhisk"
)

// web makes a web action with more annotations.
func (w *world) web(path string, parameters string, annotations ...string) {
	w.t.Helper()
	all := `[{"key":"web-export","value":true}`
	for _, a := range annotations {
		all += "," + a
	}
	if parameters == "" {
		parameters = "[]"
	}
	a := w.send("guest", "PUT", "_/actions/"+path, strings.TrimSuffix(nodeCode, "}")+`,"parameters":`+parameters+`,"annotations":`+all+`]}`)
	if a.status != http.StatusOK {
		w.t.Fatal(a.body)
	}
}

// get asks for what is below /api/v1/web/.
func (w *world) get(method, path, body string, header ...string) answer {
	w.t.Helper()
	h, who := map[string]string{}, ""
	for i := 0; i < len(header); i += 2 {
		if header[i] == "as" {
			who = header[i+1]
			continue
		}
		h[header[i]] = header[i+1]
	}
	return w.sendAs(who, method, "/api/v1/web/"+path, body, h)
}

func TestWebActionsAreReached(t *testing.T) {
	w := open(t, func(c *openwhisk.Config) { c.Limits.Payload = 2000 })
	w.play([]step{
		{item: 191, method: "PUT", path: "_/packages/pkg", body: `{}`, status: 200},
		{item: 191, method: "PUT", path: "_/packages/bound", body: `{"binding":{"namespace":"guest","name":"pkg"},"annotations":[{"key":"require-whisk-auth","value":true}]}`, status: 200},
		{item: 184, method: "PUT", path: "_/actions/hidden", body: nodeCode, status: 200},
	})
	w.web("a", "")
	w.web("pkg/a", `[{"key":"def","value":1}]`)
	w.web("locked", "", `{"key":"require-whisk-auth","value":true}`)
	w.web("secret", "", `{"key":"require-whisk-auth","value":"s3"}`)
	w.web("number", "", `{"key":"require-whisk-auth","value":17}`)
	w.web("loose", "", `{"key":"require-whisk-auth","value":false}`)
	w.web("odd", "", `{"key":"require-whisk-auth","value":[1]}`)
	w.web("raw", `[{"key":"def","value":1}]`, `{"key":"raw-http","value":true}`)
	w.web("texts", "", `{"key":"raw-http","value":"yes"}`, `{"key":"web-custom-options","value":"yes"}`) // which are not true
	w.web("custom", "", `{"key":"web-custom-options","value":true}`, `{"key":"require-whisk-auth","value":true}`)
	for _, c := range []struct {
		item         int
		method, path string
		header       []string
		status       int
	}{
		{184, "GET", "guest/default/hidden", nil, 404},
		{184, "GET", "guest/default/nothing", nil, 404},
		{184, "GET", "guest/nothing/a", nil, 404},
		{184, "GET", "nobody/default/a", nil, 404},
		{185, "GET", "guest/default/a", nil, 204},
		{186, "GET", "guest/default/locked.json", nil, 401},
		{186, "GET", "guest/default/locked.json", []string{"as", "other"}, 200},
		{187, "GET", "guest/default/secret.json", nil, 401},
		{187, "GET", "guest/default/secret.json", []string{"X-Require-Whisk-Auth", "S3"}, 401},
		{187, "GET", "guest/default/secret.json", []string{"X-Require-Whisk-Auth", "s3"}, 200},
		{187, "GET", "guest/default/number.json", []string{"X-Require-Whisk-Auth", "17"}, 200},
		{187, "GET", "guest/default/odd.json", []string{"as", "guest"}, 401},
		{188, "GET", "guest/default/loose.json", nil, 200},
		{189, "GET", "guest/default", nil, 404},
		{189, "GET", "guest", nil, 404},
		{190, "GET", "guest/default/a.json", nil, 200},
		{191, "GET", "guest/bound/a.json", nil, 200},
		{192, "GET", "guest/default/a.foo", nil, 404},
		{193, "GET", "guest/default/a.json", []string{"Accept", "text/html"}, 406},
		{194, "PUT", "guest/default/a.json", nil, 200},
		{194, "PATCH", "guest/default/a.json", nil, 200},
		{194, "DELETE", "guest/default/a.json", nil, 200},
		{194, "HEAD", "guest/default/a.json", nil, 200},
		{194, "TRACE", "guest/default/a.json", nil, 405},
	} {
		a := w.get(c.method, c.path, "", c.header...)
		if a.status != c.status {
			t.Errorf("item %d: %s %s %v: %d, want %d: %s", c.item, c.method, c.path, c.header, a.status, c.status, a.body)
		}
		if c.method == "HEAD" && a.body != "" {
			t.Errorf("item 194: HEAD has a body: %s", a.body)
		}
	}
	// What it is called with.
	for _, c := range []struct {
		item         int
		method, path string
		body         string
		header       []string
		want         string // JSON that the arguments contain; empty: 400
	}{
		{186, "GET", "guest/default/locked.json", "", []string{"as", "other"}, `{"__ow_user":"other"}`},
		{195, "GET", "guest/default/a.json?x=1&x=2", "", nil, `{"x":"2"}`},
		{195, "POST", "guest/default/a.json?x=1&y=2", `{"y":3}`, []string{"Content-Type", "application/json"}, `{"x":"1","y":3}`},
		{196, "GET", "guest/default/a.json?__ow_method=x", "", nil, ""},
		{196, "POST", "guest/default/a.json", `{"__ow_path":"x"}`, []string{"Content-Type", "application/json"}, ""},
		{196, "POST", "guest/default/a.json?__ow_body=x", "text", []string{"Content-Type", "text/plain"}, ""},
		{196, "GET", "guest/default/raw.json?__ow_method=x", "", nil, `{"__ow_method":"get","__ow_query":"__ow_method=x"}`},
		{197, "GET", "guest/pkg/a.json?def=2", "", nil, ""},
		{197, "POST", "guest/pkg/a.json", `{"def":2}`, []string{"Content-Type", "application/json"}, ""},
		{197, "GET", "guest/default/raw.json?def=2", "", nil, `{"def":1,"__ow_query":"def=2","__ow_body":""}`},
		{198, "GET", "guest/default/a.json/x/y%20z", "", nil, `{"__ow_path":"/x/y%20z"}`},
		{198, "GET", "guest/default/a.json", "", nil, `{"__ow_path":""}`},
		{198, "GET", "guest/default/a.json/x%2Fy,(z)/", "", nil, `{"__ow_path":"/x%2Fy,(z)/"}`},
		{199, "GET", "guest/default/a.json", "", []string{"X-UPPER", "Value"}, `{"__ow_method":"get","__ow_headers":{"x-upper":"Value","content-type":"<absent>"}}`},
		{199, "POST", "guest/default/a.json", "t", []string{"Content-Type", "text/plain"}, `{"__ow_method":"post","__ow_headers":{"content-type":"text/plain"}}`},
		{200, "POST", "guest/default/a.json?b=1", "a=1&b=2+3", []string{"Content-Type", "application/x-www-form-urlencoded"}, `{"a":"1","b":"2 3","__ow_body":"<absent>"}`},
		{201, "POST", "guest/default/a.json", `[1,2]`, []string{"Content-Type", "application/json"}, `{"__ow_body":[1,2]}`},
		{201, "POST", "guest/default/a.json", `"s"`, []string{"Content-Type", "application/json"}, `{"__ow_body":"s"}`},
		{201, "POST", "guest/default/a.json", `{"x`, []string{"Content-Type", "application/json"}, ""},
		{202, "POST", "guest/default/a.json", "some text", []string{"Content-Type", "text/plain"}, `{"__ow_body":"some text"}`},
		{202, "POST", "guest/default/a.json", "\x89PNG", []string{"Content-Type", "image/png"}, `{"__ow_body":"iVBORw=="}`},
		{203, "POST", "guest/default/raw.json?a=1&a=2", `{"a":1}`, []string{"Content-Type", "application/json"}, `{"__ow_query":"a=1&a=2","__ow_body":"eyJhIjoxfQ=="}`},
		{202, "POST", "guest/default/a.json", "<svg/>", []string{"Content-Type", "image/svg+xml"}, `{"__ow_body":"PHN2Zy8+"}`},
		{202, "POST", "guest/default/a.json", "<a/>", []string{"Content-Type", "application/atom+xml"}, `{"__ow_body":"<a/>"}`},
		{203, "POST", "guest/default/raw.json", "\x89PNG", []string{"Content-Type", "image/png"}, `{"__ow_query":"","__ow_body":"iVBORw=="}`},
		{203, "POST", "guest/default/raw.json", "text", []string{"Content-Type", "text/plain"}, `{"__ow_query":"","__ow_body":"text"}`},
		{203, "GET", "guest/default/texts.json?a=1", "", nil, `{"a":"1","__ow_query":"<absent>","__ow_body":"<absent>"}`},
		{203, "GET", "guest/default/raw.json", "", nil, `{"__ow_query":"","__ow_body":""}`},
	} {
		a := w.get(c.method, c.path, c.body, c.header...)
		name := fmt.Sprintf("item %d: %s %s %q", c.item, c.method, c.path, c.body)
		if c.want == "" {
			if a.status != 400 {
				t.Errorf("%s: %d, want 400: %s", name, a.status, a.body)
			}
			continue
		}
		var want any
		if err := json.Unmarshal([]byte(c.want), &want); err != nil {
			t.Fatal(err)
		}
		if err := contains(a.json, want, ""); a.status != 200 || err != nil {
			t.Errorf("%s: %d, %v in %s", name, a.status, err, a.body)
		}
	}
	if a := w.get("POST", "guest/default/a.json", strings.Repeat("x", 2001), "Content-Type", "text/plain"); a.status != 413 {
		t.Errorf("item 204: %d %s", a.status, a.body)
	}
	if a := w.get("GET", "guest/default/a.json", ""); len(a.header.Get("X-Openwhisk-Activation-Id")) != 32 {
		t.Errorf("item 216: %v", a.header)
	}
	// Pages of others.
	ran := len(w.calls("guest/a"))
	a := w.get("OPTIONS", "guest/default/a.json", "", "Access-Control-Request-Headers", "x-mine")
	if h := a.header; a.status != 200 || h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Allow-Methods") != "OPTIONS, GET, DELETE, POST, PUT, HEAD, PATCH" || h.Get("Access-Control-Allow-Headers") != "x-mine" {
		t.Errorf("items 217, 219: %d %v", a.status, a.header)
	}
	if n := len(w.calls("guest/a")); n != ran {
		t.Error("item 217: the action was called")
	}
	if a := w.get("GET", "guest/default/a.json", ""); a.header.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(a.header.Get("Access-Control-Allow-Headers"), "Authorization") {
		t.Errorf("item 218: %v", a.header)
	}
	if a := w.get("OPTIONS", "guest/default/texts.json", ""); a.header.Get("Access-Control-Allow-Origin") != "*" || a.header.Get("X-Openwhisk-Activation-Id") != "" {
		t.Errorf("item 220: %d %v", a.status, a.header)
	}
	a = w.get("OPTIONS", "guest/default/custom.json", "")
	if a.status != 200 || a.header.Get("Access-Control-Allow-Origin") != "" || len(w.calls("guest/custom")) != 1 {
		t.Errorf("item 220: %d %v %s", a.status, a.header, a.body)
	}
	if a := w.get("GET", "guest/default/custom.json", ""); a.status != 401 {
		t.Errorf("item 220: %d", a.status)
	}
}

// What a web action may be called with and by whom, beyond its own package and namespace.
func TestWebActionsOfOthers(t *testing.T) {
	w := open(t, nil)
	n := func(i int) *int { return &i }
	annotated := strings.TrimSuffix(nodeCode, "}") + `,"annotations":[{"key":"web-export","value":true}],"parameters":[{"key":"mine","value":"action"},{"key":"two","value":"action"},{"key":"open","value":null}]}`
	w.play([]step{
		{item: 191, who: "other", method: "PUT", path: "_/packages/shared", body: `{"publish":true,"parameters":[{"key":"one","value":"package"},{"key":"two","value":"package"},{"key":"bound","value":"package"}]}`, status: 200},
		{item: 191, who: "other", method: "PUT", path: "_/actions/shared/a", body: annotated, status: 200},
		{item: 191, who: "other", method: "PUT", path: "_/packages/closed", body: `{}`, status: 200},
		{item: 191, who: "other", method: "PUT", path: "_/actions/closed/a", body: annotated, status: 200},
		{item: 191, method: "PUT", path: "_/packages/p", status: 200, body: `{"binding":{"namespace":"other","name":"shared"},"parameters":[{"key":"bound","value":"binding"},{"key":"two","value":"binding"}],
			"annotations":[{"key":"web-export","value":false},{"key":"raw-http","value":true},{"key":"require-whisk-auth","value":true}]}`},
	})
	// Package < binding < action < query < body, and what is defined can't be changed.
	a := w.get("POST", "guest/p/a.json?x=query&y=query&open=query", `{"y":"body"}`, "Content-Type", "application/json")
	want := map[string]any{"one": "package", "bound": "binding", "two": "action", "mine": "action", "x": "query", "y": "body", "open": "query"}
	if err := contains(a.json, want, ""); a.status != 200 || err != nil {
		t.Errorf("item 191: %d, %v in %s", a.status, err, a.body)
	}
	for _, name := range []string{"one", "bound", "two", "mine"} {
		if a := w.get("GET", "guest/p/a.json?"+name+"=x", ""); a.status != 400 || contains(a.json, map[string]any{"error": "<any>", "code": "<any>"}, "") != nil {
			t.Errorf("item 197: ?%s= is answered with %d %s", name, a.status, a.body)
		}
		if a := w.get("POST", "guest/p/a.json", `{"`+name+`":1}`, "Content-Type", "application/json"); a.status != 400 {
			t.Errorf("item 197: %s in the body is answered with %d %s", name, a.status, a.body)
		}
	}
	for _, name := range []string{"method", "headers", "path", "user", "query", "body"} {
		if a := w.get("GET", "guest/p/a.json?__ow_"+name+"=x", ""); a.status != 400 || contains(a.json, map[string]any{"error": "<any>", "code": "<any>"}, "") != nil {
			t.Errorf("item 196: ?__ow_%s= is answered with %d %s", name, a.status, a.body)
		}
		if a := w.get("POST", "guest/p/a.json", `{"__ow_`+name+`":1}`, "Content-Type", "application/json"); a.status != 400 {
			t.Errorf("item 196: __ow_%s in the body is answered with %d %s", name, a.status, a.body)
		}
	}
	// A private package of another namespace is open to nobody else's bindings.
	w.play([]step{{item: 191, who: "other", method: "PUT", path: "_/packages/shared?overwrite=true", body: `{"publish":false}`, status: 200}})
	if a := w.get("GET", "guest/p/a.json", ""); a.status != 404 {
		t.Errorf("item 191: a binding of what is private now: %d %s", a.status, a.body)
	}
	if a := w.get("GET", "other/closed/a.json", ""); a.status != 200 { // its own URL is open to all
		t.Errorf("item 185: %d %s", a.status, a.body)
	}
	// It is its owner who pays, whoever calls.
	w.must(w.keys.PutLimits(t.Context(), "guest", auth.NamespaceLimits{Invocations: n(0)}))
	if a := w.get("GET", "other/closed/a.json", "", "as", "guest"); a.status != 200 {
		t.Errorf("item 183: the caller was charged: %d %s", a.status, a.body)
	}
	w.must(w.keys.PutLimits(t.Context(), "other", auth.NamespaceLimits{Invocations: n(0)}))
	a = w.get("GET", "other/closed/a.json", "", "as", "guest")
	if a.status != 429 || contains(a.json, map[string]any{"error": "~allowed: 0)", "code": "<any>"}, "") != nil || a.header.Get("X-Openwhisk-Activation-Id") != "" {
		t.Errorf("item 183: %d %s %v", a.status, a.body, a.header)
	}
	w.must(w.keys.PutLimits(t.Context(), "other", auth.NamespaceLimits{Kinds: []string{"python:3.11"}}))
	if a = w.get("GET", "other/closed/a.json", ""); a.status != 403 || contains(a.json, map[string]any{"error": "<any>", "code": "<any>"}, "") != nil {
		t.Errorf("a kind that its namespace may not use: %d %s", a.status, a.body)
	}
}

// What comes of a web action that goes wrong.
func TestWebActionsThatFail(t *testing.T) {
	w, hasty := open(t, nil), open(t, func(c *openwhisk.Config) { c.Limits.Blocking = time.Millisecond })
	hasty.web("late", "")
	for _, name := range []string{"fail", "dev", "crash", "ours", "list"} {
		w.web(name, "")
	}
	release := make(chan struct{})
	defer close(release)
	w.do("guest/fail", func(a map[string]any) (any, error) {
		var e any
		w.must(json.Unmarshal([]byte(a["e"].(string)), &e))
		return map[string]any{"error": e}, nil
	})
	w.do("guest/dev", func(map[string]any) (any, error) { return nil, faas.Errorf(faas.Failed, "run", "a secret of its") })
	w.do("guest/crash", func(map[string]any) (any, error) { return nil, faas.Errorf(faas.Crashed, "run", "a secret of its") })
	w.do("guest/ours", func(map[string]any) (any, error) { return nil, faas.Errorf(faas.Internal, "run", "a secret of its") })
	hasty.do("guest/late", func(map[string]any) (any, error) { <-release; return map[string]any{}, nil })
	w.do("guest/list", func(map[string]any) (any, error) { return []any{1, "b"}, nil })
	for _, c := range []struct {
		item     int
		ext, e   string
		status   int
		mine     bool // the answer is the action's own
		contains string
	}{
		{214, ".http", `{"statusCode":404,"headers":{"X-Own":"1"},"body":"gone"}`, 404, true, "gone"},
		{214, ".http", `{"statusCode":200,"body":"no hello"}`, 200, true, "no hello"},
		{214, ".http", `{"body":{"a":1}}`, 200, true, `"a": 1`},
		{214, ".http", `{"message":"no response of its own"}`, 204, true, ""},
		{214, "", `"text"`, 400, false, ""},
		{214, ".json", `{"statusCode":404}`, 200, true, `"statusCode": 404`},
		{214, ".json", `["a"]`, 200, true, `"a"`},
		{214, ".json", `"text"`, 400, false, ""},
		{214, ".json", `5`, 400, false, ""},
		{214, ".text", `"text"`, 200, true, "text"},
		{214, ".html", `"<b>"`, 200, true, "<b>"},
		{214, ".html", `{"html":"<i>"}`, 200, true, "<i>"},
	} {
		a := w.get("POST", "guest/default/fail"+c.ext, `{"e":`+fmt.Sprintf("%q", c.e)+`}`, "Content-Type", "application/json")
		if a.status != c.status || !strings.Contains(a.body, c.contains) || len(a.header.Get("X-Openwhisk-Activation-Id")) != 32 {
			t.Errorf("item %d: %s of %s: %d %s %v", c.item, c.ext, c.e, a.status, a.body, a.header)
		}
		if !c.mine && contains(a.json, map[string]any{"error": "<any>", "code": "<any>"}, "") != nil {
			t.Errorf("item %d: %s of %s: %s", c.item, c.ext, c.e, a.body)
		}
	}
	for name, status := range map[string]int{"dev.json": 400, "crash": 400, "ours.text": 400, "late.html": 202} { // item 215
		at := w
		if status == http.StatusAccepted {
			at = hasty
		}
		a := at.get("GET", "guest/default/"+name, "")
		if a.status != status || contains(a.json, map[string]any{"error": "<any>", "code": "<any>"}, "") != nil || strings.Contains(a.body, "secret") {
			t.Errorf("item 215: %s: %d %s", name, a.status, a.body)
		}
		if len(a.header.Get("X-Openwhisk-Activation-Id")) != 32 || a.header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("items 216, 218: %s: %v", name, a.header)
		}
	}
	for ext, want := range map[string]int{".json": 200, ".text": 200, ".html": 400, ".http": 400} { // items 205, 206
		if a := w.get("GET", "guest/default/list"+ext, ""); a.status != want || want == 200 && a.body != "[\n  1,\n  \"b\"\n]" {
			t.Errorf("items 205, 206: a list as %s: %d %s", ext, a.status, a.body)
		}
	}
	ran := len(w.calls("guest/list"))
	a := w.get("GET", "guest/default/list.json", "", "Accept", "text/html, image/*;q=0.5")
	if a.status != 406 || contains(a.json, map[string]any{"error": "~application/json", "code": "<any>"}, "") != nil || len(w.calls("guest/list")) != ran+1 {
		t.Errorf("item 193: %d %s after %d calls", a.status, a.body, len(w.calls("guest/list"))-ran)
	}
}
