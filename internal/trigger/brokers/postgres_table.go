package brokers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger"
)

// postgresTable tells of rows of a table, as of an outbox. A row is deleted, or marked as done, when
// its functions have succeeded, or were given up and lie with the dead letters.
//
// Whose row it is until then is told by an advisory lock of the session. It needs no column of its
// own and no transaction that stays open, which would keep the server from clearing up for as long
// as a function runs; it is gone at once when the session is, and servers that share a table pass by
// each other's rows.
type postgresTable struct {
	o      trigger.Outside
	config postgresConfig
}

// postgresRun is a source at work.
type postgresRun struct {
	*postgresTable
	fire   trigger.Fire
	sql    postgresSQL
	wake   chan struct{} // holds a token when there may be rows
	slots  chan struct{} // holds one for each row under way
	failed chan error
	work   sync.WaitGroup

	db   sync.Mutex // held while conn is used
	conn *pgx.Conn  // guarded by db

	mu   sync.Mutex
	busy map[string]bool // guarded by mu; the IDs of rows under way
}

// Run implements Source.
func (s *postgresTable) Run(ctx context.Context, fire trigger.Fire) error {
	c := &s.config
	conn, err := c.connect(ctx, s.o, "")
	if err != nil {
		return err
	}
	defer closePostgres(conn)
	r := &postgresRun{
		postgresTable: s, fire: fire, conn: conn, wake: make(chan struct{}, 1), slots: make(chan struct{}, c.Parallel), failed: make(chan error, 1),
		busy: map[string]bool{},
	}
	looked, done := context.WithTimeout(ctx, postgresConnect)
	err = r.sql.prepare(looked, c, conn)
	done()
	if err != nil {
		return fmt.Errorf("table %q: %w", c.Table, c.explain(err))
	}
	ctx, cancel := context.WithCancel(ctx)
	r.work.Go(func() { r.fail(ctx, r.claim(ctx)) })
	if c.Channel != "" {
		r.work.Go(func() {
			r.fail(ctx, c.listen(ctx, s.o, r.look, func(*pgconn.Notification) { r.look() }))
		})
	}
	select {
	case <-ctx.Done():
		err = nil
	case err = <-r.failed:
	}
	cancel()
	r.work.Wait()
	if err != nil {
		return fmt.Errorf("table %q: %w", c.Table, c.explain(err))
	}
	return nil
}

// fail ends the run with an error.
func (r *postgresRun) fail(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	select {
	case r.failed <- err:
	default:
	}
}

// look has the table looked at.
func (r *postgresRun) look() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

const postgresBatch = 100 // rows that are claimed with a statement

