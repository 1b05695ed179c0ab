package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/gateway"
	"github.com/brasa-dev/brasa/internal/gateway/gatewaytest"
)

// fault reads the envelope of a refusal.
func fault(t *testing.T, body []byte) api.Fault {
	t.Helper()
	var r api.Refusal
	if err := json.Unmarshal(body, &r); err != nil || r.Fault == nil || r.OK {
		t.Fatalf("this is no envelope: %.300s", body)
	}
	return *r.Fault
}

// answerTo sends bytes over a fresh connection and reads one answer.
func answerTo(t *testing.T, d *gatewaytest.Door, text string) (*http.Response, []byte) {
	t.Helper()
	c := d.Raw(text)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%.80q: %v", text, err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%.80q: %v", text, err)
	}
	return res, b
}

// seen is a function that records the invocations it gets.
func seen(into chan<- *faas.Invocation) gatewaytest.Func {
	return func(ctx context.Context, inv *faas.Invocation) (*faas.Result, error) {
		into <- inv
		return gatewaytest.Echo(ctx, inv)
	}
}

func TestNoPathReachesWhatItDoesNotName(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	calls := make(chan *faas.Invocation, 1)
	d.Function("green", "pay", true, seen(calls))
	d.Function("blue", "secret", false, func(context.Context, *faas.Invocation) (*faas.Result, error) {
		t.Error("the function of another namespace was reached")
		return nil, faas.Errorf(faas.Failed, "x", "x")
	})
	for _, path := range []string{
		"//f/green/pay", "/%66/green/pay", "/F/green/pay", "/f//green/pay", "/f/green//pay", "/f/green/%70ay", "/f/green/pay;x=1", "/f/green/pay%2f",
		"/f/./green/pay", "/f/x/../green/pay", "/f/%2e%2e/v1/version", "/v1//version", "/v1/./version", "/v1/../f/green/pay", "/V1/version",
		"/v1/version/", "/v1/%2e%2e/readyz", "/%76%31/version", "/readyz/", "/", "/debug/pprof/", "/metrics", "/v1", "/f", "/f/green", "/favicon.ico", "*",
		"/v1/namespaces/green%2f..%2fblue/functions", "/v1/version?x=1", "/v1/namespaces/../version",
	} {
		res, body := answerTo(t, d, "GET "+path+" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+d.Green+"\r\nConnection: close\r\n\r\n")
		if res.StatusCode != 404 && res.StatusCode != 400 {
			t.Errorf("%s: status %d: %s", path, res.StatusCode, body)
		}
		if f := fault(t, body); f.RequestID == "" || f.Hint == "" && f.Code == "not_found" {
			t.Errorf("%s: %+v lacks a request id or a hint", path, f)
		}
		select {
		case inv := <-calls:
			t.Errorf("%s called %+v", path, inv.Function)
		default:
		}
	}
	for path, want := range map[string]string{
		"/f/green/pay/../../blue/secret":         "/../../blue/secret",
		"/f/green/pay/%2e%2e/%2e%2e/blue/secret": "/%2e%2e/%2e%2e/blue/secret",
		"/f/green/pay//x;y%2Fz?q=%20&r=/../":     "//x;y%2Fz",
		"/f/green/pay/%ff%00":                    "/%ff%00",
	} {
		if res, body := answerTo(t, d, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); res.StatusCode != 200 {
			t.Fatalf("%s: status %d: %s", path, res.StatusCode, body)
		}
		if inv := <-calls; inv.Path != want || inv.Function.Name.String() != "green/pay" {
			t.Errorf("%s: %s was called with path %q, want %q", path, inv.Function.Name, inv.Path, want)
		}
	}
}

func TestHeadersCannotBeForged(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	calls := make(chan *faas.Invocation, 1)
	d.Function("green", "pay", false, seen(calls))
	d.Function("green", "open", true, seen(calls))
	forged := "brasa-invocation-id: forged\r\nBRASA-OUTCOME: forged\r\nX-Forwarded-For: forged\r\nX-Forwarded-Host: forged\r\nForwarded: for=forged\r\nX-Real-IP: forged\r\nX_Forwarded_For: forged\r\nBrasa_Cause: forged\r\n"
	for _, path := range []string{"/f/green/pay", "/f/green/open", "/v1/namespaces/green/functions/pay/invoke"} {
		_, body := answerTo(t, d, "POST "+path+" HTTP/1.1\r\nHost: x\r\nAuthorization: bearer "+d.Green+"\r\n"+forged+"Content-Length: 2\r\nConnection: close\r\n\r\nhi")
		var inv *faas.Invocation
		select {
		case inv = <-calls:
		default:
			t.Fatalf("%s: not called: %s", path, body)
		}
		all, _ := json.Marshal(inv.Header)
		if strings.Contains(string(all), "forged") || strings.Contains(string(all), d.Green) || inv.Header["Authorization"] != nil {
			t.Errorf("%s: the function gets %s", path, all)
		}
		if got := inv.Header["X-Forwarded-For"]; len(got) != 1 || got[0] != "127.0.0.1" {
			t.Errorf("%s: X-Forwarded-For is %v", path, got)
		}
	}
	_, _ = answerTo(t, d, "GET /f/green/open HTTP/1.1\r\nHost: x\r\nAuthorization: Basic YTpi\r\nConnection: close\r\n\r\n")
	if inv := <-calls; len(inv.Header["Authorization"]) != 1 || inv.Header["Authorization"][0] != "Basic YTpi" {
		t.Errorf("a public function gets Authorization %v, want its own", inv.Header["Authorization"])
	}
	if res, body := answerTo(t, d, "GET /v1/whoami HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+d.Green+"\r\nAuthorization: Bearer "+d.Admin+"\r\nConnection: close\r\n\r\n"); res.StatusCode != 400 {
		t.Errorf("two keys: status %d: %s", res.StatusCode, body)
	}
	for _, where := range []string{"/v1/whoami?key=", "/v1/whoami?access_token=", "/v1/whoami?Authorization=Bearer%20"} {
		if res, _ := d.Do(d.Request(http.MethodGet, where+d.Green, "", nil)); res.StatusCode == 200 {
			t.Errorf("%s: a key in the URL is taken", where)
		}
	}
}

// What a function or a caller puts into a line cannot begin another.
func TestLinesCannotBeSplit(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	d.Function("green", "split", true, gatewaytest.Answer(200, map[string][]string{"X": {"a\r\nSet-Cookie: evil=1\r\n\r\nbody"}}, "x"))
	res, body := d.Do(d.Request(http.MethodGet, "/f/green/split", "", nil))
	if res.StatusCode != 502 || res.Header.Get("Set-Cookie") != "" || fault(t, body).Code != "failed" || res.Header.Get(api.HeaderOutcome) != "failed" {
		t.Errorf("status %d, %v: %s", res.StatusCode, res.Header, body)
	}
	for _, text := range []string{
		"GET /f/green/split HTTP/1.1\r\nHost: x\r\nX-A: a\rX-B: b\r\nConnection: close\r\n\r\n",
		"GET /f/green/split HTTP/1.1\r\nHost: x\r\nX-A : b\r\nConnection: close\r\n\r\n",
		"GET /f/green/split HTTP/1.1\r\nHost: x\r\nX\x00A: b\r\nConnection: close\r\n\r\n",
		"GET /f/green/split\x01 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"POST /f/green/split HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\nConnection: close\r\n\r\nabcd",
		"POST /f/green/split HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\nConnection: close\r\n\r\n0\r\n\r\n",
		"POST /f/green/split HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
		"GET /f/green/split HTTP/1.1\r\nHost: x\r\nHost: y\r\nConnection: close\r\n\r\n",
	} {
		if res, _ := answerTo(t, d, text); res.StatusCode < 400 || res.StatusCode == 502 {
			t.Errorf("%.100q: status %d", text, res.StatusCode)
		}
	}
	// A request hidden in the body of another is a body: there is one answer.
	calls := make(chan *faas.Invocation, 2)
	d.Function("green", "open", true, seen(calls))
	hidden := "GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n"
	c := d.Raw(fmt.Sprintf("POST /f/green/open HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(hidden), hidden))
	all, err := io.ReadAll(c)
	if n := bytes.Count(all, []byte("HTTP/1.1 200")); err != nil || n != 1 || !bytes.HasSuffix(all, []byte(hidden)) {
		t.Errorf("%d answers, %v: %s", n, err, all)
	}
}

func TestABigHeadIsRefused(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	for _, text := range []string{
		"GET /v1/version HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", 100<<10) + "\r\n\r\n",
		"GET /v1/version?" + strings.Repeat("a=1&", 30<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /v1/version HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: a\r\n", 20_000) + "\r\n",
	} {
		c, err := net.Dial("tcp", d.Addr)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.WriteString(c, text) }() // the server may close before all is sent
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err == nil {
			if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("status %d", res.StatusCode)
			}
			_ = res.Body.Close()
		}
		_ = c.Close()
	}
}

func TestMethodsThatAPathDoesNotHave(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	d.Function("green", "pay", true, nil)
	for request, allow := range map[string]string{
		"POST /v1/version":                                  "GET, HEAD",
		"DELETE /v1/namespaces/green/functions":             "GET, HEAD",
		"GET /v1/namespaces/green/run":                      "POST",
		"BREW /v1/namespaces":                               "GET, HEAD, POST",
		"TRACE /f/green/pay":                                "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
		"OPTIONS /v1/namespaces/green/functions/pay/invoke": "POST",
		"PATCH /v1/namespaces/green/functions/pay":          "GET, HEAD, PUT, DELETE",
		"CONNECT /f/green/pay":                              "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
	} {
		res, body := answerTo(t, d, request+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if res.StatusCode != 405 || res.Header.Get("Allow") != allow || fault(t, body).Code != "invalid" {
			t.Errorf("%s: status %d, Allow %q, want 405 and %q: %s", request, res.StatusCode, res.Header.Get("Allow"), allow, body)
		}
	}
	if res, _ := answerTo(t, d, "CONNECT internal:22 HTTP/1.1\r\nHost: internal:22\r\nConnection: close\r\n\r\n"); res.StatusCode < 400 {
		t.Errorf("a tunnel was opened: %d", res.StatusCode)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	d.Function("green", "pay", false, nil)
	const ns = "/v1/namespaces/green"
	for _, c := range []struct{ method, path, contentType, body, code, says string }{
		{"PUT", ns + "/secrets/A", "application/json", `{"value":"x","vlaue":"y"}`, "invalid", `unknown field "vlaue"`},
		{"PUT", ns + "/secrets/A", "application/json", `{"Value":"x"}`, "invalid", `"Value"`},
		{"PUT", ns + "/secrets/A", "application/json", `{}`, "invalid", "value"},
		{"PUT", ns + "/secrets/A", "application/json", `{"value":1}`, "invalid", "expected string"},
		{"PUT", ns + "/secrets/A", "application/json", `{"value":"a","value":"b"}`, "invalid", "twice"},
		{"PUT", ns + "/secrets/A", "application/json", `{"value"`, "invalid", "EOF"},
		{"PUT", ns + "/secrets/A", "application/json", ``, "invalid", "body"},
		{"PUT", ns + "/secrets/A", "text/plain", `x`, "invalid", "content type"},
		{"PUT", ns + "/secrets/A", "application/json", `{"value":"` + strings.Repeat("x", 2<<20) + `"}`, "too_large", "1MiB"},
		{"PUT", ns + "/secrets/A%2FB", "application/json", `{"value":"x"}`, "invalid", "secret name"},
		{"GET", ns + "/functions/..%2f..%2fblue", "", "", "not_found", ""},
		{"GET", ns + "/activations?limit=0", "", "", "invalid", "limit"},
		{"GET", ns + "/activations?limit=x", "", "", "invalid", "limit"},
		{"GET", ns + "/activations?colour=red", "", "", "invalid", "colour"},
		{"GET", ns + "/activations?since=yesterday", "", "", "invalid", "since"},
		{"GET", ns + "/activations?outcome=good", "", "", "invalid", "outcome"},
		{"GET", ns + "/activations/42", "", "", "invalid", "invocation id"},
		{"GET", ns + "/activations/" + strings.Repeat("0", 32), "", "", "not_found", ""},
		{"GET", ns + "/logs?follow=maybe", "", "", "invalid", "follow"},
		{"GET", ns + "/logs?lines=5", "", "", "invalid", `"lines"`},
		{"POST", ns + "/functions/pay/invoke?rwa=true", "", "", "invalid", `"rwa"`},
		{"POST", ns + "/functions/pay/invoke?timeout_ms=-1", "", "", "invalid", "timeout_ms"},
		{"POST", ns + "/functions/pay/invoke?raw=yes", "", "", "invalid", "raw"},
		{"POST", ns + "/functions/pay/invoke?revision=ffff", "", "", "not_found", "revision"},
		{"POST", ns + "/functions/pya/invoke", "", "", "not_found", "pya"},
		{"POST", ns + "/functions/pay/invoke", "", strings.Repeat("x", 9<<20), "too_large", "request"},
		{"PUT", ns + "/functions/new", "application/json", `{"code":"x","uid":"mine"}`, "invalid", `unknown field "uid"`},
		{"PUT", ns + "/functions/new", "application/json", `{"code":"x","namespace":"blue"}`, "invalid", `unknown field "namespace"`},
		{"PUT", ns + "/functions/new", "application/json", `{"code":"x","limits":{"memory":1}}`, "invalid", `unknown field "memory"`},
		{"PUT", ns + "/functions/new", "application/json", `{"code":"x","network":"host"}`, "invalid", "network"},
		{"PUT", ns + "/functions/new", "application/json", `{"code":"x","privileged":true}`, "invalid", `"privileged"`},
		{"PUT", ns + "/functions/new", "application/json", `{"code":"x","filename":".."}`, "invalid", "name for a file"},
		{"PUT", ns + "/functions/new", "text/plain", `x`, "invalid", "multipart/form-data"},
		{"PUT", ns + "/functions/new", "multipart/form-data", `x`, "invalid", "boundary"},
		{"PUT", ns + "/functions/new", "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"spec\"\r\n\r\n{}\r\n--b--\r\n", "invalid", "no part code"},
		{"PUT", ns + "/functions/new", "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"spce\"\r\n\r\n{}\r\n--b--\r\n", "invalid", `"spce"`},
		{"PUT", ns + "/functions/new", "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"code\"\r\n\r\nhalf", "invalid", "too early"},
		{"POST", ns + "/run", "application/json", `{"code":"x","public":"yes"}`, "invalid", "public"},
	} {
		req := d.Request(c.method, c.path, d.Green, strings.NewReader(c.body))
		if c.contentType != "" {
			req.Header.Set("Content-Type", c.contentType)
		}
		res, body := d.Do(req)
		f := fault(t, body)
		if f.Code != c.code || !strings.Contains(f.Message+f.Hint, c.says) || f.RequestID != res.Header.Get(api.HeaderRequestID) {
			t.Errorf("%s %s %.60s: %d %+v, want code %s and %q", c.method, c.path, c.body, res.StatusCode, f, c.code, c.says)
		}
	}
}

func TestCodeOverItsLimitIsRefusedAsItArrives(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{API: func(c *api.Config) { c.MaxCode = 64 * faas.KiB }})
	sent := &counting{most: 1 << 30}
	_, err := client(t, d, d.Green).Deploy(t.Context(), "green", "big", api.Spec{}, api.Code{Reader: sent, Filename: "big.bin"})
	e, ok := errors.AsType[*faas.Error](err)
	if !ok || e.Code != faas.TooLarge || e.Limit != "code_bytes" {
		t.Errorf("got %v, want too large, code_bytes", err)
	}
	if sent.n > 64<<20 {
		t.Errorf("%d bytes were taken before the refusal", sent.n)
	}
}

// counting is a large file.
type counting struct{ n, most int64 }

func (c *counting) Read(p []byte) (int, error) {
	if c.n >= c.most {
		return 0, io.EOF
	}
	c.n += int64(len(p))
	return len(p), nil
}

func TestDeployAndRunThroughTheClient(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	c := client(t, d, d.Green)
	code := func() api.Code { return api.Code{Reader: strings.NewReader("#!/bin/sh\ncat\n"), Filename: "main.sh"} }
	out, err := c.Deploy(t.Context(), "green", "cat", api.Spec{Language: "exec", Env: map[string]string{"A": "1"}}, code())
	if err != nil {
		t.Fatal(err)
	}
	if !out.Created || out.Function.Name != "cat" || out.Revision == "" || out.URL != d.URL+"/f/green/cat" || len(out.Steps) == 0 || out.Detected.Language != "exec" {
		t.Errorf("outcome is %+v", out)
	}
	if out, err = c.Deploy(t.Context(), "green", "cat", api.Spec{Language: "exec", Env: map[string]string{"A": "1"}}, code()); err != nil || !out.Same || out.Created {
		t.Errorf("again: %+v, %v", out, err)
	}
	reply, err := c.Run(t.Context(), "green", api.Spec{Language: "exec"}, code(), api.CallOptions{ContentType: "text/plain"}, strings.NewReader("in"))
	if err != nil || string(reply.Result) != `"in"` || reply.ContentType != "text/plain" {
		t.Errorf("run: %+v, %v", reply, err)
	}
	s, err := c.RunRaw(t.Context(), "green", api.Spec{Language: "exec"}, code(), api.CallOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if b, err := io.ReadAll(s); len(b) != 0 || err != nil {
		t.Errorf("run without input: %q, %v", b, err)
	}
	_, err = c.Deploy(t.Context(), "green", "cat", api.Spec{Language: "cobol"}, code())
	e, ok := errors.AsType[*faas.Error](err)
	remote, remoteOK := errors.AsType[*api.Remote](err)
	if !ok || !remoteOK || e.Code != faas.Invalid || e.Fix == "" && !strings.Contains(err.Error(), "python") || remote.RequestID() == "" {
		t.Errorf("an unknown language: %v", err)
	}
}

func TestWhenNoServerAnswers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	c, err := api.NewClient(l.Addr().String(), "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Version(t.Context())
	if _, ok := errors.AsType[*api.Unreachable](err); !ok || faas.CodeOf(err) != faas.Unavailable {
		t.Errorf("got %v, want unreachable", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = c.Version(ctx); faas.CodeOf(err) != faas.Canceled {
		t.Errorf("got %v, want canceled", err)
	}
}

// A sender that trickles, or stops, is cut off, wherever its body goes.
func TestASlowBodyIsCutOff(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{Gateway: func(c *gateway.Config) { c.BodyCredit = 50 * time.Millisecond }})
	d.Function("green", "pay", false, nil)
	for _, path := range []string{"/v1/namespaces/green/functions/pay/invoke", "/f/green/pay", "/v1/namespaces", "/v1/namespaces/green/functions/x", "/v1/namespaces/green/run"} {
		method := "POST"
		if strings.HasSuffix(path, "/x") {
			method = "PUT"
		}
		head := method + " " + path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + d.Admin + "\r\nContent-Type: application/json\r\n"
		for how, text := range map[string]string{"announced": head + "Content-Length: 100\r\n\r\n{", "chunked": head + "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"} {
			res, body := answerTo(t, d, text)
			if f := fault(t, body); f.Limit != "body_rate" || res.StatusCode != 400 {
				t.Errorf("%s %s: %d %+v, want the limit body_rate", path, how, res.StatusCode, f)
			}
		}
	}
}

// The deadline of a body that has come must not end the call that it belongs to.
func TestASlowFunctionIsNoSlowBody(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{Gateway: func(c *gateway.Config) { c.BodyCredit = 20 * time.Millisecond }})
	timer := make(chan struct{})
	d.Function("green", "pay", false, func(ctx context.Context, inv *faas.Invocation) (*faas.Result, error) {
		if _, err := io.ReadAll(inv.Body); err != nil {
			return nil, faas.AsError(err)
		}
		time.AfterFunc(100*time.Millisecond, func() { close(timer) }) // longer than the credit
		select {
		case <-timer:
			return gatewaytest.Answer(200, nil, "done")(ctx, inv)
		case <-ctx.Done():
			return nil, faas.AsError(ctx.Err())
		}
	})
	if res, body := d.Do(d.Request(http.MethodPost, "/f/green/pay", d.Green, strings.NewReader("x"))); string(body) != "done" {
		t.Errorf("%d: %s", res.StatusCode, body)
	}
}

// A receiver that takes nothing loses its answer, and the call its slot.
func TestAReceiverThatTakesNothingIsCutOff(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{Gateway: func(c *gateway.Config) { c.WriteTimeout = 50 * time.Millisecond }})
	closed := make(chan struct{})
	d.Function("green", "flood", true, func(context.Context, *faas.Invocation) (*faas.Result, error) {
		return gatewaytest.Streamed(nil, &counting{most: 1 << 40}, func() { close(closed) }), nil
	})
	_ = d.Raw("GET /f/green/flood HTTP/1.1\r\nHost: x\r\n\r\n")
	<-closed
}

func TestAStreamThatTakesNothingIsCutOff(t *testing.T) {
	cert, key := certificate(t)
	d := gatewaytest.Open(t, gatewaytest.Options{Gateway: func(c *gateway.Config) { c.Cert, c.Key, c.WriteTimeout = cert, key, 50*time.Millisecond }})
	closed := make(chan struct{})
	d.Function("green", "flood", true, func(context.Context, *faas.Invocation) (*faas.Result, error) {
		return gatewaytest.Streamed(nil, &counting{most: 1 << 40}, func() { close(closed) }), nil
	})
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr}).Do(d.Request(http.MethodGet, "/f/green/flood", "", nil))
	if err == nil { // else it was cut off before the head was read
		defer func() { _ = res.Body.Close() }()
	}
	<-closed
}

