package sandbox

import (
	"encoding/binary"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// judge runs a filter over one call, as the kernel does, and counts instructions.
func judge(t *testing.T, program []unix.SockFilter, audit, number uint32, args ...uint64) (verdict uint32, steps int) {
	t.Helper()
	data := make([]byte, 64)
	binary.LittleEndian.PutUint32(data[dataNumber:], number)
	binary.LittleEndian.PutUint32(data[dataArch:], audit)
	for i, a := range args {
		binary.LittleEndian.PutUint64(data[dataArgs+8*i:], a)
	}
	var acc uint32
	for pc := 0; pc < len(program); pc++ {
		steps++
		in := program[pc]
		branch := func(yes bool) {
			if yes {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		}
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			acc = binary.LittleEndian.Uint32(data[in.K:])
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= in.K
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			branch(acc == in.K)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			branch(acc >= in.K)
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(in.K)
		case unix.BPF_RET | unix.BPF_K:
			return in.K, steps
		default:
			t.Fatalf("instruction %d: code %#x", pc, in.Code)
		}
	}
	t.Fatal("the filter ends without a verdict")
	return 0, 0
}

func seccompFilters(t *testing.T, test func(t *testing.T, info *arch.Info, audit uint32, program []unix.SockFilter)) {
	for _, goarch := range []string{"amd64", "arm64"} {
		t.Run(goarch, func(t *testing.T) {
			info, audit, err := seccompArch(goarch)
			must(t, err)
			program, err := assemble(seccompData, info, audit)
			must(t, err)
			test(t, info, audit, program)
		})
	}
}

// Every call of the tables gets what the policy's text says: the plain ones are checked by
// going through the groups once more, without the assembler.
func TestFilterSaysWhatThePolicySays(t *testing.T) {
	var policy seccompPolicy
	must(t, json.Unmarshal(seccompData, &policy))
	allowed, refused, conditional := map[string]bool{}, map[string]string{}, map[string]bool{}
	for _, g := range policy.Groups {
		if g.Name == "" || g.Why == "" {
			t.Errorf("group %q does not say why", g.Name)
		}
		for _, c := range g.Allow {
			allowed[c] = true
		}
		for _, c := range g.Deny {
			refused[c] = g.Errno
		}
		for _, c := range g.When {
			conditional[c.Call] = true
		}
	}
	seccompFilters(t, func(t *testing.T, info *arch.Info, audit uint32, program []unix.SockFilter) {
		longest := 0
		for name, number := range info.SyscallNames {
			if conditional[name] {
				continue
			}
			want := uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.ENOSYS)
			if allowed[name] {
				want = unix.SECCOMP_RET_ALLOW
			} else if e, ok := refused[name]; ok {
				want = unix.SECCOMP_RET_ERRNO | uint32(errnos[e])
			}
			got, steps := judge(t, program, audit, uint32(number))
			if got != want {
				t.Errorf("%s: %#x, want %#x", name, got, want)
			}
			longest = max(longest, steps)
		}
		if got, _ := judge(t, program, audit, 5000); got != unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS) {
			t.Errorf("an unknown call: %#x", got)
		}
		if got, _ := judge(t, program, unix.AUDIT_ARCH_I386, 1); got != unix.SECCOMP_RET_KILL_PROCESS {
			t.Errorf("a call of another architecture: %#x", got)
		}
		t.Logf("%d instructions, at most %d for a call", len(program), longest)
		if len(program) > 400 || longest > 24 {
			t.Errorf("%d instructions, at most %d for a call", len(program), longest)
		}
	})
}

