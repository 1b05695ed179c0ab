package brokers

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/brasa-dev/brasa/internal/faas"
)

const (
	kafkaConnect = 10 * time.Second
	kafkaAsk     = 10 * time.Second // for a question to the cluster, with all that is tried again for it
	// kafkaFetchWait is how long a broker waits for messages; a partition that is fetched from again joins
	// in with the next question.
	kafkaFetchWait = 500 * time.Millisecond
	// kafkaRead is the most bytes of an answer, and kafkaUnpack of a batch that was unpacked. Batches of
	// the brokers' default have 1 MiB at the most.
	kafkaRead   = 100 << 20
	kafkaUnpack = 64 << 20
)

// options are what every connection to the cluster is made with. The secrets are opened here.
func (s *kafkaSource) options(ctx context.Context, watch *brokerWatch) ([]kgo.Opt, error) {
	c := &s.config
	shown, err := s.shown(ctx)
	if err != nil {
		return nil, err
	}
	opts := []kgo.Opt{
		kgo.ClientID("brasa"), kgo.SoftwareNameAndVersion("brasa", "1"), kgo.DisableClientMetrics(), kgo.SeedBrokers(s.brokers...),
		kgo.BrokerMaxReadBytes(kafkaRead), kgo.WithLogger(kafkaLog{s.o.Log}), kgo.WithHooks(watch),
		kgo.Dialer(func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := s.dial(ctx, network, address, shown)
			watch.dialed(address, err)
			return conn, err
		}),
	}
	if c.Secret == "" {
		return opts, nil
	}
	text, err := s.o.Secret(ctx, c.Secret)
	if err != nil {
		return nil, fmt.Errorf("open the secret %q: %w", c.Secret, err)
	}
	user, password, ok := strings.Cut(strings.TrimSpace(text), ":")
	if !ok || user == "" || password == "" {
		return nil, fmt.Errorf("the secret %q is not USER:PASSWORD", c.Secret)
	}
	scrams := scram.Auth{User: user, Pass: password}
	named := map[string]sasl.Mechanism{
		"plain": plain.Auth{User: user, Pass: password}.AsMechanism(), "scram-sha-256": scrams.AsSha256Mechanism(), "scram-sha-512": scrams.AsSha512Mechanism(),
	}
	all := []sasl.Mechanism{named[c.SASL]}
	if c.SASL == "" {
		all = []sasl.Mechanism{named["scram-sha-512"], named["scram-sha-256"]}
		if c.TLS { // else whoever listens would read the password
			all = append(all, named["plain"])
		}
	}
	return append(opts, kgo.SASL(all...)), nil
}

// shown are the certificates to show to brokers that ask for one.
func (s *kafkaSource) shown(ctx context.Context) ([]tls.Certificate, error) {
	name := s.config.Cert
	if name == "" {
		return nil, nil
	}
	text, err := s.o.Secret(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open the secret %q: %w", name, err)
	}
	pair, err := tls.X509KeyPair([]byte(text), []byte(text))
	if err != nil {
		return nil, fmt.Errorf("cert: the secret %q holds no certificate with its key in PEM", name) // the cause could show some of the key
	}
	return []tls.Certificate{pair}, nil
}

// dial connects to a broker. Its address is the user's or one that the cluster told of; both are
// judged alike.
func (s *kafkaSource) dial(ctx context.Context, network, address string, shown []tls.Certificate) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, kafkaConnect)
	defer cancel()
	conn, err := s.o.Dial(ctx, network, address)
	if err == nil && s.config.TLS {
		host, _, _ := net.SplitHostPort(address) // it was connected to
		config := tlsConfig(host, s.config.CA)
		config.Certificates = shown
		conn, err = shake(ctx, conn, config)
	}
	if err != nil {
		return nil, s.unreached(address, err)
	}
	return conn, nil
}

