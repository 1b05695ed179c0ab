package worker

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// poolKey tells pools apart. The name is part of it because two functions with the same code and
// settings in one namespace still are two: they may not see each other's state. So are callers of
// different namespaces, to whom a function is shared: what one leaves in a process is not for the next.
type poolKey struct {
	name     faas.Name
	revision faas.RevisionID
	caller   string // see callerOf; empty: the function's own namespace
}

// keyOf is the key of the calls of a function's own namespace.
func keyOf(rev *faas.Revision) poolKey { return poolKey{name: rev.Name, revision: rev.ID} }

// tenant is the namespace whose calls a pool serves: what its instances take of the node is that namespace's.
func (k poolKey) tenant() string {
	if owner, _, _ := strings.Cut(k.caller, " "); owner != "" { // names have no spaces
		return owner
	}
	return k.name.Namespace
}

// callerOf tells apart the calls of a revision that may not have a process in common: those of other
// namespaces, and those that come with variables of their own, which stay in the environment of the
// process. Variables of the platform do not count: each call has them anew.
func callerOf(rev *faas.Revision, inv *faas.Invocation) string {
	owner := inv.Owner
	if owner == rev.Name.Namespace {
		owner = ""
	}
	var own []string
	for k, v := range inv.Env {
		if !strings.HasPrefix(k, runtimes.ActionVariable) {
			own = append(own, k+"="+v)
		}
	}
	if own == nil {
		return owner
	}
	slices.Sort(own)
	sum := sha256.Sum256([]byte(strings.Join(own, "\x00"))) // neither names nor values have a NUL
	return owner + " " + hex.EncodeToString(sum[:])
}
