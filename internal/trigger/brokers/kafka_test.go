package brokers_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger"
	"github.com/brasa-dev/brasa/internal/trigger/brokers"
	"github.com/brasa-dev/brasa/internal/trigger/triggertest"
)

func TestWhatKafkaCannotBeAskedIsRefused(t *testing.T) {
	wantRefused(t, []refused{
		{"kafka", `{}`, "brokers is missing"},
		{"kafka", `{"brokers":"k:9092"}`, "topic is missing"},
		{"kafka", `{"brokers":"kafka://k:9092","topic":"a"}`, "HOST:PORT"},
		{"kafka", `{"brokers":"k","topic":"a"}`, "HOST:PORT"},
		{"kafka", `{"brokers":"k:0","topic":"a"}`, "HOST:PORT"},
		{"kafka", `{"brokers":"k:9092,","topic":"a"}`, "HOST:PORT"},
		{"kafka", `{"brokers":"u:p4ss@k:9092","topic":"a"}`, "password"},
		{"kafka", `{"brokers":"k:9092","topic":"a b"}`, "a b"},
		{"kafka", `{"brokers":"k:9092","topic":".."}`, ".."},
		{"kafka", `{"brokers":"k:9092","topic":"a","from":"last"}`, "new or all"},
		{"kafka", `{"brokers":"k:9092","topic":"a","order":"random"}`, "partition, key or none"},
		{"kafka", `{"brokers":"k:9092","topic":"a","parallel":-1}`, "parallel"},
		{"kafka", `{"brokers":"k:9092","topic":"a","max_bytes":1}`, "max_bytes"},
		{"kafka", `{"brokers":"k:9092","topic":"a","sasl":"plain"}`, "secret is missing"},
		{"kafka", `{"brokers":"k:9092","topic":"a","sasl":"gssapi","secret":"S"}`, "scram-sha-256"},
		{"kafka", `{"brokers":"k:9092","topic":"a","secret":"T"}`, "not among"},
		{"kafka", `{"brokers":"k:9092","topic":"a","cert":"S"}`, "set tls to true"},
		{"kafka", `{"brokers":"k:9092","topic":"a","tls":true,"ca":"x"}`, "no certificate"},
		{"kafka", `{"brokers":"k:9092","topic":"a","tpoic":"a"}`, "tpoic"},
	})
}

// kafkaHouse is a house beside a broker.
type kafkaHouse struct {
	*triggertest.House
	t      testing.TB
	server *kafkaServer
	adm    *kadm.Client
	cl     *kgo.Client
}

// beside opens a house; change, if any, changes what sources are given of the world.
func (s *kafkaServer) beside(t testing.TB, change func(*trigger.Outside)) *kafkaHouse {
	t.Helper()
	var kinds []trigger.Kind
	for _, k := range brokers.Kinds() {
		if k.Name == "kafka" {
			make := k.New
			k.New = func(o trigger.Outside, config json.RawMessage) (trigger.Source, error) {
				if change != nil {
					change(&o)
				}
				return make(o, config)
			}
			kinds = append(kinds, k)
		}
	}
	h := &kafkaHouse{House: triggertest.Open(t, kinds...), t: t, server: s}
	h.renew()
	return h
}