func TestAHeadThatDoesNotComeEndsTheConnection(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{Gateway: func(c *gateway.Config) { c.HeaderTimeout = 50 * time.Millisecond }})
	c := d.Raw("GET /v1/version HTTP/1.1\r\nHost: ")
	if _, err := io.ReadAll(c); err != nil {
		t.Errorf("the connection ends with %v", err)
	}
}

func TestAPanicEndsOneRequestOnly(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	d.Function("green", "boom", true, func(context.Context, *faas.Invocation) (*faas.Result, error) { panic("kaboom") })
	res, body := d.Do(d.Request(http.MethodGet, "/f/green/boom", "", nil))
	f := fault(t, body)
	if res.StatusCode != 500 || f.Code != "internal" || strings.Contains(string(body), "kaboom") {
		t.Errorf("status %d: %s", res.StatusCode, body)
	}
	if log := d.Logs.String(); !strings.Contains(log, "kaboom") || !strings.Contains(log, f.RequestID) {
		t.Errorf("the log does not tell of it: %s", log)
	}
	d.Function("green", "later", true, func(context.Context, *faas.Invocation) (*faas.Result, error) {
		return gatewaytest.Streamed(nil, io.MultiReader(strings.NewReader("half"), panicking{}), nothing), nil
	})
	res, err := http.DefaultClient.Do(d.Request(http.MethodGet, "/f/green/later", "", nil))
	if err == nil {
		_, err = io.ReadAll(res.Body)
		_ = res.Body.Close()
	}
	if err == nil {
		t.Error("an answer whose sender panicked was taken for whole")
	}
	if res, _ := d.Do(d.Request(http.MethodGet, "/healthz", "", nil)); res.StatusCode != 200 {
		t.Errorf("afterwards the server answers %d", res.StatusCode)
	}
}

