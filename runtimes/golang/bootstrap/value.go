package bootstrap

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"reflect"
	"strings"
	"unicode/utf8"
)

var (
	contextType = reflect.TypeFor[context.Context]()
	errorType   = reflect.TypeFor[error]()
)

// Value makes a Handler of a function that takes a context, a value, both or neither, and
// returns a value, an error, both or neither. Its form was checked when it was deployed.
func Value(f any) Handler {
	fn := reflect.ValueOf(f)
	t := fn.Type()
	return func(ctx context.Context, c *Call) (any, error) {
		args := make([]reflect.Value, 0, 2)
		for i := range t.NumIn() {
			if t.In(i) == contextType {
				args = append(args, reflect.ValueOf(ctx))
				continue
			}
			in := reflect.New(t.In(i))
			if err := c.decode(in.Interface()); err != nil {
				return nil, err
			}
			args = append(args, in.Elem())
		}
		out := fn.Call(args)
		if n := len(out); n > 0 && t.Out(n-1) == errorType {
			if err, _ := out[n-1].Interface().(error); err != nil {
				return nil, err
			}
			out = out[:n-1]
		}
		if len(out) == 0 {
			return nil, nil
		}
		return out[0].Interface(), nil
	}
}

// decode fills the handler's argument: bytes, text and readers get the body as it is, anything
// else is read from JSON.
func (c *Call) decode(in any) error {
	switch in := in.(type) {
	case *io.Reader:
		*in = c.body
		return nil
	case *[]byte:
		b, err := io.ReadAll(c.body)
		*in = b
		return err
	}
	if r := reflect.TypeOf(in).Elem(); r.Kind() == reflect.Interface && r.NumMethod() > 0 && reflect.TypeOf(c.body).Implements(r) {
		reflect.ValueOf(in).Elem().Set(reflect.ValueOf(c.body))
		return nil
	}
	raw, err := io.ReadAll(c.body)
	if err != nil {
		return err
	}
	if s, ok := in.(*string); ok {
		if json.Unmarshal(raw, s) != nil {
			*s = string(raw)
		}
		return nil
	}
	if raw, err = c.arguments(raw); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if err := d.Decode(in); err != nil {
		return fault{Code: "invalid", Message: "the request does not fit the function's argument: " + err.Error()}
	}
	return nil
}

// arguments makes one JSON value of a request: parameters of the URL, then the fields of a JSON
// object or form. Another JSON value stands for itself if there are no parameters, else, like
// any other body, it is the field "body".
func (c *Call) arguments(raw []byte) ([]byte, error) {
	contentType := ""
	for k, v := range c.Header {
		if strings.EqualFold(k, "Content-Type") && len(v) > 0 {
			contentType, _, _ = strings.Cut(v[0], ";")
			contentType = strings.ToLower(strings.TrimSpace(contentType))
		}
	}
	form := contentType == "application/x-www-form-urlencoded"
	raw = bytes.TrimSpace(raw)
	// A form is tried as JSON first, because that is what curl -d calls JSON.
	maybe := contentType == "" || form || contentType == "application/json" || strings.HasSuffix(contentType, "+json")
	isJSON := maybe && len(raw) > 0 && json.Valid(raw)
	if !isJSON && maybe && !form && contentType != "" && len(raw) > 0 {
		var v any
		return nil, fault{Code: "invalid", Message: "the request says that its body is JSON, and it is not: " + json.Unmarshal(raw, &v).Error()}
	}
	if c.Query == "" && isJSON {
		return raw, nil
	}
	args := make(map[string]any)
	add := func(query string) {
		values, _ := url.ParseQuery(query) // what is malformed is left out
		for k, v := range values {
			args[k] = v[len(v)-1]
		}
	}
	add(c.Query)
	switch {
	case len(raw) == 0:
	case isJSON && raw[0] == '{':
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(raw, &fields); err != nil {
			return nil, err
		}
		for k, v := range fields {
			args[k] = v
		}
	case isJSON:
		args["body"] = json.RawMessage(raw)
	case form:
		add(string(raw))
	case utf8.Valid(raw):
		args["body"] = string(raw)
	default:
		args["body"] = raw // base64, as encoding/json writes bytes
	}
	return json.Marshal(args)
}

// response is the form of a value that says its status itself.
type response struct {
	StatusCode        int                 `json:"statusCode"`
	Headers           map[string]any      `json:"headers"`
	MultiValueHeaders map[string][]string `json:"multiValueHeaders"`
	Body              json.RawMessage     `json:"body"`
	IsBase64Encoded   bool                `json:"isBase64Encoded"`
}

const (
	typeJSON  = "application/json"
	typeText  = "text/plain; charset=utf-8"
	typeBytes = "application/octet-stream"
)

// answer sends a value as the call's answer.
func (c *Call) answer(logs *captured, v any) error {
	switch v := v.(type) {
	case nil:
		if c.Kind == "http" {
			return c.whole(logs, 204, nil, nil)
		}
		return c.whole(logs, 200, contentType(typeJSON), []byte("null"))
	case string:
		return c.whole(logs, 200, contentType(typeText), []byte(v))
	case []byte:
		return c.whole(logs, 200, contentType(typeBytes), v)
	case io.Reader:
		return c.copyFrom(logs, v)
	case finished:
		if v.status == 0 {
			return c.endStream(logs)
		}
		return c.whole(logs, v.status, v.header, v.body)
	}
	rv := reflect.ValueOf(v)
	if rv.Kind() == reflect.Func {
		return c.sequence(logs, rv)
	}
	body, err := marshal(v)
	if err != nil {
		return fault{Message: "the function returned what JSON cannot hold: " + err.Error()}
	}
	if !saysStatus(rv) {
		return c.whole(logs, 200, contentType(typeJSON), body)
	}
	var r response
	if err := json.Unmarshal(body, &r); err != nil {
		return fault{Message: "the function returned a statusCode, but not the form of an answer: " + err.Error()}
	}
	return c.respond(logs, r)
}

