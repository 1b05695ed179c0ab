package runtimes

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// hostile is the far end of a connection, to be played by a test.
type hostile struct {
	net.Conn
	t *testing.T
}

func play(t *testing.T, opts Options) (*Conn, *hostile) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := make([]net.Conn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	c := NewConn(ends[0], opts)
	t.Cleanup(func() { c.Close(); ends[1].Close() })
	return c, &hostile{ends[1], t}
}

func (h *hostile) send(typ frameType, stream uint32, payload []byte) {
	_, _ = h.Write(appendFrame(nil, typ, stream, payload)) // the host may have hung up, rightly
}

func (h *hostile) answer(stream uint32, meta, body string) {
	h.send(frameResult, stream, metaPayload(meta, body))
}

// next reads a frame of the host.
func (h *hostile) next() (typ frameType, stream uint32, payload []byte) {
	h.t.Helper()
	var head [frameHead]byte
	if _, err := io.ReadFull(h, head[:]); err != nil {
		return 0, 0, nil
	}
	payload = make([]byte, binary.BigEndian.Uint32(head[:])-5)
	if _, err := io.ReadFull(h, payload); err != nil {
		return 0, 0, nil
	}
	return frameType(head[4]), binary.BigEndian.Uint32(head[5:]), payload
}

func invocation(body string) *faas.Invocation {
	return &faas.Invocation{ID: "1", Kind: faas.KindInvoke, Body: strings.NewReader(body), Length: int64(len(body))}
}

type sink struct {
	mu   sync.Mutex
	text string
	got  chan struct{}
}

func newSink() *sink { return &sink{got: make(chan struct{}, 100)} }

func (s *sink) Log(l faas.LogLine) {
	s.mu.Lock()
	s.text += l.Stream + " " + l.Text + "\n"
	s.mu.Unlock()
	s.got <- struct{}{}
}

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text
}

// An answer or line that names another call than the one that is waiting reaches nobody: the
// late answer of a call whose caller has gone must not be the next caller's.
func TestLateFramesReachNoOtherCall(t *testing.T) {
	own, mine := newSink(), newSink()
	c, h := play(t, Options{Log: own})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		h.next()
		cancel()
	}()
	if _, err := c.RoundTrip(ctx, invocation("first"), nil); faas.CodeOf(err) != faas.Canceled {
		t.Fatalf("first call: %v, want Canceled", err)
	}
	if typ, stream, _ := h.next(); typ != frameCancel || stream != 1 {
		t.Fatalf("host sent type %d on stream %d, want CANCEL on 1", typ, stream)
	}
	go func() {
		_, stream, _ := h.next()
		h.send(frameLog, 1, []byte("\x01late"))
		h.answer(1, `{"status":200}`, "late")
		h.send(frameLog, 1, []byte("\x02later"))
		h.send(frameLog, 99, []byte("\x01never"))
		h.answer(99, `{"status":200}`, "never")
		h.send(frameData, 98, []byte("x"))
		h.send(frameLog, 0, []byte("\x01own"))
		h.send(frameLog, stream, []byte("\x01mine\nand mine\n"))
		h.answer(stream, `{"status":200}`, "second")
	}()
	res, err := c.RoundTrip(t.Context(), invocation("second"), mine)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(res.Body); string(b) != "second" {
		t.Errorf("second call got %q", b)
	}
	if got, want := own.String(), "stdout late\nstderr later\nstdout never\nstdout own\n"; got != want {
		t.Errorf("instance's lines = %q, want %q", got, want)
	}
	if got, want := mine.String(), "stdout mine\nstdout and mine\n"; got != want {
		t.Errorf("call's lines = %q, want %q", got, want)
	}
	if c.Active() != 0 {
		t.Errorf("active = %d", c.Active())
	}
}

