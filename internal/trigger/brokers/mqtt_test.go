package brokers_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/eclipse/paho.golang/paho"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger"
	"github.com/brasa-dev/brasa/internal/trigger/triggertest"
)

func TestWhatMQTTCannotBeAskedIsRefused(t *testing.T) {
	wantRefused(t, []refused{
		{"mqtt", `{"topic":"a"}`, "url is missing"},
		{"mqtt", `{"url":"http://x:1","topic":"a"}`, "no address"},
		{"mqtt", `{"url":"mqtt://u:p4ss@x:1","topic":"a"}`, "brasa secret put"},
		{"mqtt", `{"url":"mqtt://u:p4ss@x:port","topic":"a"}`, "no address"},
		{"mqtt", `{"url":"mqtt://x:1,mqtt://u:p4ss@y:1","topic":"a"}`, "password"},
		{"mqtt", `{"url":"mqtt://x/orders","topic":"a"}`, "path"},
		{"mqtt", `{"url":"mqtt://x?tls=no","topic":"a"}`, "url"},
		{"mqtt", `{"url":"mqtt://x"}`, "topic is missing"},
		{"mqtt", `{"url":"mqtt://x","topic":[]}`, "topic is missing"},
		{"mqtt", `{"url":"mqtt://x","topic":"a/#/b"}`, "a/#/b"},
		{"mqtt", `{"url":"mqtt://x","topic":["ok","a+/b"]}`, "a+/b"},
		{"mqtt", `{"url":"mqtt://x","topic":"$share/g"}`, "$share/GROUP/FILTER"},
		{"mqtt", `{"url":"mqtt://x","topic":"$share/g/"}`, "empty"},
		{"mqtt", `{"url":"mqtt://x","topic":"a","qos":3}`, "qos is 3"},
		{"mqtt", `{"url":"mqtt://x","topic":"a","qos":0,"session_expiry_ms":"1h"}`, "session_expiry_ms"},
		{"mqtt", `{"url":"mqtt://x","topic":"a","session_expiry_ms":"1s"}`, "from a minute"},
		{"mqtt", `{"url":"mqtt://x","topic":"a","parallel":100000}`, "parallel"},
		{"mqtt", `{"url":"mqtt://x","topic":"a","retained":"maybe"}`, "new, always or never"},
		{"mqtt", `{"url":"mqtt://x","topic":"a","secret":"T"}`, "T"},
		{"mqtt", `{"url":"mqtt://x","topic":"a","ca":"-----BEGIN CERTIFICATE-----"}`, "mqtts://"},
		{"mqtt", `{"url":"mqtts://x","topic":"a","ca":"S"}`, "PEM"},
		{"mqtt", `{"url":"wss://x","topic":"a","cert":"T"}`, "T"},
		{"mqtt", `{"url":"mqtt://x","topic":"a","quality":1}`, "quality"},
	})
}

func TestMQTTConnectsThroughTheGuard(t *testing.T) {
	for url, address := range map[string]string{
		"mqtt://broker.test": "broker.test:1883", "mqtts://broker.test:1": "broker.test:1", "ws://broker.test/mqtt": "broker.test:80", "wss://broker.test/mqtt": "broker.test:443",
	} {
		wantDialed(t, "mqtt", fmt.Sprintf(`{"url":%q,"topic":"a","secret":"S"}`, url), address)
	}
}

