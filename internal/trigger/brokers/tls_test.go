package brokers_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/brasa-dev/brasa/internal/trigger/brokers"
	"github.com/brasa-dev/brasa/internal/trigger/triggertest"
)

// authority signs certificates.
type authority struct {
	t    testing.TB
	ca   string // its own certificate, PEM
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	last int64 // serial number
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t, last: 1}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(a.last), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	var der []byte
	der, a.key = a.sign(a.cert)
	a.ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return a
}

// sign makes a key and its certificate. An authority's first is its own.
func (a *authority) sign(template *x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	signer := a.key
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	return der, key
}

// issue makes a certificate of a name with its key, PEM, for a server at 127.0.0.1 or a client.
func (a *authority) issue(name string) string {
	a.t.Helper()
	a.last++
	der, key := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(a.last), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})) + string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

func (a *authority) pair(name string) tls.Certificate {
	a.t.Helper()
	text := a.issue(name)
	p, err := tls.X509KeyPair([]byte(text), []byte(text))
	if err != nil {
		a.t.Fatal(err)
	}
	return p
}

// A broker may want to see a certificate, and know its client by that.
func TestMQTTByCertificate(t *testing.T) {
	m := startMosquitto(t)
	c := mqttClient(t, m)
	h := mqttHouse(t)
	h.Secret("BRASA", m.authority.issue("brasa"))
	h.Secret("STRANGER", newAuthority(t).issue("brasa"))
	h.Run()
	url := "mqtts://127.0.0.1:" + m.certPort
	h.Trigger("t", "mqtt", m.config("url", url, "ca", m.ca, "cert", "BRASA", "secret", ""), "BRASA")
	subscribed(t, h, c, "orders/eu")
	publish(t, c, 1, "orders/eu", "a")
	triggertest.Until(t, "the call", func() bool { return made(h)["a"] == 1 })
	h.Trigger("stranger", "mqtt", m.config("url", url, "ca", m.ca, "cert", "STRANGER"), "STRANGER", "LOGIN")
	wantStatus(t, h, "stranger", "field cert")
	h.Trigger("none", "mqtt", m.config("url", url, "ca", m.ca), "LOGIN")
	wantStatus(t, h, "none", "field cert")
}

func TestKafkaByCertificate(t *testing.T) {
	a := newAuthority(t)
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM([]byte(a.ca))
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"),
		kfake.TLS(&tls.Config{Certificates: []tls.Certificate{a.pair("broker")}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	cl := kafkaClient(t, cluster.ListenAddrs()[0], kgo.DialTLSConfig(&tls.Config{Certificates: []tls.Certificate{a.pair("shop")}, RootCAs: clients}))
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Value: []byte("a")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	h := triggertest.Open(t, brokers.Kinds()...)
	h.Secret("BRASA", a.issue("brasa"))
	h.Secret("STRANGER", newAuthority(t).issue("brasa"))
	h.Run()
	config := func(cert string) map[string]any {
		return map[string]any{"brokers": cluster.ListenAddrs()[0], "topic": "orders", "from": "all", "tls": true, "ca": a.ca, "cert": cert}
	}
	h.Trigger("t", "kafka", config("BRASA"), "BRASA")
	triggertest.Until(t, "the call", func() bool { return made(h)["a"] == 1 })
	h.Trigger("stranger", "kafka", config("STRANGER"), "STRANGER")
	wantStatus(t, h, "stranger", "field cert")
	h.Trigger("none", "kafka", config(""))
	wantStatus(t, h, "none", "field cert")
}
