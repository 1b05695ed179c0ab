package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/gateway/gatewaytest"
)

// example is a request that succeeds, once, when the namespace is as furnish leaves it.
type example struct {
	query  string
	body   string
	form   map[string]string // instead of body; a part "code" has a file name
	status int               // default 200
}

const source = "#!/bin/sh\ncat\n"

// examples has one for each operation of the document, by its id; one that is missing fails the
// tests below, so that no route comes to be without them.
var examples = map[string]example{
	"ready": {}, "health": {}, "version": {}, "whoami": {}, "list-runtimes": {}, "doctor": {}, "list-nodes": {},
	"openapi.json": {}, "openapi.yaml": {},
	"list-namespaces":     {},
	"create-namespace":    {body: `{"name":"NEW"}`, status: 201},
	"get-namespace":       {},
	"delete-namespace":    {},
	"list-keys":           {},
	"create-key":          {body: `{"subject":"ci"}`, status: 201},
	"delete-key":          {},
	"list-secrets":        {},
	"put-secret":          {body: `{"value":"x"}`},
	"delete-secret":       {},
	"list-functions":      {},
	"get-function":        {},
	"delete-function":     {},
	"list-revisions":      {},
	"activate":            {body: `{"revision":"REVISION"}`},
	"deploy":              {form: map[string]string{"spec": `{"language":"exec"}`, "code": source}},
	"invoke":              {query: "logs=true", body: `{"name":"Ada"}`},
	"run":                 {body: `{"language":"exec","code":"#!/bin/sh\ncat\n","filename":"run.sh","input":[1]}`},
	"list-activations":    {query: "outcome=ok&limit=10&since=1h"},
	"get-activation":      {query: "wait=1"},
	"cancel-activation":   {},
	"get-result":          {query: "wait=1"},
	"list-queues":         {},
	"list-waiting":        {query: "function=pay&stage=queued&limit=10"},
	"get-queue":           {},
	"pause-queue":         {},
	"resume-queue":        {},
	"clear-queue":         {},
	"list-dead":           {query: "function=pay&limit=10"},
	"get-dead":            {},
	"redrive-dead":        {body: `{"id":"DEAD"}`},
	"purge-dead":          {body: `{"function":"pay"}`},
	"get-activation-logs": {},
	"list-subjects":       {},
	"get-subject":         {},
	"create-subject":      {body: `{"namespace":"NEW"}`, status: 201},
	"block-subject":       {body: `{"blocked":true}`},
	"delete-subject":      {query: "namespace=green"},
	"get-space-limits":    {},
	"put-space-limits":    {body: `{"fires_per_minute":3,"kinds":["nodejs:20"]}`},
	"list-trigger-kinds":  {},
	"preview-trigger":     {query: "count=3", body: `{"kind":"cron","config":{"schedule":"@daily"}}`},
	"list-triggers":       {},
	"get-trigger":         {},
	"create-trigger":      {body: `{"params":{"a":1}}`, status: 201},
	"put-sequence":        {body: `{"steps":["pay","pay"]}`},
	"put-trigger":         {body: `{"paused":true}`},
	"delete-trigger":      {},
	"fire-trigger":        {body: `{"n":1}`, status: 202},
	"web-hook":            {body: `{"n":1}`, status: 202},
	"list-rules":          {},
	"put-rule":            {body: `{"trigger":"events","function":"pay"}`},
	"delete-rule":         {},
	"logs":                {query: "limit=5"},
	"list-builds":         {},
	"build-log":           {},
	"call-get":            {}, "call-head": {}, "call-options": {}, "call-delete": {},
	"call-post": {body: "x"}, "call-put": {body: "x"}, "call-patch": {body: "x"},
}

// route is an operation of the document.
type route struct {
	method, path string
	op           *openapi3.Operation
}

func (r route) access() string {
	a, _ := r.op.Extensions["x-brasa-access"].(string)
	return a
}

func document(t *testing.T, d *gatewaytest.Door) (*openapi3.T, []route) {
	t.Helper()
	res, b := d.Do(d.Request(http.MethodGet, "/v1/openapi.json", "", nil))
	if res.StatusCode != http.StatusOK {
		t.Fatalf("the document is answered with %s", res.Status)
	}
	doc, err := openapi3.NewLoader().LoadFromData(b)
	if err != nil {
		t.Fatal(err)
	}
	var out []route
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			out = append(out, route{method, path, op})
		}
	}
	slices.SortFunc(out, func(a, b route) int { return strings.Compare(a.op.OperationID, b.op.OperationID) })
	return doc, out
}

