package dispatch

import (
	"bytes"
	"errors"
	"io"
	"net"

	"github.com/brasa-dev/brasa/internal/faas"
)

// bound refuses a body that is known to be over the function's limit, and sees to it that one of
// unknown length can't get over it either. What is read is counted in the report.
func bound(inv *faas.Invocation, rev *faas.Revision) error {
	limit := rev.Limits.Request
	if faas.Bytes(inv.Length) > limit {
		return tooLarge(rev)
	}
	if inv.Body == nil {
		return nil
	}
	inv.Body = &boundedBody{r: inv.Body, inv: inv, rev: rev, left: limit}
	return nil
}

func tooLarge(rev *faas.Revision) *faas.Error {
	return faas.Errorf(faas.TooLarge, "read request", "the request's body is over the function's limit of %s", rev.Limits.Request).
		WithLimit("request_bytes").WithFix("raise it with: brasa deploy PATH --request %s", 2*rev.Limits.Request)
}

// gatherMost is the size up to which a body of known length is read before the call takes an
// instance, so that a slow sender holds none. What is longer streams into the function.
const gatherMost = 64 << 10

func gather(inv *faas.Invocation) error {
	if inv.Body == nil || inv.Length <= 0 || inv.Length > gatherMost {
		return nil
	}
	b := make([]byte, inv.Length)
	if _, err := io.ReadFull(inv.Body, b); err != nil {
		if e, ok := errors.AsType[*faas.Error](err); ok {
			return e
		}
		if _, network := errors.AsType[net.Error](err); !network && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			return &faas.Error{Code: faas.Invalid, Op: "read request", Err: err}
		}
		return faas.Errorf(faas.Canceled, "read request", "the request's body ended before its announced length of %d bytes", inv.Length)
	}
	inv.Body = bytes.NewReader(b)
	return nil
}

type boundedBody struct {
	r    io.Reader
	inv  *faas.Invocation
	rev  *faas.Revision
	left faas.Bytes
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, tooLarge(b.rev)
	}
	// One byte more than is left tells a body that ends at the limit from one that goes over it.
	if faas.Bytes(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.r.Read(p)
	b.left -= faas.Bytes(n)
	if b.left < 0 {
		return 0, tooLarge(b.rev)
	}
	b.inv.Report.Request += faas.Bytes(n)
	return n, err
}
