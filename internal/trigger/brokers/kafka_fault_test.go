package brokers_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/trigger"
	"github.com/brasa-dev/brasa/internal/trigger/triggertest"
)

// What comes before the trigger is not told, and nothing of what comes after is missed, whatever
// happens to server and topic meanwhile.
func kafkaFrom(t *testing.T, s *kafkaServer) {
	h := s.beside(t, nil)
	topic := h.topic(1)
	h.send(&kgo.Record{Topic: topic, Value: []byte("before")})
	stop := h.Run()
	tr := h.Trigger("t", "kafka", h.config(topic, "from", "new"))
	group := "brasa-" + tr.UID
	triggertest.Until(t, "a place before anything was told", func() bool { return h.place(group, topic, 0) == 1 })
	stop()
	h.send(&kgo.Record{Topic: topic, Value: []byte("away")})
	if _, err := h.adm.CreatePartitions(t.Context(), 1, topic); err != nil {
		t.Fatal(err)
	}
	triggertest.Until(t, "the new partition", func() bool {
		h.renew()
		return h.cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Partition: 1, Value: []byte("added")}).FirstErr() == nil
	})
	h.Run()
	triggertest.Until(t, "what came meanwhile", func() bool { return len(h.times()) == 2 })
	triggertest.Until(t, "its place", func() bool { return h.place(group, topic, 0) == 2 && h.place(group, topic, 1) == 1 })
	if _, err := h.adm.DeleteTopics(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	triggertest.Until(t, "the loss is known", func() bool { return strings.Contains(h.status().Error, "no topic") })
	h.topic(1)
	h.renew()
	h.send(&kgo.Record{Topic: topic, Value: []byte("again")})
	h.wantOnce(3)
	if n := h.times(); n["away"] != 1 || n["added"] != 1 || n["again"] != 1 {
		t.Errorf("calls %v", n)
	}
}

