// Package gateway is the door: listeners, TLS, who is asking, and the bounds of time and size
// that hold for every request.
//
// Each request gets an id, which is the invocation's too if it leads to one; its key is looked at
// once; its body must come, and its answer be taken, at a rate that shows that somebody is there.
// Then the path decides which dialect answers, and what belongs to none is not found. A panic
// ends one request, never the server.
//
// What a path means and who may use it is left to the dialects.
package gateway

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/faas"
)

// Config says what a Gateway is made of. Zero means the default.
type Config struct {
	API  *api.Server
	Keys *auth.Keys
	// Registry answers what is asked below /v2/; nil: nothing is.
	Registry http.Handler
	// OpenWhisk answers what is asked of that dialect, /api/ and /; nil: nothing is.
	OpenWhisk http.Handler
	// Listen is the address of the listener. Default 127.0.0.1:8080, which only this machine reaches.
	Listen string
	// Inside is asked when Run begins for a second listener, by which functions call; nil, and nil of
	// it: there is none. It is served as the first is, and whoever comes by it is trusted no more. It
	// speaks no TLS: what it carries does not leave the machine.
	Inside func() net.Listener
	// Visitor returns the instance that an address of Inside's belongs to. It is asked for each of its
	// connections.
	Visitor func(remote net.Addr) string
	// Cert and Key are files in PEM form; with both the listener speaks TLS, HTTP/2 included.
	Cert, Key string

	HeaderTimeout time.Duration // for a request's head to come; default 10s
	IdleTimeout   time.Duration // for the next request on a connection; default 2m
	MaxHeader     int           // bytes of a request's head; default 64 KiB
	MaxConns      int           // connections at once; what is over waits to be accepted; default 10,000
	// BodyCredit is how long a sender may keep us waiting for its body in all, and BodyRate the
	// bytes a second that earn more of it. Time in which we don't take what is sent does not
	// count. Defaults 30s and 1 KiB.
	BodyCredit time.Duration
	BodyRate   int
	// WriteTimeout is how long a receiver may leave a piece of an answer untaken. Default 60s.
	WriteTimeout time.Duration
	// Grace is how long requests in flight may go on when Run's context ends. Default 10s.
	Grace  time.Duration
	Logger *slog.Logger
}

func (c *Config) applyDefaults() {
	c.Listen = cmp.Or(c.Listen, "127.0.0.1:8080")
	c.HeaderTimeout = cmp.Or(c.HeaderTimeout, 10*time.Second)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, 2*time.Minute)
	c.MaxHeader = cmp.Or(c.MaxHeader, 64<<10)
	c.MaxConns = cmp.Or(c.MaxConns, 10_000)
	c.BodyCredit = cmp.Or(c.BodyCredit, 30*time.Second)
	c.BodyRate = cmp.Or(c.BodyRate, 1<<10)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, 60*time.Second)
	c.Grace = cmp.Or(c.Grace, 10*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Gateway is the door. Its handler is safe for concurrent use.
type Gateway struct {
	cfg      Config
	tls      *tls.Config // nil: none
	inFlight sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener // guarded by mu; nil before Listen and after Close
}

// New checks the configuration and reads the certificate; nothing is started.
func New(cfg Config) (*Gateway, error) {
	cfg.applyDefaults()
	if cfg.API == nil || cfg.Keys == nil {
		return nil, errors.New("make gateway: an API server and keys are needed")
	}
	g := &Gateway{cfg: cfg}
	if (cfg.Cert == "") != (cfg.Key == "") {
		return nil, errors.New("make gateway: a certificate needs its key and a key its certificate")
	}
	if cfg.Cert != "" {
		pair, err := tls.LoadX509KeyPair(cfg.Cert, cfg.Key)
		if err != nil {
			return nil, fmt.Errorf("read certificate: %w", err)
		}
		// The protocols are said here and not left to the server: it looks for them only once, when
		// the first of its listeners is served, which may be the one that has no TLS.
		g.tls = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	}
	return g, nil
}

// Listen binds the address, so that its owner knows before Run that it is free. Run does it too
// if nobody did.
func (g *Gateway) Listen(ctx context.Context) (net.Addr, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listener != nil {
		return g.listener.Addr(), nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", g.cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", g.cfg.Listen, err)
	}
	g.listener = l
	if g.tls == nil && !loopback(l.Addr()) {
		g.cfg.Logger.Warn("keys and answers cross the network unencrypted", "listen", l.Addr().String())
	}
	return l.Addr(), nil
}

func loopback(a net.Addr) bool {
	ap, err := netip.ParseAddrPort(a.String())
	return err == nil && ap.Addr().Unmap().IsLoopback()
}

// Close gives the address back if Run does not hold it.
func (g *Gateway) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listener == nil {
		return nil
	}
	err := g.listener.Close()
	g.listener = nil
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// errDraining is the cause of the end of requests that outlasted the grace.
var errDraining = errors.New("the server is shutting down")

// lastWords is how long requests that were cut off get to say so.
const lastWords = 2 * time.Second

// Run serves until ctx ends, then takes no more, lets what is in flight finish within the grace,
// and cuts off the rest.
func (g *Gateway) Run(ctx context.Context) error {
	if _, err := g.Listen(ctx); err != nil {
		return err
	}
	defer func() { _ = g.Close() }()
	g.mu.Lock()
	l := netutil.LimitListener(g.listener, g.cfg.MaxConns)
	g.mu.Unlock()
	// Requests outlive ctx by the grace.
	base, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	srv := &http.Server{
		Handler:           g,
		ReadHeaderTimeout: g.cfg.HeaderTimeout,
		IdleTimeout:       g.cfg.IdleTimeout,
		MaxHeaderBytes:    g.cfg.MaxHeader,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			ctx = context.WithValue(ctx, paceKey{}, new(time.Time))
			if v, ok := c.(*visit); ok {
				ctx = faas.WithInstance(ctx, v.instance)
			}
			return ctx
		},
		ErrorLog:  slog.NewLogLogger(g.cfg.Logger.Handler(), slog.LevelDebug),
		TLSConfig: g.tls,
		// OPTIONS * is a path like any other that we don't have.
		DisableGeneralOptionsHandler: true,
	}
	served := make(chan error, 2)
	listeners := 1
	go func() {
		if g.tls != nil {
			served <- srv.ServeTLS(l, "", "")
		} else {
			served <- srv.Serve(l)
		}
	}()
	if inside := g.inside(); inside != nil {
		listeners++
		go func() { served <- srv.Serve(inside) }()
	}
	select {
	case err := <-served:
		cut(errDraining)
		return errors.Join(fmt.Errorf("serve: %w", err), srv.Close())
	case <-ctx.Done():
	}
	g.cfg.API.Drain()
	grace, done := context.WithTimeout(base, g.cfg.Grace)
	defer done()
	err := srv.Shutdown(grace)
	for range listeners {
		<-served
	}
	// A connection that changed its protocol is none of the server's any more, but still ours.
	if err != nil || !g.wait(grace) {
		g.cfg.Logger.Warn("requests cut off", "grace", g.cfg.Grace)
		cut(errDraining)
		last, done := context.WithTimeout(context.WithoutCancel(base), lastWords)
		defer done()
		g.wait(last)
		return srv.Close()
	}
	return nil
}

// wait returns true when no request is in flight, and false when ctx ends before.
func (g *Gateway) wait(ctx context.Context) bool {
	none := make(chan struct{})
	go func() { // ends with the last request, which Run's end does not wait for
		g.inFlight.Wait()
		close(none)
	}()
	select {
	case <-none:
		return true
	case <-ctx.Done():
		return false
	}
}
