// Package queue keeps invocations that wait, and hands each out at least once.
//
// What Push accepted survives the process and, on the engine, a power cut. Pull hands invocations
// out as leases: each belongs to its holder until it is done, put off, buried, or the process
// ends, after which it waits again. So an invocation may run more than once; its ID stays the same
// and its Attempt grows. A second Push of an ID changes nothing while the first waits, nor in the ten
// seconds after it.
//
// Invocations of one function and priority are handed out in the order of their Push, save those that
// were put off; between functions there is no order. How many run at once, when one is tried again
// and when it is given up is decided by package dispatch.
package queue

import (
	"context"
	"errors"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Queue is safe for concurrent use.
type Queue interface {
	// Push accepts an invocation; it is durable when Push returns. It returns the invocation's ID, or
	// that of the earlier one which has the same inv.Wait.Key. The body is read to its end and is not
	// closed. A queue that is full says Overloaded, a body over MaxBody is TooLarge.
	Push(ctx context.Context, inv *faas.Invocation) (faas.ID, error)
	// Pull hands out at most max invocations of the function that are due, those of a higher priority
	// first, and does not wait for any. Of a row (Wait.Order) it hands out one at a time. A function
	// whose queue is paused has none.
	Pull(ctx context.Context, function faas.Name, max int) ([]Lease, error)
	// Due returns the functions that have invocations which are due, and a channel that is closed
	// when there may be more of either.
	Due(ctx context.Context) ([]faas.Name, <-chan struct{}, error)
	// Find says what is known of an invocation that waits or was handed out; NotFound of any other.
	Find(ctx context.Context, namespace string, id faas.ID) (faas.Waiting, error)
	// List returns what waits or was handed out, oldest first.
	List(ctx context.Context, f Filter) ([]faas.Waiting, error)
	// Cancel removes an invocation that waits; it is durable when Cancel returns. One that is handed
	// out is Conflict: whoever holds it must end it. NotFound if it is neither.
	Cancel(ctx context.Context, namespace string, id faas.ID) (*faas.Invocation, error)
	// Pause stops the handing out of a function's invocations, or begins it again. It is durable.
	Pause(ctx context.Context, function faas.Name, paused bool) error
	// Depths counts, by function, what waits and was handed out, and says what is paused. A namespace
	// of "" is all of them.
	Depths(ctx context.Context, namespace string) ([]Depth, error)
	// Owned counts what waits and was handed out of those with this Owner, which is not "".
	Owned(owner string) int
	// Clear removes what waits of a function for good, and returns how many that was. What is handed
	// out, its dead letters, its keys and its pause stay.
	Clear(ctx context.Context, function faas.Name) (int, error)
	// Drop removes what waits of a function, or with an empty Function of a whole namespace, which is
	// no more; its dead letters too.
	Drop(ctx context.Context, name faas.Name) error
	// Buried returns those that were given up, oldest first. The bodies are there.
	Buried(ctx context.Context, f Filter) ([]Dead, error)
	// Redrive queues dead letters anew, with the same ID and no attempt made yet, and returns how many.
	Redrive(ctx context.Context, f Filter) (int, error)
	// Purge removes dead letters for good, and returns how many.
	Purge(ctx context.Context, f Filter) (int, error)
}

// Filter chooses invocations. What is zero chooses all.
type Filter struct {
	Namespace string // must be set
	Function  string // as faas.Name.Path gives it
	ID        faas.ID
	Stage     faas.Stage
	After     faas.ID // those with a greater ID: the last of the page before
	Limit     int     // 0: no limit
}

// Depth is how much of a function waits.
type Depth struct {
	Function faas.Name
	Waiting  int // queued, put off, or to be tried again
	Running  int // handed out
	Dead     int
	Paused   bool
	Oldest   time.Time // when the oldest that waits was accepted; zero: none waits
}

// Lease is an invocation that was handed out. It is its holder's for as long as the process lives,
// whatever time that takes. Exactly one of Done, Retry and Bury settles it, whether or not the
// context has ended; a call after that returns ErrSettled. When one of them fails, as on a full disk,
// the queue tries again by itself until it succeeds: the invocation comes once more only if the
// process ends before.
type Lease interface {
	// Invocation returns the invocation, its body from the beginning and its Attempt set.
	Invocation() *faas.Invocation
	// Done removes it from the queue. Delivery is at least once: a server that is killed in the
	// moment after may hand it out once more, with the same ID.
	Done(ctx context.Context) error
	// Retry has it handed out again after a while. why is what became of the attempt, for people to
	// look at; nil: it was not one, and is not counted.
	Retry(ctx context.Context, after time.Duration, why error) error
	// Bury gives it up and keeps it, with the reason, for people to look at.
	Bury(ctx context.Context, why error) error
}

// Dead is an invocation that was given up.
type Dead struct {
	Invocation *faas.Invocation
	Why        string
	At         time.Time
}

// ErrSettled is returned by a lease that has been settled already.
var ErrSettled = errors.New("the lease is settled already")

// MaxBody is the most bytes that the body of a waiting invocation has.
const MaxBody = 8 * faas.MiB
