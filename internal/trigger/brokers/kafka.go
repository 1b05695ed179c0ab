package brokers

import (
	"cmp"
	"encoding/json"
	"mime"
	"net"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger"
)

var kafkaKind = trigger.Kind{Name: "kafka", Doc: "messages of topics of Apache Kafka, whose place is kept when the functions have succeeded", New: newKafka}

// kafkaConfig says where messages come from.
type kafkaConfig struct {
	Brokers string `json:"brokers"` // HOST:PORT, several with commas between
	Topic   string `json:"topic"`   // several with commas between
	// Group is the consumer group that keeps the place in each partition; empty: one of the trigger's
	// own. Members of a group share the partitions.
	Group string `json:"group,omitempty"`
	// From is where a group begins that has no place: "new" (default) at what comes from now on, "all" at
	// the oldest message that there is.
	From string `json:"from,omitempty"`
	// Order says which messages are told one after the other: those of a "partition" (default), those
	// of a "key", or none.
	Order string `json:"order,omitempty"`
	// Parallel is the most messages of a partition whose functions are under way, or wait for it, at
	// once; default 64.
	Parallel int `json:"parallel,omitempty"`
	// MaxBytes is how much of a partition is asked for at once; default 256 KiB. One message may be
	// more.
	MaxBytes int `json:"max_bytes,omitempty"`

	Secret string `json:"secret,omitempty"` // the name of a secret, USER:PASSWORD
	SASL   string `json:"sasl,omitempty"`   // "plain", "scram-sha-256", "scram-sha-512"; empty: of these what the broker takes
	TLS    bool   `json:"tls,omitempty"`
	CA     string `json:"ca,omitempty"`   // of those who may sign the brokers' certificates, PEM; empty: those that the machine trusts
	Cert   string `json:"cert,omitempty"` // the name of a secret with a certificate and its key to show to the brokers, PEM
}

const (
	kafkaParallel   = 64
	kafkaMost       = 10_000
	kafkaBytes      = 256 << 10
	kafkaBytesLeast = 1 << 10
	kafkaBytesMost  = 16 << 20
)

func (c *kafkaConfig) check(o trigger.Outside) error {
	if strings.TrimSpace(c.Brokers) == "" {
		return trigger.Invalid("brokers is missing").WithFix(`write it as {"brokers": "kafka:9092", "topic": "orders"}`)
	}
	for _, b := range splitList(c.Brokers) {
		if strings.Contains(b, "@") {
			return trigger.Invalid("brokers: %.80q holds a user or a password", redact(b)).WithFix("store it with: brasa secret put NAME; and name the secret in the field secret")
		}
		host, port, err := net.SplitHostPort(b)
		n, numErr := strconv.ParseUint(port, 10, 16)
		if err != nil || numErr != nil || n == 0 || host == "" || strings.ContainsAny(host, "/ \t\r\n") {
			return trigger.Invalid("brokers: %.80q is no address of a broker of Kafka", b).WithFix("write it as HOST:PORT, several with commas between")
		}
	}
	if strings.TrimSpace(c.Topic) == "" {
		return trigger.Invalid("topic is missing")
	}
	for _, t := range splitList(c.Topic) {
		if !isTopic(t) {
			return trigger.Invalid("topic: %.80q is no name of a topic", t).WithFix("a topic's name has up to 249 letters, digits, dots, underscores and hyphens")
		}
	}
	if len(c.Group) > 255 || strings.ContainsFunc(c.Group, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return trigger.Invalid("group: %.80q is no name of a group", c.Group)
	}
	switch c.From {
	case "", "new", "all":
	default:
		return trigger.Invalid("from is %.60q; it is new or all", c.From)
	}
	switch c.Order {
	case "", "partition", "key", "none":
	default:
		return trigger.Invalid("order is %.60q; it is partition, key or none", c.Order)
	}
	if c.Parallel < 1 || c.Parallel > kafkaMost {
		return trigger.Invalid("parallel is %d; it is from 1 to %d", c.Parallel, kafkaMost).WithLimit("parallel")
	}
	if c.MaxBytes < kafkaBytesLeast || c.MaxBytes > kafkaBytesMost {
		return trigger.Invalid("max_bytes is %d; it is from %d to %d", c.MaxBytes, kafkaBytesLeast, kafkaBytesMost).WithLimit("max_bytes")
	}
	return c.checkTrust(o)
}

