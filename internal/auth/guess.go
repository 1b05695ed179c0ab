package auth

import (
	"crypto/sha256"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// forgive is how long it takes until one wrong key of an address is forgotten.
	forgive = 3 * time.Second
	// mostRemotes bounds the addresses that are remembered. Whoever has more addresses than this
	// is slowed down less; guessing 256 bits stays hopeless.
	mostRemotes = 10_000
	// mostKnown bounds the right keys that are remembered for an address.
	mostKnown = 64
)

// guesses slows down whoever tries keys. An address that sent too many wrong ones must wait,
// save for the very keys that were right when they last came from there: a tenant behind the
// same proxy as a guesser keeps working, and a guesser learns nothing.
type guesses struct {
	burst int
	mu    sync.Mutex
	from  map[string]*remote // guarded by mu
}

type remote struct {
	wrong *rate.Limiter
	known map[[sha256.Size]byte]struct{}
}

func newGuesses(burst int) *guesses {
	return &guesses{burst: burst, from: map[string]*remote{}}
}

// mustWait returns how long the address has to wait before it may try this key; 0: it may.
func (g *guesses) mustWait(address string, hash [sha256.Size]byte) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.from[network(address)]
	if r == nil {
		return 0
	}
	tokens := r.wrong.Tokens()
	if tokens >= 1 {
		return 0
	}
	if _, ok := r.known[hash]; ok {
		return 0
	}
	return time.Duration((1 - tokens) * float64(forgive))
}

// wrong counts a wrong key.
func (g *guesses) wrong(address string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.remote(address).wrong.Allow()
}

// right remembers that the key was right.
func (g *guesses) right(address string, hash [sha256.Size]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.remote(address)
	if _, ok := r.known[hash]; ok {
		return
	}
	if len(r.known) >= mostKnown {
		for k := range r.known { // any one
			delete(r.known, k)
			break
		}
	}
	r.known[hash] = struct{}{}
}

// remote returns the address's state, making it and room for it. mu is held.
func (g *guesses) remote(address string) *remote {
	n := network(address)
	r := g.from[n]
	if r != nil {
		return r
	}
	if len(g.from) >= mostRemotes {
		for k, r := range g.from {
			if r.wrong.Tokens() >= float64(g.burst) { // nothing to remember but right keys
				delete(g.from, k)
			}
		}
		for k := range g.from {
			if len(g.from) < mostRemotes*9/10 { // a tenth at once, so that a flood does not make us look at all each time
				break
			}
			delete(g.from, k)
		}
	}
	r = &remote{wrong: rate.NewLimiter(rate.Every(forgive), g.burst), known: map[[sha256.Size]byte]struct{}{}}
	g.from[n] = r
	return r
}

// network returns what one party is taken to own: an address of IPv4, a /64 of IPv6.
func network(address string) string {
	if ap, err := netip.ParseAddrPort(address); err == nil {
		address = ap.Addr().String()
	}
	a, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a.String()
	}
	p, _ := a.Prefix(64) // 64 is in range for IPv6
	return p.String()
}
