package sandbox

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Probe looks at what this kernel allows this user. It changes nothing and takes about a
// millisecond. Calls are tried with arguments that can only fail, and how they fail tells.
func Probe() Features { return probe(Config{}) }

func probe(cfg Config) Features {
	root := os.Geteuid() == 0
	second := root && os.Getenv(reexecMark) != ""
	base, count := cfg.UIDBase, cfg.UIDCount
	if count == 0 {
		base, count = 0x42000000, 60000
	}
	many := root && mapsManyIDs("/proc/self/uid_map", base, count)
	layout, cgroupErr := lookCgroups(ownCgroups(), "brasa")

	f := Features{privilege(root, second)}
	add := func(name string, have, required bool, detail, lost, fix string) {
		f = append(f, Feature{Name: name, Have: have, Required: required, Detail: detail, Lost: lost, Fix: fix})
	}
	add(featureUID, many, false, ifElse(many, "a range of ids is mapped", "only one user id is mapped here"),
		"all sandboxes run as the server's user, held apart by namespaces only", "run the server as root")
	for _, ns := range []struct{ name, file, lost, option string }{
		{featureMountNS, "mnt", "files of the host could not be hidden", ""},
		{featurePIDNS, "pid", "processes of the host could not be hidden", "CONFIG_PID_NS"},
		{featureNetNS, "net", "the host's network could not be hidden", "CONFIG_NET_NS"},
		{featureIPCNS, "ipc", "shared memory of the host could not be hidden", "CONFIG_IPC_NS"},
		{featureCgroupNS, "cgroup", "the place in the host's cgroups could not be hidden", "CONFIG_CGROUPS"},
	} {
		_, err := os.Stat("/proc/self/ns/" + ns.file)
		add(ns.name, err == nil, true, ifElse(err == nil, "there", "not in this kernel"), ns.lost, "use a kernel with "+ns.option)
	}
	f = append(f, kernelCalls()...)
	f = append(f, spawnerFeature(cfg))
	f = append(f, cgroupFeatures(layout, cgroupErr)...)
	f = append(f, overlayFeature())
	f = append(f, rewindFeature(many))
	return append(f, networkFeatures(many)...)
}

func privilege(root, second bool) Feature {
	x := Feature{Name: featurePrivilege, Required: true, Lost: "no sandbox can be made", Fix: "run the server as root, or allow user namespaces"}
	switch {
	case second:
		x.Have, x.Detail = true, "root of a user namespace"
	case root && capable(unix.CAP_SYS_ADMIN):
		x.Have, x.Detail = true, "root"
	case root:
		x.Detail = "root without CAP_SYS_ADMIN, as in an ordinary container"
		x.Fix = "give the container CAP_SYS_ADMIN, or run as an ordinary user outside of it"
	default:
		u := userNamespaces()
		x.Have, x.Detail = u.Have, u.Detail
		if !u.Have {
			x.Fix = u.Fix
		}
	}
	return x
}

// userNamespaces says whether an ordinary user may make one.
func userNamespaces() Feature {
	x := Feature{Name: featurePrivilege, Detail: "an ordinary user may make user namespaces", Have: true}
	for _, s := range []struct{ file, bad, fix string }{
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"},
		{"/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for the binary"},
	} {
		text, err := os.ReadFile(s.file)
		if err == nil && strings.TrimSpace(string(text)) == s.bad {
			return Feature{Name: featurePrivilege, Detail: s.file + " is " + s.bad, Fix: s.fix + ", or run the server as root"}
		}
	}
	if _, err := os.Stat("/proc/self/ns/user"); err != nil {
		return Feature{Name: featurePrivilege, Detail: "this kernel has no user namespaces", Fix: "run the server as root"}
	}
	return x
}

// kernelCalls are system calls that must exist. Each is made so that it cannot succeed.
func kernelCalls() Features {
	there := func(nr uintptr, a, b, c uintptr) bool {
		_, _, errno := unix.RawSyscall(nr, a, b, c)
		return errno != unix.ENOSYS
	}
	bad := ^uintptr(0)
	var f Features
	add := func(name string, have bool, lost, fix string) {
		f = append(f, Feature{Name: name, Have: have, Required: true, Detail: ifElse(have, "there", "refused by this kernel"), Lost: lost, Fix: fix})
	}
	// A filter at address 0 fails with EFAULT where filters exist.
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, 0)
	add(featureSeccomp, errno == unix.EFAULT, "programs could reach all of the kernel", "use a kernel with CONFIG_SECCOMP_FILTER")
	nnp, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	add(featureNoNewPrivs, err == nil && nnp >= 0, "set-user-id programs would work", "use Linux 3.5 or later")
	add(featurePivot, there(unix.SYS_PIVOT_ROOT, 0, 0, 0), "the host's root could not be left", "")
	add(featureMountAPI, there(unix.SYS_OPEN_TREE, bad, 0, 0) && there(unix.SYS_MOUNT_SETATTR, bad, 0, bad) && there(unix.SYS_MOVE_MOUNT, bad, 0, bad), "code could not be mounted", "use Linux 5.12 or later")
	add(featurePidfd, there(unix.SYS_PIDFD_OPEN, bad, 0, 0) && there(unix.SYS_PIDFD_SEND_SIGNAL, bad, 0, 0), "a process could not be killed for certain", "use Linux 5.3 or later")
	return f
}

