package openwhisk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// server is a `brasa serve`.
type server struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // good after done
	out  output

	url, data string
}

// output is what a program wrote.
type output struct {
	mu  sync.Mutex
	all bytes.Buffer // guarded by mu
}

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.Write(b)
}

func (o *output) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.String()
}

// variable is how an argument begins that is one of a server's environment.
var variable = regexp.MustCompile(`^[A-Z_]+=`)

// startServer starts a server and waits until it takes calls. Arguments such as NAME=VALUE go into its environment.
func startServer(data string, args ...string) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil { // the server takes the port over; a thief would show as an error
		return nil, err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	s := &server{done: make(chan struct{}), url: "http://" + address, data: data}
	s.cmd = exec.Command(filepath.Join(binaries, "brasa"), append([]string{"serve", "--listen", address, "--data", data}, args...)...)
	s.cmd.Env = append(os.Environ(), "NO_COLOR=1", "BRASA_PREFIX=o"+port)
	s.cmd.Args = slices.DeleteFunc(s.cmd.Args, func(arg string) bool {
		if !variable.MatchString(arg) {
			return false
		}
		s.cmd.Env = append(s.cmd.Env, arg)
		return true
	})
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with the program
		s.err = s.cmd.Wait()
		close(s.done)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.ready(ctx); err != nil {
		s.kill()
		return nil, fmt.Errorf("%w; it said:\n%s", err, s.out.text())
	}
	return s, nil
}

func (s *server) ready(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/readyz", nil)
		if err != nil {
			return err
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.done:
			return fmt.Errorf("the server ended: %w", errors.Join(s.err))
		case <-tick.C:
		}
	}
}

// subject makes a subject with a namespace of its name, and returns its UUID:KEY.
func (s *server) subject(name string) (string, error) {
	create := exec.Command(filepath.Join(binaries, "brasa"), "subject", "create", name, "-o", "name")
	create.Env = append(os.Environ(), "BRASA_SERVER="+s.url, "BRASA_DATA="+s.data)
	out, err := create.Output()
	if err != nil {
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			out = e.Stderr
		}
		return "", fmt.Errorf("make subject %s: %w\n%s", name, err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// stop ends the server and wants it to end well.
func (s *server) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-s.done:
	case <-time.After(time.Minute):
		s.kill()
		return fmt.Errorf("it did not end; it said:\n%s", s.out.text())
	}
	if s.err != nil {
		return fmt.Errorf("%w; it said:\n%s", s.err, s.out.text())
	}
	return nil
}

func (s *server) kill() {
	_ = s.cmd.Process.Kill() // it may have ended already
	<-s.done
}
