package brokers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger"
)

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
