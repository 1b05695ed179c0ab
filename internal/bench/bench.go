package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/faas"
)

// Config says what to measure.
type Config struct {
	Binary string    // of brasa
	Self   string    // this program, which serves the plain side when called with "plain"
	Calls  int       // warm calls of each side; default 4000
	Cold   int       // cold calls of each side; default 60
	Out    io.Writer // the table
	JSON   bool      // one JSON object as the last line instead of the table
}

// Row is one comparison: ours beside the others.
type Row struct {
	Title   string
	Samples []*Sample // the first is ours
}

const pythonCode = `
def main(args):
    return {"greeting": "Hello, %s!" % args["name"]}
`

const nodeCode = `
exports.main = (args) => ({greeting: 'Hello, ' + args.name + '!'});
`

const goCode = `package main

func Main(args map[string]any) (map[string]any, error) {
	return map[string]any{"greeting": "Hello, " + args["name"].(string) + "!"}, nil
}
`

// Run measures and prints.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Calls == 0 {
		cfg.Calls = 4000
	}
	if cfg.Cold == 0 {
		cfg.Cold = 60
	}
	dir, err := os.MkdirTemp("", "brasa-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ready, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	brasa, key, err := platform(ready, cfg.Binary, dir)
	if err != nil {
		return err
	}
	defer brasa.stop()
	client, err := api.NewClient("http://"+brasa.addr, key)
	if err != nil {
		return err
	}
	b := &bench{cfg: cfg, brasa: brasa, client: client}
	defer b.close()
	if err := b.servers(); err != nil {
		return err
	}
	if err := b.deploy(ctx); err != nil {
		return err
	}
	rows, err := b.measure(ctx)
	if err != nil {
		return err
	}
	if cfg.JSON {
		return printJSON(cfg.Out, rows)
	}
	printTable(cfg.Out, rows)
	return nil
}

type bench struct {
	cfg    Config
	brasa  *server
	client *api.Client
	plain  *server
	python *server
	node   *server
	langs  []string
}

func (b *bench) close() {
	for _, s := range []*server{b.plain, b.python, b.node} {
		if s != nil {
			s.stop()
		}
	}
}

// servers starts what we are compared with.
func (b *bench) servers() error {
	var err error
	if b.plain, err = launch(b.cfg.Self, "plain"); err != nil {
		return err
	}
	if p, err := exec.LookPath("/usr/bin/python3"); err == nil {
		if b.python, err = launch(p, "-c", pythonServer); err != nil {
			return err
		}
	}
	if p, err := exec.LookPath("node"); err == nil {
		if b.node, err = launch(p, "-e", nodeServer); err != nil {
			return err
		}
	}
	return nil
}

// deploy makes, of each language, one function that is kept and one that is cold for every call.
func (b *bench) deploy(ctx context.Context) error {
	have, err := b.client.Runtimes(ctx)
	if err != nil {
		return err
	}
	ready := map[string]bool{}
	for _, r := range have {
		ready[r.Name] = r.Ready
	}
	public := true
	for _, l := range []struct{ lang, file, code string }{
		{"python", "hello.py", pythonCode}, {"node", "hello.js", nodeCode}, {"go", "hello.go", goCode},
		{"exec", "hello.sh", "#!/bin/sh\nprintf '" + Answer + "'\n"},
	} {
		if !ready[l.lang] {
			continue
		}
		b.langs = append(b.langs, l.lang)
		for _, reuse := range []faas.Reuse{faas.ReuseFunction, faas.ReuseNever} {
			spec := api.Spec{Language: l.lang, Public: &public, Reuse: string(reuse)}
			code := api.Code{Filename: l.file, Reader: strings.NewReader(l.code)}
			if _, err := b.client.Deploy(ctx, "default", l.lang+"-"+string(reuse), spec, code); err != nil {
				return fmt.Errorf("deploy %s: %w", l.lang, err)
			}
		}
	}
	return nil
}

func (b *bench) ours(lang string, reuse faas.Reuse) Side {
	return Side{
		Name: "brasa " + lang, URL: "http://" + b.brasa.addr + "/f/default/" + lang + "-" + string(reuse) + "/",
		Body: []byte(Input), PID: b.brasa.cmd.Process.Pid,
	}
}

func (s *server) side(name string) Side {
	return Side{Name: name, URL: "http://" + s.addr + "/", Body: []byte(Input), PID: s.cmd.Process.Pid}
}

