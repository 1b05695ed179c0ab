package deploy

import (
	"cmp"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/image"
	"github.com/brasa-dev/brasa/runtimes"
)

// Source says where the image of a function comes from: one of its first two fields.
type Source struct {
	Reference string    // a name that the server resolves, such as ghcr.io/owner/name:tag
	Archive   io.Reader // what docker save writes, or a tar of an OCI layout
	Name      string    // of the image in an archive that holds several; may be empty
	Filename  string    // what the person calls the archive
	Host      string    // a name, with port, that the caller has for this server; may be empty
}

// TakenImage says what the image of a deploy came to.
type TakenImage struct {
	Reference string       `json:"reference,omitempty" doc:"As it was named"`
	Manifest  faas.Digest  `json:"manifest" doc:"Digest of its manifest for this server's platform"`
	Root      faas.Digest  `json:"root" doc:"Digest of its unpacked files"`
	Platform  string       `json:"platform" doc:"Such as linux/amd64"`
	Bytes     faas.Bytes   `json:"bytes" doc:"Size of its unpacked files"`
	Packed    faas.Bytes   `json:"packed_bytes" doc:"Size of its layers as they came"`
	Cached    bool         `json:"cached" doc:"It was there already"`
	Layers    int          `json:"layers"`
	Heaviest  []ImageLayer `json:"heaviest,omitempty" doc:"The three layers with the most bytes"`
	User      string       `json:"user,omitempty" doc:"As the image says it; a function has a user of its own"`
	Notes     []string     `json:"notes,omitempty" doc:"What of the image was dropped"`
}

// ImageLayer says what one layer of an image brought.
type ImageLayer struct {
	Digest  faas.Digest `json:"digest" doc:"Of the layer as it came"`
	Packed  faas.Bytes  `json:"packed_bytes"`
	Bytes   faas.Bytes  `json:"bytes" doc:"Of its files"`
	Created string      `json:"created,omitempty" doc:"The command that made it, if the image tells"`
}

func heaviestLayers(img *image.Image) []ImageLayer {
	var out []ImageLayer
	for _, l := range img.Heaviest(heaviest) {
		out = append(out, ImageLayer{Digest: l.Digest, Packed: l.Packed, Bytes: l.Bytes, Created: l.Created})
	}
	return out
}

// prepareImage is prepare for a request with an image: its root is made, what it runs is found out,
// and code, if any comes with it, is stored to be mounted beside it.
func (d *Deployer) prepareImage(ctx context.Context, req Request, dir string, out *Outcome, steps *stepper) (*faas.Revision, error) {
	const op = "deploy image"
	if d.cfg.Images == nil {
		return nil, faas.Errorf(faas.Unavailable, op, "this server takes no images")
	}
	if req.Install.With != nil || req.Install.Scripts || req.Install.Strict {
		return nil, faas.Errorf(faas.Invalid, op, "nothing is installed into an image").WithFix("put the packages into it where it is built")
	}
	var code fs.FS
	if req.Code != nil {
		tree, err := d.unpackBeside(ctx, req, dir, out, steps)
		if err != nil {
			return nil, err
		}
		defer tree.Close()
		code = tree.FS()
	}
	img, err := d.takeImage(ctx, &req, steps)
	if err != nil {
		return nil, err
	}
	root, release, err := d.cfg.Images.Root(ctx, img.Root)
	if err != nil {
		return nil, faas.AsError(err)
	}
	defer release()
	look := &runtimes.Image{
		Root: root, Entrypoint: img.Entrypoint, Command: img.Command, Env: img.Env, Dir: img.Dir, Labels: img.Labels, Port: img.Port, Ports: img.Ports,
	}
	var plan runtimes.Plan
	err = steps.do("detect", func() error {
		plan, err = d.cfg.Runtimes.PlanImage(look, code, runtimes.Hints{Language: req.Language, Entry: req.Entry, Handler: req.Handler, Command: req.Command})
		if err == nil {
			err = d.settle(req, &plan)
		}
		if err == nil {
			err = d.checkSecrets(req.Name.Namespace, plan.Secrets)
		}
		return err
	})
	if err != nil {
		return nil, faas.AsError(err)
	}
	if err := checkAlone(&req, &plan); err != nil {
		return nil, err
	}
	out.Detected, out.prefetch, req.Conductor = detected(plan), plan.Prefetch, req.Conductor || plan.Conductor
	runs := img.Image
	runs.Reference = cmp.Or(runs.Reference, req.Image.Name, req.Image.Filename)
	runs.Bytes = img.Bytes
	if runs.Dir, err = runtimes.ImageDir(look); err != nil {
		return nil, faas.AsError(err)
	}
	rev := &faas.Revision{
		Name: req.Name, Runtime: plan.Runtime, Handler: plan.Handler, Command: plan.Command, Env: plan.Env, Secrets: plan.Secrets,
		Limits: plan.Limits, Network: plan.Network, Reuse: req.Reuse, State: req.State, Image: &runs,
		Async: plan.Async, Warm: plan.Warm, Created: time.Now().UTC(),
	}
	req.foreign(rev)
	if code != nil {
		err = steps.do("store", func() error {
			rev.Code, rev.CodeBytes, err = d.cfg.Depot.PutTree(ctx, code, d.cfg.Unpack)
			return err
		})
		if err != nil {
			return nil, faas.AsError(err)
		}
	}
	rev.ID = rev.Digest()
	return rev, nil
}

// unpackBeside lays out the code that comes with an image. The caller closes it.
func (d *Deployer) unpackBeside(ctx context.Context, req Request, dir string, out *Outcome, steps *stepper) (*os.Root, error) {
	src := filepath.Join(dir, "src")
	if err := os.Mkdir(src, 0o755); err != nil {
		return nil, faas.AsError(err)
	}
	err := steps.do("unpack", func() (err error) {
		out.Sent, err = d.unpack(ctx, req, src)
		return err
	})
	if err != nil {
		return nil, faas.AsError(err)
	}
	root, err := os.OpenRoot(src)
	if err != nil {
		return nil, faas.AsError(err)
	}
	return root, nil
}

// takeImage makes sure that the image is there.
func (d *Deployer) takeImage(ctx context.Context, req *Request, steps *stepper) (img *image.Image, err error) {
	opt := image.Options{Namespace: req.Name.Namespace, Host: req.Image.Host, Name: req.Image.Name, Progress: steps.imaging}
	err = steps.do("image", func() error {
		if req.Image.Archive != nil {
			img, err = d.cfg.Images.FromArchive(ctx, req.Image.Archive, opt)
		} else {
			img, err = d.cfg.Images.FromReference(ctx, req.Image.Reference, opt)
		}
		if err != nil {
			return err
		}
		steps.image = &TakenImage{
			Reference: cmp.Or(img.Reference, req.Image.Name, req.Image.Filename), Manifest: img.Manifest, Root: img.Root, Platform: img.Platform, Bytes: img.Bytes,
			Packed: img.Packed, Cached: img.Cached, Layers: len(img.Layers), Heaviest: heaviestLayers(img), User: img.User, Notes: img.Notes,
		}
		return nil
	})
	if err != nil {
		return nil, faas.AsError(err)
	}
	return img, nil
}

// imaging tells how far the step image is.
func (s *stepper) imaging(p image.Progress) {
	if s.told != nil {
		s.told(Progress{Image: &p})
	}
}
