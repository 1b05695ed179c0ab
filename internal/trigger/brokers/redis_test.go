package brokers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger/brokers"
	"github.com/brasa-dev/brasa/internal/trigger/triggertest"
)

// redisServer is a server with the password s3cret, which keeps what it was told on the disk.
type redisServer struct {
	*process
	dir, port string
	client    *redis.Client
}

func startRedis(t testing.TB) *redisServer {
	t.Helper()
	s := &redisServer{dir: t.TempDir(), port: freePort(t)}
	s.again(t)
	t.Cleanup(func() { s.kill() })
	s.client = redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + s.port, Password: "s3cret"})
	t.Cleanup(func() { s.client.Close() })
	return s
}

// again starts it anew.
func (s *redisServer) again(t testing.TB) {
	t.Helper()
	program := ""
	for _, name := range []string{"redis-server", "valkey-server"} {
		if found, err := exec.LookPath(name); err == nil {
			program = found
			break
		}
	}
	if program == "" {
		t.Skip("neither redis-server nor valkey-server is installed")
	}
	s.process = start(t, 0, 0, s.dir, program, "--bind", "127.0.0.1", "--port", s.port, "--requirepass", "s3cret", "--appendonly", "yes",
		"--appendfsync", "always", "--save", "", "--dir", s.dir, "--daemonize", "no")
	c := redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + s.port, Password: "s3cret"})
	defer c.Close()
	triggertest.Until(t, "Redis answers", func() bool { return c.Ping(context.Background()).Err() == nil })
}

func (s *redisServer) config(more ...any) map[string]any {
	c := map[string]any{"url": "redis://127.0.0.1:" + s.port, "stream": "orders", "secret": "PASSWORD", "from": "all"}
	for i := 0; i < len(more); i += 2 {
		c[more[i].(string)] = more[i+1]
	}
	return c
}

