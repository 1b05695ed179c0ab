package artifact

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

func (u *unpacker) zip(r io.Reader, in *bufio.Reader) error {
	at, size, done, err := u.spooled(r, in)
	if err != nil {
		return err
	}
	defer done()
	u.packed = func() int64 { return size }
	n, err := zipEntries(at, size, u.limits.Entries)
	if err != nil {
		return bad("the zip archive is damaged: %w", err)
	}
	if n > u.limits.Entries {
		return tooManyEntries(unpackOp, u.limits.Entries)
	}
	archive, err := zip.NewReader(at, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // we look at paths ourselves
		return bad("the zip archive is damaged: %w", err)
	}
	if err := u.checkZip(archive); err != nil {
		return err
	}
	for _, f := range archive.File {
		if err := u.zipEntry(f); err != nil {
			return err
		}
	}
	return nil
}

// checkZip finds what can be found before anything is written.
func (u *unpacker) checkZip(archive *zip.Reader) error {
	type span struct {
		from, to int64
		name     string
	}
	var spans []span
	total := uint64(0)
	for _, f := range archive.File {
		const encrypted, strong, masked = 1 << 0, 1 << 6, 1 << 13
		if f.Flags&(encrypted|strong|masked) != 0 {
			return bad("the entry %.100q is encrypted", f.Name)
		}
		if f.Method != zip.Store && f.Method != zip.Deflate {
			return bad("the entry %.100q is compressed by method %d; zip it with deflate", f.Name, f.Method)
		}
		if total += f.UncompressedSize64; total > uint64(u.limits.Bytes) || f.UncompressedSize64 > uint64(u.limits.Bytes) {
			return tooManyBytes(unpackOp, u.limits.Bytes)
		}
		from, err := f.DataOffset()
		if err != nil {
			return bad("the zip archive is damaged at entry %.100q: %w", f.Name, err)
		}
		if f.CompressedSize64 > 0 {
			spans = append(spans, span{from, from + int64(f.CompressedSize64), f.Name})
		}
	}
	if total > ratioFloor && total/uint64(u.limits.Ratio) > uint64(u.packed()) {
		return tooDense(u.limits.Ratio)
	}
	// Entries that share bytes make a small archive large without a dense stream in it.
	slices.SortFunc(spans, func(a, b span) int { return int(min(max(a.from-b.from, -1), 1)) })
	for i := 1; i < len(spans); i++ {
		if spans[i].from < spans[i-1].to {
			return bad("the entries %.100q and %.100q overlap in the archive", spans[i-1].name, spans[i].name)
		}
	}
	return nil
}

func (u *unpacker) zipEntry(f *zip.File) (err error) {
	name, mode := clean(f.Name), f.Mode()
	if name == "" {
		if mode.IsDir() {
			return nil
		}
		return bad("the code has an entry without a name")
	}
	if mode.IsDir() {
		return u.dir(name)
	}
	if t := mode.Type(); t != 0 && t != fs.ModeSymlink {
		return bad("the entry %.100q is neither a file nor a directory nor a symbolic link", f.Name)
	}
	r, err := f.Open()
	if err != nil {
		return bad("the entry %.100q cannot be read: %w", f.Name, err)
	}
	defer r.Close() // only read
	if mode.Type() == fs.ModeSymlink {
		target, err := io.ReadAll(io.LimitReader(r, maxLink+1))
		if err != nil {
			return bad("the entry %.100q cannot be read: %w", f.Name, err)
		}
		return u.symlink(name, string(target))
	}
	return readError(f.Name, u.file(name, mode, r))
}

func (u *unpacker) gzip(in io.Reader) error {
	packed := &counter{r: in}
	// A reader that has ReadByte is not read beyond the end, and what is counted is what was used.
	plain, err := gzip.NewReader(bufio.NewReaderSize(packed, 4096))
	if err != nil {
		return bad("the gzip archive is damaged: %w", err)
	}
	u.packed = func() int64 { return packed.n }
	inside := bufio.NewReaderSize(&ratioMeter{u: u, r: plain}, 64<<10)
	head, err := inside.Peek(tarMagicEnd)
	if err != nil && !errors.Is(err, io.EOF) {
		return readError("archive", err)
	}
	if sniff(head) != "tar" {
		return bad("the gzip archive does not hold a tar archive; send a zip, tar or tar.gz archive, or a single file")
	}
	return u.tar(inside)
}

func (u *unpacker) tar(in io.Reader) error {
	archive := tar.NewReader(in)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // we look at paths ourselves
			return readError("archive", err)
		}
		if err := u.tarEntry(h, archive); err != nil {
			return err
		}
	}
}

func (u *unpacker) tarEntry(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil // git puts its commit there
	}
	name := clean(h.Name)
	if name == "" {
		if h.Typeflag == tar.TypeDir {
			return nil // "./"
		}
		return bad("the code has an entry without a name")
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return bad("the entry %.100q is a sparse file", h.Name)
		}
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return readError(h.Name, u.file(name, fs.FileMode(h.Mode), r))
	case tar.TypeDir:
		return u.dir(name)
	case tar.TypeSymlink:
		return u.symlink(name, h.Linkname)
	case tar.TypeLink:
		return u.hardlink(name, clean(h.Linkname))
	case tar.TypeGNUSparse:
		return bad("the entry %.100q is a sparse file", h.Name)
	}
	return bad("the entry %.100q is neither a file nor a directory nor a link", h.Name)
}

// readError makes what a decoder found wrong the sender's error; ours and the context's stay.
func readError(name string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*faas.Error](err); ok {
		return err
	}
	for _, known := range []error{io.ErrUnexpectedEOF, tar.ErrHeader, tar.ErrFieldTooLong, zip.ErrChecksum, zip.ErrFormat, gzip.ErrChecksum, gzip.ErrHeader} {
		if errors.Is(err, known) {
			return bad("%.100q is damaged: %w", name, err)
		}
	}
	if strings.Contains(err.Error(), "flate: ") { // flate's errors have types, one of them a number
		return bad("%.100q is damaged: %w", name, err)
	}
	return err
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// ratioMeter stops a compressed stream that grows too much, whatever the tar reader makes of it:
// headers and skipped parts count too.
type ratioMeter struct {
	u *unpacker
	r io.Reader
	n int64
}

func (m *ratioMeter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	if m.n > ratioFloor && m.n/int64(m.u.limits.Ratio) > m.u.packed() {
		return 0, tooDense(m.u.limits.Ratio)
	}
	return n, err
}
