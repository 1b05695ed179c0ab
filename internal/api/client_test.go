package api_test

import (
	"bytes"
	"io"
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
