package openwhisk_test

import (
	"archive/zip"
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/openwhisk"
)

const (
	nodeCode = `{"exec":{"kind":"nodejs:default","code":"function main(a) { return a }"}}`
	pyCode   = `{"exec":{"kind":"python:default","code":"def main(args):\n    return args"}}`
)

// with adds fields to a JSON object.
func with(object, fields string) string {
	return strings.TrimSuffix(object, "}") + "," + fields + "}"
}

func exec(kind, code string) string {
	b, _ := json.Marshal(map[string]any{"exec": map[string]string{"kind": kind, "code": code}})
	return string(b)
}

func TestActionsAreMadeReadChangedAndDeleted(t *testing.T) {
	w := open(t, nil)
	w.play([]step{
		{item: 16, method: "PUT", path: "_/actions/a", body: nodeCode, status: 200, want: `{"namespace":"guest","name":"a","version":"0.0.1","publish":false,
			"exec":{"kind":"nodejs:20","code":"function main(a) { return a }","binary":false},"parameters":[],"limits":{"timeout":60000,"memory":256,"logs":10,"concurrency":1,"instances":"<absent>"},
			"annotations":[{"key":"provide-api-key","value":false},{"key":"exec","value":"nodejs:20"}]}`},
		{item: 33, method: "GET", path: "_/actions/a", status: 200, want: `{"exec":{"kind":"nodejs:20"}}`},
		{item: 17, method: "PUT", path: "_/actions/a", body: nodeCode, status: 409},
		{item: 17, method: "PUT", path: "_/actions/a?overwrite=false", body: nodeCode, status: 409},
		{item: 18, method: "PUT", path: "_/actions/a?overwrite=true", body: `{"parameters":[{"key":"p","value":{"x":[1,2.50]}}]}`, status: 200,
			want: `{"version":"0.0.2","exec":{"kind":"nodejs:20","code":"function main(a) { return a }"},"parameters":[{"key":"p","value":{"x":[1,2.5]}}],"limits":{"timeout":60000}}`},
		{item: 18, method: "PUT", path: "_/actions/a?overwrite=true", body: `{"limits":{"timeout":1000}}`, status: 200, want: `{"version":"0.0.3","parameters":[{"key":"p","value":{"x":[1,2.5]}}],"limits":{"timeout":1000,"memory":256}}`},
		{item: 18, method: "PUT", path: "_/actions/a?overwrite=true", body: pyCode, status: 200, want: `{"version":"0.0.4","exec":{"kind":"python:3.10"},"parameters":[{"key":"p","value":{"x":[1,2.5]}}],"limits":{"timeout":1000}}`},
		{item: 18, method: "PUT", path: "_/actions/a?overwrite=yes", body: pyCode, status: 400},
		{item: 23, method: "GET", path: "_/actions/a?code=false", status: 200, want: `{"exec":{"kind":"python:3.10","binary":false,"code":"<absent>"}}`},
		{item: 23, method: "GET", path: "_/actions/a?code=true", status: 200, want: `{"exec":{"kind":"python:3.10","binary":false,"code":"def main(args):\n    return args"}}`},
		{item: 23, method: "GET", path: "guest/actions/a", status: 200, want: `{"exec":{"code":"<any>"}}`},
		{item: 23, method: "GET", path: "_/actions/a?code=maybe", status: 400},
		{item: 22, method: "DELETE", path: "_/actions/a", status: 200, want: `{"name":"a","version":"0.0.4","exec":{"kind":"python:3.10"}}`},
		{item: 19, method: "PUT", path: "_/actions/a", body: nodeCode, status: 200, want: `{"version":"0.0.1","parameters":[]}`},
		{item: 21, method: "GET", path: "_/actions/missing", status: 404},
		{item: 21, method: "DELETE", path: "_/actions/missing", status: 404},
		{item: 21, method: "POST", path: "_/actions/missing", body: `{}`, status: 404},
		{item: 44, method: "POST", path: "_/actions", body: `{}`, status: 405},
		{item: 43, method: "GET", path: "other/actions", status: 403},
		{item: 118, method: "PUT", path: "other/actions/a", body: nodeCode, status: 403},
		{item: 118, method: "DELETE", path: "other/actions/a", status: 403},
		{item: 119, method: "GET", path: "other/actions/a", status: 403},
	})
}

