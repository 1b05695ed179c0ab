package catalog

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// The kinds of documents, which are the first parts of their keys:
//
//	namespace/NS
//	function/NS/[PACKAGE/]NAME
//	revision/NS/[PACKAGE/]NAME/ID
//	trigger/NS/NAME
//	rule/NS/NAME
//	package/NS/NAME
//	key/NS                             in the store of secrets: the namespace's wrapped data key
//	secret/NS/NAME                     there too
//	check                              there too: says which master key is in use
const (
	kindNamespace = "namespace/"
	kindFunction  = "function/"
	kindRevision  = "revision/"
	kindTrigger   = "trigger/"
	kindRule      = "rule/"
	kindPackage   = "package/"
	kindKey       = "key/"
	kindSecret    = "secret/"
	checkDocument = "check"
)

func functionKey(n faas.Name) string { return kindFunction + n.String() }

func revisionKey(n faas.Name, id faas.RevisionID) string {
	return kindRevision + n.String() + "/" + string(id)
}

// functionDocument is a function as it is stored. A deleted one stays for a while as a tombstone,
// so that its revisions are known to be dead and its UID to have been used.
type functionDocument struct {
	faas.Function
	Deleted *time.Time `json:"deleted,omitempty"`
}

type revisionDocument struct {
	Stored   time.Time      `json:"stored"` // when it was last published; an orphan this old is nobody's work in progress
	Revision *faas.Revision `json:"revision"`
}

// EventKind says what happened.
type EventKind uint8

// Events.
const (
	FunctionChanged EventKind = iota + 1 // made, published, activated, or its visibility changed
	FunctionDeleted
	SecretChanged // made or rotated
	SecretDeleted
	NamespaceDeleted
	TriggerChanged // made, changed, paused or resumed
	TriggerDeleted
	RuleChanged
	RuleDeleted
	PackageChanged
	PackageDeleted
)

// Event is a change that other parts act upon: a worker drains instances of revisions that are
// no longer active, and those that hold an old secret.
type Event struct {
	Kind      EventKind
	Namespace string
	Function  *faas.Function // for functions; as it is now, or was before it was deleted
	Trigger   *faas.Trigger  // for triggers; as it is now, or was before it was deleted
	Rule      *faas.Rule     // for rules, the same
	Package   *faas.Package  // for packages, the same
	Secret    string         // for secrets: the name
	Epoch     uint64         // for secrets: see OpenSecrets
}

// OnChange has f called for every change, once, in the order in which changes happened, on the
// goroutine that learned of it. By then the catalog shows the change. f must be quick and must
// not write to the catalog. Changes before the call of OnChange are not told.
func (c *Catalog) OnChange(f func(Event)) {
	c.apply.Lock()
	defer c.apply.Unlock()
	fs := append([]func(Event){}, *c.listen.Load()...)
	fs = append(fs, f)
	c.listen.Store(&fs)
}

// learn brings a record that was read from the store, or that its watch delivered, into the copy
// in memory.
func (c *Catalog) learn(from int, r store.Record) {
	if r.Key == "" {
		return
	}
	c.enter(from, r, func() bool {
		c.watched[from] = max(c.watched[from], r.Version)
		return r.Version > c.seenVersion(r.Key)
	})
}

// wrote is learn for a write of our own, so that whoever wrote reads it at once. The watch will
// deliver it too, or has done so already.
func (c *Catalog) wrote(from int, key string, value []byte, version store.Version) {
	c.enter(from, store.Record{Key: key, Value: value, Version: version}, func() bool {
		return version > c.watched[from] && version > c.seenVersion(key)
	})
}

// enter takes the record if it is news and tells the listeners.
func (c *Catalog) enter(from int, r store.Record, news func() bool) {
	c.apply.Lock()
	defer c.apply.Unlock()
	c.mu.Lock()
	if !news() {
		c.mu.Unlock()
		return
	}
	switch {
	case isFunction(r.Key): // it is known with what the document says
	case r.Deleted:
		delete(c.seen, r.Key) // the watch delivers in order: nothing older is to come
	default:
		c.seen[r.Key] = r.Version
	}
	event, err := c.take(r)
	quiet := c.loading
	c.mu.Unlock()
	if err != nil {
		// A document that cannot be read must not keep the node from starting; what it described
		// is not found.
		c.config.Logger.Error("document not readable", "key", r.Key, "cause", err)
		return
	}
	if event.Kind == 0 || quiet {
		return
	}
	for _, f := range *c.listen.Load() {
		f(event)
	}
}