func (s *redisServer) add(t testing.TB, values ...any) string {
	t.Helper()
	id, err := s.client.XAdd(context.Background(), &redis.XAddArgs{Stream: "orders", Values: values}).Result()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// pending is how many entries are not acknowledged in the only group, and how many it has not read.
func (s *redisServer) pending(t testing.TB) (pending, lag int64) {
	t.Helper()
	groups, err := s.client.XInfoGroups(context.Background(), "orders").Result()
	if err != nil || len(groups) != 1 {
		return -1, -1
	}
	return groups[0].Pending, groups[0].Lag
}

func redisHouse(t testing.TB) *triggertest.House {
	h := triggertest.Open(t, brokers.Kinds()...)
	h.Secret("PASSWORD", "s3cret")
	return h
}

func TestWhatRedisCannotBeAskedIsRefused(t *testing.T) {
	wantRefused(t, []refused{
		{"redis", `{}`, "url is missing"},
		{"redis", `{"url":"http://x:1","stream":"a"}`, "redis://HOST:PORT"},
		{"redis", `{"url":"unix:///run/redis.sock","stream":"a"}`, "redis://HOST:PORT"},
		{"redis", `{"url":"redis://u:p4ss@x:1","stream":"a"}`, "the field secret"},
		{"redis", `{"url":"redis://u:p4ss@x:one","stream":"a"}`, "url"},
		{"redis", `{"url":"redis://x:1?password=p4ss","stream":"a"}`, "url"},
		{"redis", `{"url":"redis://x:1/none","stream":"a"}`, "database"},
		{"redis", `{"url":"redis://x:1"}`, "stream is missing"},
		{"redis", `{"url":"redis://x:1","stream":"a","secret":"T"}`, "among"},
		{"redis", `{"url":"redis://x:1","stream":"a","from":"0"}`, "new or all"},
		{"redis", `{"url":"redis://x:1","stream":"a","parallel":100000}`, "parallel"},
		{"redis", `{"url":"redis://x:1","stream":"a","idle_ms":1}`, "idle_ms"},
		{"redis", `{"url":"rediss://x:1","stream":"a","ca":"no"}`, "PEM"},
		{"redis", `{"url":"redis://x:1","stream":"a","colour":"red"}`, "colour"},
	})
}

func TestRedisConnectsThroughTheGuard(t *testing.T) {
	wantDialed(t, "redis", `{"url":"redis://10.1.2.3","stream":"a","secret":"S"}`, "10.1.2.3:6379")
}

func TestRedisEntriesAsEvents(t *testing.T) {
	s := startRedis(t)
	h := redisHouse(t)
	id := s.add(t, "user", "ada <a>", "blob", "\xff\x00")
	h.Run()
	h.Trigger("t", "redis", s.config(), "PASSWORD")
	h.Trigger("one", "redis", s.config("field", "user"), "PASSWORD")
	triggertest.Until(t, "two calls", func() bool { return len(h.Node.Calls()) == 2 })
	for _, c := range h.Node.Calls() {
		want := `{"blob":{"base64":"/wA="},"user":"ada <a>"}`
		if c.Header["Ce-Brasatrigger"][0] == "one" {
			want = "ada <a>"
		}
		if c.Body != want || c.Header["Ce-Id"][0] != "orders/"+id || c.Header["Ce-Subject"][0] != "orders" || c.Header["Ce-Type"][0] != "brasa.redis.entry" {
			t.Errorf("got %+v, want %s with the entry's ID", c, want)
		}
	}
}

// An entry is acknowledged when the function has done its work, and not before; meanwhile no other
// consumer may take it.
func TestRedisAcknowledgesWork(t *testing.T) {
	s := startRedis(t)
	h := redisHouse(t)
	release := make(chan struct{})
	h.Node.Do(func(c triggertest.Call) error {
		<-release
		if c.Attempt == 1 && c.Body == "2" {
			return &faas.Error{Code: faas.Failed, Op: "run", Err: errors.New("not today")}
		}
		return nil
	})
	h.Run()
	for n := range 3 {
		s.add(t, "n", n)
	}
	h.Trigger("t", "redis", s.config("field", "n", "idle_ms", 1000, "group", "g"), "PASSWORD")
	triggertest.Until(t, "three calls", func() bool { return len(h.Node.Calls()) >= 3 })
	var before time.Duration
	triggertest.Until(t, "how long they are idle set back, since they are worked on", func() bool {
		all, err := s.client.XPendingExt(t.Context(), &redis.XPendingExtArgs{Stream: "orders", Group: "g", Start: "-", End: "+", Count: 10}).Result()
		if err != nil || len(all) != 3 {
			t.Fatalf("pending are %v, %v", all, err)
		}
		was := before
		before = all[0].Idle
		return before < was
	})
	if n, _ := s.pending(t); n != 3 {
		t.Errorf("%d entries are pending while the functions work, want 3", n)
	}
	close(release)
	triggertest.Until(t, "all acknowledged", func() bool { n, _ := s.pending(t); return n == 0 })
	if times := bodies(h.Node.Calls()); times["0"] != 1 || times["1"] != 1 || times["2"] != 2 {
		t.Errorf("attempts by entry: %v, want one each and two of the one that failed at first", times)
	}
}

func TestRedisServerThatGoesAwayAndComesBack(t *testing.T) {
	s := startRedis(t)
	h := redisHouse(t)
	h.Run()
	h.Trigger("t", "redis", s.config("field", "n", "from", "new"), "PASSWORD")
	triggertest.Until(t, "the group", func() bool { n, _ := s.pending(t); return n == 0 })
	s.add(t, "n", 1)
	triggertest.Until(t, "the first call", func() bool { return len(h.Node.Calls()) == 1 })
	s.kill()
	wantStatus(t, h, "t", s.port)
	s.again(t)
	s.add(t, "n", 2)
	triggertest.Until(t, "the second call", func() bool { return len(h.Node.Calls()) == 2 })
	triggertest.Until(t, "a status without an error", func() bool {
		status := h.Manager.Status(catalog.DefaultNamespace, "t")
		return status.Running && status.Error == ""
	})
	// Somebody empties the server: what is added from then on is told.
	if err := s.client.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	s.add(t, "n", 3)
	triggertest.Until(t, "the third call", func() bool { return bodies(h.Node.Calls())["3"] == 1 })
	if times := bodies(h.Node.Calls()); len(times) != 3 || times["1"] != 1 || times["2"] != 1 {
		t.Errorf("calls: %v, want each once", times)
	}
}

// A manager that is ended in the middle of work finds it again, makes no second call, and loses
// nothing.
func TestRedisAndAManagerThatIsEnded(t *testing.T) {
	s := startRedis(t)
	h := redisHouse(t)
	release := make(chan struct{})
	h.Node.Do(func(triggertest.Call) error { <-release; return nil })
	stop := h.Run()
	h.Trigger("t", "redis", s.config("field", "n", "parallel", 4), "PASSWORD")
	for n := range 20 {
		s.add(t, "n", n)
	}
	triggertest.Until(t, "some calls", func() bool { return len(h.Node.Calls()) >= 4 })
	stop()
	if n, _ := s.pending(t); n < 4 {
		t.Errorf("%d entries are pending, want those that are worked on", n)
	}
	h.Run()
	close(release)
	triggertest.Until(t, "all acknowledged", func() bool { n, lag := s.pending(t); return n == 0 && lag == 0 })
	times := bodies(h.Node.Calls())
	for n := range 20 {
		if times[fmt.Sprint(n)] != 1 {
			t.Errorf("entry %d was told %d times, want once", n, times[fmt.Sprint(n)])
		}
	}
}

// Two servers share a stream; what one that died had is done by the other.
func TestRedisConsumersShareAStream(t *testing.T) {
	s := startRedis(t)
	if err := s.client.XGroupCreateMkStream(t.Context(), "orders", "g", "0").Err(); err != nil {
		t.Fatal(err)
	}
	for n := range 100 {
		s.add(t, "n", n)
	}
	left, err := s.client.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: "g", Consumer: "dead", Streams: []string{"orders", ">"}, Count: 5}).Result()
	if err != nil {
		t.Fatal(err)
	}
	claim := []any{"XCLAIM", "orders", "g", "dead", 0}
	for _, m := range left[0].Messages {
		claim = append(claim, m.ID)
	}
	if err := s.client.Do(t.Context(), append(claim, "IDLE", 3600_000, "JUSTID")...).Err(); err != nil { // it died an hour ago
		t.Fatal(err)
	}
	// One of what it had is not in the stream any more.
	if err := s.client.XDel(t.Context(), "orders", left[0].Messages[0].ID).Err(); err != nil {
		t.Fatal(err)
	}
	var houses []*triggertest.House
	for range 2 {
		h := redisHouse(t)
		h.Run()
		h.Trigger("t", "redis", s.config("field", "n", "group", "g", "parallel", 8), "PASSWORD")
		houses = append(houses, h)
	}
	times := map[string]int{}
	triggertest.Until(t, "all acknowledged", func() bool { n, lag := s.pending(t); return n == 0 && lag == 0 })
	for _, h := range houses {
		for body, n := range bodies(h.Node.Calls()) {
			times[body] += n
		}
	}
	for n := 1; n < 100; n++ {
		if times[fmt.Sprint(n)] != 1 {
			t.Errorf("entry %d was told %d times, want once", n, times[fmt.Sprint(n)])
		}
	}
}

