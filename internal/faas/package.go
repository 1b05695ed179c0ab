package faas

import (
	"encoding/json"
	"time"
)

// Package is a folder of functions of a namespace with something in common: parameters, and whether
// other namespaces may use what is in it. Functions need none: "tools/resize" is a name like any other
// until somebody makes the package tools.
type Package struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"` // made at creation; a name deleted and made again has another
	// Params are put beneath those of each function in it.
	Params map[string]json.RawMessage `json:"params,omitempty"`
	// Shared lets subjects of other namespaces call the functions in it, and bind it.
	Shared bool `json:"shared,omitempty"`
	// Binding makes it a second name for another package, with parameters of its own: it has that one's
	// functions and none besides. nil: it is a folder.
	Binding *PackageRef `json:"binding,omitempty"`
	Origin  *Origin     `json:"origin,omitempty"`
	Created time.Time   `json:"created"`
	Updated time.Time   `json:"updated"`
}

// PackageRef names a package.
type PackageRef struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// Origin is what the API of another platform keeps with what was made through it: what that
// platform's clients want to see again. Nothing of it decides how anything runs.
type Origin struct {
	Dialect  string          `json:"dialect"` // the platform: "openwhisk"
	Document json.RawMessage `json:"document,omitempty"`
}

// Contracts: what a function's code expects of whoever calls it.
const (
	ContractNative    = ""          // Brasa's own, as docs/functions.md has it
	ContractOpenWhisk = "openwhisk" // that of OpenWhisk's actions
)
