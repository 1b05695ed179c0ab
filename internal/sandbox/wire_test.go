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

// The protocol is written down twice, in C and in Go; this compares the two as compiled.
func TestWireIsTheSameInBothLanguages(t *testing.T) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("needs gcc")
	}
	header, err := filepath.Abs("spawner/wire.h")
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
	O(request, version); O(request, kind); O(request, id); O(request, clone_flags); O(request, cgroup); O(request, flags); O(request, steps); O(request, bytes); O(request, nest); O(request, pid); O(request, made); N(sizeof(struct request));
	O(step, op); O(step, flags); O(step, size); O(step, a); O(step, b); O(step, c); N(sizeof(struct step));
	O(answer, version); O(answer, kind); O(answer, id); O(answer, nest); O(answer, error); O(answer, step); O(answer, status); O(answer, took); O(answer, user_us); O(answer, system_us); O(answer, max_rss_kb); N(sizeof(struct answer));
	O(command, version); O(command, args); O(command, env); O(command, fds); O(command, bytes); N(sizeof(struct command)); N(WAIT_SOCK); N(MAX_COMMAND); N(MAX_STRINGS);
	N(WIRE_VERSION); N(MAX_REQUEST); N(MAX_FDS); N(KIND_SETUP); N(KIND_NEST); N(KIND_START); N(KIND_DONE); N(KIND_EXITED); N(KIND_EMPTY); N(KIND_ZYGOTE); N(KIND_READY); N(KIND_FORK); N(KIND_FORKED); N(REQUEST_BY_FD); N(REQUEST_COPY); N(STEP_OPTIONAL);
	N(OP_WRITE); N(OP_ENTER); N(OP_SETNS); N(OP_UNSHARE); N(OP_MOUNT); N(OP_MOVE_MOUNT); N(OP_FILE); N(OP_MKDIR); N(OP_HOSTNAME); N(OP_RLIMIT); N(OP_MAP_IDS); N(OP_IDS); N(OP_DROP_BOUNDING); N(OP_DROP_CAPS); N(OP_PRCTL); N(OP_CHDIR); N(OP_PIVOT); N(OP_FDS); N(OP_SECCOMP); N(OP_EXEC); N(OP_HOLD); N(OP_CAPS); N(OP_REPLACE); N(OP_WAIT);
	return 0;
}`
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "a.c"), []byte(source), 0o644))
	if out, err := exec.Command(gcc, "-o", filepath.Join(dir, "a"), filepath.Join(dir, "a.c")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got, err := exec.Command(filepath.Join(dir, "a")).Output()
	must(t, err)

	var want strings.Builder
	var q requestHeader
	var s stepHeader
	var a answer
	var c commandHeader
	offsets := func(of string, pairs ...any) {
		for i := 0; i < len(pairs); i += 2 {
			fmt.Fprintf(&want, "%s.%s %d\n", of, pairs[i], pairs[i+1])
		}
	}
	numbers := func(pairs ...any) {
		for i := 0; i < len(pairs); i += 2 {
			fmt.Fprintf(&want, "%s %d\n", pairs[i], pairs[i+1])
		}
	}
	offsets("request", "version", unsafe.Offsetof(q.version), "kind", unsafe.Offsetof(q.kind), "id", unsafe.Offsetof(q.id), "clone_flags", unsafe.Offsetof(q.cloneFlags), "cgroup", unsafe.Offsetof(q.cgroup), "flags", unsafe.Offsetof(q.flags), "steps", unsafe.Offsetof(q.steps), "bytes", unsafe.Offsetof(q.bytes), "nest", unsafe.Offsetof(q.nest), "pid", unsafe.Offsetof(q.pid), "made", unsafe.Offsetof(q.made))
	numbers("sizeof(struct request)", requestHeaderSize)
	offsets("step", "op", unsafe.Offsetof(s.op), "flags", unsafe.Offsetof(s.flags), "size", unsafe.Offsetof(s.size), "a", unsafe.Offsetof(s.a), "b", unsafe.Offsetof(s.b), "c", unsafe.Offsetof(s.c))
	numbers("sizeof(struct step)", stepHeaderSize)
	offsets("answer", "version", unsafe.Offsetof(a.version), "kind", unsafe.Offsetof(a.kind), "id", unsafe.Offsetof(a.id), "nest", unsafe.Offsetof(a.nest), "error", unsafe.Offsetof(a.errno), "step", unsafe.Offsetof(a.step), "status", unsafe.Offsetof(a.status), "took", unsafe.Offsetof(a.took), "user_us", unsafe.Offsetof(a.userMicros), "system_us", unsafe.Offsetof(a.systemMicros), "max_rss_kb", unsafe.Offsetof(a.maxRSSKB))
	numbers("sizeof(struct answer)", answerSize)
	offsets("command", "version", unsafe.Offsetof(c.version), "args", unsafe.Offsetof(c.args), "env", unsafe.Offsetof(c.env), "fds", unsafe.Offsetof(c.fds), "bytes", unsafe.Offsetof(c.bytes))
	numbers("sizeof(struct command)", commandHeaderSize, "WAIT_SOCK", waitSock, "MAX_COMMAND", maxCommand, "MAX_STRINGS", maxStrings,
		"WIRE_VERSION", wireVersion, "MAX_REQUEST", maxRequest, "MAX_FDS", maxFDs, "KIND_SETUP", kindSetup, "KIND_NEST", kindNest, "KIND_START", kindStart, "KIND_DONE", kindDone, "KIND_EXITED", kindExited, "KIND_EMPTY", kindEmpty, "KIND_ZYGOTE", kindZygote, "KIND_READY", kindReady, "KIND_FORK", kindFork, "KIND_FORKED", kindForked, "REQUEST_BY_FD", requestByFD, "REQUEST_COPY", requestCopy, "STEP_OPTIONAL", stepOptional,
		"OP_WRITE", opWrite, "OP_ENTER", opEnter, "OP_SETNS", opSetns, "OP_UNSHARE", opUnshare, "OP_MOUNT", opMount, "OP_MOVE_MOUNT", opMoveMount, "OP_FILE", opFile, "OP_MKDIR", opMkdir, "OP_HOSTNAME", opHostname, "OP_RLIMIT", opRlimit, "OP_MAP_IDS", opMapIDs, "OP_IDS", opIDs, "OP_DROP_BOUNDING", opDropBounding, "OP_DROP_CAPS", opDropCaps, "OP_PRCTL", opPrctl, "OP_CHDIR", opChdir, "OP_PIVOT", opPivot, "OP_FDS", opFDs, "OP_SECCOMP", opSeccomp, "OP_EXEC", opExec, "OP_HOLD", opHold, "OP_CAPS", opCaps, "OP_REPLACE", opReplace, "OP_WAIT", opWait)
	if string(got) != want.String() {
		t.Errorf("C says\n%s\nGo says\n%s", got, want.String())
	}
}

// The committed programs are what the source gives.
func TestSpawnerIsBuiltFromItsSource(t *testing.T) {
	out, err := exec.Command("spawner/build.sh", "-check").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "ok ") {
		t.Skipf("%s", out)
	}
	t.Logf("%s", out)
}
