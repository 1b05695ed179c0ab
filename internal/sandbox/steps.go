package sandbox

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// nestFlags are the namespaces of a nest, made ahead of the program. The network namespace comes
// from a pool of its own and the cgroup namespace is made after the cgroup was entered.
const nestFlags = unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// insideID is the user and group id inside a sandbox where there is no range of ids to give
// each its own.
const insideID = 1000

// maskedFiles and maskedDirs are places of /proc that tell about the machine or could be used
// to change it. Mounting /proc read-only takes care of writing; these are for reading. Those
// that this kernel has are covered.
var (
	maskedFiles = []string{"/proc/kcore", "/proc/keys", "/proc/key-users", "/proc/timer_list", "/proc/sched_debug", "/proc/sysrq-trigger", "/proc/kallsyms", "/proc/modules", "/proc/cmdline", "/proc/partitions", "/proc/diskstats", "/proc/config.gz"}
	maskedDirs  = []string{"/proc/acpi", "/proc/asound", "/proc/scsi", "/proc/driver", "/proc/fs", "/proc/bus", "/proc/irq"}
)

// plan is a sandbox in steps: what is done, in which order, on the way from clone to exec. It
// is the one place that knows; the spawner and its stand-in in Go only do what it says.
type plan struct {
	steps  []step
	fds    []int // passed along; steps name them by index
	flags  uint64
	cgroup int // index into fds for CLONE_INTO_CGROUP, or -1
	copy   bool
	pid    int32 // of the process that is made a program
}

func (p *plan) fd(fd int) uint64 {
	p.fds = append(p.fds, fd)
	return uint64(len(p.fds) - 1)
}

func (p *plan) do(name string, op opcode, a, b, c uint64, text ...string) {
	p.steps = append(p.steps, step{name: name, op: op, a: a, b: b, c: c, text: text})
}

func (p *plan) mount(source, target, fstype string, flags uint64, data string) {
	p.do("mount "+target, opMount, flags, 0, 0, source, target, fstype, data)
}

// planInput is what Start has gathered for one sandbox.
type planInput struct {
	spec      Spec
	uid       int // 0: no id of its own, a nested user namespace instead
	group     *cgroup
	netns     int
	mounts    []int // detached, one per Spec.Mounts
	base      *base // of the tree that is to be the root; nil: the host's system
	root      int   // detached, with base
	stdio     [3]int
	conn      int // -1: none
	wait      int // the file of the program that waits for another; 0: the spec's is executed
	filter    []byte
	inProcess bool // by the Go stand-in
	forked    bool // by a zygote: there is no exec
}

type masks struct{ files, dirs []string }

// nestLayout is what nests look like; the same for all of a host.
type nestLayout struct {
	inProcess bool // by the Go stand-in, which has not entered the root
	rootless  bool
	masks     masks
}

// planNest is what is done before it is known which program will run: all that is the same for
// every sandbox. Its process stays, as pid 1, without rights.
func planNest(l nestLayout) *plan {
	p := &plan{flags: nestFlags, cgroup: -1}
	if l.inProcess {
		p.do("enter the root", opPivot, 0, 0, 0)
	}
	const plain = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	// Read-only as a whole: nothing below can be written, whoever owns it. Without root the
	// id maps are still to be written there, so only what could do harm is made read-only.
	if l.rootless {
		p.mount("proc", "/proc", "proc", plain, "")
		p.mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, "")
		p.mount("", "/proc/sys", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|plain, "")
	} else {
		p.mount("proc", "/proc", "proc", plain|unix.MS_RDONLY, "")
	}
	for _, f := range l.masks.files {
		p.mount(emptyFile, f, "", unix.MS_BIND, "")
	}
	for _, d := range l.masks.dirs {
		p.mount(emptyDir, d, "", unix.MS_BIND, "")
	}
	if l.inProcess {
		p.do("drop bounding set", opDropBounding, 0, 0, 0)
	}
	planDefaults(p)
	p.do("drop capabilities", opDropCaps, 0, 0, 0)
	p.do("set no_new_privs", opPrctl, unix.PR_SET_NO_NEW_PRIVS, 1, 0)
	p.do("make undumpable", opPrctl, unix.PR_SET_DUMPABLE, 0, 0)
	p.do("hold", opHold, 0, 0, 0)
	return p
}

