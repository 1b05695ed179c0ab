package sandbox

import (
	"context"
	"errors"
	"testing"
)

// rewindHider answers lines over its connection: "hello" tells what it finds, any other line is
// the name of what it hides where a rewind might not look.
const rewindHider = `
#define _GNU_SOURCE
#include <errno.h>
#include <elf.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
static char *none, *lazy;
static volatile char selector; /* of what dispatches system calls */
struct map { uint64_t a[11]; uint64_t *auxv; uint32_t size, fd; };
static void find(const char *name, unsigned long *from, unsigned long *to) {
	char line[512]; FILE *f = fopen("/proc/self/maps", "r");
	*from = *to = 0;
	while (fgets(line, sizeof line, f)) if (strstr(line, name)) { sscanf(line, "%lx-%lx", from, to); break; }
	fclose(f);
}
static int replaced(const char *name, int prot, int seal, unsigned char fill) {
	unsigned long from, to;
	find(name, &from, &to);
	if (!from) return 1;
	if (munmap((void *)from, to - from)) return 2;
	if (mmap((void *)from, to - from, 3, 0x32, -1, 0) == MAP_FAILED) return 3;
	memset((void *)from, fill, to - from);
	if (mprotect((void *)from, to - from, prot)) return 4;
	if (seal && syscall(462, from, to - from, 0)) return 100 + errno;
	return 0;
}
static int play(const char *what) {
	unsigned long from, to;
	if (!strcmp(what, "landlock")) {
		uint64_t attr = 4 /* read files */ | 8;
		int fd = syscall(444, &attr, 8, 0);
		if (fd < 0) return errno;
		int r = syscall(446, fd, 0) ? errno : 0;
		close(fd);
		return r;
	}
	if (!strcmp(what, "vdso")) return replaced("[vdso]", 5, 0, 0xc3);
	if (!strcmp(what, "sealed vdso")) return replaced("[vdso]", 5, 1, 0xc3);
	if (!strcmp(what, "vvar")) return replaced("[vvar]", 1, 0, 0x11);
	if (!strcmp(what, "sealed none")) {
		mprotect(none, 4096, 3); none[0] = 'x'; mprotect(none, 4096, 0);
		return syscall(462, none, 4096, 0) ? 100 + errno : 0;
	}
	if (!strcmp(what, "sealed heap")) { return syscall(462, lazy, 4096*4, 0) ? 100 + errno : 0; }
	if (!strcmp(what, "lazy")) return madvise(lazy, 4096, 8) ? errno : 0;
	if (!strcmp(what, "wiped")) return madvise(lazy, 4096, 18) ? errno : 0;
	if (!strcmp(what, "auxv")) {
		/* mm map: keep what is there, other auxv */
		static uint64_t aux[32]; for (int i = 0; i < 32; i++) aux[i] = 0x4141;
		FILE *f = fopen("/proc/self/stat", "r"); char s[4096]; s[fread(s, 1, 4095, f)] = 0; fclose(f);
		char *p = strrchr(s, ')') + 2; unsigned long long v[60] = {0}; int k = 2; for (char *t = strtok(p, " "); t; t = strtok(0, " ")) v[++k] = strtoull(t, 0, 10);
		struct map m = {{v[26], v[27], v[45], v[46], v[47], (uint64_t)sbrk(0), v[28], v[48], v[49], v[50], v[51]}, aux, sizeof aux, -1};
		return prctl(35, 14, &m, sizeof m, 0) ? errno : 0;
	}
	if (!strcmp(what, "dispatch")) return prctl(59, 1, 0, 0, &selector) ? errno : 0;
	return 99;
}
int main(void) {
	char line[4096]; int n = 0;
	none = mmap(0, 4096, 0, 0x22, -1, 0);
	lazy = mmap(0, 4096 * 4, 3, 0x22, -1, 0);
	memset(lazy, 'l', 4096);
	for (;;) {
		char c;
		if (read(3, &c, 1) != 1) return 0;
		if (c != '\n') { line[n++ & 255] = c; continue; }
		line[n & 255] = 0; n = 0;
		if (!strcmp(line, "hello")) { write(3, "hello\n", 6); continue; }
		if (!strcmp(line, "look")) {
			selector = 1; syscall(SYS_getpid); selector = 0; /* ends it if calls are dispatched */
			int fd = open("/etc/hosts", O_RDONLY); int e = fd < 0 ? errno : 0; if (fd >= 0) close(fd);
			unsigned char v = 0xff, x = 0; unsigned long vdso = getauxval(AT_SYSINFO_EHDR);
			int pm = open("/proc/self/mem", O_RDONLY); pread(pm, &v, 1, vdso); pread(pm, &x, 1, (long)none); close(pm);
			uint64_t aux[2] = {0}; fd = open("/proc/self/auxv", O_RDONLY); read(fd, aux, 16); close(fd);
			int un = mprotect(lazy, 4096, 3) ? errno : 0; 
			n = sprintf(line, "open %d vdso %02x none %d auxv %d seal %d\n", e, v, x, aux[0] == 0x4141, un);
			write(3, line, n); n = 0;
			continue;
		}
		if (!strcmp(line, "press")) {
			/* memory runs short, so that what nobody needs is taken */
			for (int k = 0; k < 3000; k++) { char *m = mmap(0, 65536, 3, 0x22, -1, 0); memset(m, 1, 65536); if (madvise(m, 65536, 8)) madvise(m, 65536, 4); }
			int status = 0, child = fork();
			if (!child) _exit((unsigned char)lazy[100]);
			waitpid(child, &status, 0);
			n = sprintf(line, "lazy %02x child %02x\n", (unsigned char)lazy[100], WEXITSTATUS(status));
			write(3, line, n); n = 0;
			continue;
		}
		n = sprintf(line, "did %d\n", play(line));
		write(3, line, n); n = 0;
	}
}
`

// What is hidden where only the kernel keeps it is found, or cannot be hidden there: no program is
// put back with it.
func TestRewindFindsWhatIsHidden(t *testing.T) {
	h := startHost(t)
	needRewind(t, h)
	dir := buildStatic(t, rewindHider)
	for _, what := range []string{"nothing", "landlock", "vdso", "sealed vdso", "vvar", "sealed none", "sealed heap", "lazy", "wiped", "auxv", "dispatch"} {
		t.Run(what, func(t *testing.T) {
			s := startSubject(t, h, []string{"/code/main"}, func(s *Spec) {
				s.Mounts = []Mount{{Source: dir, Target: "/code"}}
				s.Memory = 64 << 20
			})
			s.arm(t)
			clean := s.ask(t, "look")
			s.rewind(t)
			did, _ := s.try(what)
			_, err := s.Rewind(context.Background())
			t.Logf("it %s; rewind: %v", did, err)
			var changed *ChangedError
			if errors.As(err, &changed) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if is, err := s.try("look"); is != clean || err != nil {
				t.Errorf("it finds %q, %v; want %q", is, err, clean)
			}
			if lazy, err := s.try("press"); lazy != "lazy 6c child 6c" || err != nil {
				t.Errorf("when memory runs short and in a child it finds %q, %v", lazy, err)
			}
		})
	}
}