// What breaks the protocol ends the connection, and every call with it, in bounded memory.
func TestHostileFrames(t *testing.T) {
	meta := func(m string) []byte { return metaPayload(m, "") }
	chunk := make([]byte, 512<<10)
	for name, attack := range map[string]func(h *hostile, stream uint32){
		"garbage":            func(h *hostile, _ uint32) { _, _ = h.Write([]byte("GET / HTTP/1.1\r\n\r\n")) },
		"enormous frame":     func(h *hostile, _ uint32) { _, _ = h.Write([]byte("\xff\xff\xff\xff\x14\x00\x00\x00\x01")) },
		"host's own type":    func(h *hostile, s uint32) { h.send(frameCall, s, nil) },
		"result without":     func(h *hostile, s uint32) { h.send(frameResult, s, []byte("x")) },
		"meta over its end":  func(h *hostile, s uint32) { h.send(frameResult, s, []byte("\x00\x00\x00\xffx")) },
		"head not json":      func(h *hostile, s uint32) { h.send(frameHeadOf, s, meta("nonsense")) },
		"data before head":   func(h *hostile, s uint32) { h.send(frameData, s, []byte("x")) },
		"end before head":    func(h *hostile, s uint32) { h.send(frameEnd, s, nil) },
		"hello twice":        func(h *hostile, _ uint32) { h.send(frameHello, 0, []byte("{}")); h.send(frameHello, 0, []byte("{}")) },
		"loaded twice":       func(h *hostile, _ uint32) { h.send(frameLoaded, 0, []byte("{}")); h.send(frameLoaded, 0, []byte("{}")) },
		"result on stream 0": func(h *hostile, _ uint32) { h.answer(0, `{"status":200}`, "") },
		"hello on a call":    func(h *hostile, s uint32) { h.send(frameHello, s, []byte("{}")) },
		"log of nothing":     func(h *hostile, s uint32) { h.send(frameLog, s, nil) },
		"credit of 3 bytes":  func(h *hostile, s uint32) { h.send(frameWindow, s, []byte("abc")) },
		"over the window": func(h *hostile, s uint32) {
			h.send(frameHeadOf, s, meta(`{"status":200}`))
			for range 3 {
				h.send(frameData, s, chunk)
			}
		},
		"gone": func(h *hostile, _ uint32) { h.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			c, h := play(t, Options{})
			go func() {
				_, stream, _ := h.next()
				attack(h, stream)
			}()
			res, err := c.RoundTrip(t.Context(), invocation(""), nil)
			if err == nil {
				<-c.Done() // only now, for the window must fill while nobody reads
				_, err = io.Copy(io.Discard, res.Body)
			}
			if faas.CodeOf(err) != faas.Crashed {
				t.Errorf("call = %v, want Crashed", err)
			}
			<-c.Done()
			if _, err := c.RoundTrip(t.Context(), invocation(""), nil); faas.CodeOf(err) != faas.Crashed {
				t.Errorf("next call = %v, want Crashed", err)
			}
		})
	}
}

// What is only wrong in what it says fails the one call.
func TestHostileAnswers(t *testing.T) {
	many := make([]string, 300)
	for i := range many {
		many[i] = fmt.Sprintf(`"X-%d":"v"`, i)
	}
	for name, m := range map[string]string{
		"not json":        `nonsense`,
		"status 100":      `{"status":100}`,
		"status 101":      `{"status":101}`,
		"status 600":      `{"status":600}`,
		"line break":      `{"status":200,"headers":{"X":"a\r\nSet-Cookie: b"}}`,
		"break in a name": `{"status":200,"headers":{"X: y\r\nZ":"a"}}`,
		"empty name":      `{"status":200,"headers":{"":"a"}}`,
		"NUL":             `{"status":200,"headers":{"X":["ok","a\u0000"]}}`,
		"many headers":    `{"status":200,"headers":{` + strings.Join(many, ",") + `}}`,
		"large headers":   `{"status":200,"headers":{"X":"` + strings.Repeat("x", 70<<10) + `"}}`,
		"error":           `{"error":{"kind":"K","message":"m"}}`,
		"empty error":     `{"error":{}}`,
	} {
		t.Run(name, func(t *testing.T) {
			c, h := play(t, Options{Response: 100})
			go func() {
				_, stream, _ := h.next()
				h.answer(stream, m, "")
				_, stream, _ = h.next()
				h.answer(stream, `{"status":200}`, "good")
			}()
			if _, err := c.RoundTrip(t.Context(), invocation(""), nil); faas.CodeOf(err) != faas.Failed {
				t.Errorf("call = %v, want Failed", err)
			}
			if _, err := c.RoundTrip(t.Context(), invocation(""), nil); err != nil {
				t.Errorf("next call = %v", err)
			}
		})
	}
}

