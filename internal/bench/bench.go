package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/faas"
)

// Config says what to measure.
type Config struct {
	Binary string    // of brasa
	Self   string    // this program, which serves the plain side when called with "plain"
	Out    io.Writer // the tables
	JSON   bool      // one JSON object as the last line
	Only   []string  // keys or names of measurements; empty: all
	Scale  int       // functions for idle_function_bytes; default 100,000
	Calls  int       // calls for growth_after_100k; default 100,000
	Many   int       // instances for warm_instance_kb and calls of burst_1000; default 1,000
	Drain  int       // calls for async_drain_per_s; default 20,000
}

// measurement finds the figures for some keys.
type measurement struct {
	name string
	keys []string
	run  func(context.Context) error
}

// bench is one run.
type bench struct {
	cfg    Config
	dir    string // of everything
	data   string // data folder of the measured server
	plain  *server
	python *server
	node   *server

	langs   map[string]bool   // deployed, by function
	why     map[string]string // not deployed: why
	version map[string]string // of the runtimes
	batches map[string]*batch
	todo    []measurement
	result  result
}

// Run measures and prints. A figure that cannot be had here is null and said why; an error means
// that nothing could be measured.
func Run(ctx context.Context, cfg Config) error {
	set := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	set(&cfg.Scale, 100_000)
	set(&cfg.Calls, 100_000)
	set(&cfg.Many, 1000)
	set(&cfg.Drain, 20_000)
	dir, err := os.MkdirTemp("", "brasa-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{
		cfg: cfg, dir: dir, data: filepath.Join(dir, "data"), langs: map[string]bool{}, why: map[string]string{},
		version: map[string]string{}, batches: map[string]*batch{}, result: newResult(cfg.Out),
	}
	defer b.close()
	if cfg.Binary, err = filepath.Abs(cfg.Binary); err != nil {
		return err
	}
	b.cfg.Binary = cfg.Binary
	for _, m := range b.measurements() {
		wanted := len(cfg.Only) == 0 || slices.Contains(cfg.Only, m.name)
		for _, k := range m.keys {
			wanted = wanted || slices.Contains(cfg.Only, k)
		}
		if wanted {
			b.todo = append(b.todo, m)
		} else {
			b.result.skip("not asked for", m.keys...)
		}
	}
	if len(b.todo) == 0 {
		return fmt.Errorf("nothing is called %s", strings.Join(cfg.Only, ", "))
	}
	if err := b.servers(); err != nil {
		return err
	}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	b.result.head(b.version)
	for _, m := range b.todo {
		began := time.Now()
		err := m.run(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			b.result.skip(err.Error(), m.keys...)
		}
		b.result.printf("  (%s took %.0f s)\n", m.name, time.Since(began).Seconds())
	}
	b.result.summary()
	if cfg.JSON {
		return b.result.json()
	}
	return nil
}

