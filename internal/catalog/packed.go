package catalog

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unique"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// packed is what the documents of one function and its revisions say, in little memory: digests
// as bytes, and the settings, which many revisions have in common, once for all of them. It is
// never changed after it is published.
type packed struct {
	version store.Version // of the function's document; 0: there is none
	created int64         // nanoseconds since 1970, as all times here; 0: not set
	updated int64
	deleted int64 // 0: it is live
	uid     [16]byte
	public  bool
	active  int16 // index in revisions; -1: none
	listed  int16 // the first so many revisions are those that the function lists, newest first
	// revisions are those that are listed, also without a document, and orphans with one.
	revisions []packedRevision
}

type packedRevision struct {
	version  store.Version // of its document; 0: it is missing
	stored   int64
	created  int64
	bytes    int64
	id       [32]byte
	code     [32]byte // zero: in settings
	settings unique.Handle[string]
}

// nothing is known under a name that nobody uses.
var nothing = &packed{active: -1}

// settings is a revision's JSON without what is packed.
type settings struct {
	*faas.Revision
	// These hide the revision's own fields.
	ID        *struct{}    `json:"id,omitempty"`
	Name      *struct{}    `json:"name,omitempty"`
	Code      *faas.Digest `json:"code,omitempty"` // only where it is not a digest
	CodeBytes *struct{}    `json:"code_bytes,omitempty"`
	Created   *struct{}    `json:"created,omitempty"`
}

// live says whether there is a function that has not been deleted.
func (p *packed) live() bool { return p.version != 0 && p.deleted == 0 }

// find returns the revision with this id, or nil.
func (p *packed) find(id faas.RevisionID) *packedRevision {
	var b [32]byte
	if unhex(b[:], string(id)) != nil {
		return nil
	}
	if i := p.at(b); i >= 0 {
		return &p.revisions[i]
	}
	return nil
}

func (p *packed) at(id [32]byte) int {
	return slices.IndexFunc(p.revisions, func(r packedRevision) bool { return r.id == id })
}

// function unpacks the function's own document.
func (p *packed) function(name faas.Name) *faas.Function {
	fn := &faas.Function{
		Name: name, UID: hex.EncodeToString(p.uid[:]), Public: p.public,
		Created: fromNanos(p.created), Updated: fromNanos(p.updated),
	}
	for i := range p.listed {
		fn.Revisions = append(fn.Revisions, p.revisions[i].revisionID())
	}
	if p.active >= 0 {
		fn.Active = fn.Revisions[p.active]
	}
	return fn
}

// withFunction returns p with another document of the function.
func (p *packed) withFunction(name faas.Name, document []byte, version store.Version) (*packed, error) {
	var d functionDocument
	if err := json.Unmarshal(document, &d); err != nil {
		return nil, err
	}
	if d.Name != name {
		return nil, fmt.Errorf("it describes function %q", d.Name)
	}
	next := &packed{
		version: version, public: d.Public, active: -1, listed: int16(len(d.Revisions)),
		created: nanos(d.Created), updated: nanos(d.Updated),
		revisions: make([]packedRevision, 0, max(len(d.Revisions), len(p.revisions))),
	}
	if d.Deleted != nil {
		next.deleted = nanos(*d.Deleted)
	}
	if err := unhex(next.uid[:], d.UID); err != nil {
		return nil, fmt.Errorf("its uid %.40q: %w", d.UID, err)
	}
	for i, id := range d.Revisions {
		r := packedRevision{}
		if err := unhex(r.id[:], string(id)); err != nil {
			return nil, fmt.Errorf("its revision %.12q: %w", id, err)
		}
		if at := p.at(r.id); at >= 0 {
			r = p.revisions[at]
		}
		if id == d.Active {
			next.active = int16(i)
		}
		next.revisions = append(next.revisions, r)
	}
	if d.Active != "" && next.active < 0 {
		return nil, fmt.Errorf("its active revision %.12q is not among those it lists", d.Active)
	}
	next.adopt(p)
	return next, nil
}

// withoutFunction returns p with the revisions alone.
func (p *packed) withoutFunction() *packed {
	next := &packed{active: -1}
	next.adopt(p)
	return next.orNothing()
}

// adopt appends the revisions of p that have a document and are not listed.
func (p *packed) adopt(from *packed) {
	for _, r := range from.revisions {
		if r.version != 0 && p.at(r.id) < 0 {
			p.revisions = append(p.revisions, r)
		}
	}
}

