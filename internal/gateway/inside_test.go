package gateway_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/gateway"
	"github.com/brasa-dev/brasa/internal/gateway/gatewaytest"
)

// Whoever calls by the listener of functions is known by the instance, and may do no more than others.
func TestCallsOfInstances(t *testing.T) {
	inside, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	next := make(chan string, 1) // the instance of the next connection
	d := gatewaytest.Open(t, gatewaytest.Options{Attempts: 3, Gateway: func(c *gateway.Config) {
		c.Inside, c.Visitor = func() net.Listener { return inside }, func(net.Addr) string { return <-next }
	}})
	from, ended := make(chan string, 1), make(chan (<-chan struct{}), 1)
	d.Function("green", "open", true, func(ctx context.Context, inv *faas.Invocation) (*faas.Result, error) {
		instance, gone := faas.AskedBy(context.WithoutCancel(ctx))
		select {
		case <-gone:
			t.Error("who has asked for the call is gone already")
		default:
		}
		from <- instance
		ended <- gone
		return gatewaytest.Echo(ctx, inv)
	})
	d.Function("green", "private", false, gatewaytest.Echo)
	ask := func(instance, method, path, key string) int {
		t.Helper()
		r := d.Request(method, path, key, strings.NewReader("x"))
		tr := &http.Transport{}
		t.Cleanup(tr.CloseIdleConnections) // what ends with a request ends before
		if instance != "" {
			next <- instance
			tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, inside.Addr().String())
			}
		}
		res, err := (&http.Client{Transport: tr}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	for _, instance := range []string{"i-1", "i-2", ""} {
		if status := ask(instance, http.MethodPost, "/f/green/open", ""); status != http.StatusOK {
			t.Fatalf("from %q: status %d", instance, status)
		}
		if got := <-from; got != instance {
			t.Errorf("from %q: the call is said to come from %q", instance, got)
		}
		if gone := <-ended; instance != "" {
			<-gone
		}
	}
	for path, want := range map[string]int{
		"/f/green/private": 401, "/v1/namespaces": 401, "/v1/namespaces/green/functions": 401, "/v1/doctor": 401, "/metrics": 404, "/debug/pprof/": 404,
	} {
		for _, instance := range []string{"i-1", ""} {
			method := http.MethodGet
			if strings.HasPrefix(path, "/f/") {
				method = http.MethodPost
			}
			if status := ask(instance, method, path, ""); status != want {
				t.Errorf("%s from %q without a key: status %d, want %d", path, instance, status, want)
			}
		}
	}
	// What one guesses is held against no other, though all have one address here.
	wrong := "brasa_" + strings.Repeat("0", 12) + "_" + strings.Repeat("0", 64)
	for range 5 {
		ask("i-1", http.MethodGet, "/v1/namespaces", wrong)
	}
	if status := ask("i-1", http.MethodGet, "/v1/namespaces/green/functions", d.Green); status != http.StatusTooManyRequests {
		t.Errorf("who has guessed: status %d", status)
	}
	for _, instance := range []string{"i-2", ""} {
		if status := ask(instance, http.MethodGet, "/v1/namespaces/green/functions", d.Green); status != http.StatusOK {
			t.Errorf("from %q after another has guessed: status %d", instance, status)
		}
	}
}
