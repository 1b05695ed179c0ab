package cli

import (
	"fmt"
	"io"
	"time"
)

// Wait shows on a terminal that something is being waited for, and for how long already. The
// function it returns ends that and leaves no trace; it must be called. Elsewhere nothing is
// shown.
func (p *Printer) Wait(what string) (done func()) {
	if !p.ErrTTY || p.Quiet {
		return func() {}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	begin := time.Now()
	go func() { // ends when done is called
		defer close(stopped)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		shown := false
		for {
			select {
			case <-stop:
				if shown {
					p.draw("\r\x1b[K")
				}
				return
			case <-tick.C:
				shown = true
				p.draw(fmt.Sprintf("\r\x1b[K%s %s", p.ErrStyles().Faint.Render(Clean(what)), Took(time.Since(begin))))
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
	}
}

func (p *Printer) draw(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = io.WriteString(p.Err, s) // nobody is left to tell if stderr is gone
}
