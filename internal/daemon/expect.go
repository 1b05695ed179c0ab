package daemon

// expectAtMost is how many functions of a namespace are looked at to know which processes to have
// ready when the server has started. There are few kinds of them, so that a sample finds those that
// matter; what it misses is made when it is first asked for.
const expectAtMost = 200

// expect has the worker make ready what the deployed functions will need first.
func expect(n *node) {
	for _, ns := range n.catalog.Namespaces() {
		functions := n.catalog.Functions(ns.Name)
		for _, f := range functions[:min(len(functions), expectAtMost)] {
			if rev, err := n.catalog.Revision(f.Name, f.Active); err == nil {
				n.worker.Expect(rev)
			}
		}
	}
}
