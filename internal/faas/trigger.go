package faas

import (
	"encoding/json"
	"time"
)

// Trigger is a named stream of events of a namespace. Rules say which functions each event calls.
type Trigger struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"` // made at creation; a name deleted and made again has another
	// Source is what watches the outside and fires the trigger; nil: only those fire it who call it.
	Source *Source `json:"source,omitempty"`
	// Params are put beneath the fields of each event whose data is a JSON object.
	Params  map[string]json.RawMessage `json:"params,omitempty"`
	Paused  bool                       `json:"paused,omitempty"` // its source does not run
	Origin  *Origin                    `json:"origin,omitempty"`
	Created time.Time                  `json:"created"`
	Updated time.Time                  `json:"updated"`
}

// Source says what fires a trigger.
type Source struct {
	Kind   string          `json:"kind"`             // "cron", "webhook", "nats", …
	Config json.RawMessage `json:"config,omitempty"` // what the kind asks for
	// Secrets are the names, in the namespace, of the secrets that the configuration speaks of. No
	// trigger holds a secret's value.
	Secrets []string `json:"secrets,omitempty"`
}

// Rule is a link from a trigger to a function: of the same namespace, unless another platform made it.
type Rule struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	UID       string    `json:"uid"`
	Trigger   string    `json:"trigger"`
	Function  string    `json:"function"` // as Name.Path gives it, or "/namespace/function" of another namespace
	Disabled  bool      `json:"disabled,omitempty"`
	Origin    *Origin   `json:"origin,omitempty"`
	Created   time.Time `json:"created"`
	Updated   time.Time `json:"updated"`
}

// Event is something that happened, as a trigger tells it to functions. Its fields are those of
// CloudEvents 1.0 (github.com/cloudevents/spec).
type Event struct {
	// ID is the same for the same event when it is told again, so that a call it leads to is made once
	// a day at the most. Empty: each is another.
	ID          string
	Source      string // where it happened, as a URI reference
	Type        string // what kind of thing, such as "brasa.cron.fired"
	Subject     string // what in the source it is about; may be empty
	Time        time.Time
	ContentType string // of Data; empty: application/json
	Data        []byte
	Header      map[string][]string // further attributes, with canonical keys
	Cause       ID                  // the invocation that told of it, if one did
	Order       string              // events of one word are told to a function one after the other; empty: in any order
}