func TestUpdatedGrows(t *testing.T) { // item 20
	w := open(t, nil)
	updated := func(a answer) float64 {
		m, _ := a.json.(map[string]any)
		n, _ := m["updated"].(float64)
		return n
	}
	last := updated(w.send("guest", "PUT", "_/actions/a", with(nodeCode, `"updated":5`)))
	if last < 1e12 {
		t.Fatalf("updated is %v, want milliseconds of today", last)
	}
	for range 5 {
		n := updated(w.send("guest", "PUT", "_/actions/a?overwrite=true", `{"publish":true,"updated":7}`))
		if n <= last {
			t.Fatalf("updated is %v after %v", n, last)
		}
		last = n
	}
}

func TestBadActionsAreRefused(t *testing.T) {
	w := open(t, nil)
	big := strings.Repeat("x", 1<<20)
	w.play([]step{
		{item: 26, method: "PUT", path: "_/actions/a", body: `{}`, status: 400, want: `{"error":"~exec"}`},
		{item: 26, method: "PUT", path: "_/actions/a", body: `{"exec":"code"}`, status: 400},
		{item: 26, method: "PUT", path: "_/actions/a", body: `{"exec":{"kind":"nodejs:20"}}`, status: 400, want: `{"error":"~code"}`},
		{item: 26, method: "PUT", path: "_/actions/a", body: `{"exec":{"kind":"nodejs:20","code":5}}`, status: 400},
		{item: 26, method: "PUT", path: "_/actions/a", body: `{"exec":{"kind":"nodejs:20","code":"a","main":""}}`, status: 400},
		{item: 26, method: "PUT", path: "_/actions/a", body: `{"exec":{"kind":"java:8","code":"a"}}`, status: 400, want: `{"error":"~main"}`},
		{item: 26, method: "PUT", path: "_/actions/a", body: `not JSON`, status: 400},
		{item: 26, method: "PUT", path: "_/actions/a", body: `[]`, status: 400},
		{item: 26, method: "PUT", path: "_/actions/a", status: 400},
		{item: 26, method: "GET", path: "_/actions/a", status: 404},
		{item: 27, method: "PUT", path: "_/actions/a", body: `{"exec":{"code":"a"}}`, status: 400, want: `{"error":"~nodejs:20"}`},
		{item: 27, method: "PUT", path: "_/actions/a", body: `{"exec":{"kind":5,"code":"a"}}`, status: 400, want: `{"error":"~nodejs:20"}`},
		{item: 27, method: "PUT", path: "_/actions/a", body: exec("cobol:60", "a"), status: 400, want: `{"error":"~python:3.10"}`},
		{item: 28, method: "PUT", path: "_/actions/a", body: with(nodeCode, `"parameters":{"a":1}`), status: 400},
		{item: 28, method: "PUT", path: "_/actions/a", body: with(nodeCode, `"parameters":[{"value":1}]`), status: 400},
		{item: 28, method: "PUT", path: "_/actions/a", body: with(nodeCode, `"annotations":"x"`), status: 400},
		{item: 29, method: "PUT", path: "_/actions/a", body: with(nodeCode, `"parameters":[{"key":"a","value":"`+big+`"}]`), status: 413, want: `{"error":"~1048576"}`},
		{item: 29, method: "PUT", path: "_/actions/a", body: with(nodeCode, `"annotations":[{"key":"a","value":"`+big+`"}]`), status: 413},
		{item: 29, method: "PUT", path: "_/actions/ok", body: nodeCode, status: 200},
		{item: 29, method: "PUT", path: "_/actions/ok?overwrite=true", body: `{"parameters":[{"key":"a","value":"` + big + `"}]}`, status: 413},
		{item: 29, method: "PUT", path: "_/actions/ok?overwrite=true", body: `{"annotations":[{"key":"a","value":"` + big + `"}]}`, status: 413},
		{item: 29, method: "PUT", path: "_/actions/b", body: with(nodeCode, `"parameters":[{"key":"a","value":"`+big[:1<<20-100]+`"}]`), status: 200},
		{item: 16, method: "PUT", path: "_/actions/b?overwrite=true", body: `{"version":"one"}`, status: 400},
		{item: 16, method: "PUT", path: "_/actions/b?overwrite=true", body: `{"version":"1.2.3"}`, status: 200, want: `{"version":"1.2.3"}`},
		{item: 16, method: "PUT", path: "_/actions/b?overwrite=true", body: `{}`, status: 200, want: `{"version":"1.2.4"}`},
		{item: 16, method: "PATCH", path: "_/actions/b", body: `{}`, status: 405},
		{item: 16, method: "GET", path: "_/actions/b/c/d", status: 404},
	})
	if a := w.sendAs("guest", "PUT", "_/actions/a", nodeCode, nil); a.status != 415 {
		t.Errorf("item 25: without a content type: status %d", a.status)
	}
	for _, body := range []string{nodeCode, ""} {
		if a := w.sendAs("guest", "PUT", "_/actions/a", body, map[string]string{"Content-Type": "text/plain"}); a.status != 415 || !strings.Contains(a.body, `"code":`) {
			t.Errorf("item 25: %q as text: status %d", body, a.status)
		}
	}
	if a := w.sendAs("guest", "PUT", "_/actions/a", "", nil); a.status != 400 {
		t.Errorf("item 25: nothing: status %d", a.status)
	}
	if a := w.sendAs("guest", "PUT", "_/actions/c", nodeCode, map[string]string{"Content-Type": "Application/JSON; charset=utf-8"}); a.status != 200 {
		t.Errorf("item 25: with a charset: status %d", a.status)
	}
}