func TestFilterLooksAtArguments(t *testing.T) {
	const yes = unix.SECCOMP_RET_ALLOW
	no := func(e unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }
	cases := []struct {
		call string
		args []uint64
		want uint32
	}{
		{"clone", []uint64{0x11}, yes},     // fork
		{"clone", []uint64{0x3d0f00}, yes}, // a thread
		{"clone", []uint64{unix.CLONE_NEWUSER | 0x11}, no(unix.EPERM)},
		{"clone", []uint64{unix.CLONE_NEWNET}, no(unix.EPERM)},
		{"clone", []uint64{unix.CLONE_NEWNS | unix.CLONE_VM}, no(unix.EPERM)},
		{"clone3", []uint64{0, 88}, no(unix.ENOSYS)},
		{"socket", []uint64{unix.AF_UNIX, 1, 0}, yes},
		{"socket", []uint64{unix.AF_INET, 1, 6}, yes},
		{"socket", []uint64{unix.AF_INET6, 2, 0}, yes},
		{"socket", []uint64{unix.AF_NETLINK, 3, 0}, yes},
		{"socket", []uint64{unix.AF_NETLINK, 3, unix.NETLINK_NETFILTER}, no(unix.EAFNOSUPPORT)},
		{"socket", []uint64{unix.AF_PACKET, 3, 0}, no(unix.EAFNOSUPPORT)},
		{"socket", []uint64{unix.AF_VSOCK, 1, 0}, no(unix.EAFNOSUPPORT)},
		{"socket", []uint64{1<<32 | unix.AF_INET, 1, 0}, no(unix.EAFNOSUPPORT)},
		{"socketpair", []uint64{unix.AF_UNIX, 1, 0}, yes},
		{"socketpair", []uint64{30, 1, 0}, no(unix.EAFNOSUPPORT)},
		{"personality", []uint64{0xffffffff}, yes},
		{"personality", []uint64{0}, yes},
		{"personality", []uint64{0x40000}, no(unix.EPERM)},
		{"ioctl", []uint64{0, 0x5401}, yes}, // TCGETS
		{"ioctl", []uint64{0, 0x5412}, no(unix.EPERM)},
		{"ioctl", []uint64{0, 0xdead00005412}, no(unix.EPERM)},
		{"ioctl", []uint64{0, 0x541c}, no(unix.EPERM)},
		{"mknodat", []uint64{0, 0, 0x1000 | 0o600}, yes}, // a pipe
		{"mknodat", []uint64{0, 0, 0x2000 | 0o600}, no(unix.EPERM)},
		{"mknodat", []uint64{0, 0, 0x6000 | 0o600}, no(unix.EPERM)},
	}
	seccompFilters(t, func(t *testing.T, info *arch.Info, audit uint32, program []unix.SockFilter) {
		for _, c := range cases {
			number, ok := info.SyscallNames[c.call]
			if !ok {
				t.Errorf("%s is not in the table", c.call)
				continue
			}
			if got, _ := judge(t, program, audit, uint32(number), c.args...); got != c.want {
				t.Errorf("%s%#x: %#x, want %#x", c.call, c.args, got, c.want)
			}
		}
	})
}

// A misspelt name would silently allow or refuse nothing.
func TestPolicyNamesExist(t *testing.T) {
	var policy seccompPolicy
	must(t, json.Unmarshal(seccompData, &policy))
	for _, g := range policy.Groups {
		names := slices.Concat(g.Allow, g.Deny)
		for _, c := range g.When {
			names = append(names, c.Call)
		}
		for _, name := range names {
			_, amd := arch.X86_64.SyscallNames[name]
			_, arm := arch.AARCH64.SyscallNames[name]
			if !amd && !arm {
				t.Errorf("group %q: no call %q", g.Name, name)
			}
		}
	}
}

func TestPolicyMistakesAreFound(t *testing.T) {
	for text, want := range map[string]string{
		`{"default":"EWHAT"}`: "no errno",
		`{"default":"EPERM","groups":[{"name":"a","allow":["read","read"]}]}`:                            "named twice",
		`{"default":"EPERM","groups":[{"name":"a","deny":["read"]}]}`:                                    "no errno",
		`{"default":"EPERM","groups":[{"name":"a","when":[{"call":"read","in":["x"]}],"else":"EPERM"}]}`: "invalid syntax",
	} {
		if _, err := assemble([]byte(text), arch.X86_64, unix.AUDIT_ARCH_X86_64); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
