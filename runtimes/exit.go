package runtimes

import (
	"fmt"
	"syscall"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Exit says how a process ended.
type Exit struct {
	Code   int
	Signal syscall.Signal // 0: it exited by itself
	OOM    bool           // the kernel killed it because its memory limit was reached
}

// Error makes the error of a call whose process ended without an answer. memory is the limit
// that an OOM has met.
func (e Exit) Error(op string, memory faas.Bytes) *faas.Error {
	switch {
	case e.OOM:
		return faas.Errorf(faas.Crashed, op, "the process was killed: it needed more than its memory_bytes, %s", memory).
			WithLimit("memory_bytes").WithFix("give the function more memory")
	case e.Signal != 0:
		return faas.Errorf(faas.Crashed, op, "the process was killed by %s without an answer", signalName(e.Signal))
	}
	return faas.Errorf(faas.Crashed, op, "the process exited with code %d without an answer", e.Code)
}

// signalName returns what people call a signal.
func signalName(s syscall.Signal) string {
	names := map[syscall.Signal]string{
		syscall.SIGABRT: "SIGABRT", syscall.SIGBUS: "SIGBUS", syscall.SIGFPE: "SIGFPE", syscall.SIGHUP: "SIGHUP",
		syscall.SIGILL: "SIGILL", syscall.SIGINT: "SIGINT", syscall.SIGKILL: "SIGKILL", syscall.SIGPIPE: "SIGPIPE",
		syscall.SIGQUIT: "SIGQUIT", syscall.SIGSEGV: "SIGSEGV", syscall.SIGSYS: "SIGSYS (a forbidden system call)",
		syscall.SIGTERM: "SIGTERM", syscall.SIGXCPU: "SIGXCPU", syscall.SIGXFSZ: "SIGXFSZ",
	}
	if n, ok := names[s]; ok {
		return n
	}
	return fmt.Sprintf("signal %d", int(s))
}
