// Package program runs the program under test beside tests of the whole.
package program

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"time"
)

// Process is a program that runs beside a test. It is safe for concurrent use.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // good after done

	mu   sync.Mutex
	out  bytes.Buffer  // of stdout and stderr, guarded by mu
	more chan struct{} // closed and replaced when out grows, guarded by mu
}

// Start starts a program. Whoever starts it ends it, with Stop or Kill.
func Start(cmd *exec.Cmd) (*Process, error) {
	p := &Process{cmd: cmd, done: make(chan struct{}), more: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p, p
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with the program
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Write takes what the program writes.
func (p *Process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.more)
	p.more = make(chan struct{})
	return p.out.Write(b)
}

// Text is what the program has written so far.
func (p *Process) Text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// WaitFor returns when what was written matches.
func (p *Process) WaitFor(pattern *regexp.Regexp, within time.Duration) error {
	late := time.After(within)
	for {
		p.mu.Lock()
		more, found := p.more, pattern.Match(p.out.Bytes())
		p.mu.Unlock()
		if found {
			return nil
		}
		select {
		case <-more:
		case <-p.done:
			if pattern.MatchString(p.Text()) {
				return nil
			}
			return fmt.Errorf("it ended without writing %q; it wrote:\n%s", pattern, p.Text())
		case <-late:
			return fmt.Errorf("no %q within %s; it wrote:\n%s", pattern, within, p.Text())
		}
	}
}

// Ends sends a signal to the program, and returns the code with which it ends within that time.
func (p *Process) Ends(signal os.Signal, within time.Duration) (code int, err error) {
	if err := p.cmd.Process.Signal(signal); err != nil {
		return 0, err
	}
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(within):
		p.Kill()
		return 0, fmt.Errorf("it did not end within %s; it wrote:\n%s", within, p.Text())
	}
}

// Kill ends the program, which has no time to do anything, if it has not ended.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended already
	<-p.done
}
