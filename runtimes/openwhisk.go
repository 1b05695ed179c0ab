package runtimes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/brasa-dev/brasa/internal/faas"
)

// What the contract of OpenWhisk's actions has in all languages: what a call finds in its environment,
// how an answer is judged, and how what went wrong is told.

// errorField is what makes an error of the application of an answer that is an object.
const errorField = "error"

// ActionEnv returns what an action finds in its environment during a call: what is known of every call,
// and over it what the platform of its contract has said. namespace is that of the function, path its
// name with its package.
func ActionEnv(namespace, path string, inv *faas.Invocation) map[string]string {
	env := map[string]string{
		"__OW_NAMESPACE":      orElse(inv.Owner, namespace),
		"__OW_ACTION_NAME":    "/" + namespace + "/" + path,
		"__OW_ACTION_VERSION": "0.0.1",
		"__OW_ACTIVATION_ID":  string(inv.ID),
		"__OW_TRANSACTION_ID": string(inv.ID),
	}
	if !inv.Deadline.IsZero() {
		env["__OW_DEADLINE"] = strconv.FormatInt(inv.Deadline.UnixMilli(), 10)
	}
	maps.Copy(env, inv.Env)
	return env
}

// actionKey is the variable that opens its caller's namespace.
const actionKey = "__OW_API_KEY"

// LoadEnv returns what an action finds in its environment while it is loaded for a call: what it will find
// during that call, without its caller's key, since the process may serve other callers.
func LoadEnv(rev *faas.Revision, inv *faas.Invocation) map[string]string {
	if rev.Contract != faas.ContractOpenWhisk {
		return nil
	}
	env := ActionEnv(rev.Name.Namespace, rev.Name.Path(), inv)
	delete(env, actionKey)
	return env
}

// ActionVariable is how the names of variables of a call begin; in the protocols of actions the rest, in
// lower case, is the name of a field.
const ActionVariable = "__OW_"

// actionFields returns the variables of a call as the fields of a message of /run or of ActionLoop. Those
// whose names begin otherwise have no place there.
func actionFields(env map[string]string) map[string]any {
	fields := make(map[string]any, len(env)+1)
	for k, v := range env {
		if name, ok := strings.CutPrefix(k, ActionVariable); ok {
			fields[strings.ToLower(name)] = v
		}
	}
	return fields
}

// actionInput is what an action is called with, as one JSON value: the object of its arguments, or the
// list that the action before it in a sequence has answered with.
func actionInput(args map[string]any, body []byte) (json.RawMessage, error) {
	if body = bytes.TrimSpace(body); len(body) > 0 && body[0] == '[' && json.Valid(body) {
		return body, nil
	}
	return json.Marshal(args)
}

// actionResult judges what an action has answered. An object or a list is a result, and one with the
// field "error" an error of the application: it is kept as it is, with a status of 502. So is one that is
// too long, with an error in its place. Anything else is the action's defect.
func actionResult(op string, answer []byte, limit int64) (*faas.Result, error) {
	answer = bytes.TrimSpace(answer)
	if limit > 0 && int64(len(answer)) > limit {
		return actionTooLong(answer, int64(len(answer)), limit), nil
	}
	status := 200
	switch {
	case len(answer) > 0 && answer[0] == '{':
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(answer, &fields); err != nil {
			return nil, notAnObject(op, answer)
		}
		if _, failed := fields[errorField]; failed {
			status = 502
		}
	case len(answer) == 0 || answer[0] != '[' || !json.Valid(answer):
		return nil, notAnObject(op, answer)
	}
	return &faas.Result{Status: status, Header: map[string][]string{"Content-Type": {"application/json"}}, Body: faas.NewBytesBody(answer)}, nil
}

func notAnObject(op string, answer []byte) error {
	if len(answer) == 0 {
		return faas.Errorf(faas.Failed, op, "the action did not return a dictionary or array: it returned nothing")
	}
	return faas.Errorf(faas.Failed, op, "the action did not return a dictionary or array, so its response is not valid: %s", clean(string(answer), 1<<10))
}

// actionHead is how much is shown of an answer that is too long.
const actionHead = 8 << 10

// actionTooLong is what an answer that is too long becomes; head is its begin, size what it takes.
func actionTooLong(head []byte, size, limit int64) *faas.Result {
	if len(head) > actionHead {
		head = head[:actionHead]
		for i := 0; i < utf8.UTFMax && len(head) > 0 && !utf8.Valid(head); i++ {
			head = head[:len(head)-1]
		}
	}
	body, _ := json.Marshal(map[string]string{errorField: fmt.Sprintf( // strings can't fail
		"the action's response is too long: %d bytes are more than the %d that are allowed; it begins: %s", size, limit, head)})
	return &faas.Result{Status: 502, Header: map[string][]string{"Content-Type": {"application/json"}}, Body: faas.NewBytesBody(body)}
}

// ActionError words an error of an action as those who call actions expect it. loading says that its code
// was not loaded yet; then its Op is "initialize action", and else "run action". timeout is what the call
// had, memory what the process had. Errors that are not the action's stay as they are.
func ActionError(err error, loading bool, timeout time.Duration, memory faas.Bytes) error {
	e := faas.AsError(err)
	if e == nil {
		return nil
	}
	told := *e
	say := func(format string, args ...any) error {
		told.Err = fmt.Errorf(format, args...)
		told.Op = "run action"
		if loading {
			told.Op = "initialize action"
		}
		return &told
	}
	switch {
	case e.Code == faas.Timeout && loading:
		return say("the action exceeded its time limit of %d milliseconds during initialization", timeout.Milliseconds())
	case e.Code == faas.Timeout:
		return say("the action exceeded its time limit of %d milliseconds", timeout.Milliseconds())
	case (e.Code == faas.Crashed || e.Code == faas.Failed) && e.Limit == "memory_bytes",
		e.Code == faas.Crashed && strings.Contains(e.Trace, "JavaScript heap out of memory"): // V8 ends its process by itself
		return say("the action exhausted its memory of %d MB and was aborted", memory/faas.MiB)
	case e.Code == faas.Crashed && loading:
		return say("the action did not initialize: %s", e.Message())
	case e.Code == faas.Crashed:
		return say("the action gave no valid response: %s", e.Message())
	case e.Code == faas.Failed && loading:
		return say("the action failed during initialization: %s", e.Message())
	case e.Code == faas.Failed:
		return say("%s", e.Message())
	}
	return err
}
