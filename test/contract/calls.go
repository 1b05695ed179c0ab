package contract

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// languages are those whose runtimes speak frames.
var languages = []string{runtimes.Python, runtimes.Node, runtimes.Go, runtimes.Java, runtimes.Ruby, runtimes.PHP}

// Run tells every story.
func (s *Suite) Run(t *testing.T) {
	for _, language := range languages {
		t.Run(language, func(t *testing.T) {
			s.Runtime(t, language)
			s.stories(t, language)
		})
	}
	t.Run("wasm", s.modules)
	t.Run("exec", s.executables)
	t.Run("lines", s.lines)
	t.Run("http", s.servers)
}

// stories tells every story of a language that speaks frames.
func (s *Suite) stories(t *testing.T, language string) {
	t.Run("values", func(t *testing.T) { s.values(t, language) })
	t.Run("failures", func(t *testing.T) { s.failures(t, language) })
	t.Run("load", func(t *testing.T) { s.loads(t, language) })
	t.Run("streams", func(t *testing.T) { s.streams(t, language) })
	t.Run("requests", func(t *testing.T) { s.requests(t, language) })
	t.Run("logs", func(t *testing.T) { s.logs(t, language) })
	t.Run("ends", func(t *testing.T) { s.ends(t, language) })
	t.Run("concurrent", func(t *testing.T) { s.concurrent(t, language) })
}

const (
	typeJSON  = "application/json"
	typeText  = "text/plain; charset=utf-8"
	typeBytes = "application/octet-stream"
)

// is says whether the language is one of those named.
func is(language string, names ...string) bool { return slices.Contains(names, language) }

// values: what a handler returns becomes the answer.
func (s *Suite) values(t *testing.T, language string) {
	f := stock(t, language, "main")
	f.Env, f.Secrets = map[string]string{"PLAIN": "value ✓"}, map[string]string{"TOKEN": "secret"}
	in := s.Start(t, language, f)

	a := in.Call(`{"do":"dict"}`)
	var got map[string]any
	if err := json.Unmarshal(a.Body, &got); err != nil || got["text"] != "héllo ✓ 你好" || got["number"] != 1.5 || fmt.Sprint(got["list"]) != "[1 <nil> true]" {
		t.Errorf("dict = %s, %v", a.Body, err)
	}
	in.Call(`{"do":"list"}`).Want(t, 200, typeJSON, `[1,"two"]`)
	in.Call(`{"do":"text"}`).Want(t, 200, typeText, "plain ✓")
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	in.Call(`{"do":"bytes"}`).Want(t, 200, typeBytes, string(all))
	in.Call(`{"do":"number"}`).Want(t, 200, typeJSON, "42")
	in.Call(`{"do":"bool"}`).Want(t, 200, typeJSON, "false")
	in.Call(`{"do":"null"}`).Want(t, 200, typeJSON, "null")

	inv := in.Invocation([]byte(`{"do":"null"}`))
	inv.Kind = faas.KindHTTP
	in.Do(t.Context(), inv).Want(t, 204, "", "")

	a = in.Call(`{"do":"response"}`)
	a.Want(t, 201, typeText, "made")
	if !slices.Equal(a.Header["Set-Cookie"], []string{"a=1", "b=2"}) || !slices.Equal(a.Header["X-One"], []string{"1"}) {
		t.Errorf("headers = %v, want two cookies and X-One", a.Header)
	}
	in.Call(`{"do":"base64"}`).Want(t, 200, "image/x", "\x00\x01\x02\xff")

	// Of a key that is given twice the last counts, as the language's own parser has it.
	in.Call(`{"do":"echo","a":1,"a":2}`).Want(t, 200, typeJSON, `{"a":2}`)
	in.Call(`{"do":"echo","__proto__":{"x":1}}`).Want(t, 200, typeJSON, `{"__proto__":{"x":1}}`)

	in.Call(`{"do":"env","names":["PLAIN","TOKEN","BRASA_FUNCTION","ABSENT"]}`).Want(t, 200, typeJSON, jsonOf(t, language,
		`"PLAIN":"value ✓"`, `"TOKEN":"secret"`, `"BRASA_FUNCTION":"fn"`, `"ABSENT":null`))

	inv = in.Invocation([]byte(`{"do":"context"}`))
	a = in.Do(t.Context(), inv)
	var c struct {
		ID, Function, Namespace, Revision, Cause string
		Memory, Remaining                        int64
	}
	if err := json.Unmarshal(a.Body, &c); err != nil {
		t.Fatalf("context = %s: %v", a.Body, err)
	}
	if c.ID != string(inv.ID) || c.Function != "fn" || c.Namespace != "ns" || c.Revision != "0123456789abcdef" || c.Cause != "c0ffee" ||
		c.Memory != int64(256*faas.MiB) || c.Remaining <= 0 || c.Remaining > 60000 {
		t.Errorf("context = %s", a.Body)
	}
	if language == runtimes.Node {
		a = in.Call(`{"do":"web"}`)
		if a.Err != nil || a.Status != 202 || string(a.Body) != "web ✓" || !slices.Equal(a.Header["X-One"], []string{"1"}) {
			t.Errorf("web response = %+v", a)
		}
	}
}