// What can't be an event is passed by and holds up nothing.
func TestRedisEntriesThatCannotBeEvents(t *testing.T) {
	s := startRedis(t)
	h := redisHouse(t)
	large := strings.Repeat("x", 3<<20)
	s.add(t, "n", "1", "a", large, "b", large, "c", large) // together too large
	s.add(t, "n", strings.Repeat("x", 9<<20))
	for range 15 { // each has room, but not all in one answer
		s.add(t, "n", large)
	}
	s.add(t, "m", "no n")
	s.add(t, "n", "last")
	h.Run()
	h.Trigger("all", "redis", s.config("group", "all"), "PASSWORD")
	h.Trigger("n", "redis", s.config("group", "n", "field", "n"), "PASSWORD")
	triggertest.Until(t, "all acknowledged", func() bool {
		groups, err := s.client.XInfoGroups(t.Context(), "orders").Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range groups {
			if g.Pending > 0 || g.Lag > 0 {
				return false
			}
		}
		return len(groups) == 2
	})
	times := map[string]int{}
	for _, c := range h.Node.Calls() {
		body := c.Body
		if len(body) > 100 {
			body = fmt.Sprint(len(body))
		}
		times[c.Header["Ce-Brasatrigger"][0]+" "+body]++
	}
	b, err := json.Marshal(times)
	if err != nil {
		t.Fatal(err)
	}
	wantPassed(t, h, "all", 2, "an entry is passed by")
	wantPassed(t, h, "n", 2, "an entry is passed by")
	want := fmt.Sprintf(`{"all %d":15,"all {\"m\":\"no n\"}":1,"all {\"n\":\"last\"}":1,"n 1":1,"n %d":15,"n last":1}`, len(large)+len(`{"n":""}`), len(large))
	if string(b) != want {
		t.Errorf("calls: %s, want %s", b, want)
	}
}

func TestRedisThatRefuses(t *testing.T) {
	s := startRedis(t)
	h := redisHouse(t)
	h.Secret("WRONG", "somebody:p4ss")
	h.Run()
	if err := s.client.Set(t.Context(), "text", "1", 0).Err(); err != nil {
		t.Fatal(err)
	}
	h.Trigger("wrong", "redis", s.config("secret", "WRONG"), "WRONG")
	wantStatus(t, h, "wrong", `"WRONG"`, "USER:PASSWORD")
	none := s.config()
	delete(none, "secret")
	h.Trigger("none", "redis", none)
	wantStatus(t, h, "none", "field secret")
	h.Trigger("text", "redis", s.config("stream", "text"), "PASSWORD")
	wantStatus(t, h, "text", "field stream")
	h.Trigger("db", "redis", s.config("url", "redis://127.0.0.1:"+s.port+"/99"), "PASSWORD")
	wantStatus(t, h, "db", "field url")
}

// A server that announces more than there is memory does not end this process.
func TestRedisThatAnnouncesTooMuch(t *testing.T) {
	for _, answer := range []string{"$1099511627776\r\n", "*1099511627776\r\n", strings.Repeat("x", 1<<17), "$9223372036854775807\r\n", "*x\r\n"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					if _, err := c.Read(make([]byte, 4096)); err == nil {
						_, _ = c.Write([]byte(answer)) // whoever asked may be gone
					}
				}()
			}
		}()
		h := redisHouse(t)
		h.Run()
		h.Trigger("t", "redis", map[string]any{"url": "redis://" + l.Addr().String(), "stream": "a"})
		wantStatus(t, h, "t", "the server")
	}
}