func TestTheDocumentIsValid(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	doc, routes := document(t, d)
	if err := doc.Validate(t.Context()); err != nil {
		t.Error(err)
	}
	for _, r := range routes {
		if r.op.OperationID == "" || r.op.Summary == "" || len(r.op.Tags) == 0 {
			t.Errorf("%s %s has no id, summary or tag", r.method, r.path)
		}
		if r.access() == "" {
			t.Errorf("%s %s says nothing of who may use it", r.method, r.path)
		}
	}
	if len(routes) < 35 {
		t.Errorf("the document has %d operations; are some missing?", len(routes))
	}
}

// room is a namespace with one of each thing in it.
type room struct {
	namespace, key, keyID, revoked, activation, revision, build string
	waiting, answered, dead                                     string // calls whose caller does not wait
}

func furnish(t *testing.T, d *gatewaytest.Door, namespace string, public bool) room {
	t.Helper()
	r := room{namespace: namespace}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := d.Catalog.CreateNamespace(t.Context(), namespace)
	must(err)
	r.key = d.Key(namespace, false)
	revoked, info, err := d.Keys.Create(t.Context(), "", namespace, false)
	must(err)
	must(d.Keys.Revoke(t.Context(), namespace, info.ID))
	r.revoked = revoked
	_, info, err = d.Keys.Create(t.Context(), "", namespace, false)
	must(err)
	r.keyID = info.ID
	_, err = d.Catalog.PutSecret(t.Context(), namespace, "TOKEN", []byte("x"))
	must(err)
	fn := d.FunctionWith(namespace, "pay", public, nil, func(ctx context.Context, inv *faas.Invocation) (*faas.Result, error) {
		res, err := gatewaytest.Echo(ctx, inv)
		if body, ok := res.Body.(*faas.BytesBody); ok && err == nil && body.Len() == len("no") {
			return nil, faas.Errorf(faas.Invalid, "", "it is no") // which is not tried again
		}
		return res, err
	})
	r.revision = string(fn.Active)
	c, err := api.NewClient(d.URL, r.key)
	must(err)
	defer c.Close()
	reply, err := c.Invoke(t.Context(), namespace, "pay", api.CallOptions{}, strings.NewReader("1"))
	must(err)
	r.activation = string(reply.ID)
	for _, call := range []struct {
		input string
		id    *string
		wait  api.Wait
		want  faas.Stage
	}{
		{"1", &r.waiting, api.Wait{Delay: time.Hour}, faas.StageQueued},
		{"1", &r.answered, api.Wait{}, faas.StageSucceeded},
		{"no", &r.dead, api.Wait{}, faas.StageDead},
	} {
		accepted, err := c.Enqueue(t.Context(), namespace, "pay", api.CallOptions{}, call.wait, strings.NewReader(call.input))
		must(err)
		*call.id = string(accepted.ID)
		rec, err := c.Record(t.Context(), namespace, *call.id, map[bool]time.Duration{true: 20 * time.Second}[call.want != faas.StageQueued])
		must(err)
		if rec.Stage != call.want {
			t.Fatalf("a call that is to be %s is %s: %s", call.want, rec.Stage, rec.Last)
		}
	}
	_, err = c.PutTrigger(t.Context(), namespace, "events", api.TriggerSpec{}, false)
	must(err)
	_, err = c.PutTrigger(t.Context(), namespace, "hook", api.TriggerSpec{Kind: "webhook", Config: []byte(`{"scheme":"none"}`)}, false)
	must(err)
	_, err = c.PutRule(t.Context(), namespace, "to-pay", api.RuleSpec{Trigger: "events", Function: "pay"})
	must(err)
	for hook := (api.Trigger{}); hook.Status == nil || !hook.Status.Running; { // a source begins in its own time
		hook, err = c.Trigger(t.Context(), namespace, "hook")
		must(err)
	}
	ns, err := d.Catalog.Namespace(namespace)
	must(err)
	build := d.Builds.Begin(ns.UID, "pay")
	_, _ = build.Write([]byte("installing\n"))
	build.End(nil)
	r.build = string(build.ID())
	return r
}

