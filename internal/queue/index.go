package queue

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"modernc.org/sqlite"
)

// index is a SQLite file that knows of every message what must be searched for. The streams are
// the truth: it is made again from them when it is lost or damaged, and it is not synced with
// every write, so that a power cut may leave it behind them. A kill of the process does not.
//
// Writes are functions that run in a transaction. Those that come while one is being committed
// go into the next together: alone a write costs a tenth of a millisecond, in company a tenth of
// that.
type index struct {
	path   string
	logger *slog.Logger
	apply  func([]change) // told of every commit, in their order

	mu      sync.Mutex
	pending []*write // guarded by mu

	writing  sync.Mutex           // one transaction at a time; taken before mu
	writer   *sql.DB              // guarded by writing; of one connection
	conn     *sql.Conn            // guarded by writing; that connection
	prepared map[string]*sql.Stmt // guarded by writing; on that connection

	using  sync.RWMutex // held for reading while reader is used, for writing while the file is replaced
	reader *sql.DB      // guarded by using

	// mend makes a damaged index again; it is called with writing held, and may run writes by once.
	mend func() error
	made atomic.Uint64 // how often
}

type write struct {
	run  func(*txn) error
	done bool // guarded by writing
	err  error
}

// txn is a transaction of the index, and what is to be told when it is committed.
type txn struct {
	x         *index
	changes   []change
	committed []func()
	parts     map[*part][]*flight // that land with it
}

// change is by how much a transaction changes a function's figures.
type change struct {
	f           *function
	state       state
	count, dead int
	bytes       int64
}

// state is where a message stands.
type state int

const (
	ready   state = iota // it may be handed out
	later                // it is not due
	behind               // another of its row is not settled
	running              // it is handed out, or being cancelled
	states
)

// schemaVersion is raised with every change of schema; a file of another version is made again.
const schemaVersion = 1

const schema = `
CREATE TABLE fn (
	id   INTEGER PRIMARY KEY,
	name TEXT NOT NULL UNIQUE,
	ns   TEXT NOT NULL
);
CREATE INDEX fn_by_ns ON fn (ns);
CREATE TABLE letter (
	place   INTEGER PRIMARY KEY, -- the sequence of its first copy in its stream, then six bits for the stream
	seq     INTEGER NOT NULL,    -- of the copy that counts
	fn      INTEGER NOT NULL,
	id      BLOB NOT NULL,       -- 16 bytes, in the order of time
	state   INTEGER NOT NULL,
	rank    INTEGER NOT NULL,    -- of its priority
	due     INTEGER NOT NULL,    -- microseconds
	after   INTEGER NOT NULL,    -- the delay that led to due; 0: it is a time of its own
	queued  INTEGER NOT NULL,    -- microseconds
	attempt INTEGER NOT NULL,
	size    INTEGER NOT NULL,
	line    TEXT,                -- the row that it stands in
	key     TEXT,
	subject TEXT,
	cause   TEXT,
	why     TEXT
);
CREATE UNIQUE INDEX letter_by_id ON letter (fn, id);
CREATE INDEX letter_by_turn ON letter (fn, state, rank);
CREATE INDEX letter_by_due ON letter (due) WHERE state = 1;
CREATE INDEX letter_by_line ON letter (fn, line) WHERE line IS NOT NULL;
CREATE INDEX letter_head ON letter (fn, line) WHERE line IS NOT NULL AND state <> 2;
CREATE TABLE dead (
	fn  INTEGER NOT NULL,
	id  BLOB NOT NULL,
	seq INTEGER NOT NULL,
	PRIMARY KEY (fn, id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX dead_by_seq ON dead (seq);
CREATE TABLE key (
	fn    INTEGER NOT NULL,
	key   TEXT NOT NULL,
	id    TEXT NOT NULL,
	until INTEGER NOT NULL, -- microseconds
	PRIMARY KEY (fn, key)
) WITHOUT ROWID;
CREATE INDEX key_by_until ON key (until);
CREATE TABLE seen ( -- up to which sequence all of a stream is here
	stream TEXT PRIMARY KEY,
	seq    INTEGER NOT NULL
) WITHOUT ROWID;
`

