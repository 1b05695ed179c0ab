/* System calls without a C library, for amd64 and arm64.
 *
 * The spawner makes sandboxes with clone(CLONE_VM): until the child calls
 * exec, it shares this program's memory. A C library keeps state there that
 * must not be shared (the thread descriptor, errno, locks, caches of ids), so
 * there is none. Every wrapper returns the kernel's own result: a value, or a
 * negative errno. */
#ifndef BRASA_SYS_H
#define BRASA_SYS_H

#include <asm/unistd.h>
#include <linux/types.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;
typedef __s64 s64;

#if defined(__x86_64__)
static inline long sys6(long n, long a, long b, long c, long d, long e, long f)
{
	long ret;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}
#elif defined(__aarch64__)
static inline long sys6(long n, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = n;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;
	__asm__ volatile("svc #0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory");
	return x0;
}
#else
#error "no system call convention for this architecture"
#endif

/* The function that _start calls. */
#ifndef SYS_MAIN
#define SYS_MAIN "spawner_main"
#endif

#define SYS_PICK(_1, _2, _3, _4, _5, _6, _7, NAME, ...) NAME
#define SYS1(n) sys6(n, 0, 0, 0, 0, 0, 0)
#define SYS2(n, a) sys6(n, (long)(a), 0, 0, 0, 0, 0)
#define SYS3(n, a, b) sys6(n, (long)(a), (long)(b), 0, 0, 0, 0)
#define SYS4(n, a, b, c) sys6(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define SYS5(n, a, b, c, d) sys6(n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define SYS6(n, a, b, c, d, e) \
	sys6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define SYS7(n, a, b, c, d, e, f) \
	sys6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define sys(...) SYS_PICK(__VA_ARGS__, SYS7, SYS6, SYS5, SYS4, SYS3, SYS2, SYS1)(__VA_ARGS__)

#ifndef SYS_LIBRARY /* what only a program needs */
/* spawn_thread runs fn on the given stack in a new process made by clone with
 * the given flags, or clone3 when args is not null. The raw call returns twice
 * and on different stacks, which no compiler can be told; hence assembly.
 * fn does not return. Returns the new pid or a negative errno. */
long raw_clone(u64 flags, void *stack, s32 *pidfd, void (*fn)(void));
long raw_clone3(void *args, u64 size, void (*fn)(void));

#if defined(__x86_64__)
__asm__(".text\n"
	".globl raw_clone\n"
	".type raw_clone,@function\n"
	"raw_clone:\n"
	"	mov %rcx, %r9\n"  /* fn survives the call in r9 */
	"	xor %r10d, %r10d\n" /* child tid */
	"	xor %r8d, %r8d\n"   /* tls */
	"	mov $56, %eax\n"    /* clone(flags, stack, parent_tid, child_tid, tls) */
	"	syscall\n"
	"	test %rax, %rax\n"
	"	jnz 1f\n"
	"	xor %ebp, %ebp\n"
	"	call *%r9\n"
	"	hlt\n"
	"1:	ret\n"
	".globl raw_clone3\n"
	".type raw_clone3,@function\n"
	"raw_clone3:\n"
	"	mov %rdx, %r9\n"
	"	mov $435, %eax\n"
	"	syscall\n"
	"	test %rax, %rax\n"
	"	jnz 2f\n"
	"	xor %ebp, %ebp\n"
	"	call *%r9\n"
	"	hlt\n"
	"2:	ret\n"
	".globl _start\n"
	"_start:\n"
	"	xor %ebp, %ebp\n"
	"	and $-16, %rsp\n"
	"	call " SYS_MAIN "\n"
	"	hlt\n");
#elif defined(__aarch64__)
__asm__(".text\n"
	".globl raw_clone\n"
	".type raw_clone,%function\n"
	"raw_clone:\n"
	"	mov x9, x3\n"
	"	mov x3, xzr\n" /* tls */
	"	mov x4, xzr\n" /* child tid */
	"	mov x8, #220\n" /* clone(flags, stack, parent_tid, tls, child_tid) */
	"	svc #0\n"
	"	cbnz x0, 1f\n"
	"	mov x29, xzr\n"
	"	blr x9\n"
	"	brk #0\n"
	"1:	ret\n"
	".globl raw_clone3\n"
	".type raw_clone3,%function\n"
	"raw_clone3:\n"
	"	mov x9, x2\n"
	"	mov x8, #435\n"
	"	svc #0\n"
	"	cbnz x0, 2f\n"
	"	mov x29, xzr\n"
	"	blr x9\n"
	"	brk #0\n"
	"2:	ret\n"
	".globl _start\n"
	".type _start,%function\n"
	"_start:\n"
	"	mov x29, xzr\n"
	"	mov x30, xzr\n"
	"	bl " SYS_MAIN "\n"
	"	brk #0\n");
#endif
#endif

/* The compiler may call these even in a freestanding program. */
void *memcpy(void *to, const void *from, unsigned long n)
{
	u8 *t = to;
	const u8 *f = from;
	while (n--)
		*t++ = *f++;
	return to;
}

void *memset(void *to, int c, unsigned long n)
{
	u8 *t = to;
	while (n--)
		*t++ = (u8)c;
	return to;
}

static unsigned long length(const char *s)
{
	unsigned long n = 0;
	while (s[n])
		n++;
	return n;
}

#endif
