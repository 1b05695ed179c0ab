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

	writes   group[*write]
	writing  sync.Mutex           // one transaction at a time
	writer   *sql.DB              // guarded by writing; of one connection
	conn     *sql.Conn            // guarded by writing; that connection
	prepared map[string]*sql.Stmt // guarded by writing; on that connection

	using  sync.RWMutex // held for reading while reader is used, for writing while the file is replaced
	reader *sql.DB      // guarded by using

	// mend makes a damaged index again; it is called with writing held, and may run writes by once.
	mend func() error
	made atomic.Uint64 // how often

	whole bool // guarded by writing; all that it has seen of the streams is there
}

type write struct {
	run func(*txn) error
	err error
}

// schemaVersion is raised with every change of schema; a file of another version is made again.
const schemaVersion = 2

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
	why     TEXT,
	owner   TEXT
);
CREATE UNIQUE INDEX letter_by_id ON letter (fn, id);
CREATE INDEX letter_by_turn ON letter (fn, state, rank);
CREATE INDEX letter_by_due ON letter (due) WHERE state = 1;
CREATE INDEX letter_by_line ON letter (fn, line) WHERE line IS NOT NULL;
CREATE INDEX letter_head ON letter (fn, line) WHERE line IS NOT NULL AND state <> 2;
CREATE INDEX letter_by_owner ON letter (owner) WHERE owner IS NOT NULL;
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

func eachRow(r *sql.Rows, each func(*sql.Rows) error) error {
	defer r.Close()
	for r.Next() {
		if err := each(r); err != nil {
			return err
		}
	}
	return r.Err()
}
