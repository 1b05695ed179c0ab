package daemon

import (
	"net"
	"testing"
)

// Functions are told the address that clients have only if they get there.
func TestInside(t *testing.T) {
	door, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer door.Close()
	through := "http://" + door.Addr().String()
	for name, c := range map[string]struct {
		url     string
		allow   []string
		no      bool
		closed  bool // there is no door
		address string
	}{
		"none set":                     {address: through},
		"loopback":                     {url: "https://127.0.0.1:8443", address: through},
		"a name of this machine":       {url: "http://localhost:8080", address: through},
		"a private address":            {url: "https://10.1.2.3", address: through},
		"one that is allowed":          {url: "https://10.1.2.3", allow: []string{"10.0.0.0/8"}, address: "https://10.1.2.3"},
		"metadata, whatever is":        {url: "http://169.254.169.254", allow: []string{"169.254.0.0/16"}, address: through},
		"a public address":             {url: "https://198.51.100.7", address: "https://198.51.100.7"},
		"IPv6, which functions lack":   {url: "https://[2a00::1]", address: through},
		"a name that there is not":     {url: "https://brasa.invalid", address: through},
		"no door":                      {closed: true},
		"no door, and another machine": {url: "https://198.51.100.7", closed: true, address: "https://198.51.100.7"},
		"not wanted":                   {no: true},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{URL: c.url}
			cfg.Egress.Allow, cfg.Egress.NoAPI = c.allow, c.no
			d, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			var at net.Listener
			if !c.closed {
				at = door
			}
			if got := d.inside(t.Context(), at); got != c.address {
				t.Errorf("got %q, want %q", got, c.address)
			}
		})
	}
}
