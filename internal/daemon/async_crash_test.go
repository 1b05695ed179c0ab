package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/journal"
	"github.com/brasa-dev/brasa/internal/queue"
)

// control lets the test at the parts of a victim, by a socket beside its data: what is held here is
// held of the dispatcher, whatever the API says of it.
func control(n *node, dir string) {
	path := dir + ".sock"
	_ = os.Remove(path) // of the one that was killed
	l, err := net.Listen("unix", path)
	if err != nil {
		panic(err)
	}
	answer := func(w http.ResponseWriter, v any, err error) {
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(v) // whoever asks sees that it is missing
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /enqueue/{function}", func(w http.ResponseWriter, r *http.Request) {
		delay, _ := time.ParseDuration(r.URL.Query().Get("delay")) // none: at once
		id, err := n.dispatch.Enqueue(r.Context(), &faas.Invocation{
			Wait:     &faas.Wait{NotBefore: time.Now().Add(delay)},
			Function: faas.Ref{Name: faas.Name{Namespace: "default", Function: r.PathValue("function")}}, Kind: faas.KindInvoke, Method: "POST",
			Header: map[string][]string{"Content-Type": {"application/json"}}, Body: r.Body, Length: r.ContentLength,
		})
		answer(w, id, err)
	})
	mux.HandleFunc("GET /waiting", func(w http.ResponseWriter, r *http.Request) {
		depths, err := n.queue.Depths(r.Context(), "")
		waiting := []queue.Depth{}
		for _, d := range depths {
			if d.Waiting+d.Running > 0 {
				waiting = append(waiting, d)
			}
		}
		answer(w, waiting, err)
	})
	mux.HandleFunc("GET /standing/{id}", func(w http.ResponseWriter, r *http.Request) {
		s, err := n.dispatch.Standing(r.Context(), "default", faas.ID(r.PathValue("id")))
		answer(w, s, err)
	})
	mux.HandleFunc("GET /activation/{id}", func(w http.ResponseWriter, r *http.Request) {
		a, err := n.journal.Get(r.Context(), "default", faas.ID(r.PathValue("id")))
		answer(w, a, err)
	})
	mux.HandleFunc("GET /calls/{function}", func(w http.ResponseWriter, r *http.Request) {
		all, cursor, err := n.journal.Find(r.Context(), journal.Query{
			Namespace: "default", Function: r.PathValue("function"), Limit: 10_000, NoLogs: true, Cursor: r.URL.Query().Get("cursor"), Calls: true,
		})
		answer(w, page{all, cursor}, err)
	})
	go func() { _ = http.Serve(l, mux) }() // until the process ends
}

type page struct {
	Calls  []*faas.Activation
	Cursor string
}

// inside asks a victim's control.
type inside struct{ client *http.Client }

func (v *victim) inside(dir string) *inside {
	return &inside{&http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", dir+".sock")
	}}}}
}

func (i *inside) ask(ctx context.Context, method, path string, body []byte, into any) error {
	r, err := http.NewRequestWithContext(ctx, method, "http://inside"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := i.client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, bytes.TrimSpace(b))
	}
	return json.Unmarshal(b, into)
}

// firstStep fails the first time for one call in five; its answer says what it was told of itself.
const firstStep = `
def handle(event, context):
    n = event.json()["n"]
    if n % 5 == 0 and context.attempt == 1:
        raise ValueError("the first time fails")
    return {"n": n, "id": context.invocation_id, "attempt": context.attempt}
`

const secondStep = `
def handle(event, context):
    return {"id": context.invocation_id, "cause": context.cause}
`

// asyncCalls returns how many calls there are, and how often the server is killed at each step.
func asyncCalls(t *testing.T) (calls, kills int) {
	n, err := strconv.Atoi(os.Getenv("BRASA_ASYNC_CALLS"))
	switch {
	case os.Getenv("BRASA_ASYNC_CALLS") == "":
		return 1000, 1
	case err != nil:
		t.Fatal(err)
	}
	return n, 2
}

