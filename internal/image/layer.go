package image

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/brasa-dev/brasa/internal/faas"
)

// ratioFloor is from where on a dense layer is suspect. Small ones of repetitive text compress
// better than any ratio allows and hurt nobody.
const ratioFloor = 8 << 20

// applyLayer takes one layer in: as it came, whose digest and size are known, to files.
func (a *applier) applyLayer(r io.Reader, digest, diffID faas.Digest) (layer Layer, err error) {
	packed, err := readLayer(r, a.limits, digest, diffID, func(plain io.Reader) error {
		layer, err = a.apply(plain)
		return err
	})
	layer.Digest, layer.Packed = digest, packed
	if digest == "" {
		layer.Digest = diffID
	}
	return layer, err
}

// checkLayer reads a layer for its digests alone.
func checkLayer(ctx context.Context, r io.Reader, limits Limits, digest, diffID faas.Digest) error {
	_, err := readLayer(ctxReader{ctx, r}, limits, digest, diffID, func(io.Reader) error { return nil })
	return err
}

// readLayer lets use read the tar of a layer, then compares its digests: that of what came, unless
// the layer has none, and that of the tar. It returns how much came.
func readLayer(r io.Reader, limits Limits, digest, diffID faas.Digest, use func(io.Reader) error) (faas.Bytes, error) {
	name := "the layer " + short(cmp.Or(digest, diffID))
	packed := &summer{r: r, sum: io.Discard, most: int64(limits.Packed)}
	came := sha256.New()
	if digest != "" {
		packed.sum = came
	}
	plain, done, err := decompress(packed)
	if err != nil {
		return 0, damaged(name, err)
	}
	defer done()
	meter := &ratioMeter{r: plain, packed: packed, limits: limits, sum: sha256.New()}
	// What follows the last entry belongs to both digests too.
	if err = use(meter); err == nil {
		_, err = io.Copy(io.Discard, meter)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, packed)
	}
	if err != nil {
		return 0, damaged(name, err)
	}
	if got := digestOf(came); digest != "" && got != digest {
		return 0, bad("%s is not what its digest says: the bytes that came have %s", name, got).
			WithFix("get the image anew; it was changed or damaged on its way")
	}
	if got := digestOf(meter.sum); got != diffID {
		return 0, bad("%s is not what the image's configuration says: its files have the digest %s, not %s", name, got, diffID).
			WithFix("get the image anew, or build it again")
	}
	return faas.Bytes(packed.n), nil
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

func digestOf(sum hash.Hash) faas.Digest {
	return faas.Digest("sha256:" + hex.EncodeToString(sum.Sum(nil)))
}

// short names a digest in an error.
func short(d faas.Digest) string { return string(d[:min(len(d), len("sha256:")+12)]) }

// decompress opens a layer, whatever it is compressed with, which its first bytes say more reliably
// than its media type.
func decompress(r io.Reader) (plain io.Reader, done func(), err error) {
	in := bufio.NewReaderSize(r, 64<<10)
	head, err := in.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		g, err := gzip.NewReader(in)
		if err != nil {
			return nil, nil, err
		}
		return g, func() { _ = g.Close() }, nil // only read
	case bytes.Equal(head, []byte("\x28\xb5\x2f\xfd")) || len(head) == 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:], []byte("\x2a\x4d\x18")):
		// The window is what a decoder must hold in memory; 128 MiB is what the strongest levels ask for.
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return in, func() {}, nil
}

// summer counts and sums what is read of a layer as it came.
type summer struct {
	r    io.Reader
	sum  io.Writer
	n    int64
	most int64
}

func (s *summer) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	_, _ = s.sum.Write(p[:n]) // never fails
	if s.n > s.most {
		return 0, tooMuch("image_packed_bytes", "a layer of the image is larger than %s", faas.Bytes(s.most))
	}
	return n, err
}

// ratioMeter stops a layer that grows too much, whatever the tar reader makes of it: headers and
// skipped parts count too.
type ratioMeter struct {
	r      io.Reader
	packed *summer
	limits Limits
	sum    hash.Hash
	n      int64
}

func (m *ratioMeter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	_, _ = m.sum.Write(p[:n]) // never fails
	switch {
	case m.n > ratioFloor && m.n/int64(m.limits.Ratio) > m.packed.n:
		return 0, tooMuch("image_ratio", "a layer of the image grows to more than %d times its size", m.limits.Ratio)
	case m.n > int64(m.limits.Bytes)+int64(m.limits.Entries)*headers:
		return 0, tooMuch("image_bytes", "a layer of the image is larger than %s", m.limits.Bytes)
	}
	return n, err
}

// headers is what an entry of a tar takes up beside its bytes: its own header, one with more about
// it, and the padding.
const headers = 4 << 10
