package brokers_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger/brokers"
	"github.com/brasa-dev/brasa/internal/trigger/triggertest"
)

func postgresHouse(t testing.TB) *triggertest.House {
	h := triggertest.Open(t, brokers.Kinds()...)
	h.Secret("LOGIN", "ada:s3cret")
	return h
}

func TestWhatPostgresCannotBeAskedIsRefused(t *testing.T) {
	wantRefused(t, []refused{
		{"postgres", `{}`, "url is missing"},
		{"postgres", `{"url":"mysql://x/d","table":"a"}`, "postgres://HOST:PORT/DATABASE"},
		{"postgres", `{"url":"postgres://u:p4ss@x/d","table":"a"}`, "the field secret"},
		{"postgres", `{"url":"postgres://u:p4ss@x:one/d","table":"a"}`, "url"},
		{"postgres", `{"url":"postgres://x/d?password=p4ss","table":"a"}`, "sslmode"},
		{"postgres", `{"url":"postgres://x/d?sslrootcert=/etc/passwd","table":"a"}`, "sslmode"},
		{"postgres", `{"url":"postgres://x/d?sslmode=prefer","table":"a"}`, "verify-full"},
		{"postgres", `{"url":"postgres://%2Fvar%2Frun/d","table":"a"}`, "postgres://HOST:PORT/DATABASE"},
		{"postgres", `{"url":"postgres:///d?host=/var/run","table":"a"}`, "postgres://HOST:PORT/DATABASE"},
		{"postgres", `{"url":"postgres://x,y/d","table":"a"}`, "postgres://HOST:PORT/DATABASE"},
		{"postgres", `{"url":"postgres://x","table":"a"}`, "no database"},
		{"postgres", `{"url":"postgres://x/d"}`, "table and channel are missing"},
		{"postgres", `{"url":"postgres://x/d","table":"a.b.c"}`, "SCHEMA.NAME"},
		{"postgres", `{"url":"postgres://x/d","channel":"a","done":"b"}`, "table is missing"},
		{"postgres", `{"url":"postgres://x/d","channel":"` + strings.Repeat("x", 64) + `"}`, "63 bytes"},
		{"postgres", `{"url":"postgres://x/d","table":"a","parallel":5000}`, "parallel"},
		{"postgres", `{"url":"postgres://x/d","table":"a","poll_ms":1}`, "poll_ms"},
		{"postgres", `{"url":"postgres://x/d","table":"a","ca":"no"}`, "PEM"},
	})
}

func TestPostgresConnectsThroughTheGuard(t *testing.T) {
	t.Setenv("PGHOST", "127.0.0.9")
	t.Setenv("PGPASSWORD", "p4ss")
	wantDialed(t, "postgres", `{"url":"postgres://10.1.2.3/d","table":"a","secret":"S"}`, "10.1.2.3:5432")
	wantDialed(t, "postgres", `{"url":"postgres://db.example:1234/d","channel":"a","secret":"S"}`, "db.example:1234")
}

func TestPostgresNotifications(t *testing.T) {
	d := newPostgresDB(t)
	h := postgresHouse(t)
	h.Run()
	h.Trigger("t", "postgres", d.config("channel", `Or"ders`), "LOGIN")
	triggertest.Until(t, "somebody listens", func() bool {
		return d.number(`SELECT count(*) FROM pg_stat_activity WHERE application_name = 'brasa trigger t, listening' AND state = 'idle' AND query LIKE 'LISTEN%'`) == 1
	})
	d.do(`SELECT pg_notify('Or"ders', '{"n":1}')`)
	triggertest.Until(t, "a call", func() bool { return len(h.Node.Calls()) == 1 })
	if c := h.Node.Calls()[0]; c.Body != `{"n":1}` || c.Header["Ce-Subject"][0] != `Or%22ders` || c.Header["Ce-Type"][0] != "brasa.postgres.notification" {
		t.Errorf("got %+v", c)
	}
}

