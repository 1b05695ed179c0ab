package cli

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/charmbracelet/x/ansi"
)

// Wait shows on a terminal that something is being waited for, and for how long already. The
// function it returns ends that and leaves no trace; it must be called. Elsewhere nothing is
// shown.
func (p *Printer) Wait(what string) (done func()) {
	_, done = p.Watch(what)
	return done
}

// Watch is Wait with a text that changes: say replaces it, and may be called from any goroutine until
// done.
func (p *Printer) Watch(what string) (say func(string), done func()) {
	if !p.ErrTTY || p.Quiet {
		return func(string) {}, func() {}
	}
	var text atomic.Pointer[string]
	text.Store(&what)
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
				p.draw(fmt.Sprintf("\r\x1b[K%s %s", p.ErrStyles().Faint.Render(p.fit(CleanLine(*text.Load()))), Took(time.Since(begin))))
			}
		}
	}()
	say = func(s string) { text.Store(&s) }
	return say, func() {
		close(stop)
		<-stopped
	}
}

// fit cuts a text so that it stays on one line, with room for a time behind it: what goes on to a
// second line cannot be taken back.
func (p *Printer) fit(s string) string {
	const room = 10
	if most := max(p.Width, 40) - room; ansi.StringWidth(s) > most {
		return ansi.Truncate(s, most, "…")
	}
	return s
}

func (p *Printer) draw(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = io.WriteString(p.Err, s) // nobody is left to tell if stderr is gone
}
