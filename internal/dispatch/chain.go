package dispatch

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// ChainConfig bounds calls that lead to others. Zero means the default.
type ChainConfig struct {
	Depth int // calls from the first to the last; default 32
	Calls int // of all branches together; default 1000
}

// chains knows through which calls those under way came about, and refuses the next one of a chain
// that goes too far.
type chains struct {
	cfg    ChainConfig
	shards [chainShards]chainShard

	mu    sync.Mutex
	roots map[faas.ID]*budget // guarded by mu; of chains of two calls and more
	swept time.Time           // guarded by mu
}

const (
	chainShards = 32
	// Chains are forgotten that had no call for chainIdle, once there are maxChains.
	maxChains = 10_000
	chainIdle = 10 * time.Minute
	// Each sequence is a chain, and a look at all of them takes as long as some calls.
	sweepEvery = time.Second
)

type chainShard struct {
	mu    sync.Mutex
	calls map[faas.ID]*faas.Invocation // guarded by mu; under way
}

type budget struct {
	calls int
	last  time.Time
}

func newChains(cfg ChainConfig) *chains {
	if cfg.Depth == 0 {
		cfg.Depth = 32
	}
	if cfg.Calls == 0 {
		cfg.Calls = 1000
	}
	c := &chains{cfg: cfg, roots: map[faas.ID]*budget{}}
	for i := range c.shards {
		c.shards[i].calls = map[faas.ID]*faas.Invocation{}
	}
	return c
}

func (c *chains) shard(id faas.ID) *chainShard {
	h := uint32(2166136261)
	for i := max(len(id)-8, 0); i < len(id); i++ { // its end is random
		h = (h ^ uint32(id[i])) * 16777619
	}
	return &c.shards[h%chainShards]
}

// begin notes that a call is under way; from here on it may be the cause of others.
func (c *chains) begin(inv *faas.Invocation) {
	s := c.shard(inv.ID)
	s.mu.Lock()
	s.calls[inv.ID] = inv
	s.mu.Unlock()
}

func (c *chains) end(inv *faas.Invocation) {
	s := c.shard(inv.ID)
	s.mu.Lock()
	if s.calls[inv.ID] == inv { // a call that came twice is under way twice
		delete(s.calls, inv.ID)
	}
	s.mu.Unlock()
}

// link finds the chain of a call by its cause, if that is a call of the same namespace which is
// under way, and counts it. A cause that has ended, or that is somebody else's, begins no chain: what
// a caller says of its cause can lengthen its own chain, and no other.
func (c *chains) link(inv *faas.Invocation) error {
	inv.Chain = nil
	if inv.Cause == "" {
		return nil
	}
	s := c.shard(inv.Cause)
	s.mu.Lock()
	cause := s.calls[inv.Cause]
	s.mu.Unlock()
	if cause == nil || cause.Function.Name.Namespace != inv.Function.Name.Namespace {
		return nil
	}
	return c.follow(inv, cause)
}

// follow makes inv the next call after cause.
func (c *chains) follow(inv, cause *faas.Invocation) error {
	return c.count(inv, cause, cause.Function.Name.Path())
}

// within makes inv a part of cause, of which there are not too many already: it is counted, and does not
// make the way to it longer.
func (c *chains) within(inv, cause *faas.Invocation) error {
	return c.count(inv, cause)
}

// count makes inv a call that cause led to, and counts it. The way to it is that to cause and further.
func (c *chains) count(inv, cause *faas.Invocation, further ...string) error {
	before := cause.Chain
	if before == nil {
		before = &faas.Chain{Root: cause.ID, Calls: 1}
	}
	inv.Chain = &faas.Chain{Root: before.Root, Path: append(slices.Clone(before.Path), further...)}
	c.mu.Lock()
	b := c.roots[before.Root]
	if b == nil {
		c.forget(time.Now())
		b = &budget{}
		c.roots[before.Root] = b
	}
	b.last = time.Now()
	b.calls = min(max(b.calls, before.Calls), c.cfg.Calls) + 1 // what a restart forgot is in the chain
	inv.Chain.Calls = b.calls
	c.mu.Unlock()
	return c.over(inv)
}

// over says whether a call's chain has gone too far.
func (c *chains) over(inv *faas.Invocation) error {
	const op = "follow chain of calls"
	switch {
	case inv.Chain == nil:
		return nil
	case len(inv.Chain.Path) >= c.cfg.Depth:
		return faas.Errorf(faas.Invalid, op, "functions call each other without end: %s; a chain may be %d calls long", way(inv), c.cfg.Depth).
			WithLimit("chain.depth").WithFix("end the chain in one of these functions, or raise the server's key chain.depth")
	case inv.Chain.Calls > c.cfg.Calls:
		return faas.Errorf(faas.Invalid, op, "one call has led to %d, as many as it may; the last way was %s", c.cfg.Calls, way(inv)).
			WithLimit("chain.calls").WithFix("end the chain in one of these functions, or raise the server's key chain.calls")
	}
	return nil
}

// forget drops what has not been used for some time, once there is much, and short chains before long
// ones: a flood of them is not to give a chain that runs wild its budget anew. It is called with mu held.
func (c *chains) forget(now time.Time) {
	if len(c.roots) < maxChains || len(c.roots) < 2*maxChains && now.Sub(c.swept) < sweepEvery {
		return
	}
	c.swept = now
	for id, b := range c.roots {
		if now.Sub(b.last) > chainIdle {
			delete(c.roots, id)
		}
	}
	for most := 16; len(c.roots) >= 2*maxChains; most *= 4 {
		for id, b := range c.roots {
			if b.calls <= most {
				delete(c.roots, id)
			}
		}
	}
}

// way shows how a call came about: the last round of it, if it goes round.
func way(inv *faas.Invocation) string {
	path, last := inv.Chain.Path, inv.Function.Name.Path()
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == last {
			path = path[i:]
			break
		}
	}
	return strings.Join(append(slices.Clone(path), last), " → ")
}
