// Package trigger makes of events in the outside world invocations.
//
// A trigger is a named stream of events, a rule links it to a function. What watches the outside is
// a Source: a schedule, a broker, a web hook. A source tells the manager of each event; for each
// rule that makes one call, which is durable before the source hears of it, and a source that can
// (all brokers) gives its own acknowledgement only when the function has done its work. An event
// with an ID is one call a day however often it is told.
//
// How such a call waits, is tried again and given up is decided by package dispatch; what exists is
// known by package catalog.
package trigger

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/queue"
	"github.com/brasa-dev/brasa/internal/store"
)

// MaxData is the most bytes that an event's data may have, since the calls it leads to wait in the
// queue.
const MaxData = queue.MaxBody

// Source watches something. A source that listens for requests also implements Listener.
type Source interface {
	// Run tells fire of events until ctx ends; then it returns nil, or the error with which ctx
	// ended. With any other error it is run again, after a while.
	Run(ctx context.Context, fire Fire) error
}

// Fire tells a trigger's functions of an event. With nil the calls are durable: the source may
// forget the event. With an error some may have been made, and the event is to be told again, with
// the same ID. It is safe for concurrent use.
type Fire func(ctx context.Context, e faas.Event) (Fired, error)

// Listener is a source whose events come as requests to the trigger's own URL. Answer checks one
// and tells what it means. It answers by itself where the sender's protocol asks for something; an
// error that it returns is not answered yet.
type Listener interface {
	Answer(w http.ResponseWriter, r *http.Request, body []byte, fire Fire) error
}

// Planned is a source that knows when it will fire.
type Planned interface {
	// Next returns at most n times at which it will fire after the given one.
	Next(after time.Time, n int) []time.Time
}

// Kind is a kind of source.
type Kind struct {
	Name string
	Doc  string // in a line, for people
	// New reads a configuration. An error is the author's to mend and names the field. It must not
	// talk to the outside: Run does.
	New func(o Outside, config json.RawMessage) (Source, error)
}

// Outside is what a source is given of the world.
type Outside struct {
	Trigger *faas.Trigger
	// Secret opens one of those that the trigger names.
	Secret func(ctx context.Context, name string) (string, error)
	// State keeps what the source has to remember, under keys of its own; it ends with the trigger.
	State State
	// Dial connects to an address that a tenant named. It refuses what functions may not reach.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Files are the directories of this machine's disk that may be watched.
	Files []Opened
	Log   *slog.Logger
	Now   func() time.Time

	passed func(n int64, why string) // nil: nobody counts
}

// State is a source's memory.
type State interface {
	Get(ctx context.Context) ([]byte, error) // nil: nothing was put
	Put(ctx context.Context, value []byte) error
}

// kindsOf are those that need no other program, and more, in the order of their names.
func kindsOf(more []Kind) []Kind {
	all := append([]Kind{cronKind, fileKind, webhookKind}, more...)
	slices.SortFunc(all, func(a, b Kind) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func (m *Manager) kind(name string) (Kind, error) {
	var names []string
	for _, k := range m.kinds {
		if k.Name == name {
			return k, nil
		}
		names = append(names, k.Name)
	}
	return Kind{}, faas.Errorf(faas.Invalid, "check trigger", "there is no source of kind %.60q", name).WithFix("there are: %s", strings.Join(names, ", "))
}

// Kinds are all kinds of sources that the manager can run, in the order of their names.
func (m *Manager) Kinds() []Kind { return slices.Clone(m.kinds) }

// Check says what is wrong with a trigger's source; nil if it could be run.
func (m *Manager) Check(t *faas.Trigger) error {
	if t.Source == nil {
		return nil
	}
	_, err := m.open(t, Outside{})
	return err
}

func (m *Manager) open(t *faas.Trigger, o Outside) (Source, error) {
	k, err := m.kind(t.Source.Kind)
	if err != nil {
		return nil, err
	}
	o.Trigger, o.Files = t, m.cfg.Files
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return k.New(o, t.Source.Config)
}

// Read decodes a source's configuration and refuses what it does not know.
func Read(config json.RawMessage, into any) error {
	if len(config) == 0 {
		config = json.RawMessage("{}")
	}
	d := json.NewDecoder(strings.NewReader(string(config)))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return Invalid("the configuration does not fit: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if d.More() {
		return Invalid("something follows the configuration")
	}
	return nil
}

// Invalid is the error of a configuration that its author has to mend.
func Invalid(format string, args ...any) *faas.Error {
	return faas.Errorf(faas.Invalid, "check trigger", format, args...)
}

// bucketState keeps a source's memory in a store.
type bucketState struct {
	bucket store.Store
	key    string
}

func (s bucketState) Get(ctx context.Context) ([]byte, error) {
	r, err := s.bucket.Get(ctx, s.key)
	if err != nil {
		if isNotFound(err) {
			return nil, nil
		}
		return nil, err
	}
	return r.Value, nil
}

func (s bucketState) Put(ctx context.Context, value []byte) error {
	_, err := s.bucket.Put(ctx, s.key, value, store.Any)
	return err
}