// request makes the example of a route in a room.
func request(t *testing.T, d *gatewaytest.Door, r route, in room, key string) *http.Request {
	t.Helper()
	ex, ok := examples[r.op.OperationID]
	if !ok {
		t.Fatalf("%s %s (%s) has no example in this test; add one", r.method, r.path, r.op.OperationID)
	}
	activation := in.activation
	if r.op.OperationID == "cancel-activation" {
		activation = in.waiting
	}
	trigger := "events"
	if r.op.OperationID == "create-trigger" {
		trigger = "new"
	}
	path := strings.NewReplacer(
		"triggers/{name}", "triggers/"+trigger, "rules/{name}", "rules/to-pay", "hooks/{namespace}/{name}", "hooks/"+in.namespace+"/hook",
		"{subject}", "guest", "{space}", "green", "{namespace}", in.namespace, "{path}", "a/b", "keys/{id}", "keys/"+in.keyID, "activations/{id}/result", "activations/"+in.answered+"/result",
		"activations/{id}", "activations/"+activation, "dead-letters/{id}", "dead-letters/"+in.dead, "builds/{id}", "builds/"+in.build,
		"secrets/{name}", "secrets/TOKEN", "sequences/{name}", "sequences/twice", "{name}", "pay",
	).Replace(r.path)
	if ex.query != "" {
		path += "?" + ex.query
	}
	body, contentType := strings.NewReplacer("NEW", in.namespace+"-new", "REVISION", in.revision, "DEAD", in.dead).Replace(ex.body), "application/json"
	if ex.form != nil {
		var b bytes.Buffer
		m := multipart.NewWriter(&b)
		for _, name := range []string{"spec", "code", "input"} {
			v, ok := ex.form[name]
			if !ok {
				continue
			}
			h := textproto.MIMEHeader{"Content-Disposition": {`form-data; name="` + name + `"`}}
			if name == "code" {
				h.Set("Content-Disposition", `form-data; name="code"; filename="main.sh"`)
			}
			w, err := m.CreatePart(h)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(w, v)
		}
		_ = m.Close()
		body, contentType = b.String(), m.FormDataContentType()
	}
	req := d.Request(r.method, path, key, strings.NewReader(body))
	if body != "" {
		req.Header.Set("Content-Type", contentType)
	}
	return req
}

// check holds an answer to what the document says of the route.
func check(t *testing.T, r route, res *http.Response, body []byte) {
	t.Helper()
	described := r.op.Responses.Value(fmt.Sprint(res.StatusCode))
	if described == nil {
		described = r.op.Responses.Default()
	}
	if described == nil {
		t.Errorf("%s: status %d is not described", r.op.OperationID, res.StatusCode)
		return
	}
	if res.Header.Get(api.HeaderRequestID) == "" {
		t.Errorf("%s: the answer has no request id", r.op.OperationID)
	}
	if r.method == http.MethodHead || len(body) == 0 {
		return
	}
	media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	content := described.Value.Content.Get(media)
	if content == nil {
		t.Errorf("%s: content type %q of status %d is not described", r.op.OperationID, media, res.StatusCode)
		return
	}
	if content.Schema == nil || media != "application/json" {
		return
	}
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Errorf("%s: %v in %s", r.op.OperationID, err, body)
		return
	}
	if err := content.Schema.Value.VisitJSON(v, openapi3.MultiErrors()); err != nil {
		t.Errorf("%s: the answer with status %d does not fit the document: %v\n%s", r.op.OperationID, res.StatusCode, err, body)
	}
}

// TestEveryRouteKeepsItsRule asks every route of the document as everybody: what the rule allows
// succeeds, what it does not is refused and has no effect, and every answer fits the document.
func TestEveryRouteKeepsItsRule(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	_, routes := document(t, d)
	n := 0
	for _, public := range []bool{false, true} {
		for _, r := range routes {
			if public && r.access() != "function" {
				continue
			}
			n++
			in := furnish(t, d, fmt.Sprintf("room%d", n), public)
			for _, c := range []struct {
				who, key string
				want     int // 0: success
			}{
				{"nobody", "", expect(r, public, 401, 401)},
				{"a made-up key", "brasa_000000000000_" + strings.Repeat("0", 64), expect(r, public, 401, 401)},
				{"a revoked key", in.revoked, expect(r, public, 401, 401)},
				{"another namespace", d.Blue, expect(r, public, 404, 0)},
				{"the namespace", in.key, own(r)},
				{"the admin", d.Admin, 0},
			} {
				// A call that is queued anew fails anew, some time later, and is a dead letter only then.
				once := strings.HasPrefix(r.op.OperationID, "delete-") || r.op.OperationID == "create-trigger" || r.op.OperationID == "redrive-dead"
				if c.want == 0 && once && c.who == "the admin" && own(r) == 0 {
					continue // the namespace's own key has done it already
				}
				want := c.want
				if want == 0 {
					if want = examples[r.op.OperationID].status; want == 0 {
						want = 200
					}
				}
				if r.op.OperationID == "delete-namespace" && want == 200 { // only an empty one can be deleted
					if err := d.Catalog.Delete(t.Context(), faas.Name{Namespace: in.namespace, Function: "pay"}); err != nil {
						t.Fatal(err)
					}
				}
				res, body := d.Do(request(t, d, r, in, c.key))
				if res.StatusCode != want {
					t.Errorf("%s %s, rule %s, public %v, as %s: status %d, want %d: %s", r.method, r.path, r.access(), public, c.who, res.StatusCode, want, body)
				}
				if c.want != 0 && r.method != http.MethodHead {
					var refusal api.Refusal
					if err := json.Unmarshal(body, &refusal); err != nil || refusal.Fault == nil || refusal.OK {
						t.Errorf("%s as %s: the refusal is no envelope: %s", r.op.OperationID, c.who, body)
					}
				}
				check(t, r, res, body)
			}
		}
	}
}

