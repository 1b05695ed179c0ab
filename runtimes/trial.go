package runtimes

import "github.com/brasa-dev/brasa/internal/faas"

// What a runtime's trial is asked for besides its main function, which answers with the number of
// things that were tried and a list of those that failed.
const (
	TrialLeave  = "leave" // a handler that ends the process
	TrialStatus = 7       // with this status
)

// TrialSpec is a function that lies beside the bootstrap and tries what code needs of a process, for
// runtimes of which some stems may be forked.
func (rt *Runtime) TrialSpec(handler string) Spec {
	s := SpecOf(&faas.Revision{ID: "0123456789abcdef", Name: faas.Name{Namespace: "trial", Function: "trial"}, Entry: "needs.js", Handler: handler, Limits: faas.DefaultLimits()}, nil)
	s.Code = BootDir + "/trial"
	return s
}

// Forks says whether processes of the runtime, which are started as a rule, may be forked if all that
// this needs can be had.
func (rt *Runtime) Forks() bool { return rt.Name == Node }