// What can't be told is passed over, and this is told; what follows is not held up.
func kafkaTooLarge(t *testing.T, s *kafkaServer) {
	var l logged
	h := s.beside(t, l.into)
	topic := h.topic(1)
	large := kafkaClient(t, s.open, kgo.ProducerBatchMaxBytes(80<<20), kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	h.send(numbers(topic, 0, 0, 1)...)
	for _, size := range []int{int(trigger.MaxData) + 1, int(trigger.MaxData)} {
		if err := large.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: make([]byte, size)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	h.send(numbers(topic, 0, 1, 2)...)
	if err := large.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: make([]byte, 65<<20)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	h.send(numbers(topic, 0, 2, 3)...)
	h.Run()
	tr := h.Trigger("t", "kafka", h.config(topic))
	triggertest.Until(t, "all but those that are too large", func() bool { return h.place("brasa-"+tr.UID, topic, 0) == 6 })
	if n := len(h.Node.Calls()); n != 4 {
		t.Errorf("%d calls, want 4", n)
	}
	for _, want := range []string{`offset=1 bytes=8388609`, `first=4 next=5`} {
		if !strings.Contains(l.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, l.String())
		}
	}
	wantPassed(t, h.House, "t", 2, "first 4, next 5")
}

// What a producer took back is not told.
func kafkaTransactions(t *testing.T, s *kafkaServer) {
	h := s.beside(t, nil)
	topic := h.topic(1)
	cl := kafkaClient(t, s.open, kgo.TransactionalID(topic))
	for n, end := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit} {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(t.Context(), numbers(topic, 0, n, n+1)...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	h.Run()
	h.Trigger("t", "kafka", h.config(topic))
	h.wantOnce(1)
	if n := h.times(); n["1"] != 1 {
		t.Errorf("calls %v", n)
	}
}

// Partitions go from one member to another and back while messages come: none is lost, and those that
// are told twice are few.
func kafkaRebalance(t *testing.T, s *kafkaServer) {
	h := s.beside(t, nil)
	const partitions = 4
	topic := h.topic(partitions)
	h.Node.Do(func(triggertest.Call) error {
		time.Sleep(time.Millisecond)
		return nil
	})
	h.Run()
	events := func(name string) int64 { return h.Manager.Status(catalog.DefaultNamespace, name).Events }
	config := h.config(topic, "group", topic+"-group")
	h.House.Trigger("t", "kafka", config)
	sent := 0
	send := func() {
		t.Helper()
		for p := range int32(partitions) {
			h.send(numbers(topic, p, sent, sent+5)...)
			sent += 5
		}
	}
	until := func(what string, is func() bool) {
		t.Helper()
		triggertest.Until(t, what, func() bool {
			send()
			return is()
		})
	}
	until("the first member at work", func() bool { return events("t") > 20 })
	u := h.House.Trigger("u", "kafka", config)
	until("the second member at work", func() bool { return events("u") > 20 })
	pause := *u
	pause.Paused = true
	if err := h.Catalog.PutTrigger(t.Context(), &pause, true); err != nil {
		t.Fatal(err)
	}
	before := events("t")
	until("the first member alone", func() bool { return events("t") > before+40 })
	triggertest.Until(t, "all messages", func() bool { return len(h.times()) == sent })
	triggertest.Until(t, "all places", func() bool {
		sum := int64(0)
		for p := range int32(partitions) {
			sum += h.place(topic+"-group", topic, p)
		}
		return sum == int64(sent)
	})
	twice := len(h.Node.Calls()) - sent
	t.Logf("%d messages, %d told twice", sent, twice)
	if twice > sent/20 {
		t.Errorf("%d of %d messages were told twice", twice, sent)
	}
	for _, name := range []string{"t", "u"} {
		if e := h.Manager.Status(catalog.DefaultNamespace, name).Error; e != "" {
			t.Errorf("%s: %s", name, e)
		}
	}
}

// A server that is killed keeps no place and takes no leave. What was under way comes again when it is
// back, and makes no second call.
func kafkaKilled(t *testing.T, s *kafkaServer) {
	var w wire
	h := s.beside(t, w.through)
	topic := h.topic(2)
	h.send(numbers(topic, 0, 0, 20)...)
	release := make(chan struct{})
	h.Node.Do(func(c triggertest.Call) error {
		if n, _ := strconv.Atoi(c.Body); n >= 5 {
			await(t, release)
		}
		return nil
	})
	stop := h.Run()
	tr := h.Trigger("t", "kafka", h.config(topic, "order", "none", "parallel", 10))
	triggertest.Until(t, "the place of what is done", func() bool { return h.place("brasa-"+tr.UID, topic, 0) == 5 })
	triggertest.Until(t, "what fits is told", func() bool { return h.status().Events == 15 })
	w.cutOff(true)
	stop()
	h.send(numbers(topic, 1, 20, 40)...)
	w.cutOff(false)
	h.Run()
	triggertest.Until(t, "what was under way is told again", func() bool { return h.status().Events >= 20 })
	if at := h.place("brasa-"+tr.UID, topic, 0); at != 5 {
		t.Errorf("the place is %d while the functions work, want 5", at)
	}
	close(release)
	h.wantOnce(40)
	triggertest.Until(t, "the places behind all", func() bool {
		return h.place("brasa-"+tr.UID, topic, 0) == 20 && h.place("brasa-"+tr.UID, topic, 1) == 20
	})
	h.wantOnce(40)
}

// The broker is killed, and comes back with all that it knew.
func kafkaGoesAway(t *testing.T, s *kafkaServer) {
	h := s.beside(t, nil)
	topic := h.topic(1)
	h.Run()
	tr := h.Trigger("t", "kafka", h.config(topic))
	h.send(numbers(topic, 0, 0, 1)...)
	triggertest.Until(t, "the first call", func() bool { return len(h.times()) == 1 })
	triggertest.Until(t, "its place", func() bool { return h.place("brasa-"+tr.UID, topic, 0) == 1 })
	s.kill()
	triggertest.Until(t, "the loss is known", func() bool { return strings.Contains(h.status().Error, s.open) })
	s.start()
	h.send(numbers(topic, 0, 1, 2)...)
	h.wantOnce(2)
	triggertest.Until(t, "all is well again", func() bool { return h.status().Running && h.status().Error == "" })
}

// One broker of several is out of reach, though the cluster counts it among its own: the others go on,
// the status says which it is, and what waits there comes when it is back.
func TestKafkaBrokerOutOfReach(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.SeedTopics(3, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	for p := range int32(3) {
		if err := cluster.MoveTopicPartition("orders", p, p); err != nil {
			t.Fatal(err)
		}
	}
	addresses := cluster.ListenAddrs()
	var w wire
	h := (&kafkaServer{t: t, open: addresses[0]}).beside(t, w.through)
	config := h.config("orders", "brokers", strings.Join(addresses, ","))
	h.Run()
	tr := h.Trigger("t", "kafka", config)
	for p := range int32(3) {
		h.send(numbers("orders", p, int(p), int(p)+1)...)
	}
	h.wantOnce(3)
	// The one that keeps the places goes on.
	away := (cluster.CoordinatorFor("brasa-"+tr.UID) + 1) % 3
	address := addresses[away]
	w.die(address)
	h.send(numbers("orders", away, 3, 4)...)
	h.send(numbers("orders", (away+1)%3, 4, 5)...)
	h.send(numbers("orders", (away+2)%3, 5, 6)...)
	h.wantOnce(5)
	triggertest.Until(t, "the broker is known to be out of reach", func() bool { return strings.Contains(h.status().Error, address) })
	w.die("")
	h.wantOnce(6)
}
