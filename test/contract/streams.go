package contract

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

func drain(r io.ReadCloser) (int64, error) {
	defer r.Close()
	return io.Copy(io.Discard, r)
}

// streams: answers that come piece by piece.
func (s *Suite) streams(t *testing.T, language string) {
	in := s.Start(t, language, stock(t, language, "main"))
	in.Call(`{"do":"stream"}`).Want(t, 200, typeText, "part 0\npart 1\npart 2\n")
	in.Call(`{"do":"objects"}`).Want(t, 200, "application/x-ndjson", "{\"n\":1}\n{\"n\":2}\n")
	if language != runtimes.Go {
		in.Call(`{"do":"sse"}`).Want(t, 200, "text/event-stream", "data: 0\n\ndata: 1\n\ndata: 2\n\n")
	}
	const size = 5 << 20
	in.Call(`{"do":"big","size":5242880}`).Want(t, 200, typeBytes, strings.Repeat("y", size))
	if a := in.Call(`{"do":"bigstream","size":5242880}`); a.Err != nil || len(a.Body) != size {
		t.Errorf("stream of %d bytes came as %d, %v", size, len(a.Body), a.Err)
	}

	// What was streamed before an error arrives, and then the error.
	res, err := in.RoundTrip(t.Context(), in.Invocation([]byte(`{"do":"midway"}`)), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if string(body) != "one\ntwo\n" || faas.CodeOf(err) != faas.Failed || !strings.Contains(err.Error(), "broke in the middle") {
		t.Errorf("midway = %q, %v", body, err)
	}

	// An answer that is closed early ends its function.
	log := NewLines()
	res, err = in.RoundTrip(t.Context(), in.Invocation([]byte(`{"do":"endless"}`)), log)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, res.Body, 3<<20); err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	idle, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := in.Idle(idle); err != nil {
		t.Fatalf("the stream did not end after it was closed: %v", err)
	}
	in.Own.Await(t, "closed")

	// And so does a deadline in the middle of one.
	ctx, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	res, err = in.RoundTrip(ctx, in.Invocation([]byte(`{"do":"endless"}`)), nil)
	if err == nil {
		_, err = io.Copy(io.Discard, res.Body)
	}
	if code := faas.CodeOf(err); code != faas.Timeout && faas.AsError(err).Limit != "response_bytes" {
		t.Errorf("endless stream = %v, want Timeout", err)
	}
	if err := in.Idle(idle); err != nil {
		t.Fatalf("the stream did not end after its deadline: %v", err)
	}
	in.Call(`{"do":"number"}`).Want(t, 200, typeJSON, "42")
}

// requests: bodies large and small, and what the event says of its request.
func (s *Suite) requests(t *testing.T, language string) {
	in := s.Start(t, language, stock(t, language, "events"))
	http := func(path string, body io.Reader, length int64) *faas.Invocation {
		inv := in.Invocation(nil)
		inv.Kind, inv.Method, inv.Path, inv.Body, inv.Length = faas.KindHTTP, "PUT", path, body, length
		return inv
	}

	inv := http("/request", strings.NewReader(`{"b":"body"}`), 12)
	inv.Query = "a=1&a=2&b=query&c=%E2%9C%93+x&__proto__=p"
	inv.Header = map[string][]string{"X-Thing": {"thing ✓"}, "Content-Type": {"application/json; charset=utf-8"}}
	a := in.Do(t.Context(), inv)
	var got struct {
		Method, Header, Text string
		Query                map[string]string
		All                  []string
		Args                 map[string]any
	}
	if err := json.Unmarshal(a.Body, &got); err != nil || a.Err != nil {
		t.Fatalf("request = %s, %v, %v", a.Body, err, a.Err)
	}
	if got.Method != "PUT" || got.Header != "thing ✓" || got.Text != `{"b":"body"}` || strings.Join(got.All, ",") != "1,2" {
		t.Errorf("request = %s", a.Body)
	}
	if language != runtimes.Go && (got.Query["a"] != "2" || got.Query["c"] != "✓ x" || got.Args["b"] != "body" || got.Args["a"] != "2" || got.Args["__proto__"] != "p") {
		t.Errorf("request = %s, want the last of a, and the body over the query", a.Body)
	}

	in.Do(t.Context(), http("/absent", nil, 0)).Want(t, 404, typeText, map[string]string{runtimes.Go: "none\n"}[language]+orNone(language))

	// Bodies of known length around what travels whole, and of unknown length.
	for _, size := range []int{0, 1, runtimes.MaxWhole, runtimes.MaxWhole + 1, 5 << 20} {
		b := randomBytes(size)
		for _, length := range []int64{int64(size), -1} {
			a := in.Do(t.Context(), http("/echo", bytes.NewReader(b), length))
			if a.Err != nil || sha256.Sum256(a.Body) != sha256.Sum256(b) {
				t.Errorf("echo of %d bytes (length %d) came back as %d, %v", size, length, len(a.Body), a.Err)
			}
		}
	}
	a = in.Do(t.Context(), http("/size", bytes.NewReader(randomBytes(3<<20)), 3<<20))
	if a.Err != nil || strings.ReplaceAll(strings.TrimSpace(string(a.Body)), " ", "") != `{"size":3145728}` {
		t.Errorf("size = %s, %v", a.Body, a.Err)
	}

	// Both directions at once: each piece comes back before the next is sent.
	r, w := io.Pipe()
	res, err := in.start(t, http("/echo", r, -1), w, "first")
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	for _, piece := range []string{"first", "second", "third"} {
		if piece != "first" {
			if _, err := io.WriteString(w, piece); err != nil {
				t.Fatal(err)
			}
		}
		n, err := io.ReadFull(res.Body, buf[:len(piece)])
		if err != nil || string(buf[:n]) != piece {
			t.Fatalf("piece %q came back as %q, %v", piece, buf[:n], err)
		}
	}
	w.Close()
	if n, err := drain(res.Body); n != 0 || err != nil {
		t.Errorf("after the last piece: %d bytes, %v", n, err)
	}

	// An answer need not wait for the request.
	r, w = io.Pipe()
	in.Do(t.Context(), http("/ignore", r, -1)).Want(t, 200, typeText, "ignored")
	w.Close()

	// A caller that breaks off in the middle of its request is told to the function.
	r, w = io.Pipe()
	go func() {
		_, _ = w.Write(randomBytes(1000))
		_ = w.CloseWithError(io.ErrUnexpectedEOF)
	}()
	in.Do(t.Context(), http("/size", r, -1)).WantError(t, faas.Canceled)
	idle, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := in.Idle(idle); err != nil {
		t.Fatalf("the call did not end after its request broke off: %v", err)
	}
	in.Do(t.Context(), http("/ignore", nil, 0)).Want(t, 200, typeText, "ignored")
}

