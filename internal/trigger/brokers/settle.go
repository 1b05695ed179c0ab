package brokers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger"
)

// settle tells of an event until its calls are durable, and waits until they have come to their
// end. The error is ctx's: without one the source may forget the event.
func settle(ctx context.Context, o trigger.Outside, fire trigger.Fire, e faas.Event) error {
	for {
		fired, err := fire(ctx, e)
		if err == nil {
			_, err = fired.Settled(ctx)
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case fired.Calls != nil && faas.CodeOf(err) == faas.NotFound:
			// It was told before this server was down, and has ended so long ago that no record is left.
			o.Log.Warn("what became of an event's calls is not known any more", "event", e.ID, "cause", err)
			return nil
		}
		o.Log.Warn("event not settled; it is told again", "event", e.ID, "cause", err)
		timer := time.NewTimer(giveBack)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// contentTypeOf is what an event says of data about which its broker says nothing.
func contentTypeOf(data []byte) string {
	if json.Valid(data) {
		return "" // JSON
	}
	return "application/octet-stream"
}

// remedied is an error with what helps against it, since of a source's error people read the text.
func remedied(err error) error {
	if e := faas.AsError(err); e != nil && e.Fix != "" {
		return fmt.Errorf("%w; %s", err, e.Fix)
	}
	return err
}

// checkCA refuses what are no certificates.
func checkCA(ca string) error {
	if ca != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(ca)) {
		return trigger.Invalid("ca holds no certificate").WithFix("give it the text of a PEM file, from -----BEGIN CERTIFICATE----- on")
	}
	return nil
}

// tlsConfig is for a server whose certificate is signed by those of ca, or by those that the machine
// trusts if that is empty.
func tlsConfig(host, ca string) *tls.Config {
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if ca != "" {
		c.RootCAs = x509.NewCertPool()
		c.RootCAs.AppendCertsFromPEM([]byte(ca)) // checkCA has seen it
	}
	return c
}

// shake makes of a connection one that is encrypted.
func shake(ctx context.Context, plain net.Conn, config *tls.Config) (net.Conn, error) {
	conn := tls.Client(plain, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		plain.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return conn, nil
}
