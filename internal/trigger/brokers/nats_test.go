package brokers_test

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger/brokers"
	"github.com/brasa-dev/brasa/internal/trigger/triggertest"
)

// startNATS starts a server at the address; port 0 is any.
func startNATS(t testing.TB, address string) *server.Server {
	t.Helper()
	return natsIn(t, address, t.TempDir())
}

func natsIn(t testing.TB, address, dir string) *server.Server {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	if n == 0 {
		n = server.RANDOM_PORT
	}
	s, err := server.NewServer(&server.Options{Host: host, Port: n, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true, Authorization: "s3cret"})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server is not ready")
	}
	return s
}

func client(t testing.TB, s *server.Server) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(s.ClientURL(), nats.Token("s3cret"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func TestNATSSubject(t *testing.T) {
	h := triggertest.Open(t, brokers.Kinds()...)
	h.Secret("TOKEN", "s3cret")
	h.Run()
	s := startNATS(t, "127.0.0.1:0")
	h.Trigger("t", "nats", map[string]any{"url": s.ClientURL(), "subject": "orders.>", "secret": "TOKEN"}, "TOKEN")
	triggertest.Until(t, "somebody listens", func() bool {
		return s.NumSubscriptions() > 0 && h.Manager.Status(catalog.DefaultNamespace, "t").Running
	})
	nc := client(t, s)
	triggertest.Until(t, "a call", func() bool { // the subscription may be a moment behind
		if err := nc.Publish("orders.eu", []byte(`{"n":1}`)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
		if s := h.Manager.Status(catalog.DefaultNamespace, "t"); s.Error != "" {
			t.Fatal(s.Error)
		}
		return len(h.Node.Calls()) > 0
	})
	if c := h.Node.Calls()[0]; c.Body != `{"n":1}` || c.Header["Ce-Subject"][0] != "orders.eu" {
		t.Errorf("got %+v", c)
	}
}

func TestNATSServerThatGoesAwayAndComesBack(t *testing.T) {
	h := triggertest.Open(t, brokers.Kinds()...)
	h.Secret("TOKEN", "s3cret")
	h.Run()
	dir := t.TempDir()
	s := natsIn(t, "127.0.0.1:0", dir)
	address := s.Addr().String()
	js, err := jetstream.New(client(t, s))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}}); err != nil {
		t.Fatal(err)
	}
	h.Trigger("t", "jetstream", map[string]any{"url": "nats://" + address, "stream": "ORDERS", "secret": "TOKEN", "from": "all", "ack_wait_ms": 2000}, "TOKEN")
	publish := func(js jetstream.JetStream, n int) {
		t.Helper()
		if _, err := js.Publish(t.Context(), "orders.eu", []byte(fmt.Sprint(n))); err != nil {
			t.Fatal(err)
		}
	}
	publish(js, 1)
	triggertest.Until(t, "the first call", func() bool { return len(h.Node.Calls()) == 1 })
	s.Shutdown()
	s.WaitForShutdown()
	triggertest.Until(t, "the loss is known", func() bool { return h.Manager.Status(catalog.DefaultNamespace, "t").Error != "" })
	s = natsIn(t, address, dir)
	js, err = jetstream.New(client(t, s))
	if err != nil {
		t.Fatal(err)
	}
	publish(js, 2)
	triggertest.Until(t, "the second call", func() bool {
		for _, c := range h.Node.Calls() {
			if c.Body == "2" {
				return true
			}
		}
		return false
	})
}

// A message is acknowledged when the function has done its work, and not before.
func TestJetStreamAcknowledgesWork(t *testing.T) {
	h := triggertest.Open(t, brokers.Kinds()...)
	h.Secret("TOKEN", "s3cret")
	s := startNATS(t, "127.0.0.1:0")
	js, err := jetstream.New(client(t, s))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders"}, Retention: jetstream.WorkQueuePolicy})
	if err != nil {
		t.Fatal(err)
	}
	left := func() uint64 {
		info, err := stream.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return info.State.Msgs
	}
	release := make(chan struct{})
	h.Node.Do(func(c triggertest.Call) error {
		<-release
		if c.Attempt == 1 && c.Body == "2" {
			return &faas.Error{Code: faas.Failed, Op: "run", Err: errors.New("not today")}
		}
		return nil
	})
	h.Run()
	h.Trigger("t", "jetstream", map[string]any{"url": s.ClientURL(), "stream": "ORDERS", "secret": "TOKEN", "from": "all", "ack_wait_ms": 1000}, "TOKEN")
	for n := range 3 {
		if _, err := js.Publish(t.Context(), "orders", []byte(fmt.Sprint(n))); err != nil {
			t.Fatal(err)
		}
	}
	triggertest.Until(t, "three calls", func() bool { return len(h.Node.Calls()) >= 3 })
	// Longer than the server waits for a word: it has been told that work is in progress.
	time.Sleep(1500 * time.Millisecond)
	if n := left(); n != 3 {
		t.Errorf("%d messages are left while the functions work, want 3", n)
	}
	close(release)
	triggertest.Until(t, "all acknowledged", func() bool { return left() == 0 })
	times := map[string]int{}
	for _, c := range h.Node.Calls() {
		times[c.Body]++
	}
	if times["0"] != 1 || times["1"] != 1 || times["2"] != 2 {
		t.Errorf("attempts by message: %v, want one each and two of the one that failed at first", times)
	}
}

func TestASourceIsRunAgain(t *testing.T) {
	h := triggertest.Open(t, brokers.Kinds()...)
	h.Run()
	l, err := net.Listen("tcp", "127.0.0.1:0") // nobody there speaks NATS
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	h.Trigger("t", "nats", map[string]any{"url": "nats://" + address, "subject": "a"})
	triggertest.Until(t, "a status with an error", func() bool {
		s := h.Manager.Status(catalog.DefaultNamespace, "t")
		return !s.Running && strings.Contains(s.Error, address)
	})
	startNATS(t, address)
	triggertest.Until(t, "the source runs", func() bool { return h.Manager.Status(catalog.DefaultNamespace, "t").Running })
}

// What comes between the making of a trigger and that of its first rule is not lost.
func TestJetStreamHoldsWhatNoRuleLeadsAnywhere(t *testing.T) {
	h := triggertest.Open(t, brokers.Kinds()...)
	h.Secret("TOKEN", "s3cret")
	h.Run()
	s := startNATS(t, "127.0.0.1:0")
	js, err := jetstream.New(client(t, s))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders"}}); err != nil {
		t.Fatal(err)
	}
	h.Trigger("t", "jetstream", map[string]any{"url": s.ClientURL(), "stream": "ORDERS", "secret": "TOKEN", "from": "all"}, "TOKEN")
	if err := h.Catalog.DeleteRule(t.Context(), catalog.DefaultNamespace, "t-f"); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "orders", []byte("1")); err != nil {
		t.Fatal(err)
	}
	triggertest.Until(t, "the event was told to nobody", func() bool { return h.Manager.Status(catalog.DefaultNamespace, "t").Events > 0 })
	h.Rule("late", "t", "f")
	triggertest.Until(t, "a call", func() bool { return len(h.Node.Calls()) == 1 })
}
