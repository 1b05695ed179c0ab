package dispatch

import (
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// A chain that runs wild keeps its budget, however many others come and go meanwhile.
func TestManyChainsDoNotGiveOneItsBudgetAnew(t *testing.T) {
	c := newChains(ChainConfig{Calls: 100})
	call := func() *faas.Invocation {
		return &faas.Invocation{ID: faas.NewID(time.Now()), Function: faas.Ref{Name: faas.Name{Namespace: "n", Function: "f"}}}
	}
	wild := call()
	for n := 2; n <= 60; n++ {
		if err := c.follow(call(), wild); err != nil {
			t.Fatalf("call %d: %v", n, err)
		}
	}
	for range 3 * maxChains {
		root := call()
		if err := c.follow(call(), root); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(c.roots); n > 2*maxChains {
		t.Errorf("%d chains are remembered, at most %d", n, 2*maxChains)
	}
	for n := 61; n <= 101; n++ {
		if err := c.follow(call(), wild); (err != nil) != (n > 100) {
			t.Errorf("call %d: %v", n, err)
		}
	}
}
