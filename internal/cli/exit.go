package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Exit codes. Scripts depend on them; they never change their meaning.
const (
	ExitOK          = 0   // success
	ExitFunction    = 1   // the function failed: its own error, or its process died
	ExitUsage       = 2   // a wrong flag or argument, or an answer needed and no terminal to ask at
	ExitUnreachable = 3   // no server answers; trying again may help
	ExitDenied      = 4   // no key, an unknown one, or one that may not do this
	ExitNotFound    = 5   // no such thing
	ExitConflict    = 6   // it exists already, or moved since it was read
	ExitLimit       = 7   // a quota, a limit or the throttle
	ExitTimeout     = 8   // the invocation, or our waiting for it, ran out of time
	ExitPlatform    = 9   // the server's own fault
	ExitProblems    = 10  // doctor found problems
	ExitInterrupted = 130 // Ctrl-C
)

// ExitOf returns the exit code of an outcome as the platform names it.
func ExitOf(code faas.Code) int {
	switch code {
	case faas.OK:
		return ExitOK
	case faas.Failed, faas.Crashed:
		return ExitFunction
	case faas.Invalid:
		return ExitUsage
	case faas.Unauthenticated, faas.Denied:
		return ExitDenied
	case faas.NotFound:
		return ExitNotFound
	case faas.Conflict:
		return ExitConflict
	case faas.TooLarge, faas.Overloaded:
		return ExitLimit
	case faas.Timeout:
		return ExitTimeout
	case faas.Canceled:
		return ExitInterrupted
	}
	return ExitPlatform
}

// UsageError is a command line that makes no sense. What it says is for the person who typed it.
type UsageError struct {
	Text string
	Fix  string
}

// Error returns the text.
func (e *UsageError) Error() string { return e.Text }

// Usagef makes a UsageError.
func Usagef(format string, args ...any) *UsageError {
	return &UsageError{Text: fmt.Sprintf(format, args...)}
}

// WithFix returns e with a remedy.
func (e *UsageError) WithFix(format string, args ...any) *UsageError {
	e.Fix = fmt.Sprintf(format, args...)
	return e
}

// UnreachableError says that no server answered at an address.
type UnreachableError struct {
	Server string
	Err    error
	Fix    string // what to do; empty: what is to be done of a server of ours
}

// Error names the server and the cause.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("no server answers at %s: %v", e.Server, e.Err)
}

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// QuietError ends the program with an exit code when all there is to say has been said.
type QuietError struct{ Exit int }

// Error names the code, for those who log it all the same.
func (e *QuietError) Error() string { return fmt.Sprintf("exit %d", e.Exit) }

// taskError says what was being tried when err came up.
type taskError struct {
	task string
	err  error
}

func (e *taskError) Error() string { return e.task + ": " + e.err.Error() }
func (e *taskError) Unwrap() error { return e.err }

// While adds what was being tried, as a person would say it: `invoke "hello"`. It returns nil for
// nil, and leaves an error alone that already has a task.
func While(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*taskError](err); ok {
		return err
	}
	return &taskError{task: fmt.Sprintf(format, args...), err: err}
}

// interrupted says whether err comes from Ctrl-C rather than from anything that went wrong.
func interrupted(err error) bool {
	return errors.Is(err, context.Canceled)
}
