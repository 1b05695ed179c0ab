package daemon

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/internal/worker"
	"github.com/brasa-dev/brasa/runtimes"
)

// egress is the sandbox's part of the configuration, which validate has checked.
func (c *Config) egress() sandbox.EgressConfig {
	e := sandbox.EgressConfig{Resolvers: c.Egress.Resolvers, Door: !c.Egress.NoAPI, DoorPort: c.Egress.Port}
	if c.Egress.Subnet != "" {
		e.Subnet = netip.MustParsePrefix(c.Egress.Subnet)
	}
	for _, a := range c.Egress.Allow {
		e.Allow = append(e.Allow, netip.MustParsePrefix(a))
	}
	return e
}

func describeRuntimes(reg *runtimes.Registry) []api.Runtime {
	var out []api.Runtime
	for _, i := range reg.Runtimes() {
		r := api.Runtime{Name: i.Name, Version: i.Version, Ready: i.Available, Detail: i.Program, Fix: i.Fix}
		if !i.Available {
			r.Detail = i.Why
		}
		out = append(out, r)
	}
	return out
}

// pristineChecks says of each language that could be put back to its clean state whether it is.
func pristineChecks(reg *runtimes.Registry) []api.Check {
	var out []api.Check
	for _, i := range reg.Runtimes() {
		rt, err := reg.Lookup(i.Name)
		if err != nil || rt.Reseeds() == nil {
			continue
		}
		out = append(out, api.Check{
			Name: "pristine " + i.Name, Detail: rt.Reseeds().Error(), Lost: "pristine functions in " + i.Title + " are replaced after each call instead of put back",
		})
	}
	return out
}

// archiveChecks says of each language whose classes could be archived whether they are.
func archiveChecks(reg *runtimes.Registry) []api.Check {
	var out []api.Check
	for _, i := range reg.Runtimes() {
		rt, err := reg.Lookup(i.Name)
		if err != nil || rt.Archive == nil {
			continue
		}
		c := api.Check{Name: "archive " + i.Name, Detail: "classes are mapped from an archive"}
		var why error
		if c.OK, why = rt.Archive.State(); !c.OK {
			c.Detail, c.Lost = "none was made yet", "processes of "+i.Title+" take longer to start and more memory"
			if why != nil {
				c.Detail = why.Error()
			}
		}
		out = append(out, c)
	}
	return out
}

// forkTime is how long doctor waits to be told whether processes can be forked. To find out takes a
// second, once.
const forkTime = 20 * time.Second

// forkChecks says of each language whose processes may be forked in need whether they are.
func (n *node) forkChecks(ctx context.Context) []api.Check {
	ctx, cancel := context.WithTimeout(ctx, forkTime)
	defer cancel()
	var out []api.Check
	for _, i := range n.runtimes.Runtimes() {
		ok, err := n.worker.Forks(ctx, i.Name)
		if !ok {
			continue
		}
		c := api.Check{Name: "forks of " + i.Name, OK: true, Detail: "when a burst has taken all processes that wait, others are forked"}
		switch {
		case errors.Is(err, worker.ErrNoForks):
			c.Detail = "not wanted (stems.no_forks, stems.off): in a burst processes are started"
		case err != nil:
			c.OK, c.Detail, c.Lost = false, err.Error(), "in a burst of calls, processes in "+i.Title+" are started, which takes longer and more memory than to fork them"
		}
		out = append(out, c)
	}
	return out
}

// examine says what this machine gives to functions, and what is lost where it doesn't.
func (n *node) examine(ctx context.Context) api.Doctor {
	d := examine(n.host.Features(), n.runtimes)
	d.Checks = append(d.Checks, n.forkChecks(ctx)...)
	return d
}

// examine says what this machine gives to functions, and what is lost where it doesn't.
func examine(features sandbox.Features, reg *runtimes.Registry) api.Doctor {
	d := api.Doctor{OK: true}
	for _, f := range features {
		d.Checks = append(d.Checks, api.Check{Name: f.Name, OK: f.Have, Required: f.Required, Detail: f.Detail, Lost: f.Lost, Fix: f.Fix})
		if f.Required && !f.Have {
			d.OK = false
		}
	}
	for _, i := range reg.Runtimes() {
		c := api.Check{Name: "runtime " + i.Name, OK: i.Available, Detail: i.Title + " " + i.Version}
		if !i.Available {
			c.Detail, c.Lost, c.Fix = i.Why, "functions in "+i.Title, i.Fix
		}
		d.Checks = append(d.Checks, c)
	}
	d.Checks = append(d.Checks, pristineChecks(reg)...)
	d.Checks = append(d.Checks, archiveChecks(reg)...)
	return d
}
