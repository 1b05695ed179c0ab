package sandbox

import (
	"context"
	"errors"
	"testing"
	"time"
)

// rewindTrickster answers lines over its connection: "hello" counts, any other line is the name
// of a trick, which it plays.
const rewindTrickster = `
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
static volatile int count;
static char *program[] = {"/code/main", 0};
static pthread_attr_t small;
static void *chain(void *p) { pthread_t t; for (;;) if (!pthread_create(&t, &small, chain, 0)) return 0; }
static void *mapper(void *p) { for (;;) { void *m = mmap(0, 1 << 20, 3, 0x22, -1, 0); memset(m, 1, 1 << 20); munmap(m, 1 << 20); } }
static void *vforker(void *p) { if (!vfork()) for (;;) pause(); return 0; }
static void *execer(void *p) { usleep(100); execv(program[0], program); return 0; }
static void *killer(void *p) { usleep((long)p); kill(getpid(), SIGKILL); return 0; }
static void *stopper(void *p) { for (;;) kill(getpid(), SIGSTOP); }
static void *forker(void *p) { for (;;) if (!fork()) _exit(0); }
static void *toucher(void *p) { char *m = mmap(0, 1 << 28, 3, 0x4022, -1, 0); for (;;) for (long i = 0; i < 1 << 28; i += 4096) m[i]++; }
static void *closer(void *p) { for (;;) { close_range(4, ~0u, 0); madvise((void *)((long)&p & ~4095) - 8192, 4096, MADV_DONTNEED); } }
static void again(int s, siginfo_t *i, void *c) { }
static void *faulter(void *p) { *(volatile int *)16 = 1; return 0; }
static void *stepper(void *p) { __asm__ volatile("pushfq\n orq $0x100, (%%rsp)\n popfq\n" ::: "cc", "memory"); for (;;); }
static void *narrow(void *p) {
	char *m = mmap(0, 4096, 7, 0x22 | MAP_32BIT, -1, 0);
	m[0] = 0xeb; m[1] = 0xfe; /* jmp . */
	__asm__ volatile("pushq $0x23\n pushq %0\n lretq" :: "r"((long)m) : "memory");
	return 0;
}
static void unmapper(void) {
	/* all but what it runs in: nothing returns */
	register long rax __asm__("rax") = SYS_munmap, rdi __asm__("rdi") = 0, rsi __asm__("rsi") = 0x7ffffffff000;
	__asm__ volatile("syscall" : "+r"(rax) : "r"(rdi), "r"(rsi) : "rcx", "r11", "memory");
}
static void *unmap_thread(void *p) { unmapper(); return 0; }
static void start(void *(*f)(void *), void *p) { pthread_t t; pthread_create(&t, &small, f, p); }
static void play(const char *trick) {
	if (!strcmp(trick, "threads")) start(chain, 0);
	if (!strcmp(trick, "mappings")) {
		char *m = mmap(0, 120000ul << 12, PROT_NONE, 0x4022, -1, 0);
		for (long i = 0; i < 60000; i++) if (mprotect(m + (i << 13), 4096, PROT_READ)) break;
	}
	if (!strcmp(trick, "maps that move")) start(mapper, 0);
	if (!strcmp(trick, "vfork")) start(vforker, 0);
	if (!strcmp(trick, "exec")) start(execer, 0);
	if (!strcmp(trick, "dying")) start(killer, (void *)50);
	if (!strcmp(trick, "dying later")) start(killer, (void *)400);
	if (!strcmp(trick, "stopping")) start(stopper, 0);
	if (!strcmp(trick, "forks")) start(forker, 0);
	if (!strcmp(trick, "touching")) start(toucher, 0);
	if (!strcmp(trick, "closing")) start(closer, 0);
	if (!strcmp(trick, "faults")) { struct sigaction a = {.sa_sigaction = again, .sa_flags = SA_SIGINFO}; sigaction(SIGSEGV, &a, 0); start(faulter, 0); }
	if (!strcmp(trick, "steps")) { struct sigaction a = {.sa_sigaction = again, .sa_flags = SA_SIGINFO}; sigaction(SIGTRAP, &a, 0); start(stepper, 0); }
	if (!strcmp(trick, "narrow")) start(narrow, 0);
	if (!strcmp(trick, "unmapping")) start(unmap_thread, 0);
	if (!strcmp(trick, "a filter")) {
		struct sock_filter none[] = {{BPF_RET, 0, 0, SECCOMP_RET_KILL_PROCESS}};
		struct sock_fprog f = {1, none};
		write(3, "done\n", 5);
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &f);
		for (;;);
	}
	if (!strcmp(trick, "no leader")) { start(mapper, 0); write(3, "done\n", 5); syscall(SYS_exit, 0); }
}
int main(void) {
	char line[256]; int n = 0;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 65536);
	pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
	for (;;) {
		char c;
		if (read(3, &c, 1) != 1) return 0;
		if (c != '\n') { line[n++ & 255] = c; continue; }
		line[n & 255] = 0; n = 0;
		if (!strcmp(line, "hello")) {
			count++;
			n = count == 1 ? sprintf(line, "hello\n") : sprintf(line, "hello %d\n", count);
			write(3, line, n); n = 0;
			continue;
		}
		play(line);
		write(3, "done\n", 5);
	}
}
`

