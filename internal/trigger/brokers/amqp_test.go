package brokers_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger"
	"github.com/brasa-dev/brasa/internal/trigger/triggertest"
)

func TestWhatAMQPCannotBeAskedIsRefused(t *testing.T) {
	wantRefused(t, []refused{
		{"amqp", `{"queue":"q"}`, "url is missing"},
		{"amqp", `{"url":"http://x:1","queue":"q"}`, "no address"},
		{"amqp", `{"url":"amqp://u:p4ss@x:1","queue":"q"}`, "brasa secret put"},
		{"amqp", `{"url":"amqp://x?cacertfile=/etc/shadow","queue":"q"}`, "other fields"},
		{"amqp", `{"url":"amqp://x"}`, "queue is missing"},
		{"amqp", `{"url":"amqp://x","queue":"q","exchange":"e"}`, "declare"},
		{"amqp", `{"url":"amqp://x","queue":"q","declare":true,"binding_key":"k"}`, "exchange is missing"},
		{"amqp", `{"url":"amqp://x","queue":"q","parallel":-1}`, "parallel"},
		{"amqp", `{"url":"amqp://x","queue":"q","secret":"T"}`, "T"},
		{"amqp", `{"url":"amqp://x","queue":"q","cert":"S"}`, "amqps://"},
		{"amqp", fmt.Sprintf(`{"url":"amqp://x","queue":%q}`, strings.Repeat("q", 256)), "255"},
	})
}

func TestAMQPConnectsThroughTheGuard(t *testing.T) {
	wantDialed(t, "amqp", `{"url":"amqp://broker.test/v","queue":"q","secret":"S"}`, "broker.test:5672")
	wantDialed(t, "amqp", `{"url":"amqps://broker.test","queue":"q"}`, "broker.test:5671")
}

// A broker that misbehaves ends its own trigger's connection, and nothing else.
func TestAMQPBrokersThatMisbehave(t *testing.T) {
	h := amqpHouse(t)
	h.Run()
	for name, c := range map[string]struct{ answer, want string }{
		"web":      {"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak AMQP 0.9.1"},
		"newer":    {"AMQP\x00\x01\x00\x00", "does not speak AMQP 0.9.1"},
		"huge":     {"\x01\x00\x00\xff\xff\xff\xff", "does not speak AMQP 0.9.1"},
		"nonsense": {"\x01\x00\x00\x00\x00\x00\x04\xff\xff\xff\xff\xce", "127.0.0.1"},
	} {
		h.Trigger(name, "amqp", map[string]any{"url": "amqp://" + fakeBroker(t, []byte(c.answer)), "queue": "q"})
		wantStatus(t, h, name, c.want)
	}
}

// One RabbitMQ serves all that follows: it takes seconds to start.
func TestRabbitMQ(t *testing.T) {
	r := startRabbit(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, *rabbit)
	}{
		{"messages as events", amqpEvents},
		{"acknowledges work", amqpAcknowledgesWork},
		{"a manager that is ended", amqpManagerEnded},
		{"a queue that is made", amqpDeclares},
		{"a message that is too large", amqpTooLarge},
		{"a message that is given back", amqpGivenBack},
		{"a queue that is deleted", amqpQueueDeleted},
		{"TLS", amqpTLS},
		{"refusals", amqpRefusals},
		{"a broker that goes away and comes back", amqpComesBack},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, r) })
	}
}