type panicking struct{}

func (panicking) Read([]byte) (int, error) { panic("kaboom") }

func TestGuessingIsSlowedDown(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{Attempts: 3})
	for i := range 5 {
		want := http.StatusUnauthorized
		if i >= 3 {
			want = http.StatusTooManyRequests
		}
		res, body := d.Do(d.Request(http.MethodGet, "/v1/whoami", "guess", nil))
		if res.StatusCode != want || want == 429 && res.Header.Get("Retry-After") == "" || want == 401 && res.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("guess %d: status %d, want %d: %v %s", i, res.StatusCode, want, res.Header, body)
		}
	}
	// What needs no key is not touched by it.
	if res, _ := d.Do(d.Request(http.MethodGet, "/v1/version", "guess", nil)); res.StatusCode != 200 {
		t.Errorf("an open route: status %d", res.StatusCode)
	}
}

func TestExpectationsAndPreferences(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	calls := make(chan *faas.Invocation, 1)
	d.Function("green", "pay", false, seen(calls))
	// A body is asked for only from those who may send it.
	res, _ := answerTo(t, d, "POST /f/green/pay HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	if res.StatusCode != 401 {
		t.Errorf("without a key: %s, want 401 at once", res.Status)
	}
	c := d.Raw("POST /f/green/pay HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\nAuthorization: Bearer " + d.Green + "\r\n\r\n")
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 100 ") {
		t.Fatalf("got %q, %v, want to be told to go on", line, err)
	}
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(r); err != nil || !strings.HasSuffix(string(rest), "hello") {
		t.Errorf("got %q, %v", rest, err)
	}
	<-calls
	req := d.Request(http.MethodPost, "/v1/namespaces/green/functions/pay/invoke?timeout_ms=9000", d.Green, nil)
	req.Header.Set("Prefer", "handling=lenient, wait=5")
	res, _ = d.Do(req)
	inv := <-calls
	if got := inv.Deadline.Sub(inv.Timing.Begin); got != 5*time.Second || res.Header.Get("Preference-Applied") != "wait=5" {
		t.Errorf("the deadline is after %v, applied is %q", got, res.Header.Get("Preference-Applied"))
	}
}

