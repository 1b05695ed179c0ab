package faas_test

import (
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

func TestWaitThatMakesNoSenseIsNamed(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		wait faas.Wait
		want string // in the error; empty: none
	}{
		{faas.Wait{}, ""},
		{faas.Wait{Key: "k 1", Order: "größe", Priority: faas.PriorityHigh, NotBefore: now.Add(faas.MaxDelay), OnSuccess: "billing/paid", OnFailure: "https://example.com:8443/a?b=c"}, ""},
		{faas.Wait{NotBefore: now.AddDate(-5, 0, 0)}, ""},
		{faas.Wait{Key: strings.Repeat("k", 256)}, "key "},
		{faas.Wait{Key: "a\nb"}, "key "},
		{faas.Wait{Key: " a"}, "key "},
		{faas.Wait{Order: "a\x00"}, "order "},
		{faas.Wait{Order: "\xff"}, "order "},
		{faas.Wait{Priority: "urgent"}, "priority "},
		{faas.Wait{NotBefore: now.Add(faas.MaxDelay + time.Second)}, "not_before "},
		{faas.Wait{OnSuccess: "a/b/c"}, "on_success "},
		{faas.Wait{OnSuccess: "/b"}, "on_success "},
		{faas.Wait{OnSuccess: "../x"}, "on_success "},
		{faas.Wait{OnFailure: "ftp://example.com/"}, "on_failure "},
		{faas.Wait{OnFailure: "https://"}, "on_failure "},
		{faas.Wait{OnFailure: "https://u:p@example.com/"}, "on_failure "},
		{faas.Wait{OnFailure: "https://example.com/#x"}, "on_failure "},
		{faas.Wait{OnFailure: "https://exa mple.com/"}, "on_failure "},
		{faas.Wait{OnFailure: "https://:443/"}, "on_failure "},
		{faas.Wait{OnFailure: "http://2130706433/"}, "on_failure "},
		{faas.Wait{OnFailure: "http://0177.0.0.1/"}, "on_failure "},
		{faas.Wait{OnFailure: "http://0x7f.1/"}, "on_failure "},
		{faas.Wait{OnFailure: "http://127.0x1./"}, "on_failure "},
		{faas.Wait{OnFailure: "http://127.0.0.1./"}, "on_failure "},
		{faas.Wait{OnFailure: "http://0/"}, "on_failure "},
		{faas.Wait{OnFailure: "https://example.com:0/"}, "on_failure "},
		{faas.Wait{OnFailure: "https://example.com:99999/"}, "on_failure "},
		{faas.Wait{OnFailure: "https://2130706433.example.com:8443/", OnSuccess: "http://[2001:db8::1]:80/0x7f"}, ""},
		{faas.Wait{OnFailure: faas.Destination("https://example.com/" + strings.Repeat("x", 2048))}, "on_failure "},
	} {
		err := c.wait.Validate(now)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%+v: %v", c.wait, err)
		case c.want != "" && (faas.CodeOf(err) != faas.Invalid || !strings.HasPrefix(faas.AsError(err).Message(), c.want)):
			t.Errorf("%+v: got %v, want one that begins with %q", c.wait, err, c.want)
		}
	}
}

func TestAsyncPolicyThatMakesNoSenseIsNamed(t *testing.T) {
	n := func(n int) *int { return &n }
	for _, c := range []struct {
		async faas.Async
		want  string
	}{
		{faas.Async{}, ""},
		{faas.Async{Retries: n(0), Backoff: 1, BackoffMost: 1, MaxAge: faas.MaxMaxAge, OnSuccess: "f"}, ""},
		{faas.Async{Retries: n(-1)}, "async.retries "},
		{faas.Async{Retries: n(101)}, "async.retries "},
		{faas.Async{Backoff: -1}, "async.backoff_ms "},
		{faas.Async{Backoff: 2000, BackoffMost: 1000}, "async.backoff_most_ms "},
		{faas.Async{MaxAge: faas.MaxMaxAge + 1}, "async.max_age_ms "},
		{faas.Async{OnSuccess: "a b"}, "async.on_success "},
		{faas.Async{OnFailure: "file:///etc/passwd"}, "async.on_failure "},
	} {
		err := c.async.Validate()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%+v: %v", c.async, err)
		case c.want != "" && (faas.CodeOf(err) != faas.Invalid || !strings.HasPrefix(faas.AsError(err).Message(), c.want)):
			t.Errorf("%+v: got %v, want one that begins with %q", c.async, err, c.want)
		}
	}
}
