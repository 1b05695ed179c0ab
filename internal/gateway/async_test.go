package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/dispatch"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/gateway/gatewaytest"
	"github.com/brasa-dev/brasa/internal/queue"
)

const payInvoke = "/v1/namespaces/green/functions/pay/invoke"

// leave sends a call whose caller does not wait.
func leave(d *gatewaytest.Door, path, key, body string, header ...string) (*http.Response, []byte) {
	r := d.Request(http.MethodPost, path, key, strings.NewReader(body))
	r.Header.Set("Prefer", "respond-async")
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return d.Do(r)
}

func accepted(t *testing.T, res *http.Response, body []byte) api.Accepted {
	t.Helper()
	var a api.Answer[api.Accepted]
	if err := json.Unmarshal(body, &a); err != nil || res.StatusCode != http.StatusAccepted || !a.OK {
		t.Fatalf("%s: %s", res.Status, body)
	}
	return a.Data
}

func faultOf(t *testing.T, body []byte) api.Fault {
	t.Helper()
	var r api.Refusal
	if err := json.Unmarshal(body, &r); err != nil || r.Fault == nil {
		t.Fatalf("no envelope: %s", body)
	}
	return *r.Fault
}

func recordOf(t *testing.T, d *gatewaytest.Door, id faas.ID, wait int) api.Record {
	t.Helper()
	res, body := d.Do(d.Request(http.MethodGet, fmt.Sprintf("/v1/namespaces/green/activations/%s?wait=%d", id, wait), d.Green, nil))
	var a api.Answer[api.Record]
	if err := json.Unmarshal(body, &a); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", res.Status, body)
	}
	return a.Data
}

func TestACallThatNobodyWaitsForIsAcceptedAndAnsweredLater(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	d.Function("green", "pay", false, func(_ context.Context, inv *faas.Invocation) (*faas.Result, error) {
		if inv.Header["Prefer"] != nil {
			t.Errorf("the function sees %q", inv.Header["Prefer"])
		}
		b, _ := io.ReadAll(inv.Body)
		return &faas.Result{Status: http.StatusCreated, Header: map[string][]string{"Content-Type": {"text/x-poem"}}, Body: faas.NewBytesBody(append([]byte("got "), b...))}, nil
	})
	for _, path := range []string{payInvoke, "/f/green/pay/a?b=c"} {
		res, body := leave(d, path, d.Green, "1")
		a := accepted(t, res, body)
		if a.ID == "" || a.Repeated || a.Stage != faas.StageQueued || res.Header.Get("Location") != a.Location ||
			res.Header.Get("Preference-Applied") != "respond-async" || res.Header.Get(api.HeaderInvocationID) != string(a.ID) || res.Header.Get(api.HeaderOutcome) != "" {
			t.Errorf("%s: %+v, %v", path, a, res.Header)
		}
		rec := recordOf(t, d, a.ID, 20)
		if rec.Stage != faas.StageSucceeded || rec.Attempt != 1 || rec.Activation == nil || rec.Outcome != faas.OK {
			t.Errorf("%s: %+v", path, rec)
		}
		res, body = d.Do(d.Request(http.MethodGet, strings.TrimPrefix(a.Location, d.URL)+"/result", d.Green, nil))
		if res.StatusCode != http.StatusCreated || string(body) != "got 1" || res.Header.Get("Content-Type") != "text/x-poem" || res.Header.Get(api.HeaderOutcome) != "ok" {
			t.Errorf("%s: the result is %s %v %s", path, res.Status, res.Header, body)
		}
	}
	// A caller who is willing to wait a little gets the answer if it comes in time.
	res, body := leave(d, payInvoke+"?raw", d.Green, "2", "Prefer", "wait=20")
	if res.StatusCode != http.StatusCreated || string(body) != "got 2" || res.Header.Get("Preference-Applied") != "respond-async, wait=20" {
		t.Errorf("%s %v %s", res.Status, res.Header, body)
	}
	res, body = leave(d, payInvoke, d.Green, "2", "Prefer", "wait=20")
	if res.StatusCode != http.StatusOK || !bytes.Contains(body, []byte(`"result":"got 2"`)) {
		t.Errorf("%s %s", res.Status, body)
	}
	// Whoever waits gets what he always got.
	res, body = d.Do(d.Request(http.MethodPost, payInvoke, d.Green, strings.NewReader("3")))
	if res.StatusCode != http.StatusOK || !bytes.Contains(body, []byte(`"result":"got 3"`)) {
		t.Errorf("%s %s", res.Status, body)
	}
	id := faas.ID(res.Header.Get(api.HeaderInvocationID))
	if rec := recordOf(t, d, id, 0); rec.Stage != "" {
		t.Errorf("a call whose caller waited is %s", rec.Stage)
	}
}

