package leak

import (
	_ "embed"
	"strings"
	"testing"
)

//go:embed testdata/leaver.js
var leaverNode string

var node = language{
	runtime: "node", scans: true,
	make: func(_ *testing.T, _ *machine, mark string) (map[string]string, string) {
		return map[string]string{"f.js": strings.Replace(leaverNode, "// MARK", "const ownMark = '"+mark+"';", 1)}, "f.js"
	},
	things: []thing{
		{name: "a variable", seenAs: "a variable", marks: true},
		{name: "a class", seenAs: "a class"},
		{name: "a global", seenAs: "a global", marks: true},
		{name: "a module", seenAs: "a module"},
		{name: "a built-in module", seenAs: "a built-in module"},
		{name: "a path of modules", seenAs: "a path of modules"},
		{name: "an extension", seenAs: "an extension"},
		{name: "a prototype", seenAs: "a prototype"},
		{name: "a function of the library", seenAs: "a function of the library"},
		{name: "a global function", seenAs: "a global function"},
		{name: "the environment", seenAs: "the environment", marks: true},
		{name: "arguments", seenAs: "arguments", fate: replaced}, // the title is the thread's name
		{name: "the directory", seenAs: "the directory"},
		{name: "umask", seenAs: "umask"},
		{name: "a listener of events", seenAs: "listeners"},
		{name: "an exit hook", seenAs: "listeners"},
		{name: "a signal handler", seenAs: "what the kernel says", fate: either}, // the first has a pipe made
		{name: "defaults of events", seenAs: "defaults of events"},
		{name: "a context"}, // each call has its own
		{name: "a timer", seenAs: "active things"},
		{name: "an interval", seenAs: "a variable"},
		{name: "immediates", seenAs: "a variable"},
		{name: "a promise", seenAs: "a variable"},
		{name: "a finalizer", seenAs: "a global"},
		{name: "work of the pool", fate: either}, // its threads may be busy for longer than is waited for
		{name: "a worker", seenAs: "threads", fate: either},
		{name: "memory that is freed", marks: true},
		{name: "a string", marks: true},
		{name: "a file in /tmp", seenAs: "files in /tmp", fate: replaced},
		{name: "a directory in /tmp", fate: replaced},
		{name: "a file in /dev/shm", seenAs: "files in /dev/shm", fate: replaced},
		{name: "a temporary file that is gone"},
		{name: "an open file", seenAs: "open files", fate: replaced},
		{name: "a listening server", seenAs: "open files", fate: replaced},
		{name: "an abstract socket", seenAs: "connections", fate: replaced},
		{name: "a connection", seenAs: "connections", fate: replaced},
		{name: "a watcher", seenAs: "open files", fate: replaced},
		{name: "a child", fate: replaced, ends: true},
		{name: "a child that has ended", fate: either},
		{name: "the nice value", seenAs: "the nice value", fate: replaced},
	},
}
