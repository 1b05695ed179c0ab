package wasm

import (
	"fmt"

	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"
)

// slot is where the memory of one instance after another lies: addresses for all that a call may
// have, of which the kernel gives pages as they are touched. It never moves, so that growing
// copies nothing, and it is zero when it is handed out.
type slot struct {
	all  []byte
	used uint64 // how far the memory has grown since it was zero
	most uint64 // how far it may grow; at most len(all)
}

// clearUpTo is how much is cleared by writing zeros. Of larger memories few pages are touched as
// a rule, and giving them back costs less than to write all.
const clearUpTo = 256 << 10

func newSlot(size uint64) (*slot, error) {
	size = max(size, pageSize) // a module need not have a memory
	b, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes for an instance: %w", size, err)
	}
	return &slot{all: b, most: size}, nil
}

// Allocate is experimental.MemoryAllocator's.
func (s *slot) Allocate(_, _ uint64) experimental.LinearMemory { return s }

// Reallocate is experimental.LinearMemory's; nil says no, which the program sees as memory.grow
// that returns -1.
func (s *slot) Reallocate(size uint64) []byte {
	if size > s.most {
		return nil
	}
	s.used = max(s.used, size)
	return s.all[:size:size]
}

// Free is experimental.LinearMemory's. The instance's owner gives the slot back when nothing of
// the call runs any more, which is later than this.
func (s *slot) Free() {}

// zero makes the slot as new.
func (s *slot) zero() error {
	used := s.used
	s.used = 0
	if used <= clearUpTo {
		clear(s.all[:used])
		return nil
	}
	return unix.Madvise(s.all[:used], unix.MADV_DONTNEED)
}

// drop gives the addresses back. Nothing may use the slot any more.
func (s *slot) drop() { _ = unix.Munmap(s.all) } // of what was mapped; it can't fail
