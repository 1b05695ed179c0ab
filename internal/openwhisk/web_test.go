package openwhisk

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// What a web action's result becomes. Items 205 to 214.
func TestRender(t *testing.T) {
	for _, c := range []struct {
		item        int
		result, ext string
		status      int
		contentType string
		body        string
		header      string
	}{
		{205, `{"a":1}`, ".json", 200, "application/json", "{\n  \"a\": 1\n}", ""},
		{205, `[1]`, ".json", 200, "application/json", "[\n  1\n]", ""},
		{205, `"text"`, ".json", 400, "", "", ""},
		{206, `{"html":"<b>"}`, ".html", 200, "text/html; charset=UTF-8", "<b>", ""},
		{206, `{"html":"<b>","body":"<i>"}`, ".html", 200, "text/html; charset=UTF-8", "<i>", ""},
		{206, `{"html":1}`, ".html", 400, "", "", ""},
		{206, `{}`, ".html", 400, "", "", ""},
		{206, `{"svg":"<svg/>"}`, ".svg", 200, "image/svg+xml", "<svg/>", ""},
		{206, `{"x":"<svg/>"}`, ".svg", 400, "", "", ""},
		{206, `{"text":"t"}`, ".text", 200, "text/plain; charset=UTF-8", "t", ""},
		{206, `{"body":{"a":1}}`, ".text", 200, "text/plain; charset=UTF-8", "{\n  \"a\": 1\n}", ""},
		{206, `{"body":1.5}`, ".text", 200, "text/plain; charset=UTF-8", "1.5", ""},
		{206, `{}`, ".text", 404, "", "", ""},
		{206, `"an error"`, ".html", 200, "text/html; charset=UTF-8", "an error", ""}, // the value of an error, as those below
		{206, `[1]`, ".svg", 400, "", "", ""},
		{206, `"an error"`, ".text", 200, "text/plain; charset=UTF-8", "an error", ""},
		{206, `[1]`, ".text", 200, "text/plain; charset=UTF-8", "[\n  1\n]", ""},
		{206, `null`, ".text", 200, "text/plain; charset=UTF-8", "null", ""},
		{207, `{"statusCode":302,"headers":{"Location":"/x"}}`, ".http", 302, "", "", "map[Location:[/x]]"},
		{208, `{"statusCode":444,"body":"b"}`, ".http", 444, "text/html; charset=UTF-8", "b", ""},
		{208, `{"statusCode":"200","body":"b"}`, ".http", 200, "text/html; charset=UTF-8", "b", ""},
		{208, `{"statusCode":"xyz","body":"b"}`, ".http", 400, "", "", ""},
		{208, `{"statusCode":99,"body":"b"}`, ".http", 400, "", "", ""},
		{208, `{"statusCode":201.0,"body":"b"}`, ".http", 201, "text/html; charset=UTF-8", "b", ""},
		{208, `{"statusCode":200.5,"body":"b"}`, ".http", 400, "", "", ""},
		{208, `{"statusCode":" 200","body":"b"}`, ".http", 400, "", "", ""},
		{208, `{"statusCode":null,"body":"b"}`, ".http", 400, "", "", ""},
		{208, `{"statusCode":true,"body":"b"}`, ".http", 400, "", "", ""},
		{209, `{"headers":{"X-A":"b"}}`, ".http", 204, "", "", "map[X-A:[b]]"},
		{209, `{"statusCode":201}`, ".http", 201, "", "", ""},
		{209, `{"statusCode":201,"body":"","headers":{"content-type":"text/plain"}}`, ".http", 201, "", "", ""},
		{209, `{}`, ".http", 204, "", "", ""},
		{209, `"text"`, ".http", 400, "", "", ""},
		{209, `[1]`, ".http", 400, "", "", ""},
		{210, `{"headers":{"Set-Cookie":["a=1","b=2"],"X-N":1,"X-B":true}}`, ".http", 204, "", "", "map[Set-Cookie:[a=1 b=2] X-B:[true] X-N:[1]]"},
		{210, `{"headers":{"X-A":["a",["b",3]]}}`, ".http", 204, "", "", "map[X-A:[a b 3]]"},
		{210, `{"headers":null}`, ".http", 400, "", "", ""},
		{210, `{"headers":"X-A: b"}`, ".http", 400, "", "", ""},
		{210, `{"headers":{"X-N":{}}}`, ".http", 400, "", "", ""},
		{210, `{"headers":{"X-N":"a\r\nb: c"}}`, ".http", 400, "", "", ""},
		{210, `{"headers":{"X N":"a"}}`, ".http", 400, "", "", ""},
		{211, `{"body":{"a":1}}`, ".http", 200, "application/json", "{\n  \"a\": 1\n}", ""},
		{211, `{"body":{"a":1},"headers":{"content-type":"text/plain"}}`, ".http", 400, "", "", ""},
		{211, `{"body":{"a":1},"headers":{"content-type":"application/hal+json"}}`, ".http", 200, "application/hal+json", "{\n  \"a\": 1\n}", ""},
		{211, `{"body":[1],"headers":{"content-type":"application/json"}}`, ".http", 200, "application/json", "[\n  1\n]", ""},
		{211, `{"body":"eyJhIjoxfQ==","headers":{"content-type":"application/json"}}`, ".http", 200, "application/json", `{"a":1}`, ""},
		{211, `{"body":5,"headers":{"content-type":"text/plain"}}`, ".http", 400, "", "", ""},
		{211, `{"body":5}`, ".http", 200, "application/json", "5", ""},
		{211, `{"body":"b","headers":{"content-type":"text/plain"}}`, ".http", 200, "text/plain; charset=UTF-8", "b", ""},
		{211, `{"body":"b","headers":{"content-type":"text/css; charset=latin1"}}`, ".http", 200, "text/css; charset=latin1", "b", ""},
		{212, `{"body":"PHN2Zy8+","headers":{"Content-Type":"image/svg+xml"}}`, ".http", 200, "image/svg+xml", "<svg/>", ""},
		{212, `{"body":"<svg/>","headers":{"Content-Type":"image/svg+xml"}}`, ".http", 200, "image/svg+xml", "<svg/>", ""},
		{212, `{"body":"iVBORw==","headers":{"Content-Type":"image/png"}}`, ".http", 200, "image/png", "\x89PNG", ""},
		{212, `{"body":"not base64!","headers":{"Content-Type":"image/png"}}`, ".http", 400, "", "", ""},
		{213, `{"body":"b","headers":{"content-type":"no/such/type"}}`, ".http", 400, "", "", ""},
		{213, `{"body":"b","headers":{"content-type":"xyz"}}`, ".http", 400, "", "", ""},
	} {
		p, err := render(json.RawMessage(c.result), c.ext)
		name := fmt.Sprintf("item %d, %s %s", c.item, c.result, c.ext)
		if err != nil {
			if got := asRejection(err).status; got != c.status {
				t.Errorf("%s: status %d, want %d", name, got, c.status)
			}
			continue
		}
		header := ""
		if len(p.header) > 0 {
			header = fmt.Sprint(map[string][]string(p.header))
		}
		if p.status != c.status || p.contentType != c.contentType || string(p.body) != c.body || header != c.header {
			t.Errorf("%s: %d %q %q %s, want %+v", name, p.status, p.contentType, p.body, header, c)
		}
	}
}

