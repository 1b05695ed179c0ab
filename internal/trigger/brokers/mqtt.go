package brokers

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/eclipse/paho.golang/packets"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger"
)

var mqttKind = trigger.Kind{Name: "mqtt", Doc: "messages of topics of an MQTT 5 broker, acknowledged when the functions have succeeded", New: newMQTT}

// mqttConfig says where messages come from.
type mqttConfig struct {
	URL    string `json:"url"`              // mqtt://, mqtts://, ws:// or wss://; several with commas between
	Secret string `json:"secret,omitempty"` // the name of a secret with USER:PASSWORD
	brokerTLS
	Topics   topics        `json:"topic"`                       // filters; may have wildcards and be shared
	QoS      *byte         `json:"qos,omitempty"`               // at most; default 1
	ClientID string        `json:"client_id,omitempty"`         // default: one of the trigger's own
	Expiry   faas.Duration `json:"session_expiry_ms,omitempty"` // how long the broker keeps messages for us while we are away; default a day
	Parallel int           `json:"parallel,omitempty"`          // messages whose functions are under way at once; default 64
	Retained string        `json:"retained,omitempty"`          // "new" (default), "always" or "never"
	// IDProperty is the name of the user property that is the same for the same message.
	IDProperty string `json:"id_property,omitempty"`
}

// topics is one topic filter, or a list of them.
type topics []string

// UnmarshalJSON reads a string or a list of them.
func (t *topics) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		*t = topics{""}
		return json.Unmarshal(b, &(*t)[0])
	}
	return json.Unmarshal(b, (*[]string)(t))
}

const (
	mqttParallel  = 64
	mqttMost      = 10_000
	mqttExpiry    = 24 * time.Hour
	mqttKeepAlive = 30                           // seconds
	mqttPacket    = int(trigger.MaxData) + 1<<20 // bytes of a message with its topic and properties; of a larger one the payload is not read
	mqttAnswer    = 1 << 20                      // bytes of all else
)

var mqttPorts = map[string]string{"mqtt": "1883", "mqtts": "8883", "ws": "80", "wss": "443"}

// mqttSource tells of messages of topics. A message of quality 1 or 2 is acknowledged when its
// functions have succeeded, or were given up and lie with the dead letters. The broker keeps a session
// for us, and sends again what was not acknowledged. One of quality 0 is forgotten by the broker when
// it is sent.
type mqttSource struct {
	o         trigger.Outside
	config    mqttConfig
	addresses []*url.URL

	// hand is what was taken from the broker in the session and is not acknowledged, by the message's
	// number there. It outlives connections. Only one Run is at work at a time; within it, it is
	// guarded by mqttRun.mu.
	hand map[uint16]mqttTaken
}

