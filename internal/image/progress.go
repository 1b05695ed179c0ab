package image

import (
	"io"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// progressSum counts what several goroutines read, and lets one at a time tell of it.
type progressSum struct {
	mu   sync.Mutex
	n    int64     // guarded by mu
	last time.Time // guarded by mu
}

func (p *progressSum) add(n int64) {
	p.mu.Lock()
	p.n += n
	p.mu.Unlock()
}

// sayEvery is how often a person wants to hear of it.
const sayEvery = 200 * time.Millisecond

type progressReader struct {
	r io.Reader
	d *download
}

func (p *progressReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	s := &p.d.said
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n += int64(n)
	if now := time.Now(); now.Sub(s.last) >= sayEvery {
		s.last = now
		p.d.opt.progress(Progress{Step: "fetch", Layers: len(p.d.layers), Bytes: faas.Bytes(s.n), Total: p.d.total})
	}
	return n, err
}

// quiet returns options whose Progress is called by one goroutine at a time, and no more after done.
func (o Options) quiet() (_ Options, done func()) {
	if o.Progress == nil {
		return o, func() {}
	}
	var mu sync.Mutex
	tell := o.Progress
	o.Progress = func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		if tell != nil {
			tell(p)
		}
	}
	return o, func() {
		mu.Lock()
		defer mu.Unlock()
		tell = nil
	}
}