// Rows are deleted when the functions have done their work, and not before.
func TestPostgresTable(t *testing.T) {
	d := newPostgresDB(t)
	h := postgresHouse(t)
	release := make(chan struct{})
	h.Node.Do(func(c triggertest.Call) error {
		<-release
		if c.Attempt == 1 && c.Body == `{"n": 2}` {
			return &faas.Error{Code: faas.Failed, Op: "run", Err: errors.New("not today")}
		}
		return nil
	})
	d.do(`CREATE SCHEMA "my shop"; CREATE TABLE "my shop"."out""box" ("the id" uuid PRIMARY KEY DEFAULT gen_random_uuid(), "at" serial, body jsonb)`)
	d.do(`INSERT INTO "my shop"."out""box" (body) SELECT jsonb_build_object('n', n) FROM generate_series(1, 3) n`)
	h.Run()
	h.Trigger("t", "postgres", d.config("table", `my shop.out"box`, "id", "the id", "payload", "body", "order", "at", "channel", "woken", "poll_ms", 3600000), "LOGIN")
	triggertest.Until(t, "three calls", func() bool { return len(h.Node.Calls()) >= 3 })
	d.do(`INSERT INTO "my shop"."out""box" (body) VALUES ('{"n": 4}'); NOTIFY woken`)
	triggertest.Until(t, "a call for the row that was notified", func() bool { return len(h.Node.Calls()) >= 4 })
	if n := d.number(`SELECT count(*) FROM "my shop"."out""box"`); n != 4 {
		t.Errorf("%d rows are there while the functions work, want 4", n)
	}
	close(release)
	triggertest.Until(t, "all rows deleted", func() bool { return d.number(`SELECT count(*) FROM "my shop"."out""box"`) == 0 })
	if times := bodies(h.Node.Calls()); times[`{"n": 1}`] != 1 || times[`{"n": 3}`] != 1 || times[`{"n": 4}`] != 1 || times[`{"n": 2}`] != 2 || len(times) != 4 {
		t.Errorf("calls: %v, want one of each row, and two of the one that failed", times)
	}
	triggertest.Until(t, "no claim is left", func() bool {
		return d.number(`SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`) == 0
	})
}

// Rows may be marked instead, and told as they are.
func TestPostgresRowsThatAreMarked(t *testing.T) {
	d := newPostgresDB(t)
	h := postgresHouse(t)
	d.do(`CREATE TABLE a (id int PRIMARY KEY, word text, done timestamptz); INSERT INTO a VALUES (1, 'one', NULL), (2, 'two', now())`)
	d.do(`CREATE TABLE b (id int PRIMARY KEY, data bytea, done boolean); INSERT INTO b VALUES (1, '\x00ff', NULL), (2, '{}', false), (3, '{}', true), (4, NULL, NULL)`)
	d.do(`INSERT INTO b VALUES (5, convert_to(repeat('x', 9 * 1024 * 1024), 'UTF8'), NULL)`)
	h.Run()
	h.Trigger("a", "postgres", d.config("table", "a", "done", "done"), "LOGIN")
	h.Trigger("b", "postgres", d.config("table", "public.b", "payload", "data", "done", "done"), "LOGIN")
	triggertest.Until(t, "all rows marked", func() bool {
		return d.number(`SELECT (SELECT count(*) FROM a WHERE done IS NULL) + (SELECT count(*) FROM b WHERE done IS NOT TRUE)`) == 0
	})
	got := map[string]string{}
	for _, c := range h.Node.Calls() {
		got[c.Header["Ce-Id"][0]] += c.Body + "."
	}
	if got["a/1"] != `{"id":1,"word":"one","done":null}.` || got["public.b/1"] != "\x00\xff." || got["public.b/2"] != "{}." || got["public.b/4"] != "." || len(got) != 4 {
		t.Errorf("calls: %q; want each row once that was not done and is not too large", got)
	}
	wantPassed(t, h, "b", 1, "row 5")
}