// What is refused has not happened: nothing is queued, and the error names what is wrong.
func TestWhatCannotWaitIsRefusedBeforeItIsAccepted(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	d.Function("green", "pay", false, gatewaytest.Echo)
	many := strings.Repeat("x", int(queue.MaxBody)+1)
	for _, c := range []struct {
		what, path, body string
		header           []string
		status           int
		want             string // in message or limit
	}{
		{"a function that is not there", "/v1/namespaces/green/functions/none/invoke", "", nil, 404, "none"},
		{"its own URL", "/f/green/none/", "", nil, 404, "none"},
		{"another namespace", "/v1/namespaces/blue/functions/pay/invoke", "", nil, 404, "blue"},
		{"a body over the function's limit", payInvoke, many, nil, 413, "request_bytes"},
		{"a priority", payInvoke + "?priority=urgent", "", nil, 400, "priority"},
		{"a priority in a header", payInvoke, "", []string{"Brasa-Priority", "urgent"}, 400, "priority"},
		{"a word twice", payInvoke + "?order=a", "", []string{"Brasa-Order", "b"}, 400, "order"},
		{"an empty word", payInvoke + "?order=", "", nil, 400, "order"},
		{"a word that is not there", payInvoke + "?prioritty=high", "", nil, 400, "prioritty"},
		{"a header that is not there", payInvoke, "", []string{"Brasa-Prioritty", "high"}, 400, "Brasa-Prioritty"},
		{"a time", payInvoke + "?not_before=tomorrow", "", nil, 400, "not_before"},
		{"a time in ten years", payInvoke + "?not_before=2099-01-01T00:00:00Z", "", nil, 400, "not_before"},
		{"a delay", payInvoke + "?delay=soon", "", nil, 400, "delay"},
		{"a delay into the past", payInvoke + "?delay=-1s", "", nil, 400, "delay"},
		{"both", payInvoke + "?delay=1s&not_before=2026-01-01T00:00:00Z", "", nil, 400, "not_before and delay"},
		{"a key without an end", payInvoke, "", []string{"Idempotency-Key", `"abc`}, 400, "key"},
		{"a key that goes on", payInvoke, "", []string{"Idempotency-Key", `"abc"; x`}, 400, "key"},
		{"two keys in one", payInvoke, "", []string{"Idempotency-Key", `abc, def`}, 400, "key"},
		{"two keys", payInvoke, "", []string{"Idempotency-Key", `abc`, "Idempotency-Key", "def"}, 400, "key"},
		{"a key too long", payInvoke, "", []string{"Idempotency-Key", strings.Repeat("k", 256)}, 400, "key"},
		{"a stranger's key", payInvoke, "", []string{"Idempotency-Key", "public:x"}, 400, "key"},
		{"a destination that is not there", payInvoke + "?on_success=nobody", "", nil, 400, "on_success"},
		{"a destination of another form", payInvoke + "?on_failure=ftp://example.com", "", nil, 400, "on_failure"},
		{"a private address", payInvoke + "?on_success=http://127.0.0.1:9/", "", nil, 400, "on_success"},
		{"a private address of six", payInvoke + "?on_success=http://[::1]:9/", "", nil, 400, "on_success"},
		{"the cloud's own", payInvoke + "?on_failure=http://169.254.169.254/latest", "", nil, 400, "on_failure"},
		{"this machine's name", payInvoke + "?on_failure=http://localhost/", "", nil, 400, "on_failure"},
		{"a step that is not there", payInvoke + "?then=pay,nobody", "", nil, 400, "then"},
		{"a step that is no function", payInvoke + "?then=https://example.com/", "", nil, 400, "then"},
		{"an upgrade", "/f/green/pay/", "", []string{"Connection", "Upgrade", "Upgrade", "websocket"}, 400, "protocol"},
		{"a revision that is not there", payInvoke + "?revision=ffffffff", "", nil, 404, "revision"},
	} {
		res, body := leave(d, c.path, d.Green, c.body, c.header...)
		f := faultOf(t, body)
		if res.StatusCode != c.status || !strings.Contains(f.Message+" "+f.Limit, c.want) {
			t.Errorf("%s: %s %+v; want %d and %q", c.what, res.Status, f, c.status, c.want)
		}
	}
	// And of a call whose caller waits nothing is taken that it could not follow.
	for _, c := range [][2]string{{payInvoke + "?delay=1s", ""}, {payInvoke + "?key=k", ""}, {payInvoke, "Brasa-Order"}, {"/f/green/pay/", "Brasa-Delay"}} {
		r := d.Request(http.MethodPost, c[0], d.Green, nil)
		if c[1] != "" {
			r.Header.Set(c[1], "1s")
		}
		if res, body := d.Do(r); res.StatusCode != http.StatusBadRequest || !strings.Contains(faultOf(t, body).Hint, "respond-async") {
			t.Errorf("%v of a caller who waits: %s %s", c, res.Status, body)
		}
	}
	if depths, err := d.Queue.Depths(t.Context(), "green"); err != nil || len(depths) > 0 {
		t.Errorf("in the queue are %+v, %v", depths, err)
	}
}