// spawnerFeature tries to make an executable memfd, and to execute nothing with it.
func spawnerFeature(cfg Config) Feature {
	x := Feature{Name: featureSpawner, Lost: "sandboxes start ten times slower, through the binary itself", Detail: "embedded program in a sealed memfd"}
	switch f, err := spawnerProgram(); {
	case cfg.GoInit:
		x.Detail = "not wanted by configuration"
		if err == nil {
			f.Close()
		}
	case err != nil:
		x.Detail = err.Error()
		x.Fix = "sysctl vm.memfd_noexec=0"
	default:
		f.Close()
		x.Have = true
	}
	return x
}

func cgroupFeatures(l *cgroupLayout, err error) Features {
	var f Features
	detail := func(c string) (bool, string) {
		switch {
		case l == nil:
			return false, err.Error()
		case !l.has[c]:
			return false, fmt.Sprintf("v%d without the controller", l.version)
		}
		return true, fmt.Sprintf("v%d", l.version)
	}
	const fix = "run as root, or as a systemd unit with Delegate=yes"
	for _, c := range []struct{ name, controller, lost string }{
		{featureMemory, "memory", "memory is measured every 25 ms and a sandbox over its limit killed, instead of never getting more"},
		{featureCPU, "cpu", "CPU limits are not enforced"},
		{featurePIDs, "pids", "processes are limited by RLIMIT_NPROC only"},
	} {
		have, d := detail(c.controller)
		f = append(f, Feature{Name: c.name, Have: have, Detail: d, Lost: c.lost, Fix: fix})
	}
	swap := Feature{Name: featureSwap, Have: true, Detail: "no swap is in use", Lost: "a sandbox over its memory swaps instead of ending", Fix: "boot with swapaccount=1, or swapoff -a"}
	if swapInUse() {
		swap.Have = l != nil && l.has["memory"] && l.swap
		swap.Detail = ifElse(swap.Have, "limited by cgroup", "swap is in use and not accounted")
	}
	return append(f, swap)
}

func networkFeatures(many bool) Features {
	admin := many && capable(unix.CAP_NET_ADMIN)
	veth := admin
	table := false
	var why error
	if admin {
		why = tryNftables()
		table = why == nil
	}
	text := "needs root"
	if admin && why != nil {
		text = why.Error()
	} else if admin {
		text = "there"
	}
	fix := "run the server as root on a kernel with veth and nftables"
	lost := "functions cannot have network"
	return Features{
		{Name: featureVeth, Have: veth, Detail: ifElse(veth, "there", "needs root"), Lost: lost, Fix: fix},
		{Name: featureNftables, Have: table, Detail: text, Lost: lost, Fix: fix},
	}
}

const overlayFix = "use Linux 5.12 or later with CONFIG_OVERLAY_FS: modprobe overlay; and no data folder that lies on an overlay of overlays itself"

// overlayFeature says whether the kernel has the file system; whether it takes the directories at
// hand is known at the first use.
func overlayFeature() Feature {
	x := Feature{Name: featureOverlay, Lost: "functions deployed as an image are refused", Detail: "there", Have: true}
	c, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		x.Have, x.Detail, x.Fix = false, err.Error(), overlayFix
		return x
	}
	unix.Close(c)
	return x
}

// swapInUse says whether the machine has a swap device.
func swapInUse() bool {
	text, err := os.ReadFile("/proc/swaps")
	return err == nil && strings.Count(string(text), "\n") > 1
}

// findMasks returns what of maskedFiles and maskedDirs this kernel has and everyone may read;
// the rest is closed to a sandbox's user as it is.
func findMasks() masks {
	there := func(paths []string) (found []string) {
		for _, p := range paths {
			if info, err := os.Lstat(p); err == nil && info.Mode().Perm()&0o004 != 0 {
				found = append(found, p)
			}
		}
		return found
	}
	return masks{files: there(maskedFiles), dirs: there(maskedDirs)}
}

func ownCgroups() []cgroupMount {
	mounts, err1 := os.ReadFile("/proc/self/mountinfo")
	self, err2 := os.ReadFile("/proc/self/cgroup")
	if errors.Join(err1, err2) != nil {
		return nil
	}
	return findCgroups(string(mounts), string(self))
}

// capable says whether this thread has a capability.
func capable(c uint) bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&head, &data[0]) != nil {
		return false
	}
	return data[c/32].Effective&(1<<(c%32)) != 0
}

func ifElse(cond bool, yes, no string) string {
	if cond {
		return yes
	}
	return no
}
