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

// parameter is one of an entity's parameters or annotations as clients send it and want to see it again.
type parameter struct {
	Key        string          `json:"key"`
	Value      json.RawMessage `json:"value"`
	Init       bool            `json:"init,omitempty"`       // it is a variable of the environment and no argument
	Encryption json.RawMessage `json:"encryption,omitempty"` // kept as it came
}

// parameters keep the order in which they came.
type parameters []parameter

// UnmarshalJSON reads a list. Of two with one key the last counts.
func (p *parameters) UnmarshalJSON(b []byte) error {
	var list []struct {
		Key        *string         `json:"key"`
		Value      json.RawMessage `json:"value"`
		Init       bool            `json:"init"`
		Encryption json.RawMessage `json:"encryption"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	*p = parameters{}
	for _, e := range list {
		if e.Key == nil || *e.Key == "" {
			return errNoKey
		}
		if e.Value == nil {
			e.Value = json.RawMessage("null")
		}
		*p = append(*p, parameter{*e.Key, e.Value, e.Init, e.Encryption})
	}
	*p = p.last()
	return nil
}

// last leaves of entries with one key the last one, in the place of the first. There may be a million.
func (p parameters) last() parameters {
	at := make(map[string]int, len(p))
	out := p[:0]
	for _, v := range p {
		if i, again := at[v.Key]; again {
			out[i] = v
			continue
		}
		at[v.Key] = len(out)
		out = append(out, v)
	}
	return out
}

var errNoKey = reject(http.StatusBadRequest, "The request content was malformed: parameters and annotations are lists of objects with a key and a value.")

// MarshalJSON writes a list, also where there are none.
func (p parameters) MarshalJSON() ([]byte, error) {
	if p == nil {
		return []byte("[]"), nil
	}
	return json.Marshal([]parameter(p))
}

// set replaces the one with the same key, or appends.
func (p *parameters) set(v parameter) {
	for i := range *p {
		if (*p)[i].Key == v.Key {
			(*p)[i] = v
			return
		}
	}
	*p = append(*p, v)
}

// get returns the value of a key; nil if there is none.
func (p parameters) get(key string) json.RawMessage {
	for _, v := range p {
		if v.Key == key {
			return v.Value
		}
	}
	return nil
}

// truthy says whether a key has a value other than false, null, nothing and zero.
func (p parameters) truthy(key string) bool {
	switch v := string(bytes.TrimSpace(p.get(key))); v {
	case "", "false", "null", `""`, "0":
		return false
	}
	return true
}

// with returns a copy with the entries of more over those of p, and without the keys of gone.
func (p parameters) with(more parameters, gone []string) parameters {
	without := make(map[string]bool, len(gone))
	for _, key := range gone {
		without[key] = true
	}
	out := parameters{}
	for _, v := range p {
		if !without[v.Key] {
			out = append(out, v)
		}
	}
	return append(out, more...).last()
}

// size is how many bytes they count for their limit.
func (p parameters) size() int64 {
	var n int
	for _, v := range p {
		n += len(v.Key) + len(v.Value)
	}
	return int64(n)
}

// arguments are those that are put beneath the fields of an input; nil if there are none.
func (p parameters) arguments() map[string]json.RawMessage {
	var out map[string]json.RawMessage
	for _, v := range p {
		if v.Init {
			continue
		}
		if out == nil {
			out = map[string]json.RawMessage{}
		}
		out[v.Key] = v.Value
	}
	return out
}

// environment are those that the code finds in its environment: strings as they are, all else as JSON.
func (p parameters) environment() map[string]string {
	out := map[string]string{}
	for _, v := range p {
		if !v.Init {
			continue
		}
		var s string
		if json.Unmarshal(v.Value, &s) != nil {
			s = string(v.Value)
		}
		out[v.Key] = s
	}
	return out
}

// argumentList is the form in which clients see parameters that were not made through this API.
func argumentList(m map[string]json.RawMessage) parameters {
	out := parameters{}
	for _, key := range sortedKeys(m) {
		out = append(out, parameter{Key: key, Value: m[key]})
	}
	return out
}

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

// checkSize refuses what is larger than parameters and annotations may be, each.
func (s *Server) checkSize(what string, p parameters) error {
	if n := p.size(); n > int64(s.cfg.Limits.Parameters) {
		return tooLarge(what, n, int64(s.cfg.Limits.Parameters))
	}
	return nil
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
