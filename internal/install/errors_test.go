package install

import (
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
)

// What tools write when there is no way to their registry is told as that, with the registry's name.
func TestARegistryOutOfReachIsTold(t *testing.T) {
	for _, x := range []struct{ wrote, want string }{
		{"Could not reach host index.rubygems.org. Check your network connection and try\nagain.\n", "index.rubygems.org"},
		{"  The \"https://repo.packagist.org/packages.json\" file could not be downloaded: php_network_getaddresses: getaddrinfo for repo.packagist.org failed: Name or service not known\n", "repo.packagist.org"},
	} {
		b := &build{job: &Job{Tool: "tool 1.0"}}
		e := b.unreachable(x.wrote)
		if e == nil || e.Code != faas.Unavailable || !strings.Contains(e.Message(), "cannot reach its registry") || !strings.Contains(e.Message(), x.want) {
			t.Errorf("of %q: got %v; want unavailable, and %s named", x.wrote, e, x.want)
		}
	}
}

// Colours that a tool writes though it writes to no terminal leave nothing behind.
func TestWhatToolsWriteHasNoColours(t *testing.T) {
	if got := lastLine([]byte("\x1b[36mINFO\x1b[m Scanning\n\x1b[0m\x1b[0m\n")); got != "INFO Scanning" {
		t.Errorf("got %q", got)
	}
}

// A server that can give no network says that once, with what the one who deploys can do and what the operator can.
func TestInstallingWithoutANetworkIsTold(t *testing.T) {
	u := &sandbox.UnsupportedError{Feature: "egress", Why: "an ordinary user has no power over it", Fix: "run as root, or do without network"}
	e := faas.AsError((&build{}).noSandbox(JobStep{Network: true}, u))
	if e.Code != faas.Unavailable || strings.Count(e.Message()+e.Fix, "run as root") != 1 ||
		!strings.Contains(e.Message(), "packages are installed with a network") || !strings.Contains(e.Fix, "bring the packages with the code") {
		t.Errorf("got %q, fix %q", e.Message(), e.Fix)
	}
}