func TestMQTTMessagesAsEvents(t *testing.T) {
	m := startMosquitto(t)
	c := mqttClient(t, m)
	publish(t, c, 1, "orders/old", "kept", func(p *paho.Publish) { p.Retain = true })
	h := mqttHouse(t)
	h.Run()
	h.Trigger("t", "mqtt", m.config("topic", []string{"orders/+", "bills"}, "id_property", "key", "qos", 2), "LOGIN")
	triggertest.Until(t, "the retained message", func() bool { return made(h)["kept"] == 1 })
	utf8 := byte(1)
	publish(t, c, 2, "orders/eu", `{"n":1}`, func(p *paho.Publish) {
		p.Properties.ResponseTopic, p.Properties.CorrelationData = "answers/1", []byte{0, 0xff}
		p.Properties.User.Add("key", "k-1").Add("Trace id", "a").Add("trace-id", "50% ü")
	})
	triggertest.Until(t, "the call that the next message would make again", func() bool { return made(h)[`{"n":1}`] == 1 })
	publish(t, c, 1, "orders/eu", `{"n":1}`, func(p *paho.Publish) { p.Properties.User.Add("key", "k-1") })
	publish(t, c, 1, "bills", "\x00\xff")
	publish(t, c, 0, "bills", "text", func(p *paho.Publish) { p.Properties.PayloadFormat = &utf8 })
	publish(t, c, 0, "bills", "<a/>", func(p *paho.Publish) { p.Properties.ContentType = "application/xml" })
	publish(t, c, 1, "orders/eu", "")
	triggertest.Until(t, "all calls", func() bool { return len(made(h)) == 6 })
	for _, call := range h.Node.Calls() {
		want := map[string]string{"Ce-Type": "brasa.mqtt.message"}
		switch call.Body {
		case "kept":
			want["X-Mqtt-Retain"], want["Ce-Subject"], want["X-Mqtt-Qos"] = "true", "orders/old", "1"
		case `{"n":1}`:
			want["Ce-Id"], want["X-Mqtt-Response-Topic"], want["X-Mqtt-Correlation-Data"] = "k-1", "answers/1", "AP8="
			want["X-Mqtt-User-Trace-Id"], want["Content-Type"], want["X-Mqtt-Qos"], want["X-Mqtt-Retain"] = "a|50%25 %C3%BC", "application/json", "2", ""
		case "\x00\xff":
			want["Content-Type"], want["Ce-Subject"] = "application/octet-stream", "bills"
		case "text":
			want["Content-Type"], want["X-Mqtt-Qos"] = "text/plain; charset=utf-8", "0"
		case "<a/>":
			want["Content-Type"] = "application/xml"
		case "":
			want["Ce-Subject"], want["Content-Type"] = "orders/eu", ""
		}
		for k, v := range want {
			if got := strings.Join(call.Header[k], "|"); got != v {
				t.Errorf("%q: %s is %q, want %q", call.Body, k, got, v)
			}
		}
	}
	// What has the same ID is one event.
	if n := made(h)[`{"n":1}`]; n != 1 {
		t.Errorf("two messages with the same ID made %d calls, want 1", n)
	}
}

// A message is acknowledged when its function has done its work, and not before; acknowledgements come
// in the order of the messages.
func TestMQTTAcknowledgesWork(t *testing.T) {
	m := startMosquitto(t)
	c := mqttClient(t, m)
	for qos := byte(1); qos <= 2; qos++ {
		h := mqttHouse(t)
		work := hold(t, h, "0", "2")
		h.Run()
		h.Trigger("t", "mqtt", m.config("qos", qos, "parallel", 2), "LOGIN")
		subscribed(t, h, c, "orders/eu")
		for n := range 5 {
			publish(t, c, qos, "orders/eu", fmt.Sprint(n))
		}
		// The broker may have two out that are not acknowledged. The second has ended, but the first
		// before it has not.
		triggertest.Until(t, "the first two", func() bool { return made(h)["0"] == 1 && made(h)["1"] == 1 })
		time.Sleep(300 * time.Millisecond)
		if got := made(h); len(got) != 2 {
			t.Errorf("qos %d: %v were told while the first is worked on, want it and the next", qos, got)
		}
		work.release("0")
		triggertest.Until(t, "the next two", func() bool { return made(h)["2"] == 1 && made(h)["3"] == 1 })
		time.Sleep(300 * time.Millisecond)
		if got := made(h); len(got) != 4 {
			t.Errorf("qos %d: %v were told, want the first four", qos, got)
		}
		work.release("2")
		triggertest.Until(t, "all", func() bool { return len(made(h)) == 5 })
		for body, n := range made(h) {
			if n != 1 {
				t.Errorf("qos %d: %s was told %d times", qos, body, n)
			}
		}
	}
}

// A function that fails is tried again by its own policy, and its message acknowledged after that.
func TestMQTTFunctionThatFailsAtFirst(t *testing.T) {
	m := startMosquitto(t)
	c := mqttClient(t, m)
	h := mqttHouse(t)
	h.Node.Do(func(call triggertest.Call) error {
		if call.Body == "0" && call.Attempt == 1 {
			return &faas.Error{Code: faas.Failed, Op: "run", Err: io.ErrUnexpectedEOF}
		}
		return nil
	})
	h.Run()
	h.Trigger("t", "mqtt", m.config("parallel", 1), "LOGIN")
	subscribed(t, h, c, "orders/eu")
	publish(t, c, 1, "orders/eu", "0")
	publish(t, c, 1, "orders/eu", "1")
	triggertest.Until(t, "both", func() bool { return made(h)["0"] == 2 && made(h)["1"] == 1 })
}

