package runtimes

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/brasa-dev/brasa/internal/faas"
)

// ExecProcess is the running process of one call. The caller started it with the arguments of
// Command and the environment of ExecEnv added.
type ExecProcess struct {
	Stdin  io.WriteCloser
	Stdout io.Reader
	Stderr io.Reader
	// Wait returns how it ended; it is called once, after Stdout and Stderr have ended.
	Wait func() Exit
	// Kill ends it now, with all that it has started.
	Kill func()
}

// ExecEnv is what a process that serves one call is told of it, besides Environ. Nothing that a
// caller sends becomes the name of a variable, and only what is said here becomes the value of
// one, so that no header can reach the shell's or the linker's own variables.
func ExecEnv(inv *faas.Invocation) []string {
	env := []string{
		"BRASA_INVOCATION_ID=" + string(inv.ID),
		"BRASA_CAUSE=" + string(inv.Cause),
		"BRASA_ATTEMPT=" + strconv.Itoa(max(inv.Attempt, 1)),
		"BRASA_KIND=" + string(inv.Kind),
		"HTTP_METHOD=" + variable(orElse(inv.Method, "POST")),
		"HTTP_PATH=" + variable(orElse(inv.Path, "/")),
		"HTTP_QUERY=" + variable(inv.Query),
		"HTTP_CONTENT_TYPE=" + variable(first(inv.Header["Content-Type"])),
	}
	if !inv.Deadline.IsZero() {
		env = append(env, "BRASA_DEADLINE_MS="+strconv.FormatInt(inv.Deadline.UnixMilli(), 10))
	}
	return env
}

// maxArgument is the longest argument that the kernel gives a program.
const maxArgument = 128<<10 - 1

// ExecCommand is the command and the environment of a process that serves one call: args are what
// Runtime.Command says. A program with the contract of OpenWhisk's actions gets its arguments as its last
// word, and reads of the call what such actions do; then the whole body is read, and may be read again.
func ExecCommand(ctx context.Context, rev *faas.Revision, inv *faas.Invocation, args []string) (all, env []string, err error) {
	env = ExecEnv(inv)
	if rev.Contract != faas.ContractOpenWhisk {
		return args, env, nil
	}
	value, err := actionValue(ctx, inv)
	if err != nil {
		return nil, nil, err
	}
	if len(value) > maxArgument {
		return nil, nil, faas.Errorf(faas.Failed, "run action", "the arguments are %d bytes; a program can be started with %d", len(value), maxArgument).
			WithFix("speak ActionLoop, which takes them on standard input")
	}
	inv.Body, inv.Length = bytes.NewReader(value), int64(len(value))
	for k, v := range ActionEnv(rev.Name.Namespace, rev.Name.Path(), inv) {
		env = append(env, k+"="+strings.ReplaceAll(v, "\x00", ""))
	}
	return append(slices.Clone(args), string(value)), env, nil
}

// maxVariable is the longest value that a caller can put into a variable; the kernel takes no
// more than 128 KiB of one.
const maxVariable = 64 << 10