func TestCodeIsBounded(t *testing.T) { // item 29
	w := open(t, func(c *openwhisk.Config) { c.Limits.Code = 1000 })
	w.play([]step{
		{item: 29, method: "PUT", path: "_/actions/a", body: exec("nodejs:20", strings.Repeat("x", 1000)), status: 200},
		{item: 29, method: "PUT", path: "_/actions/b", body: exec("nodejs:20", strings.Repeat("x", 1001)), status: 413, want: `{"error":"~1001"}`},
		{item: 29, method: "GET", path: "_/actions/b", status: 404},
		{item: 29, method: "PUT", path: "_/actions/a?overwrite=true", body: exec("nodejs:20", strings.Repeat("x", 1001)), status: 413, want: `{"error":"~1000"}`},
		{item: 29, method: "GET", path: "_/actions/a", status: 200, want: `{"version":"0.0.1"}`},
	})
}

func TestNames(t *testing.T) {
	w := open(t, nil)
	long := strings.Repeat("n", 256)
	odd := "a name @home-1.0&more"
	w.play([]step{
		{item: 30, method: "PUT", path: "_/actions/" + long, body: nodeCode, status: 200, want: `{"name":"` + long + `"}`},
		{item: 30, method: "GET", path: "_/actions/" + long, status: 200, want: `{"name":"` + long + `"}`},
		{item: 30, method: "PUT", path: "_/actions/" + long + "n", body: nodeCode, status: 400},
		{item: 30, method: "PUT", path: "_/actions/a$b", body: nodeCode, status: 400},
		{item: 30, method: "PUT", path: "_/actions/-a", body: nodeCode, status: 400},
		{item: 30, method: "PUT", path: "_/actions/a%20", body: nodeCode, status: 400},
		{item: 30, method: "PUT", path: "_/actions/_a", body: nodeCode, status: 200},
		{item: 31, method: "PUT", path: "_/actions/case", body: nodeCode, status: 200},
		{item: 31, method: "PUT", path: "_/actions/Case", body: pyCode, status: 200},
		{item: 31, method: "GET", path: "_/actions/case", status: 200, want: `{"name":"case","exec":{"kind":"nodejs:20"}}`},
		{item: 31, method: "GET", path: "_/actions/Case", status: 200, want: `{"name":"Case","exec":{"kind":"python:3.10"}}`},
		{item: 32, method: "PUT", path: "_/actions/" + url.PathEscape(odd), body: nodeCode, status: 200, want: `{"name":"` + odd + `"}`},
		{item: 32, method: "GET", path: "_/actions/" + url.PathEscape(odd), status: 200, want: `{"name":"` + odd + `"}`},
		{item: 32, method: "POST", path: "_/actions/" + url.PathEscape(odd) + "?blocking=true&result=true", body: `{"x":1}`, status: 200, want: `{"x":1}`},
		{item: 32, method: "DELETE", path: "_/actions/" + url.PathEscape(odd), status: 200, want: `{"name":"` + odd + `"}`},
		{item: 32, method: "GET", path: "_/actions/" + url.PathEscape(odd), status: 404},
	})
}