// forget is wrote for a deletion of our own, of which the store does not tell the version. The
// versions up to the one deleted are not let in again.
func (c *Catalog) forget(key string, version store.Version) {
	c.apply.Lock()
	defer c.apply.Unlock()
	c.mu.Lock()
	if c.seenVersion(key) != version {
		c.mu.Unlock() // someone made it again meanwhile
		return
	}
	event, _ := c.take(store.Record{Key: key, Version: version, Deleted: true})
	c.mu.Unlock()
	if event.Kind == 0 {
		return
	}
	for _, f := range *c.listen.Load() {
		f(event)
	}
}

// take changes the copy. It is called with mu held.
func (c *Catalog) take(r store.Record) (Event, error) {
	switch {
	case strings.HasPrefix(r.Key, kindFunction):
		return c.takeFunction(r)
	case strings.HasPrefix(r.Key, kindRevision):
		return Event{}, c.takeRevision(r)
	case strings.HasPrefix(r.Key, kindNamespace):
		name := strings.TrimPrefix(r.Key, kindNamespace)
		if r.Deleted {
			if c.namespaces[name] == nil {
				return Event{}, nil
			}
			delete(c.namespaces, name)
			return Event{Kind: NamespaceDeleted, Namespace: name}, nil
		}
		ns := &Namespace{}
		if err := json.Unmarshal(r.Value, ns); err != nil {
			return Event{}, err
		}
		c.namespaces[name] = ns
		return Event{}, nil
	case strings.HasPrefix(r.Key, kindTrigger), strings.HasPrefix(r.Key, kindRule):
		return c.takeLinked(r)
	case strings.HasPrefix(r.Key, kindPackage):
		return c.takePackage(r)
	case strings.HasPrefix(r.Key, kindKey), strings.HasPrefix(r.Key, kindSecret):
		return c.takeSecret(r)
	}
	return Event{}, nil // of another part that shares the store, or of a newer version
}

// isFunction says whether the key is of a function or a revision.
func isFunction(key string) bool {
	return strings.HasPrefix(key, kindFunction) || strings.HasPrefix(key, kindRevision)
}

// parseKey reads the key of a function or, then id is not empty, a revision.
func parseKey(key string) (name faas.Name, id faas.RevisionID, err error) {
	path := strings.TrimPrefix(key, kindFunction)
	if rest, ok := strings.CutPrefix(key, kindRevision); ok {
		i := strings.LastIndexByte(rest, '/')
		path, id = rest[:max(i, 0)], faas.RevisionID(rest[i+1:])
	}
	name, err = faas.ParseName("/"+path, "")
	return name, id, err
}

// seenVersion returns the newest version seen of a key; 0 if there is no record, or none that
// could be read. The caller holds mu.
func (c *Catalog) seenVersion(key string) store.Version {
	if !isFunction(key) {
		return c.seen[key]
	}
	name, id, err := parseKey(key)
	if err != nil {
		return 0
	}
	e := c.entry(name)
	if e == nil {
		return 0
	}
	p := e.packed.Load()
	if id == "" {
		return p.version
	}
	if r := p.find(id); r != nil {
		return r.version
	}
	return 0
}

func (c *Catalog) takeFunction(r store.Record) (Event, error) {
	name, _, err := parseKey(r.Key)
	if err != nil {
		return Event{}, err
	}
	was := c.packed(name)
	next, unreadable := was.withoutFunction(), error(nil)
	if !r.Deleted {
		if next, unreadable = was.withFunction(name, r.Value, r.Version); unreadable != nil {
			next = was.withoutFunction()
		}
	}
	e := c.show(name, next)
	switch {
	case unreadable != nil:
		return Event{}, unreadable
	case c.loading:
		return Event{}, nil // nobody is told, so spare the trouble
	case next.live():
		return Event{Kind: FunctionChanged, Namespace: name.Namespace, Function: next.function(e.fullName())}, nil
	case was.live():
		return Event{Kind: FunctionDeleted, Namespace: name.Namespace, Function: was.function(name)}, nil
	}
	return Event{}, nil
}

func (c *Catalog) takeRevision(r store.Record) error {
	name, id, err := parseKey(r.Key)
	if err != nil {
		return err
	}
	was := c.packed(name)
	if r.Deleted {
		c.show(name, was.withoutRevision(id))
		return nil
	}
	next, err := was.withRevision(name, id, r.Value, r.Version)
	if err != nil {
		return err
	}
	c.show(name, next)
	return nil
}
