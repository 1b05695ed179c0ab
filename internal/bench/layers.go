package bench

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
)

// layerFunctions is how many of each kind are deployed and called.
const layerFunctions = 12

// layers measures functions whose packages the platform installs: how long a deploy takes that
// finds them installed, and cold calls of functions with none, a large one and a very large one.
func (b *bench) layers(ctx context.Context) error {
	if err := b.need("python"); err != nil {
		return err
	}
	p, err := b.start(ctx, soonGone)
	if err != nil {
		return err
	}
	defer func() { p.stop() }()
	kinds := []struct{ name, lock, code string }{
		{"none", "", pythonCode},
		{"requests", "requests==2.32.3\n", "import requests\n" + pythonCode},
		{"numpy", "numpy==2.2.6\n", numpyCode},
		{"pandas", "pandas==2.2.3\nnumpy==2.2.6\n", "import pandas\n" + pythonCode},
	}
	done := map[string]int{}
	for _, k := range kinds {
		again := &Sample{Name: "deploy with " + k.name + ", installed"}
		for i := range layerFunctions + 1 {
			name := fmt.Sprintf("layer-%s-%d", k.name, i)
			began := time.Now()
			// Each has code of its own, so that the code is stored and proved each time.
			_, err := p.client.Deploy(ctx, "default", name, api.Spec{Language: "python", Entry: "hello.py", Public: new(true)},
				api.Code{Filename: "code.tar", Reader: project(k.code+fmt.Sprintf("# %d\n", i), k.lock)})
			took := time.Since(began)
			if err != nil {
				b.result.skip(err.Error(), "deploy_cached_lock_ms")
				b.result.printf("deploy %s: %v\n", name, err)
				break
			}
			done[k.name] = i
			if i == 0 {
				b.result.note("layer_"+k.name+"_install_ms", ms(took))
				continue
			}
			again.note(took, nil)
			again.busy += took
		}
		if len(again.took) == 0 {
			continue
		}
		b.result.table("deploy, "+k.name, again)
		b.result.note("layer_"+k.name+"_deploy_p50_ms", ms(again.Quantile(.5)))
		if k.name == "requests" {
			b.result.set("deploy_cached_lock_ms", ms(again.Quantile(.5)))
		}
	}
	// Started anew, the server knows of no instance; the layers are where they were.
	p.stop()
	if p, err = b.start(ctx, soonGone); err != nil {
		return err
	}
	p.settle(ctx, 2*time.Second)
	for _, k := range kinds {
		if done[k.name] == 0 {
			continue
		}
		var names []string
		for i := range done[k.name] {
			names = append(names, fmt.Sprintf("default/layer-%s-%d", k.name, i))
		}
		side := p.side("first call, "+k.name, names...)
		side.Pause = 10 * pause // to load it keeps both processors busy for longer than the usual one
		first, err := run(ctx, side, len(names), 1)
		if err != nil {
			return err
		}
		if err := b.gone(ctx, p); err != nil {
			return err
		}
		side = p.side("when it was idle, "+k.name, names...)
		side.Pause = 10 * pause
		again, err := run(ctx, side, len(names), 1)
		if err != nil {
			return err
		}
		b.result.table("cold, "+k.name, again, first)
		b.result.note("layer_"+k.name+"_first_p50_ms", ms(first.Quantile(.5)))
		b.result.note("layer_"+k.name+"_cold_p50_ms", ms(again.Quantile(.5)))
	}
	return nil
}

// project is an archive of a function and, unless it is empty, its requirements.txt.
func project(code, requirements string) io.Reader {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name, content string) {
		_ = w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}) // a Buffer takes everything
		_, _ = io.Copy(w, strings.NewReader(content))
	}
	add("hello.py", code)
	if requirements != "" {
		add("requirements.txt", requirements)
	}
	_ = w.Close()
	return &b
}
