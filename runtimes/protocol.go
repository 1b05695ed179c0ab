package runtimes

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Protocol is the version of the frame protocol.
const Protocol = 1

// Bounds of the protocol, known to both sides.
const (
	MaxPayload    = 1 << 20   // of one frame
	MaxMeta       = 256 << 10 // of a META; the door takes less than this in headers
	InitialWindow = 1 << 20   // bytes of a streamed body that may be under way
	MaxWhole      = 256 << 10 // a body up to this size travels inside CALL or RESULT
	bodyChunk     = 64 << 10  // bytes in one BODY frame: large enough to be cheap, small enough to interleave
	frameHead     = 9         // length, type, stream
)

// frameType is the second field of a frame.
type frameType uint8

const (
	frameLoad    frameType = 1
	frameCall    frameType = 2
	frameBody    frameType = 3
	frameBodyEnd frameType = 4
	frameCancel  frameType = 5
	frameCredit  frameType = 6 // WINDOW, host → instance

	frameHello      frameType = 16
	frameLoaded     frameType = 17
	frameLoadFailed frameType = 18
	frameLog        frameType = 19
	frameResult     frameType = 20
	frameHeadOf     frameType = 21 // HEAD
	frameData       frameType = 22
	frameEnd        frameType = 23
	frameWindow     frameType = 24 // WINDOW, instance → host
)

// fromInstance says whether an instance may send the type.
func (t frameType) fromInstance() bool { return t >= frameHello && t <= frameWindow }

// frame is one frame as it was read. Its payload is good until the next one is read, unless
// owned says that it was made for this frame alone.
type frame struct {
	typ     frameType
	stream  uint32
	payload []byte
	owned   bool
}

// protocolError is what an instance did against the protocol.
type protocolError struct{ what string }

func (e *protocolError) Error() string { return "the instance broke the protocol: " + e.what }

// BrokeProtocol says whether err tells of an instance that broke the protocol, after which the host
// ends the conversation and the process its own way.
func BrokeProtocol(err error) bool {
	_, broke := errors.AsType[*protocolError](err)
	return broke
}

// decoder finds frames in what an instance sends. What has come lies in it until there is a whole
// frame, so that whoever reads may leave off at any byte and another go on.
//
// It is used in turns: next until there is no more, then a read into room, which filled notes.
type decoder struct {
	buf  []byte // of readBuffer bytes; those from r to w were read and not yet taken
	r, w int
	big  frame // whose payload is being read into memory of its own; its type is 0: none
	got  int   // bytes of it that have come
}

// readBuffer holds a usual answer and its log lines, so that they cost one read; there is one
// per instance, so it is no larger.
const readBuffer = 16 << 10

func (d *decoder) init() { d.buf = make([]byte, readBuffer) }

// next returns the next whole frame, false if more must be read for it. Its payload is good until
// room is called. It allocates only for a RESULT, which the caller keeps, and for what is larger
// than the buffer.
func (d *decoder) next() (f frame, ok bool, err error) {
	if d.big.typ != 0 {
		if d.got < len(d.big.payload) {
			return frame{}, false, nil
		}
		f, d.big, d.got = d.big, frame{}, 0
		return f, true, nil
	}
	have := d.buf[d.r:d.w]
	if len(have) < frameHead {
		return frame{}, false, nil
	}
	length := binary.BigEndian.Uint32(have)
	f = frame{typ: frameType(have[4]), stream: binary.BigEndian.Uint32(have[5:])}
	if length < frameHead-4 || length > frameHead-4+MaxPayload {
		return f, false, &protocolError{fmt.Sprintf("a frame of %d bytes; it must be from 5 to %d", length, frameHead-4+MaxPayload)}
	}
	if !f.typ.fromInstance() {
		return f, false, &protocolError{fmt.Sprintf("frame type %d, which no instance sends", f.typ)}
	}
	size := int(length) - (frameHead - 4)
	whole := frameHead + size
	if whole <= readBuffer && f.typ != frameResult {
		if len(have) < whole {
			return frame{}, false, nil
		}
		f.payload = have[frameHead:whole]
		d.r += whole
		return f, true, nil
	}
	f.payload, f.owned = make([]byte, size), true
	n := copy(f.payload, have[frameHead:])
	d.r += frameHead + n
	if n < size {
		d.big, d.got = f, n
		return frame{}, false, nil
	}
	return f, true, nil
}