func TestKindsOfEntitiesShareNames(t *testing.T) { // item 24
	w := open(t, nil)
	w.play([]step{
		{item: 24, method: "PUT", path: "_/actions/act", body: nodeCode, status: 200},
		{item: 24, method: "PUT", path: "_/triggers/trig", body: `{}`, status: 200},
		{item: 24, method: "PUT", path: "_/packages/pkg", body: `{}`, status: 200},
		{item: 24, method: "PUT", path: "_/rules/rule", body: `{"trigger":"/_/trig","action":"/_/act"}`, status: 200},
	})
	names := map[string]string{"actions": "act", "triggers": "trig", "packages": "pkg", "rules": "rule"}
	bodies := map[string]string{"actions": nodeCode, "triggers": `{}`, "packages": `{}`, "rules": `{"trigger":"/_/trig","action":"/_/act"}`}
	for _, collection := range []string{"actions", "triggers", "packages", "rules"} {
		for of, name := range names {
			if of == collection {
				continue
			}
			path := "_/" + collection + "/" + name
			w.play([]step{
				{item: 24, method: "GET", path: path, status: 409},
				{item: 24, method: "PUT", path: path + "?overwrite=true", body: bodies[collection], status: 409},
				{item: 24, method: "DELETE", path: path, status: 409},
			})
		}
	}
	w.play([]step{
		{item: 24, method: "POST", path: "_/actions/trig", body: `{}`, status: 409},
		{item: 24, method: "PUT", path: "_/actions/pkg/act", body: nodeCode, status: 200}, // in a package it is another name
	})
}

