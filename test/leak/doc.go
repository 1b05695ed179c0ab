// Package leak holds tests only: that a call finds nothing of those before it which its function's
// reuse policy does not promise, in each language, with real sandboxes, at the door of package
// worker; and that processes which were forked, put back or made ahead draw no random number twice.
//
// A function of these tests says in every call all that it finds, and leaves what it is told to.
// Its tables say of each thing whether a process in which it was left is put back or replaced.
package leak
