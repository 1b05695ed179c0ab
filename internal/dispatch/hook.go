package dispatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/policy"
)

// HookConfig says how web hooks are called. Zero means the default.
type HookConfig struct {
	Allow   []netip.Prefix // private ranges that may be called
	Timeout time.Duration  // of one call; default 15 s
	// Outside replaces the rule which addresses may be called; nil: policy.Outside with Allow and
	// this machine's addresses.
	Outside func(netip.Addr) bool
}

// hooks calls web hooks. Whom it calls is judged when it connects, by the address that the name was
// resolved to, so that no name and no spelling of an address leads around the rule.
type hooks struct {
	cfg    HookConfig
	client *http.Client

	mu      sync.Mutex
	all     int            // guarded by mu; under way
	under   map[string]int // guarded by mu; by namespace
	waiting int            // guarded by mu; for a place
	waits   map[string]int // guarded by mu; by namespace
	freed   chan struct{}  // guarded by mu; closed and replaced when one has ended
}

var errInside = errors.New("the server does not call this machine, private addresses or those of a link")

func newHooks(cfg HookConfig) *hooks {
	cfg.Timeout = cmp.Or(cfg.Timeout, 15*time.Second)
	h := &hooks{cfg: cfg, under: map[string]int{}, waits: map[string]int{}, freed: make(chan struct{})}
	dialer := &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		a, err := netip.ParseAddrPort(address)
		if err != nil || !h.outside(a.Addr()) {
			return fmt.Errorf("connect to %s: %w", address, errInside)
		}
		return nil
	}}
	h.client = &http.Client{
		Transport: &http.Transport{
			Proxy:       nil, // it would connect for us, and to whom is not for it to say
			DialContext: dialer.DialContext, ForceAttemptHTTP2: true, TLSHandshakeTimeout: cfg.Timeout, MaxResponseHeaderBytes: 64 << 10,
			MaxIdleConnsPerHost: 4, MaxIdleConns: 64, IdleConnTimeout: 30 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return h
}

// outside says whether an address may be called.
func (h *hooks) outside(a netip.Addr) bool {
	if h.cfg.Outside != nil {
		return h.cfg.Outside(a)
	}
	own, err := net.InterfaceAddrs() // each time: they change
	if err != nil {
		return false
	}
	var ours []netip.Addr
	for _, o := range own {
		if p, err := netip.ParsePrefix(o.String()); err == nil {
			ours = append(ours, p.Addr())
		}
	}
	return policy.Outside(a, h.cfg.Allow, ours)
}

// errNoPlace says that as many deliveries wait for a place as may: their bodies are in memory.
var errNoPlace = faas.Errorf(faas.Unavailable, "call web hook", "as many web hooks are waited for as may be")

// place waits for a place among the deliveries, of which one namespace has a quarter at most; four
// times as many may wait. It is errNoPlace if more do. Before it waits it calls put.
func (h *hooks) place(ctx context.Context, namespace string, most int, put func()) (release func(), err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.full(namespace, most) {
		if h.waiting >= 4*most || h.waits[namespace] >= most {
			return nil, errNoPlace
		}
		h.waiting++
		h.waits[namespace]++
		defer func() {
			h.waiting--
			if h.waits[namespace]--; h.waits[namespace] == 0 {
				delete(h.waits, namespace)
			}
		}()
	}
	for first := true; h.full(namespace, most); first = false {
		freed := h.freed
		h.mu.Unlock()
		if first {
			put()
		}
		select {
		case <-freed:
		case <-ctx.Done():
			err = faas.Errorf(faas.Canceled, "call web hook", "%w", context.Cause(ctx))
		}
		h.mu.Lock()
		if err != nil {
			return nil, err
		}
	}
	h.all++
	h.under[namespace]++
	return func() { h.leave(namespace) }, nil
}

// full is called with mu held.
func (h *hooks) full(namespace string, most int) bool {
	return h.all >= most || h.under[namespace] >= max(most/4, 1)
}

func (h *hooks) leave(namespace string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all--
	if h.under[namespace]--; h.under[namespace] == 0 {
		delete(h.under, namespace)
	}
	close(h.freed)
	h.freed = make(chan struct{})
}

// call posts the body. Anything but a status of success is a failure.
func (h *hooks) call(ctx context.Context, inv *faas.Invocation) (status int, err error) {
	const op = "call web hook"
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, inv.Path, inv.Body)
	if err != nil {
		return 0, &faas.Error{Code: faas.Invalid, Op: op, Err: err}
	}
	req.ContentLength = inv.Length
	req.Header = http.Header{
		"Content-Type": {"application/json"}, "User-Agent": {"brasa"}, "Idempotency-Key": {string(inv.ID)},
		idHeader: {string(inv.Cause)}, attemptHeader: {strconv.Itoa(inv.Attempt)},
	}
	res, err := h.client.Do(req)
	switch {
	case errors.Is(err, errInside): // which address it has is not for everybody to know
		return 0, faas.Errorf(faas.Denied, op, "%q: %w", req.URL.Hostname(), errInside)
	case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return 0, faas.Errorf(faas.Timeout, op, "no answer within %s", h.cfg.Timeout)
	case err != nil && ctx.Err() != nil:
		return 0, &faas.Error{Code: faas.Canceled, Op: op, Err: err}
	case err != nil:
		if e, ok := errors.AsType[*net.DNSError](err); ok { // nor is who was asked
			if e.IsNotFound {
				return 0, faas.Errorf(faas.Failed, op, "there is no host %q", req.URL.Hostname())
			}
			return 0, faas.Errorf(faas.Failed, op, "host %q could not be looked up", req.URL.Hostname())
		}
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the URL, which may hold a secret
		}
		return 0, &faas.Error{Code: faas.Failed, Op: op, Err: err}
	}
	const most = 64 << 10 // read so that the connection can serve again
	_, _ = io.CopyN(io.Discard, res.Body, most)
	_ = res.Body.Close()
	switch {
	case res.StatusCode/100 == 3:
		return res.StatusCode, faas.Errorf(faas.Failed, op, "it answered with status %d; redirects are not followed", res.StatusCode)
	case res.StatusCode/100 != 2:
		return res.StatusCode, faas.Errorf(faas.Failed, op, "it answered with status %d", res.StatusCode)
	}
	return res.StatusCode, nil
}

