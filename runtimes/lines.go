package runtimes

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"unicode/utf8"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Lines is the host's end of the conversation with a process that serves a line per call. The
// process reads from its stdin
//
//	{"id":"…","input":…,"deadline_ms":…,"method":"POST","path":"/","query":"","content_type":"…"}
//
// and writes to descriptor 3, in any order,
//
//	{"id":"…","result":…}   or   {"id":"…","error":"…"}   or   {"id":"…","error":{"message":"…"}}
//
// The input is the body's JSON value, or its text if it is none. What it writes to stdout and
// stderr is its log; which call a line belongs to is known only while there is just one.
type Lines struct {
	stdin    io.Closer
	conn     io.ReadCloser
	response int64
	log      LogSink
	sender   *sender
	read     sync.WaitGroup
	done     chan struct{}

	mu    sync.Mutex
	calls map[string]*lineCall // by invocation's id, until the process has answered; guarded by mu
	err   error                // guarded by mu
}

type lineCall struct {
	logs LogSink
	gone bool           // its caller has gone; guarded by Lines.mu
	out  chan lineReply // one value
}

type lineReply struct {
	res *faas.Result
	err error
}

// LinesConfig is what a Lines needs of a process.
type LinesConfig struct {
	Stdin    io.WriteCloser // a pipe or socket; owned from now on
	Conn     io.ReadCloser  // the near end of descriptor 3; owned from now on
	Stdout   io.Reader      // nil: not read here
	Stderr   io.Reader      // nil: not read here
	Log      LogSink        // takes lines that belong to no call; nil drops them
	Response faas.Bytes
}

// NewLines begins the conversation. Reading Stdout and Stderr ends with them.
func NewLines(cfg LinesConfig) *Lines {
	l := &Lines{
		stdin: cfg.Stdin, conn: cfg.Conn, log: cfg.Log, response: int64(cfg.Response),
		calls: make(map[string]*lineCall), done: make(chan struct{}),
	}
	if l.response <= 0 {
		l.response = int64(faas.DefaultLimits().Response)
	}
	l.sender = newSender(cfg.Stdin, l.fail)
	l.read.Go(l.receive)
	for stream, r := range map[string]io.Reader{Stdout: cfg.Stdout, Stderr: cfg.Stderr} {
		if r != nil {
			go CopyLog(r, stream, LogFunc(l.logLine)) // ends with the process
		}
	}
	return l
}

// Done is closed when the conversation is over.
func (l *Lines) Done() <-chan struct{} { return l.done }

// Active counts the calls that the process has not answered.
func (l *Lines) Active() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.calls)
}

// Close ends the conversation; calls in flight get Crashed.
func (l *Lines) Close() error {
	l.fail(net.ErrClosed)
	l.read.Wait()
	l.sender.idle.Wait()
	return nil
}

// logLine gives a line to the only call there is, or to the instance.
func (l *Lines) logLine(line faas.LogLine) {
	sink := l.log
	l.mu.Lock()
	if len(l.calls) == 1 {
		for _, c := range l.calls {
			if !c.gone && c.logs != nil {
				sink = c.logs
			}
		}
	}
	l.mu.Unlock()
	if sink != nil {
		sink.Log(line)
	}
}

// RoundTrip gives an invocation to the process and waits for its line. When ctx ends nobody
// waits any more; the process is not told, for it has no way to listen.
func (l *Lines) RoundTrip(ctx context.Context, inv *faas.Invocation, logs LogSink) (*faas.Result, error) {
	const op = "call function"
	line, err := requestLine(ctx, inv)
	if err != nil {
		return nil, err
	}
	c := &lineCall{logs: logs, out: make(chan lineReply, 1)}
	id := string(inv.ID)
	l.mu.Lock()
	switch {
	case l.err != nil:
		l.mu.Unlock()
		return nil, faas.Errorf(faas.Crashed, op, "the process has exited")
	case l.calls[id] != nil:
		l.mu.Unlock()
		return nil, faas.Errorf(faas.Internal, op, "invocation %s is under way already", id)
	}
	l.calls[id] = c
	l.mu.Unlock()
	_ = l.sender.send(line) // the receiving goroutine sees the same end and answers the call
	select {
	case r := <-c.out:
		return r.res, withOp(r.err, op)
	case <-ctx.Done():
		l.mu.Lock()
		c.gone = true
		l.mu.Unlock()
		return nil, ended(ctx, op, "the function did not answer before its deadline")
	}
}

