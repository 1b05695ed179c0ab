package brokers_test

import (
	"context"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger"
	"github.com/brasa-dev/brasa/internal/trigger/triggertest"
)

// wire is what a source's connections go over: a test can count and cut.
type wire struct {
	read atomic.Int64 // bytes

	mu    sync.Mutex
	cut   bool              // guarded by mu
	deny  string            // guarded by mu; an address that may not be reached
	dead  string            // guarded by mu; an address where nobody is
	conns map[net.Conn]bool // guarded by mu
}

func (w *wire) through(o *trigger.Outside) {
	dial := o.Dial
	o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		w.mu.Lock()
		cut, deny := w.cut || address == w.dead, w.deny
		w.mu.Unlock()
		if address == deny {
			return nil, faas.Errorf(faas.Denied, "connect", "it may not be reached").WithFix("an administrator opens it with the key triggers.allow")
		}
		if cut {
			return nil, &net.OpError{Op: "dial", Net: network, Err: net.ErrClosed}
		}
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.conns == nil {
			w.conns = map[net.Conn]bool{}
		}
		w.conns[c] = true
		return countedConn{c, w}, nil
	}
}

// die has nobody be at an address any more; empty: somebody is everywhere again.
func (w *wire) die(address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = address
	for c := range w.conns {
		if c.RemoteAddr().String() == address {
			c.Close()
			delete(w.conns, c)
		}
	}
}

// cutOff ends all connections and lets none be made, or lets them again.
func (w *wire) cutOff(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
	for c := range w.conns {
		c.Close()
	}
	clear(w.conns)
}

type countedConn struct {
	net.Conn
	w *wire
}

func (c countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.w.read.Add(int64(n))
	return n, err
}

// logged is what sources say in the log.
type logged struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logged) into(o *trigger.Outside) {
	o.Log = slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// placeOf is the partition and the offset of the message that a call is of.
func placeOf(t testing.TB, c triggertest.Call) (partition, offset int) {
	t.Helper()
	place, _, _ := strings.Cut(c.Header["Ce-Id"][0], "@")
	parts := strings.Split(place, "/")
	if len(parts) != 3 {
		t.Errorf("the event's ID is %q", place)
		return 0, 0
	}
	partition, _ = strconv.Atoi(parts[1])
	offset, _ = strconv.Atoi(parts[2])
	return partition, offset
}

// row watches which messages of a row are worked on.
type row struct {
	mu   sync.Mutex
	busy map[string]bool // guarded by mu
	last map[string]int  // guarded by mu
}

// begin says what is wrong with beginning now.
func (r *row) begin(name string, offset int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy == nil {
		r.busy, r.last = map[string]bool{}, map[string]int{}
	}
	defer func() { r.busy[name], r.last[name] = true, offset }()
	if last, ok := r.last[name]; ok && last > offset {
		return "an earlier message comes after a later one"
	}
	if r.busy[name] {
		return "two messages at once"
	}
	return ""
}

func (r *row) end(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy[name] = false
}

func kafkaOrder(t *testing.T, s *kafkaServer) {
	t.Run("partition", func(t *testing.T) {
		h := s.beside(t, nil)
		topic := h.topic(2)
		h.send(numbers(topic, 0, 0, 30)...)
		h.send(numbers(topic, 1, 30, 60)...)
		var rows row
		others := make(chan struct{}, 60)
		h.Node.Do(func(c triggertest.Call) error {
			p, at := placeOf(t, c)
			if wrong := rows.begin(strconv.Itoa(p), at); wrong != "" {
				t.Errorf("partition %d, message %d: %s", p, at, wrong)
			}
			defer rows.end(strconv.Itoa(p))
			if p == 1 {
				others <- struct{}{}
			} else if at == 0 { // the other partition goes on meanwhile
				for range 30 {
					await(t, others)
				}
			}
			return nil
		})
		h.Run()
		h.Trigger("t", "kafka", h.config(topic))
		h.wantOnce(60)
	})
	t.Run("key", func(t *testing.T) {
		h := s.beside(t, nil)
		topic := h.topic(1)
		for n := range 20 {
			for _, key := range []string{"a", "b"} {
				h.send(&kgo.Record{Topic: topic, Key: []byte(key), Value: []byte(key + strconv.Itoa(n))})
			}
		}
		h.send(&kgo.Record{Topic: topic, Value: []byte("none")})
		var rows row
		others := make(chan struct{}, 60)
		h.Node.Do(func(c triggertest.Call) error {
			_, at := placeOf(t, c)
			if c.Body == "none" {
				others <- struct{}{}
				return nil
			}
			key := c.Body[:1]
			if wrong := rows.begin(key, at); wrong != "" {
				t.Errorf("key %s, message %d: %s", key, at, wrong)
			}
			defer rows.end(key)
			if key == "b" {
				others <- struct{}{}
			} else if at == 0 {
				for range 21 {
					await(t, others)
				}
			}
			return nil
		})
		h.Run()
		h.Trigger("t", "kafka", h.config(topic, "order", "key"))
		h.wantOnce(41)
	})
	t.Run("none", func(t *testing.T) {
		h := s.beside(t, nil)
		topic := h.topic(1)
		h.send(numbers(topic, 0, 0, 10)...)
		last := make(chan struct{})
		h.Node.Do(func(c triggertest.Call) error {
			switch _, at := placeOf(t, c); at {
			case 0:
				await(t, last)
			case 9:
				close(last)
			}
			return nil
		})
		h.Run()
		h.Trigger("t", "kafka", h.config(topic, "order", "none"))
		h.wantOnce(10)
	})
}

// A slow function holds up its partition, and neither the others nor the server's memory.
func kafkaWindow(t *testing.T, s *kafkaServer) {
	var w wire
	h := s.beside(t, w.through)
	topic := h.topic(2)
	const each, most = 16 << 10, 256 // 4 MiB in all
	for range most {
		h.send(&kgo.Record{Topic: topic, Value: make([]byte, each)}) // a batch of its own
	}
	h.send(numbers(topic, 1, 0, 20)...)
	release := make(chan struct{})
	h.Node.Do(func(c triggertest.Call) error {
		if p, _ := placeOf(t, c); p == 0 {
			await(t, release)
		}
		return nil
	})
	h.Run()
	tr := h.Trigger("t", "kafka", h.config(topic, "parallel", 4, "max_bytes", each, "order", "none"))
	triggertest.Until(t, "the other partition's messages", func() bool { return h.place("brasa-"+tr.UID, topic, 1) == 20 })
	triggertest.Until(t, "what fits is told", func() bool { return h.status().Events >= 24 })
	for range 10 {
		time.Sleep(30 * time.Millisecond)
		if n := h.status().Events; n != 24 {
			t.Fatalf("%d messages were told, want 4 of the slow partition and 20 of the other", n)
		}
	}
	if n := w.read.Load(); n > most*each/4 {
		t.Errorf("%d of %d bytes were fetched while the function is slow", n, most*each)
	}
	close(release)
	triggertest.Until(t, "more is fetched", func() bool { return h.place("brasa-"+tr.UID, topic, 0) > 32 })
}
