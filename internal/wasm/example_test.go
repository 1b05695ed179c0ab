package wasm

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
)

var update = flag.Bool("update", false, "write the example's module anew")

// shout is examples/wasm-shout/shout.wat, instruction for instruction.
func shout() []byte {
	a := newAsm()
	r, w := a.wasi("fd_read", i32t, i32t, i32t, i32t), a.wasi("fd_write", i32t, i32t, i32t, i32t)
	load8, store8, add, sub, ltu := ops(0x2d, 0, 0), ops(0x3a, 0, 0), ops(opAdd), ops(0x6b), ops(0x49)
	void, end := byte(0x40), ops(0x0b)
	main := a.fn(nil, nil, 2,
		store32(0, i32c(64)),
		ops(0x03, void),
		store32(4, i32c(4096)),
		i32c(0), i32c(0), i32c(1), i32c(8), callf(r), ops(opDrop),
		load32(8), ops(0x45, 0x04, void, 0x0f), end,
		i32c(64), lset(0),
		i32c(64), load32(8), add, lset(1),
		ops(0x03, void),
		lget(0), load8, i32c(97), sub, i32c(26), ltu, ops(0x04, void),
		lget(0), lget(0), load8, i32c(32), sub, store8, end,
		lget(0), i32c(1), add, lset(0),
		lget(0), lget(1), ltu, ops(0x0d, 0), end,
		store32(4, load32(8)),
		i32c(1), i32c(0), i32c(1), i32c(12), callf(w), ops(opDrop),
		ops(0x0c, 0), end)
	a.mem(1)
	a.export("_start", 0, main)
	return a.bytes()
}

func TestTheExampleIsItsSource(t *testing.T) {
	const file = "../../examples/wasm-shout/shout.wasm"
	if *update {
		if err := os.WriteFile(file, shout(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(have, shout()) {
		t.Fatalf("%s is not what its source says (%v); write it with -update", file, err)
	}
	p := ready(t, have, 256*faas.MiB, 1)
	long := strings.Repeat("abc xyz, ÄÖ 09 {`\n", 1000)
	want := strings.NewReplacer("abc xyz", "ABC XYZ").Replace(long)
	if a := do(t.Context(), p, long); a.err != nil || a.out != want {
		t.Errorf("answer %q, %v", clip(a.out), a.err)
	}
}
