package runtimes

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/brasa-dev/brasa/internal/faas"
)

// What the protocols of other platforms have in common: the call is one JSON object, and so is its
// answer, which may say what HTTP is to make of it.

// readBody reads the whole body of a call.
func readBody(ctx context.Context, inv *faas.Invocation) ([]byte, error) {
	if inv.Body == nil {
		return nil, nil
	}
	b, err := io.ReadAll(inv.Body)
	if err != nil {
		return nil, readError(ctx, err)
	}
	return b, nil
}

// contentType returns a call's content type without its parameters, lower case.
func contentType(inv *faas.Invocation) string {
	kind, _, _ := strings.Cut(first(inv.Header["Content-Type"]), ";")
	return strings.ToLower(strings.TrimSpace(kind))
}

// arguments puts the parameters of the URL and the fields of the body together, as the bootstraps of
// the languages do for a handler that takes arguments; the body wins. A body that is neither a JSON
// object nor a form is the one argument "body", in base64 if it is no text.
func arguments(ctx context.Context, inv *faas.Invocation) (map[string]any, error) {
	args := map[string]any{}
	parameters := func(text string) {
		values, err := url.ParseQuery(text)
		_ = err // what can be read of it counts
		for k, v := range values {
			args[k] = v[len(v)-1]
		}
	}
	parameters(inv.Query)
	body, err := readBody(ctx, inv)
	if err != nil || len(body) == 0 {
		return args, err
	}
	kind := contentType(inv)
	form := kind == "application/x-www-form-urlencoded"
	// A form is tried as JSON first, because that is what curl -d calls JSON.
	if kind == "" || form || kind == "application/json" || strings.HasSuffix(kind, "+json") {
		value, err := decode(body)
		if err == nil {
			if object, ok := value.(map[string]any); ok {
				for k, v := range object {
					args[k] = v
				}
			} else {
				args["body"] = value
			}
			return args, nil
		}
		if kind != "" && !form {
			return nil, faas.Errorf(faas.Invalid, "call function", "the request says that its body is JSON, and it is not: %v", err)
		}
	}
	if form {
		parameters(string(body))
		return args, nil
	}
	if utf8.Valid(body) {
		args["body"] = string(body)
	} else {
		args["body"] = base64.StdEncoding.EncodeToString(body)
	}
	return args, nil
}

// decode reads one JSON value; numbers stay as they were written.
func decode(b []byte) (any, error) {
	var v any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("something follows the value")
	}
	return v, nil
}

// shaped makes a result of what a function answered with JSON: an object with a whole number in
// statusCode says status, headers and body, anything else is the answer itself.
func shaped(raw []byte) (*faas.Result, error) {
	var s struct {
		Status    *json.Number               `json:"statusCode"`
		Headers   map[string]json.RawMessage `json:"headers"`
		Multiple  map[string][]string        `json:"multiValueHeaders"`
		Cookies   []string                   `json:"cookies"`
		Body      json.RawMessage            `json:"body"`
		IsEncoded bool                       `json:"isBase64Encoded"`
	}
	plain := &faas.Result{Status: 200, Header: map[string][]string{"Content-Type": {"application/json"}}, Body: faas.NewBytesBody(raw)}
	if len(raw) == 0 || raw[0] != '{' || json.Unmarshal(raw, &s) != nil || s.Status == nil {
		return plain, nil
	}
	status, err := s.Status.Int64()
	if err != nil {
		return plain, nil
	}
	if err := checkStatus(int(status)); err != nil {
		return nil, err
	}
	given := map[string][]string{}
	for k, v := range s.Headers {
		given[k] = append(given[k], headerText(v)...)
	}
	for k, v := range s.Multiple {
		given[k] = append(given[k], v...)
	}
	if len(s.Cookies) > 0 {
		given["Set-Cookie"] = append(given["Set-Cookie"], s.Cookies...)
	}
	header, err := checkHeader(given)
	if err != nil {
		return nil, err
	}
	body, kind, err := shapedBody(s.Body, s.IsEncoded, first(header["Content-Type"]))
	if err != nil {
		return nil, err
	}
	if header["Content-Type"] == nil && len(body) > 0 {
		header["Content-Type"] = []string{kind}
	}
	if bodiless(int(status)) {
		body = nil
	}
	return &faas.Result{Status: int(status), Header: header, Body: faas.NewBytesBody(body)}, nil
}

// headerText returns a header's values: text as it is, a list's one by one, anything else as JSON.
func headerText(v json.RawMessage) []string {
	var text string
	if json.Unmarshal(v, &text) == nil {
		return []string{text}
	}
	var list []json.RawMessage
	if json.Unmarshal(v, &list) == nil {
		var all []string
		for _, x := range list {
			all = append(all, headerText(x)...)
		}
		return all
	}
	return []string{string(v)}
}

// shapedBody returns the bytes of an answer's body and what they are if it does not say.
func shapedBody(raw json.RawMessage, encoded bool, kind string) (body []byte, guess string, err error) {
	var text string
	switch {
	case len(raw) == 0 || string(raw) == "null":
		return nil, "", nil
	case json.Unmarshal(raw, &text) != nil:
		return raw, "application/json", nil
	case encoded:
		body, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, "", faas.Errorf(faas.Failed, "", "the function says that its answer's body is base64, and it is not")
		}
		return body, "application/octet-stream", nil
	}
	return []byte(text), "text/plain; charset=utf-8", nil
}

// isText says whether bytes of a content type are sent as text where the protocol has no bytes.
func isText(kind string, body []byte) bool {
	kind, _, err := mime.ParseMediaType(kind)
	if err == nil && (strings.HasPrefix(kind, "image/") || kind == "application/octet-stream") {
		return false
	}
	return utf8.Valid(body)
}
