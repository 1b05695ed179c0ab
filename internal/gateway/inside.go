package gateway

import (
	"net"

	"golang.org/x/net/netutil"
)

// visits is the listener by which functions call. It has as many places as the other one, and none
// of those: functions that take them all keep nobody else out.
type visits struct {
	net.Listener
	visitor func(remote net.Addr) string
}

// visit is a connection of an instance's.
type visit struct {
	net.Conn
	instance string
}

// inside returns the listener by which functions call; nil: there is none.
func (g *Gateway) inside() net.Listener {
	if g.cfg.Inside == nil {
		return nil
	}
	l := g.cfg.Inside()
	if l == nil {
		return nil
	}
	return &visits{netutil.LimitListener(l, g.cfg.MaxConns), g.cfg.Visitor}
}

// Accept returns the next connection, with whose it is.
func (v *visits) Accept() (net.Conn, error) {
	c, err := v.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &visit{c, v.visitor(c.RemoteAddr())}, nil
}
