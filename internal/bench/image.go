package bench

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/brasa-dev/brasa/internal/api"
)

// serverCode is an HTTP server that answers without a look at its input.
const serverCode = `
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>
int main(void) {
	static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 26\r\n\r\n{\"greeting\":\"Hello, Ada!\"}";
	static char in[65536];
	int s = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT")))};
	if (bind(s, (void *)&a, sizeof a) || listen(s, 64)) return 1;
	for (;;) {
		int fd = accept(s, 0, 0), n = 0, r;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		if (fork()) { close(fd); continue; }
		while ((r = read(fd, in + n, sizeof in - 1 - n)) > 0) {
			in[n += r] = 0;
			char *body = strstr(in, "\r\n\r\n"), *length = 0;
			for (char *p = in; body && p < body; p++) if (!strncasecmp(p, "\ncontent-length:", 16)) length = p + 16;
			if (!body || in + n - (body + 4) < (length ? atoi(length) : 0)) continue;
			if (write(fd, answer, sizeof answer - 1) < 0) break;
			n = 0;
		}
		_exit(0);
	}
}
`

// imageBallast is what the large image holds beside its program: 96 MiB that do not compress.
const (
	ballastFiles = 1500
	ballastFile  = 64 << 10
)

// image measures what it costs that a function is an image: the same program as source and as image.
func (b *bench) image(ctx context.Context) error {
	if err := b.need("exec"); err != nil {
		return err
	}
	p, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	if err := b.deployImages(ctx, p); err != nil {
		return err
	}
	p.settle(ctx, 0)
	sides := []*Side{p.side("executable", "default/exec-source"), p.side("executable in an image", "default/exec-image"), p.side("executable in an image of 96 MiB", "default/exec-big")}
	for _, s := range sides {
		s.Pause = pause
	}
	got, err := Compare(ctx, sides, 200, 1, 5)
	if err != nil {
		return err
	}
	b.result.table("cold, as source and as image", got...)
	b.result.set("image_cold_ratio", ratio(got[1], got[0]))
	b.result.set("image_big_ratio", ratio(got[2], got[1]))
	got, err = Compare(ctx, []*Side{p.side("server", "default/http-source"), p.side("server in an image", "default/http-image")}, 4000, 1, 8)
	if err != nil {
		return err
	}
	b.result.table("warm, as source and as image", got...)
	b.result.set("image_warm_ratio", ratio(got[1], got[0]))
	return nil
}

func ratio(a, b *Sample) float64 {
	return float64(a.Quantile(.5)) / float64(b.Quantile(.5))
}

func (b *bench) deployImages(ctx context.Context, p *platform) error {
	dir := filepath.Join(b.dir, "images")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	oneCall, err := program(ctx, dir)
	if err != nil {
		return err
	}
	server := filepath.Join(dir, "server")
	if err := os.WriteFile(server+".c", []byte(serverCode), 0o600); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "cc", "-static", "-O2", "-o", server, server+".c").CombinedOutput(); err != nil {
		return fmt.Errorf("compile a C program: %w: %.200s", err, out)
	}
	public := true
	for _, f := range []struct {
		name, file, lang string
		image            bool
		ballast          int
	}{
		{"exec-source", oneCall, "exec", false, 0}, {"exec-image", oneCall, "exec", true, 0}, {"exec-big", oneCall, "exec", true, ballastFiles},
		{"http-source", server, "http", false, 0}, {"http-image", server, "http", true, 0},
	} {
		content, err := os.ReadFile(f.file)
		if err != nil {
			return err
		}
		code := api.Code{Filename: f.name, Reader: bytes.NewReader(content)}
		if f.image {
			archive, err := imageOf(content, f.ballast)
			if err != nil {
				return err
			}
			code = api.Code{Image: archive, ImageFile: f.name + ".tar"}
		}
		if _, err := p.client.Deploy(ctx, "default", f.name, api.Spec{Language: f.lang, Public: &public}, code); err != nil {
			return fmt.Errorf("deploy %s: %w", f.name, err)
		}
	}
	return nil
}

// imageOf makes an image of a static program and files that it has no use for.
func imageOf(program []byte, ballast int) (io.Reader, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(file string, content []byte) error {
		if err := w.WriteHeader(&tar.Header{Name: file, Mode: 0o755, Size: int64(len(content))}); err != nil {
			return err
		}
		_, err := w.Write(content)
		return err
	}
	if err := add("bin/program", program); err != nil {
		return nil, err
	}
	noise, some := rand.NewChaCha8([32]byte{}), make([]byte, ballastFile)
	for i := range ballast {
		_, _ = noise.Read(some) // never fails
		if err := add(fmt.Sprintf("usr/share/ballast/%d/%d", i%50, i), some); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", runtime.GOARCH, v1.Config{Entrypoint: []string{"/bin/program"}}
	if image, err = mutate.ConfigFile(image, file); err != nil {
		return nil, err
	}
	tag, err := name.NewTag("bench.example/program:1")
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	return &out, tarball.Write(tag, image, &out)
}
