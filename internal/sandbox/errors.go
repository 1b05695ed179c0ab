package sandbox

import (
	"errors"
	"fmt"
	"syscall"
)

// UnsupportedError is returned by New and Start when this machine or user cannot give what was
// asked for. Nothing is ever started with less.
type UnsupportedError struct {
	Feature string // a name of Features
	Why     string
	Fix     string // what the operator can do
}

func (e *UnsupportedError) Error() string {
	text := fmt.Sprintf("this host has no %s: %s", e.Feature, e.Why)
	if e.Fix != "" {
		text += "; " + e.Fix
	}
	return text
}

// ErrClosed is returned by Start when the host's Run has ended or has not begun.
var ErrClosed = errors.New("sandbox host is not running")

// ErrNameTaken is returned by Start when a live sandbox has the name already.
var ErrNameTaken = errors.New("a sandbox of this name is alive")

// StepError says which step of making a sandbox failed: "mount /proc: operation not permitted".
type StepError struct {
	Step string
	Err  error
}

func (e *StepError) Error() string { return e.Step + ": " + e.Err.Error() }
func (e *StepError) Unwrap() error { return e.Err }

func stepError(steps []step, index int32, errno int32) error {
	name := "request"
	switch {
	case index == -1:
		name = "clone"
	case index >= 0 && int(index) < len(steps):
		name = steps[index].name
	}
	return &StepError{Step: name, Err: syscall.Errno(errno)}
}