func TestAnnotationsAndParametersAreMerged(t *testing.T) {
	w := open(t, nil)
	seq := `{"exec":{"kind":"sequence","components":["/_/b"]}}`
	w.play([]step{
		{item: 38, method: "PUT", path: "_/actions/k", body: with(nodeCode, `"annotations":[{"key":"provide-api-key","value":true}]`), status: 200,
			want: `{"annotations":[{"key":"provide-api-key","value":true},{"key":"exec","value":"nodejs:20"}]}`},
		{item: 16, method: "PUT", path: "_/actions/k?overwrite=true", body: `{"annotations":[{"key":"exec","value":"mine"}]}`, status: 200,
			want: `{"annotations":[{"key":"provide-api-key","value":true},{"key":"exec","value":"nodejs:20"}]}`},
		{item: 34, method: "PUT", path: "_/actions/a", body: with(nodeCode, `"annotations":[{"key":"k1","value":1},{"key":"k1","value":11}]`), status: 200,
			want: `{"annotations":[{"key":"k1","value":11},{"key":"provide-api-key","value":false},{"key":"exec","value":"nodejs:20"}]}`},
		{item: 34, method: "PUT", path: "_/actions/a?overwrite=true", body: `{"annotations":[{"key":"k2","value":2}]}`, status: 200,
			want: `{"annotations":[{"key":"k1","value":11},{"key":"provide-api-key","value":false},{"key":"exec","value":"nodejs:20"},{"key":"k2","value":2}]}`},
		{item: 34, method: "PUT", path: "_/actions/a?overwrite=true", body: `{"delAnnotations":["k1"]}`, status: 200,
			want: `{"annotations":[{"key":"provide-api-key","value":false},{"key":"exec","value":"nodejs:20"},{"key":"k2","value":2}]}`},
		{item: 35, method: "PUT", path: "_/actions/b", body: nodeCode, status: 200},
		{item: 35, method: "PUT", path: "_/actions/s", body: with(seq, `"parameters":[{"key":"p","value":1}]`), status: 200, want: `{"parameters":[{"key":"p","value":1}]}`},
		{item: 35, method: "PUT", path: "_/actions/s?overwrite=true", body: nodeCode, status: 200, want: `{"parameters":[],"exec":{"kind":"nodejs:20"}}`},
		{item: 35, method: "PUT", path: "_/actions/s?overwrite=true", body: with(seq, `"parameters":[{"key":"p","value":1}]`), status: 200},
		{item: 35, method: "PUT", path: "_/actions/s?overwrite=true", body: with(nodeCode, `"parameters":[{"key":"q","value":2}]`), status: 200, want: `{"parameters":[{"key":"q","value":2}]}`},
		{item: 58, method: "PUT", path: "_/actions/i", body: with(nodeCode, `"parameters":[{"key":"HOME_TOWN","value":"x","init":true},{"key":"a","value":null}]`), status: 200,
			want: `{"parameters":[{"key":"HOME_TOWN","value":"x","init":true},{"key":"a","value":null}]}`},
		{item: 58, method: "PUT", path: "_/actions/i?overwrite=true", body: `{"exec":null,"publish":false}`, status: 200},
		{item: 58, method: "PUT", path: "_/actions/i?overwrite=true", body: `{"parameters":[{"key":"LD_PRELOAD","value":"x","init":true}]}`, status: 400},
		{item: 58, method: "PUT", path: "_/actions/i?overwrite=true", body: `{"parameters":[{"key":"a=b","value":"x","init":true}]}`, status: 400},
		{item: 58, method: "POST", path: "_/actions/i?blocking=true&result=true", body: `{"b":1}`, status: 200, want: `{"HOME_TOWN":"<absent>","b":1}`},
	})
	_, rev, err := w.catalog.Resolve(faas.Ref{Name: faas.Name{Namespace: "guest", Function: "i"}})
	w.must(err)
	if rev.Env["HOME_TOWN"] != "x" {
		t.Errorf("item 58: environment %v", rev.Env)
	}
	// Another one takes its place, whether or not code comes with it.
	w.send("guest", "PUT", "_/actions/i?overwrite=true", `{"parameters":[{"key":"OTHER","value":{"a":1},"init":true}]}`)
	if _, rev, err = w.catalog.Resolve(faas.Ref{Name: faas.Name{Namespace: "guest", Function: "i"}}); err != nil || rev.Env["OTHER"] != `{"a":1}` || rev.Env["HOME_TOWN"] != "" {
		t.Errorf("item 58: environment %v, %v", rev.Env, err)
	}
}

// What an action in a package is read with is what a call of it finds beneath its arguments.
func TestActionsShowTheParametersOfTheirPackage(t *testing.T) {
	w := open(t, nil)
	w.play([]step{
		{item: 103, method: "PUT", path: "_/packages/p", body: `{"parameters":[{"key":"a","value":1},{"key":"b","value":1},{"key":"c","value":1}]}`, status: 200},
		{item: 111, method: "PUT", path: "_/packages/bound", body: `{"binding":{"namespace":"_","name":"p"},"parameters":[{"key":"b","value":2},{"key":"c","value":2}]}`, status: 200},
		{item: 103, method: "PUT", path: "_/actions/p/x", body: with(nodeCode, `"parameters":[{"key":"c","value":3}]`), status: 200, want: `{"parameters":[{"key":"c","value":3}]}`},
		{item: 103, method: "GET", path: "_/actions/p/x", status: 200, want: `{"parameters":[{"key":"a","value":1},{"key":"b","value":1},{"key":"c","value":3}]}`},
		{item: 111, method: "GET", path: "_/actions/bound/x?code=false", status: 200, want: `{"namespace":"guest/p","parameters":[{"key":"a","value":1},{"key":"b","value":2},{"key":"c","value":3}]}`},
		{item: 112, method: "POST", path: "_/actions/bound/x?blocking=true&result=true", status: 200, want: `{"a":1,"b":2,"c":3}`},
		{item: 18, method: "PUT", path: "_/actions/p/x?overwrite=true", body: `{"publish":true}`, status: 200, want: `{"parameters":[{"key":"c","value":3}]}`},
	})
}

