package sandbox

import (
	"bytes"
	"fmt"
	"unsafe"
)

// What is said to the rewinder and back; spawner/rewind.h is the other copy.

const (
	rewindVersion = 1

	rewindArm  = 1
	rewindBack = 2
	rewindDrop = 3

	rewindOK      = 0
	rewindNot     = 1
	rewindChanged = 2
	rewindUnable  = 3
	rewindEnded   = 4
	rewindBusy    = 5
)

type rewindRequest struct {
	version, op uint32
	id          uint64
	pid, nest   int32
	handle      uint32
	spare       uint32
}

type rewindAnswer struct {
	version, status uint32
	id              uint64
	handle          uint32
	pages           uint32
	took            uint64
	snapshot        uint64
	kept            uint32
	threads         uint32
	wide            uint32
	spare           uint32
	part            [8]uint32 // ns: stop, maps, scan, state, batch, write, protect, go
	why             [160]byte
}

const (
	rewindRequestSize = int(unsafe.Sizeof(rewindRequest{}))
	rewindAnswerSize  = int(unsafe.Sizeof(rewindAnswer{}))
)

func (a *rewindAnswer) reason() string {
	why, _, _ := bytes.Cut(a.why[:], []byte{0})
	return string(why)
}

func (q *rewindRequest) encode() []byte {
	q.version = rewindVersion
	return bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(q)), rewindRequestSize)) // plain numbers, no pointers
}

func decodeRewindAnswer(b []byte) (rewindAnswer, error) {
	var a rewindAnswer
	if len(b) != rewindAnswerSize {
		return a, fmt.Errorf("answer of %d bytes, want %d", len(b), rewindAnswerSize)
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&a)), rewindAnswerSize), b) // plain numbers, no pointers
	if a.version != rewindVersion {
		return a, fmt.Errorf("answer of version %d, want %d", a.version, rewindVersion)
	}
	return a, nil
}
