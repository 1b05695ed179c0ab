package install

import (
	"regexp"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

var (
	goMismatch    = regexp.MustCompile(`(?m)^(?:go: )?(?:verifying )?(\S+@\S+?)(?:/go\.mod)?: (?:verifying (?:module|go\.mod): )?checksum mismatch`)
	goNewer       = regexp.MustCompile(`(?m)^go: (?:\S+ )?(?:go\.mod|\S+@\S+) requires go >= (\S+) \(running go ([^;)\s]+)`)
	goAbsent      = regexp.MustCompile(`(?m)(?:^|go: |\s)([^\s:]+)@([^\s:]+): (?:reading \S+: (40[34]|410)[^\n]*|invalid version[^\n]*|unknown revision[^\n]*|module [^\n]* found[^\n]*does not contain[^\n]*)`)
	goAnonymous   = regexp.MustCompile(`(?m)reading (\S+): 401 `)
	goMalformed   = regexp.MustCompile(`(?m)malformed module path "([^"]+)"|module (\S+): unrecognized import path[^\n]*`)
	goSumDatabase = regexp.MustCompile(`(?m)(\S+@\S+): verifying (?:module|go\.mod): [^\n]*`)
)

// Explain knows what the go command writes.
func (g *goModules) Explain(m *Manifest, output string) *faas.Error {
	if x := goMismatch.FindStringSubmatch(output); x != nil {
		if m.Lock == "" {
			return faas.Errorf(faas.Invalid, op, "the proxy has other bytes of %s than the checksum database knows of", x[1]).
				WithFix("choose another version; or see whether the proxy is what it should be")
		}
		return faas.Errorf(faas.Invalid, op, "%s has another hash than go.sum says", x[1]).
			WithFix("restore go.sum from your history; if the module was meant to change, take its lines out and run go mod tidy")
	}
	if x := goNewer.FindStringSubmatch(output); x != nil {
		return faas.Errorf(faas.Invalid, op, "Go %s is required, and the server has %s", x[1], x[2]).
			WithFix("lower it in go.mod: go mod edit -go=%s && go mod tidy; or have the operator install a newer toolchain", x[2])
	}
	if x := goAnonymous.FindStringSubmatch(output); x != nil {
		return faas.Errorf(faas.Unavailable, op, "the proxy demands a name and a password: %s", redact(x[1])).
			WithFix("put them into the address in registries.go.proxy: https://user:password@proxy.example")
	}
	if x := goAbsent.FindStringSubmatch(output); x != nil {
		return faas.Errorf(faas.Invalid, op, "there is no version %s of the module %s, or it is not public", x[2], x[1]).
			WithFix("choose one of: go list -m -versions %s; of a private module the operator names the proxy with registries.go.proxy, or its path with registries.go.private", x[1])
	}
	if x := goMalformed.FindStringSubmatch(output); x != nil {
		return faas.Errorf(faas.Invalid, op, "%q is no path of a module", strings.TrimSpace(x[1]+x[2])).WithFix("mend it in go.mod")
	}
	if x := goSumDatabase.FindStringSubmatch(output); x != nil {
		return faas.Errorf(faas.Unavailable, op, "the checksum database cannot be asked for %s, of which go.sum has no hash", x[1]).
			WithFix("send a complete go.sum along: go mod tidy; or let the operator choose another database, or none, with registries.go.sum")
	}
	return nil
}
