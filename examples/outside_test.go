package examples_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/brasa-dev/brasa/internal/faas"
)

// longAgo is when an old delivery was signed.
var longAgo = time.Now().Add(-time.Hour)

func limitsOf(memory faas.Bytes) *faas.Limits { return &faas.Limits{Memory: memory} }

// Addresses of RFC 5737, which nobody has: the host's end of the link and the server's.
const (
	hostAddress    = "203.0.113.1"
	outsideAddress = "203.0.113.2"
)

// outsideServer serves a few pages in a network namespace that is joined to this one by a link,
// and returns its address. It skips the test where that can't be had.
func outsideServer(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	routes, err := netlink.RouteGet(net.ParseIP(outsideAddress))
	if err == nil && len(routes) > 0 && routes[0].Gw == nil && len(routes[0].Src) > 0 && routes[0].Src.String() == hostAddress {
		t.Skip("another run of this test is under way")
	}
	listener, fd := listenElsewhere(t)
	link := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "out1", PeerNamespace: netlink.NsFd(fd)}
	link.Name = fmt.Sprintf("exout%d", os.Getpid()%100000)
	if err := netlink.LinkAdd(link); err != nil {
		t.Skipf("a link to another namespace can't be had: %v", err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkDel(link); err != nil {
			t.Errorf("remove link: %v", err)
		}
	})
	prepare := func(h *netlink.Handle, name, address string) {
		t.Helper()
		l, err := h.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		a, err := netlink.ParseAddr(address + "/30")
		if err != nil {
			t.Fatal(err)
		}
		if err := h.AddrAdd(l, a); err != nil {
			t.Fatal(err)
		}
		if err := h.LinkSetUp(l); err != nil {
			t.Fatal(err)
		}
	}
	here, err := netlink.NewHandle()
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	there, err := netlink.NewHandleAt(netns.NsHandle(fd))
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	prepare(here, link.Name, hostAddress)
	prepare(there, "out1", outsideAddress)

	pages := http.NewServeMux()
	pages.HandleFunc("/page", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, `<!doctype html><title>Outside &amp; about</title><a href="/a">A</a> <a href="b">B</a>`)
	})
	pages.Handle("/moved", http.RedirectHandler("/page", http.StatusFound))
	srv := &http.Server{Handler: pages, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(listener) // always an error: that it was closed
	}()
	t.Cleanup(func() {
		_ = srv.Close() // the listener's error is of no interest
		<-served
	})
	return "http://" + outsideAddress
}

// listenElsewhere makes a network namespace and a listener in it.
func listenElsewhere(t *testing.T) (net.Listener, int) {
	t.Helper()
	type made struct {
		l   net.Listener
		ns  netns.NsHandle
		err error
	}
	out := make(chan made)
	go func() {
		// The thread has another network from here on and is never given back: the runtime ends
		// it with the goroutine.
		runtime.LockOSThread()
		ns, err := netns.New()
		if err != nil {
			out <- made{err: err}
			return
		}
		l, err := net.Listen("tcp4", "0.0.0.0:80")
		out <- made{l, ns, err}
	}()
	m := <-out
	if m.err != nil {
		t.Skipf("a network namespace can't be had: %v", m.err)
	}
	t.Cleanup(func() { _ = m.ns.Close() })
	return m.l, int(m.ns)
}
