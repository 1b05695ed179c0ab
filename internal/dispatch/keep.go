package dispatch

import (
	"io"

	"github.com/brasa-dev/brasa/internal/faas"
)

// keeping has the first bytes of an answer's body kept for its activation while somebody reads it.
type keeping struct {
	io.ReadCloser
	most  int
	kept  []byte
	total int64
}

// keepAnswer returns res.Body such that answer returns what went through it.
func keepAnswer(res *faas.Result, most faas.Bytes) (body io.ReadCloser, answer func() *faas.Answer) {
	of := func(kept []byte, total int64) *faas.Answer {
		return &faas.Answer{Status: res.Status, Header: res.Header, Body: kept, Bytes: faas.Bytes(total), Cut: total > int64(len(kept))}
	}
	if whole, ok := res.Body.(*faas.BytesBody); ok {
		kept := make([]byte, min(whole.Size(), int64(most)))
		if n, err := whole.ReadAt(kept, 0); err == nil || err == io.EOF {
			return whole, func() *faas.Answer { return of(kept[:n], whole.Size()) }
		}
	}
	k := &keeping{ReadCloser: res.Body, most: int(most)}
	return k, func() *faas.Answer { return of(k.kept, k.total) }
}

func (k *keeping) Read(p []byte) (int, error) {
	n, err := k.ReadCloser.Read(p)
	if room := k.most - len(k.kept); room > 0 {
		k.kept = append(k.kept, p[:min(n, room)]...)
	}
	k.total += int64(n)
	return n, err
}