func planSandbox(in planInput) *plan {
	p := &plan{cgroup: -1}
	spec := &in.spec
	rootless := in.uid == 0

	// First the cgroups, before memory is used, and while there is one thread.
	if in.group != nil {
		if in.group.into >= 0 {
			p.cgroup = int(p.fd(in.group.into))
		}
		for _, t := range in.group.tasks {
			p.do("join cgroup "+t.controller, opWrite, p.fd(t.fd), 0, 0, "0")
		}
	}
	p.do("enter network namespace", opSetns, p.fd(in.netns), unix.CLONE_NEWNET, 0)
	p.do("make cgroup namespace", opUnshare, unix.CLONE_NEWCGROUP, 0, 0)

	p.do("enter namespaces", opEnter, unix.CLONE_NEWNS|unix.CLONE_NEWIPC|unix.CLONE_NEWUTS, 0, 0)
	planMounts(p, in, rootless)
	counted := in.group != nil && in.group.layout.has["pids"]
	if !rootless {
		planLimits(p, spec, counted)
	}
	if in.inProcess {
		// The embedded spawner has done this once for all; the stand-in execs itself on the
		// way, which without a bounding set would leave it no capabilities.
		p.do("drop bounding set", opDropBounding, 0, 0, 0)
	}

	if rootless {
		// Last, so that everything above belongs to the outer namespace and nothing the
		// program could become inside can undo it. The kernel refuses it to a process that
		// shares memory, hence copy.
		p.copy = true
		p.do("make user namespace", opUnshare, unix.CLONE_NEWUSER, 0, 0)
		p.do("map ids", opMapIDs, 0, 0, 0, fmt.Sprintf("%d 0 1", insideID), fmt.Sprintf("%d 0 1", insideID))
		p.do("set ids", opIDs, insideID, insideID, 1)
		// Only now: what is counted per user id is counted in each user namespace that contains
		// the process, and the outer one, where all sandboxes and the server are counted
		// together, takes as its bound what was set when the inner one was made.
		planSameLimits(p)
		planLimits(p, spec, counted)
	} else {
		p.do("set ids", opIDs, uint64(in.uid), uint64(in.uid), 0)
	}
	p.do("drop capabilities", opDropCaps, 0, 0, 0)
	p.do("set no_new_privs", opPrctl, unix.PR_SET_NO_NEW_PRIVS, 1, 0)
	// The pid namespace of the spawner already ends with it; this is the second rope.
	p.do("set death signal", opPrctl, unix.PR_SET_PDEATHSIG, uint64(unix.SIGKILL), 0)
	p.do("enter "+spec.Dir, opChdir, 0, 0, 0, spec.Dir)
	if in.forked {
		// What exec gives a program that its user may read: its own /proc/self is its own.
		p.do("make dumpable", opPrctl, unix.PR_SET_DUMPABLE, 1, 0)
	} else {
		p.do("make undumpable", opPrctl, unix.PR_SET_DUMPABLE, 0, 0)
	}
	planDescriptors(p, in)
	// Only now: until here it has a copy of the spawner's descriptors, of which there are as many as
	// sandboxes.
	p.limit("open files", unix.RLIMIT_NOFILE, uint64(spec.Files))
	p.steps = append(p.steps, step{name: "install seccomp filter", op: opSeccomp, a: uint64(len(in.filter) / 8), raw: in.filter})
	switch {
	case in.wait > 0:
		p.do("wait", opWait, waitSock+1, 0, 0)
	case !in.forked:
		planExec(p, spec)
	}
	return p
}

// planZygote is a process of ours that makes programs by forking. It is one of few, so nothing is
// made ahead for it.
func planZygote(in planInput) *plan {
	p := &plan{cgroup: -1, flags: unix.CLONE_NEWNS | unix.CLONE_NEWIPC}
	p.do("enter network namespace", opSetns, p.fd(in.netns), unix.CLONE_NEWNET, 0)
	// What it loads may want scratch files; nobody else sees them.
	p.mount("tmpfs", "/tmp", "tmpfs", mountPlain, tmpfsOptions(defaultTmp))
	// One that takes its threads along looks up what it has.
	p.mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RDONLY, "")
	for i, m := range in.spec.Mounts {
		p.do("mount "+m.Target, opMoveMount, p.fd(in.mounts[i]), 0, 0, m.Target)
	}
	p.do("limit capabilities", opCaps, zygoteCaps, 0, 0)
	p.do("set death signal", opPrctl, unix.PR_SET_PDEATHSIG, uint64(unix.SIGKILL), 0)
	planDescriptors(p, in)
	planExec(p, &in.spec)
	return p
}

func planDescriptors(p *plan, in planInput) {
	first := uint64(len(p.fds))
	for _, fd := range in.stdio {
		p.fd(fd)
	}
	if in.conn >= 0 {
		p.fd(in.conn)
	}
	if in.wait > 0 {
		p.fd(in.wait)
	}
	p.do("arrange descriptors", opFDs, uint64(len(p.fds))-first, first, 0)
}

func planExec(p *plan, spec *Spec) {
	p.do("exec "+spec.Args[0], opExec, uint64(len(spec.Args)), uint64(len(spec.Env)), 0, append(append([]string(nil), spec.Args...), spec.Env...)...)
}

const (
	mountPlain  = unix.MS_NOSUID | unix.MS_NODEV
	mountNoExec = mountPlain | unix.MS_NOEXEC
)

// planDefaults makes in a nest what most programs take as it is; planMounts changes the rest.
func planDefaults(p *plan) {
	p.mount("tmpfs", "/tmp", "tmpfs", mountPlain, tmpfsOptions(defaultTmp))
	p.mount("tmpfs", "/dev/shm", "tmpfs", mountNoExec, tmpfsOptions(defaultMemory/2))
	p.do("set hostname", opHostname, 0, 0, 0, defaultHostname)
	p.do("place /etc/hosts", opFile, 0o444, 0, 0, "/tmp/.hosts", "/etc/hosts", hostsFile(defaultHostname))
	p.do("place /etc/passwd", opFile, 0o444, 0, 0, "/tmp/.passwd", "/etc/passwd", "")
}