// room returns where the next read belongs; it is never empty. What next returned before is no
// longer good.
func (d *decoder) room() []byte {
	if d.big.typ != 0 {
		return d.big.payload[d.got:]
	}
	if d.r > 0 {
		d.w = copy(d.buf, d.buf[d.r:d.w])
		d.r = 0
	}
	return d.buf[d.w:]
}

// filled notes how much was read into room.
func (d *decoder) filled(n int) {
	if d.big.typ != 0 {
		d.got += n
	} else {
		d.w += n
	}
}

// torn says that what was read ends within a frame.
func (d *decoder) torn() bool { return d.big.typ != 0 || d.r < d.w }

// splitMeta cuts a payload into its META's JSON and the rest.
func splitMeta(payload []byte) (meta, rest []byte, err error) {
	if len(payload) < 4 {
		return nil, nil, &protocolError{fmt.Sprintf("a payload of %d bytes, too short for its meta", len(payload))}
	}
	n := binary.BigEndian.Uint32(payload)
	if n > MaxMeta || int64(n) > int64(len(payload)-4) {
		return nil, nil, &protocolError{fmt.Sprintf("a meta of %d bytes in a payload of %d", n, len(payload))}
	}
	return payload[4 : 4+n], payload[4+n:], nil
}

// beginFrame appends a frame's head with the length left open; endFrame fills it in.
func beginFrame(b []byte, t frameType, stream uint32) []byte {
	b = append(b, 0, 0, 0, 0, byte(t))
	return binary.BigEndian.AppendUint32(b, stream)
}

// endFrame closes the frame that begins at start. The payload must not be over MaxPayload.
func endFrame(b []byte, start int) []byte {
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b
}

func appendFrame(b []byte, t frameType, stream uint32, payload []byte) []byte {
	start := len(b)
	b = append(beginFrame(b, t, stream), payload...)
	return endFrame(b, start)
}

func appendCredit(b []byte, stream, credit uint32) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint32(beginFrame(b, frameCredit, stream), credit)
	return endFrame(b, start)
}

// Hello is what a booted runtime says of itself.
type Hello struct {
	Protocol int    `json:"protocol"`
	Runtime  string `json:"runtime"`
	Version  string `json:"version"`
}

// Spec is what an instance must know of the function that it shall load. Env holds the values
// of secrets, so a Spec is never logged.
type Spec struct {
	Namespace   string            `json:"namespace"`
	Function    string            `json:"function"`
	Revision    faas.RevisionID   `json:"revision"`
	Entry       string            `json:"entry"`
	Handler     string            `json:"handler,omitempty"`
	Code        string            `json:"code"`           // directory of the code as the instance sees it
	Path        []string          `json:"path,omitempty"` // directories of what was installed for it
	Env         map[string]string `json:"env,omitempty"`
	Memory      faas.Bytes        `json:"memory_bytes"`
	Timeout     faas.Duration     `json:"timeout_ms"`
	Concurrency int               `json:"concurrency"`
	Response    faas.Bytes        `json:"response_bytes"`
	Log         faas.Bytes        `json:"log_bytes"`
	Seed        string            `json:"seed,omitempty"`     // fresh randomness for a process that was forked, 64 hex digits
	Contract    string            `json:"contract,omitempty"` // what the code expects of its caller; empty: Brasa's own
}

