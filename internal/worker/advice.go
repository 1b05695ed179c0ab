package worker

import (
	"regexp"

	"github.com/brasa-dev/brasa/internal/faas"
)

// offline is what languages say where there is no network: of a name that nobody resolves, and of an
// address to which no way leads.
var offline = regexp.MustCompile(`(?i)temporary failure in name resolution|EAI_AGAIN|ENETUNREACH|network is unreachable|UnknownHostException|getaddrinfo|no such host|connect: cannot assign requested address`)

// advise adds to an error of the function's what to do, where it comes of how the function is confined.
func advise(rev *faas.Revision, e *faas.Error) *faas.Error {
	if e.Code != faas.Failed || e.Fix != "" || rev.Network == faas.NetworkEgress || !offline.MatchString(e.Message()+"\n"+e.Trace) {
		return e
	}
	told := *e
	return told.WithFix("functions have no network unless they ask for it: --network egress")
}