// jsonOf puts the fields of an object in the order in which the language writes them.
func jsonOf(t testing.TB, language string, fields ...string) string {
	t.Helper()
	if language == runtimes.Go {
		slices.Sort(fields)
	}
	return "{" + strings.Join(fields, ",") + "}"
}

// failures: what a handler does wrong is told, and the instance serves on.
func (s *Suite) failures(t *testing.T, language string) {
	f := stock(t, language, "main")
	f.Response = 64 * faas.KiB
	in := s.Start(t, language, f)

	e := in.Call(`{"do":"error"}`).WantError(t, faas.Failed, "no good: é")
	if !is(language, runtimes.Go) && (!strings.Contains(e.Trace, "main.") || strings.Contains(e.Trace, "bootstrap")) {
		t.Errorf("trace = %q, want the function's frames alone", e.Trace)
	}
	// A request that says it is JSON and is not is its caller's to mend. It must also leave the
	// instance in order.
	for _, body := range []string{"{not json", `{"do":`, "\xff"} {
		inv := in.Invocation([]byte(body))
		inv.Header["Content-Type"] = []string{"application/json"}
		in.Do(t.Context(), inv).WantError(t, faas.Invalid, "is JSON, and it is not")
	}
	if language == runtimes.Go {
		e := in.Call(`{"do":"panic"}`).WantError(t, faas.Failed, "panic: assignment to entry in nil map")
		if !strings.Contains(e.Trace, "main.go") || strings.Contains(e.Trace, "brasaboot") {
			t.Errorf("trace = %q, want the function's frames alone", e.Trace)
		}
	}
	in.Call(`{"do":"unserialisable"}`).WantError(t, faas.Failed, "JSON cannot hold")
	if language == runtimes.Node { // as JSON.stringify has it
		in.Call(`{"do":"nan"}`).Want(t, 200, typeJSON, `{"x":null}`)
	} else {
		in.Call(`{"do":"nan"}`).WantError(t, faas.Failed, "JSON cannot hold")
	}
	if !is(language, runtimes.Go, runtimes.PHP) { // of PHP's see fatal
		in.Call(`{"do":"recursion"}`).WantError(t, faas.Failed)
	}
	if is(language, runtimes.Python, runtimes.Node, runtimes.Ruby) {
		in.Call(`{"do":"stray"}`).WantError(t, faas.Failed, map[string]string{runtimes.Python: "sys.exit(7)", runtimes.Node: "thrown by a timer", runtimes.Ruby: "exit(7)"}[language])
	}
	if language == runtimes.Node {
		in.Call(`{"do":"rejected"}`).WantError(t, faas.Failed, "nobody catches")
	}
	for _, status := range []int{0, 99, 101, 600, 1000} {
		if status == 0 && language == runtimes.Go {
			continue // the zero of a struct's field says nothing
		}
		in.Call(fmt.Sprintf(`{"do":"status","status":%d}`, status)).WantError(t, faas.Failed, "from 200 to 599")
	}
	for _, value := range []string{`a\r\nInjected: 1`, `a\nb`, `a\u0000b`} {
		in.Call(fmt.Sprintf(`{"do":"header","name":"X-Bad","value":"%s"}`, value)).WantError(t, faas.Failed, "X-Bad")
	}
	in.Call(`{"do":"header","name":"X Bad","value":"a"}`).WantError(t, faas.Failed, "X Bad")
	for _, name := range []string{"Brasa-Outcome", "X-Forwarded-For", "Transfer-Encoding", "connection", "Content-Length"} {
		a := in.Call(fmt.Sprintf(`{"do":"header","name":"%s","value":"1"}`, name))
		if a.Err != nil || len(a.Header) != 1 {
			t.Errorf("header %s came through: %v %v", name, a.Header, a.Err)
		}
	}
	in.Call(`{"do":"header","name":"X-Accent","value":"naïve ✓"}`).Want(t, 200, typeText, "x")

	if e := in.Call(`{"do":"big","size":65537}`).WantError(t, faas.Failed); e.Limit != "response_bytes" {
		t.Errorf("limit = %q, want response_bytes", e.Limit)
	}
	a := in.Call(`{"do":"bigstream","size":1048576}`)
	if e := a.WantError(t, faas.Failed); e.Limit != "response_bytes" {
		t.Errorf("limit = %q, want response_bytes", e.Limit)
	}
	in.Call(`{"do":"big","size":65536}`).Want(t, 200, typeBytes, strings.Repeat("y", 65536))

	// None of it has cost the instance.
	in.Call(`{"do":"number"}`).Want(t, 200, typeJSON, "42")
}