// renew has the test's own client look at the cluster anew.
func (h *kafkaHouse) renew() {
	h.t.Helper()
	h.cl = kafkaClient(h.t, h.server.open, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	h.adm = kadm.NewClient(h.cl)
}

// topic makes one and returns its name.
func (h *kafkaHouse) topic(partitions int, config ...string) string {
	h.t.Helper()
	name := strings.NewReplacer("/", ".", "_", "-").Replace(h.t.Name())
	settings := map[string]*string{}
	for _, c := range config {
		k, v, _ := strings.Cut(c, "=")
		settings[k] = &v
	}
	if _, err := h.adm.CreateTopic(h.t.Context(), int32(partitions), 1, settings, name); err != nil {
		h.t.Fatal(err)
	}
	return name
}

func (h *kafkaHouse) send(records ...*kgo.Record) {
	h.t.Helper()
	if err := h.cl.ProduceSync(h.t.Context(), records...).FirstErr(); err != nil {
		h.t.Fatal(err)
	}
}

// numbers are records whose values are the numbers from one to another.
func numbers(topic string, partition int32, from, to int) []*kgo.Record {
	var all []*kgo.Record
	for n := from; n < to; n++ {
		all = append(all, &kgo.Record{Topic: topic, Partition: partition, Value: fmt.Append(nil, n)})
	}
	return all
}

// await waits for the test to let a function go on, or for its end.
func await(t testing.TB, on <-chan struct{}) {
	select {
	case <-on:
	case <-t.Context().Done():
	}
}

// once has a function tried again once, and soon.
func (h *kafkaHouse) once(name string) {
	h.t.Helper()
	one := 1
	rev := &faas.Revision{
		Name: faas.Name{Namespace: catalog.DefaultNamespace, Function: name}, Runtime: "exec", Entry: "f", Code: faas.Digest(fmt.Sprintf("sha256:%064x", 1)),
		Limits: faas.DefaultLimits(), Network: faas.NetworkNone, Async: &faas.Async{Retries: &one, Backoff: faas.Duration(10 * time.Millisecond)},
	}
	if _, err := h.Catalog.Publish(h.t.Context(), rev, catalog.PublishOptions{}); err != nil {
		h.t.Fatal(err)
	}
}

func (h *kafkaHouse) status() trigger.Status {
	return h.Manager.Status(catalog.DefaultNamespace, "t")
}

// place is where a group is in a partition; -1: it has no place.
func (h *kafkaHouse) place(group, topic string, partition int32) int64 {
	h.t.Helper()
	all, err := h.adm.FetchOffsets(h.t.Context(), group)
	if kerr.IsRetriable(err) || errors.Is(err, kerr.GroupIDNotFound) {
		return -1 // the broker makes ready for its first group, or knows none of this name yet
	}
	if err != nil {
		h.t.Fatal(err)
	}
	if o, ok := all.Lookup(topic, partition); ok {
		return o.At
	}
	return -1
}

// times counts the calls by their bodies.
func (h *kafkaHouse) times() map[string]int {
	n := map[string]int{}
	for _, c := range h.Node.Calls() {
		n[c.Body]++
	}
	return n
}

// wantOnce waits until each of the numbers below n was called with, and fails if one was twice.
func (h *kafkaHouse) wantOnce(n int) {
	h.t.Helper()
	triggertest.Until(h.t, fmt.Sprintf("%d messages", n), func() bool { return len(h.times()) >= n })
	for body, times := range h.times() {
		if times != 1 {
			h.t.Errorf("the function was called %d times with %s, want once", times, body)
		}
	}
}

func (h *kafkaHouse) config(topic string, more ...any) map[string]any {
	c := map[string]any{"brokers": h.server.open, "topic": topic, "from": "all"}
	for i := 0; i < len(more); i += 2 {
		c[more[i].(string)] = more[i+1]
	}
	return c
}

// TestKafka holds the source to its contract with Kafka's own broker. The broker takes seconds to
// start: there is one for all.
func TestKafka(t *testing.T) {
	t.Parallel()
	s := startKafka(t)
	if s.missing != "" {
		t.Run("OwnBroker", func(t *testing.T) { t.Skip("Kafka's own broker is not run, but the client library's: " + s.missing) })
	}
	for _, c := range []struct {
		name string
		test func(*testing.T, *kafkaServer)
		own  bool // it needs what Kafka's own broker alone has
	}{
		{"Event", kafkaEvent, false},
		{"CompressedBatches", kafkaCompressed, false},
		{"AcknowledgesWork", kafkaAcknowledgesWork, false},
		{"Order", kafkaOrder, false},
		{"Window", kafkaWindow, false},
		{"From", kafkaFrom, false},
		{"TooLarge", kafkaTooLarge, false},
		{"Transactions", kafkaTransactions, false},
		{"Refusals", kafkaRefusals, true},
		{"SecretsAndTLS", kafkaSecrets, true},
		{"Rebalance", kafkaRebalance, false},
		{"Killed", kafkaKilled, false},
		{"GoesAway", kafkaGoesAway, false}, // the last: it kills the broker
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.own && s.missing != "" {
				t.Skip("it needs Kafka's own broker")
			}
			c.test(t, s)
		})
	}
}