// open opens or makes the file. One that SQLite cannot read is replaced by an empty one.
func (x *index) open() error {
	if err := os.MkdirAll(filepath.Dir(x.path), 0o700); err != nil {
		return err
	}
	for again := false; ; again = true {
		err := x.openOnce()
		if err == nil {
			return nil
		}
		err = errors.Join(fmt.Errorf("open index %q: %w", x.path, err), x.close())
		if again || !isCorrupt(err) && !errors.Is(err, errSchema) {
			return err
		}
		x.logger.Warn("index of the queue begun anew", "cause", err)
		if err := x.remove(); err != nil {
			return err
		}
	}
}

var errSchema = errors.New("it has the form of another version")

func (x *index) openOnce() (err error) {
	x.using.Lock()
	defer x.using.Unlock()
	open := func(most int, pragmas ...string) (*sql.DB, error) {
		dsn := (&url.URL{Scheme: "file", OmitHost: true, Path: x.path, RawQuery: url.Values{
			"_pragma": append(pragmas, "journal_mode(WAL)", "synchronous(NORMAL)", "busy_timeout(10000)", "wal_autocheckpoint(4000)"),
		}.Encode()}).String()
		db, err := sql.Open("sqlite", dsn)
		if err == nil {
			db.SetMaxOpenConns(most)
			db.SetMaxIdleConns(most)
		}
		return db, err
	}
	x.prepared = map[string]*sql.Stmt{}
	if x.writer, err = open(1, "cache_size(-32000)"); err != nil {
		return err
	}
	if x.reader, err = open(2, "cache_size(-4000)", "query_only(1)"); err != nil {
		return err
	}
	if x.conn, err = x.writer.Conn(context.Background()); err != nil {
		return err
	}
	var version, tables int
	if err := x.conn.QueryRowContext(context.Background(), `SELECT user_version, (SELECT count(*) FROM sqlite_master) FROM pragma_user_version`).Scan(&version, &tables); err != nil {
		return err
	}
	switch {
	case tables == 0:
		_, err = x.conn.ExecContext(context.Background(), fmt.Sprintf("BEGIN IMMEDIATE; %s PRAGMA user_version = %d; COMMIT;", schema, schemaVersion))
	case version != schemaVersion:
		err = errSchema
	}
	return err
}