func (b *bench) measure(ctx context.Context) ([]Row, error) {
	var rows []Row
	for _, lang := range b.langs {
		if lang == "exec" {
			continue // has no warm calls: each is a process
		}
		for _, clients := range []int{1, 16} {
			sides := []Side{b.ours(lang, faas.ReuseFunction), b.plain.side("plain net/http")}
			switch {
			case lang == "python" && b.python != nil:
				sides = append(sides, b.python.side("python http.server"))
			case lang == "node" && b.node != nil:
				sides = append(sides, b.node.side("node http"))
			}
			samples, err := Compare(ctx, sides, b.cfg.Calls, clients, 8)
			if err != nil {
				return nil, err
			}
			rows = append(rows, Row{fmt.Sprintf("warm %s, %s", lang, plural(clients)), samples})
		}
	}
	for _, lang := range b.langs {
		sides := []Side{b.ours(lang, faas.ReuseNever)}
		if bare := b.bare(lang); bare != nil {
			sides = append(sides, Side{Name: "bare " + lang + " start", Do: bare})
		}
		samples, err := Compare(ctx, sides, b.cfg.Cold, 1, 6)
		if err != nil {
			return nil, err
		}
		rows = append(rows, Row{"cold " + lang, samples})
	}
	return rows, nil
}

// bare returns the language's own start, without a sandbox: a process that reads the input,
// prints the answer and ends.
func (b *bench) bare(lang string) func(context.Context) error {
	var args []string
	switch lang {
	case "python":
		args = []string{"/usr/bin/python3", "-I", "-S", "-c", `import json,sys; a=json.load(sys.stdin); print(json.dumps({"greeting":"Hello, %s!"%a["name"]}))`}
	case "node":
		args = []string{"node", "-e", `const a=JSON.parse(require('fs').readFileSync(0)); console.log(JSON.stringify({greeting:'Hello, '+a.name+'!'}))`}
	case "exec":
		args = []string{"/bin/sh", "-c", "printf '" + Answer + "'"}
	default:
		return nil
	}
	return func(ctx context.Context) error {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Stdin = strings.NewReader(Input)
		return cmd.Run()
	}
}

func plural(n int) string {
	if n == 1 {
		return "1 client"
	}
	return fmt.Sprintf("%d clients", n)
}

func printTable(w io.Writer, rows []Row) {
	fmt.Fprintf(w, "%s, %d processors, %s\n", machine(), runtime.NumCPU(), time.Now().UTC().Format(time.DateOnly))
	for _, r := range rows {
		fmt.Fprintf(w, "\n%s\n  %-22s %10s %10s %10s %10s %12s %8s\n", r.Title, "", "p50", "p95", "p99", "calls/s", "cpu/call", "p50 x")
		for _, s := range r.Samples {
			ratio := 0.0
			if q := s.Quantile(.5); q > 0 {
				ratio = float64(r.Samples[0].Quantile(.5)) / float64(q)
			}
			fmt.Fprintf(w, "  %-22s %10s %10s %10s %10.0f %12s %8.2f", s.Name, us(s.Quantile(.5)), us(s.Quantile(.95)), us(s.Quantile(.99)), s.Rate(), us(s.CPU()), ratio)
			if s.Failed > 0 {
				fmt.Fprintf(w, "  %d failed: %v", s.Failed, s.Failure)
			}
			fmt.Fprintln(w)
		}
	}
	fmt.Fprintln(w, "\np50 x is our median over that side's. The load runs on the same processors as all sides.")
}

func us(d time.Duration) string {
	if d >= 10*time.Millisecond {
		return fmt.Sprintf("%.1fms", float64(d.Microseconds())/1000)
	}
	return fmt.Sprintf("%dus", d.Microseconds())
}

// machine says what this was measured on.
func machine() string {
	b, err := os.ReadFile(filepath.Join("/proc", "cpuinfo"))
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}

// printJSON prints one object: for each comparison and side the figures, and for the warm ones
// what we add to the plain side.
func printJSON(w io.Writer, rows []Row) error {
	out := map[string]any{"machine": machine(), "processors": runtime.NumCPU()}
	for _, r := range rows {
		name := strings.NewReplacer(", ", "_", " ", "_").Replace(r.Title)
		for i, s := range r.Samples {
			p := name + "_"
			if i > 0 {
				p += strings.NewReplacer(" ", "_", "/", "_", ".", "_").Replace(s.Name) + "_"
			}
			out[p+"p50_us"] = s.Quantile(.5).Microseconds()
			out[p+"p95_us"] = s.Quantile(.95).Microseconds()
			out[p+"p99_us"] = s.Quantile(.99).Microseconds()
			out[p+"per_s"] = int(s.Rate())
			out[p+"cpu_us"] = s.CPU().Microseconds()
			out[p+"failed"] = s.Failed
		}
		if strings.HasPrefix(r.Title, "warm") && len(r.Samples) > 1 {
			out[name+"_added_p50_us"] = (r.Samples[0].Quantile(.5) - r.Samples[1].Quantile(.5)).Microseconds()
			out[name+"_added_cpu_us"] = (r.Samples[0].CPU() - r.Samples[1].CPU()).Microseconds()
		}
	}
	b, err := json.Marshal(out)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", b)
	return err
}
