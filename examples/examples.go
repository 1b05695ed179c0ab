// Package examples holds functions that come with the server: small, finished, and each of use
// to somebody.
//
// Every folder is one function as it would be deployed by hand, with a README and the files that
// its README calls it with. examples.json lists them with calls and what is expected of each;
// the tests make these calls at a running server.
package examples

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
)

// FS holds the folders and examples.json.
//
//go:embed examples.json
//go:embed chat-echo counter-lines csv-summary csv-to-json fetch-page hello java-hello java-stats markdown
//go:embed qr search thumbnail tokens wasm-shout webhook wordcount
var FS embed.FS

// Example is one function with what is needed to deploy and to try it.
type Example struct {
	Name    string            `json:"name"`
	Dir     string            `json:"dir"`               // folder in FS
	About   string            `json:"about"`             // one line for people
	Public  bool              `json:"public,omitempty"`  // its URL may be called without a key
	Secrets map[string]string `json:"secrets,omitempty"` // put before it is deployed; the values are for demonstration only
	Network bool              `json:"network,omitempty"` // it asks for network egress, which not every host can give
	Build   []string          `json:"build,omitempty"`   // makes, run in the folder, the executable $OUT, which is deployed instead of the folder
	Calls   []Call            `json:"calls"`
}

// Call is one call and what is expected of its answer.
type Call struct {
	Kind    string            `json:"kind"`              // invoke: by name; http: at the function's own URL
	Method  string            `json:"method,omitempty"`  // for http; GET when empty, POST with a body
	Path    string            `json:"path,omitempty"`    // for http: below the URL, with the query
	Headers map[string]string `json:"headers,omitempty"` // Content-Type among them
	Input   json.RawMessage   `json:"input,omitempty"`   // a body of JSON
	Body    string            `json:"body,omitempty"`    // a body of text
	File    string            `json:"file,omitempty"`    // a body from a file in the folder
	Sign    string            `json:"sign,omitempty"`    // the secret with which the body is signed, in X-Signature
	Expect  Expect            `json:"expect"`
}

// Expect says what an answer must be like. What is left out is not looked at.
type Expect struct {
	Status      int             `json:"status"`
	ContentType string          `json:"content_type,omitempty"` // the beginning of it
	Picture     string          `json:"picture,omitempty"`      // width and height, "64x43"
	Equals      string          `json:"equals,omitempty"`
	Contains    []string        `json:"contains,omitempty"`
	Lacks       []string        `json:"lacks,omitempty"`
	JSON        json.RawMessage `json:"json,omitempty"` // every value in it is in the answer at the same place
}

var list = sync.OnceValue(func() []Example {
	b, err := FS.ReadFile("examples.json")
	if err != nil {
		panic(err) // it is embedded
	}
	var all []Example
	if err := json.Unmarshal(b, &all); err != nil {
		panic(fmt.Errorf("read examples.json: %w", err)) // the tests read it too
	}
	return all
})

// List returns the examples in the order in which people are shown them.
func List() []Example { return slices.Clone(list()) }

// Flags returns the flags of brasa deploy that the example needs besides its folder.
func (e Example) Flags() []string {
	var flags []string
	for _, name := range slices.Sorted(maps.Keys(e.Secrets)) {
		flags = append(flags, "--secret", name)
	}
	if e.Public {
		flags = append(flags, "--public")
	}
	return flags
}

// Archive returns the folder as a tar.gz, as brasa deploy sends it. The same folder makes the
// same bytes.
func (e Example) Archive() ([]byte, error) {
	folder, err := fs.Sub(FS, e.Dir)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	archive := tar.NewWriter(zip)
	err = fs.WalkDir(folder, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(folder, name)
		if err != nil {
			return err
		}
		mode := int64(0o644)
		if strings.HasPrefix(string(data), "#!") { // embedding forgets the mode
			mode = 0o755
		}
		if err := archive.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		_, err = archive.Write(data)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("pack example %s: %w", e.Name, err)
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	if err := zip.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
