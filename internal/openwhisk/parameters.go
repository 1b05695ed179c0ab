package openwhisk

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
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

// truthy says whether a key has a value that counts as true.
func (p parameters) truthy(key string) bool {
	var v any
	if raw := p.get(key); raw == nil || json.Unmarshal(raw, &v) != nil {
		return false
	}
	return truthy(v)
}

// truthy says whether a JSON value counts as true, as OpenWhisk reads annotations: all but null, false, 0 and
// the empty text.
func truthy(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != ""
	case float64:
		return v != 0
	}
	return true
}

// quoted is a text or a boolean as JSON.
func quoted[T string | bool](v T) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil { // not possible: it is a text or a boolean
		return json.RawMessage("null")
	}
	return b
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
	for _, key := range slices.Sorted(maps.Keys(m)) {
		out = append(out, parameter{Key: key, Value: m[key]})
	}
	return out
}

// checkSizes refuses what is larger than parameters and annotations may be, each; nil: none were sent.
func (s *Server) checkSizes(params, annotations *parameters) error {
	for _, sent := range []struct {
		what string
		list *parameters
	}{{"The parameters", params}, {"The annotations", annotations}} {
		if sent.list == nil {
			continue
		}
		if n := sent.list.size(); n > int64(s.cfg.Limits.Parameters) {
			return tooLarge(sent.what, n, int64(s.cfg.Limits.Parameters))
		}
	}
	return nil
}