func TestAPolicyThatCallsInsideIsNotDeployed(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	for _, c := range []struct {
		async string
		want  string
	}{
		{`{"on_failure":"http://10.0.0.1/"}`, "async.on_failure"},
		{`{"on_success":"https://localhost/"}`, "async.on_success"},
		{`{"on_success":"ftp://example.com/"}`, "async.on_success"},
		{`{"retries":-1}`, "async.retries"},
		{`{"retrys":1}`, "retrys"},
	} {
		r := d.Request(http.MethodPut, "/v1/namespaces/green/functions/f", d.Green, strings.NewReader(`{"filename":"f.sh","language":"exec","code":"#!/bin/sh\ncat\n","async":`+c.async+`}`))
		r.Header.Set("Content-Type", "application/json")
		res, body := d.Do(r)
		if f := faultOf(t, body); res.StatusCode != http.StatusBadRequest || !strings.Contains(f.Message, c.want) {
			t.Errorf("%s: %s %+v, want 400 and %q", c.async, res.Status, f, c.want)
		}
	}
}

func TestAFunctionsOwnLimitIsNamedBeforeTheQueues(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	d.Function("green", "pay", false, gatewaytest.Echo)
	// Without a length, which is known at the end only.
	r := d.Request(http.MethodPost, payInvoke, d.Green, io.LimitReader(neverEnding('x'), int64(queue.MaxBody)+2))
	r.Header.Set("Prefer", "respond-async")
	res, body := d.Do(r)
	if f := faultOf(t, body); res.StatusCode != http.StatusRequestEntityTooLarge || f.Limit == "" {
		t.Errorf("%s %+v", res.Status, f)
	}
}

type neverEnding byte

func (b neverEnding) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}

func TestAQueueThatIsFullSaysWhenToComeAgain(t *testing.T) {
	full := fullQueue{Queue: queue.Memory()}
	d := gatewaytest.Open(t, gatewaytest.Options{Dispatch: func(c *dispatch.Config) { c.Queue = full }})
	d.Function("green", "pay", false, gatewaytest.Echo)
	res, body := leave(d, payInvoke, d.Green, "1")
	if f := faultOf(t, body); res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") == "" || f.Limit != "queue_bytes" {
		t.Errorf("%s, Retry-After %q, %+v", res.Status, res.Header.Get("Retry-After"), f)
	}
}

type fullQueue struct{ queue.Queue }

func (fullQueue) Push(context.Context, *faas.Invocation) (faas.ID, error) {
	return "", faas.Errorf(faas.Overloaded, "queue invocation", "the queue is full").WithLimit("queue_bytes")
}