// variable makes a value of what a caller sent. "() {" at its begin is what old shells took for
// a function (CVE-2014-6271).
func variable(s string) string {
	s = clean(strings.Map(func(r rune) rune {
		if r == 0 || r == '\n' || r == '\r' {
			return ' '
		}
		return r
	}, s), maxVariable)
	if strings.HasPrefix(strings.TrimLeft(s, " \t"), "()") {
		return ""
	}
	return s
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// ExecCall runs one call with a process of its own: its stdin is the request's body, its stdout
// the answer's, its stderr the log. It returns when the process has ended, so that a failure is
// never a good answer cut short; the answer is kept in memory, at most response bytes of it.
// The process is dead when ExecCall returns.
func ExecCall(ctx context.Context, p ExecProcess, inv *faas.Invocation, rev *faas.Revision, logs LogSink) (*faas.Result, error) {
	const op = "run executable"
	defer p.Kill()
	killed := context.AfterFunc(ctx, p.Kill)
	defer killed()

	var wait sync.WaitGroup
	tail := &tailLog{sink: logs}
	wait.Go(func() { tail.copy(p.Stderr) })
	// Not waited for: a program need not read its input, and inv.Body.Read cannot be hurried.
	// Closing stdin is this goroutine's, and writing fails once the process is gone.
	go func() {
		if inv.Body != nil {
			_, _ = io.Copy(p.Stdin, inv.Body)
		}
		_ = p.Stdin.Close()
	}()
	limit := int64(rev.Limits.Response)
	if limit <= 0 {
		limit = int64(faas.DefaultLimits().Response)
	}
	most := limit
	if rev.Contract == faas.ContractOpenWhisk { // its last line is the answer, the rest a log
		most += int64(rev.Limits.Log)
	}
	out, err := io.ReadAll(io.LimitReader(p.Stdout, most+1))
	if int64(len(out)) > most {
		p.Kill()
		wait.Wait()
		p.Wait()
		return nil, withOp(overLimit(limit), op)
	}
	wait.Wait()
	exit := p.Wait()
	switch {
	case ctx.Err() != nil:
		return nil, ended(ctx, op, "the program did not end before its deadline")
	case exit.OOM || exit.Signal != 0:
		e := exit.Error(op, rev.Limits.Memory)
		e.Trace = tail.String()
		return nil, e
	case rev.Contract == faas.ContractOpenWhisk && err == nil:
		return lastLine(out, exit, limit, logs)
	case exit.Code != 0:
		e := faas.Errorf(faas.Failed, op, "the program exited with code %d%s", exit.Code, tail.last())
		e.Trace = tail.String()
		return nil, e
	case err != nil:
		return nil, faas.Errorf(faas.Crashed, op, "its answer cannot be read: %v", err)
	}
	return bare(out), nil
}

// lastLine judges what an action has written to its stdout, of which the last line is the answer.
func lastLine(out []byte, exit Exit, limit int64, logs LogSink) (*faas.Result, error) {
	const op = "run action"
	out = bytes.TrimRight(out, "\r\n")
	at := bytes.LastIndexByte(out, '\n') + 1
	res, err := actionResult(op, out[at:], limit)
	if err != nil && exit.Code != 0 { // it is no answer, and nobody meant it to be one
		at, err = len(out), faas.Errorf(faas.Crashed, op, "the process exited with code %d without an answer", exit.Code)
	}
	if at > 0 {
		CopyLog(bytes.NewReader(out[:at]), Stdout, logs)
	}
	return res, err
}

// bare makes a result of bytes whose kind must be guessed: JSON if they are a JSON value, else
// text if they are UTF-8.
func bare(out []byte) *faas.Result {
	return &faas.Result{Status: 200, Header: map[string][]string{"Content-Type": {ContentTypeOf(out)}}, Body: faas.NewBytesBody(out)}
}

// ContentTypeOf guesses the content type of an answer that comes without one.
func ContentTypeOf(out []byte) string {
	switch {
	case json.Valid(out):
		return "application/json"
	case utf8.Valid(out):
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

// tailLog passes lines on and remembers the last of them.
type tailLog struct {
	sink  LogSink
	lines []string
	bytes int
}

// tailBytes of the stderr tell in most languages what went wrong.
const tailBytes = 4 << 10

func (t *tailLog) copy(r io.Reader) {
	w := &LineWriter{Sink: t, Stream: Stderr}
	_, _ = io.Copy(w, r) // its end, however it comes, is the end of the log
	w.Flush()
}

// Log is LogSink's.
func (t *tailLog) Log(line faas.LogLine) {
	if t.sink != nil {
		t.sink.Log(line)
	}
	t.lines = append(t.lines, line.Text)
	t.bytes += len(line.Text) + 1
	for t.bytes > tailBytes && len(t.lines) > 1 {
		t.bytes -= len(t.lines[0]) + 1
		t.lines = t.lines[1:]
	}
}

// String returns the last lines.
func (t *tailLog) String() string { return clean(strings.Join(t.lines, "\n"), maxTrace) }

// last returns the last line that says something, as the end of a message.
func (t *tailLog) last() string {
	for i := len(t.lines) - 1; i >= 0; i-- {
		if s := strings.TrimSpace(t.lines[i]); s != "" {
			return ": " + clean(s, 500)
		}
	}
	return ""
}

// CopyLog passes what r gives on as lines until its end. It is for the stdout and stderr of
// processes whose answer comes another way.
func CopyLog(r io.Reader, stream string, sink LogSink) {
	w := &LineWriter{Sink: sink, Stream: stream}
	_, _ = io.Copy(w, r) // its end, however it comes, is the end of the log
	w.Flush()
}
