package worker

import (
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
)

func TestWhoHasNoNetworkIsToldHowToGetOne(t *testing.T) {
	for _, c := range []struct {
		message, trace string
		network        faas.Network
		want           bool
	}{
		{"URLError: <urlopen error [Errno -3] Temporary failure in name resolution>", "", faas.NetworkNone, true},
		{"TypeError: fetch failed", "[cause]: Error: getaddrinfo EAI_AGAIN example.org", faas.NetworkNone, true},
		{"Get \"https://example.org\": dial tcp: lookup example.org: no such host", "", faas.NetworkNone, true},
		{"ConnectError: [Errno 101] Network is unreachable", "", faas.NetworkNone, true},
		{"URLError: <urlopen error [Errno -2] Temporary failure in name resolution>", "", faas.NetworkEgress, false},
		{"KeyError: 'network'", "", faas.NetworkNone, false},
	} {
		e := faas.Errorf(faas.Failed, "run function", "%s", c.message)
		e.Trace = c.trace
		if got := advise(&faas.Revision{Network: c.network}, e); (got.Fix != "") != c.want || e.Fix != "" {
			t.Errorf("%s, network %s: fix %q, want one: %v", c.message, c.network, got.Fix, c.want)
		}
	}
}