// Servers that share a table pass by each other's rows; what one that died had is taken at once.
func TestPostgresServersShareATable(t *testing.T) {
	d := newPostgresDB(t)
	d.do(`CREATE TABLE q (id bigserial PRIMARY KEY, payload text)`)
	d.do(`INSERT INTO q (payload) SELECT n::text FROM generate_series(1, 300) n`)
	var houses []*triggertest.House
	hold := make(chan struct{})
	for range 3 {
		h := postgresHouse(t)
		h.Node.Do(func(triggertest.Call) error { <-hold; return nil })
		stop := h.Run()
		h.Trigger("t", "postgres", d.config("table", "q", "payload", "payload", "parallel", 10, "poll_ms", 100), "LOGIN")
		houses = append(houses, h)
		triggertest.Until(t, "its calls", func() bool { return len(h.Node.Calls()) == 10 })
		if len(houses) == 1 {
			stop() // it is gone, and its calls with it as far as the others know
		}
	}
	close(hold)
	triggertest.Until(t, "all rows deleted", func() bool { return d.number(`SELECT count(*) FROM q`) == 0 })
	times := bodies(append(houses[1].Node.Calls(), houses[2].Node.Calls()...))
	for n := 1; n <= 300; n++ {
		if times[fmt.Sprint(n)] != 1 {
			t.Errorf("row %d was told %d times by those that live, want once", n, times[fmt.Sprint(n)])
		}
	}
	for body, n := range bodies(houses[0].Node.Calls()) {
		if n != 1 || times[body] != 1 {
			t.Errorf("row %s was told %d and %d times", body, n, times[body])
		}
	}
}

// A manager that is ended in the middle of work finds it again, makes no second call, and loses
// nothing.
func TestPostgresAndAManagerThatIsEnded(t *testing.T) {
	d := newPostgresDB(t)
	d.do(`CREATE TABLE q (id int PRIMARY KEY, payload int)`)
	d.do(`INSERT INTO q SELECT n, n FROM generate_series(1, 20) n`)
	h := postgresHouse(t)
	release := make(chan struct{})
	h.Node.Do(func(triggertest.Call) error { <-release; return nil })
	stop := h.Run()
	h.Trigger("t", "postgres", d.config("table", "q", "payload", "payload", "parallel", 4), "LOGIN")
	triggertest.Until(t, "four calls", func() bool { return len(h.Node.Calls()) == 4 })
	stop()
	if n := d.number(`SELECT count(*) FROM q`); n != 20 {
		t.Errorf("%d rows are there, want all: no function has ended", n)
	}
	h.Run()
	close(release)
	triggertest.Until(t, "all rows deleted", func() bool { return d.number(`SELECT count(*) FROM q`) == 0 })
	times := bodies(h.Node.Calls())
	for n := 1; n <= 20; n++ {
		if times[fmt.Sprint(n)] != 1 {
			t.Errorf("row %d was told %d times, want once", n, times[fmt.Sprint(n)])
		}
	}
}

func TestPostgresServerThatGoesAwayAndComesBack(t *testing.T) {
	d := newPostgresDB(t)
	d.do(`CREATE TABLE q (id int PRIMARY KEY, payload int); INSERT INTO q VALUES (1, 1)`)
	h := postgresHouse(t)
	release := make(chan struct{})
	h.Node.Do(func(triggertest.Call) error { <-release; return nil })
	h.Run()
	h.Trigger("t", "postgres", d.config("table", "q", "payload", "payload", "poll_ms", 100), "LOGIN")
	h.Trigger("n", "postgres", d.config("channel", "c"), "LOGIN")
	triggertest.Until(t, "the first call", func() bool { return len(h.Node.Calls()) == 1 })
	d.server.kill()
	wantStatus(t, h, "t", d.server.port)
	wantStatus(t, h, "n", d.server.port)
	d.server.again(t)
	close(release)
	triggertest.Until(t, "the first row deleted", func() bool { return d.number(`SELECT count(*) FROM q`) == 0 })
	d.do(`INSERT INTO q VALUES (2, 2)`)
	triggertest.Until(t, "the second row deleted", func() bool { return d.number(`SELECT count(*) FROM q`) == 0 })
	triggertest.Until(t, "a notification", func() bool {
		d.do(`NOTIFY c, 'hello'`)
		return bodies(h.Node.Calls())["hello"] > 0
	})
	if times := bodies(h.Node.Calls()); times["1"] != 1 || times["2"] != 1 {
		t.Errorf("calls: %v, want each row once", times)
	}
	for _, name := range []string{"t", "n"} {
		triggertest.Until(t, "a status without an error", func() bool {
			status := h.Manager.Status(catalog.DefaultNamespace, name)
			return status.Running && status.Error == ""
		})
	}
}