func (c *Call) respond(logs *captured, r response) error {
	header, typed := make(map[string][]string), false
	for k, v := range r.Headers {
		if list, ok := v.([]any); ok {
			for _, e := range list {
				header[k] = append(header[k], fmt.Sprint(e))
			}
		} else if v != nil {
			header[k] = []string{fmt.Sprint(v)}
		}
	}
	for k, v := range r.MultiValueHeaders {
		header[k] = append(header[k], v...)
	}
	for k := range header {
		typed = typed || strings.EqualFold(k, "Content-Type")
	}
	body, kind := []byte(r.Body), typeJSON
	var text string
	switch {
	case len(body) == 0 || string(body) == "null":
		body, kind = nil, ""
	case json.Unmarshal(body, &text) == nil:
		body, kind = []byte(text), typeText
		if r.IsBase64Encoded {
			var err error
			if body, err = base64.StdEncoding.DecodeString(text); err != nil {
				return fault{Message: "the function said isBase64Encoded, but its body is not base64"}
			}
			kind = typeBytes
		}
	}
	if !typed && kind != "" {
		header["Content-Type"] = []string{kind}
	}
	return c.whole(logs, r.StatusCode, header, body)
}

// finished is the answer of a handler that wrote it: all of it, or nothing if it was streamed.
type finished struct {
	status int
	header map[string][]string
	body   []byte
}

func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// saysStatus tells whether a value is an answer with a status: a map with an integer statusCode,
// or a struct with such a field.
func saysStatus(v reflect.Value) bool {
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		if v.IsNil() {
			return false
		}
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.Map:
		if v.Type().Key().Kind() != reflect.String {
			return false
		}
		e := v.MapIndex(reflect.ValueOf("statusCode").Convert(v.Type().Key()))
		for e.IsValid() && e.Kind() == reflect.Interface {
			e = e.Elem()
		}
		return e.IsValid() && (e.CanInt() || e.Kind() == reflect.Float64 && e.Float() == float64(int(e.Float())))
	case reflect.Struct:
		t := v.Type()
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			if name == "statusCode" && v.Field(i).CanInt() {
				return v.Field(i).Int() != 0
			}
		}
	}
	return false
}

func contentType(kind string) map[string][]string {
	return map[string][]string{"Content-Type": {kind}}
}

// whole answers with a body in memory, in one frame if it is small.
func (c *Call) whole(logs *captured, status int, header map[string][]string, b []byte) error {
	if status < 200 || status > 599 {
		return fault{Message: fmt.Sprintf("the function answered with status %d; it must be from 200 to 599", status)}
	}
	if int64(len(b)) > c.link.spec.Response {
		return tooLarge(c.link.spec.Response)
	}
	if len(b) <= maxWhole {
		c.end(logs, metaFrame(typeResult, c.stream, meta{status, header}, b))
		return nil
	}
	c.head(status, header)
	if err := c.write(b); err != nil {
		return err
	}
	c.end(logs, frame(typeEnd, c.stream, nil))
	return nil
}

// copyFrom answers with what a reader gives, as it gives it.
func (c *Call) copyFrom(logs *captured, r io.Reader) error {
	if closer, ok := r.(io.Closer); ok {
		defer closer.Close()
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if !c.headed {
				kind := typeBytes
				if utf8.Valid(buf[:n]) {
					kind = typeText
				}
				c.head(200, contentType(kind))
			}
			if werr := c.write(buf[:n]); werr != nil {
				return werr
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	return c.endStream(logs)
}

func (c *Call) endStream(logs *captured) error {
	if !c.headed {
		c.head(200, contentType(typeText))
	}
	c.end(logs, frame(typeEnd, c.stream, nil))
	return nil
}

// sequence answers with the values of an iter.Seq, or of an iter.Seq2 whose second is an error.
func (c *Call) sequence(logs *captured, fn reflect.Value) error {
	t := fn.Type()
	if fn.IsNil() || !t.CanSeq() && !(t.CanSeq2() && t.In(0).In(1) == errorType) {
		return fault{Message: "the function returned what JSON cannot hold: a " + t.String()}
	}
	var failed error
	emit := func(v any) bool {
		var b []byte
		kind := ""
		switch v := v.(type) {
		case string:
			b, kind = []byte(v), typeText
		case []byte:
			b, kind = v, typeBytes
		default:
			b, failed = marshal(v)
			b, kind = append(b, '\n'), "application/x-ndjson"
		}
		if failed != nil {
			return false
		}
		if !c.headed {
			c.head(200, contentType(kind))
		}
		failed = c.write(b)
		return failed == nil
	}
	if t.CanSeq() {
		for v := range fn.Seq() {
			if !emit(v.Interface()) {
				break
			}
		}
	} else {
		for v, e := range fn.Seq2() {
			if err, _ := e.Interface().(error); err != nil {
				failed = err
				break
			}
			if !emit(v.Interface()) {
				break
			}
		}
	}
	if failed != nil {
		return failed
	}
	return c.endStream(logs)
}