// unreached says where a broker's address came from, which is what is to be mended.
func (s *kafkaSource) unreached(address string, err error) error {
	return &unreachedError{address: address, told: !slices.Contains(s.brokers, address), err: err}
}

// unreachedError is why a broker is not connected to.
type unreachedError struct {
	address string
	told    bool // by the cluster
	err     error
}

func (e *unreachedError) Error() string {
	if e.told {
		return fmt.Sprintf("connect to %s, which the cluster says a broker of it has: %v", e.address, e.err)
	}
	return fmt.Sprintf("connect to %s: %v", e.address, e.err)
}

func (e *unreachedError) Unwrap() error { return e.err }

// explain says in the words of the configuration what is to be mended.
func (s *kafkaSource) explain(what string, err error) error {
	c := &s.config
	hint := ""
	var plainText tls.RecordHeaderError
	var eof *kgo.ErrFirstReadEOF
	var unreached *unreachedError
	switch {
	case faas.CodeOf(err) == faas.Denied:
		hint = faas.AsError(err).Fix
	case errors.As(err, &plainText):
		hint = "the broker speaks no TLS at that port: mend the port in brokers, or leave out tls"
	case refusesCertificate(err):
		hint = certificateHint
	case isCertificate(err) && c.CA == "":
		hint = "give in ca the certificate of who signed the broker's"
	case isCertificate(err):
		hint = "that of ca has not signed the broker's certificate, or it is of another host than brokers says"
	case strings.Contains(err.Error(), "tls alert"): // the client's own guess, which is no error of its own
		hint = "the broker speaks TLS at that port: mend the port in brokers, or set tls to true"
	case errors.As(err, &eof):
		hint = "mend tls, or name in secret what the broker knows the server by"
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		hint = fmt.Sprintf("user or password in the secret %q are not those that the broker knows", c.Secret)
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		hint = "the broker does not take this mechanism: set sasl to one that it has, or tls to true for plain"
	case errors.Is(err, kerr.IllegalSaslState):
		hint = "name in secret what the broker knows the server by"
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		hint = "the cluster has to let this user read the topics of the field topic"
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		hint = fmt.Sprintf("the cluster has to let this user read the group %q, or set group to one that it may", s.group())
	case errors.Is(err, kerr.ClusterAuthorizationFailed):
		hint = "the cluster has to let this user in"
	case errors.Is(err, kerr.InconsistentGroupProtocol):
		hint = fmt.Sprintf("the group %q is in use by programs that share partitions in another way: set group to another name, or leave it out", s.group())
	case errors.Is(err, kerr.FencedInstanceID):
		hint = "another server runs this trigger, perhaps from a copy of this one's data: pause it in one of them"
	case errors.Is(err, kerr.GroupMaxSizeReached):
		hint = fmt.Sprintf("the group %q is full: set group to another name, or leave it out", s.group())
	case errors.Is(err, kerr.InvalidGroupID):
		hint = "mend group"
	case errors.As(err, &unreached) && unreached.told:
		hint = "have the brokers tell of an address that this server reaches (their advertised.listeners), or name in brokers a listener that does"
	case isDialError(err):
		hint = "mend brokers, if no broker is meant to be there"
	}
	if hint == "" {
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: %w; %s", what, err, hint)
}

func isCertificate(err error) bool {
	var verify *tls.CertificateVerificationError
	return errors.As(err, &verify)
}

func isDialError(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// kafkaLog hands on what the client says of itself to those who look for it. What matters is said in
// the trigger's status.
type kafkaLog struct{ log *slog.Logger }

// Level implements kgo.Logger.
func (l kafkaLog) Level() kgo.LogLevel {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		return kgo.LogLevelInfo
	}
	return kgo.LogLevelNone
}

// Log implements kgo.Logger.
func (l kafkaLog) Log(_ kgo.LogLevel, msg string, keyvals ...any) {
	l.log.Debug("client: "+msg, keyvals...)
}
