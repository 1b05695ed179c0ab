package trigger

import (
	"context"
	"encoding/base64"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/brasa-dev/brasa/internal/faas"
)

// An event that was not accepted is told again after a time that doubles from the first to the second.
const (
	tellFirst = 50 * time.Millisecond
	tellMost  = 2 * time.Second
)

// Settle tells of an event until its calls are durable, and waits until they have come to their
// end. It returns how many of them did not succeed. The error is ctx's: without one the source may
// forget the event. An event of which no rule tells anybody is held until there is one: else what
// comes while a trigger is made would be lost, since its rules are made after it.
func Settle(ctx context.Context, o Outside, fire Fire, e faas.Event) (failed int, err error) {
	said := false
	for wait := tellFirst; ; wait = min(2*wait, tellMost) {
		fired, err := Taken(fire(ctx, e))
		if err == nil {
			failed, err = fired.Settled(ctx)
		}
		switch {
		case err == nil:
			return failed, nil
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case fired.Calls != nil && faas.CodeOf(err) == faas.NotFound:
			// It was told before this server was down, and has ended so long ago that no record is left.
			o.Log.Warn("what became of an event's calls is not known any more", "event", e.ID, "cause", err)
			return failed, nil
		}
		if wait == tellMost && !said { // not of what passes
			said = true
			o.Log.Warn("event not settled; it is told again and again", "event", e.ID, "cause", err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return 0, ctx.Err()
		}
	}
}

// Taken makes an error of an event of which no rule told anybody, for sources that can have it told
// again.
func Taken(fired Fired, err error) (Fired, error) {
	if err == nil && len(fired.Calls) == 0 {
		err = errors.New("no rule leads from the trigger to a function")
	}
	return fired, err
}

// TextOrBytes is a value for JSON: text as it is, and bytes that are none as {"base64": …}.
func TextOrBytes(s string) any {
	if utf8.ValidString(s) {
		return s
	}
	return map[string]string{"base64": base64.StdEncoding.EncodeToString([]byte(s))}
}
