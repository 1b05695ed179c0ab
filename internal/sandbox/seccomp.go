package sandbox

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// The filter is data with reasons, seccomp/allow.json. It is compiled here rather than by the
// library whose tables of system calls are used: that one compares numbers one after the other,
// and the kernel walks every filter for every number when it is installed. A binary search over
// ranges halves what installing costs and makes the last call as cheap as the first.

//go:embed seccomp/allow.json
var seccompData []byte

type seccompPolicy struct {
	Default string
	Groups  []seccompGroup
}

type seccompGroup struct {
	Name, Why string
	Allow     []string           // always
	Deny      []string           // always, with Errno
	Errno     string             // for Deny
	When      []seccompCondition // allowed if one of a call's conditions holds
	Else      string             // errno if none does
}

type seccompCondition struct {
	Call  string
	Arg   int
	Mask  string // bits looked at; default all 64
	In    []string
	NotIn []string `json:"not_in"`
	And   *seccompCondition
}

// x32Bit marks calls of the x32 ABI, which come with amd64's own architecture number.
const x32Bit = 0x40000000

// seccomp_data: the number at 0, the architecture at 4, arguments from 16, low word first.
const (
	dataNumber = 0
	dataArch   = 4
	dataArgs   = 16
)

var errnos = map[string]syscall.Errno{"EPERM": unix.EPERM, "ENOSYS": unix.ENOSYS, "EAFNOSUPPORT": unix.EAFNOSUPPORT, "EINVAL": unix.EINVAL}

// compileSeccomp returns the filter of the architecture this program was built for.
func compileSeccomp() ([]unix.SockFilter, error) {
	info, audit, err := seccompArch(runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	return assemble(seccompData, info, audit)
}

func seccompArch(goarch string) (*arch.Info, uint32, error) {
	switch goarch {
	case "amd64":
		return arch.X86_64, unix.AUDIT_ARCH_X86_64, nil
	case "arm64":
		return arch.AARCH64, unix.AUDIT_ARCH_AARCH64, nil
	}
	return nil, 0, &UnsupportedError{Feature: "seccomp", Why: "there is no filter for " + goarch}
}

// span is a run of call numbers with one fate; code ends in a return on every way.
type span struct {
	first uint32
	code  []unix.SockFilter
	key   string // equal for equal code
}

func assemble(data []byte, info *arch.Info, audit uint32) ([]unix.SockFilter, error) {
	var policy seccompPolicy
	if err := json.Unmarshal(data, &policy); err != nil {
		return nil, fmt.Errorf("seccomp policy: %w", err)
	}
	fates, err := policy.fates(info)
	if err != nil {
		return nil, fmt.Errorf("seccomp policy: %w", err)
	}
	fallback, err := refuse(policy.Default)
	if err != nil {
		return nil, fmt.Errorf("seccomp policy: %w", err)
	}
	numbers := make([]uint32, 0, len(fates))
	for n := range fates {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	spans := []span{{first: 0, code: fallback, key: fmt.Sprint(fallback)}}
	add := func(first uint32, code []unix.SockFilter) {
		key := fmt.Sprint(code)
		switch last := &spans[len(spans)-1]; {
		case last.first == first:
			last.code, last.key = code, key
		case last.key != key:
			spans = append(spans, span{first, code, key})
		}
	}
	for _, n := range numbers {
		add(n, fates[n])
		if _, next := fates[n+1]; !next {
			add(n+1, fallback)
		}
	}
	program := []unix.SockFilter{
		load(dataArch),
		jump(unix.BPF_JEQ, audit, 1, 0),
		ret(unix.SECCOMP_RET_KILL_PROCESS), // 32-bit calls have other numbers
		load(dataNumber),
	}
	if audit == unix.AUDIT_ARCH_X86_64 {
		program = append(program, jump(unix.BPF_JGE, x32Bit, 0, 1), ret(unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS)))
	}
	return append(program, search(spans)...), nil
}

// fates says for every call number what is done about it.
func (p *seccompPolicy) fates(info *arch.Info) (map[uint32][]unix.SockFilter, error) {
	fates := map[uint32][]unix.SockFilter{}
	set := func(name string, code []unix.SockFilter) error {
		n, ok := info.SyscallNames[name]
		if !ok {
			return nil // not a call of this architecture
		}
		if _, twice := fates[uint32(n)]; twice {
			return fmt.Errorf("%s: named twice", name)
		}
		fates[uint32(n)] = code
		return nil
	}
	for _, g := range p.Groups {
		for _, name := range g.Allow {
			if err := set(name, []unix.SockFilter{ret(unix.SECCOMP_RET_ALLOW)}); err != nil {
				return nil, err
			}
		}
		if len(g.Deny) > 0 {
			no, err := refuse(g.Errno)
			if err != nil {
				return nil, fmt.Errorf("group %q: %w", g.Name, err)
			}
			for _, name := range g.Deny {
				if err := set(name, no); err != nil {
					return nil, err
				}
			}
		}
		var calls []string
		for _, c := range g.When {
			if !slices.Contains(calls, c.Call) {
				calls = append(calls, c.Call)
			}
		}
		for _, call := range calls {
			code, err := g.conditions(call)
			if err != nil {
				return nil, fmt.Errorf("group %q: %w", g.Name, err)
			}
			if err := set(call, code); err != nil {
				return nil, err
			}
		}
	}
	return fates, nil
}

// conditions returns code that allows a call if one of its conditions holds.
func (g *seccompGroup) conditions(call string) ([]unix.SockFilter, error) {
	code, err := refuse(g.Else)
	if err != nil {
		return nil, err
	}
	for _, c := range slices.Backward(g.When) {
		if c.Call != call {
			continue
		}
		test, err := c.allow([]unix.SockFilter{ret(unix.SECCOMP_RET_ALLOW)})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", call, err)
		}
		code = append(test, code...)
	}
	return code, nil
}

