package openwhisk

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// reserved are the arguments that say what was requested; no caller may set them.
var reserved = []string{"__ow_method", "__ow_headers", "__ow_path", "__ow_user", "__ow_query", "__ow_body"}

// webArguments makes the arguments of a web action from a request.
func (s *Server) webArguments(c *call, t *target, user string, rest []string) (map[string]json.RawMessage, error) {
	body, err := c.body(s.cfg.Limits.Payload)
	if err != nil {
		return nil, err
	}
	raw, _ := t.meta.annotation("raw-http").(bool)
	media, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if err != nil {
		media = ""
	}
	args := map[string]json.RawMessage{}
	if raw {
		args["__ow_query"] = quoted(c.r.URL.RawQuery)
		args["__ow_body"] = quoted(rawBody(body, media))
	} else {
		for k, v := range c.query {
			args[k] = quoted(v[len(v)-1])
		}
		more, err := webBody(body, media)
		if err != nil {
			return nil, err
		}
		maps.Copy(args, more)
		for _, name := range reserved {
			if _, set := args[name]; set {
				return nil, reject(http.StatusBadRequest, "The request defines parameters that are not allowed (e.g., reserved properties).")
			}
		}
		if err := s.overridesNothing(t, args); err != nil {
			return nil, err
		}
		if more == nil && len(body) > 0 {
			if args["__ow_body"], err = otherBody(body, media); err != nil {
				return nil, err
			}
		}
	}
	header := map[string]string{}
	for k, v := range c.r.Header {
		if http.CanonicalHeaderKey(k) == "Content-Type" && len(body) == 0 {
			continue
		}
		header[strings.ToLower(k)] = strings.Join(v, ", ")
	}
	if c.r.Host != "" {
		header["host"] = c.r.Host
	}
	if args["__ow_headers"], err = json.Marshal(header); err != nil {
		return nil, err
	}
	args["__ow_method"] = quoted(strings.ToLower(c.r.Method))
	way := ""
	for _, segment := range rest {
		way += "/" + pathMarks.Replace(url.PathEscape(segment))
	}
	if c.slash {
		way += "/"
	}
	args["__ow_path"] = quoted(way)
	if user != "" {
		args["__ow_user"] = quoted(user)
	}
	return args, nil
}

// pathMarks are the characters that a path may have as they are and that url.PathEscape escapes.
var pathMarks = strings.NewReplacer("%21", "!", "%27", "'", "%28", "(", "%29", ")", "%2A", "*", "%2C", ",", "%3B", ";")

// webBody returns the arguments that a body is: the fields of a JSON object, or of a form. nil: it is
// neither.
func webBody(body []byte, media string) (map[string]json.RawMessage, error) {
	switch {
	case len(body) == 0:
		return map[string]json.RawMessage{}, nil
	case isJSON(media):
		var args map[string]json.RawMessage
		valid := utf8.Valid(body)
		if valid && json.Unmarshal(body, &args) == nil && args != nil {
			return args, nil
		}
		if !valid || !json.Valid(body) {
			return nil, errNotJSON
		}
	case media == "application/x-www-form-urlencoded":
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return nil, reject(http.StatusBadRequest, "The request content was malformed: it is no form.")
		}
		args := map[string]json.RawMessage{}
		for k, v := range form {
			args[k] = quoted(v[len(v)-1])
		}
		return args, nil
	}
	return nil, nil
}

// otherBody is a body that is no arguments, as one of them.
func otherBody(body []byte, media string) (json.RawMessage, error) {
	switch {
	case isJSON(media):
		return bytes.TrimSpace(body), nil
	case isText(media) && utf8.Valid(body):
		return quoted(string(body)), nil
	}
	return quoted(base64.StdEncoding.EncodeToString(body)), nil
}

// rawBody is a body as it is handed to an action that wants requests as they come.
func rawBody(body []byte, media string) string {
	if len(body) > 0 && (isJSON(media) || !isText(media) || !utf8.Valid(body)) {
		return base64.StdEncoding.EncodeToString(body)
	}
	return string(body)
}

// isJSON says whether a media type is of the JSON family.
func isJSON(media string) bool {
	return media == "application/json" || strings.HasSuffix(media, "+json")
}

// isText says whether what is of a media type is characters.
func isText(media string) bool {
	if strings.HasPrefix(media, "text/") || isJSON(media) || strings.HasPrefix(media, "application/") && strings.HasSuffix(media, "+xml") {
		return true
	}
	switch media {
	case "application/xml", "application/javascript", "application/ecmascript", "application/x-www-form-urlencoded", "application/graphql", "application/x-javascript", "application/yaml":
		return true
	}
	return false
}
