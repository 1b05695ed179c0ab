package image

import (
	"cmp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

// describe makes of the image's configuration what decides how it runs.
func (f *found) describe() *Image {
	c := f.config.Config
	out := &Image{
		Image:    faas.Image{Manifest: f.digest, Dir: c.WorkingDir, Env: c.Env},
		Platform: "linux/" + cmp.Or(f.config.Architecture, runtime.GOARCH), Entrypoint: c.Entrypoint, Command: c.Cmd, User: c.User, Labels: c.Labels,
	}
	for p := range c.ExposedPorts {
		number, protocol, _ := strings.Cut(p, "/")
		if n, err := strconv.Atoi(number); err == nil && n > 0 && n < 1<<16 && (protocol == "" || strings.EqualFold(protocol, "tcp")) {
			out.Ports = append(out.Ports, n)
		}
	}
	slices.Sort(out.Ports)
	out.Port = port(c.Env, out.Ports)
	return out
}

// defaultPort is where a server listens that is told nothing.
const defaultPort = 8080

// port finds where the image's server listens: where its own PORT says, which the program reads, else
// the one port that it exposes, and of several the usual one.
func port(env []string, exposed []int) int {
	for _, e := range slices.Backward(env) {
		if v, ok := strings.CutPrefix(e, "PORT="); ok {
			if n, err := strconv.Atoi(v); err == nil && n > 0 && n < 1<<16 {
				return n
			}
		}
	}
	switch {
	case len(exposed) == 0, slices.Contains(exposed, defaultPort):
		return defaultPort
	case slices.Contains(exposed, 80):
		return 80
	}
	return exposed[0]
}

// created lists the commands that made the layers, if the image's history fits them.
func (f *found) created() []string {
	var out []string
	for _, h := range f.config.History {
		if !h.EmptyLayer {
			out = append(out, clip(strings.Join(strings.Fields(h.CreatedBy), " ")))
		}
	}
	if len(out) != len(f.image.Layers) {
		return make([]string, len(f.image.Layers))
	}
	return out
}

// clip keeps what a person reads of a command.
func clip(s string) string {
	const most = 120
	s = strings.TrimPrefix(strings.TrimPrefix(s, "/bin/sh -c "), "#(nop) ")
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