// allow returns code that runs then if the condition holds and else falls through behind it.
func (c *seccompCondition) allow(then []unix.SockFilter) ([]unix.SockFilter, error) {
	if c.And != nil {
		inner, err := c.And.allow(then)
		if err != nil {
			return nil, err
		}
		then = inner
	}
	mask := ^uint64(0)
	if c.Mask != "" {
		m, err := strconv.ParseUint(c.Mask, 0, 64)
		if err != nil {
			return nil, err
		}
		mask = m
	}
	values, negate := c.In, false
	if len(c.NotIn) > 0 {
		values, negate = c.NotIn, true
	}
	low, high := uint32(mask), uint32(mask>>32)
	var code []unix.SockFilter
	// The high word must be zero in all our tables; one that is not never matches.
	var miss int // instructions from the end of the high test to "then" or behind it
	tests := make([]uint32, 0, len(values))
	for _, v := range values {
		n, err := strconv.ParseUint(v, 0, 32)
		if err != nil {
			return nil, err
		}
		tests = append(tests, uint32(n))
	}
	lowCode := []unix.SockFilter{load(dataArgs + 8*uint32(c.Arg)), and(low)}
	n := len(tests)
	for i, v := range tests {
		// Hit and miss are distances from behind this test to "then" and behind "then".
		toThen := n - 1 - i
		toEnd := toThen + len(then)
		hit, fall := toThen, 0
		last := i == n-1
		if negate {
			hit = toEnd
		} else if last {
			fall = len(then)
		}
		if hit > 255 || fall > 255 {
			return nil, fmt.Errorf("condition too long")
		}
		lowCode = append(lowCode, jump(unix.BPF_JEQ, v, uint8(hit), uint8(fall)))
	}
	if high != 0 {
		miss = len(lowCode)
		if !negate {
			miss += len(then)
		}
		code = append(code, load(dataArgs+8*uint32(c.Arg)+4), and(high), jump(unix.BPF_JEQ, 0, 0, uint8(miss)))
	}
	code = append(code, lowCode...)
	return append(code, then...), nil
}

// search returns a binary search for the span a number lies in.
func search(spans []span) []unix.SockFilter {
	if len(spans) == 1 {
		return spans[0].code
	}
	mid := len(spans) / 2
	left, right := search(spans[:mid]), search(spans[mid:])
	var code []unix.SockFilter
	if len(left) <= 255 {
		code = append(code, jump(unix.BPF_JGE, spans[mid].first, uint8(len(left)), 0))
	} else {
		code = append(code, jump(unix.BPF_JGE, spans[mid].first, 0, 1), unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(left))})
	}
	return append(append(code, left...), right...)
}

func refuse(name string) ([]unix.SockFilter, error) {
	errno, ok := errnos[name]
	if !ok {
		return nil, fmt.Errorf("no errno %q", name)
	}
	return []unix.SockFilter{ret(unix.SECCOMP_RET_ERRNO | uint32(errno))}, nil
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func and(mask uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: mask}
}

func jump(test uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, Jt: yes, Jf: no, K: k}
}

func ret(k uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
}
