package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
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
	case <-time.After(30 * time.Second):
		_ = s.cmd.Process.Kill()
		<-done
	}
}

func (s *server) side(name string) *Side {
	return &Side{Name: name, Addr: s.addr, Path: []string{"/"}, PID: s.cmd.Process.Pid}
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
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("%s did not say where it listens: %w", args[0], err)
	}
	s.addr = strings.TrimSpace(line)
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	return s, nil
}

// prefix is what the measured server's control groups and interfaces are called by, so that it
// can run beside another, that of another bench too.
var prefix = "b" + strconv.FormatInt(int64(os.Getpid()), 36)

// platform is a running brasa with a data folder of its own.
type platform struct {
	server
	binary  string
	dir     string
	profile string // address of Go's profiles
	client  *api.Client
	ready   time.Duration // from start until it served
}

// startPlatform starts brasa on the data folder dir with the settings given, NAME=value each.
func startPlatform(ctx context.Context, binary, dir string, settings ...string) (*platform, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	p := &platform{binary: binary, dir: dir}
	var err error
	if p.addr, err = freeAddr(); err != nil {
		return nil, err
	}
	if p.profile, err = freeAddr(); err != nil {
		return nil, err
	}
	p.cmd = exec.Command(binary, "serve", "--data", dir, "--listen", p.addr)
	p.cmd.Env = append(os.Environ(), "BRASA_PREFIX="+prefix, "BRASA_PROFILE="+p.profile)
	p.cmd.Env = append(p.cmd.Env, settings...)
	log, err := os.OpenFile(filepath.Join(dir, "bench.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	began := time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	for {
		res, err := http.Get("http://" + p.addr + "/readyz")
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				break
			}
		}
		select {
		case <-ctx.Done():
			p.stop()
			b, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("server not ready: %w\n%s", ctx.Err(), b[max(0, len(b)-4000):])
		case <-time.After(10 * time.Millisecond):
		}
	}
	p.ready = time.Since(began)
	key, err := os.ReadFile(filepath.Join(dir, "admin.key"))
	if err == nil {
		p.client, err = api.NewClient("http://"+p.addr, strings.TrimSpace(string(key)))
	}
	if err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// side is a function as a side.
func (p *platform) side(name string, functions ...string) *Side {
	s := &Side{Name: name, Addr: p.addr, PID: p.cmd.Process.Pid}
	for _, fn := range functions {
		s.Path = append(s.Path, "/f/"+fn+"/")
	}
	return s
}

// settle waits until nothing is being made, and returns what the node holds then.
func (p *platform) settle(ctx context.Context, atLeast time.Duration) api.Node {
	time.Sleep(atLeast)
	var last api.Node
	for calm, tries := 0, 0; calm < 3 && tries < 100 && ctx.Err() == nil; tries++ {
		nodes, err := p.client.Nodes(ctx)
		if err != nil || len(nodes) == 0 {
			return last
		}
		last = nodes[0]
		busy := last.Starting + last.Waiting
		for _, s := range last.Stems {
			busy += s.Making
		}
		if calm++; busy > 0 {
			calm = 0
		}
		time.Sleep(100 * time.Millisecond)
	}
	return last
}

// goroutines and heap of the server, as its own profiles tell them; 0 if they don't.
func (p *platform) goroutines() int {
	b := p.fetch("/debug/pprof/goroutine?debug=1")
	_, rest, _ := strings.Cut(b, "total ")
	n, _ := strconv.Atoi(strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]))
	return n
}

func (p *platform) heapKB() int {
	b := p.fetch("/debug/pprof/heap?debug=1&gc=1")
	_, rest, _ := strings.Cut(b, "# HeapInuse = ")
	n, _ := strconv.Atoi(strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]))
	return n / 1024
}

func (p *platform) fetch(path string) string {
	res, err := http.Get("http://" + p.profile + path)
	if err != nil {
		return ""
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return string(b)
}
