package openwhisk

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"mime"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// page is what a web action's result becomes.
type page struct {
	status      int
	contentType string // empty: none
	header      http.Header
	body        []byte
}

func badAnswer(ext string) *rejection {
	return reject(http.StatusBadRequest, "Response is not valid for the extension %s.", ext)
}

// render makes a page of a result, or of the value of an error, as the extension of the request asks.
func render(value json.RawMessage, ext string) (*page, error) {
	value = bytes.TrimSpace(value)
	var fields map[string]json.RawMessage
	object := json.Unmarshal(value, &fields) == nil && fields != nil
	pick := func(names ...string) (json.RawMessage, bool) {
		if !object {
			return value, len(value) > 0
		}
		for _, n := range names {
			if v, ok := fields[n]; ok {
				return v, true
			}
		}
		return nil, false
	}
	p := &page{status: http.StatusOK, header: http.Header{}}
	switch ext {
	case ".json":
		if len(value) == 0 || value[0] != '{' && value[0] != '[' {
			return nil, badAnswer(ext)
		}
		p.contentType, p.body = "application/json", pretty(value)
	case ".html", ".svg":
		p.contentType = map[string]string{".html": "text/html; charset=UTF-8", ".svg": "image/svg+xml"}[ext]
		v, ok := pick("body", ext[1:])
		var s string
		if !ok || json.Unmarshal(v, &s) != nil || string(v) == "null" {
			return nil, badAnswer(ext)
		}
		p.body = []byte(s)
	case ".text":
		v, ok := pick("body", "text")
		if !ok {
			return nil, reject(http.StatusNotFound, "The requested resource does not exist.")
		}
		p.contentType, p.body = "text/plain; charset=UTF-8", plain(v)
	default:
		if !object {
			return nil, badAnswer(ext)
		}
		return p, renderHTTP(p, fields)
	}
	return p, nil
}

// serversHeaders are those that no action sets: they are of the connection, or say what the server knows.
var serversHeaders = []string{
	"Connection", "Content-Length", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	"X-Request-Id", activationHeader,
}

// What an action may give of headers; clients take no more either.
const (
	maxHeaderLines = 200
	maxHeaderBytes = 64 << 10
)

// headersFit says whether headers are no more than an action may give.
func headersFit(h http.Header) bool {
	lines, size := 0, 0
	for name, values := range h {
		for _, v := range values {
			lines++
			size += len(name) + len(v) + len(": \r\n")
		}
	}
	return lines <= maxHeaderLines && size <= maxHeaderBytes
}

// renderHTTP makes a page of a result that has statusCode, headers and body.
func renderHTTP(p *page, fields map[string]json.RawMessage) error {
	bad := badAnswer(".http")
	given := false
	if v, ok := fields["statusCode"]; ok {
		code, err := statusOf(v)
		if err != nil {
			return bad
		}
		p.status, given = code, true
	}
	if v, ok := fields["headers"]; ok {
		var headers map[string]any
		if json.Unmarshal(v, &headers) != nil || headers == nil {
			return bad
		}
		for name, value := range headers {
			if !httpguts.ValidHeaderFieldName(name) || !addHeader(p.header, name, value) {
				return bad
			}
		}
		if !headersFit(p.header) {
			return bad
		}
	}
	said := p.header.Get("Content-Type")
	p.header.Del("Content-Type")
	for _, name := range serversHeaders {
		p.header.Del(name)
	}
	body, has := fields["body"]
	if !has || string(body) == "null" || string(body) == `""` {
		if !given {
			p.status = http.StatusNoContent
		}
		return nil
	}
	media, params := "", map[string]string{}
	if said != "" {
		var err error
		if media, params, err = mime.ParseMediaType(said); err != nil || !strings.Contains(media, "/") {
			return bad
		}
	}
	var s string
	if json.Unmarshal(body, &s) != nil { // an object, a list, a number, true or false
		if said == "" {
			said, media = "application/json", "application/json"
		}
		if !isJSON(media) {
			return bad
		}
		p.contentType, p.body = said, pretty(body)
		return nil
	}
	switch {
	case said == "":
		p.contentType, p.body = "text/html; charset=UTF-8", []byte(s)
	case isJSON(media):
		p.contentType, p.body = said, []byte(s)
		if b, err := base64.StdEncoding.DecodeString(s); err == nil && json.Valid(b) && !json.Valid([]byte(s)) {
			p.body = b
		}
	case isText(media):
		p.contentType, p.body = said, []byte(s)
		if params["charset"] == "" {
			p.contentType += "; charset=UTF-8"
		}
	default:
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil && (!strings.HasSuffix(media, "+xml") || s[0] != '<') { // which no base64 begins with
			return bad
		} else if err != nil {
			b = []byte(s)
		}
		p.contentType, p.body = said, b
	}
	return nil
}

