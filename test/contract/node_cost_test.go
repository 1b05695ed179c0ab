package contract

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/sandbox"
)

// TestNodeForkCosts tells what a forked process costs beside one that is started, in turns: until it
// says hello, until a first call has its answer, and what it holds while others of its kind wait.
func TestNodeForkCosts(t *testing.T) {
	if os.Getenv("BRASA_TEST_FORKS") == "" {
		t.Skip("measures, and promises nothing; BRASA_TEST_FORKS=1 runs it")
	}
	n, z := newNodeFolder(t)
	ctx := t.Context()
	const rounds = 40
	type cost struct {
		hello, first, cpu []time.Duration
		pss, private      []int
	}
	var costs [2]cost
	var waiting []*folded
	for range rounds {
		for which, from := range []*sandbox.Zygote{nil, z} {
			c := &costs[which]
			began := time.Now()
			f, err := n.make(ctx, from)
			if err != nil {
				t.Fatal(err)
			}
			c.hello = append(c.hello, time.Since(began))
			cpu, err := f.box.CPU()
			if err != nil {
				t.Fatal(err)
			}
			c.cpu = append(c.cpu, cpu)
			waiting = append(waiting, f)
		}
	}
	for i, f := range waiting {
		c := &costs[i%2]
		c.pss = append(c.pss, rollup(t, f.box.PID(), "Pss:"))
		c.private = append(c.private, rollup(t, f.box.PID(), "Private_Clean:", "Private_Dirty:"))
	}
	for i, f := range waiting {
		c := &costs[i%2]
		began := time.Now()
		if err := n.load(ctx, f, "plain.js", ""); err != nil {
			t.Fatal(err)
		}
		var got int
		if err := f.call(ctx, "{}", &got); err != nil || got != 1 {
			t.Fatal(got, err)
		}
		c.first = append(c.first, time.Since(began))
		f.close()
	}
	for which, name := range []string{"started", "forked"} {
		c := &costs[which]
		t.Logf("%s: hello %v, processor %v, claim to first answer %v, PSS %d kB, private %d kB (medians of %d)", name,
			middle(c.hello), middle(c.cpu), middle(c.first), middle(c.pss), middle(c.private), rounds)
	}
	t.Logf("the zygote holds %d kB of its own", rollup(t, z.PID(), "Pss:"))
}

func middle[T time.Duration | int](all []T) T {
	slices.Sort(all)
	return all[len(all)/2]
}