func kafkaEvent(t *testing.T, s *kafkaServer) {
	h := s.beside(t, nil)
	topic := h.topic(1)
	h.Run()
	at := time.UnixMilli(1_700_000_000_123)
	h.send(
		&kgo.Record{Topic: topic, Key: []byte("k/é"), Value: []byte(`{"n":1}`), Timestamp: at, Headers: []kgo.RecordHeader{
			{Key: "trace id", Value: []byte("a b%")}, {Key: "Raw", Value: []byte{0, 0xff}}, {Key: "two", Value: []byte("1")}, {Key: "two", Value: []byte("2")},
		}},
		&kgo.Record{Topic: topic, Key: []byte("gone"), Timestamp: at},
		&kgo.Record{Topic: topic, Value: []byte{0xff, 0}, Timestamp: at},
		&kgo.Record{Topic: topic, Value: []byte("a,b"), Timestamp: at, Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte("text/csv")}}},
	)
	tr := h.Trigger("t", "kafka", h.config(topic))
	triggertest.Until(t, "four calls", func() bool { return len(h.Node.Calls()) == 4 })
	calls := h.Node.Calls()
	for i, want := range []map[string]string{
		{
			"Ce-Id": topic + "/0/0@1700000000123", "Ce-Type": "brasa.kafka.message", "Ce-Subject": "k/%C3%A9", "Ce-Source": "kafka://" + s.open + "/" + topic,
			"Ce-Time": at.UTC().Format(time.RFC3339Nano), "Content-Type": "application/json", "X-Kafka-Trace-Id": "a b%25", "X-Kafka-Raw": "%00%FF", "X-Kafka-Two": "1|2",
		},
		{"Ce-Id": topic + "/0/1@1700000000123", "Ce-Type": "brasa.kafka.tombstone", "Ce-Subject": "gone", "Content-Type": ""},
		{"Ce-Id": topic + "/0/2@1700000000123", "Ce-Type": "brasa.kafka.message", "Ce-Subject": "", "Content-Type": "application/octet-stream"},
		{"Ce-Id": topic + "/0/3@1700000000123", "Content-Type": "text/csv"},
	} {
		for k, v := range want {
			if got := strings.Join(calls[i].Header[k], "|"); got != v {
				t.Errorf("message %d: %s is %q, want %q", i, k, got, v)
			}
		}
	}
	if got := []string{calls[0].Body, calls[1].Body, calls[2].Body, calls[3].Body}; !slices.Equal(got, []string{`{"n":1}`, "", "\xff\x00", "a,b"}) {
		t.Errorf("bodies %q", got)
	}
	triggertest.Until(t, "the place is kept", func() bool { return h.place("brasa-"+tr.UID, topic, 0) == 4 })
}

func kafkaCompressed(t *testing.T, s *kafkaServer) {
	h := s.beside(t, nil)
	topic := h.topic(1)
	n := 0
	for _, codec := range []kgo.CompressionCodec{kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		cl := kafkaClient(t, s.open, kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(50*time.Millisecond))
		if err := cl.ProduceSync(t.Context(), numbers(topic, 0, n, n+50)...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		n += 50
	}
	h.Run()
	h.Trigger("t", "kafka", h.config(topic))
	h.wantOnce(n)
}

// The place moves when functions have done their work, and not before; past what failed for good too.
func kafkaAcknowledgesWork(t *testing.T, s *kafkaServer) {
	h := s.beside(t, nil)
	topic := h.topic(1)
	h.send(numbers(topic, 0, 0, 6)...)
	release := make(chan struct{})
	h.Node.Do(func(c triggertest.Call) error {
		if c.Body == "2" {
			await(t, release)
		}
		if c.Body == "1" && c.Attempt == 1 || c.Body == "4" {
			return &faas.Error{Code: faas.Failed, Op: "run", Err: errors.New("not today")}
		}
		return nil
	})
	h.once("f")
	h.Run()
	tr := h.Trigger("t", "kafka", h.config(topic, "order", "none"))
	group := "brasa-" + tr.UID
	triggertest.Until(t, "all began", func() bool { return len(h.times()) == 6 })
	triggertest.Until(t, "the place of what is done", func() bool { return h.place(group, topic, 0) == 2 })
	for range 10 { // longer than places take to be kept
		time.Sleep(50 * time.Millisecond)
		if at := h.place(group, topic, 0); at != 2 {
			t.Fatalf("the place is %d while message 2 is worked on", at)
		}
	}
	close(release)
	triggertest.Until(t, "the place behind all", func() bool { return h.place(group, topic, 0) == 6 })
	if n := h.times(); n["0"] != 1 || n["1"] != 2 || n["4"] != 2 {
		t.Errorf("attempts by message: %v, want one, and two of those that failed", n)
	}
}
