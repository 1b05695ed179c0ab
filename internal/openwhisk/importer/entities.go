package importer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// keyValue is an annotation or a parameter.
type keyValue struct {
	Key        string          `json:"key"`
	Value      json.RawMessage `json:"value"`
	Init       bool            `json:"init,omitempty"`
	Encryption json.RawMessage `json:"encryption,omitempty"`
}

// reference names an entity; it is read from either of its forms, "/ns/name" and {path, name}.
type reference struct {
	Path string `json:"path"`
	Name string `json:"name"`
}

// document is an entity as its API has it: of each kind, what a copy needs.
type document struct {
	Namespace   string          `json:"namespace,omitempty"`
	Name        string          `json:"name,omitempty"`
	Publish     bool            `json:"publish"`
	Annotations []keyValue      `json:"annotations"`
	Parameters  []keyValue      `json:"parameters"`
	Exec        *execution      `json:"exec,omitempty"`
	Limits      map[string]int  `json:"limits,omitempty"`
	Binding     json.RawMessage `json:"binding,omitempty"`
	Trigger     *reference      `json:"trigger,omitempty"`
	Action      *reference      `json:"action,omitempty"`
	Status      string          `json:"status,omitempty"`
	Removed     []string        `json:"delAnnotations,omitempty"`
}

// execution is what an action runs.
type execution struct {
	Kind       string   `json:"kind"`
	Code       *string  `json:"code,omitempty"`
	Main       string   `json:"main,omitempty"`
	Image      string   `json:"image,omitempty"`
	Binary     bool     `json:"binary,omitempty"`
	Components []string `json:"components,omitempty"`
}

// binding is what a bound package is bound to.
type binding struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// boundTo returns what a package is bound to, if it is a binding.
func boundTo(raw json.RawMessage) (b binding, ok bool) {
	return b, json.Unmarshal(raw, &b) == nil && b.Name != ""
}

// annotation returns the value of an annotation as text; "" if there is none or it is no text.
func (d *document) annotation(key string) (s string, found bool) {
	i := slices.IndexFunc(d.Annotations, func(kv keyValue) bool { return kv.Key == key })
	if i < 0 {
		return "", false
	}
	_ = json.Unmarshal(d.Annotations[i].Value, &s) // not a text: ""
	return s, true
}

// withoutEncrypted leaves out the parameters that are encrypted with a key that only the source has.
func (d *document) withoutEncrypted(note func(string, ...any)) {
	d.Parameters = slices.DeleteFunc(d.Parameters, func(p keyValue) bool {
		var scheme string
		encrypted := json.Unmarshal(p.Encryption, &scheme) == nil && scheme != ""
		if encrypted {
			note("parameter %q is encrypted at the source and left out: set it anew", p.Key)
		}
		return encrypted
	})
	for i := range d.Parameters {
		d.Parameters[i].Encryption = nil
	}
}

// rename makes a name of the source's namespace one of the caller's own.
func rename(name, source string) string {
	rest, ok := strings.CutPrefix(strings.TrimPrefix(name, "/"), source+"/")
	if !ok {
		return name
	}
	return "/_/" + rest
}

// qualified is a reference as "/ns/pkg/name".
func (r *reference) qualified() string {
	return "/" + strings.Trim(r.Path, "/") + "/" + r.Name
}

// UnmarshalJSON reads either form.
func (r *reference) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) == nil {
		i := strings.LastIndexByte(text, '/')
		if i < 0 {
			return fmt.Errorf("%q is no fully qualified name", text)
		}
		r.Path, r.Name = strings.Trim(text[:i], "/"), text[i+1:]
		return nil
	}
	type plain reference
	return json.Unmarshal(b, (*plain)(r))
}

// MarshalJSON writes the form of requests.
func (r reference) MarshalJSON() ([]byte, error) { return json.Marshal(r.qualified()) }

// differs says whether what is there is not what a copy would be. What the server adds by itself does
// not count: annotations of its own, and limits that were not asked for.
func (d *document) differs(there *document) bool {
	if d.Publish != there.Publish || !samePairs(d.Parameters, there.Parameters, nil) || !samePairs(d.Annotations, there.Annotations, []string{"exec", "provide-api-key"}) {
		return true
	}
	if there.Exec != nil && there.Exec.Code == nil && d.Exec != nil && d.Exec.Code != nil && *d.Exec.Code == "" {
		there.Exec.Code = d.Exec.Code // an image's code that is empty
	}
	for k, v := range d.Limits {
		if there.Limits[k] != v {
			return true
		}
	}
	return !sameJSON(d.Exec, there.Exec)
}

// samePairs compares lists of pairs, in any order. Those of ignored keys that want lacks are left out.
func samePairs(want, got []keyValue, ignored []string) bool {
	values := map[string]string{}
	for _, p := range want {
		values[p.Key] = fmt.Sprint(p.Init, canonical(p.Value))
	}
	n := 0
	for _, p := range got {
		v, ok := values[p.Key]
		if !ok && slices.Contains(ignored, p.Key) {
			continue
		}
		if !ok || v != fmt.Sprint(p.Init, canonical(p.Value)) {
			return false
		}
		n++
	}
	return n == len(values)
}

func canonical(raw json.RawMessage) string {
	var v any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // large numbers stay what they are
	if d.Decode(&v) != nil {
		return string(raw)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return string(raw)
	}
	return string(b)
}

func sameJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && canonical(x) == canonical(y)
}
