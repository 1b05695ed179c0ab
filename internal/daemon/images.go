package daemon

import (
	"context"
	"net"
	"net/url"
	"os"
	"path/filepath"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/image"
	"github.com/brasa-dev/brasa/internal/registry"
	"github.com/brasa-dev/brasa/internal/store"
)

// imagesConfig is what can be set about images.
type imagesConfig struct {
	Registries []image.Host    `koanf:"registries"` // those that need more than their name
	CA         string          `koanf:"ca"`         // file of the certificates that registries are trusted by; empty: as registries.ca
	Limits     image.Limits    `koanf:"limits"`     // what an image may become
	Push       registry.Limits `koanf:"push"`       // what a namespace may push to this server
}

// openImages opens the registry of this server and what makes roots of images.
func (d *Daemon) openImages(ctx context.Context, n *node, records store.Store) (err error) {
	c := d.cfg.Images
	n.registry, err = registry.Open(ctx, registry.Config{
		Store: records, Depot: n.depot, Dir: filepath.Join(d.cfg.Data, "uploads"),
		Caller: func(ctx context.Context) (auth.Identity, error) {
			c := api.CallerOf(ctx)
			return c.Identity, c.Refused
		},
		Namespaces: func() []registry.Namespace {
			var out []registry.Namespace
			for _, ns := range n.catalog.Namespaces() {
				out = append(out, registry.Namespace{Name: ns.Name, UID: ns.UID})
			}
			return out
		},
		Hosts: ownHosts(d.cfg), Limits: c.Push, Logger: d.log.With("part", "registry"),
	})
	if err != nil {
		return err
	}
	ca := c.CA
	if ca == "" {
		ca = d.cfg.Registries.CA
	}
	n.images, err = image.New(image.Config{
		Depot: n.depot, Dir: filepath.Join(d.cfg.Data, "images"), Registries: image.Registries{Hosts: c.Registries, CA: ca},
		Limits: c.Limits, Local: n.registry, Logger: d.log.With("part", "image"),
	})
	return err
}

// collectImages adds what of images is kept to live.
func collectImages(n *node, live map[faas.Digest]bool) error {
	n.registry.Live(live)
	return n.images.Live(live)
}

// ownHosts are the names that references have for this server.
func ownHosts(c Config) []string {
	var out []string
	if u, err := url.Parse(c.URL); err == nil && u.Host != "" {
		out = append(out, u.Host)
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return out
	}
	names := []string{"localhost", "127.0.0.1", "::1", c.Node}
	if h, err := os.Hostname(); err == nil {
		names = append(names, h)
	}
	for _, name := range append(names, host) {
		if name != "" {
			out = append(out, net.JoinHostPort(name, port))
		}
	}
	return out
}