// deliver tells a web hook of an outcome and settles the lease. It gives back its function's place at
// once, since a slow hook is not to hold up the function's calls. Where too many wait it is put off.
func (d *Dispatcher) deliver(ctx context.Context, a *attempt, release func()) {
	inv := a.inv
	inv.Timing, inv.Report = faas.Timing{Begin: time.Now()}, faas.Report{}
	status := 0
	leave, err := d.hooks.place(ctx, inv.Function.Name.Namespace, d.cfg.Async.Deliveries, release)
	if errors.Is(err, errNoPlace) {
		quiet, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
		defer cancel()
		a.err = d.putOff(quiet, a)
		return
	}
	if err == nil {
		defer leave()
		release()
		status, err = d.hooks.call(ctx, inv)
	}
	d.cfg.Step("async: delivered")
	var rev *faas.Revision // none if the function is gone by now
	if _, r, e := d.cfg.Catalog.Resolve(inv.Function); e == nil {
		rev = r
	}
	act := d.unrun(inv, err)
	act.Status, act.Timing, act.Request = status, inv.Timing, faas.Bytes(inv.Length)
	act.Timing.Total = time.Since(inv.Timing.Begin)
	a.code = act.Outcome
	quiet, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	cause := context.Cause(ctx)
	switch {
	case err != nil && errors.Is(cause, errInterrupted):
		a.err = a.lease.Retry(quiet, 0, nil)
		return
	case err != nil && errors.Is(cause, errCanceled):
		a.code = outcome(act, errCanceled).Code
		fallthrough
	case err == nil:
		d.record(quiet, a, act)
		a.err = a.lease.Done(quiet)
		return
	}
	next := policy.Retry(policy.RetryOf(asyncOf(rev)), policy.Tried{Code: act.Outcome, Message: act.Error, Attempt: inv.Attempt, Age: age(inv)}, rand.Float64())
	if next.Again {
		d.recordAttempt(inv, act)
		a.err = a.lease.Retry(quiet, next.After, errors.New(next.Why)) // it counts: a hook that is never there is given up
		return
	}
	d.record(quiet, a, act)
	a.err = a.lease.Bury(quiet, errors.New(next.Why))
}
