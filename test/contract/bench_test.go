package contract

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/runtimes"
)

// ownServers are what a language's own library offers for HTTP, with a handler that does the
// same: read 1 KiB of JSON, answer with 1 KiB of JSON.
var ownServers = map[string]string{
	runtimes.Python: `
import json, os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class H(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm, wbufsize = True, -1  # else each answer waits 40 ms for an acknowledgement
    def log_message(self, *a): pass
    def do_POST(self):
        args = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        b = json.dumps(args).encode()
        self.send_response(200); self.send_header("Content-Type", "application/json"); self.send_header("Content-Length", str(len(b))); self.end_headers()
        self.wfile.write(b)
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), H).serve_forever()
`,
	runtimes.Node: `
require('http').createServer((req, res) => {
  const parts = [];
  req.on('data', (d) => parts.push(d)).on('end', () => {
    const b = JSON.stringify(JSON.parse(Buffer.concat(parts).toString()));
    res.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(b) });
    res.end(b);
  });
}).listen(process.env.PORT, '127.0.0.1');
`,
}

var echoes = map[string]Function{
	runtimes.Python: {Entry: "main.py", Files: map[string]string{"main.py": "def main(args):\n    return args\n"}},
	runtimes.Node:   {Entry: "main.js", Files: map[string]string{"main.js": "exports.main = (args) => args;\n"}},
	runtimes.Java:   {Entry: "Main.java", Files: map[string]string{"Main.java": "class Main { static Object main(java.util.Map<String, Object> args) { return args; } }\n"}},
	runtimes.Go:     {Files: map[string]string{"main.go": "package main\n\nfunc Main(args map[string]any) map[string]any { return args }\n"}},
}

// BenchmarkRoundTrip measures one call of 1 KiB there and back, and beside it, call by call in
// the same run so that a busy machine slows both, a request by net/http to the language's own
// server. ratio is the second's median over the first's.
func BenchmarkRoundTrip(b *testing.B) {
	s := NewSuite(b, Plain{})
	b.Cleanup(s.Close)
	body := []byte(`{"text":"` + strings.Repeat("x", 1000) + `"}`)
	for _, language := range languages {
		b.Run(language, func(b *testing.B) {
			in := s.Start(b, language, echoes[language])
			var url string
			if src := ownServers[language]; src != "" {
				name := map[string]string{runtimes.Python: "main.py", runtimes.Node: "main.js"}[language]
				rt, rev, dir := s.program(b, runtimes.HTTPServer, map[string]string{name: src})
				p := s.Launcher.Start(b, rt, rev, dir, nil, false)
				go func() { _, _ = io.Copy(io.Discard, p.Stderr) }()
				h := runtimes.NewHTTPConn(runtimes.HTTPConfig{Dial: dialOf(p), Port: p.Port})
				if err := h.Ready(b.Context(), nil); err != nil {
					b.Fatal(err)
				}
				url = "http://127.0.0.1:" + strconv.Itoa(p.Port) + "/"
			}
			ours, theirs := make([]time.Duration, 0, b.N), make([]time.Duration, 0, b.N)
			call := func() {
				inv := in.Invocation(body)
				res, err := in.RoundTrip(b.Context(), inv, nil)
				if err != nil {
					b.Fatal(err)
				}
				if n, err := drain(res.Body); n == 0 || err != nil {
					b.Fatal(n, err)
				}
			}
			request := func() {
				res, err := http.Post(url, "application/json", bytes.NewReader(body))
				if err != nil {
					b.Fatal(err)
				}
				if n, err := drain(res.Body); n == 0 || err != nil {
					b.Fatal(n, err)
				}
			}
			for range 1000 { // until both are compiled and warm
				call()
				if url != "" {
					request()
				}
			}
			b.ResetTimer()
			for range b.N {
				begin := time.Now()
				call()
				ours = append(ours, time.Since(begin))
				if url != "" {
					begin = time.Now()
					request()
					theirs = append(theirs, time.Since(begin))
				}
			}
			b.StopTimer()
			b.ReportMetric(0, "ns/op") // of both together: says nothing
			b.ReportMetric(float64(median(ours).Microseconds()), "p50-us")
			if url != "" {
				b.ReportMetric(float64(median(theirs).Microseconds()), "own-server-p50-us")
				b.ReportMetric(float64(median(theirs))/float64(median(ours)), "ratio")
			}
		})
	}
}

// BenchmarkConcurrent measures calls from eight goroutines into one instance.
func BenchmarkConcurrent(b *testing.B) {
	s := NewSuite(b, Plain{})
	b.Cleanup(s.Close)
	body := []byte(`{"text":"` + strings.Repeat("x", 1000) + `"}`)
	for _, language := range languages {
		b.Run(language, func(b *testing.B) {
			b.ReportAllocs()
			f := echoes[language]
			f.Concurrency = 8
			in := s.Start(b, language, f)
			b.SetParallelism(4)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					res, err := in.RoundTrip(b.Context(), in.Invocation(body), nil)
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = drain(res.Body)
				}
			})
		})
	}
}

// BenchmarkStart measures from a process's start to its code being loaded.
func BenchmarkStart(b *testing.B) {
	s := NewSuite(b, Plain{})
	b.Cleanup(s.Close)
	for _, language := range languages {
		b.Run(language, func(b *testing.B) {
			for range b.N {
				in := s.Start(b, language, echoes[language])
				b.StopTimer()
				_ = in.Close()
				b.StartTimer()
			}
		})
	}
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
