package policy

import "github.com/brasa-dev/brasa/internal/faas"

// A call may ask for others and wait for them. If all that could serve these is held by calls that
// wait in the same way, nobody ever gets on.

// Holder is an instance that serves calls.
type Holder struct {
	Namespace string
	Line      int // of its function, an index
	Held      faas.Bytes
	Calls     int     // that it serves
	Asked     []Asked // what these have asked for and not got
}

// Asked is a call that an instance's call has asked for.
type Asked struct {
	Holder int // which serves it, an index; -1: it is in line
	Line   int // in which it is
}

// Line is where calls of a function wait for an instance.
type Line struct {
	Namespace string
	Need      faas.Bytes // of an instance that serves calls
	Full      bool       // there are as many instances as there may be
	Idle      bool       // one of them is idle, and may need more memory than it holds
	Making    bool       // one is being made
}

// Stuck returns which instances will never end their calls unless some are refused. An instance
// counts as waiting if it has asked for at least as many calls as it serves: which of its calls has
// asked for which is not known. All else, it is assumed, ends one day and gives back what it holds.
func Stuck(holders []Holder, lines []Line, total faas.Bytes, tenants int) []bool {
	stuck := make([]bool, len(holders))
	for i, h := range holders {
		stuck[i] = h.Calls > 0 && len(h.Asked) >= h.Calls
	}
	for again := true; again; {
		again = false
		held, of := faas.Bytes(0), map[string]faas.Bytes{} // what is never given back
		moves := make([]bool, len(lines))                  // an instance of it will be free
		for i, h := range holders {
			if stuck[i] {
				held += h.Held
				of[h.Namespace] += h.Held
			} else {
				moves[h.Line] = true
			}
		}
		served := func(a Asked) bool {
			if a.Holder >= 0 {
				return !stuck[a.Holder]
			}
			l := lines[a.Line]
			if l.Making || moves[a.Line] {
				return true
			}
			another := !l.Full && MayHold(total, l.Need, Tenant{Held: of[l.Namespace]}, tenants)
			return held+l.Need <= total && (l.Idle || another)
		}
		for i, h := range holders {
			if !stuck[i] {
				continue
			}
			for _, a := range h.Asked {
				if served(a) {
					stuck[i], again = false, true
					break
				}
			}
		}
	}
	return stuck
}
