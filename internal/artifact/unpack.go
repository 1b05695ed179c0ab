package artifact

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Limits bound what an archive may become. Zero means the default.
type Limits struct {
	Bytes   faas.Bytes // of all files together; key code_bytes. Default 512 MiB
	Entries int        // files, directories and links; key code_entries. Default 50,000
	Ratio   int        // of bytes to bytes of the archive, once they are over 8 MiB; key code_ratio. Default 100
}

func (l *Limits) applyDefaults() {
	l.Bytes = cmp.Or(l.Bytes, 512*faas.MiB)
	l.Entries = cmp.Or(l.Entries, 50_000)
	l.Ratio = cmp.Or(l.Ratio, 100)
}

// Small archives of repetitive text compress better than any ratio allows and hurt nobody.
const ratioFloor = 8 << 20

const unpackOp = "unpack code"

func tooManyBytes(op string, most faas.Bytes) error {
	return faas.Errorf(faas.TooLarge, op, "the code is larger than %s", most).WithLimit("code_bytes").
		WithFix("leave out what the function does not need, or have the operator raise the limit")
}

func tooManyEntries(op string, most int) error {
	return faas.Errorf(faas.TooLarge, op, "the code has more than %d files and directories", most).WithLimit("code_entries").
		WithFix("leave out what the function does not need, or have the operator raise the limit")
}

func tooDense(most int) error {
	return faas.Errorf(faas.TooLarge, unpackOp, "the archive grows to more than %d times its size", most).WithLimit("code_ratio").
		WithFix("send it less compressed, or have the operator raise the limit")
}

// Unpack writes what r holds below dst, which is empty: the entries of a zip, tar or tar.gz
// archive, told by its first bytes, or else one file called name. Whatever could end up outside
// dst, mean different things on different machines, or exceed limits is an error, and after an
// error dst is empty again. Modes become 0644 or 0755. dst may still be read by nobody else.
func Unpack(ctx context.Context, r io.Reader, name string, dst *os.Root, limits Limits) (err error) {
	limits.applyDefaults()
	if d, err := fs.ReadDir(dst.FS(), "."); err != nil || len(d) > 0 {
		return storeError(unpackOp, errors.Join(err, fmt.Errorf("%q is not an empty directory", dst.Name())))
	}
	u := &unpacker{ctx: ctx, dst: dst, limits: limits, seen: map[string]fs.FileMode{}, folded: map[string]string{}}
	defer func() {
		if err != nil {
			err = storeError(unpackOp, errors.Join(err, empty(dst)))
		}
	}()
	in := bufio.NewReaderSize(contextReader{ctx, r}, 64<<10)
	head, err := in.Peek(tarMagicEnd)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch kind := sniff(head); kind {
	case "zip":
		err = u.zip(r, in)
	case "tar":
		err = u.tar(in)
	case "gzip":
		err = u.gzip(in)
	case "":
		err = u.single(in, name, head)
	default:
		return faas.Errorf(faas.Invalid, unpackOp, "this is a %s archive", kind).WithFix("send a zip, tar or tar.gz archive, or a single file")
	}
	if err == nil {
		err = u.checkLinks()
	}
	if err == nil && u.files == 0 {
		err = faas.Errorf(faas.Invalid, unpackOp, "there is no file in it")
	}
	return err
}

// empty removes everything below dst.
func empty(dst *os.Root) error {
	entries, err := fs.ReadDir(dst.FS(), ".")
	errs := []error{err}
	for _, e := range entries {
		errs = append(errs, dst.RemoveAll(e.Name()))
	}
	return errors.Join(errs...)
}

const (
	tarMagicStart = 257
	tarMagicEnd   = 512 // a whole header block
)

// sniff tells an archive by its first bytes; the name is whatever its sender likes. The empty
// string is no archive.
func sniff(head []byte) string {
	for _, m := range []struct{ magic, kind string }{
		{"PK\x03\x04", "zip"}, {"PK\x05\x06", "zip"}, {"\x1f\x8b", "gzip"},
		{"\xfd7zXZ\x00", "xz"}, {"BZh", "bzip2"}, {"\x28\xb5\x2f\xfd", "zstd"}, {"7z\xbc\xaf\x27\x1c", "7z"}, {"Rar!\x1a\x07", "rar"},
	} {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.kind
		}
	}
	if len(head) == tarMagicEnd && (bytes.HasPrefix(head[tarMagicStart:], []byte("ustar")) || oldTar(head)) {
		return "tar"
	}
	return ""
}

