package runtimes

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// EventsAddress is where a process asks for its calls, inside its sandbox.
const EventsAddress = "127.0.0.1:9001"

// lambdaTask is where images of AWS Lambda have their code.
const lambdaTask = "/var/task"

// Events is the host's end of the conversation with a process that asks for its calls, as AWS
// Lambda's runtime API has it: GET …/invocation/next waits for a call, POST …/invocation/ID/response
// or /error answers it. One that comes through the function's URL is the event of a Lambda function
// URL, any other the input as it is.
type Events struct {
	listener net.Listener
	server   *http.Server
	served   sync.WaitGroup
	rev      *faas.Revision
	response int64

	next   chan *eventCall // handed to whoever asks
	ready  chan struct{}   // closed when the process has asked for its first call
	asked  sync.Once
	failed chan struct{} // closed when the process says that it could not begin, with initErr set before
	init   sync.Once
	err    error

	mu    sync.Mutex
	calls map[string]*eventCall // by id, until they are answered; guarded by mu
}

type eventCall struct {
	id       string
	event    []byte
	deadline time.Time
	out      chan eventReply // has room for one
}

type eventReply struct {
	res *faas.Result
	err error
}

// EventsConfig is what an Events needs of a process.
type EventsConfig struct {
	Listener net.Listener // at EventsAddress; owned from now on
	Revision *faas.Revision
}

// NewEvents begins to listen to the process.
func NewEvents(cfg EventsConfig) *Events {
	e := &Events{
		listener: cfg.Listener, rev: cfg.Revision, response: int64(cfg.Revision.Limits.Response),
		next: make(chan *eventCall), ready: make(chan struct{}), failed: make(chan struct{}), calls: map[string]*eventCall{},
	}
	if e.response <= 0 {
		e.response = int64(faas.DefaultLimits().Response)
	}
	mux := http.NewServeMux()
	const base = "/2018-06-01/runtime"
	mux.HandleFunc("GET "+base+"/invocation/next", e.handOut)
	mux.HandleFunc("POST "+base+"/invocation/{id}/response", e.takeResponse)
	mux.HandleFunc("POST "+base+"/invocation/{id}/error", e.takeError)
	mux.HandleFunc("POST "+base+"/init/error", e.takeInitError)
	e.server = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute, MaxHeaderBytes: maxHeaderBytes}
	e.served.Go(func() { _ = e.server.Serve(cfg.Listener) }) // ends with Close
	return e
}

// Ready waits until the process has asked for its first call. Exited ends the wait when the process
// does.
func (e *Events) Ready(ctx context.Context, exited <-chan struct{}) error {
	const op = "start function"
	select {
	case <-e.ready:
		return nil
	case <-e.failed:
		return withOp(e.err, op)
	case <-exited:
		return faas.Errorf(faas.Crashed, op, "the process exited before it asked for a call")
	case <-ctx.Done():
		return ended(ctx, op, "the process did not ask for a call at AWS_LAMBDA_RUNTIME_API in time")
	}
}

// RoundTrip makes a call.
func (e *Events) RoundTrip(ctx context.Context, inv *faas.Invocation, _ LogSink) (*faas.Result, error) {
	const op = "call function"
	event, err := e.event(ctx, inv)
	if err != nil {
		return nil, withOp(err, op)
	}
	c := &eventCall{id: string(inv.ID), event: event, deadline: inv.Deadline, out: make(chan eventReply, 1)}
	e.mu.Lock()
	e.calls[c.id] = c
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		delete(e.calls, c.id)
		e.mu.Unlock()
	}()
	select {
	case e.next <- c:
	case <-ctx.Done():
		return nil, ended(ctx, op, "the process did not ask for the call before its deadline")
	case <-e.failed:
		return nil, withOp(e.err, op)
	}
	select {
	case r := <-c.out:
		return r.res, withOp(r.err, op)
	case <-ctx.Done():
		return nil, ended(ctx, op, "the function did not answer before its deadline")
	case <-e.failed:
		return nil, withOp(e.err, op)
	}
}

// Close ends the conversation; calls in flight get Crashed.
func (e *Events) Close() error {
	e.fail(faas.Errorf(faas.Crashed, "", "the process exited without an answer"))
	err := e.server.Close()
	e.served.Wait()
	return err
}