// start begins a call whose answer's head comes only after the first piece of its request.
func (in *Instance) start(t testing.TB, inv *faas.Invocation, w io.Writer, piece string) (*faas.Result, error) {
	t.Helper()
	go func() { _, _ = io.WriteString(w, piece) }()
	return in.RoundTrip(t.Context(), inv, nil)
}

func orNone(language string) string {
	if language == runtimes.Go {
		return ""
	}
	return "none"
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	var seed [32]byte
	_, _ = rand.NewChaCha8(seed).Read(b)
	return b
}

// logs: what a call writes is its own.
func (s *Suite) logs(t *testing.T, language string) {
	in := s.Start(t, language, stock(t, language, "main"))
	if language == runtimes.Go {
		a := in.Call(`{"do":"print"}`)
		a.Want(t, 200, typeText, "ok")
		if a.Log.Text(runtimes.Stdout) != "to stdout\n" || !strings.Contains(a.Log.Text(runtimes.Stderr), "to stderr") {
			t.Errorf("log = %q", a.Log.Text(""))
		}
	} else {
		a := in.Call(`{"do":"log","tag":"t","count":2}`)
		if got, want := a.Log.Text(runtimes.Stdout), "t 0\nt 1\nt thread\n"; got != want {
			t.Errorf("stdout = %q, want %q", got, want)
		}
		if got, want := a.Log.Text(runtimes.Stderr), "t err 0\nt err 1\nt logging\n"; got != want {
			t.Errorf("stderr = %q, want %q", got, want)
		}
	}
	a := in.Call(`{"do":"unfinished"}`)
	if got := a.Log.Text(runtimes.Stdout); got != "no end\n" {
		t.Errorf("line without an end = %q", got)
	}
	a = in.Call(`{"do":"hugeline","size":300000}`)
	a.Want(t, 200, typeText, "ok")
	for _, l := range strings.Split(a.Log.Text(""), "\n") {
		if len(l) > runtimes.MaxLine {
			t.Errorf("a line has %d bytes", len(l))
		}
	}
	if got := strings.Count(a.Log.Text(""), "x"); got != 300000 {
		t.Errorf("of a long line %d bytes came", got)
	}
	if a = in.Call(`{"do":"number"}`); a.Log.Text("") != "" {
		t.Errorf("a silent call has the log %q", a.Log.Text(""))
	}
	if language == runtimes.Go {
		return // it cannot tell whose a goroutine is
	}
	if language == runtimes.PHP {
		a := in.Call(`{"do":"complain"}`)
		a.Want(t, 200, typeText, "got ")
		if got := a.Log.Text(runtimes.Stderr); !strings.Contains(got, "PHP Warning: Undefined array key 0 in ") || !strings.Contains(got, "main.php on line") {
			t.Errorf("stderr = %q, want the warning", got)
		}
		return // it leaves nothing running
	}

	// What a call leaves running does not write into the log of another.
	f := stock(t, language, "main")
	f.Concurrency = 2
	in = s.Start(t, language, f)
	in.Call(`{"do":"later"}`).Want(t, 200, typeText, "ok")
	a = in.Call(`{"do":"release"}`)
	a.Want(t, 200, typeText, "ok")
	if strings.Contains(a.Log.Text(""), "late") {
		t.Errorf("a late line of one call came into the log of another: %q", a.Log.Text(""))
	}
	in.Own.Await(t, "late line")
}
