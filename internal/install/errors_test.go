package install

import (
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
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
