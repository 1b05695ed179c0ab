package faas

import "time"

// Priority says which of a function's invocations that wait goes first.
type Priority string

// Priorities. Those of one priority go in the order in which they came.
const (
	PriorityHigh   Priority = "high"
	PriorityNormal Priority = "normal"
	PriorityLow    Priority = "low"
)

// Wait says how an invocation is to wait whose caller does not: it is accepted into the queue and
// runs when it is its turn. The zero value waits for nothing but its turn.
type Wait struct {
	// Key makes several requests one: a request of the same function with the same key within a day
	// of the first is answered with the ID of the first, and nothing else happens. Empty: none.
	Key string `json:"key,omitempty"`
	// Order puts invocations of the same function with the same word in a row: the next one begins
	// when the one before has succeeded or was given up. Empty: no row.
	Order     string    `json:"order,omitempty"`
	Priority  Priority  `json:"priority,omitempty"`  // empty: PriorityNormal
	NotBefore time.Time `json:"not_before,omitzero"` // when it is due; zero: at once
	// OnSuccess and OnFailure replace the function's own destinations for this invocation.
	OnSuccess Destination `json:"on_success,omitempty"`
	OnFailure Destination `json:"on_failure,omitempty"`
	// Then are functions of the namespace that are called one after the other, each with the answer of
	// the one before. OnSuccess is of the last, OnFailure of any.
	Then    []Destination `json:"then,omitempty"`
	Timeout Duration      `json:"timeout_ms,omitempty"` // of one attempt; the function's own at most. 0: that
	// Once makes whatever the function does its outcome: a failure is neither tried again nor kept as a
	// dead letter. What the platform could not run comes again all the same.
	Once bool `json:"once,omitempty"`

	// Since is when it was accepted. Its age counts from there or from NotBefore, whichever is later.
	Since time.Time `json:"since,omitzero"`  // set by the dispatcher
	Chain *Chain    `json:"chain,omitempty"` // set by the dispatcher; what a caller says is overwritten
}

// Chain says through which calls an invocation came about. No caller can say it: it is found by the
// invocation's cause.
type Chain struct {
	Root  ID       `json:"root"`  // the call that nothing led to
	Path  []string `json:"path"`  // the functions before this one, the first first, as Name.Path gives them
	Calls int      `json:"calls"` // of the whole chain, as far as was known when this one was made
}

// Destination is where the outcome of an invocation goes whose caller does not wait: a function of
// the same namespace ("package/name"), or the URL of a web hook ("https://…"). Empty: nowhere.
type Destination string

// Async is a function's policy for invocations whose caller does not wait.
type Async struct {
	Retries     *int        `json:"retries,omitempty"`         // after the first attempt; nil: DefaultRetries
	Backoff     Duration    `json:"backoff_ms,omitempty"`      // before the first retry; it doubles with each, give or take a fifth. 0: DefaultBackoff
	BackoffMost Duration    `json:"backoff_most_ms,omitempty"` // 0: DefaultBackoffMost
	MaxAge      Duration    `json:"max_age_ms,omitempty"`      // since it was due; what is older is given up instead of tried again. 0: DefaultMaxAge
	OnSuccess   Destination `json:"on_success,omitempty"`
	OnFailure   Destination `json:"on_failure,omitempty"`
	Public      bool        `json:"public,omitempty"` // whoever may call a public function's URL may do so without waiting; else only who has a key
}

// Defaults of Async.
const (
	DefaultRetries     = 3
	DefaultBackoff     = Duration(time.Second)
	DefaultBackoffMost = Duration(10 * time.Minute)
	DefaultMaxAge      = Duration(24 * time.Hour)
)

// Stage says where an invocation stands whose caller does not wait.
type Stage string

// Stages. The last four are final.
const (
	StageQueued    Stage = "queued"    // it waits for its turn, or for the time when it is due
	StageRunning   Stage = "running"   // an attempt is under way
	StageRetrying  Stage = "retrying"  // an attempt failed, and another is to come
	StageSucceeded Stage = "succeeded" // it was answered
	StageFailed    Stage = "failed"    // it was answered with a failure that is not tried again, and is not kept as a dead letter
	StageDead      Stage = "dead"      // it was given up, and lies with the dead letters
	StageCanceled  Stage = "canceled"
)

// Waiting is what the queue knows of an invocation.
type Waiting struct {
	ID       ID        `json:"id"`
	Function Name      `json:"function"`
	Stage    Stage     `json:"stage"`
	Priority Priority  `json:"priority,omitempty"`
	Key      string    `json:"key,omitempty"`
	Order    string    `json:"order,omitempty"`
	Subject  string    `json:"subject,omitempty"` // who asked
	Cause    ID        `json:"cause,omitempty"`
	Queued   time.Time `json:"queued"`          // when it was accepted
	Due      time.Time `json:"due,omitzero"`    // when it may next be handed out
	Attempt  int       `json:"attempt"`         // attempts begun
	Error    string    `json:"error,omitempty"` // of the last attempt
}