func TestAKeyMakesRequestsOne(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	d.Function("green", "pay", false, gatewaytest.Echo)
	first := accepted2(t, d, "Idempotency-Key", `"a\"b"`)
	for _, h := range [][]string{{"Idempotency-Key", `"a\"b"`}, {"Idempotency-Key", ` "a\"b" `}} {
		if again := accepted2(t, d, h...); again.ID != first.ID || !again.Repeated {
			t.Errorf("%q: %+v; the first was %s", h, again, first.ID)
		}
	}
	bare := accepted2(t, d, "Idempotency-Key", `x-1`)
	if quoted := accepted2(t, d, "Idempotency-Key", `"x-1"`); quoted.ID != bare.ID || bare.ID == first.ID {
		t.Errorf("bare %s, quoted %s, another %s", bare.ID, quoted.ID, first.ID)
	}
}

func accepted2(t *testing.T, d *gatewaytest.Door, header ...string) api.Accepted {
	t.Helper()
	res, body := leave(d, payInvoke, d.Green, "1", header...)
	return accepted(t, res, body)
}

// A public function's URL takes calls of strangers that wait only if its owner says so, and strangers
// steer nothing.
func TestStrangersLeaveCallsOnlyWhereTheOwnerAllowsIt(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	d.Function("green", "pay", true, gatewaytest.Echo)
	d.FunctionWith("green", "open", true, &faas.Async{Public: true}, gatewaytest.Echo)
	d.FunctionWith("green", "shut", false, &faas.Async{Public: true}, gatewaytest.Echo)
	for _, c := range []struct {
		path, key string
		header    []string
		status    int
	}{
		{"/f/green/pay/", "", nil, 401},
		{"/f/green/pay/", d.Blue, nil, 403},
		{"/f/green/pay/", d.Green, nil, 202},
		{"/f/green/shut/", "", nil, 401},
		{"/f/green/open/", "", nil, 202},
		{"/f/green/open/", d.Blue, nil, 202},
		{"/f/green/open/", "", []string{"Idempotency-Key", "k"}, 202},
		{"/f/green/open/", "", []string{"Brasa-Priority", "high"}, 401},
		{"/f/green/open/", "", []string{"Brasa-Order", "o"}, 401},
		{"/f/green/open/", "", []string{"Brasa-Delay", "1h"}, 401},
		{"/f/green/open/", "", []string{"Brasa-On-Success", "pay"}, 401},
		{"/f/green/open/", d.Blue, []string{"Brasa-On-Failure", "pay"}, 403},
		{"/f/green/open/", "", []string{"Brasa-Then", "pay"}, 401},
	} {
		if res, body := leave(d, c.path, c.key, "1", c.header...); res.StatusCode != c.status {
			t.Errorf("%s %q: %s, want %d: %s", c.path, c.header, res.Status, c.status, body)
		}
	}
	// A stranger's key is not the owner's.
	res, body := leave(d, "/f/green/open/", "", "1", "Idempotency-Key", "order-1")
	stranger := accepted(t, res, body)
	res, body = leave(d, "/f/green/open/", d.Green, "1", "Idempotency-Key", "order-1")
	if owner := accepted(t, res, body); owner.ID == stranger.ID || owner.Repeated {
		t.Error("a stranger took the key of an owner's call")
	}
	if res, _ := d.Do(d.Request(http.MethodGet, strings.TrimPrefix(stranger.Location, d.URL), "", nil)); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("a stranger who asks what became of it: %s", res.Status)
	}
}

