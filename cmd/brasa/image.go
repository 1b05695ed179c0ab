package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/deploy"
)

// imageSource is what an image is deployed from: a file or directory here that is sent, or a name
// that the server resolves, which is put into spec; what follows a # is the image's name in an
// archive. With code a path is mounted beside it; where no
// name is given with a flag, an argument that does not look like a path is the function's name.
func imageSource(image string, args []string, named bool, language string, spec *api.Spec) (*source, error) {
	src := &source{what: image, name: imageName(image), close: func() {}, failed: func() error { return nil }}
	if len(args) > 0 {
		if named || looksLikePath(args[0]) {
			code, err := openSource(args[0], language)
			if err != nil {
				return nil, err
			}
			code.what = image + " with " + code.what
			src = code
		} else {
			src.name = args[0]
		}
	}
	file, inner, _ := strings.Cut(image, "#")
	info, err := os.Stat(file)
	if err == nil {
		spec.Image = inner // of an archive that holds several
	}
	switch {
	case err == nil && info.IsDir():
		err = addLayout(src, file)
	case err == nil && info.Mode().IsRegular():
		err = addArchive(src, file)
	case err == nil:
		err = cli.Usagef("--image %s is no file and no directory", image)
	case (looksLikePath(image) || packed(file)) && errors.Is(err, fs.ErrNotExist):
		err = noImage(file)
	default:
		spec.Image, err = image, nil
	}
	if err != nil {
		src.close()
		return nil, err
	}
	if again := src.again; again != nil || len(args) == 0 || src.Code.Reader == nil {
		src.again = func() (*source, error) {
			next := *spec
			return imageSource(image, args, named, language, &next)
		}
	}
	return src, nil
}

// looksLikePath says whether somebody meant a file rather than a name.
func looksLikePath(s string) bool {
	return s == "-" || s == "." || s == ".." || strings.HasPrefix(s, "./") || strings.HasPrefix(s, "../") || filepath.IsAbs(s) || strings.HasSuffix(s, string(filepath.Separator))
}

// archives are the ends of names of files that an image is kept in. A registry is not asked for them.
var archives = []string{".tar.gz", ".tar.zst", ".tgz", ".tar"}

func packed(s string) bool {
	return slices.ContainsFunc(archives, func(ext string) bool { return strings.HasSuffix(s, ext) })
}

// noImage says that a file is not there, and which one may have been meant.
func noImage(file string) error {
	e := cli.Usagef("--image %s: there is no such file or directory", file)
	if meant := similarFile(file); meant != "" {
		return e.WithFix("did you mean %s?", meant)
	}
	return e.WithFix("make it: docker save NAME -o %s", file)
}

// imageName is what the function of an image is called that nobody named: the last part of its name.
func imageName(image string) string {
	base := image
	if looksLikePath(image) {
		if abs, err := filepath.Abs(image); err == nil {
			base = abs
		}
	}
	base, _, _ = strings.Cut(base, "#")
	base, _, _ = strings.Cut(path.Base(filepath.ToSlash(base)), "@")
	for _, ext := range archives {
		base = strings.TrimSuffix(base, ext)
	}
	base, _, _ = strings.Cut(base, ":")
	return legalName(base)
}

// addArchive adds a file with an image to what is sent.
func addArchive(src *source, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	before := src.close
	src.Image, src.ImageFile = f, filepath.Base(file)
	src.close = func() {
		before()
		_ = f.Close()
	}
	return nil
}

// addLayout adds an OCI layout directory to what is sent, as an archive.
func addLayout(src *source, dir string) error {
	isLayout := false
	for _, name := range []string{"oci-layout", "index.json", "manifest.json"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			isLayout = true
		}
	}
	if !isLayout {
		return cli.Usagef("--image %s is no OCI layout: it has neither index.json nor manifest.json", dir).
			WithFix("a directory with code is given as PATH, and --image names what it runs in")
	}
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { // ends when the directory is packed or r is closed
		out := tar.NewWriter(w)
		err := errors.Join(out.AddFS(os.DirFS(dir)), out.Close())
		done <- err // before the pipe breaks, so that failed sees it
		_ = w.CloseWithError(err)
	}()
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	src.Image, src.ImageFile = r, filepath.Base(abs)+".tar"
	before, failed := src.close, src.failed
	src.close = func() {
		before()
		_ = r.Close()
	}
	var packed error
	src.failed = func() error {
		select {
		case packed = <-done:
		default:
		}
		if packed != nil && !errors.Is(packed, io.ErrClosedPipe) {
			return packed
		}
		return failed()
	}
	return nil
}

// imageProgress says on a terminal how far an image has come.
func imageProgress(p *api.ImageProgress) string {
	text := "image: " + p.Step
	if p.Layer > 0 {
		text += fmt.Sprintf(" layer %d of %d", p.Layer, p.Layers)
	} else if p.Layers > 0 {
		text += fmt.Sprintf(" %s", layerCount(p.Layers))
	}
	if p.Bytes > 0 {
		text += ", " + cli.Size(p.Bytes)
		if p.Total > p.Bytes {
			text += " of " + cli.Size(p.Total)
		}
	}
	return text
}

func layerCount(n int) string {
	if n == 1 {
		return "1 layer"
	}
	return fmt.Sprintf("%d layers", n)
}

// imageLines say after a deploy which image it was.
func imageLines(line func(label, format string, args ...any), st api.Step) {
	i := st.Image
	how := "in " + cli.Took(time.Duration(st.US)*time.Microsecond)
	if i.Cached {
		how = "was there already"
	}
	line("image", "%s, %s, %s of %s, %s", orDigest(i), i.Platform, cli.Size(i.Bytes), layerCount(i.Layers), how)
	var parts []string
	for _, l := range i.Heaviest {
		part := cli.Size(l.Bytes)
		if l.Created != "" {
			part += " " + cli.CleanLine(l.Created)
		}
		parts = append(parts, part)
	}
	if len(parts) > 1 {
		line("layers", "%s", strings.Join(parts, "; "))
	}
	if i.User != "" {
		line("user", "a user of its own, not the image's %s", cli.CleanLine(i.User))
	}
	for _, n := range i.Notes {
		line("note", "%s", cli.CleanLine(n))
	}
}

func orDigest(i *deploy.TakenImage) string {
	if i.Reference != "" {
		return cli.CleanLine(i.Reference)
	}
	return fmt.Sprintf("sha256:%.12s", i.Manifest.Hex())
}
