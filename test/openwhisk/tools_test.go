package openwhisk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// modules is the folder in which the client for Node.js is installed.
var modules string

// errOffline is why a client is not there: its registry can't be reached.
var errOffline = errors.New("can't be fetched")

// clients get OpenWhisk's clients ready, once each. An error says why one can't be had; scripts that
// need it skip then.
var clients = map[string]func() error{
	"wsk": sync.OnceValue(func() error {
		return fetchAndBuild("tools/wsk", "wsk", "github.com/sciabarracom/openwhisk-cli")
	}),
	"wskdeploy": sync.OnceValue(func() error {
		return fetchAndBuild("tools/wskdeploy", "wskdeploy", "github.com/apache/openwhisk-wskdeploy")
	}),
	"goclient": sync.OnceValue(func() error {
		return fetchAndBuild("tools/goclient", "goclient", ".")
	}),
	"npm": sync.OnceValue(installNode),
}

// TestClients fails when a client can be fetched and not be built: its scripts would only be skipped.
func TestClients(t *testing.T) {
	for name, ready := range clients {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := ready(); errors.Is(err, errOffline) {
				t.Skip(err)
			} else if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// fetchAndBuild builds a client of a module of its own, so that what it needs is not among what the
// program needs. The modules and what was compiled stay in the caches of go.
func fetchAndBuild(module, name, pkg string) error {
	if out, err := run(module, "go", "mod", "download"); err != nil {
		return fmt.Errorf("%s %w: %s", name, errOffline, out)
	}
	return build(module, name, pkg)
}

func build(module, name, pkg string) error {
	if out, err := run(module, "go", "build", "-ldflags", "-s -w", "-o", filepath.Join(binaries, name), pkg); err != nil {
		return fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return nil
}

// installNode installs the client for Node.js as its lock file says.
func installNode() error {
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("the client for Node.js %w: %w", errOffline, err)
		}
	}
	if err := os.CopyFS(modules, os.DirFS("tools/npm")); err != nil {
		return err
	}
	if out, err := run(modules, "npm", "ci", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund"); err != nil {
		return fmt.Errorf("the client for Node.js %w: %s", errOffline, out)
	}
	return nil
}

// run runs a program in a folder, and returns what it wrote.
func run(dir string, program string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	return bytes.TrimSpace(out), err
}
