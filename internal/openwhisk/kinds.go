package openwhisk

import (
	"errors"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

// kind is a kind of action: a language in a version, as clients name it.
type kind struct {
	Name       string // "nodejs:20"
	Family     string // "nodejs"
	Language   string // what a deploy calls it; empty: sequence, blackbox
	Default    bool   // of its family
	Deprecated bool   // can be read and deleted, and neither made nor called
	Main       bool   // main must be said
	Image      string // what clients are told; nothing is fetched by it
}

// kinds are those that upstream's manifest has had. A version is a name only: the host's own
// interpreter runs all of a family.
var kinds = []kind{
	{Name: "nodejs:18", Language: "node"},
	{Name: "nodejs:20", Language: "node", Default: true},
	{Name: "nodejs:22", Language: "node"},
	{Name: "nodejs:16", Language: "node"},
	{Name: "nodejs:14", Language: "node"},
	{Name: "nodejs:12", Language: "node"},
	{Name: "nodejs:10", Language: "node"},
	{Name: "nodejs:8", Language: "node", Deprecated: true},
	{Name: "nodejs:6", Language: "node", Deprecated: true},
	{Name: "nodejs", Language: "node", Deprecated: true},
	{Name: "python:3.10", Language: "python", Default: true},
	{Name: "python:3.11", Language: "python"},
	{Name: "python:3.12", Language: "python"},
	{Name: "python:3.9", Language: "python"},
	{Name: "python:3.7", Language: "python"},
	{Name: "python:3.6", Language: "python"},
	{Name: "python:3", Language: "python"},
	{Name: "python:2", Language: "python", Deprecated: true},
	{Name: "go:1.20", Language: "go", Default: true},
	{Name: "go:1.22", Language: "go"},
	{Name: "go:1.24", Language: "go"},
	{Name: "go:1.19", Language: "go"},
	{Name: "go:1.17", Language: "go"},
	{Name: "go:1.15", Language: "go"},
	{Name: "go:1.13", Language: "go"},
	{Name: "go:1.11", Language: "go"},
	{Name: "java:8", Language: "java", Default: true, Main: true},
	{Name: "java:17", Language: "java", Main: true},
	{Name: "java", Language: "java", Main: true},
	{Name: "php:8.1", Language: "php", Default: true},
	{Name: "php:8.2", Language: "php"},
	{Name: "php:8.0", Language: "php"},
	{Name: "php:7.4", Language: "php"},
	{Name: "php:7.3", Language: "php"},
	{Name: "ruby:2.5", Language: "ruby", Default: true},
	{Name: "ruby:3.1", Language: "ruby"},
	{Name: "rust:1.34", Language: "rust", Default: true},
	{Name: "dotnet:3.1", Language: "dotnet", Default: true, Main: true},
	{Name: "dotnet:6.0", Language: "dotnet", Main: true},
	{Name: "dotnet:8.0", Language: "dotnet", Main: true},
	{Name: "dotnet:2.2", Language: "dotnet", Main: true},
	{Name: "swift:5.3", Language: "swift", Default: true},
	{Name: "swift:5.7", Language: "swift"},
	{Name: "swift:5.4", Language: "swift"},
	{Name: "swift:5.1", Language: "swift"},
	{Name: "swift:4.2", Language: "swift"},
}

func init() {
	for i := range kinds {
		k := &kinds[i]
		k.Family, _, _ = strings.Cut(k.Name, ":")
		k.Image = "brasa/" + strings.ReplaceAll(k.Name, ":", "-")
	}
}

// findKind returns the kind of that name; "FAMILY:default" is the family's default.
func findKind(name string) (kind, bool) {
	family, version, _ := strings.Cut(name, ":")
	for _, k := range kinds {
		if k.Name == name || k.Default && k.Family == family && version == "default" {
			return k, true
		}
	}
	return kind{}, false
}

// runtimeInfo is a kind as GET / shows it.
type runtimeInfo struct {
	Kind        string `json:"kind"`
	Image       string `json:"image"`
	Deprecated  bool   `json:"deprecated"`
	Default     bool   `json:"default"`
	Attached    bool   `json:"attached"`
	RequireMain bool   `json:"requireMain,omitempty"`
}

func (s *Server) manifest() map[string][]runtimeInfo {
	all := map[string][]runtimeInfo{}
	for _, k := range kinds {
		if s.lacks(k) != nil {
			continue
		}
		all[k.Family] = append(all[k.Family], runtimeInfo{
			Kind: k.Name, Image: k.Image, Deprecated: k.Deprecated, Default: k.Default, Attached: true, RequireMain: k.Main,
		})
	}
	return all
}

// lacks says why this machine can't run a kind, and what to do; nil if it can.
func (s *Server) lacks(k kind) error {
	if s.cfg.Ready == nil || k.Language == "" {
		return nil
	}
	err := s.cfg.Ready(k.Language)
	if err == nil {
		return nil
	}
	e := faas.AsError(err)
	text := e.Message()
	if e.Fix != "" {
		text += "; " + e.Fix
	}
	return errors.New(text + "; or bring an image that has it, as kind blackbox")
}

// CheckKinds refuses names of kinds that there are not, so that no namespace is held to nothing by a slip
// of the pen.
func CheckKinds(names []string) error {
	for _, name := range names {
		if name == kindSequence || name == kindBlackbox || slices.ContainsFunc(kinds, func(k kind) bool { return k.Name == name }) {
			continue
		}
		e := faas.Errorf(faas.Invalid, "set limits", "there is no kind %q of actions", name).WithLimit("kinds")
		if k, ok := findKind(name); ok {
			return e.WithFix("name it in its version: %s", k.Name)
		}
		var all []string
		for _, k := range kinds {
			all = append(all, k.Name)
		}
		return e.WithFix("name some of %s", strings.Join(append(all, kindSequence, kindBlackbox), ", "))
	}
	return nil
}

// kindNames are the kinds that actions can be made of here, for people.
func (s *Server) kindNames() string {
	var names []string
	for _, k := range kinds {
		if !k.Deprecated && s.lacks(k) == nil {
			names = append(names, k.Name)
		}
	}
	return strings.Join(append(names, kindSequence, kindBlackbox), ", ")
}
