package image

import (
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/brasa-dev/brasa/internal/faas"
)

// layoutIndex is what the index of a layout directory is called here: unlike that of a registry it
// may list images that have nothing to do with each other.
const layoutIndex types.MediaType = "layout"

// choose picks the image for this machine from an index.
func choose(all []v1.Descriptor, opt Options, layout bool) (v1.Descriptor, error) {
	var fit []v1.Descriptor
	var others, names []string
	for _, d := range all {
		if p := d.Platform; p != nil && p.OS == "unknown" || d.Annotations["vnd.docker.reference.type"] != "" {
			continue // an attestation about another entry
		}
		if d.MediaType != "" && !d.MediaType.IsImage() && !d.MediaType.IsIndex() {
			continue
		}
		own := namesOf(d)
		names = append(names, own...)
		if layout && opt.Name != "" && !slices.ContainsFunc(own, func(n string) bool { return named(n, opt.Name) }) {
			continue
		}
		if p := d.Platform; p != nil && !ours(p.OS, p.Architecture, p.Variant) {
			others = append(others, p.String())
			continue
		}
		if !slices.ContainsFunc(fit, func(f v1.Descriptor) bool { return f.Digest == d.Digest }) { // it may have several names
			fit = append(fit, d)
		}
	}
	switch {
	case len(fit) == 1, len(fit) > 1 && !layout:
		return fit[0], nil
	case len(fit) > 1:
		return v1.Descriptor{}, bad("the archive holds %d images for %s: %s", len(fit), machine(), list(names)).WithFix("name one of them, or save one image at a time")
	case len(others) > 0:
		return v1.Descriptor{}, wrongPlatform(others)
	case opt.Name != "" && len(names) > 0:
		return v1.Descriptor{}, faas.Errorf(faas.NotFound, op, "the archive has no image %.100q, but %s", opt.Name, list(names))
	}
	return v1.Descriptor{}, bad("there is no image in it")
}

func namesOf(d v1.Descriptor) []string {
	var out []string
	for _, key := range []string{"io.containerd.image.name", "org.opencontainers.image.ref.name"} {
		if n := d.Annotations[key]; n != "" {
			out = append(out, n)
		}
	}
	return out
}

// named says whether an image's full name is what somebody calls it: all of it, its end, or its tag.
func named(full, called string) bool {
	return full == called || strings.HasSuffix(full, "/"+called) || strings.HasSuffix(full, ":"+called)
}

func list(names []string) string {
	const most = 8
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) == 0 {
		return "without names"
	}
	if len(names) > most {
		return strings.Join(names[:most], ", ") + " and others"
	}
	return strings.Join(names, ", ")
}

func machine() string { return "linux/" + runtime.GOARCH }

// ours says whether this machine runs a platform. Of variants only those that every machine of the
// architecture has.
func ours(os, arch, variant string) bool {
	if os != "linux" || arch != runtime.GOARCH {
		return false
	}
	switch arch {
	case "amd64":
		return variant == "" || variant == "v1"
	case "arm64":
		return variant == "" || variant == "v8"
	}
	return true
}

func wrongPlatform(have []string) *faas.Error {
	return bad("the image is for %s, and this machine is %s", list(have), machine()).
		WithFix("build it for this machine: docker build --platform %s …", machine())
}