func (x *index) close() error {
	x.using.Lock()
	defer x.using.Unlock()
	var errs []error
	for _, s := range x.prepared {
		errs = append(errs, s.Close())
	}
	if x.conn != nil {
		errs = append(errs, x.conn.Close())
	}
	for _, db := range []*sql.DB{x.reader, x.writer} { // the last one closed writes the log back
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	x.reader, x.writer, x.conn, x.prepared = nil, nil, nil, nil
	return errors.Join(errs...)
}

func (x *index) remove() error {
	var errs []error
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(x.path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// isCorrupt says whether SQLite found that a file is not, or no longer, one of its own.
func isCorrupt(err error) bool {
	const corrupt, notADatabase = 11, 26
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code()&0xff == corrupt || e.Code()&0xff == notADatabase
	}
	return false
}

var errClosed = errors.New("the queue is closed")

// do runs a write and returns when it is committed.
func (x *index) do(run func(*txn) error) error {
	w := &write{run: run}
	x.mu.Lock()
	x.pending = append(x.pending, w)
	x.mu.Unlock()
	x.writing.Lock()
	defer x.writing.Unlock()
	if w.done {
		return w.err // with those of another
	}
	const most = 512
	x.mu.Lock()
	batch := x.pending
	x.pending = nil
	x.mu.Unlock()
	for len(batch) > 0 {
		n := min(len(batch), most)
		x.batch(batch[:n])
		batch = batch[n:]
	}
	return w.err
}

// batch runs writes in one transaction. If one of them fails each is tried by itself.
func (x *index) batch(batch []*write) {
	err := x.once(func(t *txn) error {
		for _, w := range batch {
			if err := w.run(t); err != nil {
				return err
			}
		}
		return nil
	})
	for _, w := range batch {
		w.err = err
		if err != nil && (len(batch) > 1 || isCorrupt(err)) {
			w.err = x.alone(w.run)
		}
		w.done = true
	}
}

// alone runs a write by itself, and once more when the index had to be made again for it.
func (x *index) alone(run func(*txn) error) error {
	err := x.once(run)
	if isCorrupt(err) && x.mend != nil {
		if err := x.again(err); err != nil {
			return err
		}
		err = x.once(run)
	}
	return err
}

// once runs a write in a transaction. It is called with writing held.
func (x *index) once(run func(*txn) error) error {
	if x.conn == nil {
		return errClosed
	}
	ctx := context.Background() // it takes no time worth ending
	if _, err := x.conn.ExecContext(ctx, `BEGIN IMMEDIATE`); err != nil {
		return err
	}
	t := &txn{x: x, parts: map[*part][]*flight{}}
	err := run(t)
	if err == nil {
		err = t.noteSeen()
	}
	if err == nil {
		fault("index: to be committed")
		_, err = x.conn.ExecContext(ctx, `COMMIT`)
	}
	if err != nil {
		_, _ = x.conn.ExecContext(ctx, `ROLLBACK`) // SQLite has done so itself after some errors, and says then that there is none
		return err
	}
	fault("index: committed")
	for p, landed := range t.parts {
		p.land(landed)
	}
	x.apply(t.changes)
	for _, f := range t.committed {
		f()
	}
	return nil
}

// stmt prepares what is said often once for all transactions.
func (t *txn) stmt(query string) (*sql.Stmt, error) {
	s := t.x.prepared[query]
	if s == nil {
		var err error
		if s, err = t.x.conn.PrepareContext(context.Background(), query); err != nil {
			return nil, err
		}
		t.x.prepared[query] = s
	}
	return s, nil
}

func (t *txn) exec(query string, args ...any) (int, error) {
	s, err := t.stmt(query)
	if err != nil {
		return 0, err
	}
	r, err := s.Exec(args...)
	if err != nil {
		return 0, err
	}
	n, err := r.RowsAffected()
	return int(n), err
}

// one reads the only row of the answer, and says whether there is one.
func (t *txn) one(query string, args []any, into ...any) (bool, error) {
	s, err := t.stmt(query)
	if err != nil {
		return false, err
	}
	err = s.QueryRow(args...).Scan(into...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// rows calls each for every row of the answer.
func (t *txn) rows(each func(*sql.Rows) error, query string, args ...any) error {
	s, err := t.stmt(query)
	if err != nil {
		return err
	}
	r, err := s.Query(args...)
	if err != nil {
		return err
	}
	return eachRow(r, each)
}

func eachRow(r *sql.Rows, each func(*sql.Rows) error) error {
	defer r.Close()
	for r.Next() {
		if err := each(r); err != nil {
			return err
		}
	}
	return r.Err()
}

// read runs a query outside of any transaction, and once more if the index had to be made again
// for it; begin is called before either.
func (x *index) read(ctx context.Context, begin func(), each func(*sql.Rows) error, query string, args ...any) error {
	made := x.made.Load()
	begin()
	err := x.readOnce(ctx, each, query, args...)
	if !isCorrupt(err) {
		return err
	}
	x.writing.Lock()
	if x.mend != nil && made == x.made.Load() { // else another has seen to it
		err = x.again(err)
	}
	x.writing.Unlock()
	if isCorrupt(err) && made == x.made.Load() {
		return err
	}
	begin()
	return x.readOnce(ctx, each, query, args...)
}

// again makes a damaged index again. It is called with writing held.
func (x *index) again(why error) error {
	x.logger.Warn("index of the queue made again", "cause", why)
	err := x.mend()
	x.made.Add(1)
	return err
}

func (x *index) readOnce(ctx context.Context, each func(*sql.Rows) error, query string, args ...any) error {
	x.using.RLock()
	defer x.using.RUnlock()
	if x.reader == nil {
		return errClosed
	}
	r, err := x.reader.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	return eachRow(r, each)
}
