package brokers

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger"
)

var amqpKind = trigger.Kind{Name: "amqp", Doc: "messages of a queue of RabbitMQ or another AMQP 0.9.1 broker, acknowledged when the functions have succeeded", New: newAMQP}

// amqpConfig says where messages come from.
type amqpConfig struct {
	URL    string `json:"url"`              // amqp://HOST:PORT/VHOST or amqps://…, several with commas between
	Secret string `json:"secret,omitempty"` // the name of a secret with USER:PASSWORD; without: guest
	brokerTLS
	Queue    string `json:"queue"`
	Parallel int    `json:"parallel,omitempty"` // messages whose functions are under way at once; default 64

	// Declare has the queue made, durable, if it is not there.
	Declare bool `json:"declare,omitempty"`
	// Exchange is one that exists, to which a declared queue is bound with each of Keys.
	Exchange string `json:"exchange,omitempty"`
	Keys     topics `json:"binding_key,omitempty"`
	// DeadLetter is the exchange to which a declared queue passes on messages that no function can be
	// called with.
	DeadLetter string `json:"dead_letter_exchange,omitempty"`
}

const (
	amqpParallel  = 64
	amqpMost      = 10_000
	amqpHeartbeat = 10 * time.Second
)

var amqpPorts = map[string]string{"amqp": "5672", "amqps": "5671"}

// amqpSource tells of messages of a queue. A message is acknowledged when its functions have succeeded,
// or were given up and lie with the dead letters. One that could not be queued is given back after a
// while, and comes again. One with which no function can be called is rejected, so that the queue's
// dead-letter exchange gets it.
type amqpSource struct {
	o         trigger.Outside
	config    amqpConfig
	addresses []*url.URL
}

func newAMQP(o trigger.Outside, config json.RawMessage) (trigger.Source, error) {
	s := &amqpSource{o: o}
	if err := trigger.Read(config, &s.config); err != nil {
		return nil, err
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *amqpSource) check() error {
	c := &s.config
	var err error
	if s.addresses, err = addresses(c.URL, amqpPorts, "amqp://HOST:PORT/VHOST or amqps://HOST:PORT/VHOST"); err != nil {
		return err
	}
	if err := checkSecret(s.o, c.Secret); err != nil {
		return err
	}
	if err := c.brokerTLS.check(s.o, s.addresses, "amqps"); err != nil {
		return err
	}
	if c.Queue == "" {
		return trigger.Invalid("queue is missing")
	}
	for _, f := range []struct{ field, name string }{
		{"queue", c.Queue}, {"exchange", c.Exchange}, {"dead_letter_exchange", c.DeadLetter}, {"binding_key", longest(c.Keys)},
	} {
		if len(f.name) > 255 || !utf8.ValidString(f.name) {
			return trigger.Invalid("%s: %.60q is no name: it has at most 255 bytes", f.field, f.name)
		}
	}
	if !c.Declare && (c.Exchange != "" || len(c.Keys) > 0 || c.DeadLetter != "") {
		return trigger.Invalid("exchange, binding_key and dead_letter_exchange are of a queue that is made").WithFix("set declare to true, or leave them out for a queue that exists")
	}
	if len(c.Keys) > 0 && c.Exchange == "" {
		return trigger.Invalid("binding_key is of an exchange, and exchange is missing")
	}
	c.Parallel = cmp.Or(c.Parallel, amqpParallel)
	if c.Parallel < 1 || c.Parallel > amqpMost {
		return trigger.Invalid("parallel is %d; it is from 1 to %d", c.Parallel, amqpMost).WithLimit("parallel")
	}
	return nil
}

func longest(all []string) string {
	var l string
	for _, s := range all {
		if len(s) > len(l) {
			l = s
		}
	}
	return l
}

// vhost is the part of a broker that a URL names.
func vhost(u *url.URL) string {
	return cmp.Or(strings.TrimPrefix(u.Path, "/"), "/")
}

// connect connects to the first broker that can be.
func (s *amqpSource) connect(ctx context.Context) (conn *amqp.Connection, guard *amqpConn, err error) {
	user, password := "guest", "guest"
	if s.config.Secret != "" {
		if user, password, err = userAndPassword(ctx, s.o, s.config.Secret); err != nil {
			return nil, nil, err
		}
	}
	sasl := []amqp.Authentication{&amqp.PlainAuth{Username: user, Password: password}}
	if s.config.Secret == "" && s.config.Cert != "" {
		sasl = []amqp.Authentication{&amqp.ExternalAuth{}} // known by the certificate
	}
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName("brasa trigger " + s.o.Trigger.Name)
	err = eachAddress(ctx, s.addresses, func(ctx context.Context, u *url.URL) error {
		t, err := s.config.brokerTLS.config(ctx, s.o, u.Hostname())
		if err != nil {
			return err
		}
		if u.Scheme == "amqp" {
			t = nil
		}
		raw, err := dial(ctx, s.o, u, t)
		if err != nil {
			return err
		}
		if deadline, ok := ctx.Deadline(); ok {
			if err := raw.SetDeadline(deadline); err != nil { // the library ends it once we are let in
				_ = raw.Close() // it has failed
				return err
			}
		}
		stop := context.AfterFunc(ctx, func() { _ = raw.Close() }) // the library does not look at ctx
		defer stop()
		guard = newAMQPConn(raw)
		conn, err = amqp.Open(guard, amqp.Config{
			SASL: sasl, Vhost: vhost(u), Heartbeat: amqpHeartbeat, Locale: "en_US", FrameSize: amqpFrame, Properties: properties,
		})
		if err != nil {
			_ = raw.Close() // the library has done so, mostly
			return cmp.Or(guard.refused(), amqpReason(err, vhost(u)))
		}
		return nil
	})
	return conn, guard, err
}

// eventOf is a message as an event.
func (s *amqpSource) eventOf(d *amqp.Delivery) faas.Event {
	e := faas.Event{
		ID: d.MessageId, Source: strings.TrimSpace(strings.Split(s.config.URL, ",")[0]), Type: "brasa.amqp.message", Subject: d.RoutingKey,
		Time: d.Timestamp, Data: d.Body, ContentType: contentType(d.ContentType, d.Body), Header: map[string][]string{},
	}
	if e.Time.IsZero() {
		e.Time = s.o.Now()
	}
	said := func(name, value string) {
		if value != "" {
			setHeader(e.Header, "X-Amqp-", name, value)
		}
	}
	said("Exchange", d.Exchange)
	said("Content-Encoding", d.ContentEncoding)
	said("Correlation-Id", d.CorrelationId)
	said("Reply-To", d.ReplyTo)
	said("Type", d.Type)
	said("User-Id", d.UserId)
	said("App-Id", d.AppId)
	said("Expiration", d.Expiration)
	if d.Priority > 0 {
		said("Priority", fmt.Sprint(d.Priority))
	}
	if d.Redelivered {
		said("Redelivered", "true")
	}
	for k, v := range d.Headers {
		setHeader(e.Header, "X-Amqp-Header-", k, amqpText(v))
	}
	return e
}

// amqpText writes a field of a table: text as it is, all else as JSON would be, bytes that are no text
// in base64.
func amqpText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []byte:
		if utf8.Valid(v) {
			return string(v)
		}
		return base64.StdEncoding.EncodeToString(v)
	case time.Time:
		return v.UTC().Format(time.RFC3339)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v) // a number that JSON does not have
	}
	return string(b)
}
