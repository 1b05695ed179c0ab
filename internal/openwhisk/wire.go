package openwhisk

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/brasa-dev/brasa/internal/faas"
)

// execution is what runs an action.
type execution struct {
	Kind       string   `json:"kind"`
	Code       *string  `json:"code,omitempty"`
	Binary     bool     `json:"binary"`
	Main       string   `json:"main,omitempty"`
	Image      string   `json:"image,omitempty"`
	Components []string `json:"components,omitempty"`
}

// actionLimits are those of an action, in the units of the wire.
type actionLimits struct {
	Timeout     int64  `json:"timeout"`     // ms
	Memory      int64  `json:"memory"`      // MB
	Logs        int64  `json:"logs"`        // MB
	Concurrency int64  `json:"concurrency"` // calls at once in a process
	Instances   *int64 `json:"instances,omitempty"`
}

// header is what all entities have in common. It is also what is kept of one as its Origin.
type header struct {
	Namespace   string     `json:"namespace"` // with the package
	Name        string     `json:"name"`
	Version     string     `json:"version"`
	Publish     bool       `json:"publish"`
	Annotations parameters `json:"annotations"`
	Updated     int64      `json:"updated"` // ms since 1970
}

// actionRecord is an action as clients see it, and, without its code, what is kept of it.
type actionRecord struct {
	header
	Parameters parameters   `json:"parameters"`
	Exec       execution    `json:"exec"`
	Limits     actionLimits `json:"limits"`
	NoCode     bool         `json:"no_code,omitempty"` // kept only: none was sent, not even an empty one
}

// actionSummary is an action in a list.
type actionSummary struct {
	header
	Exec struct {
		Binary bool `json:"binary"`
	} `json:"exec"`
	Limits actionLimits `json:"limits"`
}

// entityRef names an entity: path is its namespace, with its package.
type entityRef struct {
	Path string `json:"path"`
	Name string `json:"name"`
}

// packageName names a package.
type packageName struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// packageRecord is what is kept of a package.
type packageRecord struct {
	header
	Parameters parameters   `json:"parameters"`
	Binding    *packageName `json:"binding,omitempty"`
	System     string       `json:"system,omitempty"` // of those of the server: what they were made from
}

// triggerRecord is what is kept of a trigger.
type triggerRecord struct {
	header
	Parameters parameters `json:"parameters"`
	Alarm      *alarm     `json:"alarm,omitempty"` // what fires it, if that is of package alarms
}

// ruleRecord is what is kept of a rule.
type ruleRecord struct {
	header
	Trigger entityRef `json:"trigger"`
	Action  entityRef `json:"action"`
}

// decode reads the request's body as JSON into v. Fields that v does not have are left alone.
func (c *call) decode(v any) error {
	b, err := c.body(maxBody)
	if err != nil {
		return err
	}
	media, _, _ := strings.Cut(c.r.Header.Get("Content-Type"), ";")
	if media = strings.TrimSpace(media); !strings.EqualFold(media, "application/json") && (media != "" || len(b) > 0) {
		return errUnsupported
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return reject(http.StatusBadRequest, "The request has no content, and needs a JSON object.")
	}
	if !utf8.Valid(b) {
		return reject(http.StatusBadRequest, "The request content was malformed: it is not UTF-8.")
	}
	if err := json.Unmarshal(b, v); err != nil {
		if r, ok := err.(*rejection); ok {
			return r
		}
		return unreadable("", err)
	}
	return nil
}

// unreadable refuses JSON that can't be read. at is where in the request it lies; empty: it is all of it.
func unreadable(at string, err error) error {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok { // which names types of ours
		if e.Field != "" {
			at = strings.TrimPrefix(at+"."+e.Field, ".")
		}
		return reject(http.StatusBadRequest, "The request content was malformed: %q has a value of the wrong type, %s.", cmp.Or(at, "."), e.Value)
	}
	return reject(http.StatusBadRequest, "The request content was malformed: %v", err)
}

// firstVersion is that of what is made; each change adds one to its last number.
const firstVersion = "0.0.1"

// nextVersion is the version of a changed entity: the one that was sent, if one was.
func nextVersion(was string, sent *string) (string, error) {
	if sent != nil {
		if parts := strings.Split(*sent, "."); len(parts) <= 3 {
			ok := true
			for _, p := range parts {
				_, err := strconv.ParseUint(p, 10, 31) // digits alone, and far from where adding to it ends
				ok = ok && err == nil
			}
			if ok { // clients leave out what is 0 at the end
				return *sent + strings.Repeat(".0", 3-len(parts)), nil
			}
		}
		return "", reject(http.StatusBadRequest, "The request content was malformed: %.40q is not a version such as 0.0.1.", *sent)
	}
	if was == "" {
		return firstVersion, nil
	}
	major, patch := was, 0
	if i := strings.LastIndexByte(was, '.'); i >= 0 {
		major = was[:i]
		patch, _ = strconv.Atoi(was[i+1:]) // it was written here
	}
	return major + "." + strconv.Itoa(patch+1), nil
}

// touch is when a change is made, in ms since 1970: later than all before it, however fast they come, so
// that lists have what changed last before the rest.
func (s *Server) touch(was int64) int64 {
	for {
		last := s.touched.Load()
		if at := max(now().UnixMilli(), was+1, last+1); s.touched.CompareAndSwap(last, at) {
			return at
		}
	}
}

// origin is the form in which a record is kept.
func origin(record any) (*faas.Origin, error) {
	b, err := json.Marshal(record)
	if err != nil {
		return nil, err
	}
	return &faas.Origin{Dialect: dialect, Document: b}, nil
}

// readOrigin reads a record that was kept; false if there is none of this dialect.
func readOrigin(o *faas.Origin, into any) bool {
	return o != nil && o.Dialect == dialect && json.Unmarshal(o.Document, into) == nil
}
