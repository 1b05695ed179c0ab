package brokers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger"
)

var (
	natsKind      = trigger.Kind{Name: "nats", Doc: "messages of a subject of NATS, as long as the server listens", New: newNATS}
	jetStreamKind = trigger.Kind{Name: "jetstream", Doc: "messages of a stream of NATS JetStream, acknowledged when the functions have succeeded", New: newJetStream}
)

// natsConfig says where messages come from.
type natsConfig struct {
	URL string `json:"url"` // nats://HOST:PORT or tls://HOST:PORT, several with commas between
	// Secret is the name of the secret with which the server is talked to: a token, USER:PASSWORD, or
	// the text of a credentials file.
	Secret  string `json:"secret,omitempty"`
	Subject string `json:"subject,omitempty"` // may have wildcards
	Group   string `json:"group,omitempty"`   // each message goes to one member of a group; of "nats"

	// Of "jetstream".
	Stream   string        `json:"stream,omitempty"`
	Consumer string        `json:"consumer,omitempty"`    // the durable consumer's name; empty: one of the trigger's own
	From     string        `json:"from,omitempty"`        // of a consumer that is made: "new" (default) or "all"
	Parallel int           `json:"parallel,omitempty"`    // messages whose functions are under way at once; default 64
	AckWait  faas.Duration `json:"ack_wait_ms,omitempty"` // of a consumer that is made; default 30 s
}

const (
	natsConnect  = 10 * time.Second
	natsParallel = 64
	natsMost     = 10_000
)

func (c *natsConfig) check(o trigger.Outside) error {
	if c.URL == "" {
		return trigger.Invalid("url is missing").WithFix(`write it as {"url": "nats://broker:4222", "subject": "orders.>"}`)
	}
	for _, one := range strings.Split(c.URL, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil || u.Scheme != "nats" && u.Scheme != "tls" || u.Host == "" {
			return trigger.Invalid("url: %.80q is no address of a NATS server", redact(one)).WithFix("write it as nats://HOST:PORT or tls://HOST:PORT")
		}
		if u.User != nil {
			return trigger.Invalid("url holds a user or a password").WithFix("store it with: brasa secret put NAME; and name the secret in the field secret")
		}
	}
	if err := checkSecret(o, c.Secret); err != nil {
		return err
	}
	if c.Subject != "" && badSubject(c.Subject) {
		return trigger.Invalid("subject: %.80q is no subject of NATS", c.Subject)
	}
	return nil
}

// badSubject says whether a server would refuse it, or end the connection for it.
func badSubject(s string) bool {
	if strings.ContainsAny(s, " \t\r\n") {
		return true
	}
	parts := strings.Split(s, ".")
	for i, p := range parts {
		if p == "" || p == ">" && i < len(parts)-1 {
			return true
		}
	}
	return false
}

// connect connects to the server. Loss of the connection closes gone.
func (c *natsConfig) connect(ctx context.Context, o trigger.Outside) (nc *nats.Conn, gone chan error, err error) {
	gone = make(chan error, 1)
	lost := func(_ *nats.Conn, err error) {
		select {
		case gone <- cmp.Or(err, nats.ErrConnectionClosed):
		default:
		}
	}
	opts := []nats.Option{
		nats.Name("brasa trigger " + o.Trigger.Name), nats.Timeout(natsConnect), nats.SetCustomDialer(dialer{ctx, o}),
		nats.NoReconnect(), // the manager connects again, and says so
		nats.DisconnectErrHandler(lost), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if !errors.Is(err, nats.ErrSlowConsumer) {
				lost(nil, err)
			}
		}),
	}
	if c.Secret != "" {
		text, err := o.Secret(ctx, c.Secret)
		if err != nil {
			return nil, nil, fmt.Errorf("open the secret %q: %w", c.Secret, err)
		}
		text = strings.TrimSpace(text)
		switch user, password, pair := strings.Cut(text, ":"); {
		case strings.Contains(text, "BEGIN NATS USER JWT"):
			opts = append(opts, nats.UserCredentialBytes([]byte(text)))
		case pair:
			opts = append(opts, nats.UserInfo(user, password))
		default:
			opts = append(opts, nats.Token(text))
		}
	}
	nc, err = nats.Connect(c.URL, opts...)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to %s: %w", c.URL, err)
	}
	return nc, gone, nil
}

type dialer struct {
	ctx context.Context
	o   trigger.Outside
}

func (d dialer) Dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, natsConnect)
	defer cancel()
	return d.o.Dial(ctx, network, address)
}

