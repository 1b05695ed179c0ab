package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/brasa-dev/brasa/internal/faas"
)

// FromArchive takes in an image from a tar archive, packed with gzip or zstd or not at all: what
// `docker save` and `podman save` write, or an OCI layout.
func (s *Store) FromArchive(ctx context.Context, r io.Reader, opt Options) (_ *Image, err error) {
	work, err := s.config.Depot.WorkDir()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	f, err := os.Create(filepath.Join(work, "archive"))
	if err != nil {
		return nil, asError(err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	opt, done := opt.quiet()
	defer done()
	if err := s.spool(ctx, f, r, opt); err != nil {
		return nil, asError(err)
	}
	files, err := indexTar(ctx, f)
	if err != nil {
		return nil, asError(err)
	}
	return s.fromFiles(ctx, files, opt)
}

// FromLayout takes in an image from an OCI layout directory, or from the files of a `docker save`.
func (s *Store) FromLayout(ctx context.Context, layout fs.FS, opt Options) (*Image, error) {
	opt, done := opt.quiet()
	defer done()
	return s.fromFiles(ctx, dirFiles{layout}, opt)
}

func (s *Store) fromFiles(ctx context.Context, f files, opt Options) (*Image, error) {
	src, err := openFiles(f, opt)
	if err != nil {
		return nil, asError(err)
	}
	return s.take(ctx, src, opt)
}

// spool writes an archive, which is read from many places, to a file that is plain.
func (s *Store) spool(ctx context.Context, f *os.File, r io.Reader, opt Options) error {
	packed := &countReader{r: r}
	in := bufio.NewReaderSize(packed, 64<<10)
	head, err := in.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	plain := io.Reader(in)
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		if plain, err = gzip.NewReader(in); err != nil {
			return damaged("the archive", err)
		}
	case bytes.Equal(head, []byte("\x28\xb5\x2f\xfd")):
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20), zstd.WithDecoderLowmem(true))
		if err != nil {
			return damaged("the archive", err)
		}
		defer z.Close()
		plain = z
	case bytes.HasPrefix(head, []byte("PK")):
		return bad("this is a zip archive, and images come as tar archives").WithFix("save it with: docker save IMAGE")
	}
	most := int64(s.config.Limits.Packed)
	buf := make([]byte, 256<<10)
	for n := int64(0); ; {
		k, err := plain.Read(buf)
		if n += int64(k); n > most {
			return tooMuch("image_packed_bytes", "the archive is larger than %s", faas.Bytes(most))
		}
		if n > ratioFloor && n/int64(s.config.Limits.Ratio) > packed.n {
			return tooMuch("image_ratio", "the archive grows to more than %d times its size", s.config.Limits.Ratio)
		}
		if _, err := f.Write(buf[:k]); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return damaged("the archive", err)
		}
	}
}

type countReader struct {
	r io.Reader
	n int64
}

func (c *countReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// files are what an archive or a directory holds.
type files interface {
	// open opens a file. An error that is fs.ErrNotExist says that there is none.
	open(name string) (r io.ReadCloser, size int64, err error)
}

// dirFiles are the files of a directory.
type dirFiles struct{ fsys fs.FS }

func (d dirFiles) open(name string) (io.ReadCloser, int64, error) {
	f, err := d.fsys.Open(name)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// tarFiles are the files of a tar archive, found by where they lie in it.
type tarFiles struct {
	f     *os.File
	spans map[string]span
	links map[string]string
}

type span struct{ offset, size int64 }

// archiveEntries is the most that an archive of images needs: blobs, and a directory for each.
const archiveEntries = 10_000

// indexTar finds what a tar archive holds. Nothing of it is written anywhere.
func indexTar(ctx context.Context, f *os.File) (*tarFiles, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	out := &tarFiles{f: f, spans: map[string]span{}, links: map[string]string{}}
	in := tar.NewReader(f) // which seeks over what is not read, and reads no further than it must
	for n := 0; ; n++ {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			if n == 0 {
				return nil, bad("this is not a tar archive with an image in it").WithFix("save one with: docker save IMAGE")
			}
			return out, nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			if n == 0 && errors.Is(err, tar.ErrHeader) {
				return nil, bad("this is not a tar archive").WithFix("save an image with: docker save IMAGE")
			}
			return nil, damaged("the archive", err)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if n >= archiveEntries {
			return nil, tooMuch("image_entries", "the archive has more than %d files, which no image needs", archiveEntries)
		}
		name := path.Clean("/" + h.Name)[1:]
		switch h.Typeflag {
		case tar.TypeReg:
			for key := range h.PAXRecords {
				if strings.HasPrefix(key, "GNU.sparse.") {
					return nil, bad("the archive's file %.100q is sparse", h.Name)
				}
			}
			at, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			out.spans[name] = span{at, h.Size}
		case tar.TypeSymlink: // older versions of docker save link equal layers
			out.links[name] = path.Join("/", path.Dir(name), h.Linkname)[1:]
		case tar.TypeLink:
			out.links[name] = path.Clean("/" + h.Linkname)[1:]
		}
	}
}

func (t *tarFiles) open(name string) (io.ReadCloser, int64, error) {
	name = path.Clean("/" + name)[1:]
	for range maxHops {
		if s, ok := t.spans[name]; ok {
			return io.NopCloser(io.NewSectionReader(t.f, s.offset, s.size)), s.size, nil
		}
		to, ok := t.links[name]
		if !ok {
			break
		}
		name = to
	}
	return nil, 0, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}
