package journal

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/brasa-dev/brasa/internal/faas"
)

// What is recorded in a moment is one chunk, of however many functions it tells.
func TestOneChunkForManyFunctions(t *testing.T) {
	var acts []*faas.Activation
	for i := range 300 {
		acts = append(acts, call(time.Now(), fmt.Sprint("default/f", i%100), faas.OK))
	}
	if chunks, _, err := chunksOf(acts); err != nil || len(chunks) != 1 || len(chunks[0].functions) != 100 {
		t.Errorf("%d chunks, %v; want one of 100 functions", len(chunks), err)
	}
}

// Whatever is asked for, it is what all records would give that are looked at one by one: by pages,
// over chunks of many functions, long and short, and the calls of some far between those of others.
func TestFindAmongManyFunctions(t *testing.T) {
	e := openEngine(t, t.TempDir())
	j := openJournal(t, e)
	rnd := rand.New(rand.NewPCG(1, 2))
	began := time.Now().Add(-20 * time.Minute).Truncate(time.Millisecond)
	var all []*faas.Activation
	for range 60 {
		at := began.Add(time.Duration(rnd.IntN(1200_000)) * time.Millisecond)
		for range 1 + rnd.IntN(40) {
			function := fmt.Sprint("default/f", rnd.IntN(12))
			if rnd.IntN(60) == 0 {
				function = "default/rare"
			}
			a := call(at.Add(time.Duration(rnd.IntN(90_000))*time.Millisecond), function, faas.Code(max(rnd.IntN(40)-36, 0)))
			if rnd.IntN(3) == 0 {
				a.Namespace = "other"
			}
			if rnd.IntN(5) == 0 {
				a.Start = faas.StartPrewarmed
			}
			all = append(all, a)
			j.Record(a)
		}
		flush(t, j)
	}
	newestFirst(all)
	for i := range 300 {
		q := Query{Namespace: []string{"default", "other"}[rnd.IntN(2)], Limit: 1 + rnd.IntN(60)}
		q.Function = []string{"", "default/rare", "default/never", fmt.Sprint("default/f", rnd.IntN(12))}[rnd.IntN(4)]
		q.Outcome = []string{"", "error", "ok", faas.Code(2).String()}[rnd.IntN(4)]
		if rnd.IntN(3) == 0 {
			q.Start = faas.StartPrewarmed
		}
		if rnd.IntN(2) == 0 {
			q.Since = began.Add(time.Duration(rnd.IntN(1200_000)) * time.Millisecond)
		}
		if rnd.IntN(2) == 0 {
			q.Until = began.Add(time.Duration(rnd.IntN(1300_000)) * time.Millisecond)
		}
		var want, got []faas.ID
		for _, a := range all {
			if q.matches(a) && (q.Since.IsZero() || !a.ID.Time().Before(q.Since)) && (q.Until.IsZero() || a.ID.Time().Before(q.Until)) {
				want = append(want, a.ID)
			}
		}
		for page := q; ; {
			found, cursor, err := j.Find(t.Context(), page)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, ids(found)...)
			if page.Cursor = cursor; cursor == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("query %d, %+v: found %d, want %d", i, q, len(got), len(want))
		}
	}
	for _, a := range all {
		if got, err := j.Get(t.Context(), a.Namespace, a.ID); err != nil || got.Function != a.Function {
			t.Fatalf("get %s of %s: %v, %v", a.ID, a.Function, got, err)
		}
	}
}

// No search reads a whole file or sorts it.
func TestSearchesUseIndexes(t *testing.T) {
	e := openEngine(t, t.TempDir())
	j := openJournal(t, e)
	j.Record(call(time.Now(), "default/f", faas.OK))
	flush(t, j)
	db := j.index.files[0].db
	for _, q := range []Query{{}, {Outcome: "error"}, {Function: "default/f"}, {Function: "default/f", Outcome: "error"}} {
		q.Namespace = "default"
		from, to, err := q.span()
		if err != nil {
			t.Fatal(err)
		}
		query, args := q.statement(from, to)
		if plan := planOf(t, db, query, args...); strings.Contains(plan, "TEMP B-TREE") || strings.Contains(plan, "SCAN") {
			t.Errorf("%+v:\n%s", q, plan)
		}
	}
}

func planOf(t *testing.T, db *sql.DB, query string, args ...any) string {
	t.Helper()
	rows, err := db.Query(`EXPLAIN QUERY PLAN `+query, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var plan []string
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		plan = append(plan, detail)
	}
	return strings.Join(plan, "\n")
}

// testdata/message-1 was written by the version before: chunks of one function each. A folder with
// such messages, and an index of that time, opens, and everything is found.
func TestFormBefore(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, filepath.Join(dir, "stream"))
	first := openJournal(t, e, func(c *Config) { c.Dir = filepath.Join(dir, "other") }) // makes the stream
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	message, err := os.ReadFile("testdata/message-1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.JetStream().PublishMsg(context.Background(), &nats.Msg{Subject: chunkSubject, Data: message}); err != nil {
		t.Fatal(err)
	}
	index := filepath.Join(dir, "index")
	if err := os.MkdirAll(index, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(index, manifestName), []byte(`{"files":["20261123-00.db"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", filepath.Join(index, "20261123-00.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`CREATE TABLE chunk (seq INTEGER, part INTEGER, function TEXT); INSERT INTO chunk VALUES (1, 0, 'f'); PRAGMA user_version = 2`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	j := openJournal(t, e, func(c *Config) { c.Dir = index })
	for function, want := range map[string]int{"": 40, "default/f0": 14, "default/f1": 13, "default/f2": 13} {
		found, _, err := j.Find(t.Context(), Query{Namespace: "default", Function: function})
		if err != nil || len(found) != want {
			t.Errorf("%d of %q found, %v; want %d", len(found), function, err, want)
		}
		for _, a := range found {
			if !strings.HasPrefix(texts(a.Logs), "line ") || function != "" && a.Function != function {
				t.Errorf("%s of %q has the log %q", a.ID, a.Function, texts(a.Logs))
			}
		}
	}
	if found, _, err := j.Find(t.Context(), Query{Namespace: "default", Function: "default/f1", Outcome: "error"}); err != nil || len(found) != 7 {
		t.Errorf("%d of f1 found that are not ok, %v; want 7", len(found), err)
	}
}

// A batch is what comes in twenty milliseconds of five thousand calls a second.
func BenchmarkWriteMany(b *testing.B) {
	for _, functions := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(functions, " functions"), func(b *testing.B) {
			j := openJournal(b, openEngine(b, b.TempDir()))
			n := 0
			for b.Loop() {
				for range 100 {
					j.Record(call(time.Now(), fmt.Sprint("default/f", n*7919%functions), faas.OK))
					n++
				}
				j.drain()
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(n), "µs/record")
		})
	}
}