// eventOf is a message as an event.
func (c *natsConfig) eventOf(o trigger.Outside, kind, subject string, header nats.Header, data []byte) faas.Event {
	e := faas.Event{
		Source: strings.Split(c.URL, ",")[0], Type: kind, Subject: subject, Time: o.Now(), Data: data,
		Header: map[string][]string{}, ContentType: header.Get("Content-Type"),
	}
	for k, v := range header {
		e.Header["X-Nats-"+k] = v
	}
	if e.ContentType == "" && !json.Valid(data) {
		e.ContentType = "application/octet-stream"
	}
	return e
}

// natsSource tells of messages of a subject. NATS forgets a message when it is delivered: what comes
// while nobody listens, or while the queue is full, is lost, and counted.
type natsSource struct {
	o      trigger.Outside
	config natsConfig
}

func newNATS(o trigger.Outside, config json.RawMessage) (trigger.Source, error) {
	s := &natsSource{o: o}
	if err := trigger.Read(config, &s.config); err != nil {
		return nil, err
	}
	c := &s.config
	if err := c.check(o); err != nil {
		return nil, err
	}
	if c.Subject == "" {
		return nil, trigger.Invalid("subject is missing")
	}
	if c.Stream != "" || c.Consumer != "" || c.From != "" || c.Parallel != 0 || c.AckWait != 0 {
		return nil, trigger.Invalid("stream, consumer, from, parallel and ack_wait_ms are of the kind jetstream")
	}
	if c.Group != "" && badSubject(c.Group) {
		return nil, trigger.Invalid("group: %.80q is no name of a group", c.Group)
	}
	return s, nil
}

// Run implements Source.
func (s *natsSource) Run(ctx context.Context, fire trigger.Fire) error {
	nc, gone, err := s.config.connect(ctx, s.o)
	if err != nil {
		return err
	}
	defer nc.Close()
	messages := make(chan *nats.Msg, 1024)
	var sub *nats.Subscription
	if s.config.Group == "" {
		sub, err = nc.ChanSubscribe(s.config.Subject, messages)
	} else {
		sub, err = nc.ChanQueueSubscribe(s.config.Subject, s.config.Group, messages)
	}
	if err == nil {
		err = nc.FlushTimeout(natsConnect)
	}
	if err != nil {
		return fmt.Errorf("subscribe to %q: %w", s.config.Subject, err)
	}
	defer func() { _ = sub.Unsubscribe() }() // the connection goes anyway
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-gone:
			return fmt.Errorf("connection lost: %w", err)
		case m := <-messages:
			if _, err := fire(ctx, s.config.eventOf(s.o, "brasa.nats.message", m.Subject, m.Header, m.Data)); err != nil && ctx.Err() == nil {
				s.o.PassOver(1, "message lost: it was not accepted", "subject", m.Subject, "cause", err)
			}
		}
	}
}

// jetStreamSource tells of messages of a stream. A message is acknowledged when its functions have
// succeeded, or were given up and lie with the dead letters; until then the server is told, time and
// again, that work is in progress. One that could not be queued is given back and comes again.
type jetStreamSource struct {
	o      trigger.Outside
	config natsConfig
}

func newJetStream(o trigger.Outside, config json.RawMessage) (trigger.Source, error) {
	s := &jetStreamSource{o: o}
	if err := trigger.Read(config, &s.config); err != nil {
		return nil, err
	}
	c := &s.config
	if err := c.check(o); err != nil {
		return nil, err
	}
	if c.Stream == "" || strings.ContainsAny(c.Stream, " .*>/\\\t\r\n") {
		return nil, trigger.Invalid("stream: %.80q is no name of a stream", c.Stream)
	}
	if strings.ContainsAny(c.Consumer, " .*>/\\\t\r\n") {
		return nil, trigger.Invalid("consumer: %.80q is no name of a consumer", c.Consumer)
	}
	if c.Group != "" {
		return nil, trigger.Invalid("group is of the kind nats; consumers of one name share a stream's messages")
	}
	switch c.From {
	case "", "new", "all":
	default:
		return nil, trigger.Invalid("from is %.60q; it is new or all", c.From)
	}
	c.Parallel = cmp.Or(c.Parallel, natsParallel)
	if c.Parallel < 1 || c.Parallel > natsMost {
		return nil, trigger.Invalid("parallel is %d; it is from 1 to %d", c.Parallel, natsMost).WithLimit("parallel")
	}
	c.AckWait = cmp.Or(c.AckWait, faas.Duration(30*time.Second))
	if c.AckWait < faas.Duration(time.Second) || c.AckWait > faas.Duration(time.Hour) {
		return nil, trigger.Invalid("ack_wait_ms is %s; it is from 1s to 1h", c.AckWait).WithLimit("ack_wait_ms")
	}
	return s, nil
}

