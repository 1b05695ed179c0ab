package daemon

import (
	"errors"
	"path/filepath"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
)

// newInstaller builds what gets the packages that functions name.
func (d *Daemon) newInstaller(n *node) (*install.Installer, error) {
	c := d.cfg.Install
	return install.New(install.Config{
		Depot: n.depot, Sandbox: n.host, Runtimes: n.runtimes, Dir: filepath.Join(d.cfg.Data, "install"), Registries: d.cfg.Registries,
		Limits: install.Limits{Bytes: c.Bytes, Entries: c.Entries, Memory: c.Memory, Timeout: c.Timeout},
		Logger: d.log.With("part", "install"), Fault: d.installing,
	})
}

// installing tells tests of the moments of an installation.
func (d *Daemon) installing(moment string) {
	if d.step != nil {
		d.step("install: " + moment)
	}
}

// collectLayers forgets old logs and the layers that no revision names and nobody has used lately,
// and adds those that are kept to live.
func collectLayers(n *node, live map[faas.Digest]bool) error {
	namespaces := map[string]bool{}
	for _, ns := range n.catalog.Namespaces() {
		namespaces[ns.UID] = true
	}
	known := func(uid string) bool { return namespaces[uid] }
	return errors.Join(
		n.builds.Collect(known),
		n.installer.Collect(func(d faas.Digest) bool { return live[d] }, known),
		n.installer.Live(func(d faas.Digest) { live[d] = true }),
	)
}
