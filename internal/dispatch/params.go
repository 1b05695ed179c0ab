package dispatch

import (
	"bytes"
	"encoding/json"
	"io"

	"github.com/brasa-dev/brasa/internal/faas"
)

// withParams puts the parameters of the function and its package beneath the fields of an input that is
// a JSON object, or that there is none of. Any other input stays as it is.
func withParams(inv *faas.Invocation, params map[string]json.RawMessage) error {
	if len(params) == 0 || inv.Kind == faas.KindHTTP {
		return nil
	}
	var body []byte
	if inv.Body != nil {
		var err error
		if body, err = io.ReadAll(inv.Body); err != nil {
			return err
		}
	}
	replace := func(b []byte) {
		inv.Body, inv.Length = bytes.NewReader(b), int64(len(b))
	}
	var fields map[string]json.RawMessage
	if b := bytes.TrimSpace(body); len(b) > 0 && (json.Unmarshal(b, &fields) != nil || fields == nil) {
		replace(body)
		return nil
	}
	all := make(map[string]json.RawMessage, len(params)+len(fields))
	for _, m := range []map[string]json.RawMessage{params, fields} {
		for k, v := range m {
			all[k] = v
		}
	}
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	if len(body) == 0 {
		setHeader(inv, "Content-Type", "application/json")
	}
	replace(b)
	return nil
}
