package contract

import (
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// TestSandboxedForks tells the stories of Node.js to stems that were forked from a zygote.
func TestSandboxedForks(t *testing.T) {
	s := NewSuite(t, nil)
	if how, _ := s.Runtime(t, runtimes.Node).Stem(&faas.Revision{}); how.Zygote == nil {
		t.Skip("this Node.js can't be forked: ", s.Runtime(t, runtimes.Node).Reseeds())
	}
	s.Launcher = &sandboxed{host: newHost(t), stems: true, forks: true}
	s.stories(t, runtimes.Node)
}
