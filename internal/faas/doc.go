// Package faas holds the words of the platform: function, revision, invocation, activation,
// limits, timing, errors.
//
// It validates, parses and prints; it decides nothing and imports nothing of ours, so that
// every other package can speak in the same terms. An Invocation is a request in flight, an
// Activation the record it leaves; both carry the same ID. A Code says who can mend what went
// wrong: the caller, the function, or the platform.
package faas