// A program that plays tricks while it is put back ends, or is put back; the rewinder goes on.
func TestRewindOfTricksters(t *testing.T) {
	h := startHost(t)
	needRewind(t, h)
	dir := buildStatic(t, rewindTrickster)
	begin := func(t *testing.T) *subject {
		return startSubject(t, h, []string{"/code/main"}, func(s *Spec) { s.Mounts = []Mount{{Source: dir, Target: "/code"}} })
	}
	bystander := begin(t)
	bystander.arm(t)
	const (
		either = iota
		changes
		goesOn
	)
	for _, c := range []struct {
		trick string
		want  int
	}{
		{"nothing", goesOn},
		{"threads", either},
		{"mappings", changes},
		{"maps that move", goesOn},
		{"vfork", either},
		{"exec", either},
		{"dying", either},
		{"dying later", either},
		{"stopping", either},
		{"forks", either},
		{"touching", either},
		{"closing", goesOn},
		{"faults", goesOn},
		{"steps", goesOn},
		{"narrow", goesOn},
		{"unmapping", either},
		{"a filter", either},  // which it sets after it has answered
		{"no leader", either}, // the same
	} {
		t.Run(c.trick, func(t *testing.T) {
			for i := range 4 {
				s := begin(t)
				s.arm(t)
				if _, err := s.try(c.trick); err != nil && c.want == goesOn {
					t.Fatal(err)
				}
				time.Sleep(time.Duration(i) * 300 * time.Microsecond) // at different moments of the trick
				at := time.Now()
				_, err := s.Rewind(context.Background())
				t.Logf("after %v: %v", time.Since(at), err)
				var changed *ChangedError
				switch {
				case err == nil && c.want == changes:
					t.Error("it was put back")
				case err != nil && c.want == goesOn:
					t.Error("it was not put back")
				case err == nil:
					// It may be dead by now, but never another than it was.
					if got, err := s.try("hello"); err == nil && got != "hello 2" || err != nil && c.want == goesOn {
						t.Errorf("it says %q, %v", got, err)
					}
				case !errors.As(err, &changed):
					t.Errorf("got %v, want a ChangedError", err)
				default:
					select {
					case <-s.Done():
					case <-time.After(patience):
						t.Fatal("the program goes on")
					}
				}
				s.Close()
				if got := bystander.ask(t, "hello"); got != "hello 2" {
					t.Fatalf("the bystander says %q", got)
				}
				bystander.rewind(t)
			}
		})
	}
}

// A rewinder that dies takes no sandbox with it but those it was at work on; what it kept is lost,
// and another is started.
func TestRewinderIsReplaced(t *testing.T) {
	h := startHost(t)
	needRewind(t, h)
	dir := buildStatic(t, rewindTrickster)
	begin := func() *subject {
		return startSubject(t, h, []string{"/code/main"}, func(s *Spec) { s.Mounts = []Mount{{Source: dir, Target: "/code"}} })
	}
	first := begin()
	first.arm(t)
	first.rewind(t)
	h.rewinders.all[0].cmd.Process.Kill()
	if got := first.ask(t, "hello"); got != "hello 2" {
		t.Errorf("got %q", got)
	}
	if _, err := first.Rewind(context.Background()); err == nil {
		t.Error("a snapshot outlived its keeper")
	}
	<-first.Done()
	second := begin()
	second.arm(t)
	second.ask(t, "hello")
	second.rewind(t)
	if got := second.ask(t, "hello"); got != "hello 2" {
		t.Errorf("got %q", got)
	}
}

// Arming anew goes on from there, and nothing is left of what was armed.
func TestRewindLeavesNothing(t *testing.T) {
	h := startHost(t)
	needRewind(t, h)
	dir := buildStatic(t, rewindTrickster)
	var before, after int
	for round := range 3 {
		for range 10 {
			s := startSubject(t, h, []string{"/code/main"}, func(s *Spec) { s.Mounts = []Mount{{Source: dir, Target: "/code"}} })
			s.arm(t)
			s.ask(t, "hello")
			s.arm(t)
			s.ask(t, "hello")
			s.rewind(t)
			if got := s.ask(t, "hello"); got != "hello 3" {
				t.Fatalf("got %q", got)
			}
			s.Close()
		}
		after = rewinderFDs(t, h)
		if round == 0 {
			before = after
		}
	}
	if after > before {
		t.Errorf("the rewinders have %d descriptors, and had %d", after, before)
	}
}