// withRevision returns p with another document of a revision.
func (p *packed) withRevision(name faas.Name, id faas.RevisionID, document []byte, version store.Version) (*packed, error) {
	var d revisionDocument
	if err := json.Unmarshal(document, &d); err != nil {
		return nil, err
	}
	rev := d.Revision
	if rev == nil || rev.ID != id || rev.Name != name {
		return nil, fmt.Errorf("it does not describe revision %.12s of %q", id, name)
	}
	r := packedRevision{version: version, stored: nanos(d.Stored), created: nanos(rev.Created), bytes: int64(rev.CodeBytes)}
	if err := unhex(r.id[:], string(id)); err != nil {
		return nil, fmt.Errorf("its id %.12q: %w", id, err)
	}
	s := settings{Revision: rev}
	if hexDigits, ok := strings.CutPrefix(string(rev.Code), digestPrefix); !ok || unhex(r.code[:], hexDigits) != nil {
		r.code, s.Code = [32]byte{}, &rev.Code
	}
	b, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	r.settings = unique.Make(string(b))
	next := *p
	next.revisions = slices.Clone(p.revisions)
	if i := p.at(r.id); i >= 0 {
		next.revisions[i] = r
	} else {
		next.revisions = slices.Clip(append(next.revisions, r))
	}
	return &next, nil
}

const digestPrefix = "sha256:"

// withoutRevision returns p without a revision's document.
func (p *packed) withoutRevision(id faas.RevisionID) *packed {
	r := p.find(id)
	if r == nil {
		return p
	}
	next := *p
	i := p.at(r.id)
	next.revisions = slices.Clone(p.revisions)
	if i < int(p.listed) {
		next.revisions[i] = packedRevision{id: r.id}
	} else {
		next.revisions = slices.Delete(next.revisions, i, i+1)
	}
	return next.orNothing()
}

// orNothing returns nothing in place of what says nothing.
func (p *packed) orNothing() *packed {
	if p.version == 0 && len(p.revisions) == 0 {
		return nothing
	}
	return p
}

func (r *packedRevision) revisionID() faas.RevisionID {
	return faas.RevisionID(hex.EncodeToString(r.id[:]))
}

// digests calls f with all that the revision is stored under: its code, and its source, layers and
// image where it has them.
func (r *packedRevision) digests(f func(faas.Digest)) {
	if r.version == 0 {
		return
	}
	if r.code != ([32]byte{}) {
		s := r.settings.Value()
		if !strings.Contains(s, `"source":`) && !strings.Contains(s, `"layers":`) && !strings.Contains(s, `"image":`) { // which most don't have
			f(faas.Digest(digestPrefix + hex.EncodeToString(r.code[:])))
			return
		}
	}
	var rev faas.Revision
	r.unpack(&rev, faas.Name{})
	for _, d := range []faas.Digest{rev.Code, rev.Source} {
		if d != "" {
			f(d)
		}
	}
	for _, l := range rev.Layers {
		f(l.Digest)
	}
	if rev.Image != nil {
		f(rev.Image.Root)
	}
}

// unpack writes the revision to rev, which is left empty if its document is missing. What it
// refers to is shared with other revisions of the same settings.
func (r *packedRevision) unpack(rev *faas.Revision, name faas.Name) {
	if r.version == 0 {
		return
	}
	place := &unpacked[maphash.Comparable(seed, r.settings)%uint64(len(unpacked))]
	common := place.Load()
	if common == nil || common.of != r.settings {
		common = &commonRevision{of: r.settings}
		s := settings{Revision: &common.rev}
		if err := json.Unmarshal([]byte(r.settings.Value()), &s); err != nil {
			return // not possible: we wrote it
		}
		if s.Code != nil {
			common.rev.Code = *s.Code
		}
		place.Store(common)
	}
	*rev = common.rev
	rev.ID, rev.Name, rev.CodeBytes, rev.Created = r.revisionID(), name, faas.Bytes(r.bytes), fromNanos(r.created)
	if rev.Code == "" && r.code != ([32]byte{}) { // an image may have no code
		rev.Code = faas.Digest(digestPrefix + hex.EncodeToString(r.code[:]))
	}
}

// commonRevision is what revisions with the same settings have in common. Most of a node's
// functions have one of a few settings, and reading these from JSON is most of what unpacking
// costs, so some are kept; which, is left to chance.
type commonRevision struct {
	of  unique.Handle[string]
	rev faas.Revision
}

var (
	unpacked [256]atomic.Pointer[commonRevision]
	seed     = maphash.MakeSeed()
)

// unhex decodes lower-case digits that fill b exactly.
func unhex(b []byte, digits string) error {
	if len(digits) != 2*len(b) || strings.ToLower(digits) != digits {
		return fmt.Errorf("want %d hexadecimal digits in lower case", 2*len(b))
	}
	_, err := hex.Decode(b, []byte(digits))
	return err
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
