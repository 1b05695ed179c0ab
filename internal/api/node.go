package api

import "github.com/brasa-dev/brasa/internal/faas"

// Nodes are the machines that run functions.
type Nodes struct {
	Nodes []Node `json:"nodes"`
}

// Node is what a machine that runs functions holds.
type Node struct {
	Name      string     `json:"name"`
	Memory    faas.Bytes `json:"memory_bytes" doc:"What instances may hold together"`
	Reserved  faas.Bytes `json:"reserved_bytes" doc:"What instances hold or may come to hold"`
	Waiting   int        `json:"waiting" doc:"Calls that wait for an instance"`
	Starting  int        `json:"starting" doc:"Instances that are being made"`
	Draining  bool       `json:"draining" doc:"It takes no more calls"`
	Instances []Instance `json:"instances"`
	Stems     []Stem     `json:"stems" doc:"Processes that are ready for whatever function comes"`
}

// Instance is a process that has a function's code loaded.
type Instance struct {
	ID        string          `json:"id"`
	Namespace string          `json:"namespace"`
	Function  string          `json:"function"`
	Revision  faas.RevisionID `json:"revision"`
	Calls     int64           `json:"calls" doc:"Served so far"`
	Active    int             `json:"active" doc:"Calls that it serves now, and its own cleaning after one"`
	Memory    faas.Bytes      `json:"memory_bytes" doc:"Held when last looked at"`
	IdleMS    int64           `json:"idle_ms" doc:"Since the last call ended; 0 while it serves one"`
	Rewinds   int64           `json:"rewinds" doc:"How often its process was put back to its clean state"`
	RewindUS  int64           `json:"rewind_us" doc:"How long that took the last time, in microseconds"`
	Kept      string          `json:"kept,omitempty" doc:"Why it stays while nobody calls, for people"`
}

// Stem is a kind of process that is booted and confined before it is known whose it will be.
type Stem struct {
	Class   string     `json:"class" doc:"The runtime, and what of its start cannot be changed later"`
	Network string     `json:"network"`
	Ready   int        `json:"ready"`
	Forked  int        `json:"forked" doc:"Of those that are ready; see the runtime's documentation"`
	Making  int        `json:"making"`
	Memory  faas.Bytes `json:"memory_bytes" doc:"Held by those that are ready, together"`
}

// nodeOf writes a node's status in the words of the API.
func nodeOf(s *faas.NodeStatus) Node {
	n := Node{
		Name: s.Name, Memory: s.Memory, Reserved: s.Reserved, Waiting: s.Waiting, Starting: s.Starting, Draining: s.Draining,
		Instances: make([]Instance, 0, len(s.Instances)), Stems: make([]Stem, 0, len(s.Stems)),
	}
	for _, in := range s.Instances {
		n.Instances = append(n.Instances, Instance{
			ID: in.ID, Namespace: in.Function.Namespace, Function: in.Function.Path(), Revision: in.Revision, Calls: in.Calls,
			Active: in.Active, Memory: in.Memory, IdleMS: in.Idle.D().Milliseconds(), Rewinds: in.Rewinds, RewindUS: in.RewindUS, Kept: in.Kept,
		})
	}
	for _, st := range s.Stems {
		n.Stems = append(n.Stems, Stem{Class: st.Class, Network: string(st.Network), Ready: st.Ready, Forked: st.Forked, Making: st.Making, Memory: st.Memory})
	}
	return n
}