// requestLine makes the line of a call.
func requestLine(ctx context.Context, inv *faas.Invocation) ([]byte, error) {
	var body []byte
	if inv.Body != nil {
		var err error
		if body, err = io.ReadAll(inv.Body); err != nil {
			return nil, readError(ctx, err)
		}
	}
	input := json.RawMessage("null")
	var flat bytes.Buffer
	if len(body) > 0 {
		switch {
		case json.Valid(body) && json.Compact(&flat, body) == nil: // a line break inside would end the line
			input = flat.Bytes()
		case utf8.Valid(body):
			input, _ = json.Marshal(string(body))
		default:
			return nil, faas.Errorf(faas.Invalid, "call function", "the function takes lines of JSON; a binary body cannot be one")
		}
	}
	var deadline int64
	if !inv.Deadline.IsZero() {
		deadline = inv.Deadline.UnixMilli()
	}
	line, err := json.Marshal(struct {
		ID          faas.ID         `json:"id"`
		Input       json.RawMessage `json:"input"`
		Deadline    int64           `json:"deadline_ms,omitempty"`
		Kind        faas.Kind       `json:"kind"`
		Method      string          `json:"method"`
		Path        string          `json:"path"`
		Query       string          `json:"query"`
		ContentType string          `json:"content_type,omitempty"`
		Cause       faas.ID         `json:"cause,omitempty"`
		Attempt     int             `json:"attempt"`
	}{inv.ID, input, deadline, inv.Kind, orElse(inv.Method, "POST"), orElse(inv.Path, "/"), inv.Query, first(inv.Header["Content-Type"]), inv.Cause, max(inv.Attempt, 1)})
	return append(line, '\n'), err
}

// receive reads answers until the process ends.
func (l *Lines) receive() {
	r := bufio.NewReaderSize(l.conn, readBuffer)
	// What a line may be larger than its result: the id and the names.
	limit := l.response + 4<<10
	for {
		line, err := readLine(r, limit)
		if err == nil && len(bytes.TrimSpace(line)) > 0 {
			err = l.take(line)
		}
		if err != nil {
			l.fail(err)
			return
		}
	}
}

// errLongLine is a line over the limit; there is no way to know whose it is.
var errLongLine = errors.New("a line is longer than response_bytes allows")

func readLine(r *bufio.Reader, limit int64) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if int64(len(line)+len(part)) > limit {
			return nil, errLongLine
		}
		line = append(line, part...)
		if err == bufio.ErrBufferFull {
			continue
		}
		return line, err
	}
}

// take handles one line. Its error ends the conversation.
func (l *Lines) take(line []byte) error {
	var m struct {
		ID     string          `json:"id"`
		Result json.RawMessage `json:"result"`
		Error  json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return &protocolError{fmt.Sprintf("it wrote to descriptor 3 what is no answer's JSON: %s", clip(string(line)))}
	}
	l.mu.Lock()
	c := l.calls[m.ID]
	delete(l.calls, m.ID)
	l.mu.Unlock()
	if c == nil {
		return nil // answered already, or never asked
	}
	if len(m.Error) > 0 && string(m.Error) != "null" {
		c.out <- lineReply{err: lineFault(m.Error)}
		return nil
	}
	if len(m.Result) == 0 {
		m.Result = json.RawMessage("null")
	}
	if int64(len(m.Result)) > l.response {
		c.out <- lineReply{err: overLimit(l.response)}
		return nil
	}
	c.out <- lineReply{res: &faas.Result{Status: 200, Header: map[string][]string{"Content-Type": {"application/json"}}, Body: faas.NewBytesBody(m.Result)}}
	return nil
}

func lineFault(raw json.RawMessage) error {
	var f fault
	if raw[0] == '"' {
		_ = json.Unmarshal(raw, &f.Message) // it begins as a string and was valid
	} else if json.Unmarshal(raw, &f) != nil || f.Message == "" {
		f.Message = string(raw)
	}
	return f.toError("")
}

// fail ends the conversation; only the first reason counts.
func (l *Lines) fail(err error) {
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return
	}
	l.err = err
	calls := l.calls
	l.calls = nil
	l.mu.Unlock()
	_ = errors.Join(l.conn.Close(), l.stdin.Close()) // an error here has nobody to act on it
	l.sender.fail(err)
	close(l.done)
	for _, c := range calls {
		switch _, broke := err.(*protocolError); {
		case err == errLongLine:
			c.out <- lineReply{err: overLimit(l.response)}
		case broke:
			c.out <- lineReply{err: faas.Errorf(faas.Failed, "", "%v", err)}
		default:
			c.out <- lineReply{err: faas.Errorf(faas.Crashed, "", "the process exited without an answer")}
		}
	}
}