// Run implements Source.
func (s *jetStreamSource) Run(ctx context.Context, fire trigger.Fire) error {
	c := &s.config
	nc, gone, err := c.connect(ctx, s.o)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	consumer, wait, err := s.consumer(ctx, js)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	work := make(chan struct{}, c.Parallel)
	defer func() {
		cancel()
		for range c.Parallel {
			work <- struct{}{} // until those at work have seen the end
		}
	}()
	messages, err := consumer.Messages(jetstream.PullMaxMessages(min(c.Parallel, 256)))
	if err != nil {
		return fmt.Errorf("read stream %q: %w", c.Stream, err)
	}
	defer messages.Stop()
	ended := make(chan error, 1)
	go func() {
		for {
			m, err := messages.Next()
			if err != nil {
				ended <- err
				return
			}
			select {
			case work <- struct{}{}:
			case <-ctx.Done():
				return
			}
			go func() {
				defer func() { <-work }()
				s.message(ctx, fire, m, wait)
			}()
		}
	}()
	select {
	case <-ctx.Done():
		return nil
	case err := <-gone:
		return fmt.Errorf("connection lost: %w", err)
	case err := <-ended:
		return fmt.Errorf("read stream %q: %w", c.Stream, err)
	}
}

// consumer opens the durable consumer, or makes it, and returns how long it waits for a word.
func (s *jetStreamSource) consumer(ctx context.Context, js jetstream.JetStream) (jetstream.Consumer, time.Duration, error) {
	c := &s.config
	ctx, cancel := context.WithTimeout(ctx, natsConnect)
	defer cancel()
	name := c.Consumer
	if name != "" {
		found, err := js.Consumer(ctx, c.Stream, name)
		if err == nil {
			info := found.CachedInfo()
			if info.Config.AckPolicy != jetstream.AckExplicitPolicy {
				return nil, 0, fmt.Errorf("the consumer %q of stream %q does not take an acknowledgement of each message", name, c.Stream)
			}
			return found, cmp.Or(info.Config.AckWait, 30*time.Second), nil
		}
		if !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return nil, 0, fmt.Errorf("open consumer %q of stream %q: %w", name, c.Stream, err)
		}
	} else {
		name = "brasa-" + s.o.Trigger.UID
	}
	from := jetstream.DeliverNewPolicy
	if c.From == "all" {
		from = jetstream.DeliverAllPolicy
	}
	if found, err := js.Consumer(ctx, c.Stream, name); err == nil {
		return found, cmp.Or(found.CachedInfo().Config.AckWait, 30*time.Second), nil
	}
	made, err := js.CreateConsumer(ctx, c.Stream, jetstream.ConsumerConfig{
		Durable: name, Description: "trigger " + s.o.Trigger.Name, FilterSubject: c.Subject, DeliverPolicy: from,
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: c.AckWait.D(), MaxAckPending: 2 * c.Parallel,
	})
	if err != nil {
		return nil, 0, fmt.Errorf("make consumer %q of stream %q: %w", name, c.Stream, err)
	}
	return made, c.AckWait.D(), nil
}

// giveBack is after how long a message comes again that could not be queued.
const giveBack = 2 * time.Second

func (s *jetStreamSource) message(ctx context.Context, fire trigger.Fire, m jetstream.Msg, wait time.Duration) {
	meta, err := m.Metadata()
	if err != nil {
		return // it has no place in a stream
	}
	e := s.config.eventOf(s.o, "brasa.jetstream.message", m.Subject(), m.Headers(), m.Data())
	e.ID, e.Time = fmt.Sprintf("%s/%d", meta.Stream, meta.Sequence.Stream), meta.Timestamp
	done := make(chan struct{})
	defer close(done)
	go func() {
		tick := time.NewTicker(wait / 3)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_ = m.InProgress() // else it comes again, which makes no second call
			case <-done:
				return
			}
		}
	}()
	fired, err := trigger.Taken(fire(ctx, e))
	if err == nil {
		_, err = fired.Settled(ctx)
	}
	switch {
	case err == nil:
		err = m.DoubleAck(ctx)
	case ctx.Err() == nil:
		s.o.Log.Warn("message given back", "stream", meta.Stream, "sequence", meta.Sequence.Stream, "cause", err)
		err = m.NakWithDelay(giveBack)
	}
	if err != nil && ctx.Err() == nil {
		s.o.Log.Warn("message not settled; it comes again", "stream", meta.Stream, "sequence", meta.Sequence.Stream, "cause", err)
	}
}
