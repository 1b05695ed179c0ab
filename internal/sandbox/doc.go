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
// A program need not be known when its sandbox is made: one that was started without code waits,
// and Adopt gives it code, name and limits from outside. And it need not be executed: a Zygote, a
// process of ours with a runtime loaded, forks it, and it confines itself by the same steps.
//
// A used program can be put back to what it was: Arm takes a snapshot, Rewind returns to it. The
// rewinder, a second resident program in C, does it from outside; what the kernel holds of a
// process besides memory is compared, and where it differs the process is killed.
//
// On a virtual machine of two cores that others kept more than busy, in the best tenth: starting
// a static program took 0.55 ms, os/exec of the same program in the same runs 1.0 ms
// (BenchmarkStart); adopting a sandbox 0.08 ms, 0.3 ms if all its limits change (BenchmarkAdopt);
// forking Python, confined, 2.3 ms (BenchmarkFork).
//
// What a sandbox can still learn of the host: the kernel's version, the CPUs, how much memory and
// load there is, all of /usr, and, in /proc/self/mountinfo, where on the host's disk what is
// mounted for it lies.
//
// What runs in a sandbox, and for whom, is decided elsewhere; this package imports nothing of
// ours and knows no function.
package sandbox
