package wasm

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// ready makes a pool of a module that was compiled as a deploy does.
func ready(t testing.TB, module []byte, memory faas.Bytes, concurrency int) *pool {
	t.Helper()
	return readyIn(t, compiled(t, module), memory, concurrency)
}

// compiled returns the code directory that a deploy would make of a module.
func compiled(t testing.TB, module []byte) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "fn.wasm")
	if err := os.WriteFile(file, module, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, runtimes.WasmMade), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := compileTo(t.Context(), file, filepath.Join(dir, runtimes.WasmMade)); err != nil {
		t.Fatalf("compile: %v", err)
	}
	return dir
}

func readyIn(t testing.TB, dir string, memory faas.Bytes, concurrency int) *pool {
	t.Helper()
	l, err := load(t.Context(), dir, "fn.wasm")
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	lim, err := share(&runtimes.Spec{Memory: memory, Concurrency: concurrency, Response: 1 << 20}, l)
	if err != nil {
		t.Fatal(err)
	}
	return newPool(l, "fn.wasm", &lim, maxSpare)
}

func BenchmarkInstances(b *testing.B) {
	p := ready(b, tiny(), 256*faas.MiB, 4)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			in, err := p.take()
			if err != nil {
				b.Error(err)
				return
			}
			c := &call{ctx: context.Background(), limits: p.limits}
			if out, err := c.run(p.loaded, in); err != nil || string(out) != "hi" {
				b.Errorf("answer %q, %v", out, err)
			}
			p.done(in)
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "instances/s")
}

// spin counts to its number in a short loop.
func spin(n int32) []byte {
	a := newAsm()
	main := a.fn(nil, nil, 1, i32c(n), lset(0), ops(0x03, 0x40), lget(0), i32c(1), ops(0x6b, 0x22, 0), ops(0x0d, 0, 0x0b))
	a.mem(1)
	a.export("_start", 0, main)
	return a.bytes()
}

// BenchmarkInterrupt compares how compiled code is kept interruptible: as here, and as wazero does
// it.
func BenchmarkInterrupt(b *testing.B) {
	const n = 1 << 20
	run := func(b *testing.B, config wazero.RuntimeConfig, module []byte, ours bool) {
		ctx := context.Background()
		r := wazero.NewRuntimeWithConfig(ctx, config)
		defer r.Close(ctx)
		if ours {
			m, err := rewrite(module)
			if err != nil {
				b.Fatal(err)
			}
			module = m.binary
			e, err := newEngine(ctx, nil, 100)
			if err != nil {
				b.Fatal(err)
			}
			r = e.runtime
		}
		mod, err := r.InstantiateWithConfig(ctx, module, wazero.NewModuleConfig().WithStartFunctions())
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		f := mod.ExportedFunction("_start")
		for b.Loop() {
			if _, err := f.Call(ctx); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/iteration")
	}
	b.Run("not", func(b *testing.B) { run(b, wazero.NewRuntimeConfigCompiler(), spin(n), false) })
	b.Run("rewritten", func(b *testing.B) { run(b, wazero.NewRuntimeConfigCompiler(), spin(n), true) })
	b.Run("wazero", func(b *testing.B) {
		run(b, wazero.NewRuntimeConfigCompiler().WithCloseOnContextDone(true), spin(n), false)
	})
}

// BenchmarkCalls is what a call costs from the host's end of the socket to the answer.
func BenchmarkCalls(b *testing.B) {
	c := serve(b, tiny(), 256*faas.MiB, 4)
	b.Run("one", func(b *testing.B) {
		took := make([]time.Duration, 0, 1<<20)
		for b.Loop() {
			began := time.Now()
			if _, err := c.RoundTrip(b.Context(), invocation(""), nil); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "p50-µs")
		b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1e3, "p99-µs")
	})
	b.Run("four", func(b *testing.B) {
		b.SetParallelism(2)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := c.RoundTrip(b.Context(), invocation(""), nil); err != nil {
					b.Error(err)
				}
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
	})
}

// BenchmarkStart is how long a worker takes from its start to HELLO, and from there until a module
// is loaded.
func BenchmarkStart(b *testing.B) {
	dir := compiled(b, tiny())
	var hello, load time.Duration
	n := 0
	for b.Loop() {
		began := time.Now()
		c, _ := process(b)
		if _, err := c.Hello(b.Context()); err != nil {
			b.Fatal(err)
		}
		mid := time.Now()
		spec := runtimes.SpecOf(revision(256*faas.MiB, 4), nil)
		spec.Code = dir
		if _, err := c.Load(b.Context(), spec); err != nil {
			b.Fatal(err)
		}
		hello, load = hello+mid.Sub(began), load+time.Since(mid)
		c.Close()
		n++
	}
	b.ReportMetric(hello.Seconds()*1e3/float64(n), "hello-ms")
	b.ReportMetric(load.Seconds()*1e3/float64(n), "load-ms")
}
