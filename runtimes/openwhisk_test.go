package runtimes_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// container is a server of an image that speaks /init and /run.
type container struct {
	*runtimes.Action
	said map[string]map[string]any // by path, the last message
}

func newContainer(t *testing.T, answers map[string]func() (int, string)) *container {
	t.Helper()
	c := &container{said: map[string]map[string]any{}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var m map[string]any
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			t.Error(err)
		}
		c.said[r.URL.Path] = m
		status, body := 200, `{}`
		if f := answers[r.URL.Path]; f != nil {
			status, body = f()
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	rev := &faas.Revision{
		Name: faas.Name{Namespace: "guest", Package: "p", Function: "f"}, Runtime: runtimes.OpenWhisk, Contract: faas.ContractOpenWhisk,
		Image: &faas.Image{}, Limits: faas.Limits{Response: faas.KiB}.Fill(faas.DefaultLimits()),
	}
	c.Action = runtimes.NewAction(runtimes.ActionConfig{Revision: rev, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", server.Listener.Addr().String())
	}})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func always(status int, body string) map[string]func() (int, string) {
	return map[string]func() (int, string){"/run": func() (int, string) { return status, body }}
}

func (c *container) run(t *testing.T, input string) (int, string, error) {
	t.Helper()
	now := time.Now()
	inv := &faas.Invocation{
		ID: faas.NewID(now), Kind: faas.KindInvoke, Body: strings.NewReader(input), Length: int64(len(input)), Owner: "caller",
		Deadline: now.Add(time.Minute), Env: map[string]string{"__OW_API_KEY": "key", "__OW_ACTION_VERSION": "0.0.4", "OTHER": "x"},
	}
	res, err := c.RoundTrip(t.Context(), inv, nil)
	if err != nil {
		return 0, "", err
	}
	b, err := io.ReadAll(res.Body)
	return res.Status, string(b), err
}

func TestAnActionOfAnImageIsToldOfItsCall(t *testing.T) {
	c := newContainer(t, nil)
	exited := make(chan struct{})
	if err := c.Init(t.Context(), runtimes.ActionCode{Code: "text", Env: map[string]string{"A": "b"}}, exited); err != nil {
		t.Fatal(err)
	}
	if v := c.said["/init"]["value"].(map[string]any); v["code"] != "text" || v["main"] != "main" || v["env"].(map[string]any)["A"] != "b" || v["name"] != "f" || v["binary"] != false {
		t.Errorf("/init got %v", v)
	}
	if status, body, err := c.run(t, `{"n":1.5}`); err != nil || status != 200 || body != `{}` {
		t.Errorf("answer %d %s, %v", status, body, err)
	}
	m := c.said["/run"]
	for k, want := range map[string]any{"namespace": "caller", "action_name": "/guest/p/f", "action_version": "0.0.4", "api_key": "key"} {
		if m[k] != want {
			t.Errorf("%s is %v, want %v", k, m[k], want)
		}
	}
	for _, k := range []string{"activation_id", "transaction_id", "deadline"} {
		if s, ok := m[k].(string); !ok || s == "" {
			t.Errorf("%s is %v, want text", k, m[k])
		}
	}
	if ms, err := strconv.ParseInt(m["deadline"].(string), 10, 64); err != nil || ms < time.Now().UnixMilli() || ms > time.Now().Add(time.Hour).UnixMilli() {
		t.Errorf("deadline is %v, want milliseconds since 1970", m["deadline"])
	}
	if v := m["value"].(map[string]any); v["n"] != 1.5 || m["OTHER"] != nil || m["other"] != nil {
		t.Errorf("/run got %v", m)
	}
	if _, _, err := c.run(t, `[1,2]`); err != nil || len(c.said["/run"]["value"].([]any)) != 2 {
		t.Errorf("a list came as %v, %v", c.said["/run"]["value"], err)
	}
}

func TestAnswersOfAnActionOfAnImage(t *testing.T) {
	for name, c := range map[string]struct {
		status    int
		body      string
		want      int // 0: it fails
		text, not string
	}{
		"an object":         {200, ` {"a":1} `, 200, `{"a":1}`, ""},
		"a list":            {200, `[1]`, 200, `[1]`, ""},
		"its own error":     {200, `{"error":{"x":1}}`, 502, `{"error":{"x":1}}`, ""},
		"an error, null":    {200, `{"error":null}`, 502, `{"error":null}`, ""},
		"a defect":          {502, `{"error":"it threw"}`, 0, "it threw", ""},
		"a status alone":    {500, ``, 0, "status 500", ""},
		"text":              {200, `"text"`, 0, "did not return a dictionary or array", ""},
		"no JSON":           {200, `{"a":`, 0, "did not return a dictionary or array", ""},
		"nothing":           {200, ``, 0, "did not return a dictionary or array", ""},
		"more than allowed": {200, `{"text":"` + strings.Repeat("é", 2000) + `"}`, 502, "4011 bytes are more than the 1024", "\ufffd"},
	} {
		status, body, err := newContainer(t, always(c.status, c.body)).run(t, `{}`)
		switch {
		case c.want == 0 && (faas.CodeOf(err) != faas.Failed || !strings.Contains(err.Error(), c.text)):
			t.Errorf("%s: %d %s, %v; want a failure with %q", name, status, body, err, c.text)
		case c.want != 0 && (err != nil || status != c.want || !strings.Contains(body, c.text)):
			t.Errorf("%s: %d %s, %v; want %d %s", name, status, body, err, c.want, c.text)
		case c.not != "" && strings.Contains(body, c.not):
			t.Errorf("%s: %q has a character that was cut", name, body)
		}
	}
}

func TestAnActionOfAnImageThatRefusesItsCode(t *testing.T) {
	c := newContainer(t, map[string]func() (int, string){"/init": func() (int, string) { return 502, `{"error":"The action can not be compiled."}` }})
	err := c.Init(t.Context(), runtimes.ActionCode{Code: "text"}, make(chan struct{}))
	if e := faas.AsError(err); e == nil || e.Code != faas.Failed || e.Message() != "The action can not be compiled." {
		t.Errorf("error %v, want the image's own", err)
	}
}

// Whoever calls an action is told what went wrong in words that say whether it was loaded.
func TestErrorsOfActions(t *testing.T) {
	oom := faas.Errorf(faas.Crashed, "", "killed").WithLimit("memory_bytes")
	heap := faas.Errorf(faas.Crashed, "", "the process was killed by SIGABRT")
	heap.Trace = "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory"
	for _, c := range []struct {
		err     *faas.Error
		loading bool
		want    string
	}{
		{faas.Errorf(faas.Timeout, "", "x"), true, "initialize action: the action exceeded its time limit of 1500 milliseconds during initialization"},
		{faas.Errorf(faas.Timeout, "", "x"), false, "run action: the action exceeded its time limit of 1500 milliseconds"},
		{faas.Errorf(faas.Crashed, "", "the process exited with code 3"), true, "initialize action: the action did not initialize: the process exited with code 3"},
		{faas.Errorf(faas.Crashed, "", "the process exited with code 3"), false, "run action: the action gave no valid response: the process exited with code 3"},
		{oom, false, "run action: the action exhausted its memory of 256 MB and was aborted"},
		{heap, false, "run action: the action exhausted its memory of 256 MB and was aborted"},
		{faas.Errorf(faas.Failed, "", "SyntaxError"), true, "initialize action: the action failed during initialization: SyntaxError"},
		{faas.Errorf(faas.Failed, "", "TypeError: x"), false, "run action: TypeError: x"},
		{faas.Errorf(faas.Overloaded, "wait", "no place"), true, "wait: no place"},
		{faas.Errorf(faas.Internal, "x", "defect"), false, "x: defect"},
	} {
		got := runtimes.ActionError(c.err, c.loading, 1500*time.Millisecond, 256*faas.MiB)
		if got.Error() != c.want || faas.CodeOf(got) != c.err.Code {
			t.Errorf("%v became %q (%v), want %q", c.err, got, faas.CodeOf(got), c.want)
		}
	}
	if runtimes.ActionError(nil, true, 0, 0) != nil {
		t.Error("no error became one")
	}
}
