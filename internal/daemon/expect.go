package daemon

import "github.com/brasa-dev/brasa/internal/faas"

// expectAtMost is how many functions of a namespace are looked at to know which processes to have
// ready when the server has started. There are few kinds of them, so that a sample finds those that
// matter; what it misses is made when it is first asked for.
const expectAtMost = 200

// expect has the worker make ready what the deployed functions will need first.
func expect(n *node) {
	for _, ns := range n.catalog.Namespaces() {
		functions := n.catalog.Functions(ns.Name)
		for i, f := range functions {
			rev, err := n.catalog.Revision(f.Name, f.Active)
			if err != nil {
				continue // deleted meanwhile
			}
			n.worker.Hold(rev)
			if i < expectAtMost {
				n.worker.Expect(rev)
			}
		}
	}
}

// active returns what a call of a function runs.
func (n *node) active(name faas.Name) (*faas.Revision, error) {
	_, rev, err := n.catalog.Resolve(faas.Ref{Name: name})
	return rev, err
}