// SpecOf returns the spec of a revision whose code lies at /code, with the values of its
// secrets added to its environment.
func SpecOf(rev *faas.Revision, secrets map[string]string) Spec {
	l := rev.Limits.Fill(faas.DefaultLimits())
	var path []string
	for _, layer := range rev.Layers {
		path = append(path, layer.Target)
	}
	return Spec{
		Namespace: rev.Name.Namespace, Function: rev.Name.Path(), Revision: rev.ID,
		Entry: rev.Entry, Handler: rev.Handler, Code: CodeDir, Path: path, Env: Environ(rev, secrets),
		Memory: l.Memory, Timeout: l.Timeout, Concurrency: l.Concurrency, Response: l.Response, Log: l.Log,
		Contract: rev.Contract,
	}
}

// Loaded is how long a load took, as measured inside.
type Loaded struct {
	DependencyUS int64 `json:"dependency_us"` // what the code imports
	CodeUS       int64 `json:"code_us"`       // the code itself
}

// fault is an error as an instance reports it.
type fault struct {
	Code    string `json:"code"` // "invalid": the request does not fit, which its caller can mend
	Kind    string `json:"kind"`
	Message string `json:"message"`
	Trace   string `json:"trace"`
	Limit   string `json:"limit"`
}

// answerMeta is the META of RESULT and HEAD.
type answerMeta struct {
	Status  int                    `json:"status"`
	Headers map[string]headerValue `json:"headers"`
	Error   *fault                 `json:"error"`
}

// headerValue is one value or several.
type headerValue []string

// UnmarshalJSON reads a string or a list of strings.
func (h *headerValue) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		*h = make(headerValue, 1)
		return json.Unmarshal(b, &(*h)[0])
	}
	return json.Unmarshal(b, (*[]string)(h))
}

// appendCallMeta appends the META of a CALL. It is written by hand because it is on the way of
// every call: a fifth of the time of encoding/json and nothing allocated. env is what the call's
// environment has besides that of its function.
func appendCallMeta(b []byte, inv *faas.Invocation, body string, env map[string]string) []byte {
	open := len(b)
	b = append(b, 0, 0, 0, 0)
	b = appendString(append(b, `{"id":`...), string(inv.ID))
	if !inv.Deadline.IsZero() {
		b = strconv.AppendInt(append(b, `,"deadline_ms":`...), inv.Deadline.UnixMilli(), 10)
	}
	b = appendString(append(b, `,"kind":`...), string(inv.Kind))
	method := inv.Method
	if method == "" {
		method = "POST"
	}
	b = appendString(append(b, `,"method":`...), method)
	path := inv.Path
	if path == "" {
		path = "/"
	}
	b = appendString(append(b, `,"path":`...), path)
	b = appendString(append(b, `,"query":`...), inv.Query)
	b = append(b, `,"headers":{`...)
	first := true
	for k, vs := range inv.Header {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(appendString(b, k), ':', '[')
		for i, v := range vs {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(b, v)
		}
		b = append(b, ']')
	}
	b = strconv.AppendInt(append(b, `},"attempt":`...), int64(max(inv.Attempt, 1)), 10)
	b = appendString(append(b, `,"cause":`...), string(inv.Cause))
	b = append(append(append(b, `,"body":"`...), body...), '"')
	b = strconv.AppendInt(append(b, `,"length":`...), inv.Length, 10)
	if inv.Seed != "" {
		b = appendString(append(b, `,"seed":`...), inv.Seed)
	}
	if len(env) > 0 {
		b = append(b, `,"env":{`...)
		first := true
		for k, v := range env {
			if !first {
				b = append(b, ',')
			}
			first = false
			b = appendString(append(appendString(b, k), ':'), v)
		}
		b = append(b, '}')
	}
	b = append(b, '}')
	binary.BigEndian.PutUint32(b[open:], uint32(len(b)-open-4))
	return b
}

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string; bytes that are not UTF-8 become U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c < 0x20 || c == '"' || c == '\\':
			b = append(b, s[from:i]...)
			if c < 0x20 {
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			} else {
				b = append(b, '\\', c)
			}
			i++
			from = i
		case c < utf8.RuneSelf:
			i++
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(append(b, s[from:i]...), "\ufffd"...)
				from = i + 1
			}
			i += n
		}
	}
	return append(append(b, s[from:]...), '"')
}
