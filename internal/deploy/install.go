package deploy

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// deps is what was installed for the code that is being deployed.
type deps struct{ *install.Result }

// layers returns what the revision's processes are to see of it.
func (d *deps) layers() []faas.Layer {
	if d.Layer == nil {
		return nil
	}
	return []faas.Layer{*d.Layer}
}

// env adds to a revision's environment what its processes need for the packages. What the function
// itself sets wins.
func (d *deps) env(own map[string]string) map[string]string {
	if len(d.Env) == 0 {
		return own
	}
	all := maps.Clone(d.Env)
	maps.Copy(all, own)
	return all
}

// mounts are what a build of the code sees of it, read-only.
func (d *deps) mounts() []sandbox.Mount {
	if d == nil || d.Dir == "" {
		return nil
	}
	return []sandbox.Mount{{Source: d.Dir, Target: d.Target}}
}

// heaviest is how many packages a deploy tells of.
const heaviest = 3

// install gets what the code's manifest names; nil if it names nothing.
func (d *Deployer) install(ctx context.Context, req *Request, plan *runtimes.Plan, src string, steps *stepper) (*deps, error) {
	if d.cfg.Install == nil {
		return nil, nil
	}
	ns, err := d.cfg.Catalog.Namespace(req.Name.Namespace)
	if err != nil {
		return nil, err
	}
	opt := req.Install
	opt.With = append(slices.Clone(plan.Install.With), opt.With...)
	opt.Scripts = opt.Scripts || plan.Install.Scripts
	opt.Strict = opt.Strict || plan.Install.Strict
	var res *install.Result
	err = steps.do("install", func() error {
		res, err = d.cfg.Install.Install(ctx, install.Request{
			Namespace: req.Name.Namespace, NamespaceUID: ns.UID, Code: src, Plan: plan, Options: opt,
			Log: buildLog(ctx), Progress: steps.installing,
		})
		if res == nil {
			return cmp.Or(err, errNothing)
		}
		steps.install = &Install{
			Manifest: res.Manifest, Tool: res.Tool, Cached: res.Cached, Bytes: res.Bytes, Count: len(res.Packages),
			Packages: res.Packages[:min(len(res.Packages), heaviest)], Note: res.Note,
		}
		if res.Layer != nil {
			steps.install.Layer = res.Layer.Digest
		}
		return nil
	})
	if err != nil || res == nil {
		return nil, err
	}
	return &deps{res}, nil
}

// installing tells how far the step install is.
func (s *stepper) installing(p install.Progress) {
	if s.told != nil {
		s.told(Progress{Install: &p})
	}
}
