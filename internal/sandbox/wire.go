package sandbox

import (
	"encoding/binary"
	"fmt"
	"syscall"
	"time"
	"unsafe"
)

// What is said to the spawner and back; spawner/wire.h is the other copy and has the words.

const (
	wireVersion = 1
	maxRequest  = 2 << 20
	maxFDs      = 64
	// inlineRequest is how long a request may be to go as one message; the rest goes by memfd.
	// Below the smallest default of a socket's send buffer, of which the kernel counts double.
	inlineRequest = 64 << 10

	kindSetup  = 1
	kindNest   = 2
	kindStart  = 3
	kindDone   = 4
	kindExited = 5
	kindEmpty  = 6
	kindZygote = 7
	kindReady  = 8
	kindFork   = 9
	kindForked = 10

	requestByFD = 1
	requestCopy = 2

	stepOptional = 1

	waitSock   = 3
	maxCommand = 64 << 10
	maxStrings = 4096
)

type opcode uint16

const (
	opWrite opcode = iota + 1
	opEnter
	opSetns
	opUnshare
	opMount
	opMoveMount
	opFile
	opMkdir
	opHostname
	opRlimit
	opMapIDs
	opIDs
	opDropBounding
	opDropCaps
	opPrctl
	opChdir
	opPivot
	opFDs
	opSeccomp
	opExec
	opHold
	opCaps
	opReplace
	opWait
)

// step is one thing done on the way into a sandbox.
type step struct {
	name     string // what an error calls it
	op       opcode
	optional bool // a failure does not count
	a, b, c  uint64
	text     []string
	raw      []byte // instead of text, for opSeccomp
}

type requestHeader struct {
	version, kind uint32
	id            uint64
	cloneFlags    uint64
	cgroup        int32
	flags         uint32
	steps         uint32
	bytes         uint32
	nest          int32
	pid           int32
	made          uint64
}

type stepHeader struct {
	op, flags uint16
	size      uint32
	a, b, c   uint64
}

type commandHeader struct {
	version, args, env, fds, bytes, _ uint32
}

type answer struct {
	version, kind uint32
	id            uint64
	nest          int32
	errno         int32
	step          int32
	status        int32
	took          uint64
	userMicros    uint64
	systemMicros  uint64
	maxRSSKB      uint64
}

const (
	requestHeaderSize = int(unsafe.Sizeof(requestHeader{}))
	stepHeaderSize    = int(unsafe.Sizeof(stepHeader{}))
	answerSize        = int(unsafe.Sizeof(answer{}))
	commandHeaderSize = int(unsafe.Sizeof(commandHeader{}))
)

func (a *answer) exited() Exit {
	status := syscall.WaitStatus(a.status)
	e := Exit{
		Usage: Usage{CPU: time.Duration(a.userMicros+a.systemMicros) * time.Microsecond, MemoryPeak: int64(a.maxRSSKB) << 10},
	}
	if status.Signaled() {
		e.Signal = status.Signal()
		e.Code = 128 + int(e.Signal)
	} else {
		e.Code = status.ExitStatus()
	}
	return e
}

// encode lays a request out as the spawner reads it.
func encodeRequest(head *requestHeader, steps []step) ([]byte, error) {
	b := make([]byte, requestHeaderSize, 4096)
	for _, s := range steps {
		at := len(b)
		b = append(b, make([]byte, stepHeaderSize)...)
		if s.raw != nil {
			b = append(b, s.raw...)
		}
		for _, t := range s.text {
			b = append(b, t...)
			b = append(b, 0)
		}
		for len(b)%8 != 0 {
			b = append(b, 0)
		}
		var flags uint16
		if s.optional {
			flags = stepOptional
		}
		h := b[at:]
		n := binary.NativeEndian
		n.PutUint16(h[0:], uint16(s.op))
		n.PutUint16(h[2:], flags)
		n.PutUint32(h[4:], uint32(len(b)-at))
		n.PutUint64(h[8:], s.a)
		n.PutUint64(h[16:], s.b)
		n.PutUint64(h[24:], s.c)
	}
	if len(b) > maxRequest {
		return nil, fmt.Errorf("arguments and environment are %d bytes long, more than %d", len(b), maxRequest)
	}
	head.version = wireVersion
	head.steps = uint32(len(steps))
	head.bytes = uint32(len(b) - requestHeaderSize)
	if len(b) > inlineRequest {
		head.flags |= requestByFD
	}
	copy(b, unsafe.Slice((*byte)(unsafe.Pointer(head)), requestHeaderSize)) // plain numbers, no pointers
	return b, nil
}

func decodeAnswer(b []byte) (answer, error) {
	var a answer
	if len(b) != answerSize {
		return a, fmt.Errorf("answer of %d bytes, want %d", len(b), answerSize)
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&a)), answerSize), b) // plain numbers, no pointers
	if a.version != wireVersion {
		return a, fmt.Errorf("answer of version %d, want %d", a.version, wireVersion)
	}
	return a, nil
}