// What is in flight ends well within the grace; new requests find nobody.
func TestStoppingLetsCallsFinish(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{})
	running, finish := make(chan struct{}), make(chan struct{})
	d.Function("green", "slow", true, func(ctx context.Context, inv *faas.Invocation) (*faas.Result, error) {
		close(running)
		<-finish
		return gatewaytest.Answer(200, nil, "done")(ctx, inv)
	})
	type outcome struct {
		body string
		err  error
	}
	answers := make(chan outcome, 1)
	go func() {
		res, err := http.DefaultClient.Do(d.Request(http.MethodGet, "/f/green/slow", "", nil))
		if err != nil {
			answers <- outcome{"", err}
			return
		}
		defer func() { _ = res.Body.Close() }()
		b, err := io.ReadAll(res.Body)
		answers <- outcome{string(b), err}
	}()
	<-running
	following := make(chan error, 1)
	c := client(t, d, d.Green)
	begun := make(chan struct{})
	go func() {
		req := d.Request(http.MethodGet, "/v1/namespaces/green/logs?follow=true", d.Green, nil)
		res, err := http.DefaultClient.Do(req)
		close(begun)
		if err == nil {
			_, err = io.ReadAll(res.Body)
			_ = res.Body.Close()
		}
		following <- err
	}()
	<-begun
	stopped := make(chan struct{})
	go func() { d.Stop(); close(stopped) }()
	if err := <-following; err != nil { // streams without end are ended, in order
		t.Errorf("following ended with %v", err)
	}
	for { // the listener goes while the call runs
		if _, err := c.Version(t.Context()); err != nil {
			break
		}
	}
	close(finish)
	if a := <-answers; a.body != "done" || a.err != nil {
		t.Errorf("the call in flight got %q, %v", a.body, a.err)
	}
	<-stopped
}