// A function that answers 204 cannot put a body behind it, which would be taken for the begin of
// the next answer.
func TestBodilessAnswers(t *testing.T) {
	c, h := play(t, Options{})
	go func() {
		_, stream, _ := h.next()
		h.answer(stream, `{"status":204}`, "HTTP/1.1 200 OK")
		_, stream, _ = h.next()
		h.send(frameHeadOf, stream, metaPayload(`{"status":304}`, ""))
		h.send(frameData, stream, []byte("HTTP/1.1 200 OK"))
		h.send(frameEnd, stream, nil)
	}()
	for range 2 {
		res, err := c.RoundTrip(t.Context(), invocation(""), nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(res.Body); len(b) > 0 || err != nil {
			t.Errorf("body = %q, %v", b, err)
		}
	}
}

// An instance that does not read cannot hold up a call's end, nor another call.
func TestInstanceThatDoesNotRead(t *testing.T) {
	c, _ := play(t, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			_, err := c.RoundTrip(ctx, invocation(strings.Repeat("x", MaxWhole)), nil)
			if faas.CodeOf(err) != faas.Timeout {
				t.Errorf("call = %v, want Timeout", err)
			}
		})
	}
	wait.Go(func() {
		inv := invocation("")
		inv.Body, inv.Length = endless{}, -1
		if _, err := c.RoundTrip(ctx, inv, nil); faas.CodeOf(err) != faas.Timeout {
			t.Errorf("streaming call = %v, want Timeout", err)
		}
	})
	wait.Wait()
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// The host sends no more of a request than it has credit for.
func TestRequestWindow(t *testing.T) {
	c, h := play(t, Options{})
	inv := invocation("")
	inv.Body, inv.Length = io.LimitReader(endless{}, 4<<20), -1
	done := make(chan error)
	go func() {
		_, err := c.RoundTrip(t.Context(), inv, nil)
		done <- err
	}()
	_, stream, _ := h.next()
	got := 0
	for got < InitialWindow {
		_, _, b := h.next()
		got += len(b)
	}
	if got != InitialWindow {
		t.Fatalf("got %d bytes, want the window of %d", got, InitialWindow)
	}
	// Nothing more may come before credit does: the next frame is what answers the credit.
	h.send(frameWindow, stream, binary.BigEndian.AppendUint32(nil, 1000))
	if _, _, b := h.next(); len(b) != 1000 {
		t.Fatalf("for a credit of 1000 came %d bytes", len(b))
	}
	h.answer(stream, `{"status":200}`, "")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestCloseEndsCalls(t *testing.T) {
	c, h := play(t, Options{})
	go func() { h.next(); _ = c.Close() }()
	if _, err := c.RoundTrip(t.Context(), invocation(""), nil); faas.CodeOf(err) != faas.Crashed {
		t.Errorf("call = %v, want Crashed", err)
	}
	if err := c.Err(); err != net.ErrClosed {
		t.Errorf("Err = %v", err)
	}
	if _, err := c.Hello(t.Context()); faas.CodeOf(err) != faas.Crashed {
		t.Errorf("hello = %v, want Crashed", err)
	}
	if _, err := c.Load(t.Context(), Spec{}); faas.CodeOf(err) != faas.Crashed {
		t.Errorf("load = %v, want Crashed", err)
	}
}

// A call may follow its load in the same breath; what becomes of the load is known by the time
// the call is answered.
func TestCallBehindLoad(t *testing.T) {
	const seed = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	t.Run("loaded", func(t *testing.T) {
		c, h := play(t, Options{})
		if err := c.Begin(Spec{Function: "f", Seed: seed}); err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _, load := h.next()
			_, stream, call := h.next()
			for what, b := range map[string][]byte{"LOAD": load, "CALL": call} {
				if !strings.Contains(string(b), `"seed":"`+seed+`"`) {
					t.Errorf("%s has no seed: %q", what, b)
				}
			}
			h.send(frameLoaded, 0, []byte(`{"dependency_us":1,"code_us":2}`))
			h.answer(stream, `{"status":200}`, "")
		}()
		inv := invocation("")
		inv.Seed = seed
		if _, err := c.RoundTrip(t.Context(), inv, nil); err != nil {
			t.Fatal(err)
		}
		over, cancel := context.WithCancel(t.Context())
		cancel()
		for range 2 {
			if l, err := c.Loaded(over); err != nil || l != (Loaded{1, 2}) {
				t.Errorf("Loaded = %v, %v", l, err)
			}
		}
	})
	for _, exits := range []bool{false, true} {
		t.Run(fmt.Sprintf("failed, exits %v", exits), func(t *testing.T) {
			c, h := play(t, Options{})
			if err := c.Begin(Spec{}); err != nil {
				t.Fatal(err)
			}
			go func() {
				h.next()
				h.next()
				h.send(frameLoadFailed, 0, []byte(`{"kind":"SyntaxError","message":"bad","trace":"line 1"}`))
				if exits {
					h.Close()
				}
			}()
			check := func(what string, err error) {
				t.Helper()
				if e := faas.AsError(err); err == nil || e.Code != faas.Failed || e.Trace != "line 1" {
					t.Errorf("%s = %v, want the load's failure with its trace", what, err)
				}
			}
			_, err := c.RoundTrip(t.Context(), invocation(""), nil)
			check("the call", err)
			if exits {
				<-c.Done()
			}
			_, err = c.Loaded(t.Context())
			check("Loaded", err)
			_, err = c.RoundTrip(t.Context(), invocation(""), nil)
			check("the next call", err)
			if c.Active() != 0 {
				t.Errorf("active = %d", c.Active())
			}
		})
	}
}