// oldTar recognises a header without magic by its checksum.
func oldTar(head []byte) bool {
	const from, to = 148, 156
	sum := int64(' ') * (to - from)
	for i, c := range head {
		if i < from || i >= to {
			sum += int64(c)
		}
	}
	var want int64
	n, err := fmt.Sscanf(strings.Trim(string(head[from:to]), " \x00"), "%o", &want)
	return err == nil && n == 1 && want == sum && head[0] != 0
}

// single writes the one file.
func (u *unpacker) single(r io.Reader, name string, head []byte) error {
	base := path.Base(name)
	if name == "" || base == "." || base == "/" {
		return faas.Errorf(faas.Invalid, unpackOp, "it is not an archive, and the file has no name").WithFix("send it with a file name, such as main.py")
	}
	mode := fs.FileMode(0o644)
	if bytes.HasPrefix(head, []byte("#!")) || bytes.HasPrefix(head, []byte("\x7fELF")) {
		mode = 0o755
	}
	return u.file(base, mode, r)
}

// spooled gives random access to r, of which in has already read a part. What has no random
// access of its own goes to a file that has no name any more.
func (u *unpacker) spooled(r io.Reader, in *bufio.Reader) (_ io.ReaderAt, size int64, done func(), err error) {
	if s, ok := r.(interface {
		io.ReaderAt
		io.Seeker
	}); ok {
		if size, err := s.Seek(0, io.SeekEnd); err == nil {
			return s, size, func() {}, nil
		}
	}
	f, err := os.CreateTemp("", "brasa-unpack-*")
	if err != nil {
		return nil, 0, nil, err
	}
	done = func() { _ = f.Close() } // it has no name and nothing in it is kept
	if err := os.Remove(f.Name()); err != nil {
		done()
		return nil, 0, nil, err
	}
	size, err = io.Copy(f, io.LimitReader(in, int64(u.limits.Bytes)+1))
	if err == nil && size > int64(u.limits.Bytes) {
		err = tooManyBytes(unpackOp, u.limits.Bytes)
	}
	if err != nil {
		done()
		return nil, 0, nil, err
	}
	return f, size, done, nil
}

// zipEntries counts the entries of a zip archive, up to most+1, without keeping any: the
// library reads all of them into memory, and a few bytes make one.
func zipEntries(r io.ReaderAt, size int64, most int) (int, error) {
	const endLen, locatorLen, headerLen, maxComment = 22, 20, 46, 1<<16 - 1
	tail := make([]byte, min(size, endLen+maxComment))
	if _, err := r.ReadAt(tail, size-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	at := bytes.LastIndex(tail, []byte("PK\x05\x06"))
	if at < 0 || len(tail)-at < endLen {
		return 0, errors.New("its directory is missing")
	}
	le := binary.LittleEndian
	end := size - int64(len(tail)) + int64(at)
	length, offset := int64(le.Uint32(tail[at+12:])), int64(le.Uint32(tail[at+16:]))
	var locator [locatorLen]byte
	if _, err := r.ReadAt(locator[:], end-locatorLen); err == nil && string(locator[:4]) == "PK\x06\x07" {
		var wide [56]byte
		p := int64(le.Uint64(locator[8:]))
		if _, err := r.ReadAt(wide[:], p); err == nil && string(wide[:4]) == "PK\x06\x06" {
			end, length, offset = p, int64(le.Uint64(wide[40:])), int64(le.Uint64(wide[48:]))
		}
	}
	n := 0
	// Where something is in front of the archive the directory is found by its length, else by
	// its offset; the library tries both and so do we.
	for _, start := range []int64{end - length, offset} {
		count := 0
		in := bufio.NewReader(io.NewSectionReader(r, max(start, 0), size))
		for count <= most {
			h, err := in.Peek(headerLen)
			if err != nil || string(h[:4]) != "PK\x01\x02" {
				break
			}
			count++
			if _, err := in.Discard(headerLen + int(le.Uint16(h[28:])) + int(le.Uint16(h[30:])) + int(le.Uint16(h[32:]))); err != nil {
				break
			}
		}
		n = max(n, count)
	}
	return n, nil
}
