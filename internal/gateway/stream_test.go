package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/gateway/gatewaytest"
)

// nothing is for results whose closing does not matter.
func nothing() {}

// both are the two ways by which a function's own bytes come to a caller.
var both = map[string]string{"by name": "/v1/namespaces/green/functions/talk/invoke?raw=true", "by URL": "/f/green/talk"}

func TestEachPieceArrivesBeforeTheNextIsWritten(t *testing.T) {
	for how, path := range both {
		t.Run(how, func(t *testing.T) {
			d := gatewaytest.Open(t, gatewaytest.Options{})
			r, w := io.Pipe()
			d.Function("green", "talk", false, func(context.Context, *faas.Invocation) (*faas.Result, error) {
				return gatewaytest.Streamed(map[string][]string{"Content-Type": {"text/event-stream"}}, r, nothing), nil
			})
			res, err := http.DefaultClient.Do(d.Request(http.MethodPost, path, d.Green, nil))
			if err != nil { // the head came although nothing was written
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			lines := bufio.NewReader(res.Body)
			for _, s := range []string{"data: 1\n", "data: 2\n", "data: 3\n"} {
				if _, err := io.WriteString(w, s); err != nil {
					t.Fatal(err)
				}
				// This read ends only because the piece was sent on: the function writes no more
				// before it.
				if got, err := lines.ReadString('\n'); got != s || err != nil {
					t.Fatalf("got %q, %v, want %q", got, err, s)
				}
			}
			_ = w.Close()
			if rest, err := io.ReadAll(lines); len(rest) > 0 || err != nil {
				t.Errorf("the end is %q, %v", rest, err)
			}
		})
	}
}

func TestAConversationGoesBothWays(t *testing.T) {
	for how, path := range both {
		t.Run(how, func(t *testing.T) {
			d := gatewaytest.Open(t, gatewaytest.Options{})
			d.Function("green", "talk", false, func(_ context.Context, inv *faas.Invocation) (*faas.Result, error) {
				return gatewaytest.Streamed(nil, inv.Body, nothing), nil // says each piece as it hears it
			})
			r, w := io.Pipe()
			res, err := http.DefaultClient.Do(d.Request(http.MethodPost, path, d.Green, r))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			lines := bufio.NewReader(res.Body)
			for _, s := range []string{"one\n", "two\n"} {
				if _, err := io.WriteString(w, s); err != nil {
					t.Fatal(err)
				}
				if got, err := lines.ReadString('\n'); got != s || err != nil {
					t.Fatalf("got %q, %v, want %q", got, err, s)
				}
			}
			_ = w.Close()
			if rest, err := io.ReadAll(lines); len(rest) > 0 || err != nil {
				t.Errorf("the end is %q, %v", rest, err)
			}
		})
	}
}

// A caller that goes away while it waits, or in the middle of an answer, ends the call.
func TestACallerThatGoesAwayFreesItsSlot(t *testing.T) {
	for how, path := range map[string]string{
		"by name": "/v1/namespaces/green/functions/talk/invoke", "raw": both["by name"], "by URL": both["by URL"],
	} {
		t.Run(how+" while it waits", func(t *testing.T) {
			d := gatewaytest.Open(t, gatewaytest.Options{})
			running, over := make(chan struct{}), make(chan error, 1)
			d.Function("green", "talk", false, func(ctx context.Context, _ *faas.Invocation) (*faas.Result, error) {
				close(running)
				<-ctx.Done()
				over <- ctx.Err()
				return nil, faas.AsError(ctx.Err())
			})
			ctx, cancel := context.WithCancel(t.Context())
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				res, err := http.DefaultClient.Do(d.Request(http.MethodPost, path, d.Green, strings.NewReader("x")).WithContext(ctx))
				if err == nil {
					_ = res.Body.Close()
				}
			}()
			<-running
			cancel()
			<-gone
			if err := <-over; !errors.Is(err, context.Canceled) {
				t.Errorf("the call ended with %v", err)
			}
		})
		t.Run(how+" in the middle", func(t *testing.T) {
			d := gatewaytest.Open(t, gatewaytest.Options{})
			r, w := io.Pipe()
			closed := make(chan struct{})
			d.Function("green", "talk", false, func(context.Context, *faas.Invocation) (*faas.Result, error) {
				return gatewaytest.Streamed(nil, r, func() { _ = r.Close(); close(closed) }), nil
			})
			ctx, cancel := context.WithCancel(t.Context())
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				res, err := http.DefaultClient.Do(d.Request(http.MethodPost, path, d.Green, nil).WithContext(ctx))
				if err == nil {
					_, _ = io.Copy(io.Discard, res.Body)
					_ = res.Body.Close()
				}
			}()
			if _, err := io.WriteString(w, "a piece"); err != nil {
				t.Fatal(err)
			}
			cancel()
			<-gone
			for {
				if _, err := io.WriteString(w, strings.Repeat("x", 1<<16)); err != nil {
					break // closed at the other end
				}
			}
			<-closed
		})
	}
}

