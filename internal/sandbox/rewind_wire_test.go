package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"
)

// What is said to the rewinder is written down twice, in C and in Go; this compares the two as
// compiled.
func TestRewindWireIsTheSameInBothLanguages(t *testing.T) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("needs gcc")
	}
	header, err := filepath.Abs("spawner/rewind.h")
	must(t, err)
	source := `#include <stdio.h>
#include <stddef.h>
#include <linux/types.h>
#define BRASA_SYS_H
typedef __u8 u8; typedef __u16 u16; typedef __u32 u32; typedef __u64 u64; typedef __s32 s32; typedef __s64 s64;
#include "` + header + `"
#define O(s, f) printf("%s.%s %zu\n", #s, #f, offsetof(struct s, f))
#define N(n) printf("%s %ld\n", #n, (long)(n))
int main(void) {
	O(rewind_request, version); O(rewind_request, op); O(rewind_request, id); O(rewind_request, pid); O(rewind_request, nest); O(rewind_request, handle); N(sizeof(struct rewind_request));
	O(rewind_answer, version); O(rewind_answer, status); O(rewind_answer, id); O(rewind_answer, handle); O(rewind_answer, pages); O(rewind_answer, took); O(rewind_answer, snapshot); O(rewind_answer, kept); O(rewind_answer, threads); O(rewind_answer, wide); O(rewind_answer, part); O(rewind_answer, why); N(sizeof(struct rewind_answer));
	N(REWIND_VERSION); N(REWIND_ARM); N(REWIND_BACK); N(REWIND_DROP); N(REWIND_OK); N(REWIND_NOT); N(REWIND_CHANGED); N(REWIND_UNABLE); N(REWIND_ENDED); N(REWIND_BUSY);
	return 0;
}`
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "a.c"), []byte(source), 0o644))
	if out, err := exec.Command(gcc, "-o", filepath.Join(dir, "a"), filepath.Join(dir, "a.c")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got, err := exec.Command(filepath.Join(dir, "a")).Output()
	must(t, err)

	var q rewindRequest
	var a rewindAnswer
	var want strings.Builder
	say := func(pairs ...any) {
		for i := 0; i < len(pairs); i += 2 {
			fmt.Fprintf(&want, "%s %d\n", pairs[i], pairs[i+1])
		}
	}
	say("rewind_request.version", unsafe.Offsetof(q.version), "rewind_request.op", unsafe.Offsetof(q.op), "rewind_request.id", unsafe.Offsetof(q.id), "rewind_request.pid", unsafe.Offsetof(q.pid), "rewind_request.nest", unsafe.Offsetof(q.nest), "rewind_request.handle", unsafe.Offsetof(q.handle), "sizeof(struct rewind_request)", rewindRequestSize,
		"rewind_answer.version", unsafe.Offsetof(a.version), "rewind_answer.status", unsafe.Offsetof(a.status), "rewind_answer.id", unsafe.Offsetof(a.id), "rewind_answer.handle", unsafe.Offsetof(a.handle), "rewind_answer.pages", unsafe.Offsetof(a.pages), "rewind_answer.took", unsafe.Offsetof(a.took), "rewind_answer.snapshot", unsafe.Offsetof(a.snapshot), "rewind_answer.kept", unsafe.Offsetof(a.kept), "rewind_answer.threads", unsafe.Offsetof(a.threads), "rewind_answer.wide", unsafe.Offsetof(a.wide), "rewind_answer.part", unsafe.Offsetof(a.part), "rewind_answer.why", unsafe.Offsetof(a.why), "sizeof(struct rewind_answer)", rewindAnswerSize,
		"REWIND_VERSION", rewindVersion, "REWIND_ARM", rewindArm, "REWIND_BACK", rewindBack, "REWIND_DROP", rewindDrop, "REWIND_OK", rewindOK, "REWIND_NOT", rewindNot, "REWIND_CHANGED", rewindChanged, "REWIND_UNABLE", rewindUnable, "REWIND_ENDED", rewindEnded, "REWIND_BUSY", rewindBusy)
	if string(got) != want.String() {
		t.Errorf("C says\n%s\nGo says\n%s", got, want.String())
	}
}
