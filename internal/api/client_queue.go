package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Wait says how a call waits whose caller does not. The zero value waits for its turn only.
type Wait struct {
	Key       string // makes several requests one, for a day
	Priority  faas.Priority
	Order     string        // calls of the function with the same word go one after the other
	NotBefore time.Time     // when it is due at the earliest; not together with Delay
	Delay     time.Duration // how long it waits at least, by the server's clock
	OnSuccess faas.Destination
	OnFailure faas.Destination
	Then      []faas.Destination // functions that are called with the answer, one after the other
}

func (w Wait) values() url.Values {
	v := url.Values{}
	set := func(k, s string) {
		if s != "" {
			v.Set(k, s)
		}
	}
	if w.Key != "" { // in quotes, so that any key is what it is
		set("key", `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(w.Key)+`"`)
	}
	set("priority", string(w.Priority))
	set("order", w.Order)
	set("on_success", string(w.OnSuccess))
	set("on_failure", string(w.OnFailure))
	if !w.NotBefore.IsZero() {
		set("not_before", w.NotBefore.UTC().Format(time.RFC3339Nano))
	}
	if w.Delay > 0 {
		set("delay", w.Delay.String())
	}
	var then []string
	for _, d := range w.Then {
		then = append(then, string(d))
	}
	set("then", strings.Join(then, ","))
	return v
}

// Enqueue leaves a call with the server, which runs it when it is its turn. It is durable when
// Enqueue returns.
func (c *Client) Enqueue(ctx context.Context, namespace, name string, opts CallOptions, wait Wait, input io.Reader) (*Accepted, error) {
	r := opts.request("enqueue call", http.MethodPost, c.ns(namespace, "functions", name, "invoke"), false)
	for k, v := range wait.values() {
		r.query[k] = v
	}
	r.header["Prefer"] = []string{"respond-async"}
	r.body = input
	return call[*Accepted](ctx, c, r)
}

// Record asks what is known of a call, and waits up to so long for the end of one whose caller did
// not wait. What is returned then may not be final.
func (c *Client) Record(ctx context.Context, namespace, id string, wait time.Duration) (*Record, error) {
	return whole(call[*Record](ctx, c, request{op: "look up call", method: http.MethodGet, path: c.ns(namespace, "activations", id), query: waitQuery(wait)}))
}

// whole gives the activation in a record what the two share, which is written once.
func whole(r *Record, err error) (*Record, error) {
	if err == nil && r.Activation != nil {
		r.Activation.ID, r.Activation.Namespace, r.Activation.Function, r.Activation.Attempt = r.ID, r.Namespace, r.Function, r.Attempt
	}
	return r, err
}

func waitQuery(wait time.Duration) url.Values {
	if wait <= 0 {
		return nil
	}
	s := min((wait+time.Second-1)/time.Second, longestWait)
	return url.Values{"wait": {strconv.FormatInt(int64(s), 10)}}
}

// Final says whether nothing more comes of the call.
func (r *Record) Final() bool { return r.final() }

// Result returns the answer of a call whose caller did not wait, the function's own bytes. One that
// failed is an error, as if the caller had waited, and so is one that has not ended (Conflict).
func (c *Client) Result(ctx context.Context, namespace, id string) (*Stream, error) {
	s, err := c.stream(ctx, request{op: "read result", method: http.MethodGet, path: c.ns(namespace, "activations", id, "result")})
	if remote, ok := errors.AsType[*Remote](err); ok {
		remote.ID = id // it is the call that failed, not the request for its answer
	}
	return s, err
}

// Cancel ends a call whose caller does not wait, in the queue or while it runs.
func (c *Client) Cancel(ctx context.Context, namespace, id string) (*Record, error) {
	return whole(call[*Record](ctx, c, request{op: "cancel call", method: http.MethodDelete, path: c.ns(namespace, "activations", id)}))
}

// Queues lists how much waits, function by function.
func (c *Client) Queues(ctx context.Context, namespace string) ([]Queue, error) {
	q, err := call[Queues](ctx, c, request{op: "list queues", method: http.MethodGet, path: c.ns(namespace, "queue")})
	return q.Queues, err
}

// Queue says how much of a function waits.
func (c *Client) Queue(ctx context.Context, namespace, name string) (Queue, error) {
	return call[Queue](ctx, c, request{op: "look at queue", method: http.MethodGet, path: c.ns(namespace, "functions", name, "queue")})
}

// Page says which of a list are asked for. Zero values ask for all.
type Page struct {
	Function string
	Stage    faas.Stage // of calls in the queue only
	Limit    int        // 0: the server's default
	Cursor   string     // of the page before
}

func (p Page) values() url.Values {
	v := url.Values{}
	for k, s := range map[string]string{"function": p.Function, "stage": string(p.Stage), "cursor": p.Cursor} {
		if s != "" {
			v.Set(k, s)
		}
	}
	if p.Limit > 0 {
		v.Set("limit", strconv.Itoa(p.Limit))
	}
	return v
}

// Waiting lists the calls in the queue, oldest first.
func (c *Client) Waiting(ctx context.Context, namespace string, p Page) (WaitingCalls, error) {
	return call[WaitingCalls](ctx, c, request{op: "list calls in queue", method: http.MethodGet, path: c.ns(namespace, "queue", "calls"), query: p.values()})
}

// PauseQueue has none of a function's calls that wait begun, or has them begun again.
func (c *Client) PauseQueue(ctx context.Context, namespace, name string, paused bool) (Queue, error) {
	verb := "resume"
	if paused {
		verb = "pause"
	}
	return call[Queue](ctx, c, request{op: verb + " queue", method: http.MethodPost, path: c.ns(namespace, "functions", name, "queue", verb)})
}

// ClearQueue removes for good what waits of a function.
func (c *Client) ClearQueue(ctx context.Context, namespace, name string) (int, error) {
	n, err := call[Cleared](ctx, c, request{op: "clear queue", method: http.MethodDelete, path: c.ns(namespace, "functions", name, "queue")})
	return n.Count, err
}

// DeadLetters lists the calls that were given up, oldest first.
func (c *Client) DeadLetters(ctx context.Context, namespace string, p Page) (DeadLetters, error) {
	return call[DeadLetters](ctx, c, request{op: "list dead letters", method: http.MethodGet, path: c.ns(namespace, "dead-letters"), query: p.values()})
}

// DeadLetter asks for one, with its body.
func (c *Client) DeadLetter(ctx context.Context, namespace, id string) (*DeadLetterInfo, error) {
	return call[*DeadLetterInfo](ctx, c, request{op: "look up dead letter", method: http.MethodGet, path: c.ns(namespace, "dead-letters", id)})
}

// Redrive queues calls anew that were given up, and says how many.
func (c *Client) Redrive(ctx context.Context, namespace string, which DeadSpec) (int, error) {
	return c.dead(ctx, namespace, "redrive", which)
}

// Purge removes calls for good that were given up, and says how many.
func (c *Client) Purge(ctx context.Context, namespace string, which DeadSpec) (int, error) {
	return c.dead(ctx, namespace, "purge", which)
}

func (c *Client) dead(ctx context.Context, namespace, verb string, which DeadSpec) (int, error) {
	n, err := call[Cleared](ctx, c, request{
		op: verb + " dead letters", method: http.MethodPost, path: c.ns(namespace, "dead-letters", verb), contentType: jsonType, body: jsonBody(which),
	})
	return n.Count, err
}
