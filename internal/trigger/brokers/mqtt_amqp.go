package brokers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/trigger"
)

// What the brokers of MQTT and AMQP have in common: both are told where they are by a URL, know who
// comes by a user and a password or by a certificate, and may have certificates of their own making.

// brokerConnect is how long it may take until a broker is connected to and has let us in.
const brokerConnect = 10 * time.Second

// brokerTLS says whom to trust and who we are.
type brokerTLS struct {
	CA   string `json:"ca,omitempty"`   // whose certificates are trusted, as PEM; empty: those of the machine
	Cert string `json:"cert,omitempty"` // the name of a secret with a certificate and its key, as PEM, that the broker knows us by
}

// addresses reads the field url: one or more with commas between, tried in their order. ports are the
// schemes there are, and the port of each where none is said; secure are those with TLS.
func addresses(field string, ports map[string]string, example string) ([]*url.URL, error) {
	if field == "" {
		return nil, trigger.Invalid("url is missing").WithFix("write it as %s", example)
	}
	var all []*url.URL
	for one := range strings.SplitSeq(field, ",") {
		one = strings.TrimSpace(one)
		u, err := url.Parse(one)
		if err != nil || ports[u.Scheme] == "" || u.Hostname() == "" {
			return nil, trigger.Invalid("url: %.80q is no address of a broker", redact(one)).WithFix("write it as %s", example)
		}
		if u.User != nil {
			return nil, trigger.Invalid("url holds a user or a password").WithFix("store USER:PASSWORD with: brasa secret put NAME; and name the secret in the field secret")
		}
		if u.RawQuery != "" || u.Fragment != "" {
			return nil, trigger.Invalid("url: what follows ? or # in %.80q is not understood", one).WithFix("leave it out; the other fields say the rest")
		}
		if u.Port() == "" {
			u.Host = net.JoinHostPort(u.Hostname(), ports[u.Scheme])
		}
		all = append(all, u)
	}
	return all, nil
}

// check refuses certificates that are none, or would not be used. secure are the schemes with TLS.
func (c brokerTLS) check(o trigger.Outside, all []*url.URL, secure ...string) error {
	for _, f := range []struct{ field, value string }{{"ca", c.CA}, {"cert", c.Cert}} {
		for _, u := range all {
			if f.value != "" && !slices.Contains(secure, u.Scheme) {
				return trigger.Invalid("%s is of connections with TLS, and %s:// has none", f.field, u.Scheme).WithFix("write the url with %s://", secure[0])
			}
		}
	}
	if err := checkSecret(o, c.Cert); err != nil {
		return err
	}
	return checkCA(c.CA)
}

// config is for a broker with the name of a host.
func (c brokerTLS) config(ctx context.Context, o trigger.Outside, host string) (*tls.Config, error) {
	t := tlsConfig(host, c.CA)
	if c.Cert != "" {
		text, err := o.Secret(ctx, c.Cert)
		if err != nil {
			return nil, fmt.Errorf("open the secret %q of cert: %w", c.Cert, err)
		}
		pair, err := tls.X509KeyPair([]byte(text), []byte(text))
		if err != nil {
			// What is wrong is not said: that could show some of the key.
			return nil, fmt.Errorf("cert: the secret %q does not hold a certificate and its key in PEM", c.Cert)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// dial connects to a broker with what Outside gives, and talks TLS if a configuration is given.
func dial(ctx context.Context, o trigger.Outside, u *url.URL, t *tls.Config) (net.Conn, error) {
	conn, err := o.Dial(ctx, "tcp", u.Host)
	if err != nil {
		return nil, remedied(err)
	}
	if t == nil {
		return conn, nil
	}
	secure := tls.Client(conn, t)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // nothing was said on it
		return nil, explainTLS(err)
	}
	return secure, nil
}

// certificateHint is for a broker that refuses what is shown to it.
const certificateHint = "the broker wants to see a certificate that it knows: name in the field cert a secret with one and its key"

// refusesCertificate says whether the other end of TLS did not take our certificate, or missed one. What it
// says comes with the first answer; package tls has no type for it, and the client of AMQP keeps its text.
func refusesCertificate(err error) bool {
	if err == nil {
		return false
	}
	_, said, _ := strings.Cut(err.Error(), "remote error: tls: ")
	switch said {
	case "bad certificate", "unsupported certificate", "revoked certificate", "expired certificate", "unknown certificate",
		"unknown certificate authority", "certificate required", "error decrypting message", "access denied":
		return true
	}
	return false
}

// explainTLS says what to do about a certificate that nobody trusted vouches for.
func explainTLS(err error) error {
	var unknown x509.UnknownAuthorityError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("%w; if the broker's authority is your own, write its certificate in the field ca", err)
	case errors.As(err, &record):
		return fmt.Errorf("%w; the broker does not speak TLS on this port: see the scheme and the port in url", err)
	}
	return err
}

// eachAddress connects to the first of the addresses that can be. The error is the last one's, and
// names it.
func eachAddress(ctx context.Context, all []*url.URL, connect func(context.Context, *url.URL) error) error {
	var err error
	for _, u := range all {
		one, cancel := context.WithTimeout(ctx, brokerConnect)
		err = connect(one, u)
		cancel()
		if err == nil || ctx.Err() != nil {
			break
		}
		if refusesCertificate(err) {
			err = fmt.Errorf("%w; %s", err, certificateHint)
		}
		err = fmt.Errorf("connect to %s://%s: %w", u.Scheme, u.Host, err)
	}
	return err
}

// userAndPassword opens the secret of the field secret.
func userAndPassword(ctx context.Context, o trigger.Outside, name string) (user, password string, err error) {
	text, err := o.Secret(ctx, name)
	if err != nil {
		return "", "", fmt.Errorf("open the secret %q: %w", name, err)
	}
	user, password, ok := strings.Cut(strings.TrimRight(text, "\r\n"), ":")
	if !ok {
		return "", "", fmt.Errorf("secret: the secret %q is not USER:PASSWORD; store it anew with: brasa secret put %s", name, name)
	}
	return user, password, nil
}

// contentType is what the sender says of the data or, if it says nothing that can be used, what the
// data looks like.
func contentType(said string, data []byte) string {
	if _, _, err := mime.ParseMediaType(said); err == nil {
		return said
	}
	return contentTypeOf(data)
}

// setHeader adds what a sender named and wrote.
func setHeader(h map[string][]string, prefix, name, value string) {
	key := textproto.CanonicalMIMEHeaderKey(prefix + headerName(name))
	h[key] = append(h[key], headerValue([]byte(value)))
}