// claim claims rows and has them worked on, until ctx ends.
func (r *postgresRun) claim(ctx context.Context) error {
	tick := time.NewTicker(r.config.Poll.D())
	defer tick.Stop()
	for {
		n := 0
		select {
		case r.slots <- struct{}{}:
			n++
		case <-ctx.Done():
			return nil
		}
		for free := true; free && n < postgresBatch; {
			select {
			case r.slots <- struct{}{}:
				n++
			default:
				free = false
			}
		}
		rows, err := r.lock(ctx, n)
		if err != nil {
			return err
		}
		for _, row := range rows {
			r.work.Go(func() {
				r.fail(ctx, r.row(ctx, row))
				r.mu.Lock()
				delete(r.busy, row.id)
				r.mu.Unlock()
				<-r.slots
			})
		}
		for range n - len(rows) {
			<-r.slots
		}
		if len(rows) == n {
			continue // there may be more
		}
		select {
		case <-r.wake:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// postgresRow is a row that is claimed: its ID and its lock.
type postgresRow struct {
	id  string
	key int64
}

// lock claims at most n rows.
func (r *postgresRun) lock(ctx context.Context, n int) ([]postgresRow, error) {
	r.mu.Lock()
	busy := make([]string, 0, len(r.busy))
	for id := range r.busy {
		busy = append(busy, id)
	}
	r.mu.Unlock()
	r.db.Lock()
	defer r.db.Unlock()
	found, err := r.conn.Query(ctx, r.sql.claim, busy, n)
	if err != nil {
		return nil, err
	}
	rows, err := pgx.CollectRows(found, func(row pgx.CollectableRow) (p postgresRow, err error) {
		return p, row.Scan(&p.id, &p.key)
	})
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range rows {
		r.busy[row.id] = true
	}
	return rows, nil
}

// row has the functions of a row called and settles it. An error ends the run, and with it the
// session and all that it has claimed.
func (r *postgresRun) row(ctx context.Context, row postgresRow) error {
	var data []byte
	var size int64
	err := r.ask(func() error { return r.conn.QueryRow(ctx, r.sql.read, row.id).Scan(&data, &size) })
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		// Somebody else had finished it between our look at the table and our claim.
		return r.release(ctx, row)
	case err != nil:
		return err
	case size > int64(trigger.MaxData):
		r.o.PassOver(1, "a row is passed by: it is too large for an event", "table", r.config.Table, "row", row.id, "size", faas.Bytes(size), "most", trigger.MaxData)
	default:
		e := faas.Event{
			ID: r.config.Table + "/" + row.id, Source: r.config.URL, Type: "brasa.postgres.row", Subject: r.config.Table, Time: r.o.Now(), Data: data,
		}
		e.ContentType = contentTypeOf(bytes.TrimSpace(data))
		if _, err := trigger.Settle(ctx, r.o, r.fire, e); err != nil {
			return nil // it stays as it is
		}
	}
	err = r.ask(func() error {
		_, err := r.conn.Exec(ctx, r.sql.settle, row.id)
		return err
	})
	if err != nil {
		return err
	}
	return r.release(ctx, row) // not before others can see that it is done
}

func (r *postgresRun) release(ctx context.Context, row postgresRow) error {
	return r.ask(func() error {
		_, err := r.conn.Exec(ctx, "SELECT pg_advisory_unlock($1)", row.key)
		return err
	})
}

// ask uses the connection.
func (r *postgresRun) ask(do func() error) error {
	r.db.Lock()
	defer r.db.Unlock()
	return do()
}

// postgresSQL are the statements for a table.
type postgresSQL struct{ claim, read, settle string }

// prepare looks at the table and says what does not fit.
func (q *postgresSQL) prepare(ctx context.Context, c *postgresConfig, conn *pgx.Conn) error {
	table := pgx.Identifier(strings.Split(c.Table, ".")).Sanitize()
	var oid uint32
	var kind string
	err := conn.QueryRow(ctx, "SELECT oid, relkind::text FROM pg_class WHERE oid = to_regclass($1)", table).Scan(&oid, &kind)
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("there is none in the database %q, or not for this user; the field table is NAME or SCHEMA.NAME", c.database)
	}
	if err != nil {
		return err
	}
	if kind != "r" && kind != "p" {
		return errors.New("it is no table of its own (a view, perhaps); the field table has to name one")
	}
	rows, err := conn.Query(ctx, "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped", oid)
	if err != nil {
		return err
	}
	types := map[string]string{}
	var name, kindOf string
	if _, err := pgx.ForEachRow(rows, []any{&name, &kindOf}, func() error { types[name] = kindOf; return nil }); err != nil {
		return err
	}
	for _, f := range []struct{ field, column string }{{"id", c.ID}, {"payload", c.Payload}, {"order", c.Order}, {"done", c.Done}} {
		if f.column != "" && types[f.column] == "" {
			return fmt.Errorf("it has no column %q, which the field %s names", f.column, f.field)
		}
	}
	var unique, may bool
	right, rightName := "has_table_privilege($1::oid, 'SELECT') AND has_table_privilege($1::oid, 'DELETE') AND $2::text IS NOT NULL", "DELETE"
	if c.Done != "" {
		right, rightName = "has_table_privilege($1::oid, 'SELECT') AND has_column_privilege($1::oid, $2::text, 'UPDATE')", "UPDATE"
	}
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] "+
		"WHERE i.indrelid = $1::oid AND i.indisunique AND i.indnkeyatts = 1 AND i.indpred IS NULL AND i.indexprs IS NULL AND a.attname = $3), "+right,
		oid, c.Done, c.ID).Scan(&unique, &may)
	if err != nil {
		return err
	}
	if !unique {
		return fmt.Errorf("its column %q, which the field id names, may hold a value twice; it needs a primary key or a unique index", c.ID)
	}
	if !may {
		return fmt.Errorf("the user may not use it as it has to; grant SELECT and %s", rightName)
	}
	return q.write(c, table, oid, types)
}

func (q *postgresSQL) write(c *postgresConfig, table string, oid uint32, types map[string]string) error {
	column := func(name string) string { return "t." + pgx.Identifier{name}.Sanitize() }
	id, one := column(c.ID), column(c.ID)+" = $1::text::"+types[c.ID]
	waiting := id + " IS NOT NULL"
	q.settle = "DELETE FROM " + table + " AS t WHERE " + one
	if c.Done != "" {
		mark := ""
		switch kind := types[c.Done]; {
		case kind == "boolean":
			mark, waiting = "true", waiting+" AND "+column(c.Done)+" IS NOT TRUE"
		case strings.HasPrefix(kind, "timestamp"):
			mark, waiting = "now()", waiting+" AND "+column(c.Done)+" IS NULL"
		default:
			return fmt.Errorf("its column %q, which the field done names, is of type %s; it has to be boolean or a timestamp", c.Done, kind)
		}
		q.settle = "UPDATE " + table + " AS t SET " + pgx.Identifier{c.Done}.Sanitize() + " = " + mark + " WHERE " + one
	}
	// OFFSET 0 keeps the server from taking the inner query apart: locks are asked for row by row, in
	// order, and no more of them than there is room for.
	q.claim = fmt.Sprintf("SELECT id, key FROM (SELECT %[1]s::text AS id, hashtextextended('%[2]d/' || %[1]s::text, 0) AS key FROM %[3]s AS t "+
		"WHERE %[4]s AND NOT (%[1]s::text = ANY ($1::text[])) ORDER BY %[5]s OFFSET 0) AS c WHERE pg_try_advisory_lock(key) LIMIT $2",
		id, oid, table, waiting, column(c.Order))
	data := ""
	switch kind := types[c.Payload]; {
	case c.Payload == "":
		data = "convert_to(row_to_json(t)::text, 'UTF8')"
	case kind == "bytea":
		data = column(c.Payload)
	case kind == "text" || kind == "json" || kind == "jsonb" || strings.HasPrefix(kind, "character"):
		data = "convert_to(" + column(c.Payload) + "::text, 'UTF8')"
	default:
		data = "convert_to(to_json(" + column(c.Payload) + ")::text, 'UTF8')"
	}
	q.read = fmt.Sprintf("SELECT CASE WHEN octet_length(data) <= %d THEN data END, coalesce(octet_length(data), 0) FROM (SELECT %s AS data FROM %s AS t WHERE %s AND %s OFFSET 0) AS c",
		trigger.MaxData, data, table, one, waiting)
	return nil
}
