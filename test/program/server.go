package program

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

// Server is a `brasa serve`.
type Server struct {
	*Process
	URL  string // such as http://127.0.0.1:41234
	Data string // its folder

	program string
}

// patience is how long a server may take to begin, or to end.
const patience = time.Minute

// variable is how an argument begins that is one of a server's environment.
var variable = regexp.MustCompile(`^[A-Z_]+=`)

// Serve starts a server of the program at that path, on a port of its own, and waits until it takes calls.
// Arguments such as NAME=VALUE go into its environment.
func Serve(program, data string, args ...string) (*Server, error) {
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
	cmd := exec.Command(program, "serve", "--listen", address, "--data", data)
	cmd.Env = append(os.Environ(), "NO_COLOR=1", "BRASA_PREFIX=t"+port)
	for _, arg := range args {
		if variable.MatchString(arg) {
			cmd.Env = append(cmd.Env, arg)
		} else {
			cmd.Args = append(cmd.Args, arg)
		}
	}
	p, err := Start(cmd)
	if err != nil {
		return nil, err
	}
	s := &Server{Process: p, URL: "http://" + address, Data: data, program: program}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.ready(ctx); err != nil {
		p.Kill()
		return nil, fmt.Errorf("%w; it said:\n%s", err, p.Text())
	}
	return s, nil
}

func (s *Server) ready(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/readyz", nil)
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

// Ask runs a command of the program against the server, and returns what it wrote to standard output, without
// space around it.
func (s *Server) Ask(args ...string) (string, error) {
	cmd := exec.Command(s.program, args...)
	cmd.Env = append(os.Environ(), "BRASA_SERVER="+s.URL, "BRASA_DATA="+s.Data)
	out, err := cmd.Output()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w\n%s", err, e.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("brasa %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Stop signals the server and wants it to end well.
func (s *Server) Stop(signal os.Signal) error {
	if _, err := s.Ends(signal, patience); err != nil {
		return err
	}
	if s.err != nil {
		return fmt.Errorf("%w; it said:\n%s", s.err, s.Text())
	}
	return nil
}