// A broker that is killed in the middle of work is connected to again. What was under way is not told
// twice, and what came meanwhile is not lost.
func TestMQTTBrokerThatGoesAwayAndComesBack(t *testing.T) {
	m := startMosquitto(t)
	for qos := byte(1); qos <= 2; qos++ {
		h := mqttHouse(t)
		work := hold(t, h, "0")
		h.Run()
		h.Trigger("t", "mqtt", m.config("qos", qos), "LOGIN")
		c := mqttClient(t, m)
		subscribed(t, h, c, "orders/eu")
		publish(t, c, qos, "orders/eu", "0")
		triggertest.Until(t, "the first call", func() bool { return made(h)["0"] == 1 })
		waitSaved(t, m)
		m.kill()
		wantStatus(t, h, "t", "127.0.0.1:"+m.port, "refused")
		m.again(t)
		triggertest.Until(t, "the source runs", func() bool { return running(h, "t") })
		publish(t, mqttClient(t, m), qos, "orders/eu", "1")
		triggertest.Until(t, "the second call", func() bool { return made(h)["1"] == 1 })
		work.release("0")
		publish(t, mqttClient(t, m), qos, "orders/eu", "2")
		triggertest.Until(t, "the third call", func() bool { return made(h)["2"] == 1 })
		if n := made(h)["0"]; n != 1 {
			t.Errorf("qos %d: the message under way was told %d times, want once", qos, n)
		}
		if s := h.Manager.Status(catalog.DefaultNamespace, "t"); s.Error != "" {
			t.Errorf("qos %d: the status says %q after all is well", qos, s.Error)
		}
	}
}

// waitSaved waits until the broker has written what it knows.
func waitSaved(t *testing.T, m *mosquitto) {
	t.Helper()
	before := strings.Count(m.out.String(), "Saving in-memory database")
	c := mqttClient(t, m)
	triggertest.Until(t, "the broker has saved", func() bool {
		publish(t, c, 1, "other", "x", func(p *paho.Publish) { p.Retain = true })
		time.Sleep(10 * time.Millisecond)
		return strings.Count(m.out.String(), "Saving in-memory database") > before+1
	})
}

// A manager that is ended in the middle of work finds it again, makes no second call, and gets what
// came while it was away. One that has lost its memory makes second calls, and loses nothing.
func TestMQTTAndAManagerThatIsEnded(t *testing.T) {
	m := startMosquitto(t)
	c := mqttClient(t, m)
	h := mqttHouse(t)
	work := hold(t, h, "0", "1", "2", "3")
	stop := h.Run()
	h.Trigger("t", "mqtt", m.config("parallel", 4, "client_id", "one"), "LOGIN")
	subscribed(t, h, c, "orders/eu")
	for n := range 10 {
		publish(t, c, 1, "orders/eu", fmt.Sprint(n))
	}
	triggertest.Until(t, "some calls", func() bool { return len(made(h)) == 4 })
	stop()
	for n := 10; n < 20; n++ {
		publish(t, c, 1, "orders/eu", fmt.Sprint(n))
	}
	if n := len(made(h)); n != 4 {
		t.Errorf("%d messages were told when the manager had ended, want 4", n)
	}
	stop = h.Run()
	for n := range 4 {
		work.release(fmt.Sprint(n))
	}
	triggertest.Until(t, "all calls", func() bool { return len(made(h)) == 20 })
	stop()
	for n := range 20 {
		if got := made(h)[fmt.Sprint(n)]; got != 1 {
			t.Errorf("message %d was told %d times, want once", n, got)
		}
	}

	// Its memory is gone, as if it had been killed: the broker has messages that were not acknowledged.
	h = mqttHouse(t)
	work = hold(t, h, "x")
	stop = h.Run()
	h.Trigger("t", "mqtt", m.config("client_id", "one"), "LOGIN")
	triggertest.Until(t, "the source runs", func() bool { return running(h, "t") })
	publish(t, c, 1, "orders/eu", "x")
	publish(t, c, 1, "orders/eu", "y")
	triggertest.Until(t, "calls", func() bool { return made(h)["x"] == 1 && made(h)["y"] == 1 })
	stop()
	work.release("x")
	other := mqttHouse(t)
	other.Run()
	other.Trigger("t", "mqtt", m.config("client_id", "one"), "LOGIN")
	triggertest.Until(t, "what was not acknowledged comes again", func() bool { return made(other)["x"] == 1 && made(other)["y"] == 1 })
}

