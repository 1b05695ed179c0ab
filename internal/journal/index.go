package journal

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// index is a directory of SQLite files. Each holds records of calls that began on one day (UTC),
// so that the day of an ID tells where to look and old days are dropped by the file: deleting
// 200,000 rows takes 4 s, deleting a file none. A file that is large enough is followed by
// another of the same day.
type index struct {
	dir     string
	maxFile int64
	logger  *slog.Logger

	mu    sync.RWMutex // held for reading while files are in use, for writing while they come and go
	files []*file      // guarded by mu; oldest first
}

// file is one SQLite file.
type file struct {
	name string // 20261123-00.db
	db   *sql.DB
	size int64       // guarded by Journal.write; of the file, now and then
	late atomic.Bool // it has calls with IDs of an earlier day

	// What the writer says with every batch; closed with db.
	chunk, call, log, note *sql.Stmt

	told map[calledIn]bool // what is in called for certain, true if as bad; guarded by Journal.write
}

// ready prepares the writer's statements.
func (f *file) ready() (err error) {
	for _, s := range []struct {
		to  **sql.Stmt
		sql string
	}{
		{&f.chunk, `INSERT OR IGNORE INTO chunk VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`},
		{&f.call, `INSERT INTO called VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET bad = max(bad, excluded.bad)`},
		{&f.log, `INSERT OR REPLACE INTO log VALUES (?, ?, ?)`},
		{&f.note, `INSERT INTO state VALUES (?, ?), (?, ?) ON CONFLICT DO UPDATE SET value = max(value, excluded.value)`},
	} {
		if *s.to, err = f.db.Prepare(s.sql); err != nil {
			return err
		}
	}
	return nil
}

func (f *file) day() string { return f.name[:8] }

const (
	manifestName = "manifest"
	// The index is dropped by the file, so it is made of at least this many once it is full.
	filesToDrop = 8
)

// schemaVersion is raised with every change of schema; a file of another version is made again
// from the stream.
const schemaVersion = 3

const schema = `
CREATE TABLE IF NOT EXISTS chunk (
	seq       INTEGER NOT NULL, -- of its message in the stream; negative: it is in none
	part      INTEGER NOT NULL, -- its place in the message
	namespace TEXT NOT NULL,
	slot      INTEGER NOT NULL, -- of high
	low       BLOB NOT NULL,    -- 16 bytes, in the order of time
	high      BLOB NOT NULL,
	bad       INTEGER NOT NULL, -- how many records are not ok
	head      BLOB NOT NULL,
	data      BLOB NOT NULL,    -- zstd
	PRIMARY KEY (seq, part)
);
CREATE INDEX IF NOT EXISTS by_namespace ON chunk (namespace, slot, high);
CREATE INDEX IF NOT EXISTS not_ok       ON chunk (namespace, slot, high) WHERE bad > 0;
CREATE TABLE IF NOT EXISTS called (
	namespace TEXT NOT NULL,
	function  TEXT NOT NULL,
	slot      INTEGER NOT NULL, -- of a chunk with a call of it
	bad       INTEGER NOT NULL, -- 1 if one of its calls there is not ok
	PRIMARY KEY (namespace, function, slot)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS log (
	id   BLOB NOT NULL,
	part INTEGER NOT NULL, -- from 1; what comes before lies with the record
	data BLOB NOT NULL,    -- zstd of JSON lines
	PRIMARY KEY (id, part)
);
CREATE TABLE IF NOT EXISTS state (
	key   TEXT PRIMARY KEY,
	value INTEGER NOT NULL
);
`

type manifest struct {
	Files []string `json:"files"`
}

// openIndex opens the files that there should be. Those that are missing or damaged are begun
// anew and returned by their absence from state: see Journal.catchUp.
func openIndex(dir string, maxFile int64, logger *slog.Logger) (*index, error) {
	x := &index{dir: dir, maxFile: maxFile, logger: logger}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var m manifest
	b, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		logger.Warn("index begun anew", "cause", err)
		m = manifest{}
	}
	// What the manifest does not name was about to be dropped, or is of an index that is lost.
	found, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range found {
		name, _, _ := strings.Cut(e.Name(), ".db")
		if strings.Contains(e.Name(), ".db") && !slices.Contains(m.Files, name+".db") {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return nil, err
			}
		}
	}
	slices.Sort(m.Files) // they were made in whatever order records came
	for _, name := range m.Files {
		f, err := x.openFile(name)
		if err != nil {
			return nil, errors.Join(err, x.close())
		}
		x.files = append(x.files, f)
	}
	return x, nil
}

// openFile opens or makes a file. One that SQLite cannot read is replaced by an empty one.
func (x *index) openFile(name string) (*file, error) {
	path := filepath.Join(x.dir, name)
	dsn := (&url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: url.Values{
		"_pragma": {"journal_mode(WAL)", "synchronous(NORMAL)", "busy_timeout(10000)", "cache_size(-8000)", "wal_autocheckpoint(4000)"},
		"_txlock": {"immediate"},
	}.Encode()}).String()
	for again := false; ; again = true {
		db, err := sql.Open("sqlite", dsn)
		if err != nil {
			return nil, err
		}
		db.SetMaxOpenConns(4)
		db.SetMaxIdleConns(2)
		// Each connection keeps up to 8 MB of the file, of which a full one has no more use; its log goes too.
		db.SetConnMaxIdleTime(time.Minute)
		f := &file{name: name, db: db}
		if err = prepare(db); err == nil {
			err = f.ready()
		}
		if err == nil {
			var late uint64
			late, err = f.state(context.Background(), "late") // as the files are opened, there is nobody to wait for
			f.late.Store(late > 0)
		}
		if err == nil {
			return f, nil
		}
		err = errors.Join(fmt.Errorf("open index file %q: %w", name, err), db.Close())
		if again || !isCorrupt(err) && !errors.Is(err, errSchema) {
			return nil, err
		}
		x.logger.Warn("index file begun anew", "file", name, "cause", err)
		if err := removeFile(path); err != nil {
			return nil, err
		}
	}
}

