package wasm

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
)

// witness is a command that answers with the sum of all that a call before it could have left:
// a global, a word of its memory, a word of memory it grows by, and whether a table's entry is
// set; and then leaves all of them behind.
func witness() []byte {
	const page2 = 100 * pageSize // below what it grows to
	a := newAsm()
	w := a.wasi("fd_write", i32t, i32t, i32t, i32t)
	g := a.global(0)
	// Ones for what was left: '0' + count, at 100.
	leftWord := func(at int32) []byte { return join(load32(at), ops(0x45, 0x45)) }
	main := a.fn(nil, nil, 0,
		i32c(199), ops(0x40, 0, opDrop), // memory.grow
		i32c(100), i32c('0'), gget(g), ops(0x45, 0x45, opAdd), leftWord(4096), ops(opAdd), leftWord(page2), ops(opAdd),
		i32c(0), ops(0x25, 0, 0xd1, 0x45, opAdd), ops(opStore32, 2, 0), // table.get, ref.is_null
		i32c(7), gset(g), store32(4096, i32c(-1)), store32(page2, i32c(-1)),
		i32c(0), ops(0xd2), appendU32(nil, 1), ops(0x26, 0), // ref.func of main itself, table.set
		write(w, 1, 0))
	a.mem(1)
	a.tables = [][]byte{{0x70, 0, 1}}
	a.elems = [][]byte{{3, 0, 1, byte(main)}} // declares the reference
	a.export("_start", 0, main)
	a.put(0, iovec(100, 1))
	return a.bytes()
}

func TestACallSeesNothingOfThoseBefore(t *testing.T) {
	p := ready(t, witness(), 256*faas.MiB, 4)
	for i := range 500 {
		if a := do(t.Context(), p, ""); a.err != nil || a.out != "0" {
			t.Fatalf("call %d found %s things left by others (%v), want 0", i, a.out, a.err)
		}
	}
	if len(p.slots) == 0 && len(p.used) == 0 {
		t.Error("no memory was used twice, so nothing was shown")
	}
}

func TestACallSeesNothingOfThoseBeside(t *testing.T) {
	p := ready(t, witness(), 256*faas.MiB, 4)
	var wait sync.WaitGroup
	for range 32 {
		wait.Go(func() {
			for range 50 {
				if a := do(t.Context(), p, ""); a.err != nil || a.out != "0" {
					t.Errorf("found %s things left by others (%v), want 0", a.out, a.err)
					return
				}
			}
		})
	}
	wait.Wait()
}

// A program of a real language keeps its state in many places.
func TestAProgramBeginsAnewWithEveryCall(t *testing.T) {
	p := ready(t, program(t), 512*faas.MiB, 4)
	var wait sync.WaitGroup
	for i := range 32 {
		wait.Go(func() {
			if a := do(t.Context(), p, "count"); a.err != nil || a.out != "1" {
				t.Errorf("count = %q, %v", a.out, a.err)
			}
			text := strings.Repeat(fmt.Sprintf("this is of call %d alone\n", i), 1000)
			if a := do(t.Context(), p, "cat\n"+text); a.err != nil || a.out != text {
				t.Errorf("call %d has another's answer, or none: %v", i, a.err)
			}
		})
	}
	wait.Wait()
}

func TestRandomnessDoesNotRepeat(t *testing.T) {
	const bytes, instances = 16, 10000
	a := newAsm()
	r, w := a.wasi("random_get", i32t, i32t), a.wasi("fd_write", i32t, i32t, i32t, i32t)
	main := a.fn(nil, nil, 0, i32c(16), i32c(bytes), callf(r), ops(opDrop), write(w, 1, 0))
	a.mem(1)
	a.export("_start", 0, main)
	a.put(0, iovec(16, bytes))
	p := ready(t, a.bytes(), 256*faas.MiB, 4)
	var mu sync.Mutex
	seen := map[string]bool{}
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for range instances / 4 {
				a := do(t.Context(), p, "")
				mu.Lock()
				if a.err != nil || len(a.out) != bytes || seen[a.out] {
					t.Errorf("drew %x, %v; seen before: %v", a.out, a.err, seen[a.out])
				}
				seen[a.out] = true
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	if len(seen) != instances {
		t.Errorf("%d different draws of %d", len(seen), instances)
	}
}

// The rehearsal is told to nobody if it fails, so its module is tried here.
func TestTheRehearsalsModuleRuns(t *testing.T) {
	if a := do(t.Context(), ready(t, []byte(nothing), 256*faas.MiB, 1), ""); a.err != nil || a.out != "" {
		t.Errorf("answer %q, %v", a.out, a.err)
	}
	rehearse()
}
