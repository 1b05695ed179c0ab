package image

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"strings"
	"syscall"

	"github.com/klauspost/compress/flate"
	kgzip "github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/brasa-dev/brasa/internal/faas"
)

const op = "take in image"

func bad(format string, args ...any) *faas.Error {
	return faas.Errorf(faas.Invalid, op, format, args...)
}

func tooMuch(key, format string, args ...any) *faas.Error {
	return faas.Errorf(faas.TooLarge, op, format, args...).WithLimit(key).
		WithFix("make the image smaller, or have the operator raise images.limits.%s", strings.TrimPrefix(key, "image_"))
}

// asError makes of what the disk or a context answered the error that the caller may act upon.
func asError(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*faas.Error](err); ok {
		return e
	}
	e := &faas.Error{Code: faas.CodeOf(err), Op: op, Err: err}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		e.Code, e.Limit = faas.Unavailable, "store_bytes"
		e.Fix = "nothing was kept; the operator has to make room on the server's disk"
	}
	return e
}

// damaged makes what a decoder found wrong the sender's error; ours and the context's stay.
func damaged(what string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*faas.Error](err); ok {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	for _, known := range []error{
		io.ErrUnexpectedEOF, io.EOF, tar.ErrHeader, tar.ErrFieldTooLong, gzip.ErrChecksum, gzip.ErrHeader, kgzip.ErrChecksum, kgzip.ErrHeader,
		zstd.ErrMagicMismatch, zstd.ErrWindowSizeExceeded, zstd.ErrDecoderSizeExceeded, zstd.ErrUnknownDictionary, zstd.ErrCRCMismatch,
		zstd.ErrReservedBlockType, zstd.ErrCompressedSizeTooBig, zstd.ErrBlockTooSmall, zstd.ErrUnexpectedBlockSize,
		zstd.ErrFrameSizeExceeded, zstd.ErrFrameSizeMismatch, zstd.ErrWindowSizeTooSmall,
	} {
		if errors.Is(err, known) {
			return bad("%s is damaged or ends too early: %w", what, err)
		}
	}
	var corrupt flate.CorruptInputError
	if errors.As(err, &corrupt) || strings.Contains(err.Error(), "flate: ") || strings.Contains(err.Error(), "corrupt") {
		return bad("%s is damaged: %w", what, err)
	}
	return err
}