// expect returns the status for somebody from outside; inNamespace is that for routes of a
// namespace, elsewhere that for the rest.
func expect(r route, public bool, inNamespace, elsewhere int) int {
	switch r.access() {
	case "open":
		return 0
	case "function":
		if public {
			return 0
		}
		return inNamespace
	case "namespace":
		return inNamespace
	case "key":
		return elsewhere
	case "admin":
		if strings.Contains(r.path, "{namespace}") {
			return inNamespace
		}
		if elsewhere == 0 {
			return 403
		}
		return elsewhere
	}
	return -1 // a rule that this test does not know
}

// own returns the status for a key of the namespace itself.
func own(r route) int {
	if r.access() == "admin" {
		return 403
	}
	return 0
}

// What is in another namespace and what is nowhere are refused in the same words.
func TestForeignAndAbsentLookTheSame(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	_, routes := document(t, d)
	in := furnish(t, d, "room", false)
	absent := in
	absent.namespace = "gone"
	for _, r := range routes {
		if !strings.Contains(r.path, "{namespace}") || r.method == http.MethodHead || r.access() == "open" {
			continue // what is open is there for whoever knows its name
		}
		for _, key := range []string{d.Blue, ""} {
			said := func(in room) string {
				res, body := d.Do(request(t, d, r, in, key))
				var refusal api.Refusal
				if err := json.Unmarshal(body, &refusal); err != nil {
					t.Fatalf("%s: %v in %s", r.op.OperationID, err, body)
				}
				return fmt.Sprint(res.StatusCode, " ", strings.ReplaceAll(refusal.Fault.Message+refusal.Fault.Hint, in.namespace, "NS"))
			}
			if foreign, none := said(in), said(absent); foreign != none {
				t.Errorf("%s: foreign %q, absent %q", r.op.OperationID, foreign, none)
			}
		}
	}
}

// A secret's value and a key's secret part appear in no answer and in no line of the log, whatever
// is asked and however wrongly.
func TestSecretsAreNeverShown(t *testing.T) {
	const canary = "canary-5bd1e995"
	d := gatewaytest.Open(t, gatewaytest.Options{})
	_, routes := document(t, d)
	var shown bytes.Buffer
	note := func(req *http.Request) {
		res, body := d.Do(req)
		_ = res.Header.Write(&shown)
		shown.Write(body)
	}
	// Once furnished a room gets the canary as its secret, and every route is asked.
	var keys []string
	for i, r := range routes {
		in := furnish(t, d, fmt.Sprintf("room%d", i), false)
		keys = append(keys, in.key)
		if _, err := d.Catalog.PutSecret(t.Context(), in.namespace, "TOKEN", []byte(canary)); err != nil {
			t.Fatal(err)
		}
		d.Does(in.namespace+"/pay", func(_ context.Context, inv *faas.Invocation) (*faas.Result, error) {
			b, err := json.Marshal(inv.Header)
			return &faas.Result{Status: 200, Body: faas.NewBytesBody(b)}, err
		})
		note(request(t, d, r, in, in.key))
	}
	in := furnish(t, d, "wrong", false)
	keys = append(keys, in.key)
	for _, body := range []string{
		`{"value":"` + canary + `"}`,
		`{"value":["` + canary + `"]}`,
		`{"value":"x","other":"` + canary + `"}`,
		`{"value":"` + canary + `"`,
		`{"value":"` + canary + `"} "` + canary + `"`,
		`"` + canary + `"`,
		`{"value":"` + canary + `","value":"` + canary + `"}`,
		`{"value":"` + canary + strings.Repeat("x", 70_000) + `"}`,
	} {
		req := d.Request(http.MethodPut, "/v1/namespaces/wrong/secrets/TOKEN", in.key, strings.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		note(req)
	}
	for _, header := range []string{"Bearer " + in.key + "x", "Basic " + in.key, in.key} {
		req := d.Request(http.MethodGet, "/v1/whoami", "", nil)
		req.Header.Set("Authorization", header)
		note(req)
	}
	all := shown.String() + d.Logs.String()
	if strings.Contains(all, canary) {
		t.Errorf("the secret is shown: %s", around(all, canary))
	}
	for _, k := range keys {
		if secret := k[len(k)-64:]; strings.Contains(all, secret) {
			t.Errorf("a key is shown: %s", around(all, secret))
		}
	}
}

func around(all, s string) string {
	i := strings.Index(all, s)
	return all[max(0, i-300):min(len(all), i+len(s)+100)]
}