func TestWhatOutlastsTheGraceIsCutOff(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{Gateway: func(c *gateway.Config) { c.Grace = 10 * time.Millisecond }})
	running := make(chan struct{})
	d.Function("green", "slow", true, func(ctx context.Context, _ *faas.Invocation) (*faas.Result, error) {
		close(running)
		<-ctx.Done()
		return nil, faas.AsError(ctx.Err())
	})
	go func() {
		res, err := http.DefaultClient.Do(d.Request(http.MethodGet, "/f/green/slow", "", nil))
		if err == nil {
			_ = res.Body.Close()
		}
	}()
	<-running
	d.Stop()
}

func TestTLS(t *testing.T) {
	t.Run("alone", func(t *testing.T) { speakTLS(t, nil) })
	// The listener by which functions call speaks no TLS, and is of the same server.
	for range 2 { // either may be served first
		t.Run("beside another", func(t *testing.T) {
			inside, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			speakTLS(t, inside)
		})
	}
}

func speakTLS(t *testing.T, inside net.Listener) {
	cert, key := certificate(t)
	d := gatewaytest.Open(t, gatewaytest.Options{Gateway: func(c *gateway.Config) {
		c.Cert, c.Key = cert, key
		if inside != nil {
			c.Inside, c.Visitor = func() net.Listener { return inside }, func(net.Addr) string { return "" }
		}
	}})
	pool := x509.NewCertPool()
	b, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	pool.AppendCertsFromPEM(b)
	calls := make(chan *faas.Invocation, 1)
	d.Function("green", "pay", true, seen(calls))
	for _, http2 := range []bool{false, true} {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: http2}
		res, err := (&http.Client{Transport: tr}).Do(d.Request(http.MethodPost, "/f/green/pay/a%2Fb", "", strings.NewReader("x")))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		tr.CloseIdleConnections()
		inv := <-calls
		if err != nil || string(body) != "x" || (res.ProtoMajor == 2) != http2 || inv.Path != "/a%2Fb" || inv.Header["X-Forwarded-Proto"][0] != "https" {
			t.Errorf("HTTP/2 %v: %s %q, %v, path %q, %v", http2, res.Proto, body, err, inv.Path, inv.Header)
		}
	}
	if _, err := gateway.New(gateway.Config{API: d.API, Keys: d.Keys, Cert: cert}); err == nil {
		t.Error("a certificate without its key was taken")
	}
}

