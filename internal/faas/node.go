package faas

// NodeStatus is what a node says of itself.
type NodeStatus struct {
	Name      string           `json:"name"`
	Memory    Bytes            `json:"memory_bytes"`   // that instances may hold together
	Reserved  Bytes            `json:"reserved_bytes"` // that instances hold or may come to hold
	Waiting   int              `json:"waiting"`        // calls that wait for an instance
	Starting  int              `json:"starting"`       // instances being made
	Draining  bool             `json:"draining"`       // takes no more calls
	Instances []InstanceStatus `json:"instances"`
	Stems     []StemStatus     `json:"stems"`
}

// StemStatus is what a node says of the processes of one kind that wait for a function.
type StemStatus struct {
	Class   string  `json:"class"` // the runtime, and what of its start can't be changed later
	Network Network `json:"network"`
	Ready   int     `json:"ready"`
	Forked  int     `json:"forked"` // of those that are ready
	Making  int     `json:"making"`
	Memory  Bytes   `json:"memory_bytes"` // held by those that are ready, together
}

// InstanceStatus is what a node says of one instance.
type InstanceStatus struct {
	ID       string     `json:"id"`
	Function Name       `json:"function"`
	Revision RevisionID `json:"revision"`
	Calls    int64      `json:"calls"`        // served so far
	Active   int        `json:"active"`       // being served now
	Spare    bool       `json:"spare"`        // made ahead, and nobody has used it
	Memory   Bytes      `json:"memory_bytes"` // held when last looked at
	Idle     Duration   `json:"idle_ms"`      // since the last call ended; 0 while active
	Rewinds  int64      `json:"rewinds"`      // how often its process was put back to its clean state
	RewindUS int64      `json:"rewind_us"`    // how long that took the last time, in microseconds
	Kept     string     `json:"kept"`         // why it stays while nobody calls, for people; empty while active
}

// Proof is what starting a revision once showed.
type Proof struct {
	Timing Timing    `json:"timing"`
	Memory Bytes     `json:"memory_bytes"` // held after load
	Logs   []LogLine `json:"logs,omitempty"`
}
