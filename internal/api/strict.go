package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/brasa-dev/brasa/internal/faas"
)

// deepest is how many arrays and objects a document may have one in the other; ours have four.
const deepest = 32

// strict reads JSON as json.Unmarshal does, but takes one document only, of valid UTF-8, without
// keys that come twice (which of the two counts differs between readers), not nested deeply.
func strict(data []byte, v any) error {
	if !utf8.Valid(data) {
		return fmt.Errorf("the text is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := unique(d, 0); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("something follows the JSON value")
	}
	return json.Unmarshal(data, v)
}

func unique(d *json.Decoder, depth int) error {
	t, err := d.Token()
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	delim, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	if depth == deepest {
		return fmt.Errorf("more than %d levels are nested", deepest)
	}
	seen := map[string]struct{}{}
	for d.More() {
		if delim == '{' {
			key, err := d.Token()
			if err != nil {
				return err
			}
			k, _ := key.(string) // the decoder takes nothing else for a key
			if _, twice := seen[k]; twice {
				return fmt.Errorf("the key %.80q comes twice", k)
			}
			seen[k] = struct{}{}
		}
		if err := unique(d, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token() // the closing bracket
	return err
}

// decode reads and validates the JSON of a request that is not read by huma itself, by the rules
// that stand in the OpenAPI document. where names it in errors.
func decode[T any](s *Server, where string, data []byte) (*T, error) {
	registry := s.huma.OpenAPI().Components.Schemas
	schema := registry.Schema(reflect.TypeFor[T](), true, "")
	v := new(T)
	var parsed any
	if err := strict(data, &parsed); err != nil {
		return nil, faas.Errorf(faas.Invalid, "read request", "%s is not the JSON that is wanted: %v", where, err)
	}
	path := huma.NewPathBuffer([]byte{}, 0)
	path.Push(where)
	var res huma.ValidateResult
	huma.Validate(registry, schema, path, huma.ModeWriteToServer, parsed, &res)
	if len(res.Errors) > 0 {
		return nil, invalid(res.Errors)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return nil, faas.Errorf(faas.Invalid, "read request", "%s is not the JSON that is wanted: %v", where, err)
	}
	return v, nil
}

// mostComplaints is how many mistakes one answer names.
const mostComplaints = 5

// invalid makes one error of what validation found. It says where, never what was there: that
// may be a secret.
func invalid(errs []error) *faas.Error {
	var says []string
	for _, err := range errs {
		if e, ok := err.(*faas.Error); ok {
			return e
		}
		if len(says) == mostComplaints {
			says = append(says, fmt.Sprintf("and %d more", len(errs)-mostComplaints))
			break
		}
		d, ok := err.(huma.ErrorDetailer)
		if !ok {
			says = append(says, err.Error())
			continue
		}
		detail := d.ErrorDetail()
		where := detail.Location
		if len(where) > 120 {
			where = where[:120] + "…"
		}
		switch {
		case detail.Message == "unexpected property":
			name := where[strings.LastIndexByte(where, '.')+1:]
			says = append(says, fmt.Sprintf("unknown field %q (%s)", name, where))
		case where == "":
			says = append(says, detail.Message)
		default:
			says = append(says, where+": "+detail.Message)
		}
	}
	return faas.Errorf(faas.Invalid, "check request", "%s", strings.Join(says, "; ")).
		WithFix("compare it with the description at /v1/openapi.json")
}
