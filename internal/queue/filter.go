package queue

import (
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// match says whether the filter chooses an invocation of the function with the ID, whatever its stage.
func (f Filter) match(n faas.Name, id faas.ID) bool {
	return n.Namespace == f.Namespace && (f.Function == "" || f.Function == n.Path()) && (f.ID == "" || f.ID == id) && id > f.After
}

// page cuts a list at the filter's limit.
func page[T any](f Filter, all []T) []T {
	if f.Limit > 0 && len(all) > f.Limit {
		return all[:f.Limit]
	}
	return all
}

// rank orders priorities: the lowest goes first. What is unknown is normal.
func rank(p faas.Priority) int {
	switch p {
	case faas.PriorityHigh:
		return 0
	case faas.PriorityLow:
		return 2
	}
	return 1
}

// priorities in the order of their rank.
var priorities = [...]faas.Priority{faas.PriorityHigh, faas.PriorityNormal, faas.PriorityLow}

// renew makes an invocation that was given up one that was just accepted: its time to run and its
// age count from now.
func renew(inv *faas.Invocation, now time.Time) {
	inv.Attempt, inv.Deadline, inv.Timing = 0, time.Time{}, faas.Timing{}
	inv.Wait.NotBefore = now
}

// plainWhy makes one line of a reason, which lies in a header, and bounds it.
func plainWhy(why error) string {
	if why == nil {
		return "no reason was given"
	}
	text := strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, why.Error())
	return strings.ToValidUTF8(text[:min(len(text), maxWhy)], "")
}

func notWaiting(id faas.ID) error {
	return faas.Errorf(faas.NotFound, "look into queue", "no invocation %s waits or runs", id)
}

func handedOut(id faas.ID) error {
	return faas.Errorf(faas.Conflict, "cancel invocation", "%s is running already", id)
}

// keepKeys is how long a Wait.Key is remembered.
const keepKeys = 24 * time.Hour
