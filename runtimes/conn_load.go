package runtimes

import (
	"context"
	"encoding/json"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Hello waits until the runtime has booted.
func (c *Conn) Hello(ctx context.Context) (Hello, error) {
	select {
	case h := <-c.hello:
		c.hello <- h // for whoever asks again
		if h.Protocol != Protocol {
			return h, faas.Errorf(faas.Internal, "boot runtime", "bootstrap speaks protocol %d, want %d", h.Protocol, Protocol)
		}
		return h, nil
	case <-c.done:
		return Hello{}, c.lost("boot runtime", "the runtime exited before it was ready")
	case <-ctx.Done():
		return Hello{}, ended(ctx, "boot runtime", "the runtime was not ready in time")
	}
}

// Load gives the instance its function and waits until the code has run to its handler. It may
// be called once, and not after Begin. If the code fails the error is Failed, with the function's
// trace.
func (c *Conn) Load(ctx context.Context, spec Spec) (Loaded, error) {
	if err := c.Begin(spec); err != nil {
		return Loaded{}, err
	}
	return c.Loaded(ctx)
}

// Begin gives the instance its function and does not wait for it to be loaded: a call may follow
// at once, and is run as soon as the code is there. It may be called once. What became of the
// load is told by Loaded, and by each RoundTrip if it failed.
func (c *Conn) Begin(spec Spec) error {
	const op = "load function"
	if c.opts.Response == 0 {
		c.opts.Response = spec.Response
	}
	if spec.Contract != faas.ContractNative {
		c.action = &Spec{Namespace: spec.Namespace, Function: spec.Function}
	}
	type loadJSON struct {
		Protocol int `json:"protocol"`
		Spec
	}
	b, err := json.Marshal(loadJSON{Protocol, spec})
	if err != nil {
		return &faas.Error{Code: faas.Internal, Op: op, Err: err}
	}
	if len(b) > MaxPayload {
		return faas.Errorf(faas.TooLarge, op, "environment and secrets are %s; at most %s fit", faas.Bytes(len(b)), faas.Bytes(MaxPayload))
	}
	if err := c.sender.send(appendFrame(nil, frameLoad, 0, b)); err != nil {
		return c.lost(op, "the instance exited before its code was loaded")
	}
	return nil
}

// env is what a call finds in its environment, where its function's contract has such a thing.
func (c *Conn) env(inv *faas.Invocation) map[string]string {
	if c.action == nil {
		return nil
	}
	return ActionEnv(c.action.Namespace, c.action.Function, inv)
}

// Loaded waits until the load that was begun has ended and says how long it took. It may be
// called more than once. After the first answer of a call it does not wait, for an instance says
// that it has loaded before it answers.
func (c *Conn) Loaded(ctx context.Context) (Loaded, error) {
	const op = "load function"
	select {
	case <-c.loaded: // first, whatever else has ended
		return c.load, c.loadFailure()
	default:
	}
	select {
	case <-c.loaded:
		return c.load, c.loadFailure()
	case <-c.done:
		select {
		case <-c.loaded: // it said why before it went
			return c.load, c.loadFailure()
		default:
		}
		return Loaded{}, c.lost(op, "the process exited while its code was loading")
	case <-ctx.Done():
		return Loaded{}, ended(ctx, op, "the code was not loaded in time")
	}
}

// loadFailure returns the failure of the load, nil if there is none so far. Each who asks gets an
// error of his own, for he may add to it. The caller holds mu, or knows that the load has ended.
func (c *Conn) loadFailure() error {
	if c.loadErr == nil {
		return nil
	}
	e := *c.loadErr
	return &e
}

// loadEnded notes what became of the load. Calls that came with it share its failure.
func (c *Conn) loadEnded(l Loaded, failure *faas.Error) error {
	select {
	case <-c.loaded:
		return &protocolError{"a second LOADED"}
	default:
	}
	c.mu.Lock()
	c.load, c.loadErr = l, failure
	close(c.loaded)
	var calls map[uint32]*call
	if failure != nil {
		calls, c.calls = c.calls, map[uint32]*call{}
		c.wakeIdle()
	}
	c.mu.Unlock()
	for _, call := range calls {
		call.fail(c.loadFailure())
	}
	return nil
}
