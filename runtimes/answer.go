package runtimes

import (
	"encoding/json"
	"maps"
	"net/textproto"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Bounds of an answer's headers; a browser takes no more.
const (
	maxHeaderBytes = 64 << 10
	maxHeaderLines = 256
)

// answer is the head of an answer after it was checked.
type answer struct {
	status int
	header map[string][]string
}

// checkHeader makes clean headers of those that a function gave. It drops what is not the
// function's to say: hop-by-hop headers, the length (the door knows it) and the platform's own.
// A header that could break out of its line is an error, not silently mended, because its
// author either has a defect to see or an attack to lose.
func checkHeader[V ~[]string](in map[string]V) (map[string][]string, error) {
	out := make(map[string][]string, len(in))
	lines, bytes := 0, 0
	for name, values := range in {
		if !validName(name) {
			return nil, faas.Errorf(faas.Failed, "", "the function gave a header with the illegal name %q", clip(name))
		}
		key := textproto.CanonicalMIMEHeaderKey(name)
		if reserved(key) {
			continue
		}
		for _, v := range values {
			if !validValue(v) {
				return nil, faas.Errorf(faas.Failed, "", "the function gave the header %s a value with a line break or control character: %q", key, clip(v))
			}
			lines++
			bytes += len(key) + len(v) + 4
			out[key] = append(out[key], strings.Trim(v, " \t"))
		}
	}
	if lines > maxHeaderLines || bytes > maxHeaderBytes {
		return nil, faas.Errorf(faas.Failed, "", "the function gave %d headers of %d bytes; at most %d and %s are taken", lines, bytes, maxHeaderLines, faas.Bytes(maxHeaderBytes))
	}
	return out, nil
}

// checkStatus says whether a function may answer with the status.
func checkStatus(status int) error {
	if status < 200 || status > 599 {
		return faas.Errorf(faas.Failed, "", "the function answered with status %d; it must be from 200 to 599", status)
	}
	return nil
}

// bodiless says whether HTTP forbids a body with the status.
func bodiless(status int) bool { return status == 204 || status == 304 }

// hopHeaders belong to one connection or to the server, never to a function. RFC 9110, 7.6.1.
var hopHeaders = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Proxy-Authenticate": true,
	"Proxy-Authorization": true, "Te": true, "Trailer": true, "Transfer-Encoding": true,
	"Upgrade": true, "Content-Length": true,
}

func reserved(key string) bool {
	return hopHeaders[key] || strings.HasPrefix(key, "Brasa-") || strings.HasPrefix(key, "X-Forwarded-")
}

// validName says whether s is a token of RFC 9110.
func validName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0 {
			continue
		}
		return false
	}
	return s != ""
}

func validValue(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x20 && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// answers reads the heads of answers. It remembers the last one, because a function mostly
// gives the same: comparing is a twentieth of decoding. It is for one goroutine.
type answers struct {
	meta []byte
	last answer
}

// read decodes and checks META. The error is a *faas.Error if the function reported or made a
// fault, and another if the bootstrap broke the protocol.
func (a *answers) read(meta []byte) (answer, error) {
	if len(meta) > 0 && string(meta) == string(a.meta) {
		return answer{a.last.status, maps.Clone(a.last.header)}, nil
	}
	var m answerMeta
	if err := json.Unmarshal(meta, &m); err != nil {
		return answer{}, err
	}
	if m.Error != nil {
		return answer{}, m.Error.toError("")
	}
	if m.Status == 0 {
		m.Status = 200
	}
	if err := checkStatus(m.Status); err != nil {
		return answer{}, err
	}
	header, err := checkHeader(m.Headers)
	if err != nil {
		return answer{}, err
	}
	if len(meta) <= 1<<10 {
		a.meta = append(a.meta[:0], meta...)
		a.last = answer{m.Status, header}
		header = maps.Clone(header)
	}
	return answer{m.Status, header}, nil
}

// Bounds of an error that a function reports: enough to understand it, not enough to fill a
// journal.
const (
	maxMessage = 4 << 10
	maxTrace   = 32 << 10
)

// toError makes an error of what an instance reported. It is the function's fault whatever the
// instance says.
func (f *fault) toError(op string) *faas.Error {
	kind, message := clean(f.Kind, 200), clean(f.Message, maxMessage)
	switch {
	case kind == "" && message == "":
		message = "the function failed without a message"
	case message == "":
		message = kind
	case kind != "":
		message = kind + ": " + message
	}
	e := faas.Errorf(faas.Failed, op, "%s", message)
	if f.Code == "invalid" {
		e.Code = faas.Invalid
	}
	e.Trace = clean(f.Trace, maxTrace)
	e.Limit = clean(f.Limit, 40)
	return e
}

// clean makes s printable UTF-8 of at most most bytes.
func clean(s string, most int) string {
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strings.ToValidUTF8(s, "\ufffd")
}

func clip(s string) string { return clean(s, 80) }