func TestCallsAreCanceledInTheQueueAndWhileTheyRun(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	begun, told := make(chan struct{}), make(chan struct{})
	d.Function("green", "pay", false, func(ctx context.Context, _ *faas.Invocation) (*faas.Result, error) {
		close(begun)
		<-ctx.Done()
		close(told)
		return nil, faas.AsError(context.Cause(ctx))
	})
	cancel := func(id faas.ID) (*http.Response, []byte) {
		return d.Do(d.Request(http.MethodDelete, "/v1/namespaces/green/activations/"+string(id), d.Green, nil))
	}
	waits := accepted2(t, d, "Brasa-Delay", "1h")
	if rec := recordOf(t, d, waits.ID, 0); rec.Stage != faas.StageQueued || rec.Activation != nil || !rec.Due.After(time.Now()) || waits.Due.IsZero() {
		t.Errorf("%+v", rec)
	}
	if res, body := d.Do(d.Request(http.MethodGet, "/v1/namespaces/green/activations/"+string(waits.ID)+"/result", d.Green, nil)); res.StatusCode != http.StatusConflict {
		t.Errorf("the result of a call that waits: %s %s", res.Status, body)
	}
	runs := accepted2(t, d)
	<-begun
	for _, id := range []faas.ID{waits.ID, runs.ID} {
		res, body := cancel(id)
		var a api.Answer[api.Record]
		if err := json.Unmarshal(body, &a); err != nil || res.StatusCode != http.StatusOK || a.Data.Stage != faas.StageCanceled {
			t.Errorf("%s %s", res.Status, body)
		}
	}
	<-told // or the test hangs: the function was not told
	d.Does("green/pay", gatewaytest.Echo)
	done := accepted2(t, d)
	if rec := recordOf(t, d, done.ID, 20); rec.Stage != faas.StageSucceeded {
		t.Fatalf("%+v", rec)
	}
	if res, _ := cancel(done.ID); res.StatusCode != http.StatusConflict {
		t.Errorf("cancel of what has ended: %s", res.Status)
	}
	if res, _ := cancel(faas.NewID(time.Now())); res.StatusCode != http.StatusNotFound {
		t.Errorf("cancel of nothing: %s", res.Status)
	}
}

func TestDeadLettersAreListedShownAndSentAgain(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	none := 0
	broken := func(context.Context, *faas.Invocation) (*faas.Result, error) {
		return nil, faas.Errorf(faas.Failed, "", "out of ink")
	}
	d.FunctionWith("green", "pay", false, &faas.Async{Retries: &none}, broken)
	var ids []faas.ID
	for i := range 3 {
		res, body := leave(d, payInvoke, d.Green, fmt.Sprintf(`{"n":%d}`, i), "Content-Type", "application/json", "Cookie", "session=s3cret")
		id := accepted(t, res, body).ID
		if rec := recordOf(t, d, id, 20); rec.Stage != faas.StageDead {
			t.Fatalf("%+v", rec)
		}
		ids = append(ids, id)
	}
	c, err := api.NewClient(d.URL, d.Green)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var seen []faas.ID
	for page := (api.Page{Limit: 2}); ; {
		got, err := c.DeadLetters(t.Context(), "green", page)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range got.Letters {
			seen = append(seen, l.ID)
		}
		if page.Cursor = got.Cursor; page.Cursor == "" {
			break
		}
	}
	if fmt.Sprint(seen) != fmt.Sprint(ids) {
		t.Errorf("pages list %v, want %v", seen, ids)
	}
	letter, err := c.DeadLetter(t.Context(), "green", string(ids[1]))
	if err != nil || string(letter.Body) != `{"n":1}` || !strings.Contains(letter.Why, "out of ink") || letter.Attempt != 1 || fmt.Sprint(letter.Header["Cookie"]) != "[(hidden)]" {
		t.Errorf("%+v, %v", letter, err)
	}
	if _, err := c.Result(t.Context(), "green", string(ids[0])); faas.CodeOf(err) != faas.Failed || !strings.Contains(err.Error(), "out of ink") {
		t.Errorf("the result of one that failed: %v", err)
	}
	d.Does("green/pay", gatewaytest.Echo)
	for _, spec := range []api.DeadSpec{{}, {All: true, Function: "pay"}} {
		if _, err := c.Redrive(t.Context(), "green", spec); faas.CodeOf(err) != faas.Invalid {
			t.Errorf("redrive of %+v: %v", spec, err)
		}
	}
	if n, err := c.Redrive(t.Context(), "green", api.DeadSpec{ID: string(ids[0])}); n != 1 || err != nil {
		t.Errorf("redrive: %d, %v", n, err)
	}
	if rec := recordOf(t, d, ids[0], 20); rec.Stage != faas.StageSucceeded {
		t.Errorf("after the redrive: %+v", rec)
	}
	if _, err := c.Redrive(t.Context(), "green", api.DeadSpec{ID: string(ids[0])}); faas.CodeOf(err) != faas.NotFound {
		t.Errorf("redrive of what is not dead: %v", err)
	}
	if n, err := c.Purge(t.Context(), "green", api.DeadSpec{Function: "pay"}); n != 2 || err != nil {
		t.Errorf("purge: %d, %v", n, err)
	}
}