func zipped(t *testing.T, name, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	f, err := z.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.Write([]byte(text))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(b.Bytes())
}

func TestCodeComesBackAsItWasSent(t *testing.T) {
	w := open(t, nil)
	archive := zipped(t, "__main__.py", "def main(args):\n    return {}\n")
	unicode := "def main(args):\n    return {'ü': '✓'}\n"
	w.play([]step{
		{item: 37, method: "PUT", path: "_/actions/z", body: `{"exec":{"kind":"python:default","binary":true,"code":"` + archive + `"}}`, status: 200, want: `{"exec":{"binary":true,"code":"` + archive + `"}}`},
		{item: 37, method: "PUT", path: "_/actions/y", body: exec("python:3.10", archive), status: 200, want: `{"exec":{"binary":true}}`},
		{item: 37, method: "GET", path: "_/actions/y", status: 200, want: `{"exec":{"binary":true,"code":"` + archive + `"}}`},
		{item: 37, method: "PUT", path: "_/actions/x", body: `{"exec":{"kind":"python:default","binary":true,"code":"no base64!"}}`, status: 400},
		{item: 37, method: "GET", path: "_/actions/y?code=false", status: 200, want: `{"exec":{"binary":true,"code":"<absent>"}}`},
		{item: 46, method: "PUT", path: "_/actions/u", body: exec("python:3.10", unicode), status: 200},
		{item: 46, method: "GET", path: "_/actions/u", status: 200, want: exec("python:3.10", unicode)},
		{item: 47, method: "PUT", path: "_/actions/empty", body: exec("nodejs:20", ""), status: 200, want: `{"exec":{"code":""}}`},
		{item: 47, method: "GET", path: "_/actions/empty", status: 200, want: `{"exec":{"code":""}}`},
		{item: 47, method: "POST", path: "_/actions/empty?blocking=true", body: `{}`, status: 502, want: `{"response":{"status":"action developer error","result":{"error":"~no code"}}}`},
	})
}

func TestCopyOfAnAction(t *testing.T) { // item 46
	w := open(t, nil)
	w.play([]step{{item: 46, method: "PUT", path: "_/actions/a", status: 200,
		body: with(nodeCode, `"parameters":[{"key":"z","value":1},{"key":"a","value":"x"}],"annotations":[{"key":"web-export","value":true}],"limits":{"memory":512,"logs":1}`)}})
	first := w.send("guest", "GET", "_/actions/a?code=true", "")
	var m map[string]any
	w.must(json.Unmarshal([]byte(first.body), &m))
	m["name"] = "b"
	body, err := json.Marshal(m)
	w.must(err)
	for _, k := range []string{"name", "updated", "version"} {
		delete(m, k)
	}
	want, err := json.Marshal(m)
	w.must(err)
	w.play([]step{
		{item: 46, method: "PUT", path: "_/actions/b?overwrite=false", body: string(body), status: 200, want: `{"name":"b"}`},
		{item: 46, method: "GET", path: "_/actions/b", status: 200, want: string(want)},
	})
}