func (b *bench) measurements() []measurement {
	return []measurement{
		{"warm", []string{"warm_added_p50_us", "warm_added_cpu_us", "warm_requests_per_s"}, b.warm},
		{"many", []string{"many_functions_ratio"}, b.many},
		{"wasm", []string{"wasm_added_p50_us", "wasm_instances_per_s"}, b.wasm},
		{"cold", []string{"python_cold_p50_ms", "python_cold_p99_ms", "node_cold_p50_ms", "node_cold_p99_ms", "java_cold_p50_ms", "exec_cold_p50_ms"}, b.cold},
		{"packages", []string{"python_numpy_cold_p50_ms", "node_express_cold_p50_ms"}, b.packages},
		{"image", []string{"image_cold_ratio", "image_big_ratio", "image_warm_ratio"}, b.image},
		{"empty", []string{"python_pool_empty_p99_ms"}, b.empty},
		{"pristine", []string{"pristine_python_us", "pristine_node_us", "pristine_java_us", "pristine_throughput_loss_pct"}, b.pristine},
		{"burst", []string{"burst_1000_total_s", "burst_1000_failed"}, b.burst},
		{"rate", []string{"cold_starts_per_s"}, b.rate},
		{"resident", []string{"warm_instance_kb"}, b.resident},
		{"layers", []string{"deploy_cached_lock_ms"}, b.layers},
		{"growth", []string{"growth_after_100k"}, b.growth},
		{"step", []string{"step_500_failed"}, b.step},
		{"flash", []string{"flash_2000_failed"}, b.flash},
		{"flood", []string{"flood_p99_ratio"}, b.flood},
		{"enqueue", []string{"async_enqueue_ratio"}, b.enqueue},
		{"idle", []string{"async_idle_added_ms"}, b.idle},
		{"drain", []string{"async_drain_per_s"}, b.drain},
		{"whisk", []string{"whisk_actions_ratio", "whisk_warm_p50_ms", "whisk_python_cold_p50_ms", "whisk_nodejs_cold_p50_ms"}, b.whisk},
		{"scale", []string{"idle_function_bytes", "idle_call_p99_ms"}, b.scale},
	}
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

// floor starts what answers from bare processes of a language, of one function or of more, or returns
// nil if there is none.
func (b *bench) floor(lang string, functions int) (*server, error) {
	if lang != "python" && lang != "node" {
		return nil, nil
	}
	return launch(b.cfg.Self, "floor", lang, strconv.Itoa(functions))
}

// start starts the platform on the prepared data folder.
func (b *bench) start(ctx context.Context, settings ...string) (*platform, error) {
	return startPlatform(ctx, b.cfg.Binary, b.data, settings...)
}

// soonGone lets idle instances end after a second, so that the next call of their function is
// cold again.
const soonGone = "BRASA_KEEP_IDLE=1s"

// prepare deploys one function of each kind, then stops the server and adds to its data folder
// the many that are called cold: after a start there is an instance of none of them.
func (b *bench) prepare(ctx context.Context) error {
	began := time.Now()
	if err := os.MkdirAll(b.data, 0o700); err != nil {
		return err
	}
	p, err := b.start(ctx)
	if err != nil {
		return err
	}
	err = b.deployAll(ctx, p)
	p.stop()
	if err != nil {
		return err
	}
	for _, l := range []batch{
		{template: "python", prefix: "python-cold", of: "cold", n: 400, laid: true},
		{template: "python", prefix: "python-empty", of: "empty", n: 150, laid: true},
		{template: "python", prefix: "python-many", of: "many", n: 100, laid: true},
		{template: "python", prefix: "python-burst", of: "burst", n: 5, laid: true},
		{template: "python", prefix: "python-rate", of: "rate", n: 5000, laid: true},
		{template: "python", prefix: "python-growth", of: "growth", n: 1000, laid: true},
		{template: "node", prefix: "node-cold", of: "cold", n: 120, laid: true},
		{template: "java", prefix: "java-cold", of: "cold", n: 60, laid: true},
		{template: "exec", prefix: "exec-cold", of: "cold", n: 200, laid: true},
		{template: "numpy", prefix: "numpy-cold", of: "packages", n: 24, same: true, laid: true},
		{template: "express", prefix: "express-cold", of: "packages", n: 24, same: true, laid: true},
	} {
		if !b.langs[l.template] || !slices.ContainsFunc(b.todo, func(m measurement) bool { return m.name == l.of }) {
			continue
		}
		b.batches[l.prefix] = &l
	}
	all := make([]*batch, 0, len(b.batches))
	for _, l := range b.batches {
		all = append(all, l)
	}
	if err := seed(ctx, b.data, all...); err != nil {
		return err
	}
	b.result.printf("prepared in %.0f s\n", time.Since(began).Seconds())
	return nil
}

// deployAll deploys what there is a runtime for and notes why the rest is missing.
func (b *bench) deployAll(ctx context.Context, p *platform) error {
	have, err := p.client.Runtimes(ctx)
	if err != nil {
		return err
	}
	lang := map[string]api.Runtime{}
	for _, r := range have {
		lang[r.Name] = r
		b.version[r.Name] = r.Version
	}
	public := true
	pristine := string(faas.StatePristine)
	for _, f := range []struct {
		name, lang, file string
		code             func() (io.Reader, error)
		spec             api.Spec
	}{
		{name: "python", lang: "python", file: "hello.py", code: text(pythonCode)},
		{name: "node", lang: "node", file: "hello.js", code: text(nodeCode)},
		{name: "java", lang: "java", file: "Hello.java", code: text(javaCode)},
		{name: "wasm", lang: "wasm", file: "hello.wasm", code: func() (io.Reader, error) { return strings.NewReader(string(module())), nil }},
		{name: "exec", lang: "exec", file: "hello", code: func() (io.Reader, error) { return b.program(ctx) }},
		{name: "numpy", lang: "python", file: "numpy.tar", code: func() (io.Reader, error) { return b.numpy(ctx, lang["python"]) }, spec: api.Spec{Entry: "hello.py"}},
		{name: "express", lang: "node", file: "express.tar", code: func() (io.Reader, error) { return b.express(ctx) }, spec: api.Spec{Entry: "hello.js"}},
		{name: "python-pristine", lang: "python", file: "hello.py", code: text(pythonCode), spec: api.Spec{State: pristine, Limits: &faas.Limits{MaxInstances: 1}}},
		{name: "node-pristine", lang: "node", file: "hello.js", code: text(nodeCode), spec: api.Spec{State: pristine, Limits: &faas.Limits{MaxInstances: 1}}},
		{name: "java-pristine", lang: "java", file: "Hello.java", code: text(javaCode), spec: api.Spec{State: pristine, Limits: &faas.Limits{MaxInstances: 1}}},
		{name: "work-kept", lang: "python", file: "work.py", code: text(workCode)},
		{name: "work-pristine", lang: "python", file: "work.py", code: text(workCode), spec: api.Spec{State: pristine}},
		{name: "wait", lang: "python", file: "wait.py", code: text(waitCode), spec: api.Spec{Limits: &faas.Limits{Memory: 16 * faas.MiB, Timeout: faas.Duration(5 * time.Minute)}}},
		{name: "fail", lang: "python", file: "fail.py", code: text(failCode)},
		{name: "slow", lang: "python", file: "slow.py", code: text(slowCode), spec: api.Spec{Limits: &faas.Limits{Timeout: faas.Duration(200 * time.Millisecond)}}},
	} {
		r, ok := lang[f.lang]
		if !ok || !r.Ready {
			b.why[f.name] = fmt.Sprintf("the server has no %s: %s", f.lang, r.Detail)
			continue
		}
		code, err := f.code()
		if err == nil {
			f.spec.Language, f.spec.Public = f.lang, &public
			_, err = p.client.Deploy(ctx, "default", f.name, f.spec, api.Code{Filename: f.file, Reader: code})
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			b.why[f.name] = fmt.Sprintf("deploy %s: %v", f.name, err)
			b.result.printf("%s\n", b.why[f.name])
			continue
		}
		b.langs[f.name] = true
	}
	if !b.langs["python"] {
		return errors.New("cannot measure without Python: " + b.why["python"])
	}
	return nil
}

func text(s string) func() (io.Reader, error) {
	return func() (io.Reader, error) { return strings.NewReader(s), nil }
}

func (b *bench) program(ctx context.Context) (io.Reader, error) {
	path, err := program(ctx, b.dir)
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(path)
	return strings.NewReader(string(content)), err
}

// numpy installs with the interpreter that the functions run in, or with another's pip for it.
func (b *bench) numpy(ctx context.Context, r api.Runtime) (io.Reader, error) {
	major, _, _ := strings.Cut(r.Version, ".")
	minor := strings.Join(strings.SplitN(r.Version, ".", 3)[:min(2, strings.Count(r.Version, ".")+1)], ".")
	dir, err := withPackage(ctx, b.dir, "hello.py", numpyCode, func(dir string) *exec.Cmd {
		return exec.CommandContext(ctx, "pip", "install", "--quiet", "--disable-pip-version-check", "--target", filepath.Join(dir, "vendor"),
			"--python-version", minor, "--implementation", "cp", "--only-binary", ":all:", "numpy")
	}, "numpy-"+major+"-"+minor)
	if err != nil {
		return nil, err
	}
	return tarOf(ctx, dir), nil
}

func (b *bench) express(ctx context.Context) (io.Reader, error) {
	dir, err := withPackage(ctx, b.dir, "hello.js", expressCode, func(dir string) *exec.Cmd {
		return exec.CommandContext(ctx, "npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", dir, "express@4")
	}, "express")
	if err != nil {
		return nil, err
	}
	return tarOf(ctx, dir), nil
}

// need returns an error that says why if the function could not be deployed.
func (b *bench) need(function string) error {
	if b.langs[function] {
		return nil
	}
	if why := b.why[function]; why != "" {
		return errors.New(why)
	}
	return fmt.Errorf("%s was not deployed", function)
}

// bare returns the language's own start, without a sandbox: a process that reads the input,
// prints the answer and ends; nil if there is none to compare with.
func (b *bench) bare(lang string) *Side {
	var args []string
	switch lang {
	case "python":
		args = []string{"/usr/bin/python3", "-I", "-S", "-c", `import json,sys; a=json.load(sys.stdin); print(json.dumps({"greeting":"Hello, %s!"%a["name"]}))`}
	case "node":
		args = []string{"node", "-e", `const a=JSON.parse(require('fs').readFileSync(0)); console.log(JSON.stringify({greeting:'Hello, '+a.name+'!'}))`}
	case "java":
		src := filepath.Join(b.dir, "Bare.java")
		code := `public class Bare { public static void main(String[] a) { System.out.println("{\"greeting\":\"Hello, Ada!\"}"); } }`
		if os.WriteFile(src, []byte(code), 0o600) != nil || exec.Command("javac", "-d", b.dir, src).Run() != nil {
			return nil
		}
		args = []string{"java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", b.dir, "Bare"}
	case "exec":
		args = []string{filepath.Join(b.dir, "hello")}
	}
	if args == nil {
		return nil
	}
	return &Side{Name: "bare " + lang + " start", Do: func(ctx context.Context) error {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Stdin = strings.NewReader(Input)
		return cmd.Run()
	}}
}
