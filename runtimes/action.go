package runtimes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Action is the host's end of the conversation with a server that speaks the protocol of
// OpenWhisk's actions: POST /init gives it its function, once, and POST /run is a call. The
// arguments are one object, and so is the answer; one with a field "error" is a failure.
type Action struct {
	http *HTTPConn
	rev  *faas.Revision
}

// ActionConfig is what an Action needs of a process.
type ActionConfig struct {
	Dial     Dial
	Revision *faas.Revision
}

// NewAction returns the connection; nothing is dialed yet.
func NewAction(cfg ActionConfig) *Action {
	rev := cfg.Revision
	return &Action{http: NewHTTPConn(HTTPConfig{Dial: cfg.Dial, Port: imagePort(rev), Response: rev.Limits.Response}), rev: rev}
}

// ActionCode is what an action is initialised with. The code is the text of a source file, or
// base64 of an archive; empty: the server brings its function.
type ActionCode struct {
	Code   string
	Binary bool
	Env    map[string]string
}

// actionAnswer is the most that is read of what a server says to /init.
const actionAnswer = 64 << 10

// Init waits until the server takes connections and gives it its function. Exited ends the wait when
// the process does.
func (a *Action) Init(ctx context.Context, code ActionCode, exited <-chan struct{}) error {
	const op = "initialise action"
	if err := a.http.Ready(ctx, exited); err != nil {
		return err
	}
	env := code.Env
	if env == nil {
		env = map[string]string{}
	}
	status, answer, err := a.post(ctx, "/init", map[string]any{"value": map[string]any{
		"name": a.rev.Name.Function, "main": orElse(a.rev.Handler, "main"), "code": code.Code, "binary": code.Binary, "env": env,
	}}, actionAnswer)
	if err != nil {
		return withOp(err, op)
	}
	if status != http.StatusOK {
		e := faas.Errorf(faas.Failed, op, "the action refused /init with status %d%s", status, actionError(answer))
		if code.Code == "" {
			e = e.WithFix("the image may want code to run: deploy it with the code, as in brasa deploy ./code --image …")
		}
		return e
	}
	return nil
}

// RoundTrip makes a call.
func (a *Action) RoundTrip(ctx context.Context, inv *faas.Invocation, _ LogSink) (*faas.Result, error) {
	const op = "run action"
	args, err := arguments(ctx, inv)
	if err != nil {
		return nil, withOp(err, op)
	}
	name := a.rev.Name
	m := map[string]any{
		"value": args, "namespace": name.Namespace, "action_name": "/" + name.Namespace + "/" + name.Path(), "action_version": "0.0.1",
		"activation_id": string(inv.ID), "transaction_id": string(inv.ID),
	}
	if !inv.Deadline.IsZero() {
		m["deadline"] = strconv.FormatInt(inv.Deadline.UnixMilli(), 10)
	}
	status, answer, err := a.post(ctx, "/run", m, a.http.response)
	if err != nil {
		return nil, withOp(err, op)
	}
	answer = bytes.TrimSpace(answer)
	var fields map[string]json.RawMessage
	object := json.Unmarshal(answer, &fields) == nil
	switch {
	case object && fields["error"] != nil:
		return nil, withOp(lineFault(fields["error"]), op)
	case status != http.StatusOK:
		return nil, faas.Errorf(faas.Failed, op, "the action answered with status %d%s", status, actionError(answer))
	case !object && (len(answer) == 0 || answer[0] != '[' || !json.Valid(answer)):
		return nil, faas.Errorf(faas.Failed, op, "the action answered with what is neither a JSON object nor a list: %s", clip(string(answer)))
	}
	res, err := shaped(answer)
	return res, withOp(err, op)
}

// Close closes idle connections.
func (a *Action) Close() error { return a.http.Close() }

// post sends a message and reads the answer, of at most most bytes.
func (a *Action) post(ctx context.Context, path string, message any, most int64) (status int, answer []byte, err error) {
	b, err := json.Marshal(message)
	if err != nil {
		return 0, nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+a.http.address+path, bytes.NewReader(b))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := a.http.transport.RoundTrip(r)
	if err != nil {
		return 0, nil, a.http.exchangeError(ctx, "", err)
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(res.Body, most+1))
	if err != nil {
		return 0, nil, a.http.exchangeError(ctx, "", err)
	}
	if int64(len(answer)) > most {
		return 0, nil, overLimit(most)
	}
	return res.StatusCode, answer, nil
}

// actionError is what an action says went wrong, as the end of a message.
func actionError(answer []byte) string {
	var m struct {
		Error json.RawMessage `json:"error"`
	}
	if json.Unmarshal(answer, &m) == nil && len(m.Error) > 0 {
		return fmt.Sprintf(": %s", faas.AsError(lineFault(m.Error)).Message())
	}
	if text := clean(string(bytes.TrimSpace(answer)), 500); text != "" {
		return ": " + text
	}
	return ""
}

// ActionEnd is the line with which runtimes of OpenWhisk end the log of each call.
const ActionEnd = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX"
