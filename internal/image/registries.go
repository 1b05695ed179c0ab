package image

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Registries say which registries need more than their name. Others are asked as anybody may ask
// them, over TLS, and have public addresses: what an image is called is said by tenants, and shall
// not lead them to what only this machine can reach.
type Registries struct {
	Hosts []Host // by name; a registry that is listed may have a private address
	CA    string // file of the certificates that registries are trusted by; empty: the host's
}

// Host is one registry.
type Host struct {
	Name     string   `koanf:"host"`     // as references have it, with its port: ghcr.io, registry.example:5000
	User     string   `koanf:"user"`     // for Password
	Password string   `koanf:"password"` // or token that stands for one
	Token    string   `koanf:"token"`    // bearer token, instead of user and password
	Plain    bool     `koanf:"plain"`    // it speaks HTTP without TLS
	Mirrors  []string `koanf:"mirrors"`  // hosts that are asked before it, in order; what they need is said in entries of their own
	CA       string   `koanf:"ca"`       // file of the certificates that it is trusted by
}

// String leaves out what is secret.
func (h Host) String() string {
	s := h.Name
	if h.User != "" || h.Token != "" {
		s += " (with credentials)"
	}
	return s
}

// canonical is what a host's name is compared by.
func canonical(host string) string {
	if host == "docker.io" || host == "registry-1.docker.io" {
		return name.DefaultRegistry
	}
	return strings.ToLower(host)
}

// client asks registries.
type client struct {
	hosts   map[string]Host // by canonical name
	general http.RoundTripper
	trusted map[string]http.RoundTripper // of hosts
}

func newClient(r Registries) (*client, error) {
	c := &client{hosts: map[string]Host{}, trusted: map[string]http.RoundTripper{}}
	general, err := pool(nil, r.CA)
	if err != nil {
		return nil, err
	}
	c.general = newTransport(general, true)
	for _, h := range r.Hosts {
		if _, err := name.NewRegistry(h.Name, name.Insecure); err != nil || h.Name == "" {
			return nil, fmt.Errorf("images.registries: %q is not the name of a registry, such as ghcr.io or registry.example:5000", h.Name)
		}
		if h.Token != "" && h.Password != "" {
			return nil, fmt.Errorf("images.registries: %q has a password and a token; set one", h.Name)
		}
		key := canonical(h.Name)
		if _, ok := c.hosts[key]; ok {
			return nil, fmt.Errorf("images.registries: %q is there twice", h.Name)
		}
		own, err := pool(general, h.CA)
		if err != nil {
			return nil, err
		}
		c.hosts[key], c.trusted[key] = h, newTransport(own, false)
	}
	return c, nil
}

// pool returns base with the certificates of a file, which stand alone where there is no base.
func pool(base *x509.CertPool, file string) (*x509.CertPool, error) {
	if file == "" {
		return base, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("images.registries: %w", err)
	}
	out := x509.NewCertPool()
	if !out.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("images.registries: there is no certificate in %q", file)
	}
	return out, nil
}

// newTransport makes what carries requests. A guarded one connects to public addresses alone,
// whatever a name resolves to at that moment and wherever a registry sends us on to.
func newTransport(roots *x509.CertPool, guarded bool) http.RoundTripper {
	make := func(dialer *net.Dialer, proxy func(*http.Request) (*url.URL, error)) *http.Transport {
		return &http.Transport{
			Proxy: proxy, DialContext: dialer.DialContext, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: fetchAtOnce,
			IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: time.Minute,
			TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		}
	}
	open := net.Dialer{Timeout: 20 * time.Second, KeepAlive: 30 * time.Second}
	if !guarded {
		return make(&open, http.ProxyFromEnvironment)
	}
	closed := open
	closed.Control = func(_, address string, _ syscall.RawConn) error { return public(address) }
	return &guard{direct: make(&closed, nil), proxied: make(&open, http.ProxyFromEnvironment)}
}

// guard keeps requests to public addresses. Where a proxy of the operator carries them it decides
// itself what its names stand for, and an address that is written out is looked at here.
type guard struct{ direct, proxied *http.Transport }

func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	proxy, err := http.ProxyFromEnvironment(r)
	if err != nil {
		return nil, err
	}
	if proxy == nil {
		return g.direct.RoundTrip(r)
	}
	if a, err := netip.ParseAddr(strings.Trim(r.URL.Hostname(), "[]")); err == nil {
		if err := public(netip.AddrPortFrom(a, 1).String()); err != nil {
			return nil, err
		}
	}
	return g.proxied.RoundTrip(r)
}

// errPrivate says that an address is none of the public ones.
type errPrivate struct{ address string }

func (e errPrivate) Error() string { return "its address " + e.address + " is not a public one" }

// public refuses addresses that only this machine or its network can reach.
func public(address string) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	a := ap.Addr().Unmap().WithZone("")
	for _, p := range notPublic {
		if p.Contains(a) {
			return errPrivate{a.String()}
		}
	}
	if !a.IsGlobalUnicast() || a.IsPrivate() {
		return errPrivate{a.String()}
	}
	return nil
}

// notPublic are the ranges that are neither private nor meant for anybody: carriers' own networks,
// protocols, documentation, benchmarks, what is reserved, and forms of IPv6 that carry an IPv4 address.
var notPublic = func() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fec0::/10",
	} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}()

// transport returns what carries requests to a host.
func (c *client) transport(host string) http.RoundTripper {
	if t, ok := c.trusted[canonical(host)]; ok {
		return t
	}
	return c.general
}

// auth returns who we are to a host.
func (c *client) auth(host string) authn.Authenticator {
	switch h := c.hosts[canonical(host)]; {
	case h.Token != "":
		return &authn.Bearer{Token: h.Token}
	case h.Password != "" || h.User != "":
		return &authn.Basic{Username: cmp.Or(h.User, "brasa"), Password: h.Password}
	}
	return authn.Anonymous
}

// unreachable says what went wrong on the way to a registry.
func unreachable(what string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*faas.Error](err); ok {
		return err
	}
	if p, ok := errors.AsType[errPrivate](err); ok {
		return faas.Errorf(faas.Denied, op, "the registry is not asked, since %s", p.Error()).
			WithFix("the operator may list the registry under images.registries")
	}
	if code := faas.CodeOf(err); code == faas.Canceled || code == faas.Timeout {
		return err
	}
	return faas.Errorf(faas.Unavailable, op, "%s: %s", what, faas.Told(err)).WithFix("try again; if it stays so, see that the server can reach the registry")
}
