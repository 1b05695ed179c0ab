package runtimes

import (
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Names of the runtimes.
const (
	Python     = "python"
	Node       = "node"
	Go         = "go"
	Java       = "java"
	Ruby       = "ruby"
	PHP        = "php"
	Rust       = "rust"
	DotNet     = "dotnet"
	Swift      = "swift"
	Wasm       = "wasm"
	Executable = "exec"
	JSONLines  = "lines"
	HTTPServer = "http"
	OpenWhisk  = "openwhisk"
	OpenFaaS   = "openfaas"
	Lambda     = "lambda"
	ActionLoop = "actionloop"
)

// GoBinary is what deploy names the program that it built from Go source.
const GoBinary = "brasa-function"

// language is what people ask for, and what to do when the host lacks it.
type language struct{ name, title, install string }

// names lists the languages there are, in the order in which people are told of them.
var names = []language{
	{Python, "Python", "install Python 3.8 or newer where root can read it: apt-get install python3"},
	{Node, "Node.js", "install Node.js 18 or newer: apt-get install nodejs"},
	{Go, "Go", "install the Go toolchain from https://go.dev/dl/ into /usr/local/go"},
	{Java, "Java", "install a JDK, 17 or newer: apt-get install default-jdk-headless"},
	{Ruby, "Ruby", "install Ruby 3.0 or newer: apt-get install ruby"},
	{PHP, "PHP", "install PHP 8.1 or newer for the command line: apt-get install php-cli"},
	{Rust, "Rust", "install Rust with cargo: https://rustup.rs, or apt-get install cargo"},
	{DotNet, ".NET", "install the .NET SDK, 8 or newer, which Debian does not have: https://dot.net/download, into /usr/share/dotnet; a runtime of it is enough for assemblies that are published elsewhere"},
	{Swift, "Swift (actions of OpenWhisk)", "install Swift 5.5 or newer: https://swift.org/install, or apt-get install swiftlang where Debian has it (13 and newer)"},
	{Wasm, "WebAssembly (WASI preview 1)", "run the brasa program itself as the server"},
	{Executable, "executable, one process per call", ""},
	{JSONLines, "executable, one JSON line per call", ""},
	{HTTPServer, "HTTP server", ""},
	{OpenWhisk, "action of OpenWhisk: HTTP server with /init and /run", ""},
	{OpenFaaS, "watchdog of OpenFaaS: HTTP server with /_/health", ""},
	{Lambda, "client of AWS Lambda's runtime API", ""},
	{ActionLoop, "executable that speaks ActionLoop, one JSON line per call", ""},
}

// styleOf returns the style of a language by its name.
func styleOf(name string) Style {
	switch name {
	case Executable, Rust: // what Rust is built to
		return StyleExec
	case JSONLines:
		return StyleLines
	case HTTPServer, OpenFaaS:
		return StyleHTTP
	case OpenWhisk:
		return StyleAction
	case Lambda:
		return StyleEvents
	case ActionLoop, Swift: // what Swift is built to
		return StyleLoop
	}
	return StyleFrames
}

// aliases are other names under which people ask for a language.
var aliases = map[string]string{
	"python3": Python, "py": Python, "nodejs": Node, "javascript": Node, "js": Node, "typescript": Node, "ts": Node, "golang": Go, "jvm": Java, "jdk": Java, "rb": Ruby, "rs": Rust, "cargo": Rust, "csharp": DotNet, "c#": DotNet, "fsharp": DotNet, ".net": DotNet,
	"wasi": Wasm, "webassembly": Wasm, "wasip1": Wasm,
	"executable": Executable, "binary": Executable, "shell": Executable, "sh": Executable, "bash": Executable,
	"jsonlines": JSONLines, "server": HTTPServer,
	"watchdog": OpenFaaS, "action": OpenWhisk,
}

// Registry holds the runtimes that were found on this host. It does not change.
type Registry struct {
	found    map[string]*Runtime
	missing  map[string]string // why a language is not there
	programs map[string]string // by name, for commands and shebangs: "python3", "node", "sh"
	rootDirs []string
}

// Info describes a language for people.
type Info struct {
	Name      string `json:"name"`
	Title     string `json:"title"`
	Available bool   `json:"available"`
	Version   string `json:"version,omitempty"`
	Style     Style  `json:"style"`
	Program   string `json:"program,omitempty" doc:"Interpreter or toolchain on the host"`
	Why       string `json:"why,omitempty" doc:"Why it is not available"`
	Fix       string `json:"fix,omitempty" doc:"How to make it available"`
}

// Runtimes lists every language there is, those not available on this host too.
func (r *Registry) Runtimes() []Info {
	out := make([]Info, 0, len(names))
	for _, n := range names {
		info := Info{Name: n.name, Title: n.title, Style: styleOf(n.name)}
		if rt := r.found[n.name]; rt != nil {
			info.Available, info.Version, info.Program = true, rt.Version, rt.Program
		} else {
			info.Why, info.Fix = r.missing[n.name], n.install
		}
		out = append(out, info)
	}
	return out
}

// Lookup returns a runtime by its name or one of its other names. A name that means nothing is
// Invalid, a language that this host lacks Unavailable.
func (r *Registry) Lookup(name string) (*Runtime, error) {
	const op = "look up runtime"
	key := strings.ToLower(name)
	if a, ok := aliases[key]; ok {
		key = a
	}
	if rt := r.found[key]; rt != nil {
		return rt, nil
	}
	for _, n := range names {
		if n.name == key {
			return nil, faas.Errorf(faas.Unavailable, op, "this host cannot run %s: %s", n.title, r.missing[key]).WithFix("%s", n.install)
		}
	}
	return nil, faas.Errorf(faas.Invalid, op, "there is no language %q; there are %s", clip(name), strings.Join(r.languages(), ", ")).
		WithFix("for any other deploy the program that it is compiled to, or a script with a first line such as #!/usr/bin/perl")
}

func (r *Registry) languages() []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = n.name
	}
	return out
}

// RootDirs returns the directories outside /usr that sandboxes must see for the runtimes to run.
func (r *Registry) RootDirs() []string { return slices.Clone(r.rootDirs) }
