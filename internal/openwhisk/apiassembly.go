package openwhisk

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// gatewayKey is the part of a description that is for upstream's gateway. It is shown, because clients and
// scripts read it, and not followed: what is called is in each operation.
const gatewayKey = "x-ibm-configuration"

// operationID is the name of an operation: get and /path/of_it are getPathOf_it.
func operationID(method, path string) string {
	var b strings.Builder
	b.WriteString(method)
	for _, word := range strings.FieldsFunc(path, func(r rune) bool { return strings.ContainsRune("/{}-. ", r) }) {
		first, size := utf8.DecodeRuneInString(word)
		b.WriteRune(unicode.ToUpper(first))
		b.WriteString(word[size:])
	}
	return b.String()
}

// gatewayCase is what upstream's gateway does for some operations.
type gatewayCase struct {
	Operations []string        `json:"operations"`
	Execute    []gatewayInvoke `json:"execute"`
}

type gatewayInvoke struct {
	Invoke struct {
		URL  string `json:"target-url"`
		Verb string `json:"verb"`
	} `json:"invoke"`
}

// withAssembly returns the description with the part for upstream's gateway, as far as it has none.
func (d swaggerDoc) withAssembly() swaggerDoc {
	config := map[string]json.RawMessage{}
	if old, ok := d.more[gatewayKey]; ok && json.Unmarshal(old, &config) != nil {
		return d
	}
	if config["cors"] == nil {
		config["cors"] = json.RawMessage(`{"enabled":true}`)
	}
	if config["assembly"] == nil {
		config["assembly"] = d.assembly()
	}
	all, err := json.Marshal(config)
	if err != nil {
		return d
	}
	d.more = maps.Clone(d.more)
	if d.more == nil {
		d.more = map[string]json.RawMessage{}
	}
	d.more[gatewayKey] = all
	return d
}

func (d *swaggerDoc) assembly() json.RawMessage {
	cases := []gatewayCase{}
	for _, path := range slices.Sorted(maps.Keys(d.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(d.Paths[path])) {
			var op struct {
				operation
				ID string `json:"operationId"`
			}
			if json.Unmarshal(d.Paths[path][method], &op) != nil || op.Whisk == nil {
				continue
			}
			one := gatewayCase{Operations: []string{op.ID}, Execute: make([]gatewayInvoke, 1)}
			one.Execute[0].Invoke.Verb = "keep"
			one.Execute[0].Invoke.URL = op.Whisk.URL
			if strings.Contains(path, "{") {
				one.Execute[0].Invoke.URL += "$(request.path)"
			}
			cases = append(cases, one)
		}
	}
	b, err := json.Marshal(map[string]any{"execute": []any{map[string]any{"operation-switch": map[string]any{"case": cases}}}})
	if err != nil {
		return json.RawMessage("{}")
	}
	return b
}

// forgetAssembly drops what says how the operations are called: they have changed.
func (d *swaggerDoc) forgetAssembly() {
	config := map[string]json.RawMessage{}
	if json.Unmarshal(d.more[gatewayKey], &config) != nil || config["assembly"] == nil {
		return
	}
	delete(config, "assembly")
	if b, err := json.Marshal(config); err == nil {
		d.more[gatewayKey] = b
	}
}
