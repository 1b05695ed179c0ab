package worker_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
)

const remembers = `
import os
seen = []
def main(args):
    seen.append(args["who"])
    return {"seen": " ".join(seen), "greeting": os.environ.get("GREETING", "")}
`

// A function that is shared keeps what one namespace leaves in its process from the next, and what
// came into the environment with one call from those that came without.
func TestCallersOfOtherNamespacesHaveProcessesOfTheirOwn(t *testing.T) {
	m := newMachine(t, nil)
	for _, contract := range []string{faas.ContractNative, faas.ContractOpenWhisk} {
		rev := m.pythonFunction(t, "shared"+contract, remembers, func(r *faas.Revision) { r.Contract = contract })
		for i, c := range []struct {
			owner, greeting, want string
		}{
			{"", "", "1"}, {"one", "", "2"}, {"two", "", "3"}, {"", "", "1 4"}, {rev.Name.Namespace, "", "1 4 5"}, {"one", "", "2 6"},
			{"one", "hello", "7"}, {"one", "bye", "8"}, {"", "hello", "9"}, {"one", "", "2 6 10"}, {"one", "hello", "7 11"},
		} {
			if c.greeting != "" && contract == faas.ContractNative {
				continue // its calls bring none
			}
			inv := call(fmt.Sprintf(`{"who":"%d"}`, i+1))
			inv.Owner, inv.Env = c.owner, map[string]string{"__OW_NAMESPACE": c.owner + c.want}
			if c.greeting != "" {
				inv.Env["GREETING"] = c.greeting
			}
			want := fmt.Sprintf(`{"seen":%q,"greeting":%q}`, c.want, c.greeting)
			if got, err := m.do(rev, inv); err != nil || strings.ReplaceAll(got, `": "`, `":"`) != want {
				t.Errorf("%q: call %d of %q: %s, %v; want %s", contract, i+1, c.owner, got, err, want)
			}
		}
	}
}
