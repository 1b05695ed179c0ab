package sandbox

import (
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Spec says what one sandbox is to run and within which bounds.
type Spec struct {
	// Name is unique among live sandboxes: a letter or digit, then letters, digits and
	// dashes, at most 63, lower case.
	Name string
	// Hostname is what the sandbox believes its machine is called; default Name.
	Hostname string
	// Args is the program, an absolute path inside the sandbox, and its arguments.
	Args []string
	// Env is the whole environment; nothing is inherited.
	Env []string
	// Zygote, if set, is what the program is forked from; Args and Env are not used then. The
	// child is confined as a program is, and goes on as the zygote's program lets it.
	Zygote *Zygote
	// Root, if set, is the absolute path of a directory of the host that the sandbox sees as its
	// root, read-only, instead of the host's system: what an image was unpacked to. Nothing of the
	// host can be seen then. The tree needs no place for what is mounted in it, and must not
	// change. Its users' table gets a line for the sandbox's own user.
	Root string
	// Wait makes a sandbox ready for a program that Sandbox.Exec brings, with what it is told on
	// its start; Args, Env, Dir, Conn and the descriptors are not used then. Until then a small
	// program of ours waits in it, as confined as that will be. Adopt may come before.
	Wait bool
	// Dir is where the program starts: default /code if something is mounted there, else /tmp.
	Dir string
	// Mounts are files and directories of the host that this sandbox sees.
	Mounts []Mount
	// Tmp is the size of /tmp in bytes; default 64 MiB. What is written there counts to
	// Memory, as does /dev/shm, which holds at most half of Memory.
	Tmp int64
	// Memory in bytes, without swap; default 128 MiB.
	Memory int64
	// CPU in thousandths of a core; zero means no quota.
	CPU int
	// PIDs is how many processes and threads there may be at a time; default 256.
	PIDs int
	// Files is how many descriptors one process may have open; default 1024.
	Files int
	// Network gives the sandbox a way out; see EgressConfig. Without it there is only its own
	// loopback.
	Network bool
	// Door lets the sandbox connect to Host.Door. It needs Network.
	Door bool
	// Listen, if set, is a literal address and port of the sandbox's loopback at which the host
	// listens before the program starts; Sandbox.Listener has the connections.
	Listen string
	// Conn gives the program a connected stream socket as descriptor 3; Sandbox.Conn is the
	// other end.
	Conn bool
	// Stdin, Stdout and Stderr are the program's first descriptors; nil means /dev/null.
	// Start does not close them.
	Stdin, Stdout, Stderr *os.File
}

// Mount is a file or directory of the host that a sandbox sees at Target.
type Mount struct {
	Source string // on the host
	Target string // absolute, in the sandbox
	// Writable lets the sandbox write: the tree is given to the sandbox's user. Otherwise
	// the mount is read-only.
	Writable bool
}

const (
	defaultTmp    = 64 << 20
	defaultMemory = 128 << 20
	defaultPIDs   = 256
	defaultFiles  = 1024
	// defaultHostname is what a sandbox is called before it is named.
	defaultHostname = "sandbox"
	// minMemory is what the kernel needs to exec at all, with a little to spare.
	minMemory = 1 << 20
	// tmpInode is how many bytes of /tmp pay for one inode: an inode and its directory entry
	// take about a kilobyte of kernel memory, so that names cannot outweigh contents.
	tmpInode = 4096
)

var (
	nameForm     = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	hostnameForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$`)
	// reserved are the places of the root that mounts must not cover.
	reserved = []string{"/", "/proc", "/dev", "/dev/shm", "/etc", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/sys", "/tmp"}
)

// complete returns the spec with defaults filled in, or says what is wrong with it.
func (s Spec) complete() (Spec, error) {
	if !nameForm.MatchString(s.Name) {
		return s, fmt.Errorf("sandbox name %q: want lower-case letters, digits and dashes, at most 63", s.Name)
	}
	if s.Hostname == "" {
		s.Hostname = s.Name
	}
	if !hostnameForm.MatchString(s.Hostname) {
		return s, fmt.Errorf("sandbox %s: hostname %q: not a host name", s.Name, s.Hostname)
	}
	if s.Wait && s.Zygote != nil {
		return s, fmt.Errorf("sandbox %s: a program is forked or waited for, not both", s.Name)
	}
	if s.Zygote != nil || s.Wait {
		s.Args, s.Env = nil, nil
	} else if len(s.Args) == 0 || !path.IsAbs(s.Args[0]) {
		return s, fmt.Errorf("sandbox %s: the program must be an absolute path, got %q", s.Name, s.Args)
	}
	if s.Root != "" && (!path.IsAbs(s.Root) || s.Zygote != nil) {
		return s, fmt.Errorf("sandbox %s: the root must be an absolute path, and a zygote has its own, got %q", s.Name, s.Root)
	}
	for _, text := range slices.Concat(s.Args, s.Env, []string{s.Dir}) {
		if strings.IndexByte(text, 0) >= 0 {
			return s, fmt.Errorf("sandbox %s: a NUL byte in arguments or environment", s.Name)
		}
	}
	mounts, err := checkMounts(s.Mounts)
	if err != nil {
		return s, fmt.Errorf("sandbox %s: %w", s.Name, err)
	}
	s.Mounts = mounts
	if s.Dir == "" && slices.ContainsFunc(mounts, func(m Mount) bool { return m.Target == "/code" }) {
		s.Dir = "/code"
	}
	if s.Dir == "" {
		s.Dir = "/tmp"
	}
	if s.Tmp <= 0 {
		s.Tmp = defaultTmp
	}
	if s.Memory <= 0 {
		s.Memory = defaultMemory
	}
	s.Memory = max(s.Memory, minMemory)
	if s.PIDs <= 0 {
		s.PIDs = defaultPIDs
	}
	if s.Files <= 0 {
		s.Files = defaultFiles
	}
	return s, nil
}

// checkMounts returns the mounts with clean targets in the order in which they are made, or says
// what is wrong with one.
func checkMounts(mounts []Mount) ([]Mount, error) {
	mounts = slices.Clone(mounts)
	for i, m := range mounts {
		target := path.Clean(m.Target)
		if !path.IsAbs(m.Target) || slices.Contains(reserved, target) || strings.HasPrefix(target, "/proc/") || strings.HasPrefix(target, "/dev/") {
			return nil, fmt.Errorf("cannot mount at %q", m.Target)
		}
		mounts[i].Target = target
	}
	// A mount below another one's target must come after it.
	slices.SortStableFunc(mounts, func(a, b Mount) int { return strings.Compare(a.Target, b.Target) })
	for i := 1; i < len(mounts); i++ {
		if mounts[i].Target == mounts[i-1].Target {
			return nil, fmt.Errorf("two mounts at %q", mounts[i].Target)
		}
	}
	return mounts, nil
}