// ends: a process that ends, a call that does not.
func (s *Suite) ends(t *testing.T, language string) {
	t.Run("exit", func(t *testing.T) {
		in := s.Start(t, language, stock(t, language, "main"))
		a := in.Call(`{"do":"exit"}`)
		a.WantError(t, faas.Crashed)
		if language != runtimes.Go { // its pipe is not read any more
			if got := a.Log.Text(runtimes.Stdout); got != "about to exit\n" {
				t.Errorf("log = %q, want what was written before the exit", got)
			}
		}
		exit := in.Process.Wait()
		if e := exit.Error("call function", 0); e.Message() != "the process exited with code 3 without an answer" {
			t.Errorf("exit = %+v: %v", exit, e)
		}
		<-in.Done()
		in.Call(`{"do":"number"}`).WantError(t, faas.Crashed)
	})
	t.Run("fatal", func(t *testing.T) {
		if language != runtimes.PHP {
			t.Skip("only PHP has errors that end the process and can be told of")
		}
		for _, do := range []string{"exhaust", "recursion"} {
			in := s.Start(t, language, stock(t, language, "main"))
			e := in.Call(fmt.Sprintf(`{"do":"%s"}`, do)).WantError(t, faas.Failed, "Allowed memory size")
			if e.Limit != "memory_bytes" || !strings.Contains(e.Trace, "main.php:") {
				t.Errorf("limit %q, trace %q; want memory_bytes, and where it was", e.Limit, e.Trace)
			}
			<-in.Done()
			in.Process.Wait()
		}
	})
	t.Run("loop", func(t *testing.T) {
		in := s.Start(t, language, stock(t, language, "main"))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		in.Do(ctx, in.Invocation([]byte(`{"do":"loop"}`))).WantError(t, faas.Timeout)
		if in.Active() != 1 {
			t.Errorf("active = %d, want 1: the loop still runs", in.Active())
		}
		in.Process.Kill()
		<-in.Done()
		if in.Active() != 0 {
			t.Errorf("active = %d after the process is gone", in.Active())
		}
	})
	t.Run("killed", func(t *testing.T) {
		in := s.Start(t, language, stock(t, language, "main"))
		done := make(chan *Answer)
		go func() { done <- in.Call(`{"do":"loop"}`) }()
		in.Process.Kill()
		(<-done).WantError(t, faas.Crashed)
		if e := in.Process.Wait().Error("call function", 0); !strings.Contains(e.Error(), "SIGKILL") {
			t.Errorf("exit = %v, want SIGKILL", e)
		}
	})
	t.Run("closed", func(t *testing.T) {
		in := s.Start(t, language, stock(t, language, "main"))
		_ = in.Close()
		if exit := in.Process.Wait(); exit.Code != 0 || exit.Signal != 0 {
			t.Errorf("exit = %+v, want a quiet one when the host goes", exit)
		}
	})
	t.Run("stray", func(t *testing.T) {
		if language != runtimes.Node {
			t.Skip("an error that nobody catches ends only Node.js")
		}
		in := s.Start(t, language, Function{Entry: "main.js", Files: map[string]string{
			"main.js": "Promise.reject(new Error('nobody waits'));\nexports.main = (args) => args;\n",
		}})
		<-in.Done()
		if exit := in.Process.Wait(); exit.Code != 1 {
			t.Errorf("exit = %+v, want code 1", exit)
		}
		in.Own.Await(t, "a promise was rejected and nobody caught it")
	})
	t.Run("canceled", func(t *testing.T) {
		f, input := stock(t, language, map[string]string{runtimes.Python: "asynchronous"}[language]+orMain(language)), `{"do":"wait"}`
		if language == runtimes.Node {
			input = `{"do":"aborted"}`
		}
		in := s.Start(t, language, f)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		in.Do(ctx, in.Invocation([]byte(input))).WantError(t, faas.Canceled)
		idle, stop := context.WithTimeout(t.Context(), patience)
		defer stop()
		if err := in.Idle(idle); err != nil {
			t.Fatalf("the call did not end after it was canceled: %v", err)
		}
		in.Own.Await(t, "canceled") // its caller has gone, so the line is the instance's
	})
}