func TestAnAnswerThatBreaksOffCannotBeTakenForWhole(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	d.Function("green", "talk", false, func(context.Context, *faas.Invocation) (*faas.Result, error) {
		body := io.MultiReader(strings.NewReader("half"), failing{faas.Errorf(faas.Crashed, "read answer", "the process died")})
		return gatewaytest.Streamed(nil, body, nothing), nil
	})
	for how, path := range both {
		res, err := http.DefaultClient.Do(d.Request(http.MethodPost, path, d.Green, nil))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err == nil {
			t.Errorf("%s: %q was taken for a whole answer", how, b)
		}
	}
	c := client(t, d, d.Green)
	_, err := c.Invoke(t.Context(), "green", "talk", api.CallOptions{}, nil)
	if faas.CodeOf(err) != faas.Crashed {
		t.Errorf("in the envelope: %v, want crashed", err)
	}
	s, err := c.InvokeRaw(t.Context(), "green", "talk", api.CallOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if _, err := io.ReadAll(s); faas.CodeOf(err) != faas.Failed {
		t.Errorf("through the client: %v, want failed", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func client(t *testing.T, d *gatewaytest.Door, key string) *api.Client {
	t.Helper()
	c, err := api.NewClient(d.URL, key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// chat is a function that accepts any WebSocket and echoes its messages.
type chat struct {
	io.Reader
	io.Writer
	io.Closer
}

func echoWebSocket(_ context.Context, inv *faas.Invocation) (*faas.Result, error) {
	if inv.Header["Upgrade"] == nil {
		return nil, faas.Errorf(faas.Failed, "upgrade", "no upgrade was asked for")
	}
	// A real WebSocket server behind a pipe stands in for the function's process.
	near, far := newPipe()
	go serveWebSocket(far, inv.Header)
	head, err := http.ReadResponse(bufio.NewReader(near), nil)
	if err != nil {
		return nil, faas.AsError(err)
	}
	return &faas.Result{Status: head.StatusCode, Header: head.Header, Body: chat{near, near, near}}, nil
}

func TestWebSockets(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	d.Function("green", "chat", false, echoWebSocket)
	d.Function("green", "open", true, echoWebSocket)
	for name, header := range map[string]http.Header{"chat": {"Authorization": {"Bearer " + d.Green}}, "open": {}} {
		c, res, err := websocket.Dial(t.Context(), d.URL+"/f/green/"+name+"/room/1", &websocket.DialOptions{HTTPHeader: header})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if res.Header.Get(api.HeaderInvocationID) == "" {
			t.Errorf("%s: the answer does not name the invocation", name)
		}
		for _, s := range []string{"hello", strings.Repeat("x", 20_000)} {
			if err := c.Write(t.Context(), websocket.MessageText, []byte(s)); err != nil {
				t.Fatal(err)
			}
			if _, got, err := c.Read(t.Context()); string(got) != s || err != nil {
				t.Fatalf("%s: got %d bytes, %v, want %d", name, len(got), err, len(s))
			}
		}
		if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Errorf("%s: close: %v", name, err)
		}
	}
	_, res, err := websocket.Dial(t.Context(), d.URL+"/f/green/chat", nil)
	if err == nil || res.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a key: %v, %v", res, err)
	}
}

func TestAFunctionCannotChangeTheProtocolUnasked(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	d.Function("green", "talk", false, func(context.Context, *faas.Invocation) (*faas.Result, error) {
		near, _ := newPipe()
		return &faas.Result{Status: 101, Body: chat{near, near, near}}, nil
	})
	for how, path := range both {
		res, body := d.Do(d.Request(http.MethodPost, path, d.Green, nil))
		if res.StatusCode != http.StatusBadGateway {
			t.Errorf("%s: status %d, want 502: %s", how, res.StatusCode, body)
		}
	}
}

// A line that a call wrote reaches whoever follows, as JSON or as an event.
func TestLogsCanBeFollowed(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	d.Function("green", "talk", false, func(_ context.Context, inv *faas.Invocation) (*faas.Result, error) {
		inv.Report.Logs = []faas.LogLine{{Stream: "stdout", Text: "hello"}}
		return gatewaytest.Answer(200, nil, "x")(t.Context(), inv)
	})
	c := client(t, d, d.Green)
	call := func() string {
		reply, err := c.Invoke(t.Context(), "green", "talk", api.CallOptions{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return string(reply.ID)
	}
	past := call()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var ids []string
	for line, err := range c.Follow(ctx, "green", api.Query{Limit: 5}) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, string(line.Activation))
		if line.Text != "hello" || line.Function != "talk" {
			t.Errorf("got %+v", line)
		}
		if len(ids) == 3 {
			break
		}
		ids = append(ids, call())
	}
	if ids[0] != past || ids[1] != ids[2] {
		t.Errorf("got the lines of %v, want those of the past call and then of the next", ids)
	}

	req := d.Request(http.MethodGet, "/v1/namespaces/green/logs?follow=true&limit=1", d.Green, nil)
	req.Header.Set("Accept", "text/event-stream")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	line, err := bufio.NewReader(res.Body).ReadString('\n')
	if !strings.HasPrefix(line, `data: {"activation":`) || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("got %q, %v", line, err)
	}
}

// A namespace that is made again may be another's: what happened in the older one is not its to see.
func TestANamespaceMadeAgainHasNoPast(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	admin := d.Key("", true)
	made := func(method, path, body string) {
		t.Helper()
		req := d.Request(method, "/v1/namespaces"+path, admin, strings.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		if res, b := d.Do(req); res.StatusCode >= 300 {
			t.Fatalf("%s %s: %s %s", method, path, res.Status, b)
		}
	}
	made(http.MethodPost, "", `{"name":"passing"}`)
	d.Function("passing", "talk", false, gatewaytest.Answer(200, nil, "x"))
	res, _ := d.Do(d.Request(http.MethodPost, "/v1/namespaces/passing/functions/talk/invoke", admin, nil))
	id := res.Header.Get(api.HeaderInvocationID)
	past := func(path string) string {
		t.Helper()
		_, b := d.Do(d.Request(http.MethodGet, "/v1/namespaces/passing/"+path, admin, nil))
		return string(b)
	}
	for !strings.Contains(past("activations/"+id), `"ok":true`) {
		time.Sleep(time.Millisecond) // records are made without the caller waiting for them
	}
	made(http.MethodDelete, "/passing/functions/talk", "")
	made(http.MethodDelete, "/passing", "")
	made(http.MethodPost, "", `{"name":"passing"}`)
	for path, want := range map[string]string{"activations": `"activations":[]`, "logs": `"lines":[]`, "activations/" + id: "not_found", "activations/" + id + "/logs": "not_found"} {
		if got := past(path); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}
