package trigger

import (
	"fmt"
	"strings"
	"time"
)

// Passed are the events that no function was called with, and that will not be told again.
type Passed struct {
	Events int64     // since the server's start
	Why    string    // of the last; empty: there were none
	Last   time.Time // when that was
}

// PassOver notes that so many events are given up: they are too large, say, or the outside forgets what is
// not accepted at once. what says so to people; args are more to know, as a logger takes them. n may be 0
// if nobody knows how many there are.
func (o *Outside) PassOver(n int64, what string, args ...any) {
	if o.Log != nil {
		o.Log.Warn(what, args...)
	}
	if o.passed == nil {
		return
	}
	var more []string
	for i := 0; i+1 < len(args); i += 2 {
		more = append(more, fmt.Sprintf("%v %v", args[i], args[i+1]))
	}
	if more != nil {
		what += " (" + strings.Join(more, ", ") + ")"
	}
	o.passed(n, what)
}

// pass counts events that were passed over.
func (r *running) pass(n int64, why string, now time.Time) {
	const most = 1000 // of what somebody outside may have named
	if len(why) > most {
		why = strings.ToValidUTF8(why[:most], "") + "…"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Passed.Events += n
	r.status.Passed.Why, r.status.Passed.Last = why, now
}

// uncalled says why no rule could call its function with an event; nil if one did, or there is none.
func (f *Fired) uncalled() error {
	for _, c := range f.Calls {
		if c.Err == nil {
			return nil
		}
	}
	if len(f.Calls) == 0 {
		return nil
	}
	return f.Calls[0].Err
}
