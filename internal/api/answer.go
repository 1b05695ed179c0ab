package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/brasa-dev/brasa/internal/faas"
)

// envelop reads a function's whole answer and puts it into the envelope.
func (s *Server) envelop(w http.ResponseWriter, inv *faas.Invocation, res *faas.Result, logs bool) error {
	body, err := io.ReadAll(io.LimitReader(res.Body, int64(s.cfg.MaxReply)+1))
	if cerr := res.Body.Close(); err == nil { // what was spent is known after this
		err = cerr
	}
	if err != nil {
		return err
	}
	if faas.Bytes(len(body)) > s.cfg.MaxReply {
		return faas.Errorf(faas.TooLarge, "read answer", "the function's answer is over %s, which is what the envelope holds", s.cfg.MaxReply).
			WithLimit("reply_bytes").WithFix("ask for the function's own bytes: brasa invoke without --json, or ?raw=true")
	}
	reply := Reply{
		ID: inv.ID, Outcome: faas.OK.String(), Status: res.Status, Start: inv.Report.Start, Timing: inv.Timing,
		Memory: inv.Report.Memory, CPUMicros: inv.Report.CPU.Microseconds(),
	}
	if v := res.Header["Content-Type"]; len(v) > 0 {
		reply.ContentType = v[0]
	}
	reply.Result, reply.Encoding = value(body, reply.ContentType)
	if logs {
		reply.Logs, reply.LogTruncated = inv.Report.Logs, inv.Report.LogTruncated
	}
	writeJSON(w, http.StatusOK, Answer[Reply]{OK: true, Data: reply})
	return nil
}

// value turns the bytes of an answer into a JSON value: themselves if that is what they are, a
// string if they are text, else a string in base64.
func value(body []byte, contentType string) (result json.RawMessage, encoding string) {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		media = contentType
	}
	isJSON := media == "" || media == jsonType || strings.HasSuffix(media, "+json")
	switch {
	case len(body) == 0:
		return json.RawMessage("null"), ""
	case isJSON && utf8.Valid(body) && json.Valid(body):
		// Compact, so that a line of NDJSON stays a line.
		var b bytes.Buffer
		if json.Compact(&b, body) == nil {
			return b.Bytes(), ""
		}
		return body, ""
	case utf8.Valid(body):
		b, _ := json.Marshal(string(body)) // a string always marshals
		return b, ""
	}
	b, _ := json.Marshal(base64.StdEncoding.EncodeToString(body))
	return b, "base64"
}

// flushed is how much of an answer is read before it is written; functions that write more at
// once cost no more writes.
const flushed = 32 << 10

// pieces are buffers of that size.
var pieces = sync.Pool{New: func() any { b := make([]byte, flushed); return &b }}

// stream gives a function's answer back as it is, each piece as soon as it is there. It closes
// the body. It returns an error only while nothing has been written; an answer that fails later
// breaks the connection, so that the caller cannot take it for complete.
func stream(w http.ResponseWriter, r *http.Request, res *faas.Result) error {
	defer func() { _ = res.Body.Close() }()
	if res.Status < 200 || res.Status > 599 {
		return faas.Errorf(faas.Failed, "read answer", "the function answered with status %d; it must be from 200 to 599", res.Status)
	}
	head := http.Header{}
	if err := outgoing(head, res.Header, false); err != nil {
		return err
	}
	h := w.Header()
	for k, v := range head {
		h[k] = v
	}
	if h.Get("Content-Type") == "" {
		h["Content-Type"] = nil // net/http would guess it, and browsers would believe it
	}
	bodyless := res.Status == http.StatusNoContent || res.Status == http.StatusNotModified || r.Method == http.MethodHead
	length, whole := lengthOf(res)
	if length >= 0 && (r.Method == http.MethodHead || !bodyless) {
		h.Set("Content-Length", strconv.FormatInt(length, 10))
	}
	w.WriteHeader(res.Status)
	control := http.NewResponseController(w)
	if !whole && (length < 0 || length > flushed) {
		// The head goes out by itself: a caller may wait for it before he sends the rest of his
		// request, or it is all there is for a long time. A short answer of known length comes in
		// one piece.
		_ = control.Flush()
	}
	if all, ok := res.Body.(io.WriterTo); ok && whole {
		if !bodyless {
			if _, err := all.WriteTo(w); err != nil {
				return nil // the caller is gone; closing the body tells the function
			}
		}
		// Before the body is closed, so that the caller has his answer while its record is made.
		_ = control.Flush()
		return nil
	}
	pooled := pieces.Get().(*[]byte)
	defer pieces.Put(pooled)
	buf := *pooled
	for {
		n, err := res.Body.Read(buf)
		if n > 0 && !bodyless {
			if _, err := w.Write(buf[:n]); err != nil {
				return nil // the caller is gone; closing the body tells the function
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if length -= int64(n); !whole && length != 0 { // the last piece goes out with the end
			_ = control.Flush() // where it can't be done there is no stream to wait for
		}
	}
}

// lengthOf returns how long an answer's body is, -1 if nobody knows; whole says that all of it
// is here.
func lengthOf(res *faas.Result) (length int64, whole bool) {
	if body, ok := res.Body.(interface{ Len() int }); ok {
		return int64(body.Len()), true
	}
	if v := res.Header["Content-Length"]; len(v) == 1 {
		if n, err := strconv.ParseUint(v[0], 10, 62); err == nil {
			return int64(n), false
		}
	}
	return -1, false
}
