package deploy

import (
	"bytes"
	"container/list"
	"crypto/sha256"
	"encoding/json"
	"io"
	"sync"

	"github.com/brasa-dev/brasa/internal/faas"
)

const (
	stagedSmall = 256 << 10 // code up to this size is looked up by its content before it is unpacked
	stagedKept  = 512       // revisions of ad-hoc code that are remembered
)

// staged remembers the revisions of ad-hoc code, so that the same snippet sent again goes
// straight to an instance. The least recently used is forgotten.
type staged struct {
	mu    *sync.Mutex
	order *list.List // of stagedEntry, guarded by mu
	byKey map[stagedKey]*list.Element
}

type stagedKey [sha256.Size]byte

type stagedEntry struct {
	key stagedKey
	rev *faas.Revision
}

func newStaged() staged {
	return staged{mu: new(sync.Mutex), order: list.New(), byKey: map[stagedKey]*list.Element{}}
}

// key digests all that decides what the request is staged as. It reads the code's beginning and
// puts it back; small is false, and the key of no use, if there is more of it.
func (s *staged) key(req *Request) (key stagedKey, small bool, err error) {
	head, err := io.ReadAll(io.LimitReader(req.Code, stagedSmall+1))
	if err != nil {
		return key, false, faas.AsError(err)
	}
	if len(head) > stagedSmall {
		req.Code = io.MultiReader(bytes.NewReader(head), req.Code)
		return key, false, nil
	}
	req.Code = bytes.NewReader(head)
	h := sha256.New()
	settings := *req
	settings.Code = nil
	if err := json.NewEncoder(h).Encode(settings); err != nil {
		return key, false, faas.AsError(err)
	}
	h.Write(head)
	return stagedKey(h.Sum(nil)), true, nil
}

func (s *staged) get(key stagedKey) *faas.Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.byKey[key]
	if e == nil {
		return nil
	}
	s.order.MoveToFront(e)
	return e.Value.(stagedEntry).rev
}

func (s *staged) put(key stagedKey, rev *faas.Revision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byKey[key] != nil {
		return
	}
	s.byKey[key] = s.order.PushFront(stagedEntry{key, rev})
	for s.order.Len() > stagedKept {
		last := s.order.Back()
		delete(s.byKey, s.order.Remove(last).(stagedEntry).key)
	}
}

// live calls f for each revision that is remembered, so that its code is not collected.
func (s *staged) live(f func(*faas.Revision)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := s.order.Front(); e != nil; e = e.Next() {
		f(e.Value.(stagedEntry).rev)
	}
}

// Live calls f for the code and the layers of ad-hoc revisions that may be run again, so that they
// are not collected as unused.
func (d *Deployer) Live(f func(faas.Digest)) {
	d.staged.live(func(rev *faas.Revision) {
		f(rev.Code)
		for _, l := range rev.Layers {
			f(l.Digest)
		}
	})
}
