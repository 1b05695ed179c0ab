package main

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/spf13/cobra"
)

// policyFlags say how calls of a function are tried again whose caller does not wait.
type policyFlags struct {
	retries                      string
	backoff, backoffMost, maxAge time.Duration
	destinations                 destinationFlags
	public                       bool
}

func (p *policyFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&p.retries, "retries", "", fmt.Sprintf("`N` times an async call is tried again after its first attempt: %d", faas.DefaultRetries))
	f.DurationVar(&p.backoff, "backoff", 0, "`TIME` before the first retry of an async call; it doubles with each: 1s")
	f.DurationVar(&p.backoffMost, "backoff-most", 0, "`TIME` between two attempts at most: 10m")
	f.DurationVar(&p.maxAge, "max-age", 0, "`TIME` after which an async call is given up instead of tried again: 24h")
	p.destinations.add(c, "an async call's")
	f.BoolVar(&p.public, "async-public", false, "with --public: its URL takes async calls without a key too")
}

// policy reads the flags; nil if none was given.
func (p *policyFlags) policy() (*faas.Async, error) {
	out := faas.Async{
		Backoff: faas.Duration(p.backoff), BackoffMost: faas.Duration(p.backoffMost), MaxAge: faas.Duration(p.maxAge),
		OnSuccess: faas.Destination(p.destinations.success), OnFailure: faas.Destination(p.destinations.failure), Public: p.public,
	}
	if p.retries != "" {
		n, err := strconv.Atoi(p.retries)
		if err != nil || n < 0 || n > faas.MaxRetries {
			return nil, cli.Usagef("--retries %s: use a number from 0 to %d", p.retries, faas.MaxRetries)
		}
		out.Retries = &n
	}
	for _, d := range []struct {
		flag string
		d    time.Duration
	}{{"backoff", p.backoff}, {"backoff-most", p.backoffMost}, {"max-age", p.maxAge}} {
		if d.d < 0 || d.d > 0 && d.d < time.Millisecond {
			return nil, cli.Usagef("--%s %s: it is at least 1ms", d.flag, d.d)
		}
	}
	if out == (faas.Async{}) {
		return nil, nil
	}
	return &out, nil
}

// destinationFlags say where outcomes go; deploy and invoke share them.
type destinationFlags struct{ success, failure string }

func (d *destinationFlags) add(c *cobra.Command, whose string) {
	c.Flags().StringVar(&d.success, "on-success", "", "`TARGET` that is sent "+whose+" answer: a function, or a URL https://…")
	c.Flags().StringVar(&d.failure, "on-failure", "", "`TARGET` that is told of "+whose+" failure, once it is given up: a function, or a URL https://…")
}

// policyLine says a policy in a line, the defaults where it is silent.
func policyLine(a *faas.Async) string {
	p := faas.Async{}
	if a != nil {
		p = *a
	}
	retries := faas.DefaultRetries
	if p.Retries != nil {
		retries = *p.Retries
	}
	first := cmp.Or(p.Backoff, faas.DefaultBackoff)
	most := max(cmp.Or(p.BackoffMost, faas.DefaultBackoffMost), first)
	parts := []string{"no retries"}
	if retries > 0 {
		parts[0] = fmt.Sprintf("retries: %d, after %s, doubling up to %s", retries, span(first.D()), span(most.D()))
	}
	parts = append(parts, "given up after "+span(cmp.Or(p.MaxAge, faas.DefaultMaxAge).D()))
	if p.OnSuccess != "" {
		parts = append(parts, "answers go to "+string(p.OnSuccess))
	}
	if p.OnFailure != "" {
		parts = append(parts, "failures to "+string(p.OnFailure))
	}
	if p.Public {
		parts = append(parts, "also without a key")
	}
	return strings.Join(parts, "; ")
}

// span prints a time span without the units that are zero: "10m", not "10m0s".
func span(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
