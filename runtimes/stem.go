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
	// Spare says that a started process is the rule, and a fork for when one is needed at once:
	// children of one zygote have something in common that started ones have not.
	Spare bool
	// Bare says that no process of the runtime can wait, because the process is the code. What
	// waits is a sandbox; the program, its arguments and its environment come with the claim.
	Bare bool
}

// bareClass is the class of the stems of all whose process is the code.
const bareClass = Executable

// Stem returns how a stem for the revision is started; false where there can be none: an image's
// root cannot be changed after the start.
func (rt *Runtime) Stem(rev *faas.Revision) (Stem, bool) {
	if rev.Image != nil || rt.Style == StyleEvents { // it has another root, or is listened for before its start
		return Stem{}, false
	}
	if rt.Style != StyleFrames || rt.Name == Go {
		return Stem{Class: bareClass, Bare: true}, true
	}
	if rt.Name == Node {
		return rt.nodeStem(rev), true
	}
	if rt.Name == Ruby || rt.Name == PHP {
		return rt.interpreterStem(), true
	}
	if rt.Name == Java {
		return rt.javaStem(rev), true
	}
	if rt.Name == DotNet {
		return rt.dotnetStem(rev), true
	}
	s := Stem{Class: rt.Name}
	s.Args, s.Env, s.Mounts = rt.Command(nil)
	if rt.zygote != "" {
		s.Zygote = append([]string{rt.Program}, rt.args...)
		s.Zygote = append(s.Zygote, BootDir+"/"+rt.zygote, BootDir+"/"+rt.boot)
	}
	return s, true
}

// Rewinds says whether a process of the runtime can be put back to an earlier state and draws new
// random numbers afterwards. Go's signals to its own threads come in between, and its processes
// are quick to start. Of programs that speak lines or HTTP nobody knows what they draw.
func (rt *Runtime) Rewinds() bool {
	return (rt.Name == Python || rt.Name == Node || rt.Name == Java) && rt.Reseeds() == nil
}

// Fresh says whether the runtime gives each call a state of its own, so that nothing needs to be
// done between two.
func (rt *Runtime) Fresh() bool { return rt.Name == Wasm }