// statusOf reads a status: a number, or a string of digits.
func statusOf(v json.RawMessage) (int, error) {
	var s string
	if json.Unmarshal(v, &s) != nil {
		s = string(v)
	}
	n, err := strconv.Atoi(s)
	if f, isFloat := number(v); isFloat && f == math.Trunc(f) { // 200.0, as some languages write it
		n, err = int(f), nil
	}
	if err == nil && (n < 200 || n > 599) { // 1xx is not an answer
		err = strconv.ErrRange
	}
	return n, err
}

// number reads a JSON number.
func number(v json.RawMessage) (f float64, ok bool) {
	if v[0] != '-' && (v[0] < '0' || v[0] > '9') {
		return 0, false
	}
	return f, json.Unmarshal(v, &f) == nil
}

// addHeader adds a header whose value is text, a number, true or false, or a list of these. It returns
// false for anything else.
func addHeader(h http.Header, name string, value any) bool {
	name = textproto.CanonicalMIMEHeaderKey(name)
	add := func(s string) bool {
		if !httpguts.ValidHeaderFieldValue(s) {
			return false
		}
		h[name] = append(h[name], s)
		return true
	}
	switch v := value.(type) {
	case string:
		return add(v)
	case bool:
		return add(strconv.FormatBool(v))
	case float64:
		return add(strconv.FormatFloat(v, 'f', -1, 64))
	case []any:
		for _, one := range v {
			if !addHeader(h, name, one) {
				return false
			}
		}
		return true
	}
	return false
}

// maxIndent is how many times as long JSON may become by being indented: each line of what lies a thousand
// deep begins with thousands of spaces, and there may be half a million lines.
const maxIndent = 8

// pretty indents JSON; what would become too long by that stays as it is.
func pretty(b []byte) []byte {
	deep, more, text := 0, 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			deep++
			more += 2 * deep
		case c == '}' || c == ']':
			deep--
			more += 2 * deep
		case c == ',':
			more += 2 * deep
		}
	}
	if more > maxIndent*(len(b)+1<<10) {
		return b
	}
	var out bytes.Buffer
	if json.Indent(&out, b, "", "  ") != nil {
		return b
	}
	return out.Bytes()
}

// plain is a JSON value as text: a string without its quotes.
func plain(v json.RawMessage) []byte {
	var s *string
	if json.Unmarshal(v, &s) == nil && s != nil {
		return []byte(*s)
	}
	return pretty(v)
}

// acceptable says whether a caller that accepts what it says takes a content type.
func acceptable(accept, contentType string) bool {
	if accept == "" || contentType == "" {
		return true
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return true
	}
	major, _, _ := strings.Cut(media, "/")
	for _, part := range strings.Split(accept, ",") {
		want, params, err := mime.ParseMediaType(strings.TrimSpace(part))
		if err != nil {
			continue
		}
		if q, err := strconv.ParseFloat(params["q"], 64); err == nil && q == 0 {
			continue
		}
		if want == "*/*" || want == major+"/*" || want == media {
			return true
		}
	}
	return false
}
