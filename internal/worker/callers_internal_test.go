package worker

import (
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
)

// What calls take of the node is theirs who call, and not the function's.
func TestWhoseCallsAPoolServes(t *testing.T) {
	rev := &faas.Revision{Name: faas.Name{Namespace: "own", Function: "f"}}
	for _, c := range []struct {
		owner string
		env   map[string]string
		want  string
	}{
		{"", nil, "own"}, {"own", nil, "own"}, {"other", nil, "other"}, {"", map[string]string{"A": "b"}, "own"}, {"other", map[string]string{"A": "b", "__OW_X": "y"}, "other"},
	} {
		key := keyOf(rev)
		key.caller = callerOf(rev, &faas.Invocation{Owner: c.owner, Env: c.env})
		if got := key.tenant(); got != c.want {
			t.Errorf("owner %q, variables %v: %q, want %q", c.owner, c.env, got, c.want)
		}
	}
}
