package runtimes

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Loop is the host's end of the conversation with a process that speaks ActionLoop, the protocol of
// OpenWhisk's compiled actions. For each call it reads a line from its stdin,
//
//	{"value":{…},"activation_id":"…","action_name":"/ns/name","deadline":"…",…}
//
// and writes its answer, an object or a list, as a line to descriptor 3. One that is told to by
// __OW_WAIT_FOR_ACK first writes {"ok":true} there. There is one call at a time.
type Loop struct {
	rev    *faas.Revision
	stdin  io.Closer
	conn   net.Conn
	in     *bufio.Reader
	sender *sender
	limit  int64
	once   sync.Once
}

// LoopConfig is what a Loop needs of a process.
type LoopConfig struct {
	Stdin    io.WriteCloser // a pipe or socket; owned from now on
	Conn     net.Conn       // the near end of descriptor 3; owned from now on
	Revision *faas.Revision
}

// LoopAck is the variable that has a process of ActionLoop say when it is ready.
const LoopAck = "__OW_WAIT_FOR_ACK"

// loopGrace is how long is waited for a process to fail at its start that does not say when it is ready.
const loopGrace = 5 * time.Millisecond

// NewLoop begins the conversation.
func NewLoop(cfg LoopConfig) *Loop {
	l := &Loop{rev: cfg.Revision, stdin: cfg.Stdin, conn: cfg.Conn, in: bufio.NewReaderSize(cfg.Conn, readBuffer)}
	l.limit = int64(cfg.Revision.Limits.Fill(faas.DefaultLimits()).Response)
	l.sender = newSender(cfg.Stdin, func(error) {}) // who reads sees the same end
	return l
}

// Ready waits until the process can take calls. Exited ends the wait when the process does.
func (l *Loop) Ready(ctx context.Context, exited <-chan struct{}) error {
	const op = "initialize action"
	if l.rev.Env[LoopAck] == "" {
		t := time.NewTimer(loopGrace)
		defer t.Stop()
		select {
		case <-exited:
			return faas.Errorf(faas.Crashed, op, "the process exited before it took a call")
		case <-ctx.Done():
			return ended(ctx, op, "the action was not ready in time")
		case <-t.C:
			return nil
		}
	}
	line, _, err := l.read(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return ended(ctx, op, "the action did not say in time that it is ready")
		}
		return faas.Errorf(faas.Crashed, op, "the process exited before it said that it is ready")
	}
	var ack struct {
		OK bool `json:"ok"`
	}
	if json.Unmarshal(line, &ack) != nil || !ack.OK {
		return faas.Errorf(faas.Failed, op, "the action did not say that it is ready, but %s", clip(string(bytes.TrimSpace(line))))
	}
	return nil
}

// RoundTrip makes a call. What the process writes to stdout and stderr is read by whoever started it.
func (l *Loop) RoundTrip(ctx context.Context, inv *faas.Invocation, _ LogSink) (*faas.Result, error) {
	const op = "run action"
	value, err := actionValue(ctx, inv)
	if err != nil {
		return nil, withOp(err, op)
	}
	fields := actionFields(ActionEnv(l.rev.Name.Namespace, l.rev.Name.Path(), inv))
	fields["value"] = value
	line, err := json.Marshal(fields)
	if err != nil {
		return nil, &faas.Error{Code: faas.Internal, Op: op, Err: err}
	}
	if err := l.drop(); err != nil {
		return nil, withOp(err, op)
	}
	_ = l.sender.send(append(line, '\n')) // the reader sees the same end
	answer, size, err := l.read(ctx)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, ended(ctx, op, "the action did not answer before its deadline")
	default:
		return nil, faas.Errorf(faas.Crashed, op, "the process exited without an answer")
	}
	if l.limit > 0 && size > l.limit {
		return judged(l.rev, op, actionTooLong(answer, size, l.limit), nil)
	}
	res, err := actionResult(op, answer, l.limit)
	return judged(l.rev, op, res, err)
}

// drop throws away what the process has written since its last answer: this call has asked for none of it,
// and would get it in place of its own answer.
func (l *Loop) drop() error {
	n := int64(l.in.Buffered())
	_, _ = l.in.Discard(l.in.Buffered()) // that many are there
	raw, ok := l.conn.(syscall.Conn)
	if !ok {
		return nil
	}
	c, err := raw.SyscallConn()
	if err != nil {
		return nil // it is closed, and whoever reads an answer sees it
	}
	var some []byte
	for n <= l.limit {
		got := 0
		err := c.Read(func(fd uintptr) bool {
			var one [1]byte // mostly there is nothing, and nothing to make room for
			if some == nil {
				if got, _ = syscall.Read(int(fd), one[:]); got > 0 {
					some = make([]byte, readBuffer)
				}
				return true
			}
			got, _ = syscall.Read(int(fd), some)
			return true // whether or not there was something: the descriptor does not block
		})
		if err != nil || got <= 0 {
			return nil
		}
		n += int64(got)
	}
	return faas.Errorf(faas.Failed, "", "the action wrote %d bytes and more that no call had asked for", n)
}

// judged makes an error of an action's own error where the code was deployed as a function of ours.
func judged(rev *faas.Revision, op string, res *faas.Result, err error) (*faas.Result, error) {
	if err != nil || res.Status == 200 || rev.Contract == faas.ContractOpenWhisk {
		return res, err
	}
	var m struct {
		Error json.RawMessage `json:"error"`
	}
	b, _ := io.ReadAll(res.Body) // it is in memory
	if json.Unmarshal(b, &m) != nil || len(m.Error) == 0 {
		return res, nil
	}
	return nil, withOp(lineFault(m.Error), op)
}

// actionValue is what a call's body and query are for an action.
func actionValue(ctx context.Context, inv *faas.Invocation) (json.RawMessage, error) {
	body, err := readBody(ctx, inv)
	if err != nil {
		return nil, err
	}
	copied := *inv
	copied.Body = bytes.NewReader(body)
	args, err := arguments(ctx, &copied)
	if err != nil {
		return nil, err
	}
	return actionInput(args, body)
}

// read takes a line, without its end, and says how long it was. Of one that is over the limit it returns
// the beginning. It ends with ctx.
func (l *Loop) read(ctx context.Context) (line []byte, size int64, err error) {
	stop := context.AfterFunc(ctx, func() { _ = l.conn.SetReadDeadline(time.Unix(1, 0)) }) // fails on a closed one, which ends the read too
	defer stop()
	for {
		part, err := l.in.ReadSlice('\n')
		if room := l.limit + 1 - int64(len(line)); room > 0 {
			line = append(line, part[:min(int64(len(part)), room)]...)
		}
		size += int64(len(part))
		if err == bufio.ErrBufferFull {
			continue
		}
		if err == nil {
			line = bytes.TrimRight(line, "\r\n")
			if size--; size <= l.limit {
				size = int64(len(line))
			}
			return line, size, nil
		}
		return nil, size, errors.Join(err, ctx.Err())
	}
}

// Close ends the conversation.
func (l *Loop) Close() error {
	var err error
	l.once.Do(func() {
		err = errors.Join(l.conn.Close(), l.stdin.Close())
		l.sender.fail(net.ErrClosed)
		l.sender.idle.Wait()
	})
	return err
}
