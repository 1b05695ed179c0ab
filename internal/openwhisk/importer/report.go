package importer

// Outcome is what became of an entity.
type Outcome string

// The outcomes.
const (
	Created   Outcome = "created"
	Updated   Outcome = "updated"
	Unchanged Outcome = "unchanged" // it was there as it is
	Planned   Outcome = "planned"   // of a dry run: it would be copied
	Skipped   Outcome = "skipped"   // it cannot be copied; the notes say why
	Failed    Outcome = "failed"    // it should have been copied; the notes say what went wrong
)

// Entity is a package, binding, action, sequence, trigger or rule.
type Entity struct {
	Kind    string   `json:"kind"`
	Name    string   `json:"name"` // with its package
	Outcome Outcome  `json:"outcome"`
	Notes   []string `json:"notes,omitempty"` // what is not as it was, and why
}

// Report tells of an import.
type Report struct {
	From      string   `json:"from"`
	Source    string   `json:"source"` // the namespace there
	Namespace string   `json:"namespace"`
	DryRun    bool     `json:"dryRun"`
	Entities  []Entity `json:"entities"`
}

// Count returns how many entities had an outcome.
func (r *Report) Count(o Outcome) int {
	n := 0
	for _, e := range r.Entities {
		if e.Outcome == o {
			n++
		}
	}
	return n
}
