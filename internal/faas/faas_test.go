package faas_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

func TestIDsSortByTimeAndTellIt(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_123)
	a, b := faas.NewID(at), faas.NewID(at.Add(time.Millisecond))
	if a >= b || len(a) != 32 {
		t.Errorf("ids %q, %q: want 32 digits in the order of their times", a, b)
	}
	if got := a.Time(); !got.Equal(at) {
		t.Errorf("time of %q is %v, want %v", a, got, at)
	}
	dashed := string(a[:8] + "-" + a[8:12] + "-" + a[12:16] + "-" + a[16:20] + "-" + a[20:])
	if got, err := faas.ParseID(strings.ToUpper(dashed)); err != nil || got != a {
		t.Errorf("ParseID(%q) = %q, %v", dashed, got, err)
	}
	for _, bad := range []string{"", "x", strings.Repeat("g", 32), string(a) + "0"} {
		if _, err := faas.ParseID(bad); faas.CodeOf(err) != faas.Invalid {
			t.Errorf("ParseID(%q): %v, want invalid", bad, err)
		}
	}
}

func TestNamesKeepTricksOut(t *testing.T) {
	for _, good := range []string{"a", "hello", "Hello-2", "_x", "a.b", "0", strings.Repeat("a", 63)} {
		if err := faas.ValidateName("function", good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", ".", "..", "a..b", "a.", "-a", "--help", "a/b", `a\b`, "a\x00", "a b", "a*", "a>", "ä", "%2e%2e", "a\n", strings.Repeat("a", 64), strings.Repeat("a", 1<<20)} {
		err := faas.ValidateName("function", bad)
		if faas.CodeOf(err) != faas.Invalid {
			t.Errorf("%.20q: %v, want invalid", bad, err)
		}
		if err != nil && len(err.Error()) > 400 {
			t.Errorf("%.20q: the error has %d bytes; it must not repeat what a stranger sent", bad, len(err.Error()))
		}
	}
}

func TestParseName(t *testing.T) {
	for in, want := range map[string]string{
		"f": "ns/f", "p/f": "ns/p/f", "o/p/f": "o/p/f", "/o/f": "o/f", "/o/p/f": "o/p/f",
	} {
		got, err := faas.ParseName(in, "ns")
		if err != nil || got.String() != want {
			t.Errorf("ParseName(%q) = %v, %v; want %s", in, got, err, want)
		}
		b, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		var back faas.Name
		if err := json.Unmarshal(b, &back); err != nil || back != got {
			t.Errorf("%s comes back as %v, %v", b, back, err)
		}
	}
	for _, bad := range []string{"", "/", "/f", "a/b/c/d", "//f", "../f", "a//b"} {
		if n, err := faas.ParseName(bad, "ns"); err == nil {
			t.Errorf("ParseName(%q) = %v, want an error", bad, n)
		}
	}
}

func TestSizes(t *testing.T) {
	for in, want := range map[string]faas.Bytes{
		"0": 0, "1": 1, "64MiB": 64 << 20, "64m": 64 << 20, "64 MB": 64 << 20, "1g": 1 << 30, "1.5k": 1536, "7b": 7, "1TiB": 1 << 40,
	} {
		if got, err := faas.ParseBytes(in); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "x", "-1", "1x", "NaN", "1e300", "MiB"} {
		if got, err := faas.ParseBytes(bad); faas.CodeOf(err) != faas.Invalid {
			t.Errorf("ParseBytes(%q) = %d, %v; want invalid", bad, got, err)
		}
	}
	for b, want := range map[faas.Bytes]string{0: "0B", 1023: "1023B", 1 << 20: "1MiB", 1536: "1.5KiB", 3 << 30: "3GiB"} {
		if got := b.String(); got != want {
			t.Errorf("%d prints %q, want %q", int64(b), got, want)
		}
	}
}

func TestDurationsAreMillisecondsOnTheWire(t *testing.T) {
	b, err := json.Marshal(faas.Duration(1500 * time.Millisecond))
	if err != nil || string(b) != "1500" {
		t.Errorf("%s, %v; want 1500", b, err)
	}
	for in, want := range map[string]time.Duration{`250`: 250 * time.Millisecond, `"2m"`: 2 * time.Minute} {
		var d faas.Duration
		if err := json.Unmarshal([]byte(in), &d); err != nil || d.D() != want {
			t.Errorf("%s is %v, %v; want %v", in, d, err, want)
		}
	}
	for _, bad := range []string{`"x"`, `1.5`, `99999999999999999999`, `9223372036854775807`, `{}`} {
		var d faas.Duration
		if err := json.Unmarshal([]byte(bad), &d); err == nil {
			t.Errorf("%s is %v, want an error", bad, d)
		}
	}
}

func TestLimitsNameTheKeyThatIsBroken(t *testing.T) {
	def, most := faas.DefaultLimits(), faas.CeilingLimits()
	if err := def.Validate(most); err != nil {
		t.Fatalf("the defaults: %v", err)
	}
	for key, l := range map[string]faas.Limits{
		"memory_bytes": {Memory: 1}, "cpu_millis": {CPU: 1}, "pids": {PIDs: -1}, "tmp_bytes": {Tmp: 1 << 60},
		"timeout_ms": {Timeout: faas.Duration(48 * time.Hour)}, "concurrency": {Concurrency: 1 << 30},
		"max_instances": {MaxInstances: -1}, "request_bytes": {Request: 1 << 60}, "response_bytes": {Response: -1}, "log_bytes": {Log: -1},
	} {
		err := l.Fill(def).Validate(most)
		e, ok := errors.AsType[*faas.Error](err)
		if !ok || e.Limit != key || !strings.Contains(e.Error(), key) {
			t.Errorf("%+v: %v, want %s named", l, err, key)
		}
	}
}

func TestARevisionIsNamedByAllThatDecidesHowItRuns(t *testing.T) {
	base := faas.Revision{Name: faas.Name{Namespace: "a", Function: "f"}, Runtime: "python", Entry: "f.py", Code: "sha256:x", Env: map[string]string{"A": "1", "B": "2"}}
	id := base.Digest()
	again := base
	again.ID, again.Created = id, time.Now()
	if again.Digest() != id {
		t.Error("the id or the time of creation changes the digest")
	}
	for what, change := range map[string]func(*faas.Revision){
		"name": func(r *faas.Revision) { r.Name.Namespace = "b" }, "code": func(r *faas.Revision) { r.Code = "sha256:y" },
		"env": func(r *faas.Revision) { r.Env = map[string]string{"A": "1"} }, "memory": func(r *faas.Revision) { r.Limits.Memory = 1 },
		"secrets": func(r *faas.Revision) { r.Secrets = []string{"S"} }, "network": func(r *faas.Revision) { r.Network = faas.NetworkEgress },
	} {
		r := base
		change(&r)
		if r.Digest() == id {
			t.Errorf("%s does not change the digest", what)
		}
	}
}

func TestCodesSayWhoCanMendIt(t *testing.T) {
	for c := faas.OK; c <= faas.Internal; c++ {
		b, err := c.MarshalText()
		var back faas.Code
		if err != nil || back.UnmarshalText(b) != nil || back != c {
			t.Errorf("%v comes back as %v", c, back)
		}
		if (c.Fault() == "") != (c == faas.OK) {
			t.Errorf("%v has fault %q", c, c.Fault())
		}
	}
	for err, want := range map[error]faas.Code{
		nil: faas.OK, context.Canceled: faas.Canceled, context.DeadlineExceeded: faas.Timeout, errors.New("x"): faas.Internal,
		fmt.Errorf("outer: %w", faas.Errorf(faas.Conflict, "op", "inner")): faas.Conflict,
	} {
		if got := faas.CodeOf(err); got != want {
			t.Errorf("CodeOf(%v) = %v, want %v", err, got, want)
		}
	}
}

func TestTimingIsWrittenAndReadBack(t *testing.T) {
	var tm faas.Timing
	tm.Begin, tm.Total = time.Now().UTC().Round(0), 5*time.Millisecond
	tm.Add(faas.PhaseQueue, time.Millisecond)
	tm.Add(faas.PhaseExecution, 3*time.Millisecond)
	tm.Add(faas.PhaseExecution, -time.Hour) // a clock step
	tm.AddCPU(faas.PhaseExecution, 2*time.Millisecond)
	b, err := json.Marshal(faas.Activation{Timing: tm})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), `"total_us":5000,"phases":[{"name":"queue","us":1000,"cpu_us":0},{"name":"execution","us":3000,"cpu_us":2000}]`) {
		t.Errorf("written as %s", b)
	}
	var back faas.Activation
	if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(back.Timing, tm) {
		t.Errorf("comes back as %+v, %v", back.Timing, err)
	}
}

func TestALimitOfTimeIsToldWithItsUnit(t *testing.T) {
	l := faas.DefaultLimits()
	l.Timeout = faas.Duration(9999 * time.Hour)
	err := l.Validate(faas.CeilingLimits())
	if err == nil || !strings.Contains(err.Error(), "timeout_ms is 9999h0m0s; it must be from 1ms to 1h0m0s") {
		t.Errorf("got %v", err)
	}
}

func TestTold(t *testing.T) {
	asked := &net.DNSError{Err: "no such host", Name: "nowhere.test", Server: "10.9.8.7:53", IsNotFound: true}
	for _, err := range []error{
		&net.OpError{Op: "dial", Net: "tcp", Err: asked},
		fmt.Errorf("connect: %w", fmt.Errorf("reach broker: %w", asked)),
	} {
		if got := faas.Told(err); strings.Contains(got, "10.9.8.7") || !strings.Contains(got, "lookup nowhere.test: no such host") {
			t.Errorf("%v is told as %q", err, got)
		}
	}
	if got := faas.Told(errors.New("plain")); got != "plain" {
		t.Errorf("got %q", got)
	}
}
