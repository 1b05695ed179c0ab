package install_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The tests' registry has a private network of its own, since no sandbox may reach the machine itself.
// Two runs of the tests have different ones.
var (
	registryID   = os.Getpid()
	registryNet  = registryAt(0).String()
	registryNear = registryAt(1)
	registryFar  = registryAt(2)
	nearLink     = fmt.Sprintf("npmn%x", registryID&0xffffff)
	farLink      = fmt.Sprintf("npmf%x", registryID&0xffffff)
)

func registryAt(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 213, byte(registryID >> 6), byte(registryID<<2) + byte(n)}), 30)
}

// listenBeside listens at an address behind a link of this machine.
func listenBeside(t *testing.T) net.Listener {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: the registry has a network namespace of its own")
	}
	type answer struct {
		l   net.Listener
		err error
	}
	got := make(chan answer)
	linked := make(chan error)
	space := make(chan int, 1)
	go func() { // on a thread of its own, which ends with it
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			got <- answer{nil, err}
			return
		}
		space <- unix.Gettid()
		if err := <-linked; err != nil {
			got <- answer{nil, err}
			return
		}
		far, err := netlink.LinkByName(farLink)
		if err == nil {
			err = errors.Join(addressed(far, registryFar), netlink.RouteAdd(&netlink.Route{LinkIndex: far.Attrs().Index, Gw: registryNear.Addr().AsSlice()}))
		}
		if err != nil {
			got <- answer{nil, err}
			return
		}
		l, err := net.Listen("tcp4", registryFar.Addr().String()+":0")
		got <- answer{l, err}
	}()
	var a answer
	select {
	case a = <-got:
	case tid := <-space:
		attrs := netlink.NewLinkAttrs()
		attrs.Name = nearLink
		err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: farLink, PeerNamespace: netlink.NsPid(tid)})
		if err == nil {
			var near netlink.Link
			if near, err = netlink.LinkByName(nearLink); err == nil {
				err = addressed(near, registryNear)
				t.Cleanup(func() { _ = netlink.LinkDel(near) })
			}
		}
		linked <- err
		a = <-got
	}
	if a.err != nil {
		t.Skipf("no network can be made for a registry: %v", a.err)
	}
	return a.l
}

func addressed(link netlink.Link, address netip.Prefix) error {
	a, err := netlink.ParseAddr(address.String())
	if err != nil {
		return err
	}
	return errors.Join(netlink.AddrAdd(link, a), netlink.LinkSetUp(link))
}

// registry is as much of an npm registry as npm needs.
type registry struct {
	url, addr  string
	packages   map[string]map[string]any // of each name what a registry says of it
	tarballs   map[string][]byte         // by path
	integrity  map[string]string         // by name@version
	authorized bool                      // somebody came with the token
	called     bool                      // a script called home
	server     *http.Server
}

func newRegistry(t *testing.T) *registry {
	t.Helper()
	l := listenBeside(t)
	r := &registry{addr: l.Addr().String(), packages: map[string]map[string]any{}, tarballs: map[string][]byte{}, integrity: map[string]string{}}
	r.url = "http://" + r.addr + "/"
	r.server = &http.Server{Handler: http.HandlerFunc(r.serve)}
	go func() { _ = r.server.Serve(l) }()
	t.Cleanup(r.close)
	return r
}

func (r *registry) close() { _ = r.server.Close() }

func (r *registry) serve(w http.ResponseWriter, req *http.Request) {
	if req.Header.Get("Authorization") == "Bearer secret-token" {
		r.authorized = true
	}
	if req.URL.Path == "/called" {
		r.called = true
		return
	}
	if b, ok := r.tarballs[req.URL.Path]; ok {
		_, _ = w.Write(b)
		return
	}
	if p, ok := r.packages[strings.TrimPrefix(req.URL.Path, "/")]; ok {
		_ = json.NewEncoder(w).Encode(p)
		return
	}
	http.Error(w, `{"error":"not found"}`, http.StatusNotFound)
}

// publish puts one version of a package there.
func (r *registry) publish(t *testing.T, name, version, manifest string, files map[string]string) {
	t.Helper()
	b, sum := tgz(t, manifest, files)
	path := "/" + name + "/-/" + name + "-" + version + ".tgz"
	r.tarballs[path] = b
	r.integrity[name+"@"+version] = sum
	var m map[string]any
	if err := json.Unmarshal([]byte(manifest), &m); err != nil {
		t.Fatal(err)
	}
	m["dist"] = map[string]any{"tarball": "http://" + r.addr + path, "integrity": sum}
	r.packages[name] = map[string]any{"name": name, "dist-tags": map[string]string{"latest": version}, "versions": map[string]any{version: m}}
}