// checkTrust checks what says who the server is to the brokers, and they to it.
func (c *kafkaConfig) checkTrust(o trigger.Outside) error {
	for _, name := range []string{c.Secret, c.Cert} {
		if err := checkSecret(o, name); err != nil {
			return err
		}
	}
	switch c.SASL {
	case "":
	case "plain", "scram-sha-256", "scram-sha-512":
		if c.Secret == "" {
			return trigger.Invalid("secret is missing, which sasl needs").WithFix("name a secret whose value is USER:PASSWORD")
		}
	default:
		return trigger.Invalid("sasl is %.60q; it is plain, scram-sha-256 or scram-sha-512", c.SASL)
	}
	if err := checkCA(c.CA); err != nil {
		return err
	}
	if !c.TLS && (c.CA != "" || c.Cert != "") {
		return trigger.Invalid("ca and cert are of TLS").WithFix("set tls to true")
	}
	return nil
}

// isTopic says whether Kafka takes it as a topic's name.
func isTopic(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= 249 && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-')
	})
}

// splitList splits what has commas between.
func splitList(s string) []string {
	var all []string
	for one := range strings.SplitSeq(s, ",") {
		all = append(all, strings.TrimSpace(one))
	}
	return all
}

func newKafka(o trigger.Outside, config json.RawMessage) (trigger.Source, error) {
	s := &kafkaSource{o: o}
	if err := trigger.Read(config, &s.config); err != nil {
		return nil, err
	}
	c := &s.config
	c.Parallel, c.MaxBytes = cmp.Or(c.Parallel, kafkaParallel), cmp.Or(c.MaxBytes, kafkaBytes)
	if err := c.check(o); err != nil {
		return nil, err
	}
	s.brokers, s.topics = splitList(c.Brokers), splitList(c.Topic)
	return s, nil
}

// eventOf is a message as an event. Its ID is its place, and its time, since a topic that was deleted
// and made again has other messages at the same places.
func (s *kafkaSource) eventOf(r *kgo.Record) faas.Event {
	place := r.Topic + "/" + strconv.Itoa(int(r.Partition)) + "/" + strconv.FormatInt(r.Offset, 10)
	e := faas.Event{
		ID:     place + "@" + strconv.FormatInt(r.Timestamp.UnixMilli(), 10),
		Source: "kafka://" + s.brokers[0] + "/" + r.Topic, Type: "brasa.kafka.message",
		Subject: string(r.Key), Time: r.Timestamp, Data: r.Value, Header: map[string][]string{},
	}
	if r.Value == nil {
		e.Type = "brasa.kafka.tombstone"
	}
	for _, h := range r.Headers {
		if strings.EqualFold(h.Key, "content-type") {
			if _, _, err := mime.ParseMediaType(string(h.Value)); err == nil {
				e.ContentType = string(h.Value)
			}
		}
		if name := headerName(h.Key); name != "" {
			e.Header["X-Kafka-"+name] = append(e.Header["X-Kafka-"+name], headerValue(h.Value))
		}
	}
	if e.ContentType == "" && len(r.Value) > 0 {
		e.ContentType = contentTypeOf(r.Value)
	}
	switch {
	case s.config.Order == "none":
	case s.config.Order != "key":
		e.Order = s.o.Trigger.UID + "/" + r.Topic + "/" + strconv.Itoa(int(r.Partition))
	case r.Key != nil:
		e.Order = s.o.Trigger.UID + "/" + r.Topic + "/key/" + string(r.Key)
	}
	return e
}

// headerName makes of a message's header, which may have any name, one that HTTP takes.
func headerName(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r) {
			return r
		}
		return '-'
	}, s)
}

// headerValue writes what no header of HTTP may hold percent-encoded, byte by byte.
func headerValue(v []byte) string {
	var b []byte
	for _, c := range v {
		if c < ' ' || c >= 0x7f || c == '%' {
			b = append(b, '%', "0123456789ABCDEF"[c>>4], "0123456789ABCDEF"[c&15])
			continue
		}
		b = append(b, c)
	}
	return string(b)
}
