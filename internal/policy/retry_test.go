package policy_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/policy"
)

func TestRetry(t *testing.T) {
	five := 5
	patient := policy.RetryOf(&faas.Async{Retries: &five, Backoff: faas.Duration(time.Minute), BackoffMost: faas.Duration(3 * time.Minute), MaxAge: faas.Duration(time.Hour)})
	plain := policy.RetryOf(nil)
	for _, c := range []struct {
		name    string
		policy  policy.RetryConfig
		tried   policy.Tried
		again   bool
		counted bool
		after   time.Duration
		why     string // part of it
	}{
		{"first failure", plain, policy.Tried{Code: faas.Failed, Message: "boom", Attempt: 1}, true, true, time.Second, "boom"},
		{"it doubles", plain, policy.Tried{Code: faas.Crashed, Attempt: 2}, true, true, 2 * time.Second, "crashed"},
		{"and again", plain, policy.Tried{Code: faas.Timeout, Attempt: 3}, true, true, 4 * time.Second, "timeout"},
		{"the last", plain, policy.Tried{Code: faas.Failed, Message: "boom", Attempt: 4}, false, true, 0, "attempt 4 of 4: boom"},
		{"one more than there may be", plain, policy.Tried{Code: faas.Failed, Message: "boom", Attempt: 6}, false, true, 0, "attempt 6 of 6: boom"},
		{"up to the most", patient, policy.Tried{Code: faas.Failed, Attempt: 3}, true, true, 3 * time.Minute, ""},
		{"and no more", patient, policy.Tried{Code: faas.Failed, Attempt: 5}, true, true, 3 * time.Minute, ""},
		{"too old by then", patient, policy.Tried{Code: faas.Failed, Message: "boom", Attempt: 2, Age: 59 * time.Minute}, false, true, 0, "older than 1h0m0s"},
		{"put off", plain, policy.Tried{Code: faas.Overloaded, Message: "no memory", Attempt: 9}, true, false, 200 * time.Millisecond, "no memory"},
		{"put off for longer", plain, policy.Tried{Code: faas.Unavailable, Attempt: 1, Age: 50 * time.Second}, true, false, 5 * time.Second, "unavailable"},
		{"put off for a minute at most", plain, policy.Tried{Code: faas.Internal, Attempt: 1, Age: 5 * time.Hour}, true, false, time.Minute, "internal"},
		{"put off for too long", patient, policy.Tried{Code: faas.Internal, Attempt: 1, Age: time.Hour}, false, true, 0, "older than 1h0m0s"},
		{"the caller's fault", plain, policy.Tried{Code: faas.Invalid, Message: "bad input", Attempt: 1}, false, true, 0, "would change nothing: bad input"},
		{"too large", plain, policy.Tried{Code: faas.TooLarge, Attempt: 1}, false, true, 0, "would change nothing"},
		{"gone", plain, policy.Tried{Code: faas.NotFound, Attempt: 1}, false, true, 0, "would change nothing"},
		{"denied", plain, policy.Tried{Code: faas.Denied, Attempt: 1}, false, true, 0, "would change nothing"},
	} {
		got := policy.Retry(c.policy, c.tried, 0.5)
		if got.Again != c.again || got.Counted != c.counted || got.After != c.after || got.Why == "" || !strings.Contains(got.Why, c.why) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	zero := 0
	if n := policy.Retry(policy.RetryOf(&faas.Async{Retries: &zero}), policy.Tried{Code: faas.Failed, Attempt: 1}, 0); n.Again {
		t.Error("one that is not to be tried again is")
	}
	if c := policy.RetryOf(&faas.Async{Backoff: faas.Duration(time.Hour)}); c.BackoffMost != time.Hour {
		t.Errorf("a first back-off of an hour is cut to %v", c.BackoffMost)
	}
}

func TestJitterIsAFifthToEitherSide(t *testing.T) {
	for random, want := range map[float64]time.Duration{0: 8 * time.Second, 0.5: 10 * time.Second, 0.999999999: 12*time.Second - 4} {
		if got := policy.Jitter(10*time.Second, random); got != want {
			t.Errorf("Jitter(10s, %v) = %v, want %v", random, got, want)
		}
	}
}

func TestOutside(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2a00::7")}
	allow := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("fd12::/16")}
	for address, want := range map[string]bool{
		"8.8.8.8": true, "203.0.113.5": true, "2606:4700::1111": true, "10.1.2.3": true, "fd12::5": true, "::ffff:8.8.8.8": true, "::ffff:10.1.0.1": true,
		"127.0.0.1": false, "::ffff:127.0.0.1": false, "0.0.0.0": false, "169.254.169.254": false, "10.2.0.1": false, "172.16.0.1": false, "192.168.1.1": false,
		"100.64.0.1": false, "198.18.0.1": false, "224.0.0.1": false, "255.255.255.255": false, "240.0.0.1": false,
		"::1": false, "::": false, "fe80::1": false, "fe80::1%eth0": false, "fc00::1": false, "fd00:ec2::254": false, "ff02::1": false,
		"64:ff9b::7f00:1": false, "2002:7f00:1::": false, "::127.0.0.1": false, "2001:0:1::": false,
		"198.51.100.7": false, "::ffff:198.51.100.7": false, "2a00::7": false, "2a00::8": true,
	} {
		if got := policy.Outside(netip.MustParseAddr(address), allow, own); got != want {
			t.Errorf("Outside(%s) = %v, want %v", address, got, want)
		}
	}
	if policy.Outside(netip.Addr{}, nil, nil) {
		t.Error("no address at all is outside")
	}
}
