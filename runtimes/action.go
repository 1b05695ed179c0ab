package runtimes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

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
	status, answer, _, err := a.post(ctx, "/init", map[string]any{"value": map[string]any{
		"name": a.rev.Name.Function, "main": orElse(a.rev.Handler, "main"), "code": code.Code, "binary": code.Binary, "env": env,
	}}, actionAnswer)
	if err != nil {
		return withOp(err, op)
	}
	if status != http.StatusOK {
		if said := actionError(answer); said != "" && a.rev.Contract == faas.ContractOpenWhisk {
			return faas.Errorf(faas.Failed, op, "%s", said[len(": "):])
		}
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
	value, err := actionValue(ctx, inv)
	if err != nil {
		return nil, withOp(err, op)
	}
	m := actionFields(ActionEnv(a.rev.Name.Namespace, a.rev.Name.Path(), inv))
	m["value"] = value
	status, answer, size, err := a.post(ctx, "/run", m, a.http.response)
	if err != nil {
		return nil, withOp(err, op)
	}
	answer = bytes.TrimSpace(answer)
	if a.rev.Contract == faas.ContractOpenWhisk {
		if size > a.http.response {
			return actionTooLong(answer, size, a.http.response), nil
		}
		return judgedByStatus(op, status, answer, a.http.response)
	}
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

// judgedByStatus is actionResult for a server, whose status says whether the answer is the action's own or
// tells of a defect.
func judgedByStatus(op string, status int, answer []byte, limit int64) (*faas.Result, error) {
	if status == http.StatusOK {
		return actionResult(op, answer, limit)
	}
	if said := actionError(answer); said != "" {
		return nil, faas.Errorf(faas.Failed, op, "%s", said[len(": "):])
	}
	return nil, faas.Errorf(faas.Failed, op, "the action answered with status %d", status)
}

// Close closes idle connections.
func (a *Action) Close() error { return a.http.Close() }

// post sends a message and reads the answer, of at most most bytes. Of a longer one it returns the
// beginning, and what all of it takes, where the contract says what becomes of it.
func (a *Action) post(ctx context.Context, path string, message any, most int64) (status int, answer []byte, size int64, err error) {
	b, err := json.Marshal(message)
	if err != nil {
		return 0, nil, 0, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+a.http.address+path, bytes.NewReader(b))
	if err != nil {
		return 0, nil, 0, err
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := a.http.transport.RoundTrip(r)
	if err != nil {
		return 0, nil, 0, a.http.exchangeError(ctx, "", err)
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(res.Body, most+1))
	if err != nil {
		return 0, nil, 0, a.http.exchangeError(ctx, "", err)
	}
	size = int64(len(answer))
	if size > most {
		if a.rev.Contract != faas.ContractOpenWhisk {
			return 0, nil, 0, overLimit(most)
		}
		more, err := io.Copy(io.Discard, res.Body)
		if err != nil {
			return 0, nil, 0, a.http.exchangeError(ctx, "", err)
		}
		size += more
	}
	return res.StatusCode, answer, size, nil
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