// Members of a group share what comes.
func TestMQTTSharedSubscription(t *testing.T) {
	m := startMosquitto(t)
	c := mqttClient(t, m)
	h := mqttHouse(t)
	h.Run()
	for _, name := range []string{"a", "b"} {
		h.Trigger(name, "mqtt", m.config("topic", "$share/g/orders/#"), "LOGIN")
		triggertest.Until(t, "member "+name+" gets some", func() bool {
			publish(t, c, 0, "orders/eu", "probe")
			time.Sleep(5 * time.Millisecond)
			for _, call := range h.Node.Calls() {
				if call.Header["Ce-Brasatrigger"][0] == name {
					return true
				}
			}
			return false
		})
	}
	for n := range 50 {
		publish(t, c, 1, "orders/eu", fmt.Sprint(n))
	}
	triggertest.Until(t, "all calls", func() bool { return len(made(h)) == 50 })
	for body, n := range made(h) {
		if n != 1 {
			t.Errorf("%s was told %d times, want once", body, n)
		}
	}
}

// A trigger that is changed leaves the topics that it had.
func TestMQTTTopicsThatAreChanged(t *testing.T) {
	m := startMosquitto(t)
	c := mqttClient(t, m)
	h := mqttHouse(t)
	h.Run()
	made1 := h.Trigger("t", "mqtt", m.config("topic", []string{"a", "b"}), "LOGIN")
	subscribed(t, h, c, "a")
	changed := *made1
	changed.Source = &faas.Source{Kind: "mqtt", Config: bytes.Replace(made1.Source.Config, []byte(`["a","b"]`), []byte(`["b","c"]`), 1), Secrets: made1.Source.Secrets}
	if err := h.Catalog.PutTrigger(t.Context(), &changed, true); err != nil {
		t.Fatal(err)
	}
	triggertest.Until(t, "the new topic is read", func() bool {
		publish(t, c, 1, "c", "new")
		time.Sleep(20 * time.Millisecond)
		return made(h)["new"] > 0
	})
	publish(t, c, 1, "a", "left")
	publish(t, c, 1, "b", "still")
	triggertest.Until(t, "the topic that stayed", func() bool { return made(h)["still"] == 1 })
	if made(h)["left"] > 0 {
		t.Error("a topic that the trigger has no more was told of")
	}
}

func TestMQTTByTLSAndByWebSocket(t *testing.T) {
	m := startMosquitto(t)
	c := mqttClient(t, m)
	h := mqttHouse(t)
	h.Secret("NOCERT", "p4ss")
	h.Run()
	h.Trigger("tls", "mqtt", m.config("url", "mqtts://127.0.0.1:"+m.tlsPort, "ca", m.ca), "LOGIN")
	subscribed(t, h, c, "orders/eu")
	h.Trigger("unknown", "mqtt", m.config("url", "mqtts://127.0.0.1:"+m.tlsPort), "LOGIN")
	wantStatus(t, h, "unknown", "certificate", "field ca")
	h.Trigger("nocert", "mqtt", m.config("url", "mqtts://127.0.0.1:"+m.tlsPort, "ca", m.ca, "cert", "NOCERT"), "LOGIN", "NOCERT")
	wantStatus(t, h, "nocert", "cert", "NOCERT", "PEM")
	h.Trigger("plain", "mqtt", m.config("url", "mqtts://127.0.0.1:"+m.port), "LOGIN")
	wantStatus(t, h, "plain", "connect to mqtts://127.0.0.1")

	// Debian's Mosquitto has no WebSockets: they are unwrapped before it.
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"mqtt"}})
		if err != nil {
			return
		}
		defer ws.CloseNow()
		to, err := net.Dial("tcp", "127.0.0.1:"+m.port)
		if err != nil {
			return
		}
		defer to.Close()
		ws.SetReadLimit(-1)
		from := websocket.NetConn(r.Context(), ws, websocket.MessageBinary)
		go func() { _, _ = io.Copy(from, to); from.Close() }()
		_, _ = io.Copy(to, from)
	}))
	t.Cleanup(door.Close)
	h.Trigger("ws", "mqtt", m.config("url", strings.Replace(door.URL, "http", "ws", 1)+"/mqtt", "topic", "by/ws"), "LOGIN")
	triggertest.Until(t, "the source runs", func() bool {
		publish(t, c, 1, "by/ws", strings.Repeat("x", 100_000))
		time.Sleep(20 * time.Millisecond)
		return len(made(h)) == 1
	})
	t.Cleanup(h.Run()) // end it before the door
}