// echo answers every call with its body, after what the host sent is looked at by before.
func (h *hostile) echo(before func(stream uint32)) {
	for {
		typ, stream, payload := h.next()
		switch typ {
		case 0:
			return
		case frameCall:
			if before != nil {
				before(stream)
			}
			_, body, err := splitMeta(payload)
			if err != nil {
				h.t.Error(err)
			}
			h.answer(stream, `{"status":200}`, string(body))
		}
	}
}

func echoed(ctx context.Context, c *Conn, want string, logs LogSink) error {
	res, err := c.RoundTrip(ctx, invocation(want), logs)
	if err != nil {
		return err
	}
	if b, err := io.ReadAll(res.Body); err != nil || string(b) != want {
		return fmt.Errorf("got %q, %v; want %q", b, err, want)
	}
	return nil
}

// Whoever reads, each call gets its own answer: calls alone, beside others, and those whose
// caller leaves while it reads for all.
func TestLeadershipIsHandedOn(t *testing.T) {
	c, h := play(t, Options{})
	go h.echo(nil)
	var wait sync.WaitGroup
	for g := range 8 {
		wait.Go(func() {
			for i := range 500 {
				want := fmt.Sprintf("%d-%d", g, i)
				if g%2 == 0 {
					if err := echoed(t.Context(), c, want, nil); err != nil {
						t.Error(err)
						return
					}
					continue
				}
				ctx, cancel := context.WithCancel(t.Context())
				if i%3 == 0 {
					cancel()
				} else {
					go cancel()
				}
				if err := echoed(ctx, c, want, nil); err != nil && faas.CodeOf(err) != faas.Canceled {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	wait.Wait()
	for i := range 100 {
		if err := echoed(t.Context(), c, fmt.Sprint(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Idle(t.Context()); err != nil || c.Active() != 0 {
		t.Errorf("active = %d, %v", c.Active(), err)
	}
}

// settled is a conversation in which nobody reads, because a call has ended just now.
func settled(t *testing.T, opts Options) (*Conn, *hostile) {
	t.Helper()
	c, h := play(t, opts)
	go func() {
		_, stream, _ := h.next()
		h.answer(stream, `{"status":200}`, "first")
	}()
	if err := echoed(t.Context(), c, "first", nil); err != nil {
		t.Fatal(err)
	}
	for c.mu.Lock(); c.led; c.mu.Lock() { // the keeper of the beginning goes
		c.mu.Unlock()
		runtime.Gosched()
	}
	c.mu.Unlock()
	return c, h
}

// A caller that leaves while it leads leaves the call of another to be read by somebody else,
// from the very byte on where it stopped.
func TestLeaderLeaves(t *testing.T) {
	for size, body := range map[string]string{"short": "waits", "long": strings.Repeat("waits", MaxWhole/5)} {
		t.Run(size, func(t *testing.T) {
			c, h := settled(t, Options{})
			ctx, leave := context.WithCancel(t.Context())
			lead, other := make(chan error, 1), make(chan error, 1)
			go func() {
				_, err := c.RoundTrip(ctx, invocation("leads"), nil)
				lead <- err
			}()
			_, first, _ := h.next()
			go func() { other <- echoed(t.Context(), c, body, nil) }()
			_, second, _ := h.next()
			answer := appendFrame(nil, frameResult, second, metaPayload(`{"status":200}`, body))
			_, _ = h.Write(answer[:len(answer)/2])
			leave()
			if err := <-lead; faas.CodeOf(err) != faas.Canceled {
				t.Errorf("the leader's call = %v, want Canceled", err)
			}
			if typ, stream, _ := h.next(); typ != frameCancel || stream != first {
				t.Errorf("host sent type %d on stream %d, want CANCEL on %d", typ, stream, first)
			}
			_, _ = h.Write(answer[len(answer)/2:])
			if err := <-other; err != nil {
				t.Error(err)
			}
			h.answer(first, `{"status":200}`, "late")
			if err := c.Idle(t.Context()); err != nil {
				t.Error(err)
			}
			go h.echo(nil)
			if err := echoed(t.Context(), c, "next", nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// An answer that streams is read on when its call has returned.
func TestAnswerStreamsBehindItsLeader(t *testing.T) {
	c, h := settled(t, Options{})
	const pieces = 3 * InitialWindow / bodyChunk
	go func() {
		_, stream, _ := h.next()
		h.send(frameHeadOf, stream, metaPayload(`{"status":200}`, ""))
		room := InitialWindow
		for range pieces {
			if room < bodyChunk {
				_, _, b := h.next()
				room += int(binary.BigEndian.Uint32(b))
			}
			h.send(frameData, stream, make([]byte, bodyChunk))
			room -= bodyChunk
		}
		h.send(frameEnd, stream, nil)
	}()
	res, err := c.RoundTrip(t.Context(), invocation(""), nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, res.Body); n != pieces*bodyChunk || err != nil {
		t.Errorf("read %d bytes, %v; want %d", n, err, pieces*bodyChunk)
	}
}

// What an instance does while nobody waits for it is noticed: a line, its end, and what is
// against the protocol.
func TestInstanceThatNobodyReads(t *testing.T) {
	own := newSink()
	c, h := settled(t, Options{Log: own})
	h.send(frameLog, 0, []byte("\x01between calls"))
	<-own.got
	if got := own.String(); got != "stdout between calls\n" {
		t.Errorf("lines = %q", got)
	}
	go h.echo(nil)
	if err := echoed(t.Context(), c, "with a keeper that reads", nil); err != nil {
		t.Fatal(err)
	}
	if err := echoed(t.Context(), c, "without", nil); err != nil {
		t.Fatal(err)
	}
	h.Close()
	<-c.Done()

	c, h = settled(t, Options{})
	h.send(frameCall, 1, nil)
	<-c.Done()
	if err := c.Err(); !BrokeProtocol(err) {
		t.Errorf("Err = %v", err)
	}
}

// An instance that never stops writing lines cannot hold its caller past its deadline.
func TestLeaderOfAFlood(t *testing.T) {
	c, h := settled(t, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	go func() {
		_, stream, _ := h.next()
		flood := bytes.Repeat(appendFrame(nil, frameLog, stream, []byte("\x01x")), 1000)
		for {
			if _, err := h.Write(flood); err != nil {
				return
			}
		}
	}()
	if _, err := c.RoundTrip(ctx, invocation(""), NewLog(1000, nil)); faas.CodeOf(err) != faas.Timeout {
		t.Errorf("call = %v, want Timeout", err)
	}
}

// Closing waits for whoever reads, a caller too.
func TestCloseOfALeader(t *testing.T) {
	c, h := settled(t, Options{})
	go func() { h.next(); _ = c.Close() }()
	if _, err := c.RoundTrip(t.Context(), invocation(""), nil); faas.CodeOf(err) != faas.Crashed {
		t.Errorf("call = %v, want Crashed", err)
	}
}