// Item 193.
func TestAcceptable(t *testing.T) {
	for _, c := range []struct {
		accept, contentType string
		want                bool
	}{
		{"", "text/html", true}, {"*/*", "text/html", true}, {"text/*", "text/html; charset=UTF-8", true}, {"text/html", "text/html; charset=UTF-8", true},
		{"application/json", "text/html", false}, {"application/json, text/html;q=0", "text/html", false}, {"application/json", "", true},
		{"application/json;q=0.5, */*;q=0.1", "text/html", true},
	} {
		if got := acceptable(c.accept, c.contentType); got != c.want {
			t.Errorf("item 193: Accept %q of %q: %v", c.accept, c.contentType, got)
		}
	}
}

// Items 229 and 230.
func TestMatchPath(t *testing.T) {
	paths := map[string]swaggerPath{"/books/{isbn}": {}, "/books/new": {}, "/": {}, "/{a}/{b}/{c}": {}, "/x/{b}/{c}": {}}
	for _, c := range []struct {
		rest   []string
		want   string
		params string
	}{
		{[]string{"books", "17"}, "/books/{isbn}", "map[isbn:17]"}, {[]string{"books", "new"}, "/books/new", "map[]"}, {nil, "/", "map[]"},
		{[]string{"books"}, "", "map[]"}, {[]string{"x", "y", "z"}, "/x/{b}/{c}", "map[b:y c:z]"}, {[]string{"w", "y", "z"}, "/{a}/{b}/{c}", "map[a:w b:y c:z]"},
	} {
		got, params := matchPath(paths, c.rest)
		if got != c.want || fmt.Sprint(params) != c.params {
			t.Errorf("items 229, 230: %v is %q with %v, want %q with %s", c.rest, got, params, c.want, c.params)
		}
	}
}

// What an action answers with does not become many times as long, nor more than a client takes.
func TestRenderIsBounded(t *testing.T) {
	deep := strings.Repeat("[", 5000) + strings.Repeat("1,", 1000) + `"\\\"[{"` + strings.Repeat("]", 5000)
	for _, result := range []string{deep, `{"a":` + deep + `}`} {
		p, err := render(json.RawMessage(result), ".json")
		if err != nil || len(p.body) > 16*len(result) || !json.Valid(p.body) {
			t.Errorf("%d bytes became %d, %v", len(result), len(p.body), err)
		}
	}
	many, values := map[string]string{}, []string{}
	for i := range 300 {
		many[fmt.Sprintf("X-%d", i)], values = "v", append(values, "v")
	}
	for name, headers := range map[string]any{"many": many, "values": map[string]any{"X": values}, "long": map[string]string{"X": strings.Repeat("v", 1<<17)}} {
		b, _ := json.Marshal(map[string]any{"headers": headers})
		if _, err := render(b, ".http"); asRejection(err) == nil || asRejection(err).status != 400 {
			t.Errorf("%s headers: %v", name, err)
		}
	}
	p, err := render(json.RawMessage(`{"headers":{"connection":"x-a","upgrade":"h2c","trailer":"x","TE":"x","X-Request-ID":"mine","x-openwhisk-activation-id":"mine","x-a":"b"}}`), ".http")
	if err != nil || len(p.header) != 1 || p.header.Get("X-A") != "b" {
		t.Errorf("headers %v, %v", p.header, err)
	}
}
