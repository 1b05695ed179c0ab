package bootstrap

import (
	"io"
	"strconv"
	"time"
)

// Host is a program of Brasa's own that runs functions which come with LOAD, and speaks for them.
// This file is not copied into the modules of functions.
type Host struct {
	Runtime string // name in HELLO
	Version string
	// Load makes the function ready to be called. spec is LOAD's JSON. A Fault is told as it is.
	Load func(spec []byte) error
	// Call runs one call; several run at once. What it returns is Answered, or any value that a
	// function in Go may return.
	Call Handler
}

// Serve serves calls until whoever started the process goes away. It does not return.
func (h Host) Serve() {
	serve(program{
		runtime: h.Runtime, version: h.Version, call: h.Call,
		load: func(spec []byte, _ *link) ([]byte, *fault) {
			began := time.Now()
			if err := h.Load(spec); err != nil {
				f := faultOf(err)
				return nil, &f
			}
			return loadedIn(time.Since(began)), nil
		},
	})
}

func loadedIn(took time.Duration) []byte {
	b := []byte(`{"dependency_us":0,"code_us":`)
	return append(strconv.AppendInt(b, took.Microseconds(), 10), '}')
}

// Fault is an error with all that the host can be told of it.
type Fault = fault

// Answered is an answer with a body in memory, as Handler returns it.
func Answered(status int, contentType string, body []byte) any {
	return finished{status, map[string][]string{"Content-Type": {contentType}}, body}
}

// Body is the request's body. Reading a streamed one waits for more; Abandon ends that.
func (c *Call) Body() io.Reader { return c.body }

// Abandon ends the request's body: what waits for more of it gets err.
func (c *Call) Abandon(err error) { c.body.put(nil, err) }

// Log sends whole lines of the call's stderr.
func (c *Call) Log(lines []byte) { _, _ = callLog{c}.Write(lines) }