// fail ends all there is; only the first reason counts.
func (e *Events) fail(err error) {
	e.init.Do(func() {
		e.err = err
		close(e.failed)
	})
}

// handOut waits for a call and hands it to the process.
func (e *Events) handOut(w http.ResponseWriter, r *http.Request) {
	e.asked.Do(func() { close(e.ready) })
	var c *eventCall
	select {
	case c = <-e.next:
	case <-r.Context().Done():
		return
	case <-e.failed:
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Lambda-Runtime-Aws-Request-Id", c.id)
	h.Set("Lambda-Runtime-Invoked-Function-Arn", "arn:brasa:lambda:local:"+e.rev.Name.Namespace+":function:"+e.rev.Name.Path())
	h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(c.until().UnixMilli(), 10))
	_, _ = w.Write(c.event) // if the process is gone, its end is seen
}

// until is when the call must be over. Clients of the API take it for granted that there is a time.
func (c *eventCall) until() time.Time {
	if c.deadline.IsZero() {
		return time.Now().Add(time.Hour)
	}
	return c.deadline
}

func (e *Events) takeResponse(w http.ResponseWriter, r *http.Request) {
	c := e.call(w, r)
	if c == nil {
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, e.response+1))
	switch {
	case err != nil:
		e.refuse(w, http.StatusBadRequest, "InvalidRequest", err.Error())
		return
	case int64(len(body)) > e.response:
		c.answer(nil, overLimit(e.response))
		e.refuse(w, http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", "the answer is larger than response_bytes allows")
		return
	case r.Trailer.Get("Lambda-Runtime-Function-Error-Type") != "":
		c.answer(nil, faas.Errorf(faas.Failed, "", "%s", clean(r.Trailer.Get("Lambda-Runtime-Function-Error-Type"), 200)))
	default:
		c.answer(eventResult(r.Header.Get("Content-Type"), body))
	}
	accepted(w)
}

// eventResult makes a result of what the process sent.
func eventResult(kind string, body []byte) (*faas.Result, error) {
	if strings.HasPrefix(kind, "application/vnd.awslambda.http-integration-response") {
		return streamed(body)
	}
	if !json.Valid(body) {
		return bare(body), nil
	}
	return shaped(body)
}

// streamed reads an answer whose head, in JSON, is divided by eight zero bytes from its body.
func streamed(all []byte) (*faas.Result, error) {
	head, body, ok := strings.Cut(string(all), "\x00\x00\x00\x00\x00\x00\x00\x00")
	if !ok {
		return nil, faas.Errorf(faas.Failed, "", "the function said that its answer has a head, and it has none")
	}
	res, err := shaped([]byte(head))
	if err != nil {
		return nil, err
	}
	res.Body = faas.NewBytesBody([]byte(body))
	if res.Header["Content-Type"] == nil {
		res.Header["Content-Type"] = []string{"application/octet-stream"}
	}
	return res, nil
}

func (e *Events) takeError(w http.ResponseWriter, r *http.Request) {
	if c := e.call(w, r); c != nil {
		c.answer(nil, eventFault(r))
		accepted(w)
	}
}

func (e *Events) takeInitError(w http.ResponseWriter, r *http.Request) {
	e.fail(eventFault(r))
	accepted(w)
}

// eventFault reads what the process says went wrong.
func eventFault(r *http.Request) error {
	var m struct {
		Type    string `json:"errorType"`
		Message string `json:"errorMessage"`
		Trace   []any  `json:"stackTrace"`
	}
	b, _ := io.ReadAll(io.LimitReader(r.Body, maxTrace+maxMessage)) // what came of it counts
	_ = json.Unmarshal(b, &m)
	if m.Type == "" {
		m.Type = r.Header.Get("Lambda-Runtime-Function-Error-Type")
	}
	f := fault{Kind: m.Type, Message: m.Message}
	var lines []string
	for _, l := range m.Trace {
		lines = append(lines, strings.TrimRight(fmt.Sprint(l), "\n"))
	}
	f.Trace = strings.Join(lines, "\n")
	return f.toError("")
}

