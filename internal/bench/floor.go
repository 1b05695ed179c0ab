package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A floor is the least that answering from a process of another language takes: a net/http handler
// that hands the body to one of as many waiting processes as there are processors, and its answer
// to the caller. There is no sandbox, no access check, no log and no record. What a platform of
// this shape adds to net/http cannot be less; the rest is its own.

const pythonFloor = `
import json, socket, struct
s = socket.socket(fileno=3)
def exactly(n):
    b = s.recv(n)
    while len(b) < n:
        more = s.recv(n - len(b))
        if not more: raise SystemExit
        b += more
    return b
while True:
    args = json.loads(exactly(struct.unpack(">I", exactly(4))[0]))
    b = json.dumps({"greeting": "Hello, %s!" % args["name"]}, separators=(",", ":")).encode()
    s.sendall(struct.pack(">I", len(b)) + b)
`

const nodeFloor = `
const s = new (require('net').Socket)({fd: 3});
let held = Buffer.alloc(0);
s.on('data', d => {
  held = held.length ? Buffer.concat([held, d]) : d;
  while (held.length >= 4 && held.length >= 4 + held.readUInt32BE(0)) {
    const n = held.readUInt32BE(0), args = JSON.parse(held.toString('utf8', 4, 4 + n));
    held = held.subarray(4 + n);
    const out = Buffer.from('    ' + JSON.stringify({greeting: 'Hello, ' + args.name + '!'}));
    out.writeUInt32BE(out.length - 4, 0);
    s.write(out);
  }
});
s.on('end', () => process.exit());
`

// Floor serves Answer from processes of a language, python or node. Of one function there are as many as
// there are processors; of more, whose numbers are their paths, each has one.
func Floor(listen, lang string, functions int) error {
	command := map[string][]string{"python": {"python3", "-S", "-c", pythonFloor}, "node": {"node", "-e", nodeFloor}}[lang]
	if command == nil {
		return fmt.Errorf("no floor of %q", lang)
	}
	each := runtime.NumCPU()
	if functions > 1 {
		each = 1
	}
	pools := make([]chan *net.UnixConn, functions)
	for i := range pools {
		pools[i] = make(chan *net.UnixConn, each)
		for range each {
			c, err := beside(command)
			if err != nil {
				return err
			}
			pools[i] <- c
		}
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in, err := io.ReadAll(r.Body)
		n, _ := strconv.ParseUint(strings.TrimPrefix(r.URL.Path, "/"), 10, 32) // of one, the first
		workers := pools[n%uint64(functions)]
		var out []byte
		if err == nil {
			c := <-workers
			out, err = exchange(c, in)
			workers <- c
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(out)
	}))
}

// exchange sends one frame and returns what comes back.
func exchange(c *net.UnixConn, in []byte) ([]byte, error) {
	if _, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(in))), in...)); err != nil {
		return nil, err
	}
	b := make([]byte, 4096)
	n, err := io.ReadAtLeast(c, b, 4)
	if err != nil {
		return nil, err
	}
	size := 4 + int(binary.BigEndian.Uint32(b))
	if size > len(b) {
		return nil, errors.New("the answer is longer than any should be")
	}
	_, err = io.ReadFull(c, b[n:max(n, size)])
	return b[4:size], err
}

// beside starts a process whose descriptor 3 is the far end of the connection. It ends with it.
func beside(command []string) (*net.UnixConn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	near, far := os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
	defer near.Close()
	defer far.Close()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr, cmd.ExtraFiles = os.Stderr, []*os.File{far}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() { _ = cmd.Wait() }()
	c, err := net.FileConn(near)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}