// How long a receiver may leave an answer untaken says nothing of how long there may be none.
func TestAnAnswerMayTakeLongerThanItMayBeLeft(t *testing.T) {
	t.Parallel()
	const timeout = time.Second
	cert, key := certificate(t)
	d := gatewaytest.Open(t, gatewaytest.Options{Gateway: func(c *gateway.Config) { c.Cert, c.Key, c.WriteTimeout = cert, key, timeout }})
	d.Function("green", "slow", true, func(context.Context, *faas.Invocation) (*faas.Result, error) {
		time.Sleep(2 * timeout)
		r, w := io.Pipe()
		go func() {
			_, _ = io.WriteString(w, "a")
			time.Sleep(2 * timeout)
			_, _ = io.WriteString(w, "b")
			_ = w.Close()
		}()
		return gatewaytest.Streamed(nil, r, nothing), nil
	})
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 %v", http2), func(t *testing.T) {
			t.Parallel()
			tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: http2}
			defer tr.CloseIdleConnections()
			res, err := (&http.Client{Transport: tr}).Do(d.Request(http.MethodGet, "/f/green/slow", "", nil))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if err != nil || string(body) != "ab" || (res.ProtoMajor == 2) != http2 {
				t.Errorf("%s %q, %v", res.Proto, body, err)
			}
		})
	}
}

func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
