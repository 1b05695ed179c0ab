package runtimes

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Manifest is the name of the file in which code may say what it is and needs.
const Manifest = "brasa.json"

// manifest is what brasa.json says. Flags win over it.
type manifest struct {
	Language  string            `json:"language"`
	Entry     string            `json:"entry"`
	Handler   string            `json:"handler"`
	Command   []string          `json:"command"`
	Env       map[string]string `json:"env"`
	Secrets   []string          `json:"secrets"`
	Limits    faas.Limits       `json:"limits"`
	Network   faas.Network      `json:"network"`
	Install   Install           `json:"install"`
	Prefetch  bool              `json:"prefetch"`
	Conductor bool              `json:"conductor"`
	Async     *faas.Async       `json:"async"`
	Warm      []faas.WarmWindow `json:"warm"`
}

// Install is what code asks of the installation of its dependencies.
type Install struct {
	With    []string `json:"with"`    // packages besides those that its manifest names
	Scripts bool     `json:"scripts"` // their code may run while they are installed
	Strict  bool     `json:"strict"`  // nothing is installed of which the lock has no hash
}

// maxManifest is the most of a manifest that is read.
const maxManifest = 256 << 10

func readManifest(tree fs.FS) (manifest, error) {
	var m manifest
	b, err := readSmall(tree, Manifest)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields() // a word misspelt would be a setting that silently has no effect
	if err := d.Decode(&m); err != nil {
		return m, faas.Errorf(faas.Invalid, "read "+Manifest, "%s: %v", Manifest, err)
	}
	for name := range m.Env {
		if err := CheckEnv(name); err != nil {
			return m, err
		}
	}
	if !slices.Contains([]faas.Network{"", faas.NetworkNone, faas.NetworkEgress}, m.Network) {
		return m, faas.Errorf(faas.Invalid, "read "+Manifest, `%s: network is %q; it must be "none" or "egress"`, Manifest, clip(string(m.Network)))
	}
	return m, nil
}

// readSmall reads a file of the tree that has no business to be large.
func readSmall(tree fs.FS, name string) ([]byte, error) {
	f, err := tree.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err == nil && len(b) > maxManifest {
		err = faas.Errorf(faas.TooLarge, "read "+name, "%s is larger than %s", name, faas.Bytes(maxManifest))
	}
	return b, err
}

// nodePackage is the part of package.json that says what is run.
type nodePackage struct {
	Main         string            `json:"main"`
	Module       string            `json:"module"`
	Exports      json.RawMessage   `json:"exports"`
	Dependencies map[string]string `json:"dependencies"`
}

func readPackage(tree fs.FS) (nodePackage, error) {
	var m nodePackage
	b, err := readSmall(tree, "package.json")
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, faas.Errorf(faas.Invalid, "read package.json", "package.json: %v", err)
	}
	return m, nil
}

// packageEntry returns the file that package.json names: exports for ".", main, module, then
// what Node.js itself would take.
func packageEntry(tree fs.FS, files []string) (string, error) {
	m, err := readPackage(tree)
	if err != nil {
		return "", err
	}
	for _, name := range []string{exported(m.Exports), m.Main, m.Module} {
		if name == "" {
			continue
		}
		clean := path.Clean(strings.TrimPrefix(name, "./"))
		for _, try := range []string{clean, clean + ".js", clean + ".cjs", clean + "/index.js"} {
			if info, err := fs.Stat(tree, try); fs.ValidPath(try) && err == nil && info.Mode().IsRegular() {
				return try, nil
			}
		}
		if source := sourceOfBuilt(tree, clean); source != "" {
			return source, nil
		}
		return "", faas.Errorf(faas.Invalid, detectOp, "package.json names %q, which the code does not have", clip(name)).
			WithFix("build the code first, or say which file is the function with --entry")
	}
	for _, name := range []string{"index.js", "index.mjs", "index.cjs"} {
		if slices.Contains(files, name) {
			return name, nil
		}
	}
	return "", nil
}

// exported returns the target of "." in a package's exports.
func exported(raw json.RawMessage) string {
	for range 8 { // conditions nest, but not for long
		var s string
		if json.Unmarshal(raw, &s) == nil {
			return s
		}
		var m map[string]json.RawMessage
		if json.Unmarshal(raw, &m) != nil {
			return ""
		}
		next := json.RawMessage(nil)
		for _, key := range []string{".", "node", "import", "require", "default"} {
			if m[key] != nil {
				next = m[key]
				break
			}
		}
		if next == nil {
			return ""
		}
		raw = next
	}
	return ""
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}
