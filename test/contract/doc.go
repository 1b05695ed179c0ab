// Package contract is what every runtime promises to user code, as one suite that is run for
// each language against real processes.
//
// A behaviour is a story: some files of source per language, what is called, and what must come
// back. Where a language has no such thing (NaN in Go, say) it has no source and is left out.
//
// The suite starts nothing itself: a Launcher does, so that the same stories are told of plain
// processes (Plain, which needs no rights) and of sandboxes.
package contract