func newMQTT(o trigger.Outside, config json.RawMessage) (trigger.Source, error) {
	s := &mqttSource{o: o}
	if err := trigger.Read(config, &s.config); err != nil {
		return nil, err
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *mqttSource) check() error {
	c := &s.config
	var err error
	if s.addresses, err = addresses(c.URL, mqttPorts, "mqtt://HOST:PORT, mqtts://HOST:PORT, ws://HOST/PATH or wss://HOST/PATH"); err != nil {
		return err
	}
	for _, u := range s.addresses {
		if (u.Scheme == "mqtt" || u.Scheme == "mqtts") && strings.Trim(u.Path, "/") != "" {
			return trigger.Invalid("url: %s://%s is followed by the path %.60q, and has none", u.Scheme, u.Host, u.Path).WithFix("write topics in the field topic")
		}
	}
	if err := checkSecret(s.o, c.Secret); err != nil {
		return err
	}
	if err := c.brokerTLS.check(s.o, s.addresses, "mqtts", "wss"); err != nil {
		return err
	}
	if len(c.Topics) == 0 {
		return trigger.Invalid("topic is missing").WithFix(`write it as {"topic": "sensors/+/temperature"}, or as a list`)
	}
	for _, t := range c.Topics {
		if why := badFilter(t); why != "" {
			return trigger.Invalid("topic: %.80q is no filter of topics: %s", t, why)
		}
	}
	if c.QoS == nil {
		c.QoS = new(byte)
		*c.QoS = 1
	}
	if *c.QoS > 2 {
		return trigger.Invalid("qos is %d; it is 0, 1 or 2", *c.QoS)
	}
	if len(c.ClientID) > 255 || !utf8.ValidString(c.ClientID) || strings.ContainsAny(c.ClientID, "\x00\r\n") {
		return trigger.Invalid("client_id: %.60q is none; it has at most 255 bytes", c.ClientID)
	}
	if c.Expiry != 0 && *c.QoS == 0 {
		return trigger.Invalid("session_expiry_ms is of qos 1 and 2: with 0 the broker keeps nothing")
	}
	c.Expiry = cmp.Or(c.Expiry, faas.Duration(mqttExpiry))
	if c.Expiry < faas.Duration(time.Minute) || c.Expiry > faas.Duration(365*24*time.Hour) {
		return trigger.Invalid("session_expiry_ms is %s; it is from a minute to a year", c.Expiry.D()).WithLimit("session_expiry_ms")
	}
	c.Parallel = cmp.Or(c.Parallel, mqttParallel)
	if c.Parallel < 1 || c.Parallel > mqttMost {
		return trigger.Invalid("parallel is %d; it is from 1 to %d", c.Parallel, mqttMost).WithLimit("parallel")
	}
	c.Retained = cmp.Or(c.Retained, "new")
	if retainHandling(c.Retained) > 2 {
		return trigger.Invalid("retained is %.60q; it is new, always or never", c.Retained)
	}
	return nil
}

// retainHandling is how the protocol writes when retained messages are sent.
func retainHandling(word string) byte {
	// 0: whenever it is subscribed, 1: where there was no such subscription, 2: never.
	i := slices.Index([]string{"always", "new", "never"}, word)
	return byte(i) // a word that there is not: 255
}

// badFilter says why a broker would end the connection for a filter; empty if it would not.
func badFilter(filter string) string {
	if len(filter) > 65535 || strings.ContainsRune(filter, 0) || !utf8.ValidString(filter) {
		return "it is too long, or no text"
	}
	topic := filter
	if rest, shared := strings.CutPrefix(filter, "$share/"); shared {
		group, of, ok := strings.Cut(rest, "/")
		if !ok || group == "" || strings.ContainsAny(group, "+#") {
			return "a shared one is $share/GROUP/FILTER"
		}
		topic = of
	}
	if topic == "" {
		return "it is empty"
	}
	levels := strings.Split(topic, "/")
	for i, l := range levels {
		if strings.Contains(l, "#") && (l != "#" || i < len(levels)-1) {
			return "# is a level of its own, and the last"
		}
		if strings.Contains(l, "+") && l != "+" {
			return "+ is a level of its own"
		}
	}
	return ""
}

// clientID is by what the broker knows the session.
func (s *mqttSource) clientID() string {
	return cmp.Or(s.config.ClientID, "brasa-"+s.o.Trigger.UID)
}

// eventOf is a message as an event, without an ID but for one that its sender gave it.
func (s *mqttSource) eventOf(p *packets.Publish) faas.Event {
	e := faas.Event{
		Source: strings.TrimSpace(strings.Split(s.config.URL, ",")[0]), Type: "brasa.mqtt.message", Subject: p.Topic, Time: s.o.Now(),
		Data: p.Payload, Header: map[string][]string{"X-Mqtt-Qos": {string('0' + rune(p.QoS))}},
	}
	if p.Retain {
		e.Header["X-Mqtt-Retain"] = []string{"true"}
	}
	if p.Duplicate {
		e.Header["X-Mqtt-Dup"] = []string{"true"}
	}
	said := ""
	if props := p.Properties; props != nil {
		said = props.ContentType
		if said == "" && props.PayloadFormat != nil && *props.PayloadFormat == 1 && !json.Valid(p.Payload) {
			said = "text/plain; charset=utf-8" // the sender says that it is UTF-8
		}
		if props.ResponseTopic != "" {
			setHeader(e.Header, "X-Mqtt-", "Response-Topic", props.ResponseTopic)
		}
		if len(props.CorrelationData) > 0 {
			setHeader(e.Header, "X-Mqtt-", "Correlation-Data", base64.StdEncoding.EncodeToString(props.CorrelationData))
		}
		for _, u := range props.User {
			setHeader(e.Header, "X-Mqtt-User-", u.Key, u.Value)
			if s.config.IDProperty != "" && u.Key == s.config.IDProperty {
				e.ID = u.Value
			}
		}
	}
	e.ContentType = contentType(said, p.Payload)
	return e
}

// mqttMemory is what the source remembers.
type mqttMemory struct {
	Session string   `json:"session,omitempty"` // the client ID and the address of the session
	Topics  []string `json:"topics,omitempty"`  // what the session is subscribed to
	// Hand are messages that were taken and not acknowledged when the source was stopped, by their
	// number in the session.
	Hand map[uint16]mqttTaken `json:"hand,omitempty"`
}

// remembered reads the memory. What was in hand is forgotten there before anything is acknowledged:
// a number that is acknowledged may be another message's.
func (s *mqttSource) remembered(ctx context.Context) (mqttMemory, error) {
	var m mqttMemory
	b, err := s.o.State.Get(ctx)
	if err != nil || len(b) == 0 {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return mqttMemory{}, nil // of another kind of source
	}
	if m.Hand == nil {
		return m, nil
	}
	hand := m.Hand
	m.Hand = nil
	err = s.remember(ctx, m)
	m.Hand = hand
	return m, err
}

func (s *mqttSource) remember(ctx context.Context, m mqttMemory) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return s.o.State.Put(ctx, b)
}
