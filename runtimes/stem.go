package runtimes

import "github.com/brasa-dev/brasa/internal/faas"

// Stem is how a process of a runtime is started before it is known whose it will be. It sees no
// code and holds no secret; both come with the claim.
type Stem struct {
	// Class says which functions it can serve: those whose stems have the same class.
	Class  string
	Args   []string
	Env    []string
	Mounts []Mount
	// Zygote is the command of the process that such stems can be forked from; nil: there is
	// none, they are started.
	Zygote []string
}

// Stem returns how a stem for the revision is started; false where the code must be there at
// the start, because the process is the code.
func (rt *Runtime) Stem(rev *faas.Revision) (Stem, bool) {
	if rt.Style != StyleFrames || rt.Name == Go {
		return Stem{}, false
	}
	if rt.Name == Node {
		return rt.nodeStem(rev), true
	}
	s := Stem{Class: rt.Name}
	s.Args, s.Env, s.Mounts = rt.Command(nil)
	return s, true
}
