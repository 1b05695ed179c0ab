package api_test

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/gateway/gatewaytest"
)

// A server that refuses a large input without reading it is heard: it is not taken for one that is gone.
func TestARefusalOfALargeInputIsHeard(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	d.Function("green", "f", false, gatewaytest.Echo)
	const size = 16 << 20
	inputs := map[string]func() io.Reader{
		"of known length": func() io.Reader { return bytes.NewReader(make([]byte, size)) },
		"of a stream":     func() io.Reader { return io.LimitReader(bytes.NewReader(make([]byte, size)), size) },
	}
	for name, input := range inputs {
		for range 10 {
			stranger, err := api.NewClient(d.URL, "brasa_000000000000_"+string(bytes.Repeat([]byte("0"), 64)))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stranger.Invoke(t.Context(), "green", "f", api.CallOptions{}, input()); faas.CodeOf(err) != faas.Unauthenticated {
				t.Fatalf("%s, a wrong key: %v", name, err)
			}
			stranger.Close()
			owner, err := api.NewClient(d.URL, d.Green)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := owner.Enqueue(t.Context(), "green", "none", api.CallOptions{}, api.Wait{}, input()); faas.CodeOf(err) != faas.NotFound {
				t.Fatalf("%s, no function: %v", name, err)
			}
			owner.Close()
		}
	}
}

// Whoever speaks without TLS to a server that has it is told so.
func TestAServerOfTLSIsNamed(t *testing.T) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	c, err := api.NewClient("http://"+s.Listener.Addr().String(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Version(t.Context())
	if want := "--server " + s.URL; !strings.Contains(faas.AsError(err).Fix, want) {
		t.Errorf("%v: fix %q, want %q in it", err, faas.AsError(err).Fix, want)
	}
}
