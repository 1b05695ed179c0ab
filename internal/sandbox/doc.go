// Package sandbox confines one process tree: namespaces, a read-only root, control groups, a
// user id of its own, no capabilities, a system call filter, a network of its own or none.
//
// A Host keeps ready what takes long to make: control groups, network namespaces, and above all
// the spawner, a small resident program in C that lives in a mount namespace which holds exactly
// the root that sandboxes see. Starting a sandbox is then a message to the spawner, a clone and
// a handful of mounts.
//
// What is done between clone and exec, and in which order, is said in one place, steps.go, as
// data. The spawner runs the steps; where it cannot run, a stand-in in Go runs the same ones.
// The first step that fails is named in the error, and the program is not started.
//
// Nothing is started with less than was asked: what the kernel or the user's rights do not give
// is refused with an *UnsupportedError, and Probe says beforehand what there is.
//
// When the server dies, by whatever signal, its sandboxes die with it: the spawner is pid 1 of a
// pid namespace that holds them all, and ends when the host's socket closes. What the kernel
// does not clean up by itself is named in a lease file, and removed by the next New.
//
// A program is the second process of its pid namespace: the first only reaps. So signals that it
// sends itself work as anywhere, and orphans do not pile up.
//
// On a virtual machine of two cores that others kept busy, starting a static program took 0.6 ms
// in the best tenth (60 µs of it limits, 15 µs mounting its code) and 0.8 to 1.4 ms in the median,
// os/exec of the same program in the same runs 1.0 and 1.2 to 1.5 ms (BenchmarkStart).
//
// What a sandbox can still learn of the host: the kernel's version, the CPUs, how much memory and
// load there is, all of /usr, and, in /proc/self/mountinfo, where on the host's disk what is
// mounted for it lies.
//
// What runs in a sandbox, and for whom, is decided elsewhere; this package imports nothing of
// ours and knows no function.
package sandbox