func TestLimitsOfActions(t *testing.T) {
	w := open(t, nil)
	w.play([]step{
		{item: 39, method: "PUT", path: "_/actions/a", body: with(nodeCode, `"limits":{"memory":128}`), status: 200, want: `{"limits":{"timeout":60000,"memory":128,"logs":10,"concurrency":1}}`},
		{item: 39, method: "PUT", path: "_/actions/l", body: nodeCode, status: 200},
		{item: 39, method: "PUT", path: "_/actions/a?overwrite=true", body: `{"limits":{"memory":"much"}}`, status: 400},
		{item: 39, method: "PUT", path: "_/actions/a?overwrite=true", body: `{"limits":{"memory":128.5}}`, status: 400},
	})
	for _, l := range []struct {
		item      int
		name      string
		value     int
		status    int
		threshold string
	}{
		{173, "timeout", 99, 400, "100 ms"}, {173, "timeout", 100, 200, ""}, {173, "timeout", 300000, 200, ""}, {173, "timeout", 300001, 400, "300000 ms"},
		{174, "memory", 127, 400, "128 MB"}, {174, "memory", 128, 200, ""}, {174, "memory", 512, 200, ""}, {174, "memory", 513, 400, "512 MB"},
		{175, "logs", -1, 400, "0 MB"}, {175, "logs", 0, 200, ""}, {175, "logs", 10, 200, ""}, {175, "logs", 11, 400, "10 MB"},
		{176, "concurrency", 0, 400, "1."}, {176, "concurrency", 1, 200, ""}, {176, "concurrency", 2, 400, "1."},
		{177, "instances", 0, 400, "1."}, {177, "instances", 1, 200, ""}, {177, "instances", 30, 200, ""}, {177, "instances", 31, 400, "30."},
	} {
		limit := fmt.Sprintf(`"limits":{"%s":%d}`, l.name, l.value)
		want := ""
		if l.status == 200 {
			want = "{" + limit + "}"
		} else {
			want = fmt.Sprintf(`{"error":"~%s is %d"}`, l.name, l.value)
		}
		w.play([]step{
			{item: l.item, method: "PUT", path: fmt.Sprintf("_/actions/l?overwrite=true&n=%d", l.value), body: with(nodeCode, limit), status: l.status, want: want},
		})
		w.play([]step{{item: l.item, method: "PUT", path: "_/actions/l?overwrite=true", body: "{" + limit + "}", status: l.status, want: want}})
		if a := w.send("guest", "PUT", "_/actions/l?overwrite=true", "{"+limit+"}"); l.threshold != "" && !strings.Contains(a.body, "threshold of "+l.threshold) {
			t.Errorf("item %d: %s does not tell the threshold", l.item, a.body)
		}
	}
	_, rev, err := w.catalog.Resolve(faas.Ref{Name: faas.Name{Namespace: "guest", Function: "l"}})
	w.must(err)
	if rev.Limits.MaxInstances != 30 || rev.Limits.Memory != 512*faas.MiB || rev.Limits.Timeout.D().Minutes() != 5 {
		t.Errorf("limits %+v", rev.Limits)
	}
	five := 5
	w.must(w.keys.PutLimits(t.Context(), "guest", auth.NamespaceLimits{Concurrent: &five}))
	w.play([]step{ // what the namespace may do at once, not what others may
		{item: 177, method: "PUT", path: "_/actions/l?overwrite=true", body: `{"limits":{"instances":6}}`, status: 400, want: `{"error":"~instances is 6 and exceeds the allowed threshold of 5"}`},
		{item: 177, method: "PUT", path: "_/actions/l?overwrite=true", body: `{"limits":{"instances":5}}`, status: 200, want: `{"limits":{"instances":5}}`},
		{item: 177, who: "other", method: "PUT", path: "_/actions/l", body: with(nodeCode, `"limits":{"instances":6}`), status: 200},
	})
}

// A client that sends all before it reads must be told, however large that is.
func TestWhatIsTooLargeIsToldToWhoeverSendsIt(t *testing.T) { // item 29
	w := open(t, func(c *openwhisk.Config) { c.Limits.Code = 1000 })
	big := exec("nodejs:20", strings.Repeat("x", 60<<20))
	c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	w.must(err)
	guest := w.subjects["guest"]
	key := base64.StdEncoding.EncodeToString([]byte(guest.UUID + ":" + guest.Key))
	_, err = fmt.Fprintf(c, "PUT /api/v1/namespaces/_/actions/a HTTP/1.1\r\nHost: x\r\nAuthorization: Basic %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", key, len(big), big)
	if err != nil {
		t.Fatalf("while it is sent: %v", err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || !strings.Contains(line, " 413 ") {
		t.Errorf("answer %q, %v", line, err)
	}
	_ = c.Close()
}