func amqpEvents(t *testing.T, r *rabbit) {
	ch := amqpClient(t, r)
	queue(t, ch, "events", nil)
	h := amqpHouse(t)
	h.Run()
	h.Trigger("t", "amqp", r.config("events"), "LOGIN")
	when := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	for range 2 { // the same ID is the same event
		put(t, ch, "", "events", amqp.Publishing{
			MessageId: "m-1", ContentType: "application/xml", Timestamp: when, CorrelationId: "c-1", ReplyTo: "answers", Type: "order", AppId: "shop", Priority: 3, Expiration: "600000",
			Headers: amqp.Table{"trace id": "50% ü", "n": int32(7), "list": []any{"a", int64(1)}, "raw": []byte{0xff}, "nested": amqp.Table{"a": true}, "when": when, "none": nil}, Body: []byte("<a/>"),
		})
	}
	put(t, ch, "", "events", amqp.Publishing{Body: []byte(`{"n":1}`)})
	put(t, ch, "", "events", amqp.Publishing{Body: []byte("\x00\xff")})
	put(t, ch, "", "events", amqp.Publishing{})
	triggertest.Until(t, "all calls", func() bool { return len(made(h)) == 4 })
	triggertest.Until(t, "all acknowledged", func() bool { n, _ := depth(t, ch, "events"); return n == 0 })
	for _, call := range h.Node.Calls() {
		want := map[string]string{"Ce-Type": "brasa.amqp.message", "Ce-Subject": "events"}
		switch call.Body {
		case "<a/>":
			for k, v := range map[string]string{
				"Ce-Id": "m-1", "Content-Type": "application/xml", "Ce-Time": "2024-05-06T07:08:09Z", "X-Amqp-Correlation-Id": "c-1", "X-Amqp-Reply-To": "answers",
				"X-Amqp-Type": "order", "X-Amqp-App-Id": "shop", "X-Amqp-Priority": "3", "X-Amqp-Expiration": "600000", "X-Amqp-Header-Trace-Id": "50%25 %C3%BC", "X-Amqp-Header-N": "7",
				"X-Amqp-Header-List": `["a",1]`, "X-Amqp-Header-Raw": "/w==", "X-Amqp-Header-Nested": `{"a":true}`, "X-Amqp-Header-When": "2024-05-06T07:08:09Z", "X-Amqp-Header-None": "null",
			} {
				want[k] = v
			}
		case `{"n":1}`:
			want["Content-Type"] = "application/json"
		case "\x00\xff":
			want["Content-Type"] = "application/octet-stream"
		}
		for k, v := range want {
			if got := strings.Join(call.Header[k], "|"); got != v {
				t.Errorf("%q: %s is %q, want %q", call.Body, k, got, v)
			}
		}
	}
	if n := made(h)["<a/>"]; n != 1 {
		t.Errorf("two messages with the same ID made %d calls, want 1", n)
	}
}

// A message is acknowledged when its function has done its work, and not before.
func amqpAcknowledgesWork(t *testing.T, r *rabbit) {
	ch := amqpClient(t, r)
	queue(t, ch, "work", nil)
	for n := range 5 {
		put(t, ch, "", "work", amqp.Publishing{Body: []byte(fmt.Sprint(n))})
	}
	h := amqpHouse(t)
	work := hold(t, h, "0", "1")
	h.Node.Do(func(call triggertest.Call) error {
		work.wait(call.Body)
		if call.Body == "2" && call.Attempt == 1 {
			return &faas.Error{Code: faas.Failed, Op: "run", Err: fmt.Errorf("not today")}
		}
		return nil
	})
	h.Run()
	h.Trigger("t", "amqp", r.config("work", "parallel", 2), "LOGIN")
	triggertest.Until(t, "the first two", func() bool { return len(made(h)) == 2 })
	time.Sleep(300 * time.Millisecond)
	if got := made(h); len(got) != 2 {
		t.Errorf("%v were told, want no more than may be under way", got)
	}
	if n, _ := depth(t, ch, "work"); n != 3 {
		t.Errorf("%d messages wait at the broker, want 3", n)
	}
	work.release("1") // it is acknowledged though the one before it is not
	triggertest.Until(t, "all others", func() bool { return len(made(h)) == 5 })
	work.release("0")
	triggertest.Until(t, "all settled", func() bool { n, _ := depth(t, ch, "work"); return n == 0 && made(h)["2"] == 2 })
	h.Run()()
	for body, n := range made(h) {
		if want := map[bool]int{true: 2, false: 1}[body == "2"]; n != want {
			t.Errorf("%s was told %d times, want %d", body, n, want)
		}
	}
}

// A manager that is ended in the middle of work loses nothing, and a message that has an ID makes no
// second call.
func amqpManagerEnded(t *testing.T, r *rabbit) {
	ch := amqpClient(t, r)
	queue(t, ch, "ended", nil)
	h := amqpHouse(t)
	work := hold(t, h, "0", "1", "2", "3")
	stop := h.Run()
	h.Trigger("t", "amqp", r.config("ended", "parallel", 4), "LOGIN")
	for n := range 20 {
		put(t, ch, "", "ended", amqp.Publishing{MessageId: fmt.Sprint("id-", n), Body: []byte(fmt.Sprint(n))})
	}
	triggertest.Until(t, "some calls", func() bool { return len(made(h)) == 4 })
	stop()
	triggertest.Until(t, "all are with the broker again", func() bool { n, by := depth(t, ch, "ended"); return n == 20 && by == 0 })
	h.Run()
	for n := range 4 {
		work.release(fmt.Sprint(n))
	}
	triggertest.Until(t, "all calls", func() bool { return len(made(h)) == 20 })
	triggertest.Until(t, "none is left", func() bool { n, _ := depth(t, ch, "ended"); return n == 0 })
	for n := range 20 {
		if got := made(h)[fmt.Sprint(n)]; got != 1 {
			t.Errorf("message %d was told %d times, want once", n, got)
		}
	}
}

