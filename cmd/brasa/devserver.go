package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/faas"
)

// child is a server that runs for as long as we do. It is a process of its own, so that it may
// start itself again inside a user namespace and drain at its own pace.
type child struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // after done

	mu   sync.Mutex
	tail []string // its last words, guarded by mu
}

// lastWords is how many lines of a server that died are shown.
const lastWords = 20

// findServer returns nil if a server answers already, or starts one.
func (d *dev) findServer(ctx context.Context) (*child, error) {
	client, err := d.app.client()
	if err != nil {
		return nil, err
	}
	asking, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err = client.Version(asking)
	if _, unreachable := errors.AsType[*api.Unreachable](err); err == nil || !unreachable {
		return nil, err
	}
	u, parseErr := url.Parse(d.server)
	if parseErr != nil || !local(u) || u.Scheme != "http" || u.Port() == "" {
		return nil, err // elsewhere, where we can start nothing
	}
	return d.startServer(ctx, u.Host)
}

func (d *dev) startServer(ctx context.Context, listen string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"serve", "--listen", listen, "--data", d.data}
	if d.config != "" {
		args = append(args, "--config", d.config)
	}
	c := &child{cmd: exec.Command(self, args...), done: make(chan struct{})} //nolint:noctx // ends by stop, in its own time
	// Ctrl-C reaches the terminal's whole group: the server gets a group of its own, and our
	// signal when it is time. If we are killed it is told as well.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	words, err := c.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	started := make(chan error)
	go func() { // ends with the server
		// The kernel ties the signal to the thread that started the server, not to the process:
		// the thread must live as long.
		runtime.LockOSThread()
		defer close(c.done)
		err := c.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		c.listen(words, d.out)
		c.err = c.cmd.Wait()
	}()
	if err := <-started; err != nil {
		return nil, cli.While(err, "start a server")
	}
	done := d.out.Wait("starting a server")
	err = d.ready(ctx, c)
	done()
	if err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

func (c *child) listen(words io.Reader, out *cli.Printer) {
	lines := bufio.NewScanner(words)
	for lines.Scan() {
		out.Detail("server: %s", cli.CleanLine(lines.Text()))
		c.mu.Lock()
		c.tail = append(c.tail, lines.Text())
		c.tail = c.tail[max(0, len(c.tail)-lastWords):]
		c.mu.Unlock()
	}
}

// ready waits until the server takes calls.
func (d *dev) ready(ctx context.Context, c *child) error {
	client, err := api.NewClient(d.server, "")
	if err != nil {
		return err
	}
	defer client.Close()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if r, err := client.Ready(ctx); err == nil && r.Ready {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.done:
			return c.died()
		case <-tick.C:
		}
	}
}

func (c *child) died() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return faas.Errorf(faas.Unavailable, "run a server", "it ended by itself: %v\n%s", c.err, strings.Join(c.tail, "\n"))
}

// wait returns when ctx ends, or with an error when the server did before.
func (c *child) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-c.done:
		return c.died()
	}
}

// stopGrace is how long a server may take to end what it has begun.
const stopGrace = 20 * time.Second

// stop ends the server and waits for it.
func (c *child) stop() {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-c.done:
	case <-time.After(stopGrace):
		_ = c.cmd.Process.Kill()
		<-c.done
	}
}
