package brokers_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger"
	"github.com/brasa-dev/brasa/internal/trigger/brokers"
	"github.com/brasa-dev/brasa/internal/trigger/triggertest"
)

// mosquitto is a broker with the user brasa and the password s3cret, which writes each message to the
// disk as it comes. The user may not read topics of secret/#.
type mosquitto struct {
	*process
	program            string
	dir, port, tlsPort string
	certPort           string // of TLS, for those who show a certificate: it says who they are
	authority          *authority
	ca                 string // its certificate, PEM
}

func startMosquitto(t testing.TB) *mosquitto {
	t.Helper()
	m := &mosquitto{program: "mosquitto", dir: t.TempDir(), port: freePort(t), tlsPort: freePort(t), certPort: freePort(t)}
	if _, err := exec.LookPath(m.program); err != nil {
		m.program = "/usr/sbin/mosquitto" // which is not in everybody's path
	}
	if _, err := exec.LookPath(m.program); err != nil {
		t.Skip("mosquitto is not installed")
	}
	m.authority = newAuthority(t)
	m.ca = m.authority.ca
	for name, text := range map[string]string{
		"mosquitto.conf": "user root\nallow_anonymous false\npassword_file " + m.dir + "/passwords\nacl_file " + m.dir + "/acl\n" +
			"persistence true\npersistence_location " + m.dir + "/\nautosave_on_changes true\nautosave_interval 1\n" +
			"listener " + m.port + " 127.0.0.1\n" +
			"listener " + m.tlsPort + " 127.0.0.1\ncertfile " + m.dir + "/cert.pem\nkeyfile " + m.dir + "/cert.pem\n" +
			"listener " + m.certPort + " 127.0.0.1\ncertfile " + m.dir + "/cert.pem\nkeyfile " + m.dir + "/cert.pem\ncafile " + m.dir + "/ca.pem\n" +
			"require_certificate true\nuse_identity_as_username true\n",
		"ca.pem":    m.ca,
		"acl":       "user brasa\ntopic readwrite #\ntopic deny secret/#\n",
		"passwords": "",
		"cert.pem":  m.authority.issue("broker"),
	} {
		if err := os.WriteFile(filepath.Join(m.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("mosquitto_passwd", "-b", m.dir+"/passwords", "brasa", "s3cret").CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_passwd: %v: %s", err, out)
	}
	m.again(t)
	t.Cleanup(func() { m.kill() })
	return m
}

// again starts it anew.
func (m *mosquitto) again(t testing.TB) {
	t.Helper()
	m.process = start(t, 0, 0, m.dir, m.program, "-c", m.dir+"/mosquitto.conf")
	triggertest.Until(t, "Mosquitto answers", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+m.port)
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
}

// config is a trigger's, of the topic orders/#.
func (m *mosquitto) config(more ...any) map[string]any {
	c := map[string]any{"url": "mqtt://127.0.0.1:" + m.port, "secret": "LOGIN", "topic": "orders/#"}
	for i := 0; i+1 < len(more); i += 2 {
		c[more[i].(string)] = more[i+1]
	}
	return c
}

// mqttClient connects a client that publishes.
func mqttClient(t testing.TB, m *mosquitto) *paho.Client {
	t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+m.port)
	if err != nil {
		t.Fatal(err)
	}
	c := paho.NewClient(paho.ClientConfig{Conn: packets.NewThreadSafeConn(conn)})
	if _, err := c.Connect(t.Context(), &paho.Connect{
		ClientID: fmt.Sprint("publisher ", conn.LocalAddr()), KeepAlive: 30, CleanStart: true, UsernameFlag: true, Username: "brasa", PasswordFlag: true, Password: []byte("s3cret"),
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Disconnect(&paho.Disconnect{}) }) // or the broker is gone
	return c
}

func publish(t testing.TB, c *paho.Client, qos byte, topic, body string, change ...func(*paho.Publish)) {
	t.Helper()
	p := &paho.Publish{QoS: qos, Topic: topic, Payload: []byte(body), Properties: &paho.PublishProperties{}}
	for _, f := range change {
		f(p)
	}
	if _, err := c.Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

// mqttHouse is one with the broker's user and password.
func mqttHouse(t testing.TB) *triggertest.House {
	t.Helper()
	h := triggertest.Open(t, brokers.Kinds()...)
	h.Secret("LOGIN", "brasa:s3cret")
	return h
}

// subscribed waits until the broker has a subscription of a trigger that has just begun: until a
// message that is published again and again has led to a call.
func subscribed(t testing.TB, h *triggertest.House, c *paho.Client, topic string) {
	t.Helper()
	triggertest.Until(t, "the trigger is subscribed", func() bool {
		publish(t, c, 0, topic, "probe")
		time.Sleep(20 * time.Millisecond)
		return bodies(h.Node.Calls())["probe"] > 0
	})
}

// made returns the bodies of calls but for what subscribed sent.
func made(h *triggertest.House) map[string]int {
	all := bodies(h.Node.Calls())
	delete(all, "probe")
	return all
}

// holder is a function that works until it is let go on, by the body of the call.
type holder struct {
	mu   sync.Mutex
	held map[string]chan struct{}
}

func hold(t testing.TB, h *triggertest.House, bodies ...string) *holder {
	l := &holder{held: map[string]chan struct{}{}}
	for _, b := range bodies {
		l.held[b] = make(chan struct{})
	}
	h.Node.Do(func(c triggertest.Call) error {
		l.wait(c.Body)
		return nil
	})
	t.Cleanup(func() { // else a test that fails would wait for its functions
		for _, b := range bodies {
			l.release(b)
		}
	})
	return l
}

func (l *holder) wait(body string) {
	l.mu.Lock()
	wait := l.held[body]
	l.mu.Unlock()
	if wait != nil {
		<-wait
	}
}

func (l *holder) release(body string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if wait := l.held[body]; wait != nil {
		close(wait)
		delete(l.held, body)
	}
}

// running says whether a trigger's source runs and nothing is wrong that it has told of.
func running(h *triggertest.House, name string) bool {
	return h.Manager.Status(catalog.DefaultNamespace, name).Running
}

// runSource runs a source of its own, with the user and the password in the secret S, until the test
// ends.
func runSource(t testing.TB, kind, config string, told func(faas.Event) error) {
	t.Helper()
	kinds := brokers.Kinds()
	i := slices.IndexFunc(kinds, func(k trigger.Kind) bool { return k.Name == kind })
	source, err := kinds[i].New(trigger.Outside{
		Trigger: &faas.Trigger{Namespace: "n", Name: "t", UID: "u", Source: &faas.Source{Kind: kind, Secrets: []string{"S"}}},
		Secret:  func(context.Context, string) (string, error) { return "brasa:s3cret", nil },
		State:   &memory{}, Dial: (&net.Dialer{}).DialContext, Log: slog.New(slog.DiscardHandler), Now: time.Now,
	}, []byte(config))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- source.Run(ctx, func(_ context.Context, e faas.Event) (trigger.Fired, error) { return trigger.Fired{}, told(e) })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the source ended with %v", err)
		}
	})
}