func planMounts(p *plan, in planInput, rootless bool) {
	spec := &in.spec
	resize := func(target string, flags uint64, was, size int64) {
		if size != was {
			p.do("resize "+target, opMount, flags|unix.MS_REMOUNT, 0, 0, "tmpfs", target, "tmpfs", tmpfsOptions(size))
		}
	}
	resize("/tmp", mountPlain, defaultTmp, spec.Tmp)
	resize("/dev/shm", mountNoExec, defaultMemory/2, spec.Memory/2)
	if spec.Hostname != defaultHostname {
		p.do("set hostname", opHostname, 0, 0, 0, spec.Hostname)
	}
	id := strconv.Itoa(in.uid)
	if rootless {
		id = strconv.Itoa(insideID)
	}
	user := "function:x:" + id + ":" + id + ":function:/tmp:/bin/sh\n"
	if in.base != nil {
		planRoot(p, in, user)
	} else {
		if spec.Hostname != defaultHostname {
			p.do("write /etc/hosts", opReplace, 0, 0, 0, "/etc/hosts", hostsFile(spec.Hostname))
		}
		p.do("write /etc/passwd", opReplace, 0, 0, 0, "/etc/passwd",
			"root:x:0:0:root:/:/usr/sbin/nologin\n"+user+"nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n")
	}

	for i, m := range spec.Mounts {
		if strings.HasPrefix(m.Target, "/tmp/") {
			// The root's directories are there already; /tmp is this sandbox's own.
			at := "/tmp"
			for part := range strings.SplitSeq(m.Target[len("/tmp/"):], "/") {
				at += "/" + part
				p.steps = append(p.steps, step{name: "make " + at, op: opMkdir, optional: true, a: 0o755, text: []string{at}})
			}
		}
		p.do("mount "+m.Target, opMoveMount, p.fd(in.mounts[i]), 0, 0, m.Target)
	}
}

// planRoot makes another tree the root, with what is the sandbox's own in the places that its
// skeleton has for it. What was the root until then is left, and with it all of the host. user is
// the line of the sandbox's user in the table of users.
func planRoot(p *plan, in planInput, user string) {
	// It is empty, and covered for no longer than the next steps take.
	const at = emptyDir
	p.do("mount the root", opMoveMount, p.fd(in.root), 0, 0, at)
	for _, own := range []string{"/proc", "/dev", "/tmp"} {
		p.mount(own, at+own, "", unix.MS_BIND|unix.MS_REC, "")
	}
	p.do("enter the root", opChdir, 0, 0, 0, at)
	p.do("leave the host's root", opPivot, 0, 0, 0)
	// The nest's have no name any more by which they could be brought along.
	p.do("place /etc/hosts", opFile, 0o444, 0, 0, "/tmp/.hosts", "/etc/hosts", hostsFile(in.spec.Hostname))
	p.do("place /etc/passwd", opFile, 0o444, 0, 0, "/tmp/.passwd", "/etc/passwd", in.base.passwd+user)
}

// hostsFile is /etc/hosts of a machine of that name.
func hostsFile(hostname string) string {
	return "127.0.0.1 localhost\n127.0.1.1 " + hostname + "\n::1 localhost ip6-localhost\n"
}

func (p *plan) limit(name string, resource int, value uint64) {
	p.do("limit "+name, opRlimit, uint64(resource), value, value)
}

// planSameLimits sets the resource limits that are the same for every program.
func planSameLimits(p *plan) {
	p.limit("core files", unix.RLIMIT_CORE, 0)
	p.limit("locked memory", unix.RLIMIT_MEMLOCK, 8<<20)
	p.limit("pending signals", unix.RLIMIT_SIGPENDING, 4096)
	p.limit("message queues", unix.RLIMIT_MSGQUEUE, 819200)
}

// planLimits sets those that differ; counted says that a control group limits processes.
func planLimits(p *plan, spec *Spec, counted bool) {
	if !counted {
		// Counted per user id, so it stands in where no control group counts the sandbox's own.
		p.limit("processes", unix.RLIMIT_NPROC, uint64(spec.PIDs))
	}
}

// tmpfsOptions bounds a tmpfs in bytes and in names.
func tmpfsOptions(bytes int64) string {
	return fmt.Sprintf("mode=1777,size=%d,nr_inodes=%d", bytes, max(bytes/tmpInode, 64))
}

// encodeFilter lays a filter out as struct sock_filter.
func encodeFilter(program []unix.SockFilter) []byte {
	b := make([]byte, 0, 8*len(program))
	for _, f := range program {
		b = binary.NativeEndian.AppendUint16(b, f.Code)
		b = append(b, f.Jt, f.Jf)
		b = binary.NativeEndian.AppendUint32(b, f.K)
	}
	return b
}
