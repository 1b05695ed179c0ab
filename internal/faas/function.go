package faas

import "time"

// Function is a name that points at an active revision.
type Function struct {
	Name      Name         `json:"name"`
	UID       string       `json:"uid"`              // made at creation; a name deleted and made again has another
	Active    RevisionID   `json:"active"`           // what a call without a revision runs
	Revisions []RevisionID `json:"revisions"`        // newest first, the active one among them
	Public    bool         `json:"public,omitempty"` // its own URL may be called without a key
	Created   time.Time    `json:"created"`
	Updated   time.Time    `json:"updated"`
}

// RevisionID is the digest of all that decides how a revision runs, 64 hexadecimal digits.
type RevisionID string

// Short returns the first twelve digits, for people.
func (r RevisionID) Short() string { return string(r[:min(12, len(r))]) }
