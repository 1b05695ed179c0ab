package dispatch

import (
	"io"

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
		WithLimit("request_bytes").WithFix("raise it with: brasa deploy --request %s", 2*rev.Limits.Request)
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