// call returns the call that a request answers, or refuses the request.
func (e *Events) call(w http.ResponseWriter, r *http.Request) *eventCall {
	e.mu.Lock()
	c := e.calls[r.PathValue("id")]
	e.mu.Unlock()
	if c == nil {
		e.refuse(w, http.StatusBadRequest, "InvalidRequestID", "there is no such call, or it is over")
	}
	return c
}

func (c *eventCall) answer(res *faas.Result, err error) {
	select {
	case c.out <- eventReply{res, err}:
	default: // it has one
	}
}

func (e *Events) refuse(w http.ResponseWriter, status int, kind, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"errorType": kind, "errorMessage": message}) // if the process is gone, its end is seen
}

func accepted(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(w, `{"status":"OK"}`) // if the process is gone, its end is seen
}

// event is what the process gets for a call.
func (e *Events) event(ctx context.Context, inv *faas.Invocation) ([]byte, error) {
	body, err := readBody(ctx, inv)
	if err != nil {
		return nil, err
	}
	if inv.Kind == faas.KindHTTP {
		return e.request(inv, body)
	}
	switch {
	case len(body) == 0:
		return []byte("{}"), nil
	case json.Valid(body):
		return body, nil
	case isText("", body):
		return json.Marshal(string(body))
	}
	return nil, faas.Errorf(faas.Invalid, "", "the function takes events in JSON; a binary body cannot be one")
}

// request is the event of a request to the function's URL.
func (e *Events) request(inv *faas.Invocation, body []byte) ([]byte, error) {
	headers, query := map[string]string{}, map[string]string{}
	for k, v := range inv.Header {
		if k != "Cookie" {
			headers[strings.ToLower(k)] = strings.Join(v, ",")
		}
	}
	values, err := url.ParseQuery(inv.Query)
	_ = err // what can be read of it counts
	for k, v := range values {
		query[k] = strings.Join(v, ",")
	}
	now := time.Now()
	address := orElse(inv.Path, "/")
	m := map[string]any{
		"version": "2.0", "routeKey": "$default", "rawPath": address, "rawQueryString": inv.Query, "headers": headers,
		"requestContext": map[string]any{
			"accountId": "anonymous", "apiId": e.rev.Name.Path(), "domainName": first(inv.Header["Host"]), "requestId": string(inv.ID),
			"routeKey": "$default", "stage": "$default", "time": now.UTC().Format("02/Jan/2006:15:04:05 -0700"), "timeEpoch": now.UnixMilli(),
			"http": map[string]any{"method": orElse(inv.Method, "POST"), "path": address, "protocol": "HTTP/1.1", "sourceIp": "", "userAgent": first(inv.Header["User-Agent"])},
		},
		"isBase64Encoded": false,
	}
	if len(query) > 0 {
		m["queryStringParameters"] = query
	}
	var cookies []string
	for _, line := range inv.Header["Cookie"] {
		for _, c := range strings.Split(line, ";") {
			cookies = append(cookies, strings.TrimSpace(c))
		}
	}
	if len(cookies) > 0 {
		m["cookies"] = cookies
	}
	switch {
	case len(body) == 0:
	case isText(contentType(inv), body):
		m["body"] = string(body)
	default:
		m["body"], m["isBase64Encoded"] = base64.StdEncoding.EncodeToString(body), true
	}
	return json.Marshal(m)
}

// lambdaEnv is what a process that asks for its calls finds in its environment.
func lambdaEnv(rev *faas.Revision) map[string]string {
	env := map[string]string{
		"AWS_LAMBDA_RUNTIME_API": EventsAddress, "AWS_LAMBDA_FUNCTION_NAME": rev.Name.Function, "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": strconv.FormatInt(int64(rev.Limits.Memory/faas.MiB), 10), "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
		"AWS_LAMBDA_LOG_GROUP_NAME": "/brasa/" + rev.Name.Path(), "AWS_LAMBDA_LOG_STREAM_NAME": string(rev.ID), "TZ": ":UTC",
	}
	if rev.Handler != "" {
		env["_HANDLER"] = rev.Handler
	}
	if rev.Image == nil || !slices.ContainsFunc(rev.Image.Env, func(e string) bool { return strings.HasPrefix(e, "LAMBDA_TASK_ROOT=") }) {
		maps.Copy(env, map[string]string{"LAMBDA_TASK_ROOT": CodeTarget(rev)})
	}
	return env
}
