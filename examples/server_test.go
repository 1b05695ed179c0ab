package examples_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/daemon"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
)

// startServer returns the server that BRASA_TEST_SERVER and BRASA_TEST_KEY name, or starts one
// that ends with the test. It skips the test where sandboxes can't be had.
func startServer(t *testing.T) *server {
	t.Helper()
	if url := os.Getenv("BRASA_TEST_SERVER"); url != "" {
		s := &server{key: os.Getenv("BRASA_TEST_KEY"), namespace: "default"}
		var err error
		if s.Client, err = api.NewClient(url, s.key); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
	if sandbox.NeedsReexec() {
		t.Skip("needs root, or the address of a server in BRASA_TEST_SERVER and its key in BRASA_TEST_KEY")
	}
	for _, f := range sandbox.Probe() {
		if f.Required && !f.Have {
			t.Skipf("sandboxes can't be had here: %s: %s", f.Name, f.Detail)
		}
	}
	return startDaemon(t)
}

func startDaemon(t *testing.T) *server {
	t.Helper()
	// A port that was free a moment ago; a listener on 0 would not tell the server its own URL.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listen := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	// Nor must it meet another server on this machine: its names and its subnet are its own.
	port := l.Addr().(*net.TCPAddr).Port
	config := daemon.Config{Data: dir, Listen: listen, Prefix: fmt.Sprintf("ex%d", port)}
	config.Egress.Subnet = fmt.Sprintf("100.%d.%d.0/24", 64+port%51, port/51%256)
	d, err := daemon.New(config)
	if err != nil {
		t.Fatal(err)
	}
	// Not t.Context(), which ends before the cleanups that still call the server.
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	var failed error
	go func() {
		defer close(ended)
		failed = d.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
		if failed != nil && !errors.Is(failed, context.Canceled) {
			t.Errorf("the server ended with: %v", failed)
		}
	})
	open, err := api.NewClient("http://"+listen, "")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		r, err := open.Ready(ctx)
		if err == nil && r.Ready {
			break
		}
		if err != nil && faas.CodeOf(err) != faas.Unavailable {
			t.Fatal(err)
		}
		select {
		case <-ended:
			t.Fatalf("the server did not start: %v", failed)
		case <-tick.C:
		}
	}
	key, err := os.ReadFile(filepath.Join(dir, "admin.key"))
	if err != nil {
		t.Fatal(fmt.Errorf("read admin key: %w", err))
	}
	s := &server{key: strings.TrimSpace(string(key)), namespace: "default", subnet: config.Egress.Subnet}
	if s.Client, err = api.NewClient("http://"+listen, s.key); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}