var errSchema = errors.New("it has the form of another version")

// prepare makes the tables of a new file.
func prepare(db *sql.DB) error {
	var version, tables int
	if err := db.QueryRow(`SELECT user_version, (SELECT count(*) FROM sqlite_master) FROM pragma_user_version`).Scan(&version, &tables); err != nil {
		return err
	}
	if version != schemaVersion && tables > 0 {
		return errSchema
	}
	_, err := db.Exec(fmt.Sprintf("BEGIN IMMEDIATE; %s PRAGMA user_version = %d; COMMIT;", schema, schemaVersion))
	return err
}

func removeFile(path string) error {
	var errs []error
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
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

// fileError is what went wrong with a file.
type fileError struct {
	file *file
	op   string
	err  error
}

func (e *fileError) Error() string {
	return fmt.Sprintf("%s index file %q: %v", e.op, e.file.name, e.err)
}
func (e *fileError) Unwrap() error { return e.err }

// damagedDay returns the day whose file SQLite found to be damaged, if that is what err says.
func damagedDay(err error) string {
	if e, ok := errors.AsType[*fileError](err); ok && isCorrupt(e) {
		return e.file.day()
	}
	return ""
}

func (x *index) close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	var errs []error
	for _, f := range x.files {
		errs = append(errs, f.db.Close())
	}
	x.files = nil
	return errors.Join(errs...)
}

// dayOf returns the day of a call as files are named.
func dayOf(id faas.ID) string { return id.Time().UTC().Format("20060102") }

// blob returns the ID as it lies in the index; its order is that of the IDs.
func blob(id faas.ID) []byte {
	b, _ := hex.DecodeString(string(id)) // an ID was parsed or made by us
	return b
}

// fileFor returns the file that takes new records of a day. It is called by the writer alone.
func (x *index) fileFor(day string) (*file, error) {
	x.mu.RLock()
	var last *file
	for _, f := range x.files {
		if f.day() == day {
			last = f
		}
	}
	x.mu.RUnlock()
	number := 0
	if last != nil {
		if last.size < x.maxFile {
			return last, nil
		}
		if _, err := fmt.Sscanf(last.name[9:], "%d", &number); err != nil {
			return nil, fmt.Errorf("index file %q: %w", last.name, err)
		}
		number++
	}
	name := fmt.Sprintf("%s-%02d.db", day, number)
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.saveManifest(append(x.names(), name)); err != nil {
		return nil, err
	}
	f, err := x.openFile(name)
	if err != nil {
		return nil, err
	}
	x.files = append(x.files, f)
	slices.SortFunc(x.files, func(a, b *file) int { return strings.Compare(a.name, b.name) })
	return f, nil
}

// names is called with mu held.
func (x *index) names() []string {
	var out []string
	for _, f := range x.files {
		out = append(out, f.name)
	}
	return out
}

// saveManifest is called with mu held for writing, before a file is made and before one is removed.
func (x *index) saveManifest(names []string) error {
	b, err := json.Marshal(manifest{Files: names})
	if err != nil {
		return err
	}
	return store.WriteFile(filepath.Join(x.dir, manifestName), b, 0o600)
}

func (x *index) sizeOf(f *file) int64 {
	size := int64(0)
	for _, suffix := range []string{"", "-wal"} {
		if info, err := os.Stat(filepath.Join(x.dir, f.name+suffix)); err == nil {
			size += info.Size()
		}
	}
	return size
}

// state returns what the file notes of the stream: as "last" the greatest sequence that it has
// seen, as "begun" the lowest of the batch that it saw last, as "first" the same of the first; 0 for a
// new file.
func (f *file) state(ctx context.Context, key string) (uint64, error) {
	var v int64
	err := f.db.QueryRowContext(ctx, `SELECT value FROM state WHERE key = ?`, key).Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, &fileError{f, "read", err}
	}
	return uint64(v), nil
}

// drop removes files. What is reading them is waited for.
func (x *index) drop(names ...string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	keep := slices.DeleteFunc(x.names(), func(n string) bool { return slices.Contains(names, n) })
	if err := x.saveManifest(keep); err != nil {
		return err
	}
	fault("index: manifest without the file")
	var errs []error
	x.files = slices.DeleteFunc(x.files, func(f *file) bool {
		if !slices.Contains(names, f.name) {
			return false
		}
		errs = append(errs, f.db.Close(), removeFile(filepath.Join(x.dir, f.name)))
		return true
	})
	return errors.Join(errs...)
}

// lowest and highest return the bounds of the IDs of calls that began at a time.
func lowest(t time.Time) []byte {
	b := make([]byte, 16)
	ms := uint64(max(t.UnixMilli(), 0))
	for i := range 6 {
		b[i] = byte(ms >> (40 - 8*i))
	}
	return b
}
