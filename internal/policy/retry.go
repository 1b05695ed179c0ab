package policy

import (
	"cmp"
	"fmt"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// RetryConfig is a function's faas.Async with the defaults filled in.
type RetryConfig struct {
	Retries     int           // after the first attempt
	Backoff     time.Duration // before the first retry; it doubles with each
	BackoffMost time.Duration
	MaxAge      time.Duration // what is older is not tried again
}

// RetryOf returns the policy of a function; nil has the defaults.
func RetryOf(a *faas.Async) RetryConfig {
	if a == nil {
		a = &faas.Async{}
	}
	c := RetryConfig{
		Retries: faas.DefaultRetries, Backoff: cmp.Or(a.Backoff, faas.DefaultBackoff).D(),
		BackoffMost: cmp.Or(a.BackoffMost, faas.DefaultBackoffMost).D(), MaxAge: cmp.Or(a.MaxAge, faas.DefaultMaxAge).D(),
	}
	if a.Retries != nil {
		c.Retries = *a.Retries
	}
	if a.BackoffMost == 0 {
		c.BackoffMost = max(c.BackoffMost, c.Backoff) // who sets a long first one means it
	}
	return c
}

// Tried is what became of an attempt.
type Tried struct {
	Code    faas.Code
	Message string        // of the error, for the reason
	Attempt int           // its number, 1 for the first
	Age     time.Duration // of the call, since it was due
}

// Next says what is to become of a call whose attempt has not succeeded.
type Next struct {
	Again   bool          // it is tried again; else it is given up
	Counted bool          // the attempt counts; else it was put off, and is as if it had not been
	After   time.Duration // when it is tried again
	Why     string        // for people
}

const (
	// A call that the platform could not run waits a tenth of its age before it is tried again, within
	// these bounds: an outage of a moment costs a moment, and a long one few attempts.
	putOffLeast = 200 * time.Millisecond
	putOffMost  = time.Minute
	putOffShare = 10
	jitterShare = 5 // back-offs differ by this part to either side, so that what failed together does not come together
)

// Retry decides whether a call is tried again. What the function did wrong may go better the next
// time, as often as its policy says. What the platform could not do does not count as an attempt.
// What the caller did wrong stays wrong. random is from 0 to below 1.
func Retry(c RetryConfig, t Tried, random float64) Next {
	said := t.Message
	if said == "" {
		said = t.Code.String()
	}
	n := Next{Counted: true}
	switch t.Code {
	case faas.Failed, faas.Crashed, faas.Timeout:
		if t.Attempt > c.Retries {
			n.Why = fmt.Sprintf("attempt %d of %d: %s", t.Attempt, max(c.Retries+1, t.Attempt), said)
			return n
		}
		n.After = Jitter(backoff(c, t.Attempt), random)
	case faas.Overloaded, faas.Unavailable, faas.Internal:
		n.Counted = false
		n.After = Jitter(min(max(t.Age/putOffShare, putOffLeast), putOffMost), random)
	default:
		n.Why = "trying again would change nothing: " + said
		return n
	}
	if t.Age+n.After > c.MaxAge {
		n.Counted = true
		n.Why = fmt.Sprintf("after %s, attempt %d: %s; it is not tried again once it is older than %s", t.Age.Round(time.Millisecond), t.Attempt, said, c.MaxAge)
		n.After = 0
		return n
	}
	n.Again, n.Why = true, said
	return n
}

// backoff returns what is waited after an attempt, without jitter.
func backoff(c RetryConfig, attempt int) time.Duration {
	d := c.Backoff
	for range attempt - 1 {
		if d >= c.BackoffMost/2 {
			return c.BackoffMost
		}
		d *= 2
	}
	return min(d, c.BackoffMost)
}

// Jitter returns d, give or take a fifth. random is from 0 to below 1.
func Jitter(d time.Duration, random float64) time.Duration {
	return d + time.Duration((2*random-1)*float64(d)/jitterShare)
}
