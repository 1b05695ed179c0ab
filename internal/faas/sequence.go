package faas

import "strings"

// RuntimeSequence is the runtime of revisions that have a Sequence in place of code.
const RuntimeSequence = "sequence"

// MaxSteps is how many functions a sequence may call, those of sequences within it included.
const MaxSteps = 50

// Sequence is what a function is made of that runs no code of its own: functions that are called one
// after the other, each with the answer of the one before. A step may be a sequence itself. Each is
// resolved when it is its turn.
type Sequence struct {
	Steps []Name `json:"steps"`
	// ErrorField has an answer that is a JSON object with the field "error" end the sequence, and be
	// what it answers, as OpenWhisk has it. An answer with a status of 400 and more does so anyway.
	ErrorField bool `json:"error_field,omitempty"`
	// Lenient has the sequence go as far as it can, as OpenWhisk has it: that a step is not there is found
	// out when it is its turn. This, and that its steps have become too many or lead back to it, is an
	// answer with the field "error"; a step's failure is the sequence's, which does not say what step it was.
	Lenient bool `json:"lenient,omitempty"`
}

// SequenceStep is one call that a sequence has made.
type SequenceStep struct {
	ID       ID     `json:"id"`
	Function string `json:"function"`
	Outcome  Code   `json:"outcome"`
	Status   int    `json:"status,omitempty"` // of the answer, as HTTP counts
	US       int64  `json:"us"`               // from its begin to its answer's end
	// Kept says that it was not called: it had succeeded in an attempt before this one.
	Kept bool `json:"kept,omitempty"`
}

// String shows the steps with arrows between them.
func (s *Sequence) String() string {
	var b strings.Builder
	for i, name := range s.Steps {
		if i > 0 {
			b.WriteString(" → ")
		}
		b.WriteString(name.Path())
	}
	return b.String()
}
