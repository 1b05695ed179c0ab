package daemon

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/policy"
	"github.com/brasa-dev/brasa/internal/store"
	"github.com/brasa-dev/brasa/internal/trigger"
	"github.com/brasa-dev/brasa/internal/trigger/brokers"
)

// triggersConfig says what triggers' sources may reach.
type triggersConfig struct {
	// Allow are addresses, IP:PORT, that they may connect to though they are this machine's or private:
	// a broker beside the server.
	Allow []string `koanf:"allow"`
	// Files are directories of this machine's disk, PATH or NAMESPACE:PATH, in which triggers may watch
	// for files, read, delete and move them.
	Files []string `koanf:"files"`
}

func (c *triggersConfig) validate() error {
	for _, s := range c.Allow {
		if _, err := netip.ParseAddrPort(s); err != nil {
			return fmt.Errorf("triggers.allow: %q is not an address such as 127.0.0.1:4222", s)
		}
	}
	for _, s := range c.Files {
		if _, err := trigger.ParseOpened(s); err != nil {
			return fmt.Errorf("triggers.files: %w", err)
		}
	}
	return nil
}

// openTriggers builds what runs the sources of triggers.
func (d *Daemon) openTriggers(ctx context.Context, n *node, engine *store.Engine) error {
	state, err := engine.Bucket(ctx, "triggers", 1)
	if err != nil {
		return err
	}
	var files []trigger.Opened
	for _, s := range d.cfg.Triggers.Files {
		f, err := trigger.ParseOpened(s)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	n.triggers = trigger.New(trigger.Config{
		Catalog: n.catalog, Dispatcher: n.dispatch, State: state, Dial: d.cfg.sourceDial(), Files: files, Logger: d.log.With("part", "trigger"),
		Kinds: brokers.Kinds(),
	})
	return nil
}

// sourceDial returns how sources connect to what a tenant named. Whom they reach is judged by the
// address that a name was resolved to.
func (c *Config) sourceDial() func(ctx context.Context, network, address string) (net.Conn, error) {
	var named []netip.AddrPort
	for _, s := range c.Triggers.Allow {
		named = append(named, netip.MustParseAddrPort(s)) // validate has checked it
	}
	var ranges []netip.Prefix
	for _, s := range c.Egress.Allow {
		ranges = append(ranges, netip.MustParsePrefix(s)) // the same
	}
	dialer := &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if slices.Contains(named, netip.AddrPortFrom(to.Addr().Unmap(), to.Port())) {
			return nil
		}
		own, err := ownAddresses()
		if err != nil {
			return err
		}
		if !policy.Outside(to.Addr(), ranges, own) {
			return faas.Errorf(faas.Denied, "connect", "the server connects to no address of this machine or its networks for a trigger, and %s is one", address).
				WithFix("an administrator opens it with the key triggers.allow")
		}
		return nil
	}}
	return dialer.DialContext
}