func orMain(language string) string {
	if language == runtimes.Python {
		return ""
	}
	return "main"
}

// concurrent: calls at once in one instance, each with its own log.
func (s *Suite) concurrent(t *testing.T, language string) {
	which := []string{"main"}
	if language == runtimes.Python {
		which = []string{"main", "asynchronous"} // threads and an event loop
	}
	for _, w := range which {
		t.Run(w, func(t *testing.T) {
			f := stock(t, language, w)
			f.Concurrency = 8
			in := s.Start(t, language, f)
			var wait sync.WaitGroup
			for i := range 8 {
				wait.Go(func() {
					for j := range 20 {
						tag := fmt.Sprintf("call-%d-%d", i, j)
						a := in.Call(fmt.Sprintf(`{"do":"log","tag":"%s","count":3}`, tag))
						if a.Err != nil || string(a.Body) != tag {
							t.Errorf("%s answered %q, %v", tag, a.Body, a.Err)
							return
						}
						lines := strings.Split(strings.TrimSpace(a.Log.Text("")), "\n")
						for _, l := range lines {
							if !strings.HasPrefix(l, tag+" ") {
								t.Errorf("%s got the line %q", tag, l)
							}
						}
						if want := map[string]int{"asynchronous": 4, "main": 8}[w]; len(lines) != want && language != runtimes.Go && !(language == runtimes.Node && len(lines) == 8) {
							t.Errorf("%s has %d lines, want %d: %q", tag, len(lines), want, lines)
						}
					}
				})
			}
			wait.Wait()
			if language == runtimes.Go {
				return
			}

			// One whose answer nobody reads holds up none of the others.
			slow, err := in.RoundTrip(t.Context(), in.Invocation([]byte(`{"do":"bigstream","size":4194304}`)), nil)
			if err != nil {
				t.Fatal(err)
			}
			for range 20 {
				if a := in.Call(`{"do":"log","tag":"x","count":1}`); a.Err != nil {
					t.Fatal(a.Err)
				}
			}
			n, err := drain(slow.Body)
			if n != 4<<20 || err != nil {
				t.Errorf("slow reader got %d bytes, %v, want %d", n, err, 4<<20)
			}
		})
	}
}
