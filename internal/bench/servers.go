package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Answer is what every side answers, byte for byte.
const Answer = `{"greeting":"Hello, Ada!"}`

// Input is what every side is sent.
const Input = `{"name":"Ada"}`

// Plain serves Answer with net/http alone. It is a process of its own, so that its processor time
// can be told apart from the load's.
func Plain(listen string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Name string }
		b, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(b, &in)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"greeting":"Hello, `+in.Name+`!"}`)
	}))
}

const pythonServer = `
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class H(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    def do_POST(self):
        args = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        b = json.dumps({"greeting": "Hello, %s!" % args["name"]}, separators=(",", ":")).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(b)))
        self.end_headers()
        self.wfile.write(b)
        self.wfile.flush()
    def log_message(self, *a): pass
s = ThreadingHTTPServer(("127.0.0.1", 0), H)
print("127.0.0.1:%d" % s.server_address[1], flush=True)
s.serve_forever()
`

const nodeServer = `
const http = require('http');
const s = http.createServer((req, res) => {
  let b = ''; req.on('data', c => b += c);
  req.on('end', () => {
    const out = JSON.stringify({greeting: 'Hello, ' + JSON.parse(b).name + '!'});
    res.writeHead(200, {'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(out)});
    res.end(out);
  });
});
s.listen(0, '127.0.0.1', () => console.log('127.0.0.1:' + s.address().port));
`

// server is a process that is measured.
type server struct {
	cmd  *exec.Cmd
	addr string
}

func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		_ = s.cmd.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(15 * time.Second):
		_ = s.cmd.Process.Kill()
		<-done
	}
}

// launch starts a server that prints its address on its first line.
func launch(args ...string) (*server, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{cmd: cmd}
	var line []byte
	b := make([]byte, 1)
	for {
		if _, err := out.Read(b); err != nil {
			s.stop()
			return nil, fmt.Errorf("%s did not say where it listens: %w", args[0], err)
		}
		if b[0] == '\n' {
			break
		}
		line = append(line, b[0])
	}
	s.addr = strings.TrimSpace(string(line))
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return s, nil
}

// platform starts brasa with a data folder of its own.
func platform(ctx context.Context, binary, dir string) (*server, string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	addr := l.Addr().String()
	_ = l.Close()
	cmd := exec.Command(binary, "serve", "--data", dir, "--listen", addr)
	cmd.Env = append(os.Environ(), "BRASA_PREFIX=bench")
	log, err := os.Create(filepath.Join(dir, "bench.log"))
	if err != nil {
		return nil, "", err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	s := &server{cmd: cmd, addr: addr}
	for {
		res, err := http.Get("http://" + addr + "/readyz")
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				break
			}
		}
		select {
		case <-ctx.Done():
			s.stop()
			b, _ := os.ReadFile(log.Name())
			return nil, "", fmt.Errorf("server not ready: %w\n%s", ctx.Err(), b)
		case <-time.After(20 * time.Millisecond):
		}
	}
	key, err := os.ReadFile(filepath.Join(dir, "admin.key"))
	if err != nil {
		s.stop()
		return nil, "", err
	}
	return s, strings.TrimSpace(string(key)), nil
}
