package openwhisk_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestAPIGateway(t *testing.T) {
	w := open(t, nil)
	w.web("books", "")
	w.web("safe", "", `{"key":"require-whisk-auth","value":"s3"}`)
	w.do("guest/books", func(a map[string]any) (any, error) {
		return map[string]any{"body": map[string]any{"path": a["__ow_path"], "isbn": a["isbn"], "method": a["__ow_method"], "q": a["q"]}}, nil
	})
	const manage = "/api/v1/web/whisk.system/apimgmt/"
	kind := "http"
	create := func(base, path, method, action string, more string) answer {
		return w.send("guest", "POST", manage+"createApi.http?responsetype="+kind+"&accesstoken=x&spaceguid=y", fmt.Sprintf(
			`{"apidoc":{"namespace":"guest","gatewayBasePath":%q,"gatewayPath":%q,"gatewayMethod":%q,"id":"API:guest:%s","action":{"name":%q,"namespace":"guest","backendMethod":"GET",
			"backendUrl":"http://example.test/api/v1/web/guest/default/%s.http","authkey":"u:k"%s}}}`, base, path, method, base, action, action, more))
	}
	url := func(a answer) string {
		t.Helper()
		m, _ := a.json.(map[string]any)
		u, _ := m["gwApiUrl"].(string)
		return strings.TrimPrefix(u, "http://example.test")
	}
	a := create("/club", "/books/{isbn}", "get", "books", "")
	at := url(a)
	if a.status != 200 || at == "" || contains(a.json, map[string]any{"gwApiActivated": true, "apidoc": map[string]any{"basePath": "/club", "swagger": "2.0",
		"paths": map[string]any{"/books/{isbn}": map[string]any{"get": map[string]any{"operationId": "<any>", "x-openwhisk": map[string]any{"action": "books", "namespace": "guest", "package": "", "url": "<any>"}}}}}}, "") != nil {
		t.Fatalf("item 221: %d %s", a.status, a.body)
	}
	for _, c := range []struct{ base, path, method string }{{"club", "/x", "get"}, {"/club", "x", "get"}, {"/club", "/x", "fetch"}} {
		if a := create(c.base, c.path, c.method, "books", ""); a.status != 400 {
			t.Errorf("item 223: %+v: %d %s", c, a.status, a.body)
		}
	}
	if a := create("/club", "/books", "post", "books", ""); a.status != 200 || !strings.Contains(a.body, "/books/{isbn}") { // item 226
		t.Errorf("item 226: %d %s", a.status, a.body)
	}
	kind = "json"
	if a := create("/typed", "/x", "get", "books", ""); a.status != 200 || !strings.Contains(a.body, "books.json") { // item 228
		t.Errorf("item 228: %d %s", a.status, a.body)
	}
	if a := w.sendAs("", "GET", strings.Replace(at, "/club", "/typed", 1)+"/x", "", nil); a.status != 200 || !strings.Contains(a.body, `"body"`) {
		t.Errorf("item 228: %d %s", a.status, a.body)
	}
	w.send("guest", "DELETE", manage+"deleteApi.http?basepath=/typed", "")
	kind = "http"
	if a := create("/safe", "/x", "get", "safe", `,"secureKey":"s3"`); a.status != 200 || strings.Contains(a.body, "s3") {
		t.Errorf("item 221: %d %s", a.status, a.body)
	}
	for _, c := range []struct {
		item         int
		method, path string
		status       int
		want         string
	}{
		{229, "POST", at + "/books?q=1", 200, `{"method":"post","q":"1","path":""}`},
		{230, "GET", at + "/books/17", 200, `{"isbn":"17","path":"/club/books/17"}`}, // the path with its base, as upstream's gateway has it
		{229, "PUT", at + "/books", 405, ""},
		{229, "GET", at + "/nothing/there/is", 404, ""},
		{229, "OPTIONS", at + "/books", 200, ""},
		{229, "GET", "/api/0000/club/books", 404, ""},
	} {
		a := w.sendAs("", c.method, c.path, "", nil)
		if a.status != c.status {
			t.Errorf("item %d: %s %s: %d, want %d: %s", c.item, c.method, c.path, a.status, c.status, a.body)
		}
		if c.want != "" {
			var want any
			if err := json.Unmarshal([]byte(c.want), &want); err != nil {
				t.Fatal(err)
			}
			if err := contains(a.json, want, ""); err != nil {
				t.Errorf("item %d: %v in %s", c.item, err, a.body)
			}
		}
	}
	safe := strings.Replace(at, "/club", "/safe", 1)
	if a := w.sendAs("", "GET", safe+"/x", "", nil); a.status != 204 { // it has the secret from its maker
		t.Errorf("item 229: %d %s", a.status, a.body)
	}
	w.play([]step{
		{item: 224, method: "GET", path: manage + "getApi.http?basepath=/club", status: 200, want: `{"apis":[{"id":"<any>","key":"<any>","value":{"apidoc":{"basePath":"/club"}}}]}`},
		{item: 224, method: "GET", path: manage + "getApi.http?basepath=nothing", status: 200, want: `{"apis":[]}`},
		{item: 221, method: "GET", path: manage + "getApi.http", status: 200, want: `{"apis":[{"value":{"gwApiUrl":"<any>","apidoc":{"basePath":"/club"}}},{"value":{"apidoc":{"basePath":"/safe"}}}]}`},
		{item: 224, method: "GET", path: manage + "getApi.http?basepath=/club&relpath=/books&operation=post", status: 200, want: `{"apis":[{"value":{"apidoc":{"paths":{"/books":{"post":"<any>"},"/books/{isbn}":"<absent>"}}}}]}`},
		{item: 225, method: "DELETE", path: manage + "deleteApi.http?basepath=/club&relpath=/books&operation=post", status: 200, want: `{}`},
		{item: 225, method: "DELETE", path: manage + "deleteApi.http?basepath=/club&relpath=/books&operation=post", status: 404},
		{item: 225, method: "DELETE", path: manage + "deleteApi.http?basepath=/club&operation=get", status: 400},
		{item: 225, method: "DELETE", path: manage + "deleteApi.http?basepath=/club", status: 200},
		{item: 225, method: "DELETE", path: manage + "deleteApi.http?basepath=/club", status: 404},
		{item: 225, who: "nobody", method: "DELETE", path: manage + "deleteApi.http?basepath=/safe", status: 401},
		{item: 225, who: "other", method: "DELETE", path: manage + "deleteApi.http?basepath=/safe", status: 404},
		{item: 227, method: "POST", path: manage + "createApi.http", status: 200, want: `{"apidoc":{"basePath":"/sw","x-own":1}}`,
			body: `{"apidoc":{"namespace":"guest","swagger":"{\"swagger\":\"2.0\",\"basePath\":\"/sw\",\"x-own\":1,\"info\":{\"title\":\"t\",\"version\":\"1\"},\"paths\":{\"/x\":{\"get\":{\"operationId\":\"g\",\"x-openwhisk\":{\"action\":\"books\",\"namespace\":\"guest\",\"package\":\"\",\"url\":\"http://h/api/v1/web/guest/default/books.json\"}}}}}"}}`},
		{item: 227, method: "POST", path: manage + "createApi.http", status: 400, body: `{"apidoc":{"swagger":"{\"basePath\":\"x\"}"}}`},
		{item: 227, method: "POST", path: manage + "createApi.http", status: 400, body: `{"apidoc":{"swagger":"no"}}`},
		{item: 227, method: "POST", path: manage + "createApi.http", status: 400, body: `{"apidoc":{"swagger":{"basePath":"/x","info":{"title":"t"}}}}`},
		{item: 227, method: "POST", path: manage + "createApi.http", status: 400, body: `{"apidoc":5}`},
		{item: 227, method: "POST", path: manage + "createApi.http", status: 200, want: `{"apidoc":{"basePath":"/object"}}`,
			body: `{"apidoc":{"namespace":"_","swagger":{"swagger":"2.0","basePath":"/object","info":{"title":"o","version":"1"},"paths":{"/x":{"get":{"operationId":"g","x-openwhisk":{"action":"books","namespace":"_","url":"http://h/api/v1/web/_/default/books.json"}}}}}}}`},
		{item: 221, method: "POST", path: manage + "createApi.http", status: 200, // all of it as text; the action's namespace is told
			want: `{"apidoc":{"basePath":"/text","paths":{"/x":{"get":{"x-openwhisk":{"namespace":"guest","url":"http://example.test/api/v1/web/guest/default/books.http"}}}}}}`,
			body: `{"apidoc":"{\"namespace\":\"_\",\"gatewayBasePath\":\"/text\",\"gatewayPath\":\"/x\",\"gatewayMethod\":\"get\",\"action\":{\"name\":\"books\",\"namespace\":\"_\",\"backendUrl\":\"http://example.test/api/v1/web/_/default/books.http\"}}"}`},
		{item: 221, who: "other", method: "POST", path: manage + "createApi.http", status: 200, // for an action of another namespace
			want: `{"namespace":"other","apidoc":{"paths":{"/x":{"get":{"x-openwhisk":{"namespace":"guest"}}}}}}`,
			body: `{"apidoc":{"namespace":"_","gatewayBasePath":"/theirs","gatewayPath":"/x","gatewayMethod":"get","action":{"name":"books","namespace":"guest","backendUrl":"http://example.test/api/v1/web/guest/default/books.http"}}}`},
		{item: 224, method: "GET", path: manage + "getApi.http?basepath=t", status: 200, want: `{"apis":[{"value":{"apidoc":{"basePath":"/sw"}}}]}`},
	})
	for _, base := range []string{"/object", "/text"} {
		if a := w.sendAs("", "GET", strings.Replace(at, "/club", base, 1)+"/x?q=7", "", nil); a.status != 200 || !strings.Contains(a.body, `"q": "7"`) {
			t.Errorf("items 221, 227: %s: %d %s", base, a.status, a.body)
		}
	}
	theirs := w.send("other", "GET", manage+"getApi.http", "").json.(map[string]any)["apis"].([]any)[0].(map[string]any)["value"].(map[string]any)["gwApiUrl"].(string)
	if a := w.sendAs("", "GET", strings.TrimPrefix(theirs, "http://example.test")+"/x?q=7", "", nil); a.status != 200 || !strings.Contains(a.body, `"q": "7"`) {
		t.Errorf("item 229: an action of another namespace: %d %s", a.status, a.body)
	}
	sw := strings.Replace(at, "/club", "/sw", 1)
	if a := w.sendAs("", "GET", sw+"/x", "", nil); a.status != 200 || !strings.Contains(a.body, `"body"`) { // item 228: .json shows all of the result
		t.Errorf("item 228: %d %s", a.status, a.body)
	}
	if a := w.sendAs("", "GET", strings.Replace(at, "/club", "/club", 1)+"/books/17", "", nil); a.status != 404 {
		t.Errorf("item 225: a deleted API answers: %d", a.status)
	}
}