func TestPostgresThatRefuses(t *testing.T) {
	d := newPostgresDB(t)
	d.do(`CREATE TABLE q (id int, payload int, at text); CREATE TABLE k (id int PRIMARY KEY, at text); CREATE VIEW v AS SELECT * FROM k`)
	d.do(fmt.Sprintf(`CREATE ROLE bob_%[1]s LOGIN PASSWORD 'p4ss'; GRANT SELECT ON k TO bob_%[1]s`, d.name)) // roles are the server's
	h := postgresHouse(t)
	h.Secret("WRONG", "ada:p4ss")
	h.Secret("BOB", "bob_"+d.name+":p4ss")
	h.Run()
	url := d.config()["url"].(string)
	for name, c := range map[string]struct {
		config map[string]any
		words  []string
	}{
		"wrong":  {d.config("table", "k", "secret", "WRONG"), []string{`secret "WRONG"`, "USER:PASSWORD"}},
		"nobase": {d.config("table", "k", "url", strings.Replace(url, d.name, "none", 1)), []string{"field url", "none"}},
		"none":   {d.config("table", "none"), []string{`"none"`, "field table"}},
		"view":   {d.config("table", "v"), []string{`"v"`, "field table"}},
		"column": {d.config("table", "k", "payload", "body"), []string{`"body"`, "field payload"}},
		"unique": {d.config("table", "q"), []string{"field id", "primary key"}},
		"done":   {d.config("table", "k", "done", "at"), []string{"field done", "boolean or a timestamp"}},
		"bob":    {d.config("table", "k", "secret", "BOB"), []string{"grant SELECT and DELETE"}},
		"bobs":   {d.config("table", "k", "secret", "BOB", "done", "id"), []string{"grant SELECT and UPDATE"}},
		"name":   {d.config("table", "k", "url", strings.Replace(url, "disable", "verify-full", 1), "ca", d.server.ca), []string{"127.0.0.1", "sslmode"}},
		"ca":     {d.config("table", "k", "url", strings.NewReplacer("?sslmode=disable", "", "127.0.0.1", "localhost").Replace(url)), []string{"field ca"}},
	} {
		h.Trigger(name, "postgres", c.config, c.config["secret"].(string))
		wantStatus(t, h, name, c.words...)
	}
}

func TestPostgresWithTLS(t *testing.T) {
	d := newPostgresDB(t)
	h := postgresHouse(t)
	h.Run()
	plain := d.config()["url"].(string)
	for mode, c := range map[string]struct{ host, ca string }{"verify-full": {"localhost", d.server.ca}, "verify-ca": {"127.0.0.1", d.server.ca}, "require": {"127.0.0.1", ""}} {
		d.do(`CREATE TABLE q (id int PRIMARY KEY); INSERT INTO q VALUES (1)`)
		url := strings.NewReplacer("disable", mode, "127.0.0.1", c.host).Replace(plain)
		config := d.config("url", url, "table", "q")
		if c.ca != "" {
			config["ca"] = c.ca
		}
		h.Trigger(mode, "postgres", config, "LOGIN")
		triggertest.Until(t, mode+": the row deleted", func() bool { return d.number(`SELECT count(*) FROM q`) == 0 })
		if n := d.number(`SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'brasa trigger ` + mode + `' AND ssl`); n != 1 {
			t.Errorf("%s: %d connections with TLS, want 1", mode, n)
		}
		if err := h.Catalog.DeleteTrigger(t.Context(), catalog.DefaultNamespace, mode); err != nil {
			t.Fatal(err)
		}
		d.do(`DROP TABLE q`)
	}
}

// A server that announces more than there is memory does not end this process.
func TestPostgresThatAnnouncesTooMuch(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := c.Read(make([]byte, 4096)); err == nil {
					_, _ = c.Write([]byte("S\x7f\xff\xff\xff")) // whoever asked may be gone
					time.Sleep(100 * time.Millisecond)
				}
			}()
		}
	}()
	h := postgresHouse(t)
	h.Run()
	h.Trigger("t", "postgres", map[string]any{"url": "postgres://" + l.Addr().String() + "/d?sslmode=disable", "table": "a"})
	wantStatus(t, h, "t", "body length")
}