func TestMQTTThatRefuses(t *testing.T) {
	m := startMosquitto(t)
	h := mqttHouse(t)
	h.Secret("WRONG", "brasa:p4ss")
	h.Secret("NOPAIR", "p4ss")
	h.Run()
	h.Trigger("password", "mqtt", m.config("secret", "WRONG"), "WRONG")
	wantStatus(t, h, "password", "uthorized", "secret")
	h.Trigger("nopair", "mqtt", m.config("secret", "NOPAIR"), "NOPAIR")
	wantStatus(t, h, "nopair", "NOPAIR", "USER:PASSWORD")
	h.Trigger("host", "mqtt", m.config("url", "mqtt://no-such-host.invalid"), "LOGIN")
	wantStatus(t, h, "host", "mqtt://no-such-host.invalid:1883")
	h.Trigger("either", "mqtt", m.config("url", "mqtt://127.0.0.1:1, mqtt://127.0.0.1:"+m.port), "LOGIN")
	c := mqttClient(t, m)
	subscribed(t, h, c, "orders/eu")

	// Two clients with one ID throw each other out.
	h.Trigger("first", "mqtt", m.config("client_id", "same"), "LOGIN")
	h.Trigger("second", "mqtt", m.config("client_id", "same"), "LOGIN")
	wantStatus(t, h, "first", `client_id "same"`)
}

// fakeBroker answers each connection's first packet with bytes.
func fakeBroker(t testing.TB, answer []byte) string {
	t.Helper()
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
				buf := make([]byte, 4096)
				if _, err := c.Read(buf); err != nil {
					return
				}
				if _, err := c.Write(answer); err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, c)
			}()
		}
	}()
	return l.Addr().String()
}

func TestMQTTBrokersThatMisbehave(t *testing.T) {
	h := mqttHouse(t)
	h.Run()
	connack := []byte{0x20, 3, 0, 0, 0}
	for name, c := range map[string]struct {
		answer []byte
		want   string
	}{
		"old":     {[]byte{0x20, 2, 0, 1}, "MQTT 5"},
		"version": {[]byte{0x20, 3, 0, 0x84, 0}, "MQTT 5"},
		"huge":    {append(bytes.Clone(connack), 0x90, 0xff, 0xff, 0xff, 0x7f), "without an end"},
		"endless": {append(bytes.Clone(connack), 0x30, 0xff, 0xff, 0xff, 0xff), "without an end"},
		"auth":    {append([]byte{0x20, 7, 0, 0, 4, 0x15, 0, 1, 'x'}, 0xe0, 2, 0x8b, 0), "shutting down"},
		"web":     {[]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), "does not speak MQTT"},
		"puback":  {append(bytes.Clone(connack), 0x40, 2, 0, 1, 0x50, 2, 0, 1, 0xe0, 2, 0x8b, 0), "shutting down"},
		"twice":   {append(bytes.Clone(connack), 0x32, 6, 0, 1, 'a', 0, 9, 0, 0x32, 6, 0, 1, 'a', 0, 9, 0), "two messages"},
	} {
		h.Node.Do(func(triggertest.Call) error { time.Sleep(200 * time.Millisecond); return nil })
		h.Trigger(name, "mqtt", map[string]any{"url": "mqtt://" + fakeBroker(t, c.answer), "topic": "a"})
		wantStatus(t, h, name, c.want)
	}
}

// A message that no event can hold holds up no other.
func TestMQTTMessageThatIsTooLarge(t *testing.T) {
	m := startMosquitto(t)
	c := mqttClient(t, m)
	h := mqttHouse(t)
	h.Run()
	h.Trigger("t", "mqtt", m.config("parallel", 1), "LOGIN")
	subscribed(t, h, c, "orders/eu")
	publish(t, c, 1, "orders/eu", strings.Repeat("x", int(trigger.MaxData)+1)) // no rule takes it
	publish(t, c, 1, "orders/eu", strings.Repeat("y", int(trigger.MaxData)+2<<20))
	publish(t, c, 1, "orders/eu", "next")
	triggertest.Until(t, "the next", func() bool { return made(h)["next"] == 1 })
	if n := len(made(h)); n != 1 {
		t.Errorf("%d messages were told, want the one that fits", n)
	}
	wantPassed(t, h, "t", 2, "")
}