// TestKillAtEveryStepOfACallNobodyWaitsFor kills the server again and again while calls are accepted and
// run, at each step of them, and looks in the end: each call that was acknowledged has succeeded and has
// led to one next call; those that ran twice carry their ID. BRASA_ASYNC_CALLS says how many there
// are; the thousand that it has by itself see each kill once.
func TestKillAtEveryStepOfACallNobodyWaitsFor(t *testing.T) {
	needSandboxes(t)
	dir := filepath.Join(t.TempDir(), "d")
	v := startVictim(t, dir, "")
	retry := faas.Duration(100 * time.Millisecond)
	for name, f := range map[string]struct {
		code  string
		async *faas.Async
	}{"first": {firstStep, &faas.Async{Backoff: retry, OnSuccess: "second"}}, "second": {secondStep, nil}} {
		if _, err := v.client.Deploy(t.Context(), "default", name, api.Spec{Async: f.async}, api.Code{Filename: name + ".py", Reader: strings.NewReader(f.code)}); err != nil {
			t.Fatal(err)
		}
	}
	v.kill()
	steps := []string{"", "async: pulled", "async: ran", "async: before retry", "async: recorded", "async: handed on", "async: done"}
	total, kills := asyncCalls(t)
	rounds := kills * len(steps)
	acknowledged := map[faas.ID]int{}
	n := 0
	for round := range rounds {
		at, most := steps[round%len(steps)], total*(round+1)/rounds
		crash := at
		if at != "" {
			crash = fmt.Sprintf("%s#%d", at, 5+round)
		}
		v := startVictim(t, dir, crash)
		n = pushUntilDead(t, v, dir, acknowledged, n, most)
		if at == "" {
			v.kill() // while some wait and some run
		} else if !died(v, 30*time.Second) {
			t.Fatalf("the server did not come to %q", at)
		}
		t.Logf("killed at %q with %d acknowledged", at, len(acknowledged))
	}
	v = startVictim(t, dir, "")
	in := v.inside(dir)
	emptied := waitLong(func() (left any, ok bool) {
		var waiting []queue.Depth
		err := in.ask(t.Context(), "GET", "/waiting", nil, &waiting)
		return []any{waiting, err}, err == nil && len(waiting) == 0
	})
	if emptied != nil {
		t.Fatalf("not within five minutes: nothing waits; there are %v", emptied)
	}
	next := map[faas.ID]map[faas.ID]bool{}
	for cursor, more := "", true; more; more = cursor != "" {
		var p page
		if err := in.ask(t.Context(), "GET", "/calls/second?cursor="+cursor, nil, &p); err != nil {
			t.Fatal(err)
		}
		for _, a := range p.Calls {
			if next[a.Cause] == nil {
				next[a.Cause] = map[faas.ID]bool{}
			}
			next[a.Cause][a.ID] = true
			if a.Outcome != faas.OK {
				t.Errorf("second step %s: %s", a.ID, a.Error)
			}
		}
		cursor = p.Cursor
	}
	again := 0
	for id, n := range acknowledged {
		var a faas.Activation
		if err := in.ask(t.Context(), "GET", "/activation/"+string(id), nil, &a); err != nil {
			t.Errorf("lost: %s, call %d: %v", id, n, err)
			continue
		}
		want := 1
		if n%5 == 0 {
			want = 2
		}
		again += a.Attempt - want
		if a.Outcome != faas.OK || a.Answer == nil || a.Attempt < want {
			t.Errorf("call %d: %s after %d attempts: %s", n, a.Outcome, a.Attempt, a.Error)
			continue
		}
		var said struct {
			ID      faas.ID
			N       int
			Attempt int
		}
		if err := json.Unmarshal(a.Answer.Body, &said); err != nil || said.ID != id || said.N != n || said.Attempt != a.Attempt {
			t.Errorf("call %d with ID %s, attempt %d, was told %s", n, id, a.Attempt, a.Answer.Body)
		}
		if len(next[id]) != 1 {
			t.Errorf("call %d led to %d calls, want one", n, len(next[id]))
		}
	}
	t.Logf("of %d calls acknowledged none may be lost; %d attempts were made again", len(acknowledged), again)
	if len(acknowledged) < total/2 {
		t.Errorf("only %d calls were acknowledged: the test shows little", len(acknowledged))
	}
}

// TestDeletedFunctionTakesItsCallsAlong deletes a function with calls that wait: a new one of its name
// begins from nothing, and what comes for that one runs.
func TestDeletedFunctionTakesItsCallsAlong(t *testing.T) {
	needSandboxes(t)
	dir := filepath.Join(t.TempDir(), "d")
	v := startVictim(t, dir, "")
	if err := v.deploy(t.Context(), "old"); err != nil {
		t.Fatal(err)
	}
	in := v.inside(dir)
	var old, id faas.ID
	if err := in.ask(t.Context(), "POST", "/enqueue/f?delay=1h", []byte("{}"), &old); err != nil {
		t.Fatal(err)
	}
	if err := v.client.Delete(t.Context(), "default", "f"); err != nil {
		t.Fatal(err)
	}
	var w faas.Waiting
	if err := in.ask(t.Context(), "GET", "/standing/"+string(old), nil, &w); err == nil {
		t.Errorf("a call of the deleted function is %s", w.Stage)
	}
	if err := in.ask(t.Context(), "POST", "/enqueue/f", []byte("{}"), &id); err == nil {
		t.Error("a call of the deleted function was accepted")
	}
	if err := v.deploy(t.Context(), "new"); err != nil {
		t.Fatal(err)
	}
	if err := in.ask(t.Context(), "POST", "/enqueue/f", []byte("{}"), &id); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the call of the new one has succeeded", func() bool {
		return in.ask(t.Context(), "GET", "/standing/"+string(id), nil, &w) == nil && w.Stage == faas.StageSucceeded
	})
}

// pushUntilDead enqueues calls, some at a time, until there are most or the server is dead.
func pushUntilDead(t *testing.T, v *victim, dir string, acknowledged map[faas.ID]int, n, most int) int {
	t.Helper()
	in := v.inside(dir)
	var mu sync.Mutex
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			for {
				mu.Lock()
				mine := n
				if mine >= most {
					mu.Unlock()
					return
				}
				n++
				mu.Unlock()
				var id faas.ID
				err := in.ask(t.Context(), "POST", "/enqueue/first", fmt.Appendf(nil, `{"n":%d}`, mine), &id)
				if err != nil {
					if gone := died(v, 5*time.Second); gone {
						return
					}
					t.Errorf("call %d: %v", mine, err)
					return
				}
				mu.Lock()
				acknowledged[id] = mine
				mu.Unlock()
			}
		})
	}
	work.Wait()
	return n
}

func died(v *victim, within time.Duration) bool {
	select {
	case <-v.dead:
		return true
	case <-time.After(within):
		return false
	}
}

// waitLong returns what is left after five minutes; nil if ok says that all is well before.
func waitLong(ok func() (left any, ok bool)) any {
	deadline := time.After(waitLongest)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		left, fine := ok()
		if fine {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline:
			return left
		}
	}
}

const waitLongest = 5 * time.Minute