func amqpDeclares(t *testing.T, r *rabbit) {
	ch := amqpClient(t, r)
	if err := ch.ExchangeDeclare("orders", "topic", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	h := amqpHouse(t)
	h.Run()
	h.Trigger("t", "amqp", r.config("made", "declare", true, "exchange", "orders", "binding_key", []string{"eu.*", "us.*"}), "LOGIN")
	triggertest.Until(t, "the messages of both keys", func() bool {
		put(t, ch, "orders", "eu.1", amqp.Publishing{MessageId: "eu", Body: []byte("eu")})
		put(t, ch, "orders", "us.1", amqp.Publishing{MessageId: "us", Body: []byte("us")})
		put(t, ch, "orders", "asia.1", amqp.Publishing{MessageId: "asia", Body: []byte("asia")})
		time.Sleep(20 * time.Millisecond)
		return made(h)["eu"] == 1 && made(h)["us"] == 1
	})
	if made(h)["asia"] > 0 {
		t.Error("a message of another key was told of")
	}
	for _, c := range h.Node.Calls() {
		if got := strings.Join(c.Header["X-Amqp-Exchange"], "|"); got != "orders" {
			t.Errorf("the exchange is %q, want orders", got)
		}
	}
	// A queue that is there with other properties is not changed.
	h.Trigger("other", "amqp", r.config("made", "declare", true, "dead_letter_exchange", "dlx"), "LOGIN")
	wantStatus(t, h, "other", "precondition failed", "leave out declare")
	h.Trigger("unbound", "amqp", r.config("unbound", "declare", true, "exchange", "no-such"), "LOGIN")
	wantStatus(t, h, "unbound", "exchange", "no-such", "not found", "make it in the broker")
}

// A message that no event can hold, and one with which no function can be called, are passed to the
// dead-letter exchange, and hold up no other.
func amqpTooLarge(t *testing.T, r *rabbit) {
	ch := amqpClient(t, r)
	queue(t, ch, "dead", nil)
	h := amqpHouse(t)
	h.Run()
	queue(t, ch, "poison", amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
	large := strings.Repeat("x", int(trigger.MaxData)+1)
	put(t, ch, "", "poison", amqp.Publishing{Body: []byte(large)})
	put(t, ch, "", "poison", amqp.Publishing{Body: []byte(large + large)})
	put(t, ch, "", "poison", amqp.Publishing{Body: []byte("next")})
	put(t, ch, "", "poison", amqp.Publishing{Body: []byte(large[1:])})
	h.Trigger("t", "amqp", r.config("poison", "parallel", 1), "LOGIN")
	triggertest.Until(t, "what fits", func() bool { return made(h)["next"] == 1 && made(h)[large[1:]] == 1 })
	triggertest.Until(t, "none is left", func() bool { n, _ := depth(t, ch, "poison"); return n == 0 })
	for _, want := range []int{len(large), 2 * len(large)} {
		d, ok, err := ch.Get("dead", true)
		if err != nil || !ok || len(d.Body) != want {
			t.Errorf("the dead letter has %d bytes (%v, %v), want %d", len(d.Body), ok, err, want)
		}
	}
	wantPassed(t, h, "t", 2, "larger than an event may be")
	// The function is gone.
	if err := h.Catalog.Delete(t.Context(), faas.Name{Namespace: catalog.DefaultNamespace, Function: "f"}); err != nil {
		t.Fatal(err)
	}
	put(t, ch, "", "poison", amqp.Publishing{Body: []byte("nobody")})
	triggertest.Until(t, "it is a dead letter", func() bool { n, _ := depth(t, ch, "dead"); return n == 1 })
	wantPassed(t, h, "t", 3, "no function could be called")
}

// What can't be queued now is given back after a while, and comes again.
func amqpGivenBack(t *testing.T, r *rabbit) {
	ch := amqpClient(t, r)
	queue(t, ch, "back", nil)
	put(t, ch, "", "back", amqp.Publishing{Body: []byte("a")})
	full := make(chan struct{})
	told := make(chan bool, 100)
	runSource(t, "amqp", fmt.Sprintf(`{"url":"amqp://127.0.0.1:%s","queue":"back","secret":"S"}`, r.port), func(e faas.Event) error {
		told <- len(e.Header["X-Amqp-Redelivered"]) > 0
		select {
		case <-full:
			return nil
		default:
			return faas.Errorf(faas.Overloaded, "accept call", "the queue is full")
		}
	})
	if again := <-told; again {
		t.Error("the message was delivered before")
	}
	begun := time.Now()
	close(full)
	if again := <-told; !again {
		t.Error("a message that comes again is not said to")
	}
	if waited := time.Since(begun); waited < time.Second {
		t.Errorf("it came again after %s, want a pause", waited)
	}
	triggertest.Until(t, "none is left", func() bool { n, _ := depth(t, ch, "back"); return n == 0 })
}

func amqpQueueDeleted(t *testing.T, r *rabbit) {
	ch := amqpClient(t, r)
	queue(t, ch, "deleted", nil)
	h := amqpHouse(t)
	h.Run()
	h.Trigger("t", "amqp", r.config("deleted"), "LOGIN")
	amqpRead(t, ch, "deleted", 1)
	if _, err := ch.QueueDelete("deleted", false, false, false); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, h, "t", `"deleted"`, "make the queue in the broker")
	queue(t, ch, "deleted", nil)
	amqpRead(t, ch, "deleted", 1)
}

func amqpTLS(t *testing.T, r *rabbit) {
	ch := amqpClient(t, r)
	queue(t, ch, "tls", nil)
	h := amqpHouse(t)
	h.Secret("BRASA", r.authority.issue("brasa"))
	h.Secret("NOBODY", r.authority.issue("nobody"))
	h.Secret("STRANGER", newAuthority(t).issue("brasa"))
	h.Run()
	url := "amqps://127.0.0.1:" + r.tlsPort + "/%2F"
	by := func(cert string, more ...any) map[string]any {
		c := r.config("tls", append([]any{"url", url, "ca", r.ca, "cert", cert}, more...)...)
		return c
	}
	// The certificate alone, and one beside the user and the password.
	h.Trigger("t", "amqp", by("BRASA", "secret", ""), "BRASA")
	amqpRead(t, ch, "tls", 1)
	h.Trigger("both", "amqp", by("NOBODY"), "NOBODY", "LOGIN")
	amqpRead(t, ch, "tls", 2)
	put(t, ch, "", "tls", amqp.Publishing{Body: []byte("a")})
	triggertest.Until(t, "the call", func() bool { return made(h)["a"] == 1 })
	h.Trigger("nobody", "amqp", by("NOBODY", "secret", ""), "NOBODY")
	wantStatus(t, h, "nobody", "the broker lets us not in")
	h.Trigger("stranger", "amqp", by("STRANGER"), "STRANGER", "LOGIN")
	wantStatus(t, h, "stranger", "field cert")
	h.Trigger("none", "amqp", r.config("tls", "url", url, "ca", r.ca), "LOGIN")
	wantStatus(t, h, "none", "field cert")
	h.Trigger("unknown", "amqp", r.config("tls", "url", "amqps://127.0.0.1:"+r.tlsPort), "LOGIN")
	wantStatus(t, h, "unknown", "certificate", "field ca")
}

func amqpRefusals(t *testing.T, r *rabbit) {
	h := amqpHouse(t)
	h.Secret("WRONG", "brasa:p4ss")
	h.Run()
	h.Trigger("password", "amqp", r.config("q", "secret", "WRONG"), "WRONG")
	h.Trigger("queue", "amqp", r.config("no-such"), "LOGIN")
	h.Trigger("vhost", "amqp", r.config("q", "url", "amqp://127.0.0.1:"+r.port+"/no-such"), "LOGIN")
	h.Trigger("host", "amqp", r.config("q", "url", "amqp://no-such-host.invalid"), "LOGIN")
	h.Trigger("plain", "amqp", r.config("q", "url", "amqp://127.0.0.1:"+r.tlsPort), "LOGIN")
	h.Trigger("secure", "amqp", r.config("q", "url", "amqps://127.0.0.1:"+r.port), "LOGIN")
	wantStatus(t, h, "password", "secret", "connect to amqp://127.0.0.1:"+r.port)
	wantStatus(t, h, "queue", `"no-such"`, "declare")
	wantStatus(t, h, "vhost", "no-such", "url")
	wantStatus(t, h, "host", "amqp://no-such-host.invalid:5672")
	wantStatus(t, h, "plain", "amqp://127.0.0.1:"+r.tlsPort, "url")
	wantStatus(t, h, "secure", "does not speak TLS")
}
